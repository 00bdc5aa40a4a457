"""ELF objects and images. Source: elf.h (glibc)."""

import struct

from nbsupport.audit.image import (
    ROLES,
    SYMBOLS,
    VERSION,
    Image,
    StoredSection,
    aligned,
    name_offsets,
    path_at,
    rows_of,
)
from nbsupport.profile.layout import BYTE_ORDERS, Bits, Order

#: Processors as a target triple names them: e_machine.
_MACHINES = {
    **{2: "sparc", 3: "i386", 8: "mips", 20: "powerpc", 21: "powerpc64", 22: "s390x", 40: "arm"},
    **{43: "sparcv9", 62: "x86_64", 183: "aarch64", 243: "riscv", 258: "loongarch"},
}
#: Tables of symbols, names of libraries: more than any tool makes.
_MOST_TABLES, _MOST_NEEDED = 8, 1 << 12
#: Sections of such numbers are none; from the first on they are counted elsewhere.
_RESERVED = range(0xFF00, 0x10000)
_SYMTAB, _DYNAMIC, _NOBITS, _INDICES = 2, 6, 8, 18
_LOAD, _INTERPRETER, _CODE = 1, 3, 1
_NEEDED, _FLAGS_1, _PIE = 1, 0x6FFFFFFB, 0x08000000

#: A row of the table of sections.
_Row = tuple[int, ...]


def parse(data: bytes) -> Image:
    """Read an ELF file; see `images.parse`."""
    bits: Bits = 64 if data[4:5] == b"\2" else 32
    order: Order = ">" if data[5:6] == b"\2" else "<"
    if data[4:5] not in b"\1\2" or data[5:6] not in b"\1\2":
        raise ValueError("expected an ELF class and byte order")
    word = "Q" if bits == 64 else "I"
    header = struct.unpack_from(f"{order}2HI3{word}I6H", data, 16)
    form, machine, _, _, segments, table, _, _, _, segment_count, _, count, names = header
    name = _MACHINES.get(machine)
    image = Image("elf", "object", f"{name}-linux" if name else "", bits, order)
    row = f"{order}2I4{word}2I2{word}"
    rows: list[_Row] = []
    if table and image.inside(data, "its table of sections", table, struct.calcsize(row)):
        (first,) = rows_of(data, table, 1, row)
        count = count or first[5]
        names = first[6] if names == _RESERVED[-1] else names
        segment_count = first[7] if segment_count == _RESERVED[-1] else segment_count
        if image.inside(data, "its table of sections", table, count * struct.calcsize(row)):
            rows = list(rows_of(data, table, count, row))
    _check(image, data, rows)
    interpreter = _segments(image, data, segments, segment_count)
    image.kind = "executable" if form == 2 or interpreter else "library"
    image.kind = "object" if form == 1 else image.kind
    image.stripped = image.kind != "object" and not any(own[1] == _SYMTAB for own in rows)
    if form == 4:
        image.note = "a core file: audit the program that made it"
    elif not rows:
        image.note = image.note or "no section headers: its records cannot be found"
    else:
        _roles(image, data, rows, names)
    tables = [index for index, own in enumerate(rows) if own[1] in (_SYMTAB, _DYNAMIC)]
    if len(tables) > _MOST_TABLES:
        raise ValueError(f"{len(tables)} tables of symbols: more than any tool makes")
    for index in tables:
        if rows[index][1] == _SYMTAB:
            _symbols(image, data, rows, index)
        elif (link := rows[index][6]) < len(rows):
            text = _section(data, rows[link])
            _dynamic(image, data, _section(data, rows[index]), text)
    return image


def _check(image: Image, data: bytes, rows: list[_Row]) -> None:
    """Note a section that reaches beyond the file's end."""
    # In two steps: a large program's objects have a million sections, one for each function.
    ends = [own[4] + own[5] for own in rows if own[1] not in (0, _NOBITS)]
    if max(ends, default=0) > len(data):
        for index, own in enumerate(rows):
            if own[1] not in (0, _NOBITS) and own[5]:
                image.inside(data, f"section {index}", own[4], own[5])


