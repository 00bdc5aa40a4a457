"""What stands in for libSystem: a few lines of Python for each function that programs here import.

A laboratory, not a macOS: one thread, no signals, a clock that only counts, files of one folder. A
function that is not here ends the run with its name. Numbers of flags and errors are Darwin's
(sys/fcntl.h, sys/mman.h, sys/errno.h).
"""

import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from nbsupport.macos.executable import Executable, unsupported
from nbsupport.macos.machine import MOST, BadAccess, Ended, Machine
from nbsupport.macos.printf import formatted, signed

_BAD_FILE, _NO_MEMORY = 9, 12
#: Darwin's flags of open, and this system's; how Python opens a file to read, write, do both.
_FLAGS = {4: os.O_NONBLOCK, 8: os.O_APPEND, 0x200: os.O_CREAT, 0x400: os.O_TRUNC, 0x800: os.O_EXCL}
_MODES = ("rb", "wb", "r+b", "r+b")
_WRITE, _SHARED, _FIXED, _ANONYMOUS = 0x2, 0x1, 0x10, 0x1000
#: What is served without being imported: no symbol has a space in it.
START, EXIT = "start of dyld", "exit handlers"
#: Variables of libSystem that programs import; `_bind` has their values.
_VARIABLES = (
    "__stdinp",
    "__stdoutp",
    "__stderrp",
    "__stack_chk_guard",
    "mach_task_self_",
    "environ",
)


