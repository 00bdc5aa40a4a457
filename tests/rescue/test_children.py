"""Each instrumented program that a command starts is rescued, and all are in one profile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base.errors import LabError
from nbsupport.lab import counts
from nbsupport.lab.counts import Counts
from nbsupport.rescue import live, save
from nbsupport.rescue.rescued import Rescued
from nbsupport.toolchains import profdata
from nbsupport.toolchains.probe import Toolchain
from tests.rescue.programs import PROGRAMS, Compile, Saved, command, pgo_lab, started
from tests.support.processes import running, wait_until

STEPS = 10 * 64  # of one run of the program: its ten rounds, 64 times the body of the loop


def script(folder: Path, *lines: str, by: str = "/bin/sh") -> Path:
    path = folder / "train.sh"
    path.write_text("\n".join((f"#!{by}", *lines, "")))
    path.chmod(0o755)
    return path


def steps(counts: Counts) -> int:
    """Return how often the library's loop was executed, in all processes."""
    return max(n for (name, _), row in counts.items() if name == "library_step" for n in row)


def sources(rescued: Rescued) -> list[tuple[str, str]]:
    return sorted(
        ((process.profile, process.ending) for process in rescued.processes),
        key=lambda row: (row[0], row[1].startswith("exit"), row[1]),
    )


@pytest.fixture
def healthy(compiled: Compile) -> Path:
    return compiled("19")


