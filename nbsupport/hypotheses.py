"""What is predicted before a trial runs, so that the run can prove it wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nbsupport.outcome import Kind
from nbsupport.trials import Trial

if TYPE_CHECKING:
    import pandas as pd

#: Raw versions whose records have the same fields at the same places. Version 10 changed
#: the header only. Source: INSTR_PROF_DATA in InstrProfData.inc of LLVM 18 and 19.
_SAME_RECORDS = (frozenset({9, 10}),)


def same_records(one: int | None, other: int | None) -> bool:
    """Return whether records of two raw versions are laid out alike (None: no records)."""
    if one is None or other is None or one == other:
        return True
    return any({one, other} <= group for group in _SAME_RECORDS)


def predict(trial: Trial) -> frozenset[Kind]:
    """Return the outcomes that mixed record layouts, and nothing else, would produce.

    The runtime walks all records with main's stride: with two layouts it reads a pointer
    where there is none. It compares versions only once, as it starts to write, and only
    the version symbol that the linker kept: the first object's that has one (front-end
    instrumentation has none). A value site that runs before may crash first.
    """
    main = None if trial.main_instrument == "none" else trial.main.raw_version
    foreign = None if trial.instrument == "none" else trial.foreign.raw_version
    if main is None or foreign is None or main == foreign:
        return frozenset({"ok"})
    alike = same_records(main, foreign)
    foreign_symbol = trial.order == "foreign-first" and trial.instrument == "ir"
    if not foreign_symbol:
        return frozenset({"ok"}) if alike else frozenset({"crash"})
    if alike or trial.program.name.endswith("cold"):
        return frozenset({"version-mismatch"})
    return frozenset({"crash", "version-mismatch"})


def surprises(trials: Iterable[Trial], table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a sweep whose outcome was not predicted."""
    right = [kind in predict(trial) for trial, kind in zip(trials, table["outcome"], strict=True)]
    return table[[not one for one in right]]
