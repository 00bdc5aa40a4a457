"""Function names, as `__llvm_prf_names` and a raw profile hold them: compressed, hashed."""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nbsupport.profile.layout import Buffer


#: Between two names of a blob. Source: getInstrProfNameSeparator (InstrProf.h).
SEPARATOR = b"\x01"
#: All blobs together may inflate to so many times their size. zlib can do 1032 to 1; names,
#: even long and alike, were never seen above 20.
MOST_INFLATION = 50
#: A larger program than any that is known.
MOST_NAMES = 1 << 26
_MOST_PROBLEMS = 100
#: Bytes of names that are in memory at once; NameRefs that are looked up at once.
_PIECE, _LOOKED_UP = 1 << 20, 1 << 20
_NONZERO = re.compile(rb"[^\0]")


@dataclass(frozen=True)
class Problem:
    """What is malformed: where (a file's offset in bytes), and what was expected and found."""

    offset: int
    what: str


class Doubt(Problem):
    """What cannot be right, though llvm-profdata takes it as it is."""


class Names:
    """The names of a profile or of a section, in the order they are stored.

    `text` are names, or `stored` is what one or more objects' names became when they were linked:
    see `decode`. Of so many names as a large program has, only hashes are held in memory.
    `problems` are offsets from the start of what is stored.
    """

    def __init__(
        self, text: Iterable[bytes] = (), stored: Buffer = b"", most: int = MOST_NAMES
    ) -> None:
        self._given, self._stored, self._most = list(text), stored, most

    @property
    def text(self) -> list[bytes]:
        """The names, each an object: for a large program that is more than its profile."""
        return [name for window in self._windows([]) for name in window]

    @property
    def problems(self) -> list[Problem]:
        """What is malformed."""
        return self._read[1]

    @property
    def hashes(self) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        """The NameRef of each name: the low 64 bits of its MD5.

        Source: IndexedInstrProf::ComputeHash (InstrProf.h), MD5Hash (MD5.h).
        """
        return self._read[0]

    @functools.cached_property
    def _read(self) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint64]], list[Problem]]:
        fresh, digests = hashlib.md5(usedforsecurity=False).copy, bytearray()
        problems = list[Problem]()

        def digest(name: bytes) -> bytes:
            md5 = fresh()  # a copy takes half as long as to find the algorithm anew
            md5.update(name)
            return md5.digest()[:8]

        for window in self._windows(problems):
            digests += b"".join(map(digest, window))
        return np.frombuffer(digests, "<u8"), problems

    def _windows(self, problems: list[Problem]) -> Iterator[list[bytes]]:
        """Yield the names, so many together as are in memory at once."""
        number = 0
        stored = _stored(memoryview(self._stored), problems)
        for start, window in itertools.chain([(0, self._given)], stored):
            room = self._most - number
            yield window[:room]
            number += len(window)
            if number > self._most or len(problems) > _MOST_PROBLEMS:
                problems.append(Problem(start, f"names: what follows {number} of them is not read"))
                return

    @functools.cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.hashes, kind="stable").astype(np.int32)
        return self.hashes[order], order

    def index(self, references: np.ndarray) -> np.ndarray:
        """Return for each NameRef the index of its name in `text`, -1 where there is none."""
        ordered, order = self._sorted
        index = np.full(references.shape, -1, np.int32)
        for start in range(0, len(references) if len(ordered) else 0, _LOOKED_UP):
            # Looking many up in their order is twice as fast, sorting included: the cache is warm.
            part = np.ascontiguousarray(references[start : start + _LOOKED_UP], "<u8")
            turn = np.argsort(part)
            hashes = part[turn]
            place = np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)
            index[start + turn] = np.where(ordered[place] == hashes, order[place], -1)
        return index

    def resolve(self, references: np.ndarray) -> list[bytes]:
        """Return for each NameRef its name, b"" where there is none."""
        index = self.index(references).tolist()
        wanted, names, number = sorted({n for n in index if n >= 0}), {-1: b""}, 0
        for window in self._windows([]) if wanted else ():
            first = bisect.bisect_left(wanted, number)
            last = bisect.bisect_left(wanted, number + len(window))
            names |= {n: window[n - number] for n in wanted[first:last]}
            number += len(window)
        return [names[n] for n in index]


