"""A Mach-O executable as it lies in memory before its first instruction.

LIEF reads the file; what dyld does to it is done here: its segments are moved by `SLIDE`, and each
pointer in them with it. Sources: mach-o/loader.h, mach-o/nlist.h and mach-o/fixup-chains.h (Apple).
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lief

from nbsupport.base.errors import LabError, visible

#: How far the image lies from where it was linked to: as the kernel's, a multiple of 16 KiB.
SLIDE = 0x4A7C000
#: The one library that is stood in for.
_LIBRARY = "/usr/lib/libSystem.B.dylib"
#: The most that a segment may take (bytes): what is more is not a program's, but a broken file's.
_MOST = 1 << 28

_CPUS = {lief.MachO.Header.CPU_TYPE.ARM64: "arm64", lief.MachO.Header.CPU_TYPE.X86_64: "x86_64"}
_TYPE = lief.MachO.Section.TYPE
_LOCAL = (_TYPE.THREAD_LOCAL_REGULAR, _TYPE.THREAD_LOCAL_ZEROFILL)
#: Sections that list what runs before main: pointers, or offsets in the image.
_INITIALIZERS = {_TYPE.MOD_INIT_FUNC_POINTERS: "<Q", _TYPE.INIT_FUNC_OFFSETS: "<I"}


@dataclass(frozen=True)
class Executable:
    """A program in memory: its `segments` by address, its own pointers slid as these are.

    Those at the addresses `fixed` cannot be written.
    `imports` are (address of a pointer, symbol, addend), `symbols` (address, name) by address.
    `initializers` run before `main`; `locals` is how the variables of a thread begin.
    """

    cpu: str
    segments: dict[int, bytearray]
    fixed: frozenset[int]
    imports: list[tuple[int, str, int]]
    symbols: list[tuple[int, str]]
    initializers: list[int]
    main: int
    locals: bytes

    def function(self, address: int) -> tuple[str, int]:
        """Return the function at an address and where it begins; "" outside of the image."""
        inside = any(start <= address < start + len(s) for start, s in self.segments.items())
        index = bisect_right(self.symbols, (address, "\U0010ffff")) - 1
        if not inside or index < 0:
            return "", address
        start, name = self.symbols[index]
        return name, start


def unsupported(what: str, why: str, do: str) -> LabError:
    """Return an error whose text, part of which a broken file may have brought, is one line."""
    return LabError(visible(what), visible(why), do)


def load(path: Path) -> Executable:
    """Read a program; raises `LabError` for a file that is not one, or not of a kind that runs."""
    file = lief.MachO.parse(str(path))
    if file is None or not len(file):
        raise unsupported(path.name, "not a Mach-O file, or a corrupt one", "build it again")
    if len(file) > 1:
        do = "take one of them out with llvm-lipo -thin"
        raise unsupported(path.name, f"a fat file, with {len(file)} programs in it", do)
    try:
        for binary in file:
            why = _refused(binary)
            if not why:
                return _placed(binary)
    except (ValueError, struct.error, OverflowError, AttributeError) as error:
        why = f"a corrupt Mach-O file ({error})"
    do = "give an executable for arm64 or x86_64, in C, that needs libSystem only"
    raise unsupported(path.name, why, do)


def _refused(binary: lief.MachO.Binary) -> str:
    """Say why a file cannot be executed here, or ""."""
    header = binary.header
    others = [str(library.name) for library in binary.libraries if library.name != _LIBRARY]
    if header.cpu_type not in _CPUS:
        return f"for {header.cpu_type.name}"
    if header.file_type != lief.MachO.Header.FILE_TYPE.EXECUTE:
        return f"not an executable, but of type {header.file_type.name}"
    if others:
        return f"it needs {others[0]}"
    if any(str(section.name).startswith("__objc_") for section in binary.sections):
        return "it has Objective-C in it"
    return "" if binary.has_main_command else "it has no main (LC_MAIN)"


def _placed(binary: lief.MachO.Binary) -> Executable:
    segments: dict[int, bytearray] = {}
    fixed = set()
    for segment in binary.segments:
        size, content = segment.virtual_size, bytes(segment.content)
        if segment.init_protection and size:
            if size > _MOST or len(content) > size:
                raise ValueError(f"segment {segment.name!s} has {len(content)} of {size} bytes")
            segments[segment.virtual_address + SLIDE] = bytearray(content.ljust(size, b"\0"))
            if not segment.init_protection & 2:  # VM_PROT_WRITE
                fixed.add(segment.virtual_address + SLIDE)
    for relocation in binary.relocations:
        place = relocation.address + SLIDE
        if isinstance(relocation, lief.MachO.RelocationFixup):
            target = relocation.target
        else:
            target = struct.unpack("<Q", _bytes(segments, place, 8))[0]
        _point(segments, place, target + SLIDE)
    # N_EXT, defined: a weak definition is bound, too, and this is the only one.
    exported = {str(s.name): s.value + SLIDE for s in binary.symbols if s.raw_type & 0xEF == 0xF}
    imports = []
    for binding in binary.bindings:
        name = str(binding.symbol.name) if binding.symbol else ""
        place = binding.address + SLIDE
        if name in exported:
            _point(segments, place, exported[name] + binding.addend)
        else:
            _bytes(segments, place, 8)
            imports.append((place, name, binding.addend))
    base, sections = binary.imagebase + SLIDE, list(binary.sections)
    return Executable(
        cpu=_CPUS[binary.header.cpu_type],
        segments=segments,
        fixed=frozenset(fixed),
        imports=imports,
        # N_SECT without N_STAB. What the assembler names for itself (ltmp0) is nobody's function.
        symbols=sorted(
            (symbol.value + SLIDE, str(symbol.name).removeprefix("_"))
            for symbol in binary.symbols
            if symbol.raw_type & 0xEE == 0xE and not str(symbol.name).startswith("ltmp")
        ),
        initializers=[start for section in sections for start in _starts(section, segments, base)],
        main=base + (binary.main_command.entrypoint if binary.main_command else 0),
        locals=b"".join(
            bytes(section.content).ljust(min(section.size, _MOST), b"\0")
            for section in sections
            if section.type in _LOCAL
        ),
    )


def _starts(
    section: lief.MachO.Section, segments: dict[int, bytearray], base: int
) -> Iterator[int]:
    if form := _INITIALIZERS.get(section.type):
        content = _bytes(segments, section.virtual_address + SLIDE, section.size)
        for (value,) in struct.iter_unpack(form, content):
            yield value if form == "<Q" else base + value


def _bytes(segments: dict[int, bytearray], place: int, size: int) -> bytes:
    for start, content in segments.items():
        if start <= place <= start + len(content) - size:
            return bytes(content[place - start : place - start + size])
    raise ValueError(f"{size} bytes at {place - SLIDE:#x} are in no segment")


def _point(segments: dict[int, bytearray], place: int, value: int) -> None:
    _bytes(segments, place, 8)
    start = max(start for start in segments if start <= place)
    struct.pack_into("<Q", segments[start], place - start, value % (1 << 64))
