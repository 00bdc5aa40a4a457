"""Whether what is rescued is what the same objects count in a uniform build: by experiment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbsupport import build, counts, progress, rescue
from nbsupport.build import Trial
from nbsupport.lab import Lab, environment
from nbsupport.profile.layout import same_stride

if TYPE_CHECKING:
    import pandas as pd


def table(lab: Lab, programs: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Rescue each program that two of the toolchains, of different record sizes, have made.

    Columns: program, main, foreign; `outcome` of the program by itself; `functions` and `layouts`
    in the rescued profile; `wrong`: what differs from the uniform builds of its parts, or "".
    """
    import pandas as pd  # noqa: PLC0415

    every = [
        trial
        for program in programs
        for main in names
        for foreign in names
        if _mixed(trial := lab.trial(program, main, foreign))
    ]
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress.bar("rescues", len(every)) as step,
    ):

        def one(trial: Trial) -> dict[str, Any]:
            row = _row(lab, trial)
            step()
            return row

        return pd.DataFrame(list(pool.map(one, every)))


def _mixed(trial: Trial) -> bool:
    return not same_stride(trial.main.raw_version or 0, trial.foreign.raw_version or 0)


def _row(lab: Lab, trial: Trial) -> dict[str, Any]:
    alone = lab.run(trial)
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder = Path(name)
        program, env = build.linked(trial, lab.cache), environment(folder)
        out = folder / "saved.proftext"
        found = rescue.run([program], out, env=env, cwd=folder, cache=lab.cache)
        seen = counts.parse(out.read_text())
    expected = counts.together(lab.reference(part) for part in trial.references)
    return {
        "program": trial.program.name,
        "main": trial.main.name,
        "foreign": trial.foreign.name,
        "outcome": alone.kind,
        "functions": found.functions,
        "layouts": len(found.parts),
        "wrong": counts.difference(seen, expected) or "",
    }
