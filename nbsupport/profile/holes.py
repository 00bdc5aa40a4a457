"""Bytes that are missing from the middle of a raw profile, or too many: what still is certain.

Names check themselves (zlib's sum, NameRefs that are their hashes), and stand behind records and
counters. Where they do not stand as the header says, everything between has moved, by as much.
Records, which have the hash of a name each, tell up to where nothing had moved, and from where on
all had. What lies between these is not known, nor is a count that comes from there.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from nbsupport.profile import header as headers
from nbsupport.profile import names as naming
from nbsupport.profile.header import Header
from nbsupport.profile.infer import Array
from nbsupport.profile.names import Names

#: What a blob of names begins with, behind its two sizes: zlib's header (RFC 1950, 2.2: levels of
#: compression), or, where the second size is 0, a character.
_BEGINS = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x00[!-~]")
#: What names have that are not compressed, and the sizes and padding between several objects'.
_VISIBLE = re.compile(rb"[\x01\x20-\xff]+(?:\x00*[\x01-\xff]{1,4}\x00[\x01\x20-\xff]+)*\x00*")
#: Places where names may begin, which are tried; and a place behind every file's end.
_TRIES, _BEYOND = 1 << 12, 1 << 62
#: What a piece of an image's names has that is looked for, in bytes.
_PIECE = 16


@dataclass(frozen=True)
class Hole:
    """Bytes that are not where the header says, from somewhere between `start` and `end` on.

    These are places in the file as it was written: what was before `start` is there still, what
    was behind `end` stands `shift` bytes later now (earlier, if it is less than 0). `certain`:
    the header is right. With a `shift` of 0 it is not known where the rest stands.
    """

    start: int
    end: int
    shift: int
    certain: bool

    def what(self, stated: dict[str, int]) -> str:
        """Say what is missing, or too much, and where; `stated` is where each part begins."""
        if not self.shift:
            why = "bytes are missing before them, too many, or written over"
            return f"expected names at byte {stated['names']}, found none: {why}"
        parts = list(stated.items())
        ends = [start for _, start in parts[1:]] + [_BEYOND]
        inside = [
            name.replace("data", "records").replace("_", " ")
            for (name, start), end in zip(parts, ends, strict=True)
            if start < self.end and end > self.start and start < end
        ]
        number = abs(self.shift)
        verb = "are" if number > 1 else "is"
        words = f"{number} byte{'s' if number > 1 else ''} {verb}"
        words += " missing" if self.shift < 0 else " too many"
        return f"{words} before byte {self.end + self.shift}, in its {' or '.join(inside)}"


@dataclass(frozen=True)
class Anchors:
    """Words of eight bytes that tell where records are: their `places` in the file as it was.

    `fits` says which words may be those, one for each place. `names` are the names' bytes, where
    they are known.
    """

    places: Array
    fits: Callable[[Array], Array]
    names: bytes | None = None


def find(header: Header, names: Names, anchors: Anchors | None = None) -> Hole | None:
    """Return where bytes are missing or too many before the names' end, None if nowhere.

    `names` are those that are where the header says. Without `anchors` the file's own records are
    looked at. A file of which only the end is cut off has no hole, nor has one without names.
    """
    at, size = header.stated["names"], header.fields["NamesSize"]
    data = header.data
    if not size or at >= _BEYOND:
        return None
    shift = _shift(header, names, anchors.names if anchors else None)
    if shift == 0 and anchors:
        return _written_over(header, anchors)
    if shift and abs(shift) > len(data):
        return Hole(header.offset, _BEYOND, 0, certain=False)
    if shift and not anchors and shift % header.record_size == 0:
        # A record may stand where another one did, and has a name there, too.
        return Hole(header.offset, at, shift, certain=False)
    if shift:
        return _around(header, shift, anchors or _grid(header, at, size, shift))
    if shift is None:
        nowhere = Hole(header.offset, _BEYOND, 0, certain=False) if at + 2 <= len(data) else None
        return _of_header(header) or nowhere or (_of_records(header, anchors) if anchors else None)
    missing = header.size - (len(data) - header.offset)
    torn = missing > 0 and _torn(bytes(data[at : at + size]))
    return Hole(at, at + size, -missing, certain=True) if torn else None


def filled(header: Header, hole: Hole) -> Header:
    """Return the profile as it was written, with zeros for what is not known; that is marked."""
    if not hole.certain:
        return dataclasses.replace(header, unknown=(header.offset, _BEYOND))
    if hole.start >= header.stated["names"] or not hole.shift:
        return dataclasses.replace(header, unknown=(hole.start, hole.end))
    data = bytearray(header.data[: hole.start]) + bytes(hole.end - hole.start)
    data += header.data[hole.end + hole.shift :]
    whole = headers.read(memoryview(data), header.offset)
    assert isinstance(whole, Header)
    return dataclasses.replace(whole, unknown=(hole.start, hole.end))


def _grid(header: Header, at: int, size: int, shift: int) -> Anchors:
    """Return the NameRefs that the header's own layout has, one for each record."""
    names = naming.decode(header.data[at + shift : at + shift + size])
    start, end = header.stated["data"], header.stated["counters"]
    end = min(end, len(header.data) - min(shift, 0))
    places = np.arange(start, max(start, end - 7), header.record_size, dtype=np.int64)
    return Anchors(places, lambda words: names.index(words) >= 0)


