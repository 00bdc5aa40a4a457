"""Function names, as `__llvm_prf_names` and a raw profile hold them: compressed, hashed."""

from __future__ import annotations

import functools
import hashlib
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Between two names of a blob. Source: getInstrProfNameSeparator (InstrProf.h).
SEPARATOR = b"\x01"
#: All blobs together may inflate to so many times their size. zlib can do 1032 to 1; names,
#: even long and alike, were never seen above 20.
MOST_INFLATION = 50
_NONZERO = re.compile(rb"[^\0]")


@dataclass(frozen=True)
class Problem:
    """What is malformed: where (a file's offset in bytes), and what was expected and found."""

    offset: int
    what: str


class Doubt(Problem):
    """What cannot be right, though llvm-profdata takes it as it is."""


@dataclass
class Names:
    """The names of a profile or of a section, in the order they are stored.

    `problems` are offsets from the start of the blobs.
    """

    text: list[bytes] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @functools.cached_property
    def hashes(self) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        """The NameRef of each name: the low 64 bits of its MD5.

        Source: IndexedInstrProf::ComputeHash (InstrProf.h), MD5Hash (MD5.h).
        """
        md5, digests = functools.partial(hashlib.md5, usedforsecurity=False), bytearray()
        for start in range(0, len(self.text), 1 << 14):  # all digests at once take six times more
            chunk = self.text[start : start + (1 << 14)]
            digests += b"".join([md5(name).digest()[:8] for name in chunk])
        return np.frombuffer(bytes(digests), "<u8")

    @functools.cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.hashes, kind="stable")
        return self.hashes[order], order

    def index(self, references: np.ndarray) -> np.ndarray:
        """Return for each NameRef the index of its name in `text`, -1 where there is none."""
        ordered, order = self._sorted
        if not len(ordered):
            return np.full(references.shape, -1, np.int64)
        # Looking many up in their order is twice as fast, sorting included: the cache is warm.
        turn = np.argsort(references)
        hashes = np.ascontiguousarray(references, "<u8")[turn]
        place = np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)
        index = np.empty(references.shape, np.int64)
        index[turn] = np.where(ordered[place] == hashes, order[place], -1)
        return index

    def resolve(self, references: np.ndarray) -> list[bytes]:
        """Return for each NameRef its name, b"" where there is none."""
        text = [*self.text, b""]  # the last one, which -1 is
        return [text[n] for n in self.index(references).tolist()]


def decode(blobs: bytes | memoryview) -> Names:
    r"""Read what one or more objects' names became when they were linked.

    Each is two ULEB128 numbers (size, compressed size or 0), then the names; zeros pad.
    Source: readAndDecodeStrings (InstrProf.cpp), collectGlobalObjectNameStrings.

    >>> names = decode(b"\x06\0main\x01f" + bytes(3) + b"\x01\0g")
    >>> names.text, hex(names.hashes[0])
    ([b'main', b'f', b'g'], '0xdb956436e78dd5fa')
    >>> decode(b"\x09\0main").problems
    [Problem(offset=0, what='names: expected 9 bytes, found 4 bytes')]
    """
    names = Names()
    for start, blob in _inflate(memoryview(blobs), names.problems):
        text = blob.split(SEPARATOR)
        if b"" in text:
            names.problems.append(Problem(start, "names: expected a name, found an empty one"))
        names.text += text
    return names


def _inflate(data: memoryview, problems: list[Problem]) -> Iterator[tuple[int, bytes]]:
    """Yield each blob's start and content."""
    here, end = 0, len(data)
    room = MOST_INFLATION * end + (1 << 16)
    while here < end:
        if data[here] == 0:
            if here == 0:  # elsewhere it is padding
                problems.append(Problem(0, "names: expected a size, found 0"))
            following = _NONZERO.search(data, here)
            here = following.start() if following else end
            continue
        start = here
        size, here = _uleb(data, here)
        packed, here = _uleb(data, here)
        stored = packed or size
        if here < 0 or stored > end - here:
            bytes_ = "no whole number" if here < 0 else f"{end - here} bytes"
            problems.append(Problem(start, f"names: expected {stored} bytes, found {bytes_}"))
            return
        content = data[here : here + stored]
        here += stored
        if not packed:
            yield start, bytes(content)
            continue
        if size > room:
            what = f"names: {packed} bytes that claim to inflate to {size}: not believed"
            problems.append(Problem(start, what))
            continue
        room -= size
        stream = zlib.decompressobj()
        try:
            inflated = stream.decompress(content, size + 1)
        except zlib.error as error:
            problems.append(Problem(start, f"names: zlib says {error}"))
            continue
        if len(inflated) != size or not stream.eof:
            what = f"names: expected to inflate to {size} bytes, found {len(inflated)}"
            problems.append(Problem(start, what))
        yield start, inflated[:size]


def _uleb(data: memoryview, here: int) -> tuple[int, int]:
    """Return an ULEB128 number and where it ends (-1: it does not)."""
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
