"""What the user observed and concluded, as data with sources (`data/seed`)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

from nbsupport import settings


@dataclass(frozen=True)
class Observation:
    """A fact that the user saw."""

    id: str
    what: str
    value: str
    source: str


@dataclass(frozen=True)
class Conclusion:
    """A claim of the notes, to be answered by an experiment."""

    id: str
    claim: str
    source: str


def observations() -> tuple[Observation, ...]:
    """Return what the user saw, in the order to tell it."""
    return tuple(Observation(**entry) for entry in _data()["observation"])


def conclusions() -> tuple[Conclusion, ...]:
    """Return what the user concluded."""
    return tuple(Conclusion(**entry) for entry in _data()["conclusion"])


def _data() -> dict[str, Any]:
    return tomllib.loads((settings.data_dir() / "seed" / "observations.toml").read_text())
