"""What is predicted before a trial runs, and what the notes' conclusions come to after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nbsupport.outcome import Kind
from nbsupport.results import Run
from nbsupport.trials import Trial

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["refuted", "supported", "open"]

#: Raw versions whose records have the same fields at the same places. Version 10 changed
#: the header only. Source: INSTR_PROF_DATA in InstrProfData.inc of LLVM 18 and 19.
_SAME_RECORDS = (frozenset({9, 10}),)


def same_records(one: int, other: int) -> bool:
    """Return whether the records of two raw versions are laid out alike."""
    return one == other or any({one, other} <= group for group in _SAME_RECORDS)


def predict(trial: Trial) -> frozenset[Kind]:
    """Return the outcomes that mixed record layouts, and nothing else, would produce."""
    return _predict(trial.to_row())


def surprises(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a sweep whose outcome was not predicted."""
    unexpected = [row["outcome"] not in _predict(row) for row in table.to_dict("records")]
    return table[unexpected]


def _predict(row: dict[Any, Any]) -> frozenset[Kind]:
    """Predict from a row's parameters alone.

    The runtime, which comes with main, walks all records with its own stride: with two
    layouts it takes something else for a pointer, or, without value sites, for a size. It
    compares versions only once, as it starts to write, and only in the version symbol that
    the linker kept: the first instrumented object's (front-end instrumentation has none).
    A value site that runs before that may crash first.
    Source: __llvm_profile_write_file (InstrProfilingFile.c), createIRLevelProfileFlagVar
    (PGOInstrumentation.cpp).
    """
    runtime, foreign = row["main_raw_version"], row["foreign_raw_version"]
    if row["instrument"] == row["main_instrument"] == "none":
        return frozenset({"no-profile"})
    if row["instrument"] == "none" or runtime == foreign:
        return frozenset({"ok"})
    alike = same_records(runtime, foreign)
    foreign_first = row["order"] == "foreign-first" or row["main_instrument"] != "ir"
    if row["instrument"] == "front-end":
        return frozenset({"ok"}) if alike else frozenset({"crash", "malformed"})
    if not foreign_first:
        return frozenset({"ok"}) if alike else frozenset({"crash"})
    if alike or row["program"].endswith("cold"):
        return frozenset({"version-mismatch"})
    return frozenset({"crash", "version-mismatch"})


def answer(conclusion: str, run: Run) -> tuple[Verdict, str]:
    """Return what a run makes of a conclusion of the notes, and the claim that decides it.

    A conclusion that no experiment of the run addresses is open.
    """
    crashed = {"crash"} <= set(run.observed("mixed-layouts-decide"))
    linux = str(run.manifest.get("platform", "")).startswith("Linux")
    refuted = {
        "allocator": (crashed, "mixed-layouts-decide"),
        "both-allocators": (run.holds("allocator-is-innocent"), "allocator-is-innocent"),
        "macos": (crashed and linux, "mixed-layouts-decide"),
    }
    is_refuted, claim = refuted.get(conclusion, (False, ""))
    return ("refuted", claim) if is_refuted else ("open", claim)
