"""Defaults, in one place: where things are kept, and how far a child process may go."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """How long (seconds), how much memory and how much output (bytes) a child may use.

    `output` bounds what is kept of each stream, `file` the size of a file that it writes;
    a child that writes more is ended.
    """

    seconds: float = 10.0
    memory: int = 1024 * MIB
    output: int = 1 * MIB
    file: int = 1024 * MIB


#: A program under investigation: small, and stopped early when it misbehaves.
PROGRAM = Limits()
#: A reader's own program, traced.
TRACED = Limits(seconds=60.0, memory=8192 * MIB, output=64 * MIB)
#: A compiler or linker.
COMPILER = Limits(seconds=300.0, memory=4096 * MIB, output=4 * MIB)
#: An installation or an unpacking; uv and apt-get have their own network time limits.
INSTALL = Limits(seconds=1800.0, memory=4096 * MIB, output=4 * MIB)


def cores() -> int:
    """Return how many processors this process may use: a container has fewer than its machine."""
    with contextlib.suppress(AttributeError):  # macOS has no such call
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_dir() -> Path:
    """Return the cache folder of the lab: the user's (on Linux, XDG_CACHE_HOME moves it)."""
    return Path(platformdirs.user_cache_dir("pgo-lab", appauthor=False))


def data_dir() -> Path:
    """Return the folder `data`: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_data"
    return installed if installed.is_dir() else package.parent / "data"


def notebooks_dir() -> Path:
    """Return the folder of the notebooks, which a checkout has and a wheel has not."""
    return Path(__file__).parent.parent.parent / "notebooks"
