"""Workarounds are judged by runs of real programs: none of the notes' helps, the cause's do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbsupport.base import process, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.lab import build, counts
from nbsupport.lab.lab import Lab, environment
from nbsupport.lab.outcome import Outcome
from nbsupport.lab.trial import Trial
from nbsupport.studies import workarounds
from nbsupport.studies.build_change import BuildChange
from nbsupport.studies.workarounds import Row
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain

KNOWN = {each.id: each for each in workarounds.load()}
NOTES = [each.id for each in KNOWN.values() if each.source == "notes"]
CAUSE = [each.id for each in KNOWN.values() if each.source == "cause"]
CURES = ["cc-of-main", "cc-of-raw-version"]
NO_LIBRARY = ["c-not-instrumented", "gcc", "without-c"]
SITE, WRITER = "__llvm_profile_instrument_target", "initializeValueProfRuntimeRecord"


@pytest.fixture(scope="module")
def tried(lab: Lab, toolchain: Callable[[str], Toolchain]) -> dict[str, Row]:
    """Every workaround on the user's case: mimalloc, LLVM 19 with a C part by 17."""
    for name in ("17", "19", "22"):
        toolchain(name)
    return {row.workaround.id: row for row in workarounds.try_all(lab, "mimalloc", "19", "17")}


def test_everything_that_the_notes_name_is_tried(tried: dict[str, Row]) -> None:
    assert list(tried) == list(KNOWN) == ["nothing", *NOTES, *CAUSE]
    assert tried["nothing"].verdict == "does not help"
    assert [name for name, row in tried.items() if not row.trial] == ["mach-vm-protect"]
    assert tried["mach-vm-protect"].verdict == "not tried"
    other = {row.program: row.case for row in tried.values() if row.program != "mimalloc"}
    assert list(other) == ["jemalloc", "rust-mimalloc"]
    assert all(case and case.kind == "crash" for case in other.values())
    assert tried["mach-vm-protect"].why == "on linux: mach_vm_protect is a call of macOS"


def test_no_workaround_of_the_notes_saves_the_profile(tried: dict[str, Row]) -> None:
    verdicts = {name: tried[name].verdict for name in NOTES if tried[name].trial}
    assert verdicts.pop("skip") == "no crash, no profile"
    assert set(verdicts.values()) == {"does not help"}
    dead = {name: tried[name].why for name in verdicts}
    assert (
        dead.pop("global-allocator") == f"dies in {WRITER}"
    )  # never resized in place: no site runs
    assert set(dead.values()) == {f"dies in {SITE}"}


def test_what_agrees_on_the_raw_version_cures(tried: dict[str, Row]) -> None:
    verdicts = {name: tried[name].verdict for name in CAUSE}
    bare = tried["without-c"].trial
    assert bare and not bare.program.library
    for name in CURES:
        row = tried[name]
        assert (
            verdicts.pop(name) == "whole profile"
            and row.right == row.functions
            and min(row.right) > 2
        )
        assert row.values > 0 and row.rebuilt == ("library",)
    for name in NO_LIBRARY:
        lost = tried[name].functions[1]
        assert lost > 300
        assert verdicts.pop(name) == f"no crash, lacks {lost} of {lost} functions of library"
        assert 0 < tried[name].values < tried[name].usual_values
    assert verdicts == dict.fromkeys(("library-first", "no-values"), "does not help")
    assert tried["no-values"].why == f"dies in {WRITER}"  # no site runs, but records are read


def test_with_one_llvm_no_change_does_harm(tried: dict[str, Row]) -> None:
    controls = {name: str(row.to_row()["control"]) for name, row in tried.items() if row.trial}
    assert controls.pop("buffer") == "malformed"  # the values of its sites are missing
    assert controls.pop("skip") == "no-profile"
    assert set(controls.values()) == {"ok"} and len(controls) == len(KNOWN) - 3


def test_the_tables_say_the_same_of_every_run(lab: Lab, tried: dict[str, Row]) -> None:
    again = workarounds.try_all(lab, "mimalloc", "19", "17")
    first = workarounds.table(tuple(tried.values())).text
    assert workarounds.table(again).text == first and "/" not in first
    rows = [[row.to_row() for row in rows] for rows in (tried.values(), again)]
    for row in (*rows[0], *rows[1]):
        measured = {row.pop("build"), row.pop("run")}
        assert (None in measured) == row["verdict"].startswith(("does", "not"))
    assert rows[0] == rows[1]
    costs = workarounds.show_costs(again).text
    assert all(each.what in costs and each.needs in costs for each in KNOWN.values())


@pytest.mark.parametrize(("llvm", "foreign"), [("19", "17"), ("23", "22"), ("19", "22")])
def test_a_library_without_hot_sites_survives_more(
    lab: Lab, toolchain: Callable[[str], Toolchain], llvm: str, foreign: str
) -> None:
    for name in (llvm, foreign):
        toolchain(name)
    only = ("skip", "fork", "buffer", "library-first", "no-values")
    rows = {r.workaround.id: r for r in workarounds.try_all(lab, "cold", llvm, foreign, only=only)}
    verdicts = {name: row.verdict for name, row in rows.items()}
    if (llvm, foreign) == ("19", "22"):  # of one raw version: healthy
        assert verdicts == dict.fromkeys(only, "not needed")
        return
    assert [verdicts.pop(name) for name in ("fork", "no-values")] == ["does not help"] * 2
    assert set(verdicts.values()) == {"no crash, no profile"}
    assert rows["fork"].why.endswith("the child is dead of signal 11")


