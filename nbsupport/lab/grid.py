"""Many trials: a grid of them in parallel, as one table."""

import contextlib
import itertools
from collections.abc import Sequence

import pandas as pd

from nbsupport.base import progress
from nbsupport.base.errors import BuildError
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.lab.trial import Trial


def sweep(
    *,
    mains: Sequence[str],
    foreigns: Sequence[str],
    programs: Sequence[str] = ("cold",),
    orders: Sequence[str] = ("main-first",),
    instruments: Sequence[str | None] = (None,),
    main_instruments: Sequence[str] = ("ir",),
    lab: Lab | None = None,
    jobs: int | None = None,
) -> pd.DataFrame:
    """Run every combination, in parallel, and return one row for each, in grid order.

    Combinations that cannot be are left out: gcc does not instrument as LLVM does.
    Columns: the trial's parameters (`Trial.to_row`), then the outcome's (`Outcome.to_row`).

    Args:
        mains: Who compiles main, as `toolchains.find` takes it.
        foreigns: Who compiles the library, as `mains`, or `gcc`.
        programs: Names of programs (`programs.names`).
        orders: Link orders, of `ORDERS`.
        instruments: How the library is instrumented, of `INSTRUMENTS`; None: as main is.
        main_instruments: How main is instrumented, of `INSTRUMENTS`.
        lab: Who runs the trials; without one, a lab of its own.
        jobs: How many trials run at once; None: one for each core.

    Raises `LabError` for a name that is not known or not here. What does not build is a row.

    """
    grid = itertools.product(programs, mains, foreigns, orders, instruments, main_instruments)
    with contextlib.nullcontext(lab) if lab else Lab() as mine:
        trials = [
            mine.trial(program, main, foreign, order=order, instrument=how, main_instrument=own)
            for program, main, foreign, order, how, own in grid
            if foreign != "gcc" or how in (None, "none")
        ]
        # First the objects that trials share, then references, then each trial: the threads only
        # wait for child processes (compilers, programs, debuggers), which run in parallel.
        references = list(dict.fromkeys(part for trial in trials for part in trial.references))
        builds = (build.jobs(trial) for trial in (*references, *trials))
        objects = list(dict.fromkeys(itertools.chain.from_iterable(builds)))

        # What does not build is left to the trials that need it: their outcome tells of it.
        def prepare(part: build.CompileJob | Trial) -> None:
            with contextlib.suppress(BuildError):
                if isinstance(part, Trial):
                    mine.reference(part)
                else:
                    build.compiled(part, mine.cache)

        with progress.bar("trials", len(objects) + len(references) + len(trials)) as step:
            progress.each(objects, prepare, "", jobs=jobs, step=step)
            progress.each(references, prepare, "", jobs=jobs, step=step)
            outcomes = progress.each(trials, mine.run, "", jobs=jobs, step=step)
    rows = zip(trials, outcomes, strict=True)
    return pd.DataFrame([{**trial.to_row(), **outcome.to_row()} for trial, outcome in rows])
