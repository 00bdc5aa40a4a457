"""`make report` itself, in a new clone with a cache of its own: from nothing once, then again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench.row import ROOT, Place, Row, Sample, run, seconds


def begun(place: Place) -> tuple[Path, Callable[[], float], float]:
    """Return a clone, what takes a sample of its report, and the one from nothing."""
    folder = place.once("report", lambda new: run("git", "clone", "-q", ROOT, new / "clone"))
    clone, note = folder / "clone", folder / "seconds"
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    make = ("make", "-C", str(clone), "report")

    def report() -> float:
        return seconds(lambda: subprocess.run(make, env=env, stdout=sys.stderr, check=True))

    if not note.is_file():
        note.write_text(str(report()))
    return clone, report, float(note.read_text())


def again(place: Place) -> tuple[Sample, Sample]:
    """Measure it with nothing changed; the rival's only sample is taken before."""
    _, report, first = begun(place)
    return report, lambda: first


def one(place: Place) -> tuple[Sample, Sample]:
    """Measure it after the code of the smallest notebook changed; beside that with nothing changed."""
    clone, report, _ = begun(place)
    path = clone / "notebooks" / "03-record-layout.ipynb"

    def changed() -> float:
        book = json.loads(path.read_text())
        book["cells"][-1:-1] = [{**book["cells"][3], "source": "1 + 1", "id": os.urandom(4).hex()}]
        path.write_text(json.dumps(book))
        return report()

    return changed, report


ROWS = (
    Row("report.again", "make report, nothing changed", "from nothing, asked to take 240 s", "10 s",
        again, 1, once=False),
    Row("report.one", "make report, one notebook changed", "nothing changed", "10 s more",
        one, 1, once=False),
)  # fmt: skip
