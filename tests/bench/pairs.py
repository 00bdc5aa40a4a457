"""Is a row of the benchmark slower in one checkout than in another?

    python -m tests.bench.pairs OLD NEW [--pairs 10] [--scratch FOLDER] [ROW or AREA...]

Row by row old and new take turns, so that a change of the machine's load meets both. Each runs
in its own checkout, by its own Python and its own bench.py, of which only the command line is
known here: their modules may have other names. Exit code 1: a row is slower, or has failed.
"""

from __future__ import annotations

import json
import math
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from tests.bench.row import Parser, stop

#: How a checkout's benchmark is called: as a package, or as the script that it was before.
CALLS = {"tests/bench/__main__.py": ("-m", "tests.bench"), "tests/bench.py": ("tests/bench.py",)}
#: A row is slower when all of its interval is above this.
SLOWER = 1.1


@dataclass(frozen=True)
class Checkout:
    """A checkout, and its own folder for what takes long to make."""

    root: Path
    scratch: Path

    def bench(self, *arguments: str) -> Any:
        """Return what its benchmark prints; RuntimeError with the last line of what it says."""
        calls = [call for name, call in CALLS.items() if (self.root / name).is_file()]
        python = self.root / ".venv" / "bin" / "python"
        if not (calls and python.is_file()):
            raise RuntimeError(f"{self.root}: no benchmark or no .venv there (make toolchains)")
        command = [str(python), *calls[0], "--once", "--json", *arguments]
        command += ["--scratch", str(self.scratch)]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.root}: {done.stderr.strip().rpartition(chr(10))[2]}")
        return json.loads(done.stdout)

    def sample(self, row: str) -> float:
        return float(self.bench(row)[0]["ours"])


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return two of the values that have the median between them with 95 % certainty, or more.

    However they are distributed, each is above the median or below it like a tossed coin, so
    that outliers of a busy machine do no harm.
    """
    n = len(values)
    tails = accumulate(math.comb(n, k) / 2**n for k in range(n))
    left_out = sum(tail <= 0.025 for tail in tails) - 1
    ordered = sorted(values)
    return ordered[left_out], ordered[-1 - left_out]


def status(line: str) -> None:
    """Show what is going on in a terminal's last line; in a log the results alone will do."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)  # noqa: T201


def compared(row: str, old: Checkout, new: Checkout, pairs: int, where: str) -> str:
    """Return a row's line, which begins with the verdict."""
    taken: list[tuple[float, float]] = []
    # The first round is not counted: it makes what is kept, and reads it.
    for n in range(pairs + 1):
        status(f"{where}: {row}: {f'pair {n} of {pairs}' if n else 'before the first pair'}")
        taken.append((old.sample(row), new.sample(row)))
    ratios = [new / old for old, new in taken[1:]]
    low, high = interval(ratios)
    verdict = "slower" if low > SLOWER else "not slower" if high <= SLOWER else "undecided"
    before, after = (statistics.median(side) for side in zip(*taken[1:], strict=True))
    ratio = f"{statistics.median(ratios):.3f}, 95 %: {low:.3f} to {high:.3f}"
    return f"{verdict:10} {row:24} {ratio} ({before:.3g} -> {after:.3g})"


def all_compared(rows: Sequence[str], old: Checkout, new: Checkout, pairs: int) -> int:
    """Print each row's line as it comes; return how many rows are slower, or have failed."""
    bad, start = 0, time.monotonic()
    for n, row in enumerate(rows):
        minutes = (time.monotonic() - start) / 60
        left = f", about {minutes / n * (len(rows) - n):.0f} min left" if n else ""
        try:
            line = compared(row, old, new, pairs, f"{n + 1} of {len(rows)}{left}")
        except RuntimeError as error:
            line = f"{'failed':10} {row:24} {error}"
        status("")
        print(line, flush=True)  # noqa: T201
        bad += line.startswith(("slower", "failed"))
    return bad


def main() -> int:
    parser = Parser("tests.bench.pairs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "old", type=Path, help="a checkout with its .venv; LLVMs: make bench installs them"
    )
    parser.add_argument("new", type=Path, help="the same, changed")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="a row, or an area (default: all)")
    parser.add_argument("--pairs", type=int, default=10, help="how many (10, which is the least)")
    keeps = "where what takes long to make is kept, some GB, and found again"
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help=keeps)
    options = parser.parse_intermixed_args()
    if options.pairs < 10:
        parser.error(f"--pairs {options.pairs}: fewer than 10 tell little")
    signal.signal(signal.SIGINT, stop)
    try:
        with tempfile.TemporaryDirectory(prefix="pgo-lab-bench-") as folder:
            kept = Path(options.scratch or folder).resolve()
            old = Checkout(options.old.resolve(), kept / "old")
            new = Checkout(options.new.resolve(), kept / "new")
            theirs, ours = (
                [row["name"] for row in side.bench("--list", *options.rows)] for side in (old, new)
            )
            for row in sorted({*theirs} ^ {*ours}):
                print(f"{'left out':10} {row:24} only one of the two has it")  # noqa: T201
            rows = [row for row in ours if row in theirs]
            return int(bool(all_compared(rows, old, new, options.pairs)))
    except RuntimeError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("tests.bench.pairs: interrupted", file=sys.stderr)  # noqa: T201
        return 130


if __name__ == "__main__":
    sys.exit(main())
