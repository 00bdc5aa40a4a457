"""What it costs to run notebooks in a batch; part of `make bench`."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat

from nbsupport.notebooks import batch
from tests.bench.row import PGO_LAB, Place, Row, Sample, seconds, timed

#: About a second of work, and what each of our notebooks imports.
CODE = "import pandas\nfrom nbsupport.notebooks import results\nsum(n * n for n in range(10**7))"


def notebooks(folder: Path) -> list[Path]:
    new = nbformat.v4
    book = new.new_notebook(cells=[new.new_code_cell(CODE)])  # type: ignore[no-untyped-call]
    paths = [folder / f"{number}.ipynb" for number in range(4)]
    for path in paths:
        nbformat.write(book, path)  # type: ignore[no-untyped-call]
    return paths


def executed(place: Place, some: int, jobs: int) -> Sample:
    paths = notebooks(place.fresh())[:some]
    return lambda: seconds(lambda: batch.execute(paths, place.fresh() / "run", {}, jobs=jobs))


def one(place: Place) -> tuple[Sample, Sample]:
    return executed(place, 1, 1), timed(sys.executable, "-c", CODE)


def two(place: Place) -> tuple[Sample, Sample]:
    return executed(place, 4, 2), executed(place, 4, 1)


def resumed(place: Place) -> tuple[Sample, Sample]:
    folder = place.once("batch", notebooks)
    if not (folder / "run").exists():
        batch.execute(sorted(folder.glob("*.ipynb")), folder / "run", {})
    return timed(PGO_LAB, "run", "--resume", "-o", folder / "run"), executed(place, 4, 2)


ROWS = (
    Row("batch.one", "a notebook in a batch", "a script of the same", "1.5 s more", one),
    Row("batch.two", "four notebooks, two at once", "one at a time", "1/1.6 of it", two),
    Row("batch.resume", "a finished run of four notebooks, resumed", "four notebooks, two at once",
        "2 s", resumed),
)  # fmt: skip