def _section(data: bytes, row: _Row) -> StoredSection:
    _, form, _, address, start, size, *_ = row
    if form in (0, _NOBITS) or start + size > len(data):
        return StoredSection(address, 0, size, 0)
    return StoredSection(address, start, size, size)


def _roles(image: Image, data: bytes, rows: list[_Row], names: int) -> None:
    """Take the sections that have a role, by where their names are: in a section of that index."""
    text = _section(data, rows[names]) if names < len(rows) else StoredSection(0, 0, 0, 0)
    if max(own[0] for own in rows) >= text.stored:
        image.note = image.note or "names of its sections are not in the file"
    for role in (role for role in ROLES if role[:2] == "__"):
        offsets = name_offsets(data, text.start, text.start + text.stored, role)
        for own in [own for own in rows if own[0] in offsets] if offsets else ():
            image.add_section(role, _section(data, own))


def _segments(image: Image, data: bytes, start: int, count: int) -> bool:
    """Take what is loaded; return whether there is an interpreter, as a program has."""
    form = f"{image.order}2I6Q" if image.bits == 64 else f"{image.order}8I"
    if not image.inside(data, "its table of segments", start, count * struct.calcsize(form)):
        return False
    program = False
    for row in rows_of(data, start, count, form):
        kind, place, address, size = row[0], row[1], row[2], row[4]
        flags = row[6]
        if image.bits == 64:
            kind, flags, place, address, _, size, *_ = row
        program |= kind == _INTERPRETER
        if kind == _LOAD:  # past the end in debug information that eu-strip made
            stored = min(size, len(data) - place)
            image.add_loaded(StoredSection(address, place, size, stored), bool(flags & _CODE))
    return program


def _symbols(image: Image, data: bytes, rows: list[_Row], index: int) -> None:
    """Look for the version in the table of symbols that is the section of an index."""
    table, link = _section(data, rows[index]), rows[index][6]
    if link >= len(rows):
        raise ValueError(f"expected names of symbols in section {link}, found {len(rows)} sections")
    text = _section(data, rows[link])
    end = text.start + text.stored
    image.symbols |= bool(SYMBOLS.search(data, text.start, end))
    form = f"{image.order}I2BH2Q" if image.bits == 64 else f"{image.order}3I2BH"
    size = struct.calcsize(form)
    indices = next((own for own in rows if own[1] == _INDICES and own[6] == index), None)
    for offset in name_offsets(data, text.start, end, VERSION):
        word = struct.pack(f"{image.order}I", offset)
        stop = table.start + table.stored
        for place in aligned(data, word, table.start, stop, size):
            row = struct.unpack_from(form, data, place)
            owner, value = (row[3], row[4]) if image.bits == 64 else (row[5], row[1])
            if owner == _RESERVED[-1]:
                where = _section(data, indices).start if indices else 0
                where += (place - table.start) // size * 4
                owner = int.from_bytes(data[where : where + 4], BYTE_ORDERS[image.order])
            elif owner in _RESERVED:
                owner = 0
            if 0 < owner < len(rows):
                section = _section(data, rows[owner])
                base = section.address if image.kind != "object" else 0
                image.add_version(section, value - base)


def _dynamic(image: Image, data: bytes, section: StoredSection, text: StoredSection) -> None:
    """Take the libraries that are needed; a static-pie has no interpreter, but says what it is."""
    form = f"{image.order}2{'Q' if image.bits == 64 else 'I'}"
    count = section.stored // struct.calcsize(form)
    for tag, value in rows_of(data, section.start, count, form):
        if tag == _NEEDED and value < text.stored and len(image.needed) < _MOST_NEEDED:
            image.needed.append(path_at(data, text.start + value, text.start + text.stored))
        elif tag == _FLAGS_1 and value & _PIE:
            image.kind = "executable"
        elif tag == 0:
            return