def _around(header: Header, shift: int, anchors: Anchors) -> Hole:
    """Return between which places the bytes are missing, or too many."""
    places = anchors.places
    unmoved, moved = (anchors.fits(_words(header, places + by)) for by in (0, shift))
    before, behind = (places[fit] for fit in (unmoved & ~moved, moved & ~unmoved))
    certain = len(before) > 0 or _ends_well(header)
    start = header.stated["binary_ids"] if certain else header.offset
    start = max(start, int(before[-1]) + 8) if len(before) else start
    end = int(behind[0]) if len(behind) else header.stated["names"]
    certain &= start <= end + min(shift, 0) and end - start <= len(header.data)
    # A record of another layout, or after a second hole, is nowhere.
    certain &= bool(unmoved[places < start].all() and moved[places >= end].all())
    return Hole(start if certain else header.offset, end, shift, certain)


def _of_header(header: Header) -> Hole | None:
    """Return the hole in a header that does not tell where the names are, if records show it."""
    content, begin = header.data[header.offset :], header.layout.header_size
    for place, size in _beginnings(content):
        if _clean(content[place : place + size], size):
            names = naming.decode(content[place : place + size])
            places = np.arange(8, max(8, min(place - 7, 2 * begin)), dtype=np.int64)
            refs = places[names.index(_words(header, places + header.offset)) >= 0]
            if len(refs) and int(refs[0]) != begin:
                end = header.offset + begin
                return Hole(header.offset, end, int(refs[0]) - begin, certain=False)
    return None


def _written_over(header: Header, anchors: Anchors) -> Hole | None:
    """Return where records are not what an image says, though names are where they should be."""
    places = anchors.places
    fits = anchors.fits(_words(header, places))
    if fits.all():
        return None
    before = places[fits & (places < places[~fits][0])]
    behind = places[fits & (places > places[~fits][-1])]
    start = int(before[-1]) + 8 if len(before) else header.stated["data"]
    end = int(behind[0]) if len(behind) else header.stated["names"]
    return Hole(start, end, 0, certain=True)


def _of_records(header: Header, anchors: Anchors) -> Hole | None:
    """Return the hole that an image's records show, where the file ends before its names.

    It may be in place of these: what is left of them, or value data, then ends the file.
    """
    data, stored = header.data, anchors.names or b""
    own = bytes(data[header.stated["data"] :])
    padding = -len(stored) % 8
    ends = own.endswith(stored[-1:] + bytes(padding)) or stored[-8:] in own
    fits = anchors.fits(_words(header, anchors.places))
    inside = anchors.places + 8 <= len(data)
    if ends or not fits[inside].all() or _ends_with_values(header):
        return Hole(header.offset, _BEYOND, 0, certain=False)
    return None


