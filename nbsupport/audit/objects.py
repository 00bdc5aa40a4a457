"""Object files and images of any format, reduced to what the profile is made of."""

import contextlib
import os
import re
import stat
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nbsupport.audit import images, machine_code
from nbsupport.audit.image import Format, Image, Kind
from nbsupport.audit.mach_o import CPUS
from nbsupport.base.errors import LabError
from nbsupport.profile import names
from nbsupport.profile.infer import Section
from nbsupport.profile.layout import ALIGNMENT, Bits, Order

#: What objects and archives are called; and bytes that a file of any format has.
_OBJECTS, _SHORTEST = (".o", ".obj", ".a", ".lib", ".rlib"), 8
#: Turns bitcode (its path) into LLVM assembly; None where no llvm-dis can.
Disassemble = Callable[[Path], str | None]

#: Larger files are not read.
MOST_BYTES = 4 << 30

_CONTAINERS = {b"!<arch>\n": "archive", b"!<thin>\n": "thin-archive"}
#: Magic to an entry: processor, its kind, place, size, alignment. Source: mach-o/fat.h of Apple.
_FAT = {b"\xca\xfe\xba\xbe": struct.Struct(">5I"), b"\xca\xfe\xba\xbf": struct.Struct(">2I2Q2I")}
#: Archives are looked for so deep in others.
_AIX_ARCHIVE, _MOST_DEEP = b"<bigaf>\n", 4
#: An archive's index of symbols by its name: the numbers in it.
_INDEX = {b"/": ">I", b"/SYM64/": ">Q"}
#: In an archive; ends with a newline (GNU) or a zero (COFF).
_LONG_NAME = re.compile(rb"[^\n\0]*")
_BITCODE = (b"BC\xc0\xde", b"\xde\xc0\x17\x0b")
_RAW_VERSION = re.compile(r"^@__llvm_profile_raw_version = .* i64 (-?\d+)", re.MULTILINE)
_TRIPLE = re.compile(r'^target triple = "(\w+)-[^"]*?(apple|windows|linux|")', re.MULTILINE)
_ARCHITECTURES = {"arm64": "aarch64", "i686": "i386"}


@dataclass(frozen=True)
class BinaryPart:
    """One object or image: a file's only one, a member of an archive, a slice of a fat file.

    `name` is the member's or slice's, "" for the file itself. `target` is the start of a
    target triple (`x86_64-linux`, `aarch64-apple-darwin`, `x86_64-windows`; "" unknown).
    `sections` are its data sections (a linked image has one), `raw_version` the whole value
    of `__llvm_profile_raw_version` (None: no such symbol, or stripped). `instrumented` is
    True also where only symbols say so (bitcode without a tool), `runtime_raw_version` that of
    the runtime in it (None: none, or not to be told). `note` says what could not be read, and why;
    `needed` are the names of libraries that are loaded with it.
    """

    name: str
    format: Format
    kind: Kind
    target: str
    bits: Bits
    order: Order
    sections: tuple[Section, ...] = ()
    raw_version: int | None = None
    instrumented: bool = False
    runtime_raw_version: int | None = None
    stripped: bool = False
    note: str = ""
    needed: tuple[str, ...] = ()


@dataclass(frozen=True)
class BinaryFile:
    """One file on disk, read: its parts, in order, and what was wrong with it.

    `container` is "" (a plain object or image), `archive`, `rlib`, `thin-archive` or `fat`.
    """

    path: Path
    container: str
    parts: tuple[BinaryPart, ...]
    problems: tuple[str, ...] = ()


