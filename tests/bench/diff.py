"""What it costs to say what changed between two runs; part of `make bench`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from nbsupport.notebooks import results
from tests.bench.trace import median

#: Trials of each run, in so many notebooks.
TRIALS, CELLS = 10_000, 8
PGO_LAB = "from nbsupport.cli.commands import entry; entry()"


def run(folder: Path, changed: str) -> Path:
    """Write a run of copies of the recorded trials, some with another outcome."""
    rows = json.loads(results.recorded().tables["trials"].to_json(orient="records"))
    trials = [{**rows[n % len(rows)], "program": f"p{n // len(rows)}"} for n in range(TRIALS)]
    for trial in trials[::50]:
        trial["outcome"] = changed or trial["outcome"]
    claim = {"name": "c", "sentence": "so it is", "holds": True, "predicted": "", "observed": ""}
    (folder / "notebooks").mkdir(parents=True)
    for cell in range(CELLS):
        table = {"name": "trials", "rows": trials[cell::CELLS]}
        data = {results.CLAIM: {**claim, "at": {"llvm": str(cell)}}, results.TABLE: table}
        cells = [{"cell_type": "code", "outputs": [{"data": data}]}]
        (folder / "notebooks" / f"{cell}.ipynb").write_text(json.dumps({"cells": cells}))
    return folder


def rows() -> list[tuple[str, str, str, str]]:
    """Return the figures: what, measured, beside what, and the goal."""

    def command(*argv: object) -> Callable[[], object]:
        line = [sys.executable, "-c", *map(str, argv)]
        return lambda: subprocess.run(line, check=False, capture_output=True)

    with tempfile.TemporaryDirectory() as folder:
        a, b = run(Path(folder, "a"), ""), run(Path(folder, "b"), "malformed")
        ours, pandas = median(command(PGO_LAB, "diff", a, b)), median(command("import pandas"))
    rival = f"import pandas alone ({pandas:.2f} s)"
    what = f"diff of two runs of {TRIALS} trials, as a command"
    return [(what, f"{ours:.2f} s, {ours / pandas:.1f} times", rival, "1 s")]
