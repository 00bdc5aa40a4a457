"""Mach-O objects and images. Source: Apple's mach-o/loader.h and mach-o/nlist.h."""

import struct
from collections.abc import Iterator

from nbsupport.audit.image import (
    MOST_SECTIONS,
    SYMBOLS,
    VERSION,
    Image,
    Kind,
    StoredSection,
    aligned,
    name_offsets,
    path_at,
    rows_of,
)
from nbsupport.profile.layout import Bits, Order

MAGICS = (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xfe\xed\xfa\xcf", b"\xfe\xed\xfa\xce")
#: Processors as a target triple names them: cputype.
CPUS = {7: "i386", 0x1000007: "x86_64", 12: "arm", 0x100000C: "aarch64", 18: "powerpc"}
#: Types of sections without bytes in the file; commands that name a library.
_ZEROS, _LIBRARIES = (1, 12, 18), (0xC, 0x80000018, 0x8000001F)
_DSYM = 10


def parse(data: bytes) -> Image:
    """Read a Mach-O file; see `images.parse`."""
    order: Order = "<" if data[:1] in b"\xcf\xce" else ">"
    bits: Bits = 64 if b"\xcf" in (data[:1], data[3:4]) else 32
    cpu, _, form, count, size = struct.unpack_from(f"{order}5I", data, 4)
    kinds: dict[int, Kind] = {1: "object", 2: "executable", 8: "bundle", _DSYM: "object"}
    name = CPUS.get(cpu)
    target = f"{name}-apple-darwin" if name else ""
    image = Image("mach-o", kinds.get(form, "library"), target, bits, order)
    image.stripped = image.kind != "object"
    here = 32 if bits == 64 else 28
    if not image.inside(data, "its table of commands", here, size):
        return image
    sections: list[StoredSection] = []
    tables = []
    for _ in range(min(count, MOST_SECTIONS)):
        command, length = struct.unpack_from(f"{order}2I", data, here)
        if length < 8:
            raise ValueError(f"expected a command at byte {here}, found one of {length} bytes")
        if command in (0x1, 0x19):
            sections += _segment(image, data, here, length, form == _DSYM)
        elif command == 0x2:
            image.stripped = False
            tables.append(struct.unpack_from(f"{order}4I", data, here + 8))
        elif command in _LIBRARIES:
            (start,) = struct.unpack_from(f"{order}I", data, here + 8)
            image.needed.append(path_at(data, here + start, here + length))
        here += length
    for start, number, text, length in tables[:1]:
        row = f"{order}I2BH{'Q' if bits == 64 else 'I'}"
        size = number * struct.calcsize(row)
        low = image.inside(data, "its table of symbols", start, size)
        high = image.inside(data, "their names", text, length)
        image.symbols |= bool(SYMBOLS.search(data, text, text + high))
        for offset in name_offsets(data, text, text + high, f"_{VERSION}"):
            word = struct.pack(f"{order}I", offset)
            for place in aligned(data, word, start, start + low, struct.calcsize(row)):
                _, _, owner, _, value = struct.unpack_from(row, data, place)
                if 0 < owner <= len(sections):
                    image.add_version(sections[owner - 1], value - sections[owner - 1].address)
    return image


def _segment(
    image: Image, data: bytes, here: int, room: int, debug: bool
) -> Iterator[StoredSection]:
    """Take the sections of the segment that a command of `room` bytes describes.

    `debug`: those of a dSYM file, which has only some of them.
    """
    word, head = ("Q", 72) if image.bits == 64 else ("I", 56)
    form = f"{image.order}4{word}3I"
    _, _, start, length, _, _, count = struct.unpack_from(form, data, here + 24)
    if not debug:
        image.inside(data, "a segment", start, length)
    form = f"{image.order}16s16s2{word}7I{'4x' if image.bits == 64 else ''}"
    if head + count * struct.calcsize(form) > room:
        raise ValueError(f"expected {count} sections in the command at byte {here}")
    for row in rows_of(data, here + head, count, form):
        title, owner, address, size, place = row[:5]
        name = title.rstrip(b"\0").decode(errors="replace")
        absent = row[8] & 0xFF in _ZEROS or not place or (debug and owner[:7] != b"__DWARF")
        stored = 0 if absent else image.inside(data, f"section {name}", place, size)
        section = StoredSection(address, place, size, stored)
        image.add_loaded(section, name == "__text")
        image.add_section(name, section)
        yield section
