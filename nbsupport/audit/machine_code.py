"""What the code of a linked image says of the profile runtime in it, symbols or not.

Which raw version it is of, `__llvm_profile_raw_version` does not tell, for that is the first
instrumented object's. But the runtime compares that with a constant, and passes the same constant
to a message when they differ (__llvm_profile_write_file in InstrProfilingFile.c): it is the one
number that is both compared near the code that takes the message's address, and passed beside it.

Where its functions are: only a value site passes the address of its record as the second argument,
and what it calls next is a value-profiling function. Source: __llvm_profile_instrument_target,
..._memop (InstrProfilingValue.c).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nbsupport.audit.image import Image
    from nbsupport.profile.infer import Array

#: Source: PROF_ERR in InstrProfilingPort.h, which all of the runtime's messages go through.
MESSAGE = b"LLVM Profile Error: "
_MISMATCH = MESSAGE + b"Runtime and instrumentation version mismatch"
#: Bytes on either side of the message's use: those of its function, those of its arguments.
_NEAR, _BESIDE = 1024, 24
#: x86-64: cmp r32, imm8; mov ecx, edx or r8d, imm32.
_COMPARED = re.compile(rb"\x83[\xf8-\xff](.)", re.DOTALL)
_PASSED = re.compile(rb"[\xb8-\xba](.)\0\0\0", re.DOTALL)
#: Bytes from an argument to the call, and from an adrp to its add: others stand between.
_REACH = 64
#: At least so many of a function's calls follow a record's address, else it is another one.
_SHARE = 0.2
#: Smaller numbers that are compared and passed on are flags.
_FIRST = 4
#: Bytes of code that are searched at once: they stay in the processor's cache.
_CHUNK = 1 << 20


def writer(image: Image, data: bytes) -> list[int]:
    """Return addresses, as linked, where its message is used: in what writes a profile."""
    return [code.base + use for code, use in _uses(image, data)]


def raw_version(image: Image, data: bytes) -> int | None:
    """Return the raw version of the runtime in a linked image; None when it is not certain."""
    numbers = set[int]().union(*(code.constants(use) for code, use in _uses(image, data)))
    # A 1 beside it is __fprintf_chk's, or lprofSuspendSigKill's.
    numbers = {number for number in numbers if number >= _FIRST}
    return numbers.pop() if len(numbers) == 1 else None


def value_functions(image: Image, data: bytes) -> list[int]:
    """Return the addresses, as linked, of the functions that value sites call."""
    places = ((_signed(address), size) for address, _, size in image.places.get("data", ()))
    records = [(address, address + size) for address, size in places]
    addresses: set[int] = set()
    for code in _codes(image, data) if records else ():
        arguments = code.second_arguments(min(records)[0], max(records)[1])
        called = _called(arguments, *code.calls())
        addresses |= {at for at in called if code.base <= at < code.base + code.size}
    return sorted(addresses)


def _called(arguments: Array, calls: Array, targets: Array) -> set[int]:
    """Return what is called next after the arguments, where that is usual for the function."""
    after = np.searchsorted(calls, arguments)
    after = after[after < len(calls)]
    near = calls[after] - arguments[: len(after)] <= _REACH
    functions, votes = np.unique(targets[np.unique(after[near])], return_counts=True)
    every, total = np.unique(targets, return_counts=True)
    share = votes / total[np.searchsorted(every, functions)]
    return set(functions[share >= _SHARE].tolist())


def _uses(image: Image, data: bytes) -> Iterator[tuple[_X86 | _Aarch64, int]]:
    """Yield the code that takes the message's address, and where, in bytes from its start."""
    text = data.find(_MISMATCH)
    places = [
        _signed(base + text - start)
        for base, start, n, _ in image.loaded
        if start <= text < start + n
    ]
    for code in _codes(image, data) if places else ():
        for use in code.taking(places[0], places[0] + 1)[0].tolist():
            yield code, use


def _codes(image: Image, data: bytes) -> Iterator[_X86 | _Aarch64]:
    decoders: dict[str, type[_X86 | _Aarch64]] = {"x86_64": _X86, "aarch64": _Aarch64}
    decoder = decoders.get(image.target.partition("-")[0])
    for base, start, size, executable in image.loaded:
        if executable and decoder:
            yield decoder(data, _signed(base), start, size)


def _signed(address: int) -> int:
    """Return an address as NumPy adds it up: a kernel's are in the upper half."""
    return (address + (1 << 63)) % (1 << 64) - (1 << 63)


@dataclass(frozen=True)
class _Code:
    """Machine code: `size` bytes from `start` in `data`, linked to the address `base`.

    Places are in bytes from its start.
    """

    data: bytes
    base: int
    start: int
    size: int


