"""The benchmark itself: a row that fails is said, and a slower checkout is found."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench import pairs as bench_pairs
from tests.bench.row import ROOT, Place, Row, Sample

#: A bench.py of another checkout: a row that takes as long as a file says, in turn.
SCRIPT = """
import json, sys
from pathlib import Path
first, *rest = Path("seconds").read_text().split()
if "--list" not in sys.argv:
    Path("seconds").write_text(" ".join([*rest, first]))
print(json.dumps([{"name": "a.row", "ours": float(first)}]))
sys.exit("bench.py: a.row failed: it is broken" if first == "nan" else 0)
"""


def call(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def checkout(folder: Path, seconds: str) -> Path:
    (folder / "tests").mkdir(parents=True)
    (folder / "tests" / "bench.py").write_text(SCRIPT)
    (folder / "seconds").write_text(seconds)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    return folder


def test_a_row_is_beside_its_rival(tmp_path: Path) -> None:
    row = Row("a.row", "", "", "", lambda _: (lambda: 2.0, lambda: 8.0))
    assert bench.measured(row, tmp_path, once=False).ratio == 0.25
    assert bench.measured(row, tmp_path, once=True).rival is None


def test_a_row_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    def prepare(place: Place) -> tuple[Sample, Sample]:
        def fill(folder: Path) -> None:
            (folder / "half").touch()
            raise OSError("the disk\nis full")

        place.once("kept", fill)
        raise AssertionError

    error = bench.measured(Row("a.row", "", "", "", prepare), tmp_path, once=False).error
    assert error == "OSError: the disk"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["nonsense", "lab.nonsense", "--nonsense", "--scratch"])
def test_a_bad_argument_is_said_in_one_line(argument: str) -> None:
    done = call("tests.bench", argument)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_row_is_measured_by_its_name() -> None:
    done = call("tests.bench", "lab.import", "--once", "--json")
    (figure,) = json.loads(done.stdout)
    assert (done.returncode, figure["name"], figure["error"]) == (0, "lab.import", "")
    assert figure["ours"] > 0


@pytest.mark.parametrize(
    ("seconds", "code", "verdict"),
    [
        ("1.09 1.05", 0, "not slower"),
        ("1.05 1.15", 0, "undecided"),
        ("1.11 1.2", 1, "slower"),
        ("1 nan", 1, "failed"),
    ],
)
def test_a_slower_checkout_is_found(tmp_path: Path, seconds: str, code: int, verdict: str) -> None:
    old, new = checkout(tmp_path / "old", "1"), checkout(tmp_path / "new", seconds)
    done = call("tests.bench.pairs", old, new)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.startswith(f"{verdict:10} a.row")


def test_no_checkout_is_said_in_one_line(tmp_path: Path) -> None:
    done = call("tests.bench.pairs", tmp_path, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("pairs", [10, 12, 25])
def test_the_interval_has_the_median_as_often_as_is_said(pairs: int) -> None:
    toss = random.Random(0)  # noqa: S311
    hits = 0
    for _ in range(4000):
        low, high = bench_pairs.interval([toss.expovariate(1) for _ in range(pairs)])
        hits += low <= math.log(2) <= high
    assert hits / 4000 > 0.945
