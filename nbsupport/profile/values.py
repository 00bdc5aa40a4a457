"""Value-profile data: which values each value site saw, and how often.

A function with value sites has one block: its size and number of kinds (4 bytes each), then
for each kind: kind and number of sites (4 each), a byte of number of values for each site,
padding to eight, and the values (8 bytes each, value and count). Source: ValueProfData,
ValueProfRecord (InstrProfData.inc), ValueProfData::checkIntegrity (InstrProf.cpp).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nbsupport.profile.layout import Order
from nbsupport.profile.names import Problem

#: Kinds of values. Source: VALUE_PROF_KIND (InstrProfData.inc).
KINDS = ("indirect-call-target", "memory-operation-size", "vtable")


@dataclass(frozen=True, slots=True)
class Sites:
    """Sites of one kind in one function.

    `numbers` are how many values each has, `first` is where the first value is, in bytes.
    """

    record: int
    kind: int
    numbers: bytes
    first: int

    def rows(self, data: memoryview, order: Order) -> Iterator[tuple[int, int, int]]:
        """Yield site, value and count."""
        here = self.first
        for site, number in enumerate(self.numbers):
            for _ in range(number):
                yield site, *struct.unpack_from(f"{order}QQ", data, here)
                here += 16


def read(
    data: memoryview, records: Iterable[int], kinds: int, order: Order
) -> tuple[list[Sites], int, list[Problem]]:
    """Return the value sites of those records, where the last block ends, and what is malformed.

    It ends with the first malformed block, for nothing tells where the next would be.
    """
    pair = struct.Struct(f"{order}II").unpack_from
    blocks: list[Sites] = []
    here, length = 0, len(data)
    for record in records:
        size, number = pair(data, here) if here + 8 <= length else (0, 0)
        if size < 8 or size % 8 or size > length - here or number > kinds:
            what = f"expected a block within {length - here} bytes of up to {kinds} kinds"
            what = f"value data: {what}, found {size} of {number}"
            if here + 8 > length or size > length - here:
                what = f"truncated {what}"
            return blocks, here, [Problem(here, what)]
        at, end = here + 8, here + size
        for _ in range(number):
            kind, sites = pair(data, at) if at + 8 <= end else (kinds, 0)
            numbers = bytes(data[at + 8 : min(end, at + 8 + sites)])
            first = at + 8 + -(-sites // 8) * 8
            at = first + 16 * sum(numbers)
            if kind >= kinds or at > end:
                what = f"expected sites of kind 0 to {kinds - 1} within {size} bytes"
                what = f"value data: {what}, found {sites} of kind {kind}"
                return blocks, here, [Problem(here, what)]
            blocks.append(Sites(record, kind, numbers, first))
        here = end
    return blocks, here, []
