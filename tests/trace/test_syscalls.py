"""System calls of real programs, and the story of the profile in healthy and crashed runs."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base.errors import LabError, MissingError
from nbsupport.base.settings import MIB, Limits
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.trace import syscalls
from nbsupport.trace.syscalls import Calls, profile_story, trace, why_empty

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="apt-get install strace")
QUICK = Limits(seconds=10, memory=256 * MIB, output=1 * MIB, file=64 * MIB)
#: The steps of a healthy run, without and with a merge pool.
PLAIN = ["created", "opened", "written", "closed", "exited"]
POOL = ["opened", "locked", "truncated", "written", "closed", "exited"]


def sh(script: str, folder: Path, limits: Limits = QUICK) -> Calls:
    return trace(["/bin/sh", "-c", script], cwd=folder, limits=limits)


def seen(calls: Calls, profile: str) -> list[str]:
    return [step.what for step in profile_story(calls, profile) if step.seen]


@pytest.fixture
def profiled(lab: Lab, tmp_path: Path) -> Callable[..., Calls]:
    """Return a function that traces a program of two toolchains with a profile of that name."""

    def run(name: str, program: str, main: str, foreign: str, order: str = "main-first") -> Calls:
        path = build.linked(lab.trial(program, main, foreign, order=order), lab.cache)
        return trace([path], cwd=tmp_path, env={"LLVM_PROFILE_FILE": str(tmp_path / name)})

    return run


@pytest.mark.parametrize("llvm", ["17", "18", "19", "22", "23"])
@pytest.mark.parametrize(("name", "steps"), [("run.profraw", PLAIN), ("r_%m.profraw", POOL)])
def test_a_healthy_run_has_every_step(
    llvm: str, name: str, steps: list[str], profiled: Callable[..., Calls], tmp_path: Path
) -> None:
    for _ in range(2):  # the second finds the first one's profile, and merges into a pool's
        calls = profiled(name, "cold", llvm, llvm)
        assert calls.done and calls.done.ok and not calls.note
        story = profile_story(calls, name)
        assert [(step.what, step.seen) for step in story] == [(what, True) for what in steps]
        assert why_empty(calls, name) == ""
    (written,) = tmp_path.glob("*.profraw")
    if steps is PLAIN:
        assert story[2].detail == f"{written.stat().st_size} bytes"
    assert profile_story(calls, written.name) == story
    assert story[-1].detail == "exit code 0"
    assert re.fullmatch(r"strace \d+\.\d+", calls.tool)


@pytest.mark.parametrize("name", ["run.profraw", "r_%m.profraw"])
@pytest.mark.parametrize(("main", "foreign"), [("19", "17"), ("23", "19")])
def test_a_crash_in_main_never_opens_the_profile(
    name: str, main: str, foreign: str, profiled: Callable[..., Calls], tmp_path: Path
) -> None:
    calls = profiled(name, "hot", main, foreign)
    assert seen(calls, name) == (["created"] if name == "run.profraw" else [])
    steps = PLAIN if name == "run.profraw" else POOL
    assert [step.what for step in profile_story(calls, name)] == steps
    assert why_empty(calls, name) == "killed by SIGSEGV, before the profile was written"
    assert [p.stat().st_size for p in tmp_path.glob("*.profraw")] == [0] * (name == "run.profraw")
    assert calls.done and calls.done.signal_name == "SIGSEGV"
    assert any(row.name == "SIGSEGV" and "si_addr" in row.arguments for row in calls.rows)


@pytest.mark.parametrize("name", ["run.profraw", "r_%m.profraw"])
@pytest.mark.parametrize(("main", "foreign"), [("17", "19"), ("19", "17"), ("23", "19")])
def test_a_crash_while_writing_loses_what_is_in_the_buffer(
    name: str, main: str, foreign: str, profiled: Callable[..., Calls], tmp_path: Path
) -> None:
    calls = profiled(name, "cold", main, foreign)
    (left,) = tmp_path.glob("*.profraw")
    steps = {step.what: step for step in profile_story(calls, name)}
    assert steps["opened"].seen and not steps["closed"].seen and not steps["exited"].seen
    # Until LLVM 17 the runtime never seeks; then nothing of so small a profile is in the file.
    assert (left.stat().st_size == 0) == (main == "17") == (not steps["written"].seen)
    why = "killed by SIGSEGV, while the profile was written"
    assert why_empty(calls, name) == (why if main == "17" else "")


@pytest.mark.parametrize(("main", "foreign"), [("19", "17"), ("17", "19"), ("23", "19")])
def test_a_version_mismatch_exits_well_and_writes_nothing(
    main: str, foreign: str, profiled: Callable[..., Calls]
) -> None:
    calls = profiled("run.profraw", "cold", main, foreign, "foreign-first")
    assert seen(calls, "run.profraw") == ["created", "exited"]
    why = "Runtime and instrumentation version mismatch, before the profile was written"
    assert why_empty(calls, "run.profraw") == f"LLVM Profile Error: {why}"


def test_a_profile_that_cannot_be_made_says_why(profiled: Callable[..., Calls]) -> None:
    calls = profiled("/dev/full/run.profraw", "cold", "19", "19")
    assert "created: failed: ENOTDIR" in why_empty(calls, "run.profraw")


def test_only_the_programs_own_end_counts(tmp_path: Path) -> None:
    calls = sh("(exit 3) & wait; (exec sleep 0); kill -SEGV $$", tmp_path)
    ends = [(row.name, row.result) for row in calls.rows if row.name in ("exited", "killed")]
    assert sorted(ends) == [("exited", "0"), ("exited", "3"), ("killed", "SIGSEGV")]
    assert {"exit_group", "wait4"} <= {row.name for row in calls.rows}
    assert why_empty(calls, "x") == "killed by SIGSEGV, before the profile was written"


def test_calls_have_paths_sizes_results_and_an_order(tmp_path: Path) -> None:
    odd = 'a "b" é<3>.txt'
    calls = sh(f"printf 123456789 > '{odd}'; cat nothing; exit 7", tmp_path)
    assert calls.done and (calls.done.exit_code, calls.rows[0].time) == (7, 0.0)
    made = next(row for row in calls.rows if "O_CREAT" in row.arguments)
    assert made.path == str(tmp_path / odd)
    (wrote,) = (row for row in calls.rows if row.size == 9)
    assert (wrote.name, wrote.path, wrote.result) == ("write", made.path, "9")
    assert str(tmp_path) not in made.arguments + made.result + wrote.arguments
    assert any("ENOENT" in row.result and row.path == "nothing" for row in calls.rows)
    times = [row.time for row in calls.rows]
    assert times == sorted(times) and times[-1] > 0


THREADS = """
import threading, os
def work(n):
    for _ in range(50): os.close(os.open(f"{n}", os.O_CREAT | os.O_RDWR))
