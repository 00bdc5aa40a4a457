"""The reproducer of the fault: its archive, and how its programs end, without this project."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.lab.lab import Lab
from nbsupport.report import reproducer
from nbsupport.toolchains.probe import Toolchain

Find = Callable[[str], Toolchain]


def run(command: list[str], folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command where nothing of this project, or of its reader, is in the environment."""
    env = {"PATH": "/usr/bin:/bin", **extra}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def unpacked() -> Path:
    return reproducer.unpack()


@pytest.mark.parametrize(
    ("main", "other", "mixed", "swapped"),
    [
        ("19", "17", "crash", "version mismatch"),
        ("17", "23", "crash", "version mismatch"),
        ("23", "22", "crash", "version mismatch"),
        ("18", "19", "fine", "version mismatch"),
        ("19", "22", "fine", "fine"),
    ],
)
def test_the_archive_reproduces_without_this_project(
    unpacked: Path, toolchain: Find, main: str, other: str, mixed: str, swapped: str
) -> None:
    compilers = [f"CC={toolchain(main).compiler}", f"CC2={toolchain(other).compiler}"]
    done = run(["make", *compilers], unpacked)
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert done.returncode == 0, done.stderr
    assert lines["mixed"].startswith(mixed)
    assert lines["swapped"].startswith(swapped)
    assert lines["uniform"].startswith("fine, a profile of ")
    # In the same folder, with the compilers that were there before.
    assert (run(["make", "check", *compilers], unpacked).returncode == 0) == (mixed == "fine")


def test_the_archives_check_wants_a_control(unpacked: Path, toolchain: Find) -> None:
    clang = toolchain("19").compiler
    assert run(["make", "check", f"CC={clang}", f"CC2={clang}"], unpacked).returncode == 0
    for broken in ("CC=/bin/false", "CC2=/bin/false", "PROFILE="):
        arguments = [f"CC={clang}", f"CC2={clang}", broken]
        assert run(["make", "check", *arguments], unpacked).returncode == 2, broken
    assert run(["make", "clean"], unpacked).returncode == 0
    assert len(list(unpacked.iterdir())) == 5


def test_the_archive_says_nothing_of_who_made_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(reproducer.archive())) as archive:
        members = archive.getmembers()
    assert {(one.mtime, one.uid, one.gid, one.uname, one.gname) for one in members} == {
        (0, 0, 0, "", "")
    }
    assert [one.name.rpartition("/")[2] for one in members] == sorted(
        ["main.c", "library.c", "Makefile", "README.md", "mixed-records.c"]
    )
    assert reproducer.archive()[4:8] == bytes(4)  # gzip's time


@pytest.mark.parametrize(("main", "other"), [("19", "17"), ("18", "19")])
def test_a_notebook_reads_how_its_programs_end(
    unpacked: Path, toolchain: Find, lab: Lab, main: str, other: str
) -> None:
    ends = reproducer.read_ends(reproducer.make(unpacked, toolchain(main), toolchain(other)))
    predicted = reproducer.predict_ends(lab, main, other)
    assert {name: ends[name] in words for name, words in predicted.items()} == {
        "mixed": True,
        "swapped": True,
    }
    assert ends["uniform"] == "fine"
    crash = reproducer.find_crash(lab, unpacked / "mixed", toolchain(main))
    assert (crash is not None) == (ends["mixed"] == "crash")
