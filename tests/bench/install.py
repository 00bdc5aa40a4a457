"""What the base install weighs and takes, beside the install of everything; part of `make bench`."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from tests.bench.row import ROOT, Place, Row, Sample, run, seconds

UV = (sys.executable, "-m", "uv")
#: What is installed: the base and what builds the wheel; all.
LOCKS = ROOT / ".github" / "base.lock", ROOT / "requirements.lock"


def installed(lock: Path, place: Place) -> Path:
    """Return a new environment that has what a lock lists."""
    folder = place.fresh() / "env"
    run(*UV, "venv", "-q", folder)
    python = folder / "bin" / "python"
    run(
        *UV, "pip", "install", "-q", "--python", python, "--no-deps", "--require-hashes", "-r", lock
    )
    return folder


def prepare(figure: str, place: Place) -> tuple[Sample, Sample]:
    def sample(lock: Path) -> float:
        if figure == "seconds":
            return seconds(lambda: installed(lock, place))
        files = [path for path in installed(lock, place).rglob("*") if path.is_file()]
        if figure == "packages":
            return sum(path.match("*.dist-info/METADATA") for path in files)
        return sum(path.stat().st_size for path in files) / 1e6

    for lock in LOCKS:  # what is downloaded once is in uv's cache
        installed(lock, place)
    return functools.partial(sample, LOCKS[0]), functools.partial(sample, LOCKS[1])


ROWS = tuple(
    Row(f"install.{figure}", f"the base install: {what}", "the install of everything", asked,
        functools.partial(prepare, figure), 1, unit, once=False)
    for figure, what, asked, unit in (
        ("megabytes", "its size", "0.2 of it", "MB"),
        ("packages", "its packages", "0.2 of it", "packages"),
        ("seconds", "its time, downloaded", "0.25 of it", "s"),
    )
)  # fmt: skip