class LibSystem(Machine):
    """A program with its system: heap, files (those of `folder`), exit handlers.

    `environment` is its whole environment; its name is its only argument.
    """

    def __init__(self, program: Executable, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(program)
        self.folder = folder.resolve()
        self.files: dict[int, IO[bytes]] = {
            0: os.fdopen(0, "rb", closefd=False),
            1: os.fdopen(1, "wb", 4096, closefd=False),
            2: os.fdopen(2, "wb", 0, closefd=False),
        }
        self.handlers: list[tuple[int, int]] = []
        self.sizes: dict[int, int] = {}
        self.spare: dict[int, list[int]] = {}
        self.keys: list[int] = []
        self.arena = self.arena_end = self.locals = self.clock = self.code = 0
        self.own = self.map(1 << 21)  # errno, variables, and where FILE pointers point
        self.environment = {key: self.string(value) for key, value in environment.items()}
        words = [self.string(f"{key}={value}") for key, value in environment.items()]
        argv = self.vector(self.string("program"))
        self.arguments = [1, argv, self.vector(*words), self.vector()]
        self.calls = [*program.initializers, program.main]
        files = (self.handle(number) for number in range(3))
        values = (*files, 0xC0FFEE_0DDBA11D, 0x103, self.arguments[2])
        self.variables = {name: self.own + 8 + 8 * n for n, name in enumerate(_VARIABLES)}
        for place, value in zip(self.variables.values(), values, strict=True):
            self.store(place, value)
        for address, name, addend in program.imports:
            plain = name.removeprefix("_").partition("$")[0]  # $NOCANCEL and the like: variants
            self.store(address, (self.variables.get(plain) or self.bind(plain)) + addend)

    def serve(self, name: str) -> int | None:
        """Call what stands in for a function with as many arguments as it takes."""
        checked = name.startswith("__mem") and name.endswith("_chk")
        if checked and self.argument(2) > self.argument(3):
            self.abort("a checked function would write beyond its destination", "SIGTRAP")
        function = _FUNCTIONS.get(name[2:-4] if checked else name)
        if function is None:
            why = f"it calls {name}, which is not emulated"
            raise unsupported("the program", why, "leave out what needs it")
        count = function.__code__.co_argcount - 1
        return function(self, *(self.argument(n) for n in range(count)))

    def start(self) -> None:
        """Call the next initializer, or main; `exit` with what main has returned."""
        if self.calls:
            self.enter(self.calls.pop(0), self.arguments, START)
        else:
            self.exit(self.get(self.cpu.result))

    def exit(self, code: int) -> None:
        """Call the last exit handler, which comes back here; without one, end the program."""
        self.code = code
        if self.handlers:
            function, argument = self.handlers.pop()
            self.enter(function, [argument], EXIT)
            return
        for file in self.files.values():
            file.close()
        self.end(code)

    def end(self, code: int) -> None:
        """End the program at once: what it has buffered is lost."""
        raise Ended(exit_code=code & 0xFF)

    def abort(self, message: str, signal: str = "SIGABRT") -> None:
        """End the program as by a signal that it sends itself."""
        self.files[2].write(f"{message}\n".encode())
        raise Ended(signal=signal)

    def string(self, text: str) -> int:
        """Return the address of a new string."""
        content = os.fsencode(text) + b"\0"
        return self.copy(self.allocate(len(content)), content)

    def vector(self, *values: int) -> int:
        """Return the address of a new array of pointers, the last of them null."""
        content = struct.pack(f"<{len(values) + 1}Q", *values, 0)
        return self.copy(self.allocate(len(content)), content)

    def copy(self, to: int, content: bytes) -> int:
        """Write, and return where."""
        self.write(to, content)
        return to

    def allocate(self, size: int) -> int:
        """Return new memory, or 0; what was given back is given again, at the same size."""
        room = max(-(-size // 16) * 16, 16)
        if self.spare.get(room):
            place = self.spare[room].pop()
        else:
            if self.arena + room > self.arena_end:
                self.arena = self.map(max(room, 1 << 22))
                self.arena_end = self.arena + max(room, 1 << 22)
            if not self.arena:
                self.failed(_NO_MEMORY)
                return 0
            place, self.arena = self.arena, self.arena + room
        self.sizes[place] = room
        return place

    def free(self, place: int) -> None:
        """Take memory back; another address ends the program, as macOS's malloc does."""
        if place and place not in self.sizes:
            self.abort("pointer being freed was not allocated")
        if place:
            self.spare.setdefault(self.sizes.pop(place), []).append(place)

    def failed(self, number: int | None) -> int:
        """Set errno, and return what says that a call failed."""
        self.write(self.own, struct.pack("<I", number or _BAD_FILE))
        return -1

    def act(self, call: Callable[[], int | None]) -> int:
        """Return what a call on a file returns, 0 for None, or -1 with errno set."""
        try:
            return call() or 0
        except (OSError, ValueError) as error:
            return self.failed(getattr(error, "errno", None))

    def path(self, address: int) -> Path:
        """Return the path that a string says; raises `LabError` for one outside the folder."""
        text = os.fsdecode(self.text(address))
        path = (self.folder / text).resolve()
        if not path.is_relative_to(self.folder):
            why = f"it asks for {text}, which is outside its folder"
            raise unsupported("the program", why, "give it paths in its folder")
        return path

    def open(self, address: int, flags: int) -> int:
        """Open a file by Darwin's flags; return its descriptor, or -1 with errno set."""
        path, ours = self.path(address), flags & 3 | os.O_CLOEXEC
        for theirs, other in _FLAGS.items():
            ours |= other if flags & theirs else 0

        def call() -> int:
            file = os.fdopen(os.open(path, ours, 0o644), _MODES[flags & 3], 4096)
            number = next(n for n in range(1 << 16) if n not in self.files)
            self.files[number] = file
            return number

        return self.act(call)

    def handle(self, number: int) -> int:
        """Return the FILE pointer of a descriptor; null for -1."""
        return self.own + 0x1000 + 16 * number if number >= 0 else 0

    def number(self, handle: int) -> int:
        """Return the descriptor of a FILE pointer; raises `BadAccess` for what is none."""
        number, rest = divmod(handle - self.handle(0), 16)
        if rest or number not in self.files:
            raise BadAccess(handle)
        return number

    def file(self, handle: int) -> IO[bytes]:
        """Return the file of a FILE pointer."""
        return self.files[self.number(handle)]

    def put(self, handle: int, content: bytes) -> int:
        """Write to a FILE pointer; return how much, or -1."""
        file = self.file(handle)
        return self.act(lambda: file.write(content))


def _resize(s: LibSystem, old: int, size: int) -> int:
    place = s.allocate(size)
    if old and place:
        s.write(place, s.read(old, min(s.sizes.get(old, 0), size)))
        s.free(old)
    return place


def _fill(s: LibSystem, to: int, byte: int, size: int) -> int:
    return s.copy(to, bytes([byte & 0xFF]) * min(size, MOST + 1))


def _map(s: LibSystem, _: int, size: int, protection: int, flags: int, number: int, at: int) -> int:
    anonymous = bool(flags & _ANONYMOUS)
    if flags & _FIXED or (not anonymous and flags & _SHARED and protection & _WRITE):
        why = "it maps memory at a fixed place, or a file to be written: that is not emulated"
        raise unsupported("the program", why, "leave out %c of its profile's name")
    file, place = s.files.get(number & 0xFFFFFFFF), s.map(size)
    if not place or not (anonymous or file):
        return s.failed(_BAD_FILE if place else _NO_MEMORY)
    if file and not anonymous:
        file.flush()
        s.write(place, os.pread(file.fileno(), min(size, MOST), at))
    return place


def _thread_local(s: LibSystem, descriptor: int) -> int:
    first = s.program.locals
    s.locals = s.locals or s.copy(s.map(len(first)), first)
    return s.locals + s.word(descriptor + 16)  # the descriptor's third word is the offset


def _key(s: LibSystem, to: int) -> int:
    s.keys.append(0)
    return s.copy(to, struct.pack("<Q", len(s.keys) - 1)) * 0


def _ticks(s: LibSystem) -> int:
    s.clock += 1000
    return s.clock


def _setenv(s: LibSystem, key: int, value: int, overwrite: int) -> int:
    name = os.fsdecode(s.text(key))
    if overwrite or name not in s.environment:
        s.environment[name] = s.string(os.fsdecode(s.text(value)))
    return 0


def _uname(s: LibSystem, to: int) -> int:
    words = (b"Darwin", b"laboratory", b"0", b"emulated", s.program.cpu.encode())
    return s.copy(to, b"".join(word.ljust(256, b"\0") for word in words)) * 0


def _order(left: bytes, right: bytes) -> int:
    return (left > right) - (left < right)


def _find(s: LibSystem, text: int, part: bytes) -> int:
    place = (s.text(text) + b"\0").find(part)
    return text + place if place >= 0 else 0


def _number(text: bytes) -> int:
    digits = (text.split() or [b""])[0]
    return int(digits) if digits.lstrip(b"+-").isdigit() else 0


def _fopen(s: LibSystem, path: int, mode: int) -> int:
    text = s.text(mode)
    flags = {b"w": 0x601, b"a": 0x209}.get(text[:1], 0)
    return s.handle(s.open(path, flags & ~3 | 2 if b"+" in text else flags))


def _fread(s: LibSystem, to: int, size: int, count: int, handle: int) -> int:
    content = s.file(handle).read(min(size * count, MOST))
    s.write(to, content)
    return len(content) // max(size, 1)


def _snprintf(s: LibSystem, to: int, room: int, content: bytes) -> int:
    s.write(to, (content[: room - 1] + b"\0") if room else b"")
    return len(content)


#: Parameters after the first are those in C, each as 64 bits; None leaves the registers alone.
_FUNCTIONS: dict[str, Callable[..., int | None]] = {
    # Beginning and end.
    START: LibSystem.start,
    EXIT: lambda s: s.exit(s.code),
    "exit": LibSystem.exit,
    "_exit": LibSystem.end,
    "abort": lambda s: s.abort("abort"),
    "__stack_chk_fail": lambda s: s.abort("stack buffer overflow"),
    "__assert_rtn": lambda s, _function, _file, _line, why: s.abort(s.text(why).decode("latin-1")),
    "atexit": lambda s, function: s.handlers.append((function, 0)) or 0,
    "__cxa_atexit": lambda s, function, argument: s.handlers.append((function, argument)) or 0,
    # The process.
    "__error": lambda s: s.own,
    "getpid": lambda _: 4711,
    "getpagesize": lambda s: s.cpu.page,
    "sysconf": lambda s, what: s.cpu.page if what == 29 else -1,  # _SC_PAGESIZE
    "getenv": lambda s, name: s.environment.get(os.fsdecode(s.text(name)), 0),
    "setenv": _setenv,
    "_NSGetEnviron": lambda s: s.variables["environ"],
    "uname": _uname,
    "mach_absolute_time": _ticks,
    "clock_gettime": lambda s, _, to: s.copy(to, struct.pack("<2Q", 1, _ticks(s))) * 0,
    "CCRandomGenerateBytes": lambda s, to, size: _fill(s, to, 4, size) * 0,  # alike in each run
    **dict.fromkeys(("getrusage", "task_info"), lambda _: -1),
    # One thread, and its variables.
    "_tlv_bootstrap": _thread_local,
    "pthread_key_create": _key,
    "pthread_getspecific": lambda s, key: s.keys[key],
    "pthread_setspecific": lambda s, key, value: s.keys.__setitem__(key, value) or 0,
    # Memory.
    "malloc": LibSystem.allocate,
    "calloc": lambda s, n, size: (to := s.allocate(n * size)) and _fill(s, to, 0, n * size),
    "realloc": _resize,
    "free": LibSystem.free,
    "mmap": _map,
    "munmap": Machine.unmap,
    **dict.fromkeys(("madvise", "mprotect", "msync"), lambda _: 0),
    **dict.fromkeys(("memcpy", "memmove"), lambda s, to, source, n: s.copy(to, s.read(source, n))),
    "memset": _fill,
    **dict.fromkeys(("bzero", "__bzero"), lambda s, to, size: _fill(s, to, 0, size)),
    "memcmp": lambda s, left, right, size: _order(s.read(left, size), s.read(right, size)),
    # Strings.
    "strlen": lambda s, text: len(s.text(text)),
    "strcmp": lambda s, left, right: _order(s.text(left), s.text(right)),
    "strncmp": lambda s, left, right, most: _order(s.text(left, most), s.text(right, most)),
    "strncpy": lambda s, to, text, n: s.copy(to, s.text(text, n).ljust(min(n, MOST), b"\0")),
    "strchr": lambda s, text, byte: _find(s, text, bytes([byte & 0xFF])),
    "strstr": lambda s, text, part: _find(s, text, s.text(part)),
    "strdup": lambda s, text: s.string(os.fsdecode(s.text(text))),
    "atoi": lambda s, text: _number(s.text(text)),
    "__toupper": lambda _, byte: byte - 32 if 97 <= byte <= 122 else byte,
    "strerror": lambda s, number: s.string(os.strerror(number & 0xFF)),
    # Files.
    "fopen": _fopen,
    "open": LibSystem.open,
    "fdopen": lambda s, number: s.handle(number if number in s.files else s.failed(_BAD_FILE)),
    "fileno": LibSystem.number,
    "fclose": lambda s, file: s.act(s.files.pop(s.number(file)).close),
    "fwrite": lambda s, data, size, n, file: max(s.put(file, s.read(data, size * n)), 0) and n,
    "fread": _fread,
    "fseek": lambda s, file, to, how: min(s.act(lambda: s.file(file).seek(signed(to), how & 3)), 0),
    "ftell": lambda s, file: s.act(s.file(file).tell),
    "fflush": lambda s, file: s.act(s.file(file or s.handle(1)).flush),
    "ftruncate": lambda s, number, size: min(s.act(lambda: s.files[number].truncate(size)), 0),
    "mkdir": lambda s, path: s.act(s.path(path).mkdir),
    **dict.fromkeys(("flock", "fcntl", "setvbuf"), lambda _: 0),
    # Printing.
    "printf": lambda s, text: s.put(s.handle(1), formatted(s, text, 1)),
    "fprintf": lambda s, file, text: s.put(file, formatted(s, text, 2)),
    "puts": lambda s, text: s.put(s.handle(1), s.text(text) + b"\n"),
    "fputs": lambda s, text, file: s.put(file, s.text(text)),
    "snprintf": lambda s, to, room, text: _snprintf(s, to, room, formatted(s, text, 3)),
    "__snprintf_chk": lambda s, to, n, _flag, _n, text: _snprintf(s, to, n, formatted(s, text, 5)),
    "vsnprintf": lambda s, to, n, text, more: _snprintf(s, to, n, formatted(s, text, 4, more)),
}
