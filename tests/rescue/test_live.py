"""A program that runs under rescue does not crash, and its profile is whole, however it ends.

By ptrace, and by LLDB, which is for macOS.
"""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nbsupport.audit import machine_code
from nbsupport.crash import family
from nbsupport.lab import counts
from nbsupport.lab.lab import Lab
from nbsupport.rescue import live, rescue
from nbsupport.studies import rescued_counts
from nbsupport.toolchains.probe import Toolchain
from tests.rescue.programs import (
    ENVIRONMENT,
    PROGRAMS,
    Compile,
    Saved,
    command,
    expected,
    linked,
    started,
    strip,
    uniform,
)


@pytest.fixture(autouse=True, params=["ptrace", "lldb"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what follows the program."""
    if request.param == "lldb":
        monkeypatch.setattr(family, "able", lambda: False)
    return str(request.param)


@pytest.mark.parametrize(
    ("program", "main", "foreign", "stripped"),
    [
        ("hot", "19", "17", True),
        ("rich", "17", "23", True),
        ("hot", "23", "18", True),
        ("mimalloc", "19", "17", True),
        ("jemalloc", "17", "19", False),
        ("rust-mimalloc", "19", "17", False),
        ("rust-jemalloc", "19", "23", True),
    ],
)
def test_stripped_programs_allocators_and_rust(
    lab: Lab, tmp_path: Path, program: str, main: str, foreign: str, stripped: bool
) -> None:
    """mimalloc looks at the clock: once in a hundred runs it counts otherwise."""
    trial, path = linked(lab, program, main, foreign, order="foreign-first")
    path = strip(path, tmp_path) if stripped else path
    out = tmp_path / "saved.profdata"
    for _ in range(5):
        found = rescue.run([path], out, env=ENVIRONMENT, cwd=tmp_path)
        assert not found.notes and not found.lost and not found.healthy
        seen, wanted = rescued_counts.read_functions(out), uniform(lab, trial, tmp_path)
        if wrong := [key for key in {**seen, **wanted} if seen.get(key) != wanted.get(key)]:
            continue
        return
    pytest.fail(str(wrong))


@pytest.mark.parametrize(
    ("what", "note"),
    [
        ("abort", "crashed for a reason of its own: SIGABRT"),
        ("leave", "exit code 3"),
        ("become", "exit code 7.*|.*became another program"),
        ("handle", ""),
    ],
)
def test_however_it_ends_there_is_a_profile(
    compiled: Compile, saved: Saved, what: str, note: str
) -> None:
    found, seen = saved(compiled(), what)
    assert re.search(note, " ".join(found.notes)) if note else not found.notes
    assert (
        max(n for (name, _), row in seen.items() if name == "library_step" for n in row) == 10 * 64
    )


def test_a_runtime_that_is_not_recognized_crashes_and_its_counters_are_saved(
    compiled: Compile, saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "VALUE_SITES", ())
    monkeypatch.setattr(machine_code, "value_functions", lambda *_: [])
    found, seen = saved(compiled())
    assert "in its profile runtime, which could not be kept from it: SIGSEGV" in found.notes[0]
    assert len(seen) == 7


def test_lldb_loses_forked_children_and_says_so(lab: Lab, saved: Saved, by: str) -> None:
    _, path = linked(lab, "forked", "19", "17")
    found, seen = saved(path)
    assert any("forked children" in one for one in found.lost) == (by == "lldb")
    assert sum(row[0] for (name, _), row in seen.items() if name == "main") == 300


def test_a_child_that_is_forked_does_not_crash_either(compiled: Compile, saved: Saved) -> None:
    """It comes to a value site before its parent does, and has no debugger."""
    found, _ = saved(compiled(), "fork")
    assert not found.notes  # such as its parent's exit code


def test_a_program_that_writes_twice_is_counted_once(lab: Lab, saved: Saved) -> None:
    """The runtime appends a second profile to its file, and llvm-profdata adds both up."""
    trial, path = linked(lab, "explicit", "19", "17")
    _, seen = saved(path)
    twice = expected(lab, trial)
    assert {key: tuple(2 * n for n in row) for key, row in seen.items()} == twice


@pytest.mark.parametrize("link", [("-static",), ("-static", "-s")])
def test_a_static_program(compiled: Compile, saved: Saved, link: tuple[str, ...]) -> None:
    """Stripped, nothing says where it ends, either: it is where its profile would be written."""
    found, seen = saved(compiled("17", *link))
    assert not found.notes and len(seen) == 7


def test_byte_counters_and_front_end(
    lab: Lab, saved: Saved, toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    trial, path = linked(
        lab, "hot", "19", "17", instrument="front-end", main_instrument="front-end"
    )
    found, seen = saved(path)
    assert found.path.read_text().startswith(":fe")
    assert counts.difference(seen, expected(lab, trial)) is None
    flags = ["-O1", "-fprofile-generate", "-mllvm", "-pgo-function-entry-coverage"]
    main, other = toolchain("19").compiler, toolchain("17").compiler
    library, out = tmp_path / "library.o", tmp_path / "covered"
    hot, source = PROGRAMS / "library_hot.c", PROGRAMS / "main.c"
    command(other, *flags, "-c", hot, "-o", library)
    command(main, "-fuse-ld=lld", *flags, source, library, "-o", out)
    for one in (out, strip(out, tmp_path)):
        found, seen = saved(one)
        assert set(seen.values()) == {(1,)}


def test_a_program_that_never_ends_is_asked_by_a_signal(
    compiled: Compile, tmp_path: Path, by: str
) -> None:
    program = shutil.copy(compiled(), tmp_path / "endless")
    argv = ("-o", "now.profdata", "--", program, "forever")
    with started(*argv, cwd=tmp_path, by=by) as child:
        assert child.stdout and child.stdout.readline() == "tick\n"
        child.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 60
        while not (tmp_path / "now.profdata").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        first = (tmp_path / "now.profdata").stat().st_ino
        assert child.stdout.readline() == "tick\n"  # it goes on
        child.send_signal(signal.SIGINT)
        out, said = child.communicate(timeout=60)
        assert child.returncode == 0 and set(out.split()) == {"tick"}
    assert (tmp_path / "now.profdata").stat().st_ino != first
    assert "when it was asked for" in said
    lines = [one.info["cmdline"] or () for one in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if str(program) in line]


def test_its_time_is_over(compiled: Compile, saved: Saved) -> None:
    found, seen = saved(compiled(), "forever", seconds=1.0)
    assert "its time was over" in found.notes[0]
    assert len(seen) == 7


def test_whoever_ends_it_gets_the_profile(compiled: Compile, tmp_path: Path, by: str) -> None:
    argv = ("-o", "o.profdata", "--", compiled(), "forever")
    with started(*argv, cwd=tmp_path, by=by) as child:
        assert child.stdout and child.stdout.readline() == "tick\n"
        child.terminate()
        child.communicate(timeout=60)
        assert child.returncode == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"o.profdata", "o.48.profdata", "o.64.profdata"}
