"""COFF objects and PE images. Source: Microsoft's "PE Format", also for large COFF objects."""

import struct
from collections.abc import Iterator

from nbsupport.audit.image import (
    SYMBOLS,
    VERSION,
    Format,
    Image,
    Kind,
    StoredSection,
    aligned,
    name_offsets,
    rows_of,
)

BIG = b"\0\0\xff\xff"
#: Processors as a target triple names them: Machine.
MACHINES = {0x14C: "i386", 0x8664: "x86_64", 0xAA64: "aarch64", 0x1C4: "arm"}
#: No bytes in the file; code.
_UNINITIALIZED, _EXECUTE = 0x80, 0x20000000


def parse_image(data: bytes) -> Image | None:
    """Read a PE file; see `images.parse`."""
    start = int.from_bytes(data[0x3C:0x40], "little")
    if data[start : start + 4] != b"PE\0\0":
        if 0x40 <= len(data) < start + 4 <= 0x1000:
            raise ValueError(f"cut off: its headers are at byte {start}")
        return None  # a program of DOS, or text
    machine, count, _, symbols, number, optional, flags = struct.unpack_from(
        "<2H3I2H", data, start + 4
    )
    image = _image("pe", "library" if flags & 0x2000 else "executable", machine)
    image.stripped = not number
    rows = list(_sections(image, data, start + 24 + optional, count))
    names = {name for name, _, _ in rows}
    sections = []
    for name, section, form in rows:
        image.add_loaded(section, bool(form & _EXECUTE))
        # The runtime has the linker merge the records into .data, but not the names.
        # Source: InstrProfilingPlatformWindows.c.
        merged = name == ".data" and ".lprfn" in names and ".lprfd" not in names
        image.add_section(".lprfd" if merged else name, section)
        sections.append(section)
    _symbols(image, data, sections, symbols, number)
    return image


def parse_object(data: bytes) -> Image | None:
    """Read a COFF file; see `images.parse`."""
    if data[:4] == BIG:
        # A member of an import library begins as a large object does.
        if data[4:6] in (b"\0\0", b"\1\0"):
            return None
        (machine,) = struct.unpack_from("<H", data, 6)
        count, symbols, number = struct.unpack_from("<3I", data, 44)
        start = 56
    else:
        machine, count, _, symbols, number, optional, _ = struct.unpack_from("<2H3I2H", data)
        start = 20
        if optional or 0 < symbols < start + 40 * count:
            return None  # two bytes are no proof
    image = _image("coff", "object", machine)
    sections = []
    for name, section, _ in _sections(image, data, start, count):
        image.add_section(name, section)
        sections.append(section)
    _symbols(image, data, sections, symbols, number, 18 if start == 20 else 20)
    return image


def _image(form: Format, kind: Kind, machine: int) -> Image:
    name = MACHINES.get(machine)
    target = f"{name}-windows" if name else ""
    return Image(form, kind, target, 64 if name in ("x86_64", "aarch64") else 32, "<")


def _sections(
    image: Image, data: bytes, start: int, count: int
) -> Iterator[tuple[str, StoredSection, int]]:
    """Yield each section with its name and its flags."""
    for title, size, address, length, place, *_, flags in rows_of(data, start, count, "<8s6I2HI"):
        name = title.rstrip(b"\0").decode(errors="replace")
        stored = 0
        if not flags & _UNINITIALIZED:
            stored = image.inside(data, f"section {name}", place, length)
        section = StoredSection(0, place, length, stored)
        if image.format == "pe":  # what stands behind is padding, or is not in the file
            stored = min(stored, size)
            section = StoredSection(address, place, stored, stored)
        yield name, section, flags


def _symbols(
    image: Image,
    data: bytes,
    sections: list[StoredSection],
    start: int,
    number: int,
    size: int = 18,
) -> None:
    """Look for the version among the symbols; a name of more than eight bytes stands elsewhere."""
    text = start + number * size
    if not number or not image.inside(data, "its table of symbols", start, number * size + 4):
        return
    (length,) = struct.unpack_from("<I", data, text)
    high = text + image.inside(data, "their names", text, length)
    image.symbols |= bool(SYMBOLS.search(data, text, high))
    name = f"_{VERSION}" if image.target.startswith("i386") else VERSION
    for offset in name_offsets(data, text, high, name):
        for place in aligned(data, struct.pack("<2I", 0, offset), start, text, size):
            value, owner = struct.unpack_from("<Ih" if size == 18 else "<Ii", data, place + 8)
            if 0 < owner <= len(sections):
                image.add_version(sections[owner - 1], value)