def test_a_workaround_is_as_good_as_where_it_is_worst(
    lab: Lab, toolchain: Callable[[str], Toolchain]
) -> None:
    """mimalloc dies before it writes; of writing otherwise the other two programs tell."""
    toolchain("17")
    programs = ("mimalloc", "cold", "mimalloc-no-realloc")
    fared = workarounds.try_each(lab, programs, "19", "17", whole=False)
    assert tuple(fared) == programs
    steps = {name: {row.workaround.id: row.step for row in rows} for name, rows in fared.items()}
    site, write = "dies at a value site", "dies in the write"
    assert {steps["mimalloc"][name] for name in ("fork", "explicit", "buffer")} == {site}
    for name in programs[1:]:
        assert (steps[name]["nothing"], steps[name]["explicit"]) == (write, write)
        assert steps[name]["fork"] == "main ends: with an error"  # its child is dead
        assert steps[name]["buffer"] == "main ends: no profile"
        assert steps[name]["cc-of-main"] == "main ends: whole profile"
    assert "mimalloc-keeps" not in steps["cold"]  # it has no mimalloc
    assert steps["mimalloc-no-realloc"]["mimalloc-keeps"] == write
    worst = {row.workaround.id: row for row in workarounds.worst(fared)}
    assert (worst["buffer"].verdict, worst["buffer"].program) == ("does not help", "mimalloc")
    assert worst["cc-of-main"].verdict == "whole profile"
    lines = workarounds.show_steps(fared).text.splitlines()
    assert lines[0].split()[2:5] == list(programs) and len(lines) == len(worst) + 1
    (line,) = [line for line in lines if line.startswith("mimalloc-keeps ")]
    assert line.count(" - ") == 1


def row_of(kind: Any, right: tuple[int, ...], values: int) -> Row:
    case, found = Outcome("crash", ""), Outcome(kind, "")
    row = Row(KNOWN["nothing"], "cold", case=case, outcome=found, right=right, functions=(3, 6))
    return dataclasses.replace(row, values=values, usual_values=9)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (row_of("ok", (3, 6), 9), "whole profile"),
        (row_of("ok", (3, 6), 0), "no crash, lacks all values"),
        (row_of("wrong-counts", (3, 5), 9), "no crash, lacks 1 of 6 functions of library"),
        (row_of("malformed", (0, 0), 0), "no crash, no profile"),
        (row_of("failed", (3, 6), 9), "does not help"),
    ],
)
def test_a_verdict_follows_from_what_was_seen(row: Row, verdict: str) -> None:
    assert row.verdict == verdict


def test_only_equal_counts_are_right() -> None:
    main: counts.Expected = {("f", 1): (7, 0), ("chance", 1): None}
    library: counts.Expected = {("g", 1): (5,), ("h", 1): (1,)}
    seen = {("f", 1): (7, 0), ("chance", 1): (8,), ("g", 1): (6,), ("h", 2): (1,)}
    assert workarounds._right(seen, [main, library]) == (2, 0)


# -- each change changes what it says


def made(lab: Lab, name: str, program: str) -> Trial:
    return KNOWN[name].changed(lab, program, "19", "19")


def test_mimalloc_reads_its_variables(lab: Lab, tmp_path: Path) -> None:
    trial = made(lab, "mimalloc-keeps", "mimalloc")
    env = {**environment(tmp_path), **dict(trial.environment), "MIMALLOC_VERBOSE": "1"}
    said = process.run([build.linked(trial, lab.cache)], cwd=tmp_path, env=env).stderr.lower()
    for name in ("page_reset", "abandoned_page_decommit", "allow_decommit", "destroy_on_exit"):
        assert f"option '{name}': 0" in said
    for name in ("decommit_delay", "segment_decommit_delay"):
        assert f"option '{name}': 100000" in said


def test_a_variable_reaches_the_program_and_its_debugger(lab: Lab) -> None:
    trial = made(lab, "jemalloc-keeps", "jemalloc")
    ((name, value),) = trial.environment
    assert lab.run(trial).kind == "ok"
    refused = dataclasses.replace(trial, environment=((name, f"{value},abort_conf:true,no:1"),))
    dead = lab.run(refused)
    assert (dead.kind, dead.signal) == ("crash", "SIGABRT") and dead.crash and dead.crash.frames
    accepted = dataclasses.replace(trial, environment=((name, f"abort_conf:true,{value}"),))
    assert lab.run(accepted).kind == "ok"
    assert len({one.digest for one in (trial, refused, accepted)}) == 3


