"""The tables of ELF, Mach-O, COFF and PE files: sections and symbols that the profile is made of.

Each format is a header, a table of sections and one of symbols: NumPy views of the bytes.
(LIEF makes an object of each row, needs longer for its import than this for an image of 100
MB, and finds no section in an ELF object of more than 65,279, as 20,000 instrumented functions
make.) What a file claims is checked against its size; one that cannot be right is a ValueError.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from nbsupport.profile.layout import Bits, Order

Format = Literal["elf", "mach-o", "coff", "pe", "bitcode"]
Kind = Literal["object", "executable", "library", "bundle"]

#: Sections by role. Source: INSTR_PROF_SECT_ENTRY in InstrProfData.inc; the linker drops `$M`.
ROLES = {
    b"__llvm_prf_data": "data",
    b"__llvm_prf_names": "names",
    b"__llvm_prf_cnts": "counters",
    **{b".lprfd" + end: "data" for end in (b"", b"$M")},
    **{b".lprfn" + end: "names" for end in (b"", b"$M")},
    **{b".lprfc" + end: "counters" for end in (b"", b"$M")},
}
#: Instrumentation's, and two of the runtime's. Source: INSTR_PROF_RAW_VERSION_VAR in
#: InstrProfData.inc, InstrProfilingFile.c, InstrProfilingWriter.c.
VERSION = b"__llvm_profile_raw_version"
WRITE_FILE = b"__llvm_profile_write_file"
WRITE_DATA = b"lprofWriteData"
_SYMBOLS = (VERSION, WRITE_FILE, WRITE_DATA)
_UNDERSCORED = tuple(b"_" + name for name in _SYMBOLS)

_MACH_O = (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xfe\xed\xfa\xcf", b"\xfe\xed\xfa\xce")
_BIG_COFF = b"\0\0\xff\xff"

_ELF_MACHINES = {3: "i386", 20: "powerpc", 21: "powerpc64", 22: "s390x", 40: "arm"}
_ELF_MACHINES |= {62: "x86_64", 183: "aarch64", 243: "riscv64"}
#: Source: CPU_TYPE in Apple's mach/machine.h.
CPUS = {7: "i386", 0x1000007: "x86_64", 12: "arm", 0x100000C: "aarch64"}
_COFF_MACHINES = {0x14C: "i386", 0x8664: "x86_64", 0xAA64: "aarch64", 0x1C4: "arm"}
_MACH_O_KINDS: dict[int, Kind] = {1: "object", 2: "executable", 8: "bundle"}


@dataclass
class Image:
    """What one object or image says of itself.

    `places` by role are (address, start, size), all in bytes inside the file but for counters,
    of which only the addresses matter; `loaded` is the same with whether it is code; `symbols`
    says where the defined ones start in the file (-1: without bytes).
    """

    format: Format
    kind: Kind
    target: str
    bits: Bits
    order: Order
    stripped: bool = False
    note: str = ""
    places: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    loaded: list[tuple[int, int, int, bool]] = field(default_factory=list)
    symbols: dict[bytes, int] = field(default_factory=dict)

    def add_section(self, name: bytes, row: Any, stored: int) -> None:
        """Take a section, if it has a role; `stored` bytes of it are in the file."""
        role, size = ROLES.get(name), int(row["size"])
        if role == "data" and size and not stored:
            self.note = "sections without their bytes: debug information of another file"
        if role and (stored or role == "counters"):
            size = size if role == "counters" else stored
            self.places.setdefault(role, []).append((int(row["addr"]), int(row["offset"]), size))

    def add_loaded(self, address: int, start: int, size: int, code: bool) -> None:
        """Take a part of the file that is loaded there."""
        if size > 0:
            self.loaded.append((address, start, size, code))

    def add_symbol(self, name: bytes, row: Any, value: int, stored: int) -> None:
        """Take a symbol that stands `value` bytes after the start of a section."""
        place = int(row["offset"]) + value if 0 <= value < stored else -1
        self.symbols[name] = max(place, self.symbols.get(name, -1))


def recognize(start: bytes) -> bool:
    """Return whether a file's first eight bytes may be an object's or image's."""
    if start[:4] in (b"\x7fELF", *_MACH_O, _BIG_COFF):
        return True
    return start[:2] == b"MZ" or int.from_bytes(start[:2], "little") in _COFF_MACHINES


