"""What the user observed, as data with sources (`data/seed`); and the impossible numbers.

Those are (End + size - 1 - Begin) / size in unsigned 64-bit arithmetic, where `size` is that of a
record or a counter: __llvm_profile_get_num_data and __llvm_profile_get_num_counters
(InstrProfilingBuffer.c), declared without arguments, divide what two registers happen to hold.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nbsupport.base import LabError, files, settings
from nbsupport.lab import Outcome
from nbsupport.profile import LAYOUTS
from nbsupport.show import Shown, shown


@dataclass(frozen=True)
class Observation:
    """A fact that the user saw; `beyond` says why nothing here is held against it."""

    id: str
    what: str
    value: str
    source: str
    beyond: str = ""


def load() -> tuple[Observation, ...]:
    """Return what the user saw, in the order to tell it."""
    path = settings.data_dir() / "seed" / "observations.toml"
    entries = files.read_toml(path)["observation"]
    return tuple(files.load(Observation, entry, path.name) for entry in entries)


def numbers(*ids: str) -> tuple[int, ...]:
    """Return the numbers that the user saw, by the ids of these observations."""
    values = {observation.id: observation.value for observation in load()}
    return tuple(int(values[name]) for name in ids)


def show_beyond(observed: Sequence[Observation]) -> Shown:
    """Show what the user saw (`observed`) that nothing here is held against, and why not."""
    rows = [(fact.what, fact.value, fact.source, fact.beyond) for fact in observed if fact.beyond]
    return shown.table(("observation", "the user", "source", "not decided here, since"), rows)


def table(observed: Sequence[Observation], result: Outcome) -> Shown:
    """Show what the user saw (`observed`) beside the crash of a `result`; nothing for another."""
    crash = result.crash
    here: dict[str, str] = {}
    if crash and crash.frames:
        exits = any(frame.function == "exit" for frame in crash.frames)
        computed = "" if crash.fault_address is None else f"{crash.fault_address:#x}"
        here = {
            "function": crash.function,
            "offset": str(crash.frames[0].offset),
            "address": f"{computed} (from the {crash.fault_address_from})",
            "moment": "at exit" if exits else "in main",
            "allocators": "none",
        }
    rows = [(fact.what, fact.value, here[fact.id]) for fact in observed if fact.id in here]
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
        ranges = (f"{ends[0]:#x}..{ends[-1]:#x}" for ends in (self.data, self.counters))
        return f"End - Begin was {' and '.join(ranges)}: at most {self.apart:#x} bytes apart"


def decode(
    entries: int, counters: int, record_size: int = LAYOUTS[10].record_size()
) -> DecodedNumbers:
    """Return what two numbers were before the division: of `entries` and of `counters`.

    `record_size` is in bytes; a counter has 8. Raises `LabError` for what is no 64-bit number.
    """
    ranges = []
    for count, size in ((entries, record_size), (counters, 8)):
        if size < 1 or not 0 <= count <= (2**64 - 1) // size:
            raise LabError("the harness's numbers", "not 64-bit numbers", "check them")
        ranges.append(range(count * size - size + 1, count * size + 1))
    return DecodedNumbers(*ranges)


def plausible(number: int) -> str:
    """Return a number of records or counters, or that no program can have so many."""
    return "impossible" if number > 1 << 20 else str(number)


def read_numbers(text: str) -> tuple[int, int]:
    """Return entries and counters from what the programs `harness` and `rust-harness` print."""
    numbers = re.search(r"data entries (\d{1,20})\ncounters (\d{1,20})$", text, re.MULTILINE)
    if numbers is None:
        raise LabError("the harness", "it printed no numbers", "run the program `harness`")
    return int(numbers[1]), int(numbers[2])
