"""A command and all that it starts, followed by ptrace: Linux on x86-64 and AArch64, no root.

A debugger follows one side of a fork. Here each process is followed, whatever it becomes, and
runs at full speed but where a breakpoint stands. Source: ptrace(2), linux/ptrace.h, and user.h
and asm/ptrace.h for the registers.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import signal
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nbsupport.base import process as base
from nbsupport.base.errors import LabError
from nbsupport.crash import ptrace
from nbsupport.crash.elf import MACHINES, Elf
from nbsupport.crash.inside_lldb.protocol import FATAL
from nbsupport.crash.lldb import ALLOW

_FORK, _VFORK, _CLONE, _EXEC, _EXIT, _STOP = 1, 2, 3, 4, 6, 128
#: Tell of these, and end everything when we are gone (PTRACE_O_EXITKILL).
_OPTIONS = 1 << 20 | sum(1 << event for event in (_FORK, _VFORK, _CLONE, _EXEC, _EXIT))
#: Each child and thread that this thread follows (__WALL | __WNOTHREAD of waitpid(2)).
_MINE = 0x60000000
_STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
#: Waits to be followed, then becomes the command.
_BEGIN = 'ulimit -c 0; kill -STOP $$; exec "$@"'
#: What the dynamic linker calls when images have come or gone. Source: link.h (r_brk).
_LINKED = "_dl_debug_state"


class Follower:
    """What is told of a family, in the thread that follows it; the process stands still.

    This one does nothing of its own. `status` is as waiting for the process returns it.
    """

    def loaded(self, process: Process, elf: Elf, bias: int) -> None:
        """Look at an image that has come, `bias` behind its addresses as linked."""

    def forked(self, process: Process, parent: Process) -> None:
        """Look at a process that has just been forked."""

    def executed(self, process: Process) -> None:
        """Look at a process that has just become another program."""

    def fatal(self, process: Process, name: str) -> None:
        """Look at a process that this signal ends because of what it did."""

    def asked(self, process: Process) -> None:
        """Look at a process because `Family.ask` was called."""

    def exiting(self, process: Process, status: int) -> None:
        """Look for the last time at the memory of a process, which ends."""

    def ended(self, process: Process, status: int) -> None:
        """Take note that a process has ended."""


@dataclass
class Breakpoint:
    """Where a function begins: `meet` says whether the function is to return 0 at once.

    Otherwise it is executed, and the breakpoint is gone (not `active`).
    """

    meet: Callable[[Process], bool]
    original: bytes
    active: bool = True


@dataclass
class Process:
    """A process: its number, its threads, the breakpoints in its memory.

    `shared`: its memory is its parent's (vfork). `images` are the ELF images in it, by path, each
    with its distance from its addresses as linked. `thread` is the one that has just stopped.
    """

    pid: int
    threads: set[int]
    thread: int
    shared: bool = False
    breakpoints: dict[int, Breakpoint] = field(default_factory=dict)
    images: dict[Path, tuple[Elf, int]] = field(default_factory=dict)

    @property
    def program(self) -> Path:
        """What it runs."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/exe").readlink()
        return Path()

    def read(self, address: int, size: int) -> bytes:
        """Return what is in memory, as far as it can be read."""
        with contextlib.suppress(OSError), Path(f"/proc/{self.pid}/mem").open("rb", 0) as file:
            return os.pread(file.fileno(), size, address)
        return b""

    def write(self, address: int, content: bytes) -> None:
        """Change what is in memory, code too; raises `OSError` where there is none.

        A kernel may refuse to have code changed by its file of memory.
        """
        with contextlib.suppress(OSError), Path(f"/proc/{self.pid}/mem").open("r+b", 0) as file:
            if os.pwrite(file.fileno(), content, address) == len(content):
                return
        before = address % 8
        words = bytearray(self.read(address - before, (before + len(content) + 7) // 8 * 8))
        words[before : before + len(content)] = content
        for n, (word,) in enumerate(struct.iter_unpack("<Q", words)):
            ptrace.request(ptrace.POKE, self.thread, address - before + 8 * n, word)

    def stop_at(self, address: int, meet: Callable[[Process], bool]) -> None:
        """Put a breakpoint where a function begins."""
        original = self.read(address, len(ptrace.CODE))
        if address not in self.breakpoints and original:
            self.write(address, ptrace.CODE)
            self.breakpoints[address] = Breakpoint(meet, original)

    def clear(self, address: int) -> None:
        """Take a breakpoint away; another thread may stand before it already."""
        if address in self.breakpoints and self.breakpoints[address].active:
            self.write(address, self.breakpoints[address].original)
            self.breakpoints[address].active = False

    def where(self) -> str:
        """Return the function that the thread is in, else the name of its image, else ""."""
        counter = ptrace.registers(self.thread)[ptrace.COUNTER]
        for start, end, _, path in self._mapped():
            if start <= counter < end:
                elf, bias = self.images.get(path, (None, 0))
                return (elf.function(counter - bias) if elf else "") or path.name
        return ""

    def catches(self, number: int) -> bool:
        """Return whether it has a handler for a signal."""
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            caught = status.partition("SigCgt:")[2].split()[0]
            return bool(int(caught, 16) >> (number - 1) & 1)
        return False

    def look(self) -> Iterator[tuple[Elf, int]]:
        """Yield the images that have come since the last look, and their distances."""
        for start, _, offset, path in self._mapped():
            if offset == 0 and path not in self.images:
                with contextlib.suppress(OSError, ValueError):
                    state = path.stat()
                    elf = _elf(path, state.st_ino, state.st_mtime_ns)
                    self.images[path] = elf, start - elf.base
                    yield self.images[path]

    def _mapped(self) -> Iterator[tuple[int, int, int, Path]]:
        """Yield start, end, offset and path of what is mapped from files."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines():
                span, _, offset, _, _, *path = line.split(maxsplit=5)
                if path and path[0].startswith("/"):
                    start, end = (int(number, 16) for number in span.split("-"))
                    yield start, end, int(offset, 16), Path(path[0])


class Family:
    """A command, and each process that comes of it; `run` it in a thread of its own.

    `command` is the program with its arguments, its folder and its whole environment; `streams`
    are file descriptors that it reads from, writes to, and says errors to.
    """

    def __init__(
        self,
        command: tuple[Sequence[str], Path, Mapping[str, str]],
        streams: tuple[int, int, int],
        follower: Follower,
    ) -> None:
        self._command, self._streams, self._follower = command, streams, follower
        self.processes: dict[int, Process] = {}
        self.root = 0  # the command's own number
        self.status: int | None = None  # what waiting for it came to, once it has ended
        self._threads: dict[int, Process] = {}
        self._early: dict[int, int] = {}  # stops of new ones before we hear of these
        self._asked: set[int] = set()

    def run(self) -> None:
        """Follow the command until the last of its processes has ended.

        Raises `LabError` where it cannot be started or followed.
        """
        ptrace.fix_addresses()  # of this thread, and of what it starts
        argv, cwd, env = self._command
        words = ["/bin/sh", "-c", _BEGIN, "sh", *argv]
        stdin, output, errors = self._streams
        try:
            child = base.Child(words, cwd=cwd, env=env, stdin=stdin, output=output, errors=errors)
        except OSError as error:
            raise LabError(argv[0], str(error.strerror), "check the folder") from error
        try:
            self.root = child.popen.pid
            os.waitpid(self.root, os.WUNTRACED)
            self._add(Process(self.root, set(), self.root))
            try:
                ptrace.request(ptrace.SEIZE, self.root, 0, _OPTIONS)
            except OSError as error:
                why = f"it cannot be followed ({error.strerror})"
                raise LabError(argv[0], why, ALLOW) from error
            os.kill(self.root, signal.SIGCONT)
            self._follow()
        finally:
            self.end()
            self._drain()
            child.popen.returncode = os.waitstatus_to_exitcode(self.status or 0)
            child.end()

    @property
    def asked(self) -> bool:
        """Whether some that were asked have not stopped yet."""
        return bool(self._asked)

    def ask(self) -> None:
        """Have each process stop once, and the follower told; from any thread."""
        for pid in list(self.processes):
            self._asked.add(pid)
            _kill(pid, signal.SIGSTOP)

    def end(self) -> None:
        """End all processes at once; from any thread."""
        for pid in list(self.processes):
            _kill(pid, signal.SIGKILL)

    def _follow(self) -> None:
        while self.processes:
            thread, status = os.waitpid(-1, _MINE)
            if not os.WIFSTOPPED(status):
                self._gone(thread, status)
            elif thread in self._threads:
                with contextlib.suppress(ProcessLookupError):  # killed meanwhile
                    self._stopped(self._threads[thread], thread, status)
            else:
                self._early[thread] = status

    def _drain(self) -> None:
        """Let what has been killed come to its end."""
        while self.processes:
            try:
                thread, status = os.waitpid(-1, _MINE)
            except ChildProcessError:
                return
            if os.WIFSTOPPED(status):
                with contextlib.suppress(OSError):
                    ptrace.request(ptrace.CONT, thread)
            else:
                self._gone(thread, status)

    def _add(self, process: Process, thread: int = 0) -> None:
        thread = thread or process.pid
        process.threads.add(thread)
        self._threads[thread] = self.processes[process.pid] = process
        if thread in self._early:
            with contextlib.suppress(ProcessLookupError):
                self._stopped(process, thread, self._early.pop(thread))

    def _gone(self, thread: int, status: int) -> None:
        process = self._threads.pop(thread, None)
        if process:
            process.threads.discard(thread)
            if thread == process.pid:  # the last to be told of
                self._asked.discard(thread)
                del self.processes[thread]
                if thread == self.root:
                    self.status = status
                self._follower.ended(process, status)

    def _stopped(self, process: Process, thread: int, status: int) -> None:
        """Answer a stop, and let the thread go on."""
        event, number, passed, request = status >> 16, os.WSTOPSIG(status), 0, ptrace.CONT
        process.thread = thread
        if event in (_FORK, _VFORK, _CLONE):
            self._new(process, ptrace.message(thread), event)
        elif event == _EXEC:
            self._executed(process)
        elif event == _EXIT:
            process.threads.discard(thread)
            if not process.threads or thread == process.pid:
                self._follower.exiting(process, ptrace.message(thread))
        elif event == _STOP:
            request = ptrace.LISTEN if number in _STOPPING else ptrace.CONT
        elif number == signal.SIGSTOP and process.pid in self._asked:
            self._asked.discard(process.pid)
            self._follower.asked(process)
        elif number != signal.SIGTRAP or not self._met(process):
            passed = number
            name = signal.Signals(number).name if number in signal.valid_signals() else ""
            if name in FATAL and (name == "SIGTRAP" or not process.catches(number)):
                self._follower.fatal(process, name)
        ptrace.request(request, thread, 0, passed)

    def _new(self, process: Process, number: int, event: int) -> None:
        """Take note of a new thread, or process."""
        if event == _CLONE and Path(f"/proc/{process.pid}/task/{number}").exists():
            self._add(process, number)
            return
        points = {at: Breakpoint(**vars(point)) for at, point in process.breakpoints.items()}
        child = Process(number, set(), number, event == _VFORK, points, dict(process.images))
        self._follower.forked(child, process)
        self._add(child)

    def _executed(self, process: Process) -> None:
        """Look at a new program: it is there, with its dynamic linker, and nothing of it has run.

        All other threads are gone, and the one that is left has the process's number.
        """
        for thread in process.threads - {process.pid}:
            self._threads.pop(thread, None)
        process.threads, process.thread, process.shared = {process.pid}, process.pid, False
        process.breakpoints, process.images = {}, {}
        self._threads[process.pid] = process
        self._follower.executed(process)
        self._look(process)
        for elf, bias in process.images.values():
            if ".interp" not in elf.sections and (at := elf.addresses([_LINKED])[_LINKED]):
                process.stop_at(bias + at, self._look)

    def _look(self, process: Process) -> bool:
        for elf, bias in process.look():
            self._follower.loaded(process, elf, bias)
        return True

    def _met(self, process: Process) -> bool:
        """Return whether a trap is a breakpoint of ours; and act on it."""
        registers = ptrace.registers(process.thread)
        address = registers[ptrace.COUNTER] - ptrace.BEHIND
        point = process.breakpoints.get(address)
        if point is None:
            return False
        if point.active and point.meet(process):
            registers[ptrace.RESULT] = 0
            if ptrace.LINK:
                registers[ptrace.COUNTER] = registers[ptrace.LINK]
            else:
                back = process.read(registers[ptrace.STACK], 8)
                registers[ptrace.COUNTER] = int.from_bytes(back, "little")
                registers[ptrace.STACK] += 8
        else:
            process.clear(address)
            registers[ptrace.COUNTER] = address
        ptrace.set_registers(process.thread, registers)
        return True


def able() -> bool:
    """Return whether a family can be followed on this machine."""
    return sys.platform == "linux" and platform.machine() in MACHINES and sys.maxsize > 1 << 32


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


@functools.lru_cache(256)
def _elf(path: Path, _inode: int, _modified: int) -> Elf:
    return Elf(path)
