"""The sections and symbols of ELF, Mach-O, COFF and PE files that the profile is made of.

LIEF reads the formats; what is kept is copied out, for its objects die with their parent.
"""

import re
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import lief
import numpy as np

from nbsupport.base.errors import first_line
from nbsupport.profile.layout import Bits, Order

Format = Literal["elf", "mach-o", "coff", "pe", "bitcode"]
Kind = Literal["object", "executable", "library", "bundle"]

#: Sections by role. Source: INSTR_PROF_SECT_ENTRY in InstrProfData.inc; the linker drops `$M`.
ROLES = {
    "__llvm_prf_data": "data",
    "__llvm_prf_names": "names",
    "__llvm_prf_cnts": "counters",
    **{".lprfd" + end: "data" for end in ("", "$M")},
    **{".lprfn" + end: "names" for end in ("", "$M")},
    **{".lprfc" + end: "counters" for end in ("", "$M")},
}
#: Instrumentation's, and the runtime's own. Source: INSTR_PROF_RAW_VERSION_VAR (InstrProfData.inc).
VERSION = "__llvm_profile_raw_version"

_MACH_O = (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xfe\xed\xfa\xcf", b"\xfe\xed\xfa\xce")
_BIG_COFF = b"\0\0\xff\xff"
_COFF = {0x14C: "i386", 0x8664: "x86_64", 0xAA64: "aarch64", 0x1C4: "arm"}
#: From so many sections on, ELF counts them elsewhere, and LIEF 1.0 finds none; in COFF it finds
#: them, but gives symbols to wrong ones.
_MOST_SECTIONS = 0xFF00
#: LIEF's names of processors, in a target triple.
_TRIPLE = {"amd64": "x86_64", "arm64": "aarch64", "ppc64": "powerpc64", "armnt": "arm"}

lief.logging.disable()


@dataclass
class Image:
    """What one object or image says of itself.

    `places` by role are (address, start, size), all in bytes inside the file but for counters,
    of which only the addresses matter; `loaded` is the same with whether it is code; `version`
    is where the value of the symbol `VERSION` is in the file (-1: not there).
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
    version: int = -1

    def contents(self, role: str, data: bytes) -> list[bytes]:
        """Return the bytes of each section of a role, out of the file's."""
        return [data[start : start + size] for _, start, size in self.places.get(role, ())]

    def add_section(self, name: str, address: int, start: int, size: int, stored: int) -> None:
        """Take a section, if it has a role; `stored` bytes of it are in the file."""
        role = ROLES.get(name)
        if role == "data" and size and not stored:
            self.note = "sections without their bytes: debug information of another file"
        if role and size and (stored or role == "counters"):
            kept = size if role == "counters" else stored
            self.places.setdefault(role, []).append((address, start, kept))

    def add_loaded(self, address: int, start: int, stored: int, code: bool) -> None:
        """Take what is loaded, if any of it is in the file."""
        if stored > 0:
            self.loaded.append((address, start, stored, code))

    def add_version(self, data: bytes, section: Any, value: int) -> None:
        """Take a symbol `VERSION` that stands `value` bytes after the start of a section."""
        if 0 <= value < _stored(data, section):
            self.version = max(self.version, section.offset + value)


def recognize(start: bytes) -> bool:
    """Return whether a file's first eight bytes may be an object's or image's."""
    if start[:4] in (b"\x7fELF", *_MACH_O, _BIG_COFF):
        return True
    return start[:2] == b"MZ" or int.from_bytes(start[:2], "little") in _COFF


def parse(data: bytes) -> Image | None:
    """Read an object or image; None when it is neither, whatever its first bytes.

    Raises `ValueError` for what LIEF does not read.
    """
    reader = _pe if data[:2] == b"MZ" else _coff
    if data[:4] == b"\x7fELF":
        reader = _elf
    elif data[:4] in _MACH_O:
        reader = _mach_o
    try:
        with warnings.catch_warnings(action="ignore"):  # numbers that LIEF has no name for
            image = reader(data)
    except Exception as error:  # LIEF's C++ exceptions arrive as SystemError, RuntimeError, …
        raise ValueError(first_line(str(error))) from error
    if image:  # a thousand sections that are all the whole file would take a thousand times as long
        parts = [place[2] for role in ("data", "names") for place in image.places.get(role, ())]
        if sum(parts) > len(data) or sum(size for _, _, size, _ in image.loaded) > 2 * len(data):
            raise ValueError("expected sections apart, found that they overlap")
    return image


def _whole(binary: Any) -> Any:
    if binary is None:
        raise ValueError("its headers make no sense")
    return binary


def _triple(machine: Any, system: str) -> str:
    name = getattr(machine, "name", "").lower()
    return f"{_TRIPLE.get(name, name)}-{system}" if name else ""


def _stored(data: bytes, section: Any) -> int:
    """Return how many bytes of a section are in the file: all or none."""
    if isinstance(section, lief.ELF.Section) and section.type == lief.ELF.Section.TYPE.NOBITS:
        return 0
    size: int = section.size
    return size if 0 < section.offset <= len(data) - size else 0


def _elf(data: bytes) -> Image:
    config = lief.ELF.ParserConfig()
    config.parse_relocations = config.parse_dyn_symbols = config.parse_symbol_versions = False
    config.parse_notes = config.parse_overlay = config.parse_symtab_symbols = False
    binary = _whole(lief.ELF.parse(data, config))
    header = binary.header
    bits: Bits = 64 if header.identity_class == lief.ELF.Header.CLASS.ELF64 else 32
    order: Order = ">" if header.identity_data == lief.ELF.Header.ELF_DATA.MSB else "<"
    types = lief.ELF.Header.FILE_TYPE
    flags = binary.get(lief.ELF.DynamicEntry.TAG.FLAGS_1)  # a static-pie has no interpreter
    pie = bool(flags and flags.has(lief.ELF.DynamicEntryFlags.FLAG.PIE))
    program = pie or header.file_type == types.EXEC or binary.has_interpreter
    kind: Kind = "executable" if program else "library"
    kind = "object" if header.file_type == types.REL else kind
    image = Image("elf", kind, _triple(header.machine_type, "linux"), bits, order)
    sections = list(binary.sections)
    tables = [s for s in sections if s.type == lief.ELF.Section.TYPE.SYMTAB]
    image.stripped = kind != "object" and not tables
    for s in binary.segments:
        if s.type == lief.ELF.Segment.TYPE.LOAD:
            code = s.has(lief.ELF.Segment.FLAGS.X)
            inside = min(s.physical_size, len(data) - s.file_offset)
            image.add_loaded(s.virtual_address, s.file_offset, inside, code)
    if header.file_type == types.CORE:
        image.note = "a core file: audit the program that made it"
    elif not sections:
        image.note = "no section headers: its records cannot be found"
        if header.section_header_offset and not header.numberof_sections:
            image.note = f"{_MOST_SECTIONS} sections or more: too many for LIEF"
    for s in sections:
        if s.name in ROLES:
            image.add_section(s.name, s.virtual_address, s.offset, s.size, _stored(data, s))
    for table in tables:
        _elf_symbols(image, data, sections, table)
    return image


def _elf_symbols(image: Image, data: bytes, sections: list[Any], table: Any) -> None:
    """Look for the version in a table of symbols. Source: Elf64_Sym, Elf32_Sym in elf.h.

    LIEF makes an object of each symbol, which takes half of the time for a large image.
    """
    fields = "name:4 info:1 other:1 section:2 value:8 size:8"
    if image.bits == 32:
        fields = "name:4 value:4 size:4 info:1 other:1 section:2"
    pairs = (item.split(":") for item in fields.split())
    row = np.dtype([(name, f"{image.order}u{size}") for name, size in pairs])
    content = bytes(table.content)
    symbols = np.frombuffer(content, row, len(content) // row.itemsize)
    names = re.finditer(f"{VERSION}\0".encode(), bytes(sections[table.link].content))
    for symbol in symbols[np.isin(symbols["name"], [match.start() for match in names])]:
        owner, value = int(symbol["section"]), int(symbol["value"])
        if 0 < owner < len(sections):
            base = sections[owner].virtual_address if image.kind != "object" else 0
            image.add_version(data, sections[owner], value - base)


def _mach_o(data: bytes) -> Image:
    fat = lief.MachO.parse(data, lief.MachO.ParserConfig.quick)
    binary = _whole(fat.at(0) if fat and len(fat) else None)
    header = binary.header
    order: Order = "<" if data[:1] in b"\xcf\xce" else ">"
    bits: Bits = 64 if b"\xcf" in (data[:1], data[3:4]) else 32
    kinds: dict[str, Kind] = {"OBJECT": "object", "EXECUTE": "executable", "BUNDLE": "bundle"}
    kind = kinds.get(getattr(header.file_type, "name", ""), "library")
    image = Image("mach-o", kind, _triple(header.cpu_type, "apple-darwin"), bits, order)
    image.stripped = kind != "object" and not binary.has_symbol_command
    sections = list(binary.sections)
    for s in sections:
        stored = _stored(data, s)
        image.add_loaded(s.virtual_address, s.offset, stored, s.name == "__text")
        image.add_section(s.name, s.virtual_address, s.offset, s.size, stored)
    symbol = binary.get_symbol(f"_{VERSION}") if binary.has_symbol(f"_{VERSION}") else None
    if symbol is not None and 0 < symbol.numberof_sections <= len(sections):
        s = sections[symbol.numberof_sections - 1]
        image.add_version(data, s, symbol.value - s.virtual_address)
    return image


def _pe(data: bytes) -> Image | None:
    start = int.from_bytes(data[0x3C:0x40], "little")
    if data[start : start + 4] != b"PE\0\0":
        return None
    config = lief.PE.ParserConfig()
    config.parse_signature = config.parse_exports = config.parse_imports = False
    config.parse_rsrc = config.parse_reloc = config.parse_exceptions = False
    binary = _whole(lief.PE.parse(data, config))
    library = binary.header.has_characteristic(lief.PE.Header.CHARACTERISTICS.DLL)
    image = _windows("pe", "library" if library else "executable", binary)
    image.stripped = not len(binary.symbols)
    names = {s.name for s in binary.sections}
    for s in binary.sections:
        stored = min(_stored(data, s), s.virtual_size)
        code = s.has_characteristic(lief.PE.Section.CHARACTERISTICS.MEM_EXECUTE)
        image.add_loaded(s.virtual_address, s.offset, stored, code)
        # The runtime has the linker merge the records into .data, but not the names.
        # Source: InstrProfilingPlatformWindows.c.
        merged = s.name == ".data" and ".lprfn" in names and ".lprfd" not in names
        name = ".lprfd" if merged else s.name
        image.add_section(name, s.virtual_address, s.offset, stored, stored)
    _windows_symbols(image, data, binary)
    return image


def _coff(data: bytes) -> Image | None:
    # A member of an import library begins as a large object does.
    if data[:4] == _BIG_COFF and data[4:6] in (b"\0\0", b"\1\0"):
        return None
    binary = lief.COFF.parse(data)
    if binary is None:
        return None  # two bytes are no proof
    image = _windows("coff", "object", binary)
    if len(binary.sections) >= _MOST_SECTIONS:
        image.note = f"{_MOST_SECTIONS} sections or more: too many for LIEF"
        return image
    for s in binary.sections:
        image.add_section(str(s.name), 0, s.offset, s.size, _stored(data, s))
    _windows_symbols(image, data, binary)
    return image


def _windows(form: Format, kind: Kind, binary: Any) -> Image:
    target = _triple(binary.header.machine, "windows")
    bits: Bits = 64 if target.startswith(("x86_64", "aarch64")) else 32
    return Image(form, kind, target, bits, "<")


def _windows_symbols(image: Image, data: bytes, binary: Any) -> None:
    name = f"_{VERSION}" if image.target.startswith("i386") else VERSION
    sections = list(binary.sections)
    for symbol in binary.symbols:
        if symbol.name == name and 0 < symbol.section_idx <= len(sections):
            image.add_version(data, sections[symbol.section_idx - 1], symbol.value)