def test_a_wrapped_allocator_frees_nothing(lab: Lab) -> None:
    def freed(trial: Trial) -> int:
        seen = counts.parse(lab.run_once(trial)[0])
        return sum(sum(each) for (name, _), each in seen.items() if name == "mi_free")

    assert freed(made(lab, "nothing", "rust-mimalloc")) > 0
    assert freed(made(lab, "global-allocator", "rust-mimalloc")) == 0


def test_values_are_where_the_flags_put_them(lab: Lab) -> None:
    def nodes(name: str) -> list[bool]:
        objects = [build.compiled(job, lab.cache) for job in build.jobs(made(lab, name, "cold"))]
        return [b"__llvm_prf_vnds" in each.read_bytes() for each in objects]

    assert nodes("nothing") == nodes("static-values") == [True, True]
    assert nodes("heap-values") == nodes("no-values") == [False, False]


@pytest.mark.parametrize(("flags", "ended"), [((), None), (KNOWN["mprotect"].main, "SIGSEGV")])
def test_what_is_protected_cannot_be_written(
    clang: Path, tmp_path: Path, flags: tuple[str, ...], ended: str | None
) -> None:
    body = "".join(f"int f{n}(int x) {{ return x + {n}; }}\n" for n in range(300))
    body += "const void *__llvm_profile_begin_data(void);\nint main(void) {\n"
    body += "volatile char *at = (char *)__llvm_profile_begin_data() + 9000; *at = *at; return 0; }"
    source, program = tmp_path / "main.c", tmp_path / "main"
    source.write_text(body)
    lld = ["-fuse-ld=lld"] if clang.with_name("ld.lld").exists() else []
    command: process.Command = [
        clang,
        *lld,
        "-Wall",
        "-Werror",
        *flags,
        "-fprofile-generate",
        source,
    ]
    folder = settings.data_dir() / "programs"
    built = process.run([*command, "-o", program], cwd=folder, limits=settings.COMPILER)
    assert built.ok, built.stderr
    done = process.run([program], cwd=tmp_path, env=environment(tmp_path))
    assert done.signal_name == ended


# -- what is missing or wrong


def test_what_a_workaround_needs_and_lacks_is_its_row(
    lab: Lab, toolchain: Callable[[str], Toolchain], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str, **_: Any) -> Toolchain:
        raise MissingError(f"{name} of this test", "not here", "get it")

    find = discovery.find
    toolchain("18")
    monkeypatch.setattr(discovery, "find_rustc", missing)
    monkeypatch.setattr(discovery, "find", lambda n, **k: (missing if n == "gcc" else find)(n, **k))
    only = ("c-not-instrumented", "gcc", "global-allocator", "cc-of-raw-version")
    with Lab(lab.cache) as poor:
        rows = workarounds.try_all(poor, "cold", "18", "17", only=only)
    why = {row.workaround.id: row.why for row in rows if row.verdict == "not tried"}
    assert why == {
        "gcc": "gcc of this test: not here",
        "global-allocator": "18 of this test: not here",
        "cc-of-raw-version": "a clang of another LLVM with raw version 9: there is none here",
    }
    assert len(rows) == 4 and "not here" in workarounds.table(rows).text


@pytest.mark.parametrize(
    ("program", "foreign", "only", "message"),
    [
        ("tepid", "17", (), "choose from cold"),
        ("cold", "99", (), "toolchain 99: not found"),
        ("cold", "17", ("pray",), "workaround pray: there is none; choose from nothing"),
    ],
)
def test_a_case_that_cannot_be_is_refused(
    lab: Lab, program: str, foreign: str, only: tuple[str, ...], message: str
) -> None:
    with pytest.raises(LabError, match=message):
        workarounds.try_all(lab, program, "19", foreign, only=only)


def test_a_change_that_does_not_build_does_not_help(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = BuildChange("broken", "notes", "", "", main=("-DALLOCATOR=none",))
    monkeypatch.setattr(workarounds, "load", lambda: (broken,))
    (row,) = workarounds.try_all(lab, "cold", "19", "17")
    assert row.outcome and row.outcome.kind == "build-failed"
    assert row.verdict == "does not help" and "undefined symbol" in row.why


def test_the_time_of_a_build_is_kept(lab: Lab, tmp_path: Path) -> None:
    trial = lab.trial("cold", "19", "17")
    build.linked(trial, tmp_path)
    assert 0 < build.seconds(trial, tmp_path) < 60
    for note in tmp_path.rglob("*.seconds"):
        note.unlink()
    assert build.seconds(trial, tmp_path) == 0


def test_what_takes_long_is_tried_in_the_whole_or_on_a_program_that_it_is_for(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing, *others = workarounds.load()
    slow = next(one for one in others if one.whole)
    slow = dataclasses.replace(slow, on=("hot",), environment=())
    monkeypatch.setattr(workarounds, "load", lambda: (nothing, slow))

    def tried(program: str, **how: Any) -> list[str]:
        rows = workarounds.try_all(lab, program, "19", "17", **how)
        return [row.workaround.id for row in rows]

    assert tried("cold", whole=False) == [nothing.id]
    assert tried("hot", whole=False) == tried("cold") == [nothing.id, slow.id]
    assert tried("cold", whole=False, only=[slow.id]) == [slow.id]
