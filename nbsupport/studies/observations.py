"""What the user observed, as data with sources (`data/seed`)."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nbsupport.base import settings
from nbsupport.lab.outcome import Outcome
from nbsupport.show.shown import Shown, table


@dataclass(frozen=True)
class Observation:
    """A fact that the user saw."""

    id: str
    what: str
    value: str
    source: str


def observations() -> tuple[Observation, ...]:
    """Return what the user saw, in the order to tell it."""
    return tuple(Observation(**entry) for entry in _data()["observation"])


def _data() -> dict[str, Any]:
    return tomllib.loads((settings.data_dir() / "seed" / "observations.toml").read_text())


def compare(observed: Sequence[Observation], result: Outcome) -> Shown:
    """Show a crash beside what the user saw."""
    dead = result.crash
    here: dict[str, str] = {}
    if dead and dead.frames:
        exits = any(frame.function == "exit" for frame in dead.frames)
        computed = "" if dead.fault_address is None else f"{dead.fault_address:#x}"
        here = {
            "function": dead.function,
            "offset": str(dead.frames[0].offset),
            "address": f"{computed} (from the {dead.fault_address_from})",
            "moment": "at exit" if exits else "in main",
            "allocators": "none",
        }
    rows = [(one.what, one.value, here[one.id]) for one in observed if one.id in here]
    return table(("observation", "the user, on macOS", "here"), rows)
