"""What a trace costs, beside what one would type into LLDB; part of `make bench`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.toolchains import discovery
from nbsupport.trace import tables
from nbsupport.trace.trace import Trace
from tests.bench.row import PGO_LAB, Place, Row, Sample, run, seconds, timed

#: Calls one value site as often as it is told.
SITES = r"""
#include <stdlib.h>
static int one(int x) { return x + 1; }
static int two(int x) { return x * 3; }
static int (*volatile const all[])(int) = {one, two};
int main(int argc, char **argv) {
  int sum = 0;
  for (long n = atol(argv[1]), i = 0; i < n; i++) sum = all[i % 2](sum) & 255;
  return sum > 255;
}
"""
EVENTS = 1_000_000


def traced(place: Place, *argv: object) -> float:
    return timed(PGO_LAB, "trace", "-o", place.fresh() / "trace", "--", *argv, cwd=place.work)()


def crash(place: Place) -> tuple[Sample, Sample]:
    with Lab() as lab:
        program = build.linked(lab.trial("mimalloc", "19", "17"), lab.cache)
    typed = ("-b", "-o", "run", "-k", "bt", "-k", "quit", program)
    return lambda: traced(place, program), timed(discovery.find_lldb(), *typed, cwd=place.work)


def sites(place: Place) -> tuple[Sample, Sample]:
    def compiled(folder: Path) -> None:
        (folder / "sites.c").write_text(SITES)
        flags = ("-O1", "-fprofile-generate", "-fuse-ld=lld")
        run(discovery.find("19").compiler, *flags, "sites.c", "-o", "sites", cwd=folder)

    program = place.once("trace-sites", compiled) / "sites"
    return lambda: traced(place, program, 10_000_000), lambda: traced(place, program, 0)


def events(place: Place) -> tuple[Sample, Sample]:
    event = {"n": 0, "time": 0.5, "thread": 1, "kind": "value site", "function": "f", "module": "m"}
    event |= {"caller": "main", "what": "record of main", "frames": "main", "arguments": "0x1"}
    rows = ({**event, "n": n} for n in range(EVENTS))
    folder = place.once("trace-events", lambda f: tables.write(f / "events.parquet", [*rows]))

    def theirs() -> float:
        return seconds(lambda: pd.read_parquet(folder / "events.parquet"))

    theirs()  # pyarrow is imported by now
    return lambda: seconds(lambda: Trace(folder, {}).table("events")), theirs


ROWS = (
    Row("trace.crash", "trace of the crashing mimalloc run", "lldb -b", "3 times it", crash),
    Row("trace.sites", "trace of 10 million value-site calls", "of none", "minutes", sites),
    Row("trace.table", f"table of {EVENTS} events", "pandas.read_parquet of it", "1 s", events),
)
