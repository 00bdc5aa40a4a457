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
_MOST = 1 << 30

_CPUS = {lief.MachO.Header.CPU_TYPE.ARM64: "arm64", lief.MachO.Header.CPU_TYPE.X86_64: "x86_64"}
_SECTION = lief.MachO.Section.TYPE


@dataclass(frozen=True)
class Executable:
    """A program in memory: its `segments` by address (as it runs), its own pointers slid.

    `imports` are (address of a pointer, symbol, addend). `symbols` are sorted
    by address. `initializers` run before `main`. `locals` is how each thread's variables begin
    
    """

    cpu: str
    segments: dict[int, bytearray]
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


def load(path: Path) -> Executable:
    """Read a program; raises `LabError` for a file that is not one, or not of a kind that runs."""
    file = lief.MachO.parse(str(path))
    if file is None or not len(file):
        raise unsupported(path.name, "not a Mach-O file, or a corrupt one", "build it again")
    if len(file) > 1:
        do = "take one of them out with llvm-lipo -thin"
        raise unsupported(path.name, f"a fat file, with {len(file)} programs in it", do)
    binary = file.at(0)
    why = _refused(binary)
    if why:
        do = "give an executable for arm64 or x86_64, in C, that needs libSystem only"
        raise unsupported(path.name, why, do)
    try:
        return _placed(binary)
    except (ValueError, struct.error, OverflowError, StopIteration) as error:
        raise unsupported(path.name, f"a corrupt Mach-O file ({error})", "build it again") from error


def unsupported(what: str, why: str, do: str) -> LabError:
    """Return an error whose text, part of which a broken file may have brought, is one line."""
    return LabError(visible(what), visible(why), do)


def _refused(binary: lief.MachO.Binary) -> str:
    """Say why a file cannot be executed here, or "" ."""
    header = binary.header
    if header.cpu_type not in _CPUS:
        return f"for {header.cpu_type.name}"
    if header.file_type != lief.MachO.Header.FILE_TYPE.EXECUTE:
        return f"not an executable, but {header.file_type.name}"
    others = [str(library.name) for library in binary.libraries if library.name != _LIBRARY]
    if others:
        return f"it needs {others[0]}"
    if any(str(section.name).startswith("__objc_") for section in binary.sections):
        return "it has Objective-C in it"
    return "" if binary.has_main_command else "it has no main (LC_MAIN)"


def _placed(binary: lief.MachO.Binary) -> Executable:
    segments: dict[int, bytearray] = {}
    for segment in binary.segments:
        size, content = segment.virtual_size, bytes(segment.content)
        if segment.init_protection and size:
            if max(size, len(content)) > _MOST:
                raise ValueError(f"segment {segment.name} has {size} bytes")
            segments[segment.virtual_address + SLIDE] = bytearray(content.ljust(size, b"\0"))
    _slide(binary, segments)
    base = binary.imagebase + SLIDE
    sections = list(binary.sections)
    local = (_SECTION.THREAD_LOCAL_REGULAR, _SECTION.THREAD_LOCAL_ZEROFILL)
    exported = {str(s.name): s.value + SLIDE for s in binary.symbols if s.raw_type & 0xEF == 0xF}
    imports = []
    for binding in binary.bindings:
        name, address = str(binding.symbol.name), binding.address + SLIDE
        if name in exported:  # a weak definition, of which this is the only one
            _write(segments, address, exported[name] + binding.addend)
        else:
            imports.append((address, name, binding.addend))
    return Executable(
        cpu=_CPUS[binary.header.cpu_type],
        segments=segments,
        imports=imports,
        # N_SECT without N_STAB. What the assembler names for itself (ltmp0) is nobody's function.
        symbols=sorted(
            (symbol.value + SLIDE, str(symbol.name).removeprefix("_"))
            for symbol in binary.symbols
            if symbol.raw_type & 0xEE == 0xE and not str(symbol.name).startswith("ltmp")
        ),
        initializers=[start for section in sections for start in _starts(section, segments, base)],
        main=base + binary.main_command.entrypoint,
        locals=b"".join(
            bytes(section.content).ljust(section.size, b"\0")
            for section in sections
            if section.type in local and section.size < _MOST
        ),
    )


def _slide(binary: lief.MachO.Binary, segments: dict[int, bytearray]) -> None:
    """Move each pointer of the image to itself; those of a chain are targets of 36 bits or more."""
    for relocation in binary.relocations:
        address = relocation.address + SLIDE
        if isinstance(relocation, lief.MachO.RelocationFixup):
            target = relocation.target
        else:
            (target,) = struct.unpack("<Q", _read(segments, address, 8))
        _write(segments, address, target + SLIDE)


def _starts(
    section: lief.MachO.Section, segments: dict[int, bytearray], base: int
) -> Iterator[int]:
    """Yield the functions that a section has run before main: pointers, or offsets in the image."""
    form = {_SECTION.MOD_INIT_FUNC_POINTERS: "<Q", _SECTION.INIT_FUNC_OFFSETS: "<I"}.get(section.type)
    if form:
        content = _read(segments, section.virtual_address + SLIDE, section.size)
        for (value,) in struct.iter_unpack(form, content):
            yield value if form == "<Q" else base + value


def _home(segments: dict[int, bytearray], address: int, size: int) -> tuple[bytearray, int]:
    for start, content in segments.items():
        if start <= address <= start + len(content) - size:
            return content, address - start
    raise ValueError(f"{size} bytes at {address - SLIDE:#x} are in no segment")


def _read(segments: dict[int, bytearray], address: int, size: int) -> bytes:
    content, offset = _home(segments, address, size)
    return bytes(content[offset : offset + size])


def _write(segments: dict[int, bytearray], address: int, value: int) -> None:
    content, offset = _home(segments, address, 8)
    struct.pack_into("<Q", content, offset, value % (1 << 64))
