"""Function names, as `__llvm_prf_names` and a raw profile hold them: compressed, hashed."""

from __future__ import annotations

import functools
import hashlib
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Between two names of a blob. Source: getInstrProfNameSeparator (InstrProf.h).
SEPARATOR = b"\x01"
#: A blob may claim to inflate to anything. zlib cannot do better than 1032 to 1; names, even
#: long and alike, were never seen above 20.
MOST_INFLATION = 200


@dataclass(frozen=True)
class Problem:
    """What is malformed: where (a file's offset in bytes), and what was expected and found."""

    offset: int
    what: str


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
        md5 = hashlib.md5
        digests = b"".join([md5(name, usedforsecurity=False).digest()[:8] for name in self.text])
        return np.frombuffer(digests, "<u8")

    @functools.cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.hashes, kind="stable")
        return self.hashes[order], order

    def index(self, references: np.ndarray) -> np.ndarray:
        """Return for each NameRef the index of its name in `text`, -1 where there is none."""
        ordered, order = self._sorted
        if not len(ordered):
            return np.full(references.shape, -1, np.int64)
        place = np.minimum(np.searchsorted(ordered, references), len(ordered) - 1)
        return np.where(ordered[place] == references, order[place], -1)


def decode(blobs: bytes | memoryview) -> Names:
    """Read what one or more objects' names became when they were linked.

    Each is two ULEB128 numbers (size, compressed size or 0), then the names; zeros pad.
    Source: readAndDecodeStrings (InstrProf.cpp), collectGlobalObjectNameStrings.
    """
    names = Names()
    for blob in _inflate(bytes(blobs), names.problems):
        names.text += blob.split(SEPARATOR)
    return names


def _inflate(data: bytes, problems: list[Problem]) -> Iterator[bytes]:
    here, end = 0, len(data)
    while here < end:
        if data[here] == 0:
            # Padding: skip it all at once.
            here = end - len(data[here:].lstrip(b"\0"))
            continue
        start = here
        size, here = _uleb(data, here)
        packed, here = _uleb(data, here)
        stored = packed or size
        if here < 0 or stored > end - here:
            left = "no whole number" if here < 0 else f"{end - here} bytes"
            problems.append(Problem(start, f"names: expected {stored} bytes, found {left}"))
            return
        content = data[here : here + stored]
        here += stored
        if not packed:
            yield content
            continue
        if size > MOST_INFLATION * packed + 4096:
            what = f"names: {packed} bytes that claim to inflate to {size}: not believed"
            problems.append(Problem(start, what))
            continue
        try:
            inflated = zlib.decompressobj().decompress(content, size + 1)
        except zlib.error as error:
            problems.append(Problem(start, f"names: zlib says {error}"))
            continue
        if len(inflated) != size:
            what = f"names: expected to inflate to {size} bytes, found {len(inflated)}"
            problems.append(Problem(start, what))
        yield inflated[:size]


def _uleb(data: bytes, here: int) -> tuple[int, int]:
    """Return an ULEB128 number and where it ends (-1: it does not)."""
    value = 0
    for count, byte in enumerate(data[here : here + 10] if here >= 0 else b""):
        value |= (byte & 127) << (7 * count)
        if byte < 128:
            return value, here + count + 1
    return 0, -1
