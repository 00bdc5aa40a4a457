"""What it costs to explain a text, and how often it is wrong; part of `make bench`."""

from __future__ import annotations

import contextlib
import random
import sys
from pathlib import Path

from nbsupport.base.errors import LabError
from nbsupport.crash.explanation import explain
from tests.bench.row import PGO_LAB, Place, Row, Sample, timed
from tests.crash.corpus.make import HERE, labels

TEXT = HERE / "gdb-mix-exit-registers.txt"
#: Bytes of a long text: as many as are read.
LONG = 16 << 20


def short(_: Place) -> tuple[Sample, Sample]:
    return timed(PGO_LAB, "explain", TEXT), timed(sys.executable, "-c", "import typer, rich")


def log(folder: Path) -> None:
    """Write a build's log as long as is read, with the crash at its end."""
    chance = random.Random(1)  # noqa: S311 - not for secrets
    words = ["Compiling", "warning:", "unused", "src/main.rs:12:3", "0x7ffd12", "test", "ok", "-->"]
    crash = TEXT.read_text()
    lines, size = list[str](), len(crash)
    while size < LONG:
        lines.append(" ".join(chance.choices(words, k=chance.randint(3, 16))))
        size += len(lines[-1]) + 1
    (folder / "log").write_text("\n".join([*lines[:-1], crash]))


def long(place: Place) -> tuple[Sample, Sample]:
    path = place.once("explain-log", log) / "log"
    return timed(PGO_LAB, "explain", path), timed("cat", path)


def wrong(_: Place) -> tuple[Sample, Sample]:
    """Count the texts of the corpus that are judged otherwise than they were made."""
    table = labels()

    def count() -> float:
        number = 0
        for name, label in table.items():
            verdict = "unreadable"
            with contextlib.suppress(LabError):
                verdict = explain(HERE / f"{name}.txt").verdict
            number += verdict != label["verdict"]
        return number

    return count, lambda: float(len(table))


ROWS = (
    Row("explain.short", "a text explained, as a command", "import typer and rich alone", "0.5 s",
        short),
    Row("explain.long", "a log of 16 MB explained, as a command", "cat of it", "1.5 s", long),
    Row("explain.wrong", "texts of the corpus that are judged wrong", "all of them", "0 texts",
        wrong, 1, unit="texts"),
)  # fmt: skip
