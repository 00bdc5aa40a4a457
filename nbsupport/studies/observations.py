"""What the user observed, as data with sources (`data/seed`)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

from nbsupport.base import settings


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
