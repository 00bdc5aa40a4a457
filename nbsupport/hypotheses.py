"""What is predicted before a trial runs, and what the notes' conclusions come to after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nbsupport.outcome import Kind
from nbsupport.profile.fate import Piece, fate
from nbsupport.results import Run
from nbsupport.trials import Trial

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["refuted", "supported", "open"]


def predict(trial: Trial) -> frozenset[Kind]:
    """Return the outcomes that mixed record layouts, and nothing else, would produce."""
    return _predict(trial.to_row())


def surprises(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a sweep whose outcome was not predicted."""
    unexpected = [row["outcome"] not in _predict(row) for row in table.to_dict("records")]
    return table[unexpected]


def _predict(row: dict[Any, Any]) -> frozenset[Kind]:
    """Predict from a row's parameters alone, as `nbsupport.profile.fate` does."""
    runtime: int = row["main_raw_version"]
    parts = [(runtime, row["main_instrument"]), (row["foreign_raw_version"], row["instrument"])]
    if row["order"] == "foreign-first":
        parts.reverse()
    pieces = [Piece(version, how) for version, how in parts if how != "none"]
    return fate(runtime, pieces, "cold" if row["program"].endswith("cold") else "hot").outcomes


def answer(conclusion: str, run: Run) -> tuple[Verdict, str]:
    """Return what a run makes of a conclusion of the notes, and the claim that decides it.

    A conclusion that no experiment of the run addresses is open.
    """
    crashed = {"crash"} <= set(run.observed("mixed-layouts-decide"))
    linux = str(run.manifest.get("platform", "")).startswith("Linux")
    refuted = {
        "allocator": (crashed, "mixed-layouts-decide"),
        "both-allocators": (run.holds("allocator-is-innocent"), "allocator-is-innocent"),
        "freed": (
            run.holds("writer-reads-the-image") and run.holds("nothing-of-the-profile-is-freed"),
            "writer-reads-the-image",
        ),
        "macos": (crashed and linux, "mixed-layouts-decide"),
    }
    is_refuted, claim = refuted.get(conclusion, (False, ""))
    return ("refuted", claim) if is_refuted else ("open", claim)
