"""Value-profile data, which values each value site saw: where it ends, and what is malformed.

A function with value sites has one block: its size and number of kinds (4 bytes each), then
for each kind: kind and number of sites (4 each), a byte of number of values for each site,
padding to eight, and the values (8 bytes each, value and count). Source: ValueProfData,
ValueProfRecord (InstrProfData.inc), ValueProfData::checkIntegrity (InstrProf.cpp).
"""

from __future__ import annotations

import struct

from nbsupport.profile.layout import Order
from nbsupport.profile.names import Problem


def read(data: memoryview, blocks: int, kinds: int, order: Order) -> tuple[int, list[Problem]]:
    """Return where the last of so many blocks ends, and what is malformed.

    That is the first malformed block, for nothing tells where the next would be.
    """
    pair = struct.Struct(f"{order}II").unpack_from
    here, length = 0, len(data)
    for _ in range(blocks):
        size, number = pair(data, here) if here + 8 <= length else (0, 0)
        if size < 8 or size % 8 or size > length - here or number > kinds:
            what = f"expected a block within {length - here} bytes of up to {kinds} kinds"
            what = f"value data: {what}, found {size} of {number}"
            if here + 8 > length or size > length - here:
                what = f"truncated {what}"
            return here, [Problem(here, what)]
        at, end = here + 8, here + size
        for _ in range(number):
            kind, sites = pair(data, at) if at + 8 <= end else (kinds, 0)
            values = sum(data[at + 8 : min(end, at + 8 + sites)])
            at += 8 + -(-sites // 8) * 8 + 16 * values
            if kind >= kinds or at > end:
                what = f"expected sites of kind 0 to {kinds - 1} within {size} bytes"
                what = f"value data: {what}, found {sites} of kind {kind}"
                return here, [Problem(here, what)]
        here = end
    return here, []
