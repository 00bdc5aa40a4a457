"""What it costs to say what changed between two runs; part of `make bench`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nbsupport.notebooks import document, results
from tests.bench.row import PGO_LAB, Place, Row, Sample, timed

#: Trials of each run, in so many notebooks.
TRIALS, CELLS = 10_000, 8


def run(folder: Path, changed: str) -> None:
    """Write a run of copies of the recorded trials, some with another outcome."""
    rows = json.loads(results.recorded().tables["trials"].to_json(orient="records"))
    trials = [{**rows[n % len(rows)], "program": f"p{n // len(rows)}"} for n in range(TRIALS)]
    for trial in trials[::50]:
        trial["outcome"] = changed or trial["outcome"]
    claim = {"name": "c", "sentence": "so it is", "holds": True, "predicted": "", "observed": ""}
    (folder / "notebooks").mkdir(parents=True)
    for cell in range(CELLS):
        table = {"name": "trials", "rows": trials[cell::CELLS]}
        data = {document.CLAIM: {**claim, "at": {"llvm": str(cell)}}, results.TABLE: table}
        cells = [{"cell_type": "code", "outputs": [{"data": data}]}]
        (folder / "notebooks" / f"{cell}.ipynb").write_text(json.dumps({"cells": cells}))


def prepare(place: Place) -> tuple[Sample, Sample]:
    a = place.once("diff-a", lambda folder: run(folder, ""))
    b = place.once("diff-b", lambda folder: run(folder, "malformed"))
    # 1: they differ, as they should.
    return timed(PGO_LAB, "diff", a, b, codes=[1]), timed(sys.executable, "-c", "import pandas")


ROWS = (
    Row("diff.runs", f"diff of two runs of {TRIALS} trials, as a command", "import pandas alone",
        "1 s", prepare),
)  # fmt: skip