def decode(blobs: Buffer, most: int = MOST_NAMES) -> Names:
    r"""Read what one or more objects' names became when they were linked.

    Each is two ULEB128 numbers (size, compressed size or 0), then the names; zeros pad. No more
    than `most` names are read. Source: readAndDecodeStrings (InstrProf.cpp),
    collectGlobalObjectNameStrings.

    >>> names = decode(b"\x06\0main\x01f" + bytes(3) + b"\x01\0g")
    >>> names.text, hex(names.hashes[0])
    ([b'main', b'f', b'g'], '0xdb956436e78dd5fa')
    >>> decode(b"\x09\0main").problems
    [Problem(offset=0, what='names: expected 9 bytes, found 4 bytes')]
    """
    return Names((), blobs, most)


def _stored(data: memoryview, problems: list[Problem]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield names that follow one another, and where their blob starts."""
    for start, pieces in _blobs(data, problems):
        rest, empty = b"", False
        for piece in pieces:
            whole, separator, rest = (rest + piece).rpartition(SEPARATOR)
            if separator:
                window = whole.split(SEPARATOR)
                empty |= b"" in window
                yield start, window
        if empty or not rest:
            problems.append(Problem(start, "names: expected a name, found an empty one"))
        yield start, [rest]


def _blobs(data: memoryview, problems: list[Problem]) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Yield each blob's start and its content, in pieces."""
    here, end = 0, len(data)
    room = MOST_INFLATION * end + (1 << 16)
    while here < end:
        if data[here] == 0:
            if here == 0:  # elsewhere it is padding
                what = "names: expected a size, found 0: llvm-profdata takes it for an empty name"
                problems.append(Problem(0, what))
            following = _NONZERO.search(data, here)
            here = following.start() if following else end
            continue
        start = here
        size, here = uleb(data, here)
        packed, here = uleb(data, here)
        stored = packed or size
        if here < 0 or stored > end - here:
            bytes_ = "no whole number" if here < 0 else f"{end - here} bytes"
            problems.append(Problem(start, f"names: expected {stored} bytes, found {bytes_}"))
            return
        content = data[here : here + stored]
        here += stored
        if not packed:
            yield start, (bytes(content[n : n + _PIECE]) for n in range(0, stored, _PIECE))
        elif size > room:
            what = f"names: {packed} bytes that claim to inflate to {size}: not believed"
            problems.append(Problem(start, what))
        else:
            room -= size
            yield start, _inflated(content, size, start, problems)


def _inflated(
    content: memoryview, size: int, start: int, problems: list[Problem]
) -> Iterator[bytes]:
    """Yield so many bytes that a blob inflates to, in pieces."""
    stream, rest, length = zlib.decompressobj(), bytes(content), 0
    try:
        while length <= size and not stream.eof:
            piece = stream.decompress(rest, min(_PIECE, size + 1 - length))
            rest = stream.unconsumed_tail
            length += len(piece)
            if not piece:
                break
            yield piece[: len(piece) - max(0, length - size)]
    except zlib.error as error:
        problems.append(Problem(start, f"names: zlib says {error}"))
        return
    if length != size or not stream.eof:
        what = f"names: expected to inflate to {size} bytes, found {length}"
        problems.append(Problem(start, what))


def uleb(data: memoryview, here: int) -> tuple[int, int]:
    r"""Return the ULEB128 number in `data` at `here`, and where it ends (-1: it does not).

    >>> uleb(memoryview(b"\x85\x01"), 0), uleb(memoryview(b"\x85"), 0)
    ((133, 2), (0, -1))
    """
    value = 0
    for count, byte in enumerate(data[here : here + 10] if here >= 0 else b""):
        value |= (byte & 127) << (7 * count)
        if byte < 128:
            return value, here + count + 1
    return 0, -1


def short(name: str) -> str:
    """Return a function's name without its file's. Source: getIRPGOObjectName (InstrProf.cpp).

    >>> short("main.c;add"), short("main.c:add"), short("main")
    ('add', 'add', 'main')
    """
    return re.split("[;:]", name)[-1]