def parse(data: bytes) -> Image | None:
    """Read an object's or image's tables; None when it is neither, whatever its first bytes.

    Raises `ValueError` for tables that cannot be right.
    """
    if not recognize(data[:8]):
        return None
    if data[:4] == b"\x7fELF":
        image: Image | None = _elf(data)
    else:
        image = _mach_o(data) if data[:4] in _MACH_O else _coff(data)
    if image:  # a thousand sections that are all the whole file would take a thousand times as long
        parts = [place[2] for role in ("data", "names") for place in image.places.get(role, ())]
        if sum(parts) > len(data) or sum(size for _, _, size, _ in image.loaded) > 2 * len(data):
            raise ValueError("expected sections apart, found that they overlap")
    return image


def _type(text: str, bits: Bits = 64, order: Order = "<") -> np.dtype[Any]:
    """Return the type of a row: `name:size`, w is a pointer's, S16 is text."""
    pairs = [item.split(":") for item in text.split()]
    sizes = {name: str(bits // 8) if size == "w" else size for name, size in pairs}
    return np.dtype([(n, s if s[0] == "S" else f"{order}u{s}") for n, s in sizes.items()])


def _table(data: bytes, row: np.dtype[Any], start: int, count: int) -> Any:
    """Return as many rows of a table as lie inside the data."""
    count = max(0, min(count, (len(data) - start) // row.itemsize))
    return np.frombuffer(data, row, count, start) if count else np.empty(0, row)


def _row(data: bytes, row: np.dtype[Any], start: int) -> Any:
    rows = _table(data, row, start, 1)
    if not len(rows):
        raise ValueError(f"expected {row.itemsize} bytes at offset {start}, found the end")
    return rows[0]


def _stored(data: bytes, row: Any) -> int:
    """Return how many bytes of a section are in the file: all or none."""
    size = int(row["size"])
    return size if 0 < int(row["offset"]) <= len(data) - size else 0


def _called(
    data: bytes, strings: tuple[int, int], wanted: Iterable[bytes], column: Any
) -> list[tuple[bytes, int]]:
    """Return (name, row) for the rows whose name is a wanted one.

    `column` has the names as offsets into the strings, which start and end there in the data.
    """
    found = []
    first, end = strings
    for name in wanted:
        places, here = [], data.find(name + b"\0", first, end)
        while here >= 0:
            places.append(here - first)
            here = data.find(name + b"\0", here + 1, end)
        if places:
            found += [(name, int(row)) for row in np.flatnonzero(np.isin(column, places))]
    return found


#: Segments and symbols; in 32-bit files the fields stand in another order.
_ELF = {
    64: (
        "type:4 flags:4 offset:w addr:w paddr:w size:w memory:w align:w",
        "name:4 info:1 other:1 owner:2 value:w size:w",
    ),
    32: (
        "type:4 offset:w addr:w paddr:w size:w memory:w flags:4 align:w",
        "name:4 value:w size:w info:1 other:1 owner:2",
    ),
}


def _elf(data: bytes) -> Image:
    """Source: the gABI (elf.h)."""
    bits: Bits = 64 if data[4:5] == b"\2" else 32
    order: Order = ">" if data[5:6] == b"\2" else "<"
    header = _type(
        "type:2 machine:2 version:4 entry:w segments:w sections:w flags:4 size:2 each:2 "
        "segment_count:2 section_size:2 section_count:2 strings:2",
        bits,
        order,
    )
    of_section = _type(
        "name:4 type:4 flags:w addr:w offset:w size:w link:4 info:4 align:w entry:w", bits, order
    )
    of_segment, of_symbol = (_type(text, bits, order) for text in _ELF[bits])
    head = _row(data, header, 16)
    segments = _table(data, of_segment, int(head["segments"]), int(head["segment_count"]))
    sections = _table(data, of_section, int(head["sections"]) or len(data), 1)
    strings = int(head["strings"])
    if len(sections):  # more than fit into the header are counted in the first section
        strings = int(sections[0]["link"]) if strings == 0xFFFF else strings
        count = int(head["section_count"]) or int(sections[0]["size"])
        sections = _table(data, of_section, int(head["sections"]), count)

    number = int(head["type"])
    program = number == 2 or bool((segments["type"] == 3).any())  # names an interpreter
    of_dynamic = _type("tag:w value:w", bits, order)
    for row in segments[segments["type"] == 2][:1]:
        dynamic = _table(data, of_dynamic, int(row["offset"]), int(row["size"]) // (bits // 4))
        flags = dynamic["value"][dynamic["tag"] == 0x6FFFFFFB]  # DT_FLAGS_1, DF_1_PIE
        program = program or bool((flags & 0x08000000).any())
    kind: Kind = "object" if number == 1 else "executable" if program else "library"
    machine = _ELF_MACHINES.get(int(head["machine"]), "")
    image = Image("elf", kind, machine and f"{machine}-linux", bits, order)
    image.stripped = kind != "object" and not (sections["type"] == 2).any()
    for row in segments[segments["type"] == 1]:
        address, start, size = (int(row[name]) for name in ("addr", "offset", "size"))
        image.add_loaded(address, start, min(size, len(data) - start), bool(row["flags"] & 1))
    if number == 4:
        image.note = "a core file: audit the program that made it"
    elif not len(sections):
        image.note = "no section headers: its records cannot be found"

    def stored(index: int) -> int:
        there = index < len(sections) and sections[index]["type"] != 8
        return _stored(data, sections[index]) if there else 0

    def span(index: int) -> tuple[int, int]:
        start = int(sections[index]["offset"]) if (size := stored(index)) else 0
        return start, start + size

    for name, index in _called(data, span(strings), ROLES, sections["name"]):
        image.add_section(name, sections[index], stored(index))
    extended = [span(int(index))[0] for index in np.flatnonzero(sections["type"] == 18)]
    for table in np.flatnonzero(np.isin(sections["type"], (2, 11)))[:2].tolist():
        start, end = span(table)
        symbols = _table(data, of_symbol, start, (end - start) // of_symbol.itemsize)
        texts = span(int(sections[table]["link"]))
        for name, index in _called(data, texts, _SYMBOLS, symbols["name"]):
            owner = int(symbols[index]["owner"])
            if owner == 0xFFFF and extended:
                number = _row(data, _type("index:4", bits, order), extended[0] + 4 * index)
                owner = int(number["index"])
            if 0 < owner < len(sections):
                base = int(sections[owner]["addr"]) if kind != "object" else 0
                value = int(symbols[index]["value"]) - base
                image.add_symbol(name, sections[owner], value, stored(owner))
    return image


def _mach_o(data: bytes) -> Image:
    """Source: Apple's mach-o/loader.h and mach-o/nlist.h."""
    order: Order = "<" if data[:1] in (b"\xcf", b"\xce") else ">"
    bits: Bits = 64 if b"\xcf" in (data[:1], data[3:4]) else 32
    rest, fixed, segment, here = (28, 72, 0x19, 32) if bits == 64 else (24, 56, 1, 28)
    of_command = _type("type:4 size:4 symbols:4 count:4 strings:4 length:4", bits, order)
    of_section = _type(f"name:S16 of:S16 addr:w size:w offset:4 rest:S{rest}", bits, order)
    of_symbol = _type("name:4 type:1 owner:1 flags:2 value:w", bits, order)
    head = _row(data, _type("magic:4 cpu:4 sub:4 type:4 count:4", bits, order), 0)
    kind = _MACH_O_KINDS.get(int(head["type"]), "library")
    machine = CPUS.get(int(head["cpu"]), "")
    image = Image("mach-o", kind, machine and f"{machine}-apple-darwin", bits, order)
    sections: list[Any] = []
    symbols, strings = np.empty(0, of_symbol), (0, 0)
    for _ in range(min(int(head["count"]), 4096)):
        load = _row(data, of_command, here)
        size = int(load["size"])
        if load["type"] == segment:
            count = (size - fixed) // of_section.itemsize
            sections.extend(_table(data, of_section, here + fixed, count))
        elif load["type"] == 2:  # LC_SYMTAB
            symbols = _table(data, of_symbol, int(load["symbols"]), int(load["count"]))
            start = int(load["strings"])
            strings = start, start + int(load["length"])
        here += max(8, size)
    image.stripped = kind != "object" and not len(symbols)
    for row in sections:
        stored, code = _stored(data, row), bool(row["name"] == b"__text")
        image.add_loaded(int(row["addr"]), int(row["offset"]), stored, code)
        image.add_section(row["name"], row, stored)
    for name, index in _called(data, strings, _UNDERSCORED, symbols["name"]):
        if 0 < (owner := int(symbols[index]["owner"])) <= len(sections):
            row = sections[owner - 1]
            value = int(symbols[index]["value"]) - int(row["addr"])
            image.add_symbol(name[1:], row, value, _stored(data, row))
    return image


def _coff(data: bytes) -> Image | None:
    """Source: Microsoft's "PE Format"; for many sections ANON_OBJECT_HEADER_BIGOBJ in winnt.h."""
    linked, start = data[:2] == b"MZ", 0
    if linked:
        start = int.from_bytes(data[0x3C:0x40], "little") + 4
        if data[start - 4 : start] != b"PE\0\0":
            return None
    big = data[start : start + 4] == _BIG_COFF
    if big and int.from_bytes(data[4:6], "little") < 2:  # a member of an import library
        return None
    of_header = _type(
        "mark:4 version:2 machine:2 stamp:4 class:S32 count:4 table:4 symbols:4"
        if big
        else "machine:2 count:2 stamp:4 table:4 symbols:4 optional:2 flags:2"
    )
    of_section = _type("name:S8 memory:4 addr:4 size:4 offset:4 rest:S12 flags:4")
    of_symbol = _type(f"zero:4 name:4 value:4 owner:{4 if big else 2} type:2 class:1 more:1")
    head = _row(data, of_header, start)
    if not linked and not big and int(head["optional"]):  # two bytes are no proof of COFF
        return None
    machine = _COFF_MACHINES.get(int(head["machine"]), "")
    dll = linked and int(head["flags"]) & 0x2000
    kind: Kind = "library" if dll else "executable" if linked else "object"
    bits: Bits = 64 if machine in ("x86_64", "aarch64") else 32
    image = Image("pe" if linked else "coff", kind, f"{machine}-windows", bits, "<")
    start += of_header.itemsize + (0 if big else int(head["optional"]))
    sections = _table(data, of_section, start, int(head["count"]))
    stored = [_stored(data, row) for row in sections]
    if linked:
        stored = [min(n, int(row["memory"])) for n, row in zip(stored, sections, strict=True)]
    present = {bytes(name) for name in sections["name"]}
    # The runtime has the linker merge the records into .data, but not their names.
    # Source: InstrProfilingPlatformWindows.c.
    merged = b".lprfn" in present and b".lprfd" not in present
    for row, size in zip(sections, stored, strict=True):
        code = bool(int(row["flags"]) & 0x20000000)
        image.add_loaded(int(row["addr"]), int(row["offset"]), size, code)
        name = bytes(row["name"])
        image.add_section(b".lprfd" if merged and name == b".data" else name, row, size)
    symbols = _table(data, of_symbol, int(head["table"]) or len(data), int(head["symbols"]))
    image.stripped = linked and not len(symbols)
    strings = int(head["table"]) + symbols.nbytes, len(data)
    prefix = machine == "i386"
    column = np.where(symbols["zero"], 0, symbols["name"])  # others stand in the table itself
    for name, index in _called(data, strings, _UNDERSCORED if prefix else _SYMBOLS, column):
        if 0 < (owner := int(symbols[index]["owner"])) <= len(sections):
            value = int(symbols[index]["value"])
            image.add_symbol(name[prefix:], sections[owner - 1], value, stored[owner - 1])
    return image
