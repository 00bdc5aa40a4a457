"""Whether what is rescued is what the same objects count in a uniform build: by experiment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbsupport.base import process, progress
from nbsupport.lab import build, counts
from nbsupport.lab.lab import Lab, environment
from nbsupport.lab.trial import Trial
from nbsupport.profile.layout import same_stride
from nbsupport.rescue import rescue
from nbsupport.toolchains import profdata
from nbsupport.toolchains.profdata import Key, TextRecord

if TYPE_CHECKING:
    import pandas as pd


def try_all(lab: Lab, programs: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Rescue each program that two of the toolchains, of different record sizes, have made.

    Columns: program, main, foreign; `outcome` of the program by itself; `functions` and `layouts`
    in the rescued profile; `lost`, as the rescue says; `wrong`: functions that uniform builds of
    its parts tell otherwise of, in anything: counters, value sites, what these saw.
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
            row = rescue_run(lab, trial)
            step()
            return row

        columns = ["program", "main", "foreign", "outcome", "functions", "layouts", "lost", "wrong"]
        return pd.DataFrame(list(pool.map(one, every)), columns=columns)  # where there is none, too


def _mixed(trial: Trial) -> bool:
    return not same_stride(trial.main.raw_version or 0, trial.foreign.raw_version or 0)


def rescue_run(lab: Lab, trial: Trial) -> dict[str, Any]:
    """Run a program by itself and rescue it; return a row of `table`."""
    alone = lab.run(trial)
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder = Path(name)
        out, clean = folder / "saved.profdata", folder / "clean.proftext"
        program, env = build.linked(trial, lab.cache), environment(folder)
        found = rescue.run([program], out, env=env, cwd=folder)
        seen, uniform = read_functions(out), dict[Key, TextRecord]()
        for part in trial.references:
            clean.write_text(lab.run_once(part)[0])
            uniform |= read_functions(clean)
    wrong = [key[0] for key in {**uniform, **seen} if uniform.get(key) != seen.get(key)]
    return {
        "program": trial.program.name,
        "main": trial.main.name,
        "foreign": trial.foreign.name,
        "outcome": alone.kind,
        "functions": found.functions,
        "layouts": len(found.parts),
        "lost": "; ".join(found.lost),
        "wrong": ", ".join(wrong),
    }


def rescue_profraw(lab: Lab, trial: Trial) -> dict[str, Any]:
    """Run a program that crashes, and rescue what it leaves; return how that fared.

    `bytes` of the raw profile it leaves (0: nothing to rescue, and no more keys), `functions` in
    the rescued profile; how many are `wrong`: have other counts than in the uniform builds; `lost`.
    """
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder = Path(name)
        program, raw = build.linked(trial, lab.cache), folder / "run.profraw"
        process.run([program], cwd=folder, env=environment(folder), limits=lab.limits)
        size = raw.stat().st_size if raw.is_file() else 0
        if not size:
            return {"bytes": 0}
        out = folder / "saved.proftext"
        found = rescue.from_profraw(raw, out, binary=program)
        seen = counts.parse(out.read_text())
    expected = counts.together(lab.reference(part) for part in trial.references)
    wrong = sum(seen.get(key) != row for key, row in expected.items() if row is not None)
    return {"bytes": size, "functions": found.functions, "wrong": wrong, "lost": found.lost}


def read_functions(profile: Path) -> dict[Key, TextRecord]:
    """Return all that a profile, of whatever form, says of each function: by the newest LLVM."""
    newest = profdata.owners()[-1]
    return profdata.parse(profdata.as_text(profdata.tool(newest), profile).stdout)