ts = [threading.Thread(target=work, args=(n,)) for n in "ab"]
[t.start() for t in ts]; [t.join() for t in ts]
"""


def test_threads_interrupt_each_other_and_no_call_is_lost(tmp_path: Path) -> None:
    calls = trace([sys.executable, "-I", "-S", "-c", THREADS], cwd=tmp_path, limits=QUICK)
    for name in "ab":
        mine = [row for row in calls.rows if row.path == str(tmp_path / name)]
        assert [row.name for row in mine] == ["openat", "close"] * 50
        assert len({row.thread for row in mine}) == 1
    assert len({row.thread for row in calls.rows}) == 3


def test_unfinished_calls_are_joined_and_strange_lines_left_out() -> None:
    lines = ["7 5.0 close(3</a> <unfinished ...>\n", "8 5.5 close(4</b>) = 0\n", "nonsense\n"]
    lines += ["7 6.0 <... close resumed>) = 0\n", "8 7.0 <... close resumed>) = 0\n", "9 8.0 x("]
    found = list(syscalls._parse(lines))
    assert [(row.time, row.thread, row.path) for row in found] == [(0.5, 8, "/b"), (0.0, 7, "/a")]


def test_programs_that_misbehave_keep_their_calls(tmp_path: Path) -> None:
    loud = sh("touch first; exec yes", tmp_path)
    endless = sh("touch first; while :; do :; done", tmp_path, Limits(seconds=1))
    busy = sh("touch first; while :; do : > f; done", tmp_path, Limits(seconds=60, file=MIB))
    for calls, limit in ((loud, "output"), (endless, "time"), (busy, "output")):
        assert calls.note == f"stopped at the {limit} limit"
        assert any(row.path.endswith("/first") for row in calls.rows)
    assert why_empty(endless, "x") == "stopped at the time limit, before the profile was written"


def test_standard_input_is_empty_and_a_million_reads_cost_nothing(tmp_path: Path) -> None:
    script = "import os, sys\nassert not sys.stdin.read()\nzero = os.open('/dev/zero', 0)\n"
    script += "for _ in range(10**6): os.read(zero, 1)"  # each stopped at, it would be a minute
    calls = trace([sys.executable, "-ISc", script], cwd=tmp_path, limits=QUICK)
    assert calls.done and calls.done.ok and "read" not in {row.name for row in calls.rows}


def test_what_is_no_program_is_an_error(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"\x7fELF\x02\x01\x01 of no machine")
    for mode, error, says in ((0o644, MissingError, "no such program"), (0o755, LabError, "Exec")):
        wrong.chmod(mode)
        with pytest.raises(error, match=says):
            trace([wrong], cwd=tmp_path)


def test_without_strace_there_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    calls = trace(["/bin/true"], cwd=tmp_path)
    assert (calls.rows, calls.done) == ((), None)
    assert "strace is not here; install it" in calls.note == why_empty(calls, "x")


def test_where_ptrace_is_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A traced program may not trace: this is how the kernel refuses.
    real, stand_in = shutil.which("strace"), tmp_path / "strace"
    stand_in.write_text(f'#!/bin/sh\nexec {real} -f -o /dev/null {real} "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    calls = trace(["/bin/true"], cwd=tmp_path)
    assert calls.rows == () and calls.done and not calls.done.ok
    assert re.search("PTRACE_.*Operation not permitted.*ptrace_scope.*SYS_PTRACE", calls.note)
    assert profile_story(calls, "x")[-1].detail == calls.note
