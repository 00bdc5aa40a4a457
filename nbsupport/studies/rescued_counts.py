"""Whether what is rescued is what the same objects count in a uniform build: by experiment."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nbsupport.base import process, progress
from nbsupport.lab import build, counts
from nbsupport.lab.lab import Lab, environment
from nbsupport.lab.trial import Trial
from nbsupport.profile.layout import same_stride
from nbsupport.rescue import rescue
from nbsupport.toolchains import profdata
from nbsupport.toolchains.profdata import Key, TextRecord


def try_all(lab: Lab, programs: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Rescue each of the `programs` as made by two toolchains (of `names`) of two record sizes.

    Columns: program, main, foreign; `outcome` of the program by itself; `functions` and `layouts`
    in the rescued profile; `lost`, as the rescue says; `wrong`: functions that uniform builds of
    its parts tell otherwise of, in anything: counters, value sites, what these saw. No rows where
    there are no two such toolchains.
    """
    pairs = itertools.product(programs, names, names)
    trials = [trial for pair in pairs if _mixed(trial := lab.trial(*pair))]
    rows = progress.each(trials, functools.partial(rescue_run, lab), "rescues")
    columns = ["program", "main", "foreign", "outcome", "functions", "layouts", "lost", "wrong"]
    return pd.DataFrame(rows, columns=columns)


def _mixed(trial: Trial) -> bool:
    return not same_stride(trial.main.raw_version or 0, trial.foreign.raw_version or 0)


def rescue_run(lab: Lab, trial: Trial) -> dict[str, Any]:
    """Run the program of a `trial` by itself, and rescue it; return a row of `try_all`."""
    outcome = lab.run(trial)
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder = Path(name)
        out, clean = folder / "saved.profdata", folder / "clean.proftext"
        program, env = build.linked(trial, lab.cache), environment(folder)
        profile = rescue.run([program], out, env=env, cwd=folder)
        rescued, uniform = read_functions(out), dict[Key, TextRecord]()
        for part in trial.references:
            clean.write_text(lab.run_once(part)[0])
            uniform |= read_functions(clean)
    wrong = [key[0] for key in {**uniform, **rescued} if uniform.get(key) != rescued.get(key)]
    return {
        "program": trial.program.name,
        "main": trial.main.name,
        "foreign": trial.foreign.name,
        "outcome": outcome.kind,
        "functions": profile.functions,
        "layouts": len(profile.parts),
        "lost": "; ".join(profile.lost),
        "wrong": ", ".join(wrong),
    }


def rescue_profraw(lab: Lab, trial: Trial) -> dict[str, Any]:
    """Run the program of a `trial`, and rescue the raw profile it leaves; return how that fared.

    `bytes` of the raw profile (0: nothing to rescue, and no more keys), `functions` in the rescued
    profile; how many are `wrong`: have other counts than in the uniform builds; `lost`.
    """
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder = Path(name)
        program, raw = build.linked(trial, lab.cache), folder / "run.profraw"
        process.run([program], cwd=folder, env=environment(folder), limits=lab.limits)
        size = raw.stat().st_size if raw.is_file() else 0
        if not size:
            return {"bytes": 0}
        out = folder / "saved.proftext"
        profile = rescue.from_profraw(raw, out, binary=program)
        rescued = counts.parse(out.read_text())
    expected = counts.together(lab.reference(part) for part in trial.references)
    wrong = sum(rescued.get(key) != row for key, row in expected.items() if row is not None)
    return {"bytes": size, "functions": profile.functions, "wrong": wrong, "lost": profile.lost}


def read_functions(profile: Path) -> dict[Key, TextRecord]:
    """Return all that a profile, of whatever form, says of each function: by the newest LLVM."""
    newest = profdata.owners()[-1]
    return profdata.parse(profdata.as_text(profdata.tool(newest), profile).stdout)
