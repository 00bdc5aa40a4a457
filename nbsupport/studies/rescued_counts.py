"""Whether what is rescued is what the same objects count in a uniform build: by experiment."""

import functools
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nbsupport import rescue
from nbsupport.base import process, progress
from nbsupport.lab import Lab, Trial, counts
from nbsupport.lab.lab import environment
from nbsupport.profile import same_stride
from nbsupport.toolchains import profdata
from nbsupport.toolchains.profdata import Key, TextRecord

_COLUMNS = ["program", "main", "foreign", "outcome", "functions", "layouts", "lost", "wrong"]


def try_all(lab: Lab, programs: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Rescue each of the `programs` as made by two toolchains (of `names`) of two record sizes.

    Columns: program, main, foreign; `outcome` of the program by itself; `functions` and `layouts`
    in the rescued profile; `lost`, as the rescue says; `wrong`: functions that differ from the
    uniform builds in anything: counters, value sites, recorded values. No rows where there are no
    two such toolchains.
    """
    mixed = []
    for trial in itertools.starmap(lab.trial, itertools.product(programs, names, names)):
        if not same_stride(trial.main.raw_version or 0, trial.foreign.raw_version or 0):
            mixed.append(trial)
    rows = progress.each(mixed, functools.partial(rescue_run, lab), "rescues")
    return pd.DataFrame(rows, columns=_COLUMNS)


def rescue_run(lab: Lab, trial: Trial) -> dict[str, Any]:
    """Run the program of a `trial` by itself, and rescue it; return a row of `try_all`."""
    outcome = lab.run(trial)
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder = Path(name)
        out, clean = folder / "saved.profdata", folder / "clean.proftext"
        profile = rescue.run([lab.linked(trial)], out, env=environment(folder), cwd=folder)
        rescued, uniform = read_functions(out), dict[Key, TextRecord]()
        for part in trial.references:
            clean.write_text(lab.run_once(part)[0])
            uniform |= read_functions(clean)
    wrong = [key[0] for key in {**uniform, **rescued} if uniform.get(key) != rescued.get(key)]
    names = trial.program.name, trial.main.name, trial.foreign.name
    counted = profile.functions, len(profile.parts)
    row = (*names, outcome.kind, *counted, "; ".join(profile.lost), ", ".join(wrong))
    return dict(zip(_COLUMNS, row, strict=True))


def rescue_profraw(lab: Lab, trial: Trial) -> dict[str, Any]:
    """Run the program of a `trial`, and rescue the raw profile it leaves; return how that fared.

    `bytes` of the raw profile (0: nothing to rescue, and no more keys); `message`: what
    `llvm-profdata merge` says; `functions` in the rescued profile; `wrong`: how many have
    other counts than in the uniform builds; `lost`: what the rescue says it could not save.
    """
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder = Path(name)
        program, raw = lab.linked(trial), folder / "run.profraw"
        process.run([program], cwd=folder, env=environment(folder), limits=lab.limits)
        size = raw.stat().st_size if raw.is_file() else 0
        if not size:
            return {"bytes": 0}
        merged = profdata.merge(profdata.tool(trial.main), [raw], folder / "merged.profdata")
        out = folder / "saved.proftext"
        profile = rescue.from_profraw(raw, out, binary=program)
        rescued = counts.parse(out.read_text())
    expected = counts.together(lab.reference(part) for part in trial.references)
    wrong = sum(rescued.get(key) != row for key, row in expected.items() if row is not None)
    message = "; ".join(merged.stderr.replace(f"{folder}/", "").split("\n")).strip("; ")
    row = {"bytes": size, "message": message, "functions": profile.functions}
    return {**row, "wrong": wrong, "lost": profile.lost}


def read_functions(profile: Path) -> dict[Key, TextRecord]:
    """Return all that a profile, of whatever form, says of each function: by the newest LLVM."""
    return profdata.parse(profdata.as_text(profdata.tool(profdata.owners()[-1]), profile).stdout)