@pytest.mark.parametrize("how", ["./train.sh", "sh train.sh", "bash train.sh", "make -j2 all"])
def test_a_script_a_shell_and_make(
    compiled: Compile, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """What is not instrumented runs as well; a shell's own exit code is what it is."""
    monkeypatch.chdir(tmp_path)
    program = compiled()
    rules = (f"all: a b c\na b:\n\t@{program} >$@", f"c:\n\t@true && {program} leave || true\n")
    (tmp_path / "makefile").write_text("\n".join(rules))
    script(tmp_path, f"{program} && true", f"(echo x | cat; {program})", f"exec {program} leave")
    rescued, seen = saved(*how.split())
    assert steps(seen) == 3 * STEPS
    assert {process.program for process in rescued.processes} == {str(program)}
    assert sources(rescued) == [("memory", f"exit code {code}") for code in (0, 0, 3)]
    assert not rescued.lost and len(rescued.parts) == 2
    assert rescued.notes == (() if "make" in how else ("it ended with exit code 3",))


def test_fifty_children_one_of_them_killed(compiled: Compile, saved: Saved, tmp_path: Path) -> None:
    program = compiled()
    loop = f"for n in $(seq 50); do {program} $([ $n = 25 ] && echo killed); done 2>/dev/null"
    rescued, seen = saved(script(tmp_path, loop, by="/bin/bash"))
    assert steps(seen) == 50 * STEPS
    assert sources(rescued) == [("memory", "SIGKILL"), *49 * [("memory", "exit code 0")]]
    (line,) = (line for line in rescued.lines() if line.startswith(str(program)))
    assert line.endswith(": processes: 50, saved from memory: 50, ended by SIGKILL: 1")
    document = rescued.to_json()["processes"]
    assert len({process["pid"] for process in document}) == 50
    assert set(document[0]) == {"pid", "program", "ending", "profile"}


def test_many_children_are_added_up_on_the_way(
    compiled: Compile, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What their value sites saw, too."""
    monkeypatch.setattr(save, "_MOST", 3)

    def run(times: int) -> Counter[tuple[str, str]]:
        rescued, _ = saved(script(tmp_path, *times * [f"{compiled()}"]))
        seen = Counter[tuple[str, str]]()
        for (name, _), record in profdata.parse(rescued.path.read_text()).items():
            seen += Counter({(name, f"counter {n}"): c for n, c in enumerate(record.counters)})
            for line in record.rest:
                value, colon, count = line.rpartition(":")
                if colon:
                    seen[name, value] += int(count)
        return seen

    once = run(1)
    assert sum(once.values()) > 2 * STEPS and run(10) == {k: 10 * n for k, n in once.items()}


def test_what_healthy_programs_have_written_is_taken_as_it_is(
    compiled: Compile, healthy: Path, saved: Saved, tmp_path: Path
) -> None:
    """Its memory would do as well; the file alone shows that it was not kept from writing."""
    rescued, seen = saved(script(tmp_path, f"{healthy}", f"{healthy}", f"{healthy} killed"))
    assert sources(rescued) == [
        ("memory", "SIGKILL"),
        ("own", "exit code 0"),
        ("own", "exit code 0"),
    ]
    assert steps(seen) == 3 * STEPS and not rescued.healthy
    rescued, seen = saved(script(tmp_path, f"{healthy}", f"{healthy}"))
    assert {process.profile for process in rescued.processes} == {"own"} and rescued.healthy
    assert rescued.functions == len(seen) == 7
    assert steps(seen) == 2 * STEPS and "# ValueKind" in rescued.path.read_text()
    rescued, seen = saved(script(tmp_path, f"{healthy}", f"{compiled()}"))
    assert [source for source, _ in sources(rescued)] == ["memory", "own"]
    assert {part.record_size: part.functions for part in rescued.parts} == {48: 4, 64: 7}
    assert steps(seen) == 2 * STEPS and rescued.functions == len(seen) == 10


def test_a_program_that_writes_where_its_script_says_is_read_from_memory(
    healthy: Path, saved: Saved, tmp_path: Path
) -> None:
    """A pool (%m) adds to its counters what is in the file: they are copied before."""
    lines = 3 * [f"LLVM_PROFILE_FILE={tmp_path}/%m.profraw {healthy}"]
    rescued, seen = saved(script(tmp_path, *lines))
    assert {process.profile for process in rescued.processes} == {"memory"}
    assert steps(seen) == 3 * STEPS and not rescued.lost
    assert len([path for path in tmp_path.glob("*.profraw") if path.stat().st_size]) == 1


@pytest.mark.parametrize("foreign", ["17", "19"])
def test_a_child_without_a_program_of_its_own(
    compiled: Compile, saved: Saved, foreign: str
) -> None:
    """It begins with its parent's counts, which are there once."""
    rescued, seen = saved(compiled(foreign), "alone")
    assert [process.ending for process in rescued.processes] == 2 * ["exit code 0"]
    assert steps(seen) == STEPS + 64 and not rescued.lost
    assert not rescued.notes


@pytest.mark.parametrize("foreign", ["17", "19"])
def test_an_instrumented_program_starts_others(
    compiled: Compile, saved: Saved, foreign: str
) -> None:
    """By posix_spawn, whose child shares its parent's memory for a while; and by exec."""
    inner = compiled()
    rescued, seen = saved(compiled(foreign), "system", f"{inner} && {inner} become")
    assert [Path(process.program).name for process in rescued.processes] == [
        *2 * [inner.name], compiled(foreign).name,
    ]  # fmt: skip
    assert rescued.lost == (f"what {inner} counted until it became another program",)
    assert steps(seen) == 3 * STEPS


def test_a_child_that_shares_memory_comes_first_to_a_value_site(
    compiled: Compile, saved: Saved
) -> None:
    """What is changed there is changed for its parent, which must be saved as it was."""
    rescued, seen = saved(compiled(), "vfork")
    assert [process.ending for process in rescued.processes] == ["exit code 0"]
    assert steps(seen) == 2 * 64 and not rescued.notes and len(seen) == 7


def test_threads_that_come_to_the_breakpoints_at_once(compiled: Compile, saved: Saved) -> None:
    for _ in range(10):
        rescued, seen = saved(compiled(), "threads")
        assert not rescued.notes and not rescued.lost
        assert 0 < steps(seen) <= 8 * 64  # counters are not atomic


def test_a_library_that_a_program_loads(
    toolchain: Callable[[str], Toolchain], saved: Saved, tmp_path: Path
) -> None:
    """The program is not instrumented, nor anything that it is linked with."""
    library, flags = tmp_path / "library.so", ("-O1", "-fPIC", "-fprofile-generate")
    main, other = toolchain("19").compiler, toolchain("17").compiler
    command(other, *flags, "-c", PROGRAMS / "library_hot.c", "-o", "hot.o", cwd=tmp_path)
    command(main, *flags, "-Dmain=entry", "-c", PROGRAMS / "main.c", "-o", "main.o", cwd=tmp_path)
    command(main, "-fuse-ld=lld", *flags, "-shared", "main.o", "hot.o", "-o", library, cwd=tmp_path)
    line = f"import ctypes; ctypes.CDLL('{library}').entry()"
    rescued, seen = saved(script(tmp_path, *2 * [f'{sys.executable} -c "{line}"']))
    assert len(rescued.processes) == 2 and not rescued.lost and not rescued.notes
    assert steps(seen) % 2 == 0 and len(seen) == 7


def test_a_crash_of_its_own_is_the_scripts_to_see(
    compiled: Compile, saved: Saved, tmp_path: Path
) -> None:
    program = compiled()
    lines = (f"{program} abort", "test $? = 134 || exit 9", f"{program} handle")
    rescued, seen = saved(script(tmp_path, *lines))
    (note,) = rescued.notes
    assert note.startswith(f"{program.name} crashed for a reason of its own: SIGABRT in ")
    assert sources(rescued) == [("memory", "SIGABRT"), ("memory", "exit code 0")]
    assert steps(seen) == 2 * STEPS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whoever_ends_it_ends_all_children_and_gets_their_profiles(
    compiled: Compile, tmp_path: Path, number: signal.Signals
) -> None:
    program = shutil.copy(compiled(), tmp_path / "endless")
    lines = (f"setsid {program} forever 2>>log &", f"{program} forever 2>>log &")
    path = script(tmp_path, ">log", "trap '' TERM", *lines, "sleep 1000")
    with started("-o", "now.proftext", "--", path, cwd=tmp_path) as child:
        log = tmp_path / "log"
        wait_until(lambda: log.exists() and log.read_text().count("stepped") == 2)
        child.send_signal(signal.SIGUSR1)
        wait_until((tmp_path / "now.proftext").exists)
        assert len(running(f"{program} forever")) == 2  # they go on
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
    assert child.returncode == 0 and "when it was asked for" in said
    assert f"{program}: processes: 2, saved from memory: 2, ended by SIGKILL: 2" in said
    assert steps(counts.parse((tmp_path / "now.proftext").read_text())) == 2 * STEPS
    assert not running(str(tmp_path))


def test_the_time_of_all_is_over(compiled: Compile, saved: Saved, tmp_path: Path) -> None:
    program = shutil.copy(compiled(), tmp_path / "endless")
    path = script(tmp_path, f"{program} forever &", f"{program}", f"{program} forever")
    rescued, seen = saved(path, seconds=4.0)
    assert "its time was over" in rescued.notes[0] and steps(seen) == 3 * STEPS
    assert len(rescued.processes) == 3 and not running(str(program))


def test_what_outlives_the_command_is_ended_and_said(
    compiled: Compile, saved: Saved, tmp_path: Path
) -> None:
    program = shutil.copy(compiled(), tmp_path / "endless")
    rescued, seen = saved(script(tmp_path, f"setsid {program} forever >/dev/null &", "sleep 0.5"))
    assert rescued.notes == ("processes that outlived the command, and were ended: 1",)
    assert steps(seen) == STEPS and not running(str(program))


def test_a_process_that_is_stopped_goes_on_when_it_is_told(
    compiled: Compile, saved: Saved, tmp_path: Path
) -> None:
    lines = (
        f"{compiled()} forever >ticks & until test -s ticks; do sleep 0.01; done; kill -STOP $!",
        "until grep -q 'State:.[tT]' /proc/$!/status; do sleep 0.01; done; size=$(wc -c <ticks)",
        "sleep 0.5; test $size = $(wc -c <ticks) || exit 9; kill -CONT $!",
        "until test $size -lt $(wc -c <ticks); do sleep 0.01; done; kill $!; wait $!; exit 0",
    )
    rescued, seen = saved(script(tmp_path, *lines), seconds=60)
    assert not rescued.notes and sources(rescued) == [("memory", "SIGTERM")]
    assert steps(seen) == STEPS


def test_its_streams_and_its_exit_code(compiled: Compile, tmp_path: Path) -> None:
    path = script(tmp_path, f"{compiled()} read | tr a-z A-Z", "exit 7")
    done = pgo_lab("-o", tmp_path / "o.profdata", "--", path, input="a line\n")
    assert done.returncode == 0 and done.stdout == "A LINE\n"
    assert "stepped\n" in done.stderr and "note: it ended with exit code 7" in done.stderr
    done = pgo_lab("--json", "-o", tmp_path / "o.profdata", "--", path, input="a line\n")
    document = json.loads(done.stdout)
    assert [process["profile"] for process in document["processes"]] == ["memory"]
    assert "A LINE" in done.stderr


def test_nothing_is_instrumented(tmp_path: Path) -> None:
    done = pgo_lab("-o", tmp_path / "o.profdata", "--", script(tmp_path, "true; true"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "no image of it is instrumented, nor of what it starts; build it with" in done.stderr


def test_a_defect_of_ours_ends_all_processes(
    compiled: Compile, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(live, "answer", fail)
    program = shutil.copy(compiled(), tmp_path / "endless")
    with pytest.raises(ZeroDivisionError):
        saved(script(tmp_path, "sleep 1000 &", f"{program} forever"))
    assert not running(str(tmp_path))


def test_a_profile_that_cannot_be_written_meanwhile_ends_all_processes(
    compiled: Compile, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LabError("o.profdata", "No space left on device", "make room")

    monkeypatch.setattr(save, "save_family", fail)
    program = shutil.copy(compiled(), tmp_path / "endless")
    path = script(tmp_path, f"{program} forever &", f"kill -USR1 {os.getpid()}", "sleep 1000")
    with pytest.raises(LabError, match="No space left"):
        saved(path)
    assert not running(str(tmp_path))


def test_profiles_of_processes_that_are_not_followed_are_taken_or_missed(
    compiled: Compile, healthy: Path, saved: Saved, tmp_path: Path
) -> None:
    """Files stand for programs of 32 bits: one wrote its profile, one crashed before it could."""
    raw = tmp_path / "raw"
    command("env", f"LLVM_PROFILE_FILE={raw}", healthy)
    lines = ("cd ${LLVM_PROFILE_FILE%/*}", f"cp {raw} 1.profraw", ": >2.profraw", f"{compiled()}")
    rescued, seen = saved(script(tmp_path, *lines))
    assert steps(seen) == 2 * STEPS and rescued.functions == len(seen) == 10
    assert rescued.lost == ("processes that could not be followed, as those of 32 bits: 1",)
    assert [process.profile for process in rescued.processes] == ["memory", "own"]


def test_a_full_disk_is_called_so(
    compiled: Compile, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        saved(script(tmp_path, f"{compiled()}", "sleep 1000"))
    assert not running(str(tmp_path))
