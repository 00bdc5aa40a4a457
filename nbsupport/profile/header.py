"""The header of a raw profile, and where it says that everything else is.

Source: __llvm_profile_raw_header (InstrProfData.inc), RawInstrProfReader::readHeader
(InstrProfReader.cpp), lprofWriteDataImpl (InstrProfilingWriter.c).
"""

import functools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from nbsupport.profile import layout
from nbsupport.profile.layout import MAGIC, Bits, Layout, Order
from nbsupport.profile.names import Doubt, Problem

#: Magic as it lies in a file to bits and byte order.
MAGICS: dict[bytes, tuple[Bits, Order]] = {
    **{stored[::-1]: (bits, "<") for bits, stored in MAGIC.items()},
    **{stored: (bits, ">") for bits, stored in MAGIC.items()},
}


@dataclass(frozen=True, eq=False)
class Header:
    """One raw profile of a file: how it is laid out, and where its parts are.

    `fields` are the header's numbers as they are, `places` where each part starts and ends in
    the file, in bytes, cut off at its end; `size` bytes are asked for, value data aside. What lies
    between the two places of `unknown` is not what was written: see `holes`.
    """

    data: memoryview = field(repr=False)
    offset: int
    layout: Layout
    bits: Bits
    order: Order
    fields: dict[str, int]
    variants: tuple[str, ...]
    places: dict[str, tuple[int, int]]
    size: int
    unknown: tuple[int, int] = (0, 0)

    @functools.cached_property
    def stated(self) -> dict[str, int]:
        """Where each part begins by the header alone, though the file may end before."""
        starts, end = {}, self.offset
        parts = _parts(self.layout, self.bits, self.fields, "byte-coverage" in self.variants)
        for name, length, padding in parts:
            starts[name] = end
            end += length + padding
        return starts

    @property
    def width(self) -> int:
        """Bytes of a counter. Source: RawInstrProfReader::getCounterTypeSize."""
        return 1 if "byte-coverage" in self.variants else 8

    @property
    def timed(self) -> bool:
        """Whether eight bytes of timestamp come before each function's counters."""
        return "temporal" in self.variants

    @property
    def record_size(self) -> int:
        """Bytes from one record to the next, as the runtime had them."""
        return self.layout.record_size(self.bits)

    @property
    def whole(self) -> bool:
        """Whether the file is as long as the header asks for."""
        return self.size <= len(self.data) - self.offset

    def part(self, name: str) -> memoryview:
        """Return the bytes of one part: `data`, `counters`, `names`, `values` and so on."""
        start, end = self.places[name]
        return self.data[start:end]

    def signed(self, number: int) -> int:
        """Return a pointer's difference as a number with sign."""
        half = 1 << (self.bits - 1)
        return (number + half) % (2 * half) - half

    def problems(self) -> Iterator[Problem]:
        """Yield what the header says that cannot be."""
        if not self.whole:
            size = len(self.data) - self.offset
            what = f"truncated: expected {self.size} bytes by its header, found {size}"
            yield Problem(self.offset, what)
        expected, kinds = self.layout.value_kinds, self.fields["ValueKindLast"] + 1
        if kinds > expected:  # fewer are what a runtime without value profiling writes
            what = f"header: expected up to {expected} kinds of values, found {kinds}"
            yield Doubt(self.offset, what)
        near = layout.nearest(self.layout.raw_version).header
        for name, value in self.fields.items():
            if value and name not in near:
                what = f"header: {name} = {value}, new to this tool: parts may stand elsewhere"
                yield Doubt(self.offset + 8 * self.layout.header.index(name), what)
        # Up to 8 those bits are the version's. Source: VARIANT_MASKS_ALL (InstrProfData.inc).
        old = self.layout.raw_version <= 8
        kind = Problem if old else Doubt
        lowest = min(bit for bit in layout.VARIANTS.values() if bit > 55 or not old)
        if unknown := self.fields["Version"] & (1 << lowest) - (1 << 32):
            yield kind(self.offset + 8, f"header: expected no such variant, found {unknown:#x}")
        if "debug-correlate" in self.variants:
            yield kind(self.offset + 8, "records are in the debug information of the program")
        elif len(self.part("counters")) and not len(self.part("data")):
            yield Doubt(self.offset, "counters without records: are those in the program only?")
        yield from self.binary_ids()[1]

    def binary_ids(self) -> tuple[list[str], list[Problem]]:
        """Return the build ids of the image that wrote it, in hexadecimal.

        Each is its size (8 bytes), then so many bytes, padded to eight. Source:
        readBinaryIdsInternal (InstrProfReader.cpp), WriteOneBinaryId
        (InstrProfilingPlatformLinux.c).
        """
        part, start = self.part("binary_ids"), self.places["binary_ids"][0]
        ids: list[str] = []
        here = 0
        while here < len(part):
            size = int.from_bytes(part[here : here + 8], layout.BYTE_ORDERS[self.order])
            end = here + 8 + -(-size // 8) * 8
            if not size or end > len(part):
                room = max(0, len(part) - here - 8)
                what = f"binary id: expected 1 to {room} bytes, found {size}"
                return ids, [Problem(start + here, what)]
            ids.append(part[here + 8 : here + 8 + size].hex())
            here = end
        return ids, []


def read(data: memoryview, offset: int) -> Header | Problem:
    """Return the header at an offset, or why there is none."""
    start, size = bytes(data[offset : offset + 8]), len(data) - offset
    if start not in MAGICS or size < 16:
        if any(magic.startswith(start) for magic in MAGICS):
            return Problem(offset, f"truncated: expected a header, found {size} bytes")
        return Problem(offset, f"expected a raw profile, found {size} bytes of something else")
    bits, order = MAGICS[start]
    raw_version, variants = layout.split(struct.unpack_from(f"{order}Q", data, offset + 8)[0])
    if bytes(data[offset + 8 : offset + 10]) == b"\r\n":  # raw version 10 is a line feed
        what = "copied as text: each line feed has become two bytes; copy it as it is (binary)"
        return Problem(offset + 8, what)
    if raw_version not in layout.LAYOUTS:
        what = (
            f"raw version: expected {min(layout.LAYOUTS)} to {max(layout.LAYOUTS)}, "
            f"found {raw_version} ({layout.llvm_of(raw_version)}): not read"
        )
        return Problem(offset + 8, what)
    own = layout.LAYOUTS[raw_version]
    if size < own.header_size:
        what = f"truncated: expected a header of {own.header_size} bytes, found {size}"
        return Problem(offset, what)
    numbers = struct.unpack_from(f"{order}{len(own.header)}Q", data, offset)
    fields = dict(zip(own.header, numbers, strict=True))
    places, end = {}, offset
    for name, length, padding in _parts(own, bits, fields, "byte-coverage" in variants):
        # Python's integers: a size near 2^64 does not wrap around.
        places[name] = min(end, len(data)), min(end + length, len(data))
        end += length + padding
    places["values"] = min(end, len(data)), len(data)
    return Header(data, offset, own, bits, order, fields, variants, places, end - offset)


def _parts(
    own: Layout, bits: Bits, fields: dict[str, int], byte_coverage: bool
) -> Iterator[tuple[str, int, int]]:
    """Yield each part: name, size, padding after it."""

    def number(*names: str) -> int:
        return next((fields[name] for name in names if name in fields), 0)

    yield "header", own.header_size, 0
    yield "binary_ids", number("BinaryIdsSize"), 0
    records = number("NumData", "DataSize") * own.record_size(bits)
    yield "data", records, number("PaddingBytesBeforeCounters")
    counters = number("NumCounters", "CountersSize") * (1 if byte_coverage else 8)
    yield "counters", counters, number("PaddingBytesAfterCounters")
    yield "bitmaps", number("NumBitmapBytes"), number("PaddingBytesAfterBitmapBytes")
    uniform = number("NumUniformCounters") * 8
    yield "uniform_counters", uniform, number("PaddingBytesAfterUniformCounters")
    yield "names", number("NamesSize"), -number("NamesSize") % 8
    # A vtable's record: INSTR_PROF_VTABLE_DATA (InstrProfData.inc).
    vtables = number("NumVTables") * (24 if bits == 64 else 16)
    yield "vtables", vtables, -vtables % 8
    yield "vtable_names", number("VNamesSize"), -number("VNamesSize") % 8
