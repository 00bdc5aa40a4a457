"""A row of `make bench`: what is timed, and beside which rival; and what all rows need."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil

#: The checkout: no other file of the benchmark says where it stands.
ROOT = Path(__file__).resolve().parents[2]
PGO_LAB = Path(sys.executable).with_name("pgo-lab")

#: Takes a sample: seconds, or what else the row's unit is.
Sample = Callable[[], float]


@dataclass(frozen=True)
class Place:
    """Where a row works: `work` is empty and goes when the row is done.

    `kept` is for what takes long to make: it may be there in the next process, too. What the
    row enters on `stack` is left when it is done.
    """

    kept: Path
    work: Path
    stack: contextlib.ExitStack

    def once(self, name: str, fill: Callable[[Path], object]) -> Path:
        """Return a folder of `kept`, which `fill` has filled: whole, or not there."""
        target = self.kept / name
        if not target.is_dir():
            staging = Path(tempfile.mkdtemp(dir=self.work))
            fill(staging)
            staging.rename(target)
        return target

    def fresh(self) -> Path:
        """Return a new folder."""
        return Path(tempfile.mkdtemp(dir=self.work))


@dataclass(frozen=True)
class Row:
    """`prepare` returns how a sample of ours is taken, and one of the rival's.

    `runs`: of each so many samples, but not beyond the time that a row has (`bench.LIMIT`).
    `once`: whether `--once` takes it: not what repeats another row's sample, waits for a
    network, or takes a minute.
    """

    name: str
    what: str
    beside: str
    asked: str
    prepare: Callable[[Place], tuple[Sample, Sample]]
    runs: int = 5
    unit: str = "s"
    once: bool = True


def seconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def run(*argv: object, cwd: Path | None = None, codes: Collection[int] = (0,)) -> None:
    """Run a command; what fails is no sample, however fast it did."""
    command = [str(part) for part in argv]
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    if done.returncode not in codes or b"Traceback" in done.stderr:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        name = " ".join(Path(part).name for part in command[:3])
        raise RuntimeError(f"{name} ended with {done.returncode}: {said}")


def timed(*argv: object, cwd: Path | None = None, codes: Collection[int] = (0,)) -> Sample:
    """Return the sample that is a run of a command."""
    return lambda: seconds(lambda: run(*argv, cwd=cwd, codes=codes))


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


stopped = threading.Event()


def stop(*_: object) -> None:
    """End all that was started, in whatever sessions, and interrupt (for SIGINT)."""
    stopped.set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    raise KeyboardInterrupt
