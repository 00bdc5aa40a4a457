"""What the user observed, as data with sources (`data/seed`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError
from nbsupport.lab.outcome import Outcome
from nbsupport.profile import layout
from nbsupport.show import shown
from nbsupport.show.shown import Shown


@dataclass(frozen=True)
class Observation:
    """A fact that the user saw."""

    id: str
    what: str
    value: str
    source: str


def load() -> tuple[Observation, ...]:
    """Return what the user saw, in the order to tell it."""
    return tuple(Observation(**entry) for entry in _data()["observation"])


def numbers(*ids: str) -> tuple[int, ...]:
    """Return the numbers that the user saw, by the ids of these observations."""
    values = {observation.id: observation.value for observation in load()}
    return tuple(int(values[name]) for name in ids)


def _data() -> dict[str, Any]:
    return files.read_toml(settings.data_dir() / "seed" / "observations.toml")


def table(observed: Sequence[Observation], result: Outcome) -> Shown:
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
    return shown.table(("observation", "the user, on macOS", "here"), rows)


@dataclass(frozen=True)
class DecodedNumbers:
    """Every End - Begin (modulo 2**64; -1 is 2**64 - 1) that gives these entries, and counters."""

    data: range
    counters: range

    @property
    def apart(self) -> int:
        """The largest distance, modulo 2**64, of a value of the one from the other's, in bytes."""
        ends = (self.data[-1] - self.counters[0], self.counters[-1] - self.data[0])
        return max(min(end % 2**64, -end % 2**64) for end in ends)

    @property
    def sentence(self) -> str:
        """What was divided, in a line. That such are addresses of the program is an inference."""
        ends = (f"{each[0]:#x}..{each[-1]:#x}" for each in (self.data, self.counters))
        return f"End - Begin was {' and '.join(ends)}: at most {self.apart:#x} bytes apart"


def decode(
    entries: int,
    counters: int,
    record_size: int = layout.LAYOUTS[10].record_size(),
    counter_size: int = 8,
) -> DecodedNumbers:
    """Return what the two numbers were before the division; raises `LabError` if none can be."""
    found = []
    for count, size in ((entries, record_size), (counters, counter_size)):
        if size < 1 or not 0 <= count <= (2**64 - 1) // size:
            raise LabError("the harness's numbers", "not 64-bit numbers", "check them")
        found.append(range(count * size - size + 1, count * size + 1))
    return DecodedNumbers(*found)


def plausible(number: int) -> str:
    """Return a number of records or counters, or that no program can have so many."""
    return "impossible" if number > 1 << 20 else str(number)


def read_numbers(text: str) -> tuple[int, int]:
    """Return entries and counters from what the programs `harness` and `rust-harness` print."""
    found = re.search(r"data entries (\d{1,20})\ncounters (\d{1,20})$", text, re.MULTILINE)
    if found is None:
        raise LabError("the harness", "it printed no numbers", "run the program `harness`")
    return int(found[1]), int(found[2])
