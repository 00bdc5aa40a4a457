"""`make report` itself, in a new clone: four minutes and downloads, so only when it is named."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.bench.row import ROOT, Place, Row, Sample, run, seconds


def reports(place: Place) -> tuple[Sample, Sample]:
    """Measure it with nothing changed; the rival's only sample is taken before."""
    clone = place.work / "clone"
    run("git", "clone", "-q", ROOT, clone)
    env = {**os.environ, "XDG_CACHE_HOME": str(place.work / "cache")}
    make = ("make", "-C", str(clone), "report")

    def report() -> float:
        return seconds(lambda: subprocess.run(make, env=env, stdout=sys.stderr, check=True))

    first = report()
    return report, lambda: first


ROWS = (
    Row("report.again", "make report, nothing changed", "from nothing, asked to take 240 s", "60 s",
        reports, 1, once=False),
)  # fmt: skip