def read(path: Path, disassemble: Disassemble | None = None) -> BinaryFile | None:
    """Read the file at `path`; None when it is none of the formats (text, a build script, .rmeta).

    `disassemble` turns bitcode, by its path, into LLVM assembly, or None where it cannot; without
    it, of bitcode is only told whether it is instrumented. Raises `LabError` for what cannot be
    read at all; what is wrong inside is in `problems`.
    """
    data = _content(path)
    if data is None:
        if path.suffix in _OBJECTS and path.stat().st_size < _SHORTEST:
            why = f"no object: {path.stat().st_size} bytes, as a compiler leaves that was ended"
            raise LabError(str(path), why, "build it again")
        return None
    parts: list[BinaryPart] = []
    problems: list[str] = []
    for name, content in _units(path, data, problems):
        try:
            if content[:4] in _BITCODE:
                parts.append(_bitcode(name, content, disassemble))
            elif (image := images.parse(content)) and (_tells(image) or content is data):
                parts.append(_part(name, content, image))
        except (LabError, ValueError) as error:
            why = error.why if isinstance(error, LabError) else f"malformed ({error})"
            problems.append(f"{name}: {why}" if name else why)
    container = _CONTAINERS.get(data[:8], "fat" if data[:4] in _FAT else "")
    if container == "archive" and path.suffix == ".rlib":
        container = "rlib"
    if not (container or parts or problems):
        return None
    return BinaryFile(path, container, tuple(parts), tuple(problems))


def _tells(image: Image) -> bool:
    """Return whether a member of an archive says anything of instrumentation, or is not whole."""
    return bool(image.places or image.version >= 0 or image.symbols or image.note)


def find(paths: Iterable[Path], unread: dict[Path, str]) -> Iterator[Path]:
    """Yield the regular files at or below paths, each once, loops of links or not.

    Path by path, by depth, then name; of several links to one file the first. What cannot be
    looked at is added to `unread`, with the reason.
    """
    visited: set[tuple[int, int]] = set()
    for path in paths:
        try:
            status = path.stat()
        except (OSError, ValueError) as error:
            gone = isinstance(error, FileNotFoundError)
            unread[path] = "no such file" if gone else getattr(error, "strerror", str(error))
            continue
        if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
            unread[path] = "neither a regular file nor a folder"
        waiting = deque([path])
        while waiting:
            here = waiting.popleft()
            try:
                status = here.stat()
                if (status.st_dev, status.st_ino) in visited:
                    continue
                visited.add((status.st_dev, status.st_ino))
                if stat.S_ISDIR(status.st_mode):
                    waiting.extend(sorted(here.iterdir()))
                elif stat.S_ISREG(status.st_mode):
                    yield here
            except OSError as error:
                unread[here] = error.strerror or str(error)


def _content(path: Path) -> bytes | None:
    """Return a regular file's bytes, None when it starts as none of the formats does."""
    what = f"reading {path}"
    try:
        # Not mapped: a file that shrinks meanwhile would end the process. A FIFO must not wait.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise LabError(what, "not a regular file", "give a file or a folder")
            start = file.read(8)
            if not _known(start):
                return None
            if status.st_size > MOST_BYTES:
                raise LabError(what, f"larger than {MOST_BYTES >> 30} GiB", "give its parts")
            file.seek(0)
            return file.read(status.st_size)
    except (OSError, ValueError, MemoryError) as error:
        why = getattr(error, "strerror", None) or str(error) or "not enough memory"
        raise LabError(what, why, "check that path") from error


def _known(start: bytes) -> bool:
    if start[:4] in _FAT:  # or a Java class, whose version would be over 40 slices
        return 0 < int.from_bytes(start[4:8]) < 40
    return start[:8] in _CONTAINERS or start[:8] == _AIX_ARCHIVE or _single(start)


def _single(start: bytes) -> bool:
    return start[:4] in _BITCODE or images.recognize(start)


def _units(
    path: Path, data: bytes, problems: list[str], depth: int = 0
) -> Iterator[tuple[str, bytes]]:
    """Yield what a file holds: itself, or its slices and members, also of archives in it."""
    inside: Iterator[tuple[str, bytes]] = iter(())
    if data[:4] in _FAT:
        inside = _slices(data, problems)
    elif data[:8] in _CONTAINERS:
        inside = _members(path, data, problems)
    elif data[:8] == _AIX_ARCHIVE:
        problems.append("an archive of AIX: not read")
    elif depth == 0:
        yield "", data
    for name, content in inside:
        archive = content[:8] in _CONTAINERS or content[:8] == _AIX_ARCHIVE
        if archive and depth == _MOST_DEEP:
            problems.append(f"{name}: an archive in an archive that is not read")
        elif archive:
            within: list[str] = []
            for member, bytes_ in _units(path, content, within, depth + 1):
                yield f"{name}/{member}", bytes_
            problems += [f"{name}: {problem}" for problem in within]
        elif name != "lib.rmeta" and _single(content[:8]):
            yield name, content


