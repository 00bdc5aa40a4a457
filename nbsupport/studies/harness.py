"""The impossible numbers: what the runtime's counting functions return without their arguments.

__llvm_profile_get_num_data and __llvm_profile_get_num_counters (InstrProfilingBuffer.c) take the
Begin and End of a section, and return (End + size - 1 - Begin) / size in unsigned 64-bit
arithmetic, `size` being that of a record or a counter. Declared without arguments, they divide
what two registers happen to hold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nbsupport.base.errors import LabError
from nbsupport.profile import layout


@dataclass(frozen=True)
class Decoded:
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
) -> Decoded:
    """Return what the two numbers were before the division; raises `LabError` if none can be."""
    found = []
    for count, size in ((entries, record_size), (counters, counter_size)):
        if size < 1 or not 0 <= count <= (2**64 - 1) // size:
            raise LabError("the harness's numbers", "not 64-bit numbers", "check them")
        found.append(range(count * size - size + 1, count * size + 1))
    return Decoded(*found)


def numbers(text: str) -> tuple[int, int]:
    """Return entries and counters from what the programs `harness` and `rust-harness` print."""
    found = re.search(r"data entries (\d{1,20})\ncounters (\d{1,20})$", text, re.MULTILINE)
    if found is None:
        raise LabError("the harness", "it printed no numbers", "run the program `harness`")
    return int(found[1]), int(found[2])
