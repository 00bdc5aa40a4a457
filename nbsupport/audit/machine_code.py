"""Which raw version the profile runtime in a linked image is of, read from its code.

Its symbol `__llvm_profile_raw_version` does not tell: that is the first instrumented object's.
But the runtime compares that with INSTR_PROF_RAW_VERSION, a constant, and passes the same
constant to a message when they differ (__llvm_profile_write_file in InstrProfilingFile.c). So:
find the message, the code that takes its address, and the one number that is both compared
nearby and passed beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from nbsupport.profile import layout

if TYPE_CHECKING:
    from nbsupport.audit.images import Image

#: Source: PROF_ERR in InstrProfilingPort.h, which all of the runtime's messages go through.
MESSAGE = b"LLVM Profile Error: "
_MISMATCH = MESSAGE + b"Runtime and instrumentation version mismatch"
#: Bytes on either side of the message's use: those of its function, those of its arguments.
_NEAR, _BESIDE = 1024, 24
#: x86-64: cmp r32, imm8; mov ecx, edx or r8d, imm32.
_COMPARED = re.compile(rb"\x83[\xf8-\xff](.)", re.DOTALL)
_PASSED = re.compile(rb"[\xb8-\xba](.)\0\0\0", re.DOTALL)


def writer(image: Image, data: bytes) -> list[int]:
    """Return addresses, as linked, within the function that writes a profile: its message's uses.

    Source: __llvm_profile_write_file (InstrProfilingFile.c).
    """
    return [base + use - start for base, start, _, use in _uses(image, data)]


def raw_version(image: Image, data: bytes) -> int | None:
    """Return the raw version of the runtime in a linked image; None when it is not certain."""
    found: set[int] = set()
    for _, start, size, use in _uses(image, data):
        if image.target.startswith("x86_64"):
            compared = _COMPARED.findall(data, max(0, use - _NEAR), use + _NEAR)
            passed = _PASSED.findall(data, max(0, use - _BESIDE), use + _BESIDE)
            found |= {byte[0] for byte in set(compared) & set(passed)}
        else:
            words, index = np.frombuffer(data, "<u4", size // 4, start), (use - start) // 4
            near, beside = (
                words[max(0, index - n // 4) : index + n // 4] for n in (_NEAR, _BESIDE)
            )
            compared = near[near & 0x7FC0001F == 0x7100001F] >> 10 & 0xFFF
            passed = beside[beside & 0xFFE00000 == 0x52800000] >> 5 & 0xFFFF
            found |= set(compared.tolist()) & set(passed.tolist())
    # A 1 beside it is __fprintf_chk's, or lprofSuspendSigKill's.
    found = {number for number in found if number >= min(layout.LAYOUTS)}
    return found.pop() if len(found) == 1 else None


def _uses(image: Image, data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield base, start and size of a code segment, and where it takes the message's address."""
    text = data.find(_MISMATCH)
    address = next((a + text - s for a, s, n, _ in image.loaded if s <= text < s + n), None)
    if address is None:
        return
    for base, start, size, code in image.loaded:
        if code and image.target.startswith("x86_64"):
            for use in _x86_64(data, start, size, address - base):
                yield base, start, size, use
        elif code and image.target.startswith("aarch64"):
            words = np.frombuffer(data, "<u4", size // 4, start)
            for index in _aarch64(words, base, address):
                yield base, start, size, start + 4 * index


def _x86_64(data: bytes, start: int, size: int, distance: int) -> Iterator[int]:
    """Yield where code takes the address that is so far from its start (lea, rip-relative)."""
    ramp = np.arange(1 << 16, dtype=np.uint32) * np.uint32(-4 % (1 << 32))
    for first in range(min(4, size)):
        for low in range(first, size - 3, ramp.nbytes):  # in pieces: they stay in the cache
            reaches = np.frombuffer(data, "<u4", min(ramp.size, (size - low) // 4), start + low)
            wanted = ramp[: len(reaches)] + np.uint32((distance - low - 4) % (1 << 32))
            for index in np.flatnonzero(reaches == wanted).tolist():
                here = start + low + 4 * index
                if data[here - 2] == 0x8D and data[here - 1] & 0xC7 == 5:
                    yield here


def _aarch64(words: np.ndarray, base: int, address: int) -> Iterator[int]:
    """Yield the index of each instruction that adds to an address's page (adrp before it)."""
    adds = np.flatnonzero(words & 0xFFFFFC00 == 0x91000000 | (address & 0xFFF) << 10)
    for index in adds.tolist():
        register = int(words[index]) >> 5 & 31
        for before in range(max(0, index - 8), index):
            word = int(words[before])
            pages = (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3
            pages -= (pages & 1 << 20) << 1
            page = (base + 4 * before >> 12) + pages
            if word & 0x9F00001F == 0x90000000 | register and page == address >> 12:
                yield index
