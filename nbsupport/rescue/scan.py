"""The profile runtime's functions in an image without symbols, found by what its code does.

A value site passes the address of its record as the second argument: no other code does that.
So what is called next, wherever a record's address was put there, is a value-profiling
function. Source: __llvm_profile_instrument_target, ..._memop (InstrProfilingValue.c).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nbsupport.audit.images import Image

Array = np.ndarray[Any, np.dtype[Any]]

#: From the argument to the call, in bytes; other arguments are put in place between.
_REACH = 64
#: At least so many of a function's calls follow a record's address, else it is another one.
_SHARE = 0.2


def value_functions(image: Image, data: bytes) -> list[int]:
    """Return the addresses, as linked, of the functions that value sites call."""
    records = [(address, address + size) for address, _, size in image.places.get("data", ())]
    found: set[int] = set()
    for base, start, size, code in image.loaded:
        if code and records:
            low, high = min(records)[0], max(records)[1]
            x86 = image.target.startswith("x86_64")
            seen = _x86_64(data, base, start, size) if x86 else None
            if image.target.startswith("aarch64"):
                seen = _aarch64(data, base, start, size)
            if seen:
                arguments, values, calls, targets = seen
                inside = (values >= low) & (values < high)
                chosen = _called(arguments[inside], calls, targets)
                found |= {one for one in chosen if base <= one < base + size}
    return sorted(found)


def _called(arguments: Array, calls: Array, targets: Array) -> list[int]:
    """Return what is called next after the arguments, where that is usual for the function."""
    after = np.searchsorted(calls, arguments)
    after = after[after < len(calls)]
    near = calls[after] - arguments[: len(after)] <= _REACH
    wanted, votes = np.unique(targets[np.unique(after[near])], return_counts=True)
    every, total = np.unique(targets, return_counts=True)
    share = votes / total[np.searchsorted(every, wanted)]
    chosen: list[int] = wanted[share >= _SHARE].tolist()
    return chosen


def _x86_64(data: bytes, base: int, start: int, size: int) -> tuple[Array, Array, Array, Array]:
    """Return where rsi gets an address, which, where calls and jumps are, and where to."""
    code = np.frombuffer(data, np.uint8, size, start)
    body = code[:-7] if len(code) > 7 else code[:0]

    def number(places: Array) -> Array:
        """Return the signed 32 bits at each place."""
        found = np.zeros(len(places), np.uint32)
        for n in range(4):
            found |= code[places + n].astype(np.uint32) << np.uint32(8 * n)
        return found.view(np.int32).astype(np.int64)

    after = np.flatnonzero(body == 0x48)
    lea = after[(code[after + 1] == 0x8D) & (code[after + 2] == 0x35)]  # lea rsi, [rip + n]
    mov = np.flatnonzero(body == 0xBE)  # mov esi, n: in a program that is not to be moved
    places = np.concatenate([lea, mov])
    values = np.concatenate([base + lea + 7 + number(lea + 3), number(mov + 1)])
    order = np.argsort(places)
    calls = np.flatnonzero((body == 0xE8) | (body == 0xE9))
    targets = base + calls + 5 + number(calls + 1)
    sane = (targets >= base) & (targets < base + size)
    return places[order], values[order], calls[sane], targets[sane]


def _aarch64(data: bytes, base: int, start: int, size: int) -> tuple[Array, Array, Array, Array]:
    """Return the same where x1 gets it (adrp, add)."""
    words = np.frombuffer(data, "<u4", size // 4, start).astype(np.int64)
    pages = np.flatnonzero(words & 0x9F00001F == 0x90000001)
    adds = np.flatnonzero(words & 0xFFC003FF == 0x91000021)
    before = np.searchsorted(pages, adds) - 1
    adds, before = adds[before >= 0], before[before >= 0]
    page = pages[before]
    distance = (words[page] >> 5 & 0x7FFFF) << 2 | words[page] >> 29 & 3
    distance -= (distance & 1 << 20) << 1
    values = ((base + 4 * page >> 12) + distance << 12) + (words[adds] >> 10 & 0xFFF)
    near = adds - page <= _REACH // 4
    calls = np.flatnonzero((words & 0x7C000000) == 0x14000000)  # b, bl
    jump = words[calls] & 0x3FFFFFF
    jump -= (jump & 1 << 25) << 1
    return 4 * adds[near], values[near], 4 * calls, base + 4 * (calls + jump)
