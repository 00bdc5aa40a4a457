"""What the profile runtime does with its file, in runs of real programs."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from nbsupport.base.errors import LabError, MissingError
from nbsupport.lab.lab import Lab
from nbsupport.lab.trial import Trial
from nbsupport.studies import profile_file
from nbsupport.studies.profile_file import Written
from nbsupport.toolchains.probe import Toolchain

strace = pytest.mark.skipif(not shutil.which("strace"), reason="apt-get install strace")
ALL = pytest.mark.parametrize("llvm", ["17", "18", "19", "22", "23"])
Make = Callable[..., Trial]
TWICE = "%m specifier can only be specified once in run_%m_%m.profraw."


@pytest.fixture
def trial(lab: Lab, toolchain: Callable[[str], Toolchain]) -> Make:
    """Return a function that makes a trial of toolchains that are here."""

    def make(program: str, llvm: str = "19", foreign: str = "", **more: str) -> Trial:
        for name in (llvm, foreign or llvm):
            toolchain(name)
        return lab.trial(program, llvm, foreign or llvm, **more)

    return make


def once(lab: Lab, trial: Trial) -> Written:
    return profile_file.run(lab, [trial], "run.profraw")


@ALL
@pytest.mark.parametrize(
    ("pattern", "files", "runs", "says"),
    [
        ("run.profraw", ["run.profraw"], 1, ""),  # the second run replaces the first one's
        ("sub/run.profraw", ["sub/run.profraw"], 1, ""),
        ("%t/run.profraw", ["temp/run.profraw"], 1, ""),
        ("run_%h.profraw", ["run_<host>.profraw"], 1, ""),
        ("run_%p.profraw", ["run_<pid>.profraw"] * 2, 2, ""),
        ("run_%m.profraw", ["run_<signature>.profraw"], 2, ""),
        ("run_%m_%m.profraw", ["default.profraw"], 1, TWICE),
        ("run_%c.profraw", ["run_.profraw"], 0, "_bias"),  # counters cannot be relocated
        ("run_%x.profraw", ["run_%x.profraw"], 1, ""),
        ("run_%x_%p.profraw", ["run__<pid>.profraw"] * 2, 2, ""),
    ],
)
def test_a_pattern_says_where_two_runs_go(
    llvm: str, pattern: str, files: list[str], runs: int, says: str, lab: Lab, trial: Make
) -> None:
    left = profile_file.run(lab, [trial("cold", llvm)] * 2, pattern)
    assert [name for name, _ in left.files] == files
    assert left.times(once(lab, trial("cold", llvm))) == runs
    assert left.found == ("valid" if runs else "skipped without a word")
    assert left.ended == ("exit code 0",) * 2
    assert len(left.said) == bool(says) and says in "".join(left.said)


@ALL
def test_a_pool_adds_up_what_processes_count_at_once(llvm: str, lab: Lab, trial: Make) -> None:
    one, several = trial("cold", llvm), [trial("cold", llvm)] * 8
    for pattern, most in (("run_%m.profraw", 1), ("run_%2m.profraw", 2), ("run_%p.profraw", 8)):
        left = profile_file.run(lab, several, pattern, at_once=True)
        assert (left.times(once(lab, one)), left.found) == (8, "valid")
        assert len(left.files) == most or (most == 2 and len(left.files) == 1)
        assert left.ended == ("exit code 0",)


def test_one_of_many_that_fails_is_told(lab: Lab, trial: Make) -> None:
    both = [trial("hot", "19", "17"), trial("cold")]  # the first dies in main
    left = profile_file.run(lab, both, "run_%p.profraw", at_once=True)
    assert left.ended == ("exit code 139",)
    assert left.found == "skipped without a word; valid"


def test_each_program_has_its_own_file_in_a_pool(lab: Lab, trial: Make) -> None:
    both = [trial("cold"), trial("hot")]
    assert len(profile_file.run(lab, both, "run_%m.profraw").files) == 2
    replaced = profile_file.run(lab, both, "run.profraw")
    assert replaced.times(once(lab, both[1])) == 1
    assert replaced.times(once(lab, both[0])) is None


@pytest.mark.parametrize(
    ("llvm", "foreign", "ended"),
    [  # LLVM 17 wrote nothing before it died, so there is nothing not to be compatible with
        ("17", "19", ("SIGSEGV", "SIGSEGV")),
        ("19", "17", ("SIGSEGV", "exit code 0")),
        ("23", "19", ("SIGSEGV", "exit code 0")),
        ("19", "22", ("exit code 0", "exit code 0")),
    ],
)
def test_a_crash_in_a_pool_is_hidden_from_the_next_run(
    llvm: str, foreign: str, ended: tuple[str, ...], lab: Lab, trial: Make
) -> None:
    mixed = trial("cold", llvm, foreign)
    left = profile_file.run(lab, [mixed] * 2, "run_%m.profraw")
    assert left.ended == ended
    assert any("not compatible" in line for line in left.said) == (len(set(ended)) == 2)
    assert not any(character.isdigit() for line in left.said for character in line)
    assert (left.found == "valid") == ("SIGSEGV" not in ended)


@strace
@ALL
def test_a_kill_leaves_what_was_written_before(llvm: str, lab: Lab, trial: Make) -> None:
    found = profile_file.kill(lab, trial("cold", llvm), "run.profraw")
    rows = [(what, sum(n for _, n in left.files), left.found) for what, left in found]
    start = ["creates or empties it", "closes it", "leaves main", "opens it"]
    assert [row[0] for row in rows[:4]] == start
    assert [row[0] for row in rows[-2:]] == ["closes it", "ends"]
    assert [row[1:] for row in rows[:2]] == [(0, "no file"), (0, "skipped without a word")]
    written = 0
    for doing, size, said in rows[4:-2]:
        assert size == written and said != "valid"
        written += int(doing.split()[1])
    assert [row[1:] for row in rows[-2:]] == [(written, "valid")] * 2
    # LLVM 17 writes all in one call; later writers seek before the values, which flushes.
    assert len(rows[4:-2]) == {"17": 1, "18": 2}.get(llvm, 3)


@strace
@ALL
def test_a_kill_in_a_pool_loses_the_earlier_runs(llvm: str, lab: Lab, trial: Make) -> None:
    one = trial("cold", llvm)
    found = profile_file.kill(lab, one, "run_%m.profraw", earlier=1)
    counted = [left.times(once(lab, one)) for _, left in found]
    doing = [what.partition(" ")[0] for what, _ in found]
    assert doing[:5] == ["leaves", "opens", "locks", "maps", "cuts"] and counted[:5] == [1] * 5
    assert set(doing[5:-2]) == {"writes"} and counted[5:-2] == [0] * len(doing[5:-2])
    assert doing[-2:] == ["closes", "ends"] and counted[-2:] == [2, 2]


@strace
@ALL
def test_a_kill_in_continuous_mode_loses_nothing(llvm: str, lab: Lab, trial: Make) -> None:
    one = trial("continuous", llvm, main_instrument="front-end")
    left = dict(profile_file.kill(lab, one, "run_%c.profraw"))
    assert left["maps it"].times(once(lab, one)) == 0
    assert left["leaves main"].times(once(lab, one)) == 1
    # With value sites it never works: no values are written.
    by_ir = profile_file.run(lab, [trial("continuous", llvm)], "run_%c.profraw")
    assert by_ir.found == "truncated profile data"


@strace
@pytest.mark.parametrize(("llvm", "foreign"), [("19", "17"), ("17", "19"), ("23", "22")])
def test_only_the_file_writer_compares(llvm: str, foreign: str, lab: Lab, trial: Make) -> None:
    trial("cold", llvm, foreign)
    found = profile_file.try_readers(lab, llvm, foreign)
    kinds = {way: [one.kind for one in row.values()] for way, row in found.items()}
    at_exit, explicit, forked, hot, buffer, front_end, front_end_buffer = kinds.values()
    assert at_exit == explicit == ["ok", "crash", "version-mismatch"]
    assert forked == ["ok", "failed", "version-mismatch"]  # the parent lives, and says so
    assert hot == ["ok", "crash", "crash"]
    assert buffer == ["malformed"] * 3  # the values of its sites are missing
    assert set(front_end[1:]) <= {"crash", "malformed"}
    assert front_end[0] == "ok" and front_end_buffer == ["ok", "malformed", "malformed"]
    dead = [found[way]["main first"].crash for way in tuple(found)[:3]]
    assert all(one and one.function == "initializeValueProfRuntimeRecord" for one in dead)
    assert len({one.frames[0].offset for one in dead if one}) == 1
    shown = profile_file.show_readers(found).text
    assert "in a forked child" in shown and "__llvm_profile_instrument_target" in shown


@pytest.mark.parametrize("pattern", ["", "/run.profraw", "../run.profraw", "%t/../../x", "a\0b"])
def test_a_profile_stays_in_its_folder(pattern: str, lab: Lab, trial: Make) -> None:
    with pytest.raises(LabError, match="profile name"):
        profile_file.run(lab, [trial("cold")], pattern)
    with pytest.raises(LabError, match="profile name"):
        profile_file.kill(lab, trial("cold"), pattern)


@strace
def test_without_a_tracer_nothing_is_killed(
    lab: Lab, trial: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, found = trial("cold"), shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if "trace" in str(name) else found(name))
    with pytest.raises(MissingError, match="strace is not here"):
        profile_file.kill(lab, one, "run.profraw")


def test_what_is_left_is_shown_without_what_differs(lab: Lab, trial: Make) -> None:
    one = trial("cold")

    def shown() -> str:
        found = [(name, profile_file.run(lab, [one] * 2, name)) for name in ("%p_%h_7", "7_%m.x")]
        return profile_file.table("name", found, once(lab, one)).text

    first = shown()
    assert first == shown()
    assert all(word in first for word in ("<pid>_<host>_7,", "(2 files)", "7_<signature>.x"))