def _slices(data: bytes, problems: list[str]) -> Iterator[tuple[str, bytes]]:
    entry = _FAT[data[:4]]
    room = len(data)
    for index in range(int.from_bytes(data[4:8])):
        here = 8 + index * entry.size
        row = data[here : here + entry.size]
        cpu, _, start, length, *_ = entry.unpack(row.ljust(entry.size, b"\0"))
        name = CPUS.get(cpu, f"cpu {cpu}")
        room -= length
        if len(row) < entry.size or start + length > len(data) or room < 0:
            problems.append(f"slice {name}: claims bytes {start} to {start + length}")
        else:
            yield name, data[start : start + length]


def _members(path: Path, data: bytes, problems: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the members of an archive: GNU, BSD, COFF or thin, which names files beside it."""
    thin, long, here = data[:8] == b"!<thin>\n", b"", 8
    beside = _Beside(path.parent)
    while here < len(data):
        head = data[here : here + 60]
        start, digits = here + 60, head[48:58].strip()
        if head[58:] != b"`\n" or not digits.isdigit():
            problems.append(f"archive: expected a member at offset {here}, found none")
            return
        field, length = head[:16].rstrip(), int(digits)
        index = field in (b"/", b"//", b"/SYM64/", b"/<ECSYMBOLS>/")
        stored = 0 if thin and not index else length
        if stored > len(data) - start:
            size = len(data) - start
            problems.append(f"archive: expected {length} bytes at offset {start}, found {size}")
            return
        here = start + stored + stored % 2
        content = data[start : start + stored]
        if field == b"//":
            long = content
        if index:
            if field in _INDEX and _beyond(content, _INDEX[field]) >= len(data):
                problems.append("archive: its index names a member beyond its end")
            continue
        if field[:1] == b"/" and field[1:].isdigit():
            match = _LONG_NAME.match(long, int(field[1:]))
            field = match[0] if match else b""
        elif field[:3] == b"#1/" and field[3:].isdigit():
            cut = int(field[3:])
            field, content = content[:cut].rstrip(b"\0"), content[cut:]
        name = os.fsdecode(field.removesuffix(b"/"))
        if thin:
            try:
                content = beside.content(name)
            except LabError as error:
                problems.append(f"member {name}: {error.why}")
            if beside.room < 0:
                problems.append(f"archive: members of more than {MOST_BYTES >> 30} GiB")
                return
        yield name, content


def _beyond(index: bytes, word: str) -> int:
    """Return the last place that an archive's index names. Source: "ar" of the System V ABI."""
    size = struct.calcsize(word)
    count = int.from_bytes(index[:size])
    if size * (count + 1) > len(index):
        return 0
    return max(struct.unpack_from(f">{count}{word[1]}", index, size), default=0)


class _Beside:
    """Files that a thin archive names: each is read once, however often it is named."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.room = folder, MOST_BYTES
        self._read: set[tuple[int, int]] = set()
        self._names: set[str] = set()

    def content(self, name: str) -> bytes:
        """Return a file's bytes; none of what was read before. Raises `LabError` as `_content`."""
        if name in self._names:
            return b""
        self._names.add(name)
        path = self.folder / name
        with contextlib.suppress(OSError, ValueError):  # what is wrong is told below
            status = path.stat()
            key = status.st_dev, status.st_ino
            if key in self._read:
                return b""
            self._read.add(key)
        content = _content(path) or b""
        self.room -= len(content)
        return content


def _part(name: str, data: bytes, image: Image) -> BinaryPart:
    sections = _sections(image, data)
    raw_version = None
    if 0 <= image.version <= len(data) - 8:
        (raw_version,) = struct.unpack_from(f"{image.order}Q", data, image.version)
    places = bool(image.places.get("data") or image.places.get("counters"))
    # No variant: the runtime's own. Source: createIRLevelProfileFlagVar (PGOInstrumentation.cpp)
    # sets at least one; front-end instrumentation makes no such symbol.
    runtime = None if raw_version is None or raw_version >> 32 else raw_version
    linked = image.kind != "object"
    if linked and runtime is None and (places or raw_version is not None or image.note):
        runtime = machine_code.raw_version(image, data)
    # An object without functions brings a version, and nothing else.
    variants = linked and raw_version is not None and raw_version >> 32 != 0
    instrumented = places or image.symbols or variants
    if instrumented and not sections:
        image.note = image.note or (
            "no records here (they are in debug information, if anywhere)"
            if places
            else "it is instrumented, and has no section of records by its usual name"
        )
    own = name, image.format, image.kind, image.target, image.bits, image.order
    return BinaryPart(
        *own,
        sections=sections,
        raw_version=raw_version,
        instrumented=instrumented,
        runtime_raw_version=runtime,
        stripped=image.stripped,
        note=image.note,
        needed=tuple(image.needed),
    )


def _sections(image: Image, data: bytes) -> tuple[Section, ...]:
    """Return a linked image's data sections with their counters; an object's as one.

    An object has one for each COMDAT function, of whole records, and the padding at its end.
    """
    records = image.places.get("data", [])
    if not records:
        return ()
    decoded = names.decode(b"".join(image.contents("names", data)))
    contents = image.contents("data", data)
    if image.kind == "object":
        padded = b"".join(content + bytes(-len(content) % ALIGNMENT) for content in contents)
        return (Section(padded, decoded, None, image.bits, image.order),)
    counters = image.places.get("counters", [])
    if image.format == "pe" and image.bits == 64:
        counters = []  # COFF can relocate only the low half of a distance: it lands nowhere
    low = min((address for address, _, _ in counters), default=0)
    high = max((address + size for address, _, size in counters), default=0)
    sections = []
    for (address, _, _), content in zip(records, contents, strict=True):
        span = (low - address, high - address) if counters else None
        sections.append(Section(content, decoded, span, image.bits, image.order))
    return tuple(sections)


def _bitcode(name: str, data: bytes, disassemble: Disassemble | None) -> BinaryPart:
    """Read bitcode: that it is instrumented from its table of names, all else from assembly.

    Raises `ValueError` where it is cut off.
    """
    _check_bitcode(data)
    instrumented = b"__profc_" in data or b"__profd_" in data
    part = BinaryPart(name, "bitcode", "object", "", 64, "<", instrumented=instrumented)
    text = None
    if disassemble and instrumented:
        with tempfile.TemporaryDirectory(prefix="pgo-lab-") as folder:
            path = Path(folder, "member.bc")
            path.write_bytes(data)
            text = disassemble(path)
    if text is None:
        note = "bitcode: needs an llvm-dis at least as new as what made it"
        return replace(part, note=note if instrumented else "")
    triple = _TRIPLE.search(text)
    machine, system = triple.groups() if triple else ("", "")
    system = "apple-darwin" if system == "apple" else system.strip('"')
    bits: Bits = 32 if machine in ("i386", "i686") or machine.startswith("armv") else 64
    version = _RAW_VERSION.search(text)
    return replace(
        part,
        target=f"{_ARCHITECTURES.get(machine, machine)}-{system}",
        bits=bits,
        raw_version=int(version[1]) % (1 << 64) if version else None,
    )


def _check_bitcode(data: bytes) -> None:
    """Raise `ValueError` where its blocks do not end with the file.

    Source: "LLVM Bitcode File Format" (llvm.org): a wrapper says where the bitcode is; behind the
    magic are blocks, each of a word that begins with ENTER_SUBBLOCK (1), and its length in words.
    """
    here, end = 4, len(data)
    if data[:4] == _BITCODE[1]:
        place, size = struct.unpack_from("<2I", data.ljust(20, b"\0"), 8)
        here, end = place + 4, place + size
    while here + 8 <= min(end, len(data)):
        word, length = struct.unpack_from("<2I", data, here)
        if word & 3 != 1:
            break  # padding, or what only llvm-dis knows
        here += 8 + 4 * length
    rest = data[here:end]
    if max(here, end) > len(data) or (len(rest) < 8 and any(rest)):
        raise ValueError(f"cut off: bitcode to byte {max(here, end)}, the file ends at {len(data)}")