class _X86(_Code):
    """Code of x86-64: instructions are told by their first bytes, wherever these are."""

    def taking(self, low: int, high: int) -> tuple[Array, Array]:
        """Return where it takes an address from `low` up to `high`, and into which register."""
        places = self._where(0x8D, 5)  # lea register, [rip + n]
        values = self.base + places + 6 + self._numbers(places + 2)
        places = places[(values >= low) & (values < high)]
        return places + 2, self._bytes[places + 1] >> 3

    def second_arguments(self, low: int, high: int) -> Array:
        """Return where such an address becomes the second argument of a call."""
        places, registers = self.taking(low, high)
        lea = places[(registers == 6) & (places > 2)] - 3
        lea = lea[self._bytes[lea] == 0x48]  # rsi; with another prefix it is r14
        mov = self._where(0xBE)  # mov esi, n: in a program that is not to be moved
        values = self._numbers(mov + 1)
        return np.sort(np.concatenate([lea, mov[(values >= low) & (values < high)]]))

    def calls(self) -> tuple[Array, Array]:
        """Return where it calls or jumps, and the addresses to which."""
        places = np.sort(np.concatenate([self._where(0xE8), self._where(0xE9)]))
        targets = self.base + places + 5 + self._numbers(places + 1)
        sane = (targets >= self.base) & (targets < self.base + self.size)
        return places[sane], targets[sane]

    def constants(self, place: int) -> set[int]:
        """Return the small numbers that it compares, near a place, and passes on, beside it."""
        here = self.start + place
        compared = _COMPARED.findall(self.data, max(0, here - _NEAR), here + _NEAR)
        passed = _PASSED.findall(self.data, max(0, here - _BESIDE), here + _BESIDE)
        return {byte[0] for byte in set(compared) & set(passed)}

    @functools.cached_property
    def _bytes(self) -> Array:
        return np.frombuffer(self.data, np.uint8, self.size, self.start)

    def _numbers(self, places: Array) -> Array:
        """Return the signed 32 bits at each place."""
        count = max(0, self.size - 3)
        numbers: Array = np.ndarray((count,), "<i4", self.data, self.start, strides=(1,))[places]
        return numbers.astype(np.int64)

    def _where(self, byte: int, mode: int | None = None) -> Array:
        """Return where a byte is, with a ModRM of that addressing mode behind it, if one is given.

        Four more bytes are there behind these.
        """
        places = [np.zeros(0, np.int64)]
        for low in range(0, self.size - 5, _CHUNK):
            high = min(low + _CHUNK, self.size - 5)
            chosen = self._bytes[low:high] == byte
            if mode is not None:
                chosen &= self._bytes[low + 1 : high + 1] & 0xC7 == mode
            places.append(np.flatnonzero(chosen) + low)
        return np.concatenate(places)


class _Aarch64(_Code):
    """The same of AArch64, where each instruction has four bytes."""

    def taking(self, low: int, high: int) -> tuple[Array, Array]:
        # An adrp puts the address of a page into a register, an add of the same completes it; a
        # linker for macOS makes one adr of both where it reaches (its linker optimization hints).
        words, size = self._words, len(self._words)
        pages = np.flatnonzero(words & 0x9F000000 == 0x90000000)
        adds = np.flatnonzero(words & 0xFFC00000 == 0x91000000)
        keys = np.sort((words[pages] & 31).astype(np.int64) * size + pages)  # by register
        sources = (words[adds] >> 5 & 31).astype(np.int64) * size
        before = np.searchsorted(keys, sources + adds) - 1
        pages = np.append(keys, 0)[before] - sources  # before the first stands the 0
        near = (before >= 0) & (pages >= 0) & (4 * (adds - pages) <= _REACH)
        adds, pages = adds[near], pages[near]
        whole = ((self.base + 4 * pages >> 12) + self._distances(pages) << 12) + (
            words[adds] >> 10 & 0xFFF
        )
        short = np.flatnonzero(words & 0x9F000000 == 0x10000000)
        values = np.concatenate([whole, self.base + 4 * short + self._distances(short)])
        places = np.concatenate([adds, short])
        places = np.sort(places[(values >= low) & (values < high)])
        return 4 * places, words[places] & 31

    def _distances(self, places: Array) -> Array:
        """Return the signed 21 bits of each adrp or adr."""
        word = self._words[places].astype(np.int64)
        distance = (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3
        signed: Array = distance - ((distance & 1 << 20) << 1)
        return signed

    def second_arguments(self, low: int, high: int) -> Array:
        places, registers = self.taking(low, high)
        chosen: Array = places[registers == 1]
        return chosen

    def calls(self) -> tuple[Array, Array]:
        places = np.flatnonzero(self._words & 0x7C000000 == 0x14000000)  # b, bl
        distance = self._words[places].astype(np.int64) & 0x3FFFFFF
        distance -= (distance & 1 << 25) << 1
        return 4 * places, self.base + 4 * (places + distance)

    def constants(self, place: int) -> set[int]:
        near = self._words[max(0, place - _NEAR) // 4 : (place + _NEAR) // 4]
        beside = self._words[max(0, place - _BESIDE) // 4 : (place + _BESIDE) // 4]
        compared = near[near & 0x7FC0001F == 0x7100001F] >> 10 & 0xFFF
        passed = beside[beside & 0xFFE00000 == 0x52800000] >> 5 & 0xFFFF
        return set(compared.tolist()) & set(passed.tolist())

    @functools.cached_property
    def _words(self) -> Array:
        return np.frombuffer(self.data, "<u4", self.size // 4, self.start)