def _ends_with_values(header: Header) -> bool:
    """Return whether the file ends with a whole block of value data.

    Its first eight bytes are its size and its number of kinds. Source: ValueProfData
    (InstrProfData.inc).
    """
    data, start = header.data, header.stated["counters"]
    words = np.frombuffer(data[start : len(data) - (len(data) - start) % 8], f"{header.order}u4")
    sizes, kinds = words[::2].astype(np.int64), words[1::2]
    rest = 8 * np.arange(len(sizes), 0, -1)
    return bool(((sizes == rest) & (kinds > 0) & (kinds <= header.layout.value_kinds)).any())


def _ends_well(header: Header) -> bool:
    """Return whether the header's last number is what nothing else there is: its kinds of values.

    Where a byte is missing before it, the next word is read there: of a record, or a size.
    """
    return header.fields["ValueKindLast"] == header.layout.value_kinds - 1


def _words(header: Header, places: Array) -> Array:
    """Return eight bytes as a number at each of these places, 0 where the file has none."""
    data = np.frombuffer(header.data, np.uint8)
    inside = (places >= 0) & (places + 8 <= len(data))
    words = np.zeros(len(places), np.uint64)
    bytes_ = data[places[inside, None] + np.arange(8)]
    words[inside] = np.ascontiguousarray(bytes_).view(f"{header.order}u8")[:, 0]
    return words


def _shift(header: Header, names: Names, stored: bytes | None) -> int | None:
    """Return how far from where they are announced the names stand; None: they are nowhere.

    Of names that are damaged, or cut off, the beginning tells.
    """
    at, size = header.stated["names"], header.fields["NamesSize"]
    here = header.data[at : at + size]
    if stored is not None:
        place = header.offset + bytes(header.data[header.offset :]).find(stored)
        if here != stored and place >= header.offset:
            return place - at
        return 0 if here and here[:_PIECE] == stored[: min(_PIECE, len(here))] else None
    sound = not any(problem.offset or here[0] for problem in names.problems)
    if len(here) == size and len(names.hashes) and sound:
        return 0
    content = header.data[header.offset :]
    for place, length in _beginnings(content):
        shift = header.offset + place - at
        if shift and length <= size and _clean(content[place : place + size], size):
            return shift
    first = next(_beginnings(here[: 2 * _PIECE]), None)
    return 0 if first and first[0] == 0 and first[1] <= size else None


def _clean(stored: memoryview, size: int) -> bool:
    """Return whether bytes are names from the first to the last; zlib checks those it has packed.

    Bytes that are none may be a size, and as many characters: those of names are visible.
    """
    _, here = naming.uleb(stored, 0)
    packed, here = naming.uleb(stored, here)
    if len(stored) < size or not (packed or _VISIBLE.fullmatch(stored, here)):
        return False
    return not Names((), stored).problems


def _torn(stored: bytes) -> bool:
    """Return whether compressed names are damaged, and not only cut off at their end."""
    _, here = naming.uleb(memoryview(stored), 0)
    packed, here = naming.uleb(memoryview(stored), here)
    if here < 0 or not packed:
        return False
    stream = zlib.decompressobj()
    try:
        stream.decompress(stored[here : here + packed], naming.MOST_INFLATION * len(stored) + 1)
    except zlib.error:
        return True
    return False


def _beginnings(content: memoryview) -> Iterator[tuple[int, int]]:
    """Yield where a blob of names may begin in bytes, and how many bytes it says to have."""
    for match in itertools.islice(_BEGINS.finditer(content), _TRIES):
        plain = content[match.start()] == 0
        text = match.start() + plain
        for place in range(max(0, text - 20), text - 1):
            size, here = naming.uleb(content[:text], place)
            packed, here = naming.uleb(content[:text], here)
            if here == text and size and bool(packed) != plain:
                yield place, here - place + (packed or size)
