"""What the project promises to be fast at, measured: `make bench`.

    python -m tests.bench [--list] [--once] [--json] [--scratch FOLDER] [ROW or AREA...]

Each row is beside a named rival, timed in the same run, since machines are noisy and differ:
read the ratio. What was asked for was asked of two idle cores; nothing here is a test.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nbsupport.base import progress
from nbsupport.base.errors import LabError, first_line
from tests.bench.row import Parser, Place, Row, Sample, stop, stopped

#: Each is a file of rows, `AREA.NAME`, that is imported only when one of them is wanted.
AREAS = (
    *("lab", "profile", "trace", "rescue", "guard", "sources", "diff", "batch", "explain"),
    *("widgets", "report", "audit", "macos", "forecast", "pipeline", "install"),
)
#: The seconds after which a row takes no more samples, so that all of them take minutes.
LIMIT = 10.0
#: The same for `--once`: a second of what is short, since one sample of it says little.
ONCE = 1.0


@dataclass(frozen=True)
class Figure:
    """What a row has come to, as `--json` prints it; `error` in one line if to nothing."""

    name: str
    what: str
    unit: str
    beside: str
    asked: str
    ours: float | None = None
    rival: float | None = None
    ratio: float | None = None
    error: str = ""


def rows_of(area: str) -> tuple[Row, ...]:
    rows: tuple[Row, ...] = importlib.import_module(f"tests.bench.{area}").ROWS
    return rows


def chosen(names: Sequence[str], once: bool) -> list[Row]:
    """Return the rows that are named, by area or one by one; KeyError for what is neither."""
    found: dict[str, Row] = {}
    for name in names or AREAS:
        area = name.partition(".")[0]
        if area not in AREAS:
            raise KeyError(name)
        rows = {row.name: row for row in rows_of(area)}
        found |= rows if name == area else {name: rows[name]}
    return [row for row in found.values() if row.once or not once or row.name in names]


def blank(row: Row) -> Figure:
    return Figure(row.name, row.what, row.unit, row.beside, row.asked)


def measured(row: Row, kept: Path, once: bool) -> Figure:
    """Take the row's samples, ours and the rival's in turn; the medians count."""
    ours: list[float] = []
    theirs: list[float] = []

    def take(sample: Sample, into: list[float], whose: str) -> None:
        start = time.monotonic()
        into.append(sample())
        if time.monotonic() - start > 2:
            progress.say(f"    {whose}: {number(into[-1], row.unit)}")

    try:
        with contextlib.ExitStack() as stack:
            work = tempfile.TemporaryDirectory(dir=kept, prefix=".work-")
            place = Place(kept, Path(stack.enter_context(work)), stack)
            sample, rival = row.prepare(place)
            end = time.monotonic() + (ONCE if once else LIMIT)
            while not ours or (len(ours) < row.runs and time.monotonic() < end):
                take(sample, ours, "ours")
                if not once:
                    take(rival, theirs, row.beside)
    except BaseException as error:  # a skip of pytest's is no Exception
        if stopped.is_set():  # what was ended may have said so in its own way
            raise KeyboardInterrupt from error
        told = isinstance(error, LabError | RuntimeError) or not isinstance(error, Exception)
        line = first_line(f"{error}" if told else f"{type(error).__name__}: {error}", limit=300)
        progress.say(f"    failed: {line}")
        return dataclasses.replace(blank(row), error=line)
    mine = statistics.median(ours)
    if once:
        return dataclasses.replace(blank(row), ours=mine)
    other = statistics.median(theirs)
    return dataclasses.replace(blank(row), ours=mine, rival=other, ratio=mine / other)


def number(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:.3g} {unit}".strip()


def show(figures: Sequence[Figure]) -> None:
    table = Table("row", "what", "ours", "beside", "rival", "ratio", "asked")
    table.title = f"{os.cpu_count()} cores"
    for one in figures:
        ours = "failed" if one.error else number(one.ours, one.unit)
        rival = number(one.rival, one.unit)
        table.add_row(one.name, one.what, ours, one.beside, rival, number(one.ratio), one.asked)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def parsed() -> tuple[argparse.Namespace, list[Row]]:
    """Return the options, and the rows that are meant."""
    parser = Parser("bench.py", description=(__doc__ or "").partition("\n")[0])
    rows = f"a row, or an area of them: {', '.join(AREAS)} (all of these if none is given)"
    parser.add_argument("rows", nargs="*", metavar="ROW", help=rows)
    parser.add_argument("--list", action="store_true", help="list the rows, measure nothing")
    parser.add_argument("--once", action="store_true", help="our side only, in one sample")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    kept = "where what takes long to make is kept, and found again"
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help=kept)
    options = parser.parse_args()
    try:
        if options.scratch:
            options.scratch.mkdir(parents=True, exist_ok=True)
        return options, chosen(options.rows, options.once)
    except KeyError as error:
        parser.error(f"no row {error.args[0]} (--list shows them)")
    except OSError as error:
        parser.error(f"--scratch {options.scratch}: {error.strerror}")


def main() -> int:
    options, rows = parsed()
    figures: list[Figure] = []
    code = 0
    if options.list:
        figures, rows = [blank(row) for row in rows], []
    signal.signal(signal.SIGINT, stop)
    try:
        with tempfile.TemporaryDirectory(prefix="pgo-lab-bench-") as folder:
            for n, row in enumerate(rows, 1):
                progress.say(f"{n} of {len(rows)}: {row.name}: {row.what}, beside {row.beside}")
                kept = Path(options.scratch or folder).resolve()
                figures.append(measured(row, kept, options.once))
    except KeyboardInterrupt:
        code = 130
        print("bench.py: interrupted: what was measured by then is shown", file=sys.stderr)  # noqa: T201
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in figures], indent=2))  # noqa: T201
    elif options.list:
        print(*(f"{one.name:24} {one.what}, beside {one.beside}" for one in figures), sep="\n")  # noqa: T201
    else:
        show(figures)
    failed = [one for one in figures if one.error]
    for one in failed:
        print(f"bench.py: {one.name} failed: {one.error}", file=sys.stderr)  # noqa: T201
    return code or int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
