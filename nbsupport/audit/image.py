"""What an object or image says of itself, whatever its format; and how its tables are read."""

import itertools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from nbsupport.profile.layout import Bits, Order

Format = Literal["elf", "mach-o", "coff", "pe", "bitcode", "wasm", "xcoff"]
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
#: How names of counters and records begin. Source: INSTR_PROF_COUNTERS_PREFIX, DATA_PREFIX (same).
SYMBOLS = re.compile(b"__prof[cd]_")

#: More sections or commands than any tool makes; places where one name ends a string, and symbols
#: of it.
MOST_SECTIONS, _MOST_NAMES, _MOST_SYMBOLS = 1 << 20, 64, 1 << 12
#: Bytes of a path (PATH_MAX of Linux).
_LONGEST_PATH = 4096
DEBUG = "sections without their bytes: debug information of another file"


class StoredSection(NamedTuple):
    """A section: its address, and where its bytes are in the file (`stored`: how many of them)."""

    address: int
    start: int
    size: int
    stored: int


@dataclass
class Image:
    """What one object or image says of itself.

    `places` by role are (address, start, size), all in bytes inside the file except counters,
    of which only the addresses matter; `loaded` is the same with whether it is code; `version`
    is where the value of the symbol `VERSION` is in the file (-1: not there). `symbols`: names
    of counters or records are among its symbols. `needed` are names of libraries that are loaded
    with it, `note` says what could not be read, and why.
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
    symbols: bool = False
    needed: list[str] = field(default_factory=list)

    def contents(self, role: str, data: bytes) -> list[bytes]:
        """Return the bytes of each section of a role, out of the file's."""
        return [data[start : start + size] for _, start, size in self.places.get(role, ())]

    def add_section(self, name: str, section: StoredSection) -> None:
        """Take a section, if it has a role."""
        role, size, stored = ROLES.get(name), section.size, section.stored
        if role == "data" and size and not stored:
            self.note = self.note or DEBUG
        if role and size and (stored or role == "counters"):
            kept = size if role == "counters" else stored
            self.places.setdefault(role, []).append((section.address, section.start, kept))

    def add_loaded(self, section: StoredSection, code: bool) -> None:
        """Take what is loaded, if any of it is in the file."""
        if section.stored > 0:
            self.loaded.append((section.address, section.start, section.stored, code))

    def add_version(self, section: StoredSection, value: int) -> None:
        """Take a symbol `VERSION` that stands `value` bytes after the start of a section."""
        if 0 <= value < section.stored:
            self.version = max(self.version, section.start + value)

    def inside(self, data: bytes, what: str, start: int, size: int) -> int:
        """Return how many bytes of a range are in the file: all, or none, which is noted."""
        if start + size <= len(data):
            return size
        end = f"the file ends at {len(data)}"
        self.note = self.note or f"cut off: {what} is at bytes {start} to {start + size}, {end}"
        return 0


def rows_of(data: bytes, start: int, count: int, form: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table; `struct.error` where it is not all inside the file."""
    if count > MOST_SECTIONS:
        raise ValueError(f"{count} sections: more than any tool makes")
    size = struct.calcsize(form) * count
    struct.unpack_from(f"{size}x", data, start)
    return struct.iter_unpack(form, data[start : start + size])


def name_offsets(data: bytes, start: int, end: int, name: str) -> list[int]:
    """Return where in a table of strings a name ends a string, in bytes from its start."""
    matches = re.compile(re.escape(name.encode()) + b"\0").finditer(data, start, end)
    offsets = [match.start() - start for match in itertools.islice(matches, _MOST_NAMES + 1)]
    if len(offsets) > _MOST_NAMES:
        raise ValueError(f"more than {_MOST_NAMES} names {name}")
    return offsets


def aligned(data: bytes, word: bytes, start: int, end: int, size: int) -> Iterator[int]:
    """Yield the rows of `size` bytes, from `start` to `end`, that begin with a word."""
    here, count = data.find(word, start, end), 0
    while here >= 0:
        row, rest = divmod(here - start, size)
        if rest == 0:
            count += 1
            if count > _MOST_SYMBOLS:
                raise ValueError(f"more than {_MOST_SYMBOLS} symbols {VERSION}")
            yield here
        here = data.find(word, start + (row + 1) * size, end)


def path_at(data: bytes, start: int, end: int) -> str:
    """Return the string that starts at a place: a path."""
    end = min(end, start + _LONGEST_PATH)
    stop = data.find(b"\0", start, end)
    return data[start : stop if stop >= 0 else end].decode(errors="replace")
