"""What a trace costs, beside what one would type into LLDB; part of `make bench`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.toolchains import discovery
from nbsupport.trace import tables
from nbsupport.trace.trace import Trace

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


def median(work: Callable[[], object], runs: int = 5) -> float:
    seconds = []
    for _ in range(runs):
        start = time.monotonic()
        work()
        seconds.append(time.monotonic() - start)
    return statistics.median(seconds)


def run(*argv: object) -> None:
    command = [str(part) for part in argv]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rows(folder: Path) -> list[tuple[str, str, str, str]]:
    """Return the figures: what, measured, beside what, and the goal."""
    with Lab() as lab:
        program = build.linked(lab.trial("mimalloc", "19", "17"), lab.cache)
    lldb, places = discovery.find_lldb(), iter(range(100))

    def trace(*argv: object) -> None:
        out = folder / f"trace{next(places)}"
        run(Path(sys.executable).with_name("pgo-lab"), "trace", "-o", out, "--", *argv)

    trace(program)
    run(lldb, "-b", "-o", "quit")
    typed = median(lambda: run(lldb, "-b", "-o", "run", "-k", "bt", "-k", "quit", program))
    ours = median(lambda: trace(program))
    source, sites = folder / "sites.c", folder / "sites"
    source.write_text(SITES)
    clang = discovery.find("19").compiler
    run(clang, "-O1", "-fprofile-generate", "-fuse-ld=lld", source, "-o", sites)
    many, none = median(lambda: trace(sites, 10_000_000), 3), median(lambda: trace(sites, 0), 3)
    event = {"n": 0, "time": 0.5, "thread": 1, "kind": "value site", "function": "f", "module": "m"}
    event |= {"caller": "main", "what": "record of main", "frames": "main", "arguments": "0x1"}
    tables.write(folder / "events.parquet", [{**event, "n": n} for n in range(1_000_000)])
    opened = median(lambda: Trace(folder, {}).table("events"), 3)
    return [
        (
            "trace of the crashing mimalloc run",
            f"{ours:.2f} s",
            f"lldb -b: {typed:.2f} s",
            "3 times",
        ),
        ("trace, 10 million value-site calls", f"{many:.1f} s", f"none: {none:.1f} s", "minutes"),
        ("table of a million events", f"{opened:.2f} s", "", "1 s"),
    ]
