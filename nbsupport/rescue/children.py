"""The profiles of a command and of all that it starts: no child of it crashes in its profile.

What must be changed in a process is what live.py says; here it is done by ptrace, in each process
that comes of the command, for LLDB follows one alone. What a healthy process has written itself
is taken as it is. A forked child begins with its parent's counts, which LLVM would count twice:
here they are taken off again.
"""

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from nbsupport.audit.image import VERSION
from nbsupport.base import process as base
from nbsupport.base import progress
from nbsupport.crash.debugger import output_pipe
from nbsupport.crash.elf import Elf
from nbsupport.crash.family import Family, Follower, Process
from nbsupport.crash.inside_lldb.protocol import RETURN, Note, RescueEvent
from nbsupport.rescue import live
from nbsupport.rescue.live import LiveImage

#: Seconds: between looks at what runs, and until what is asked to end, or outlives it, is ended.
_TICK, _PATIENCE = 0.1, 2.0
_DATA, _COUNTERS = "__llvm_prf_data", "__llvm_prf_cnts"
_COUNTED = (_COUNTERS, "__llvm_prf_vnds")
_SECTIONS = tuple(f"__llvm_prf_{role}" for role in live.ROLES)


@dataclass
class ChildRun:
    """A program that runs in a process of the family; `ending` is how it ended ("": it goes on).

    `images` are the instrumented ones, with their copies; `records` those of images whose memory
    was mended, as before. Images in `written` were copied when they would have written their
    profile. `inherited` are counters and value nodes at the fork that it began with. `own` is the
    profile that it has written itself. `crash` is the signal, and where.
    """

    pid: int
    program: Path
    forked: bool = False
    images: dict[Path, LiveImage] = field(default_factory=dict)
    records: dict[Path, bytes] = field(default_factory=dict)
    written: set[Path] = field(default_factory=set)
    inherited: dict[tuple[Path, str], bytes] = field(default_factory=dict)
    own: Path | None = None
    crash: tuple[str, str] | None = None
    ending: str = ""

    @property
    def healthy(self) -> bool:
        """Whether it writes its profile itself: all its records are of one layout."""
        return not self.forked and [image.healthy for image in self.images.values()] == [True]


@dataclass
class FamilyRun:
    """What happens to a command: programs that have `ended`, and those that go on, by process.

    `why` is as in `LiveRun`, `code` the command's exit code, or minus its signal. `became` are
    programs that became others (exec) with what they had counted; `outlived` is how many
    processes were ended because they outlived the command, `unfollowed` how many programs left
    an empty profile that could not be followed: those of 32 bits, and of other namespaces.
    """

    ended: list[ChildRun] = field(default_factory=list)
    going: dict[int, ChildRun] = field(default_factory=dict)
    why: str = ""
    code: int = 0
    became: list[Path] = field(default_factory=list)
    outlived: int = 0
    unfollowed: int = 0

    @property
    def runs(self) -> list[ChildRun]:
        """Those of instrumented programs."""
        runs = {id(run): run for run in (*self.ended, *self.going.copy().values())}
        return [run for run in runs.values() if run.images or run.own]


def run(
    command: tuple[Sequence[str], Path, Mapping[str, str], float],
    own: Path,
    save: Callable[[FamilyRun], object],
    streams: Sequence[IO[str] | None],
) -> FamilyRun:
    """Run a command until it ends; `save` is called with what there is when SIGUSR1 asks for it.

    `command` is the program with its arguments, its folder, environment and time. `own` is the
    folder of profiles that programs write themselves; copies go beside it. Ctrl-C, SIGTERM and the
    time limit end all processes, with their memory; so does the end of the command, a moment
    later. `streams` as in `nbsupport.rescue.rescue.run`. Raises `LabError` where it cannot be run.
    """
    state = FamilyRun()
    rescuer = _Rescuer(state, own.parent, own)
    argv, cwd, env, seconds = command
    with contextlib.ExitStack() as stack:
        output, errors = (stack.enter_context(_opened(stream)) for stream in streams)
        family = Family((argv, cwd, env), (_stdin(), output, errors), rescuer)

        def ask(number: int, _: object) -> None:
            state.why = live.SIGNALS[number]

        stack.enter_context(base.handling(dict.fromkeys(live.SIGNALS, ask)))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(family.end)  # before the pool waits for its thread
        future = pool.submit(family.run)
        end, last = time.monotonic() + seconds, math.inf
        over = math.inf  # when what outlives the command is ended
        while wait([future], _TICK).not_done:
            now = time.monotonic()
            if state.why == "now":
                _settle(family)
                progress.say(f"{save(state)}")
                state.why = "" if state.why == "now" else state.why
            elif rescuer.ending:
                family.ask() if now < last else family.end()
            elif state.why or now > min(end, over):
                state.why = state.why or ("limit" if now > end else "")
                state.outlived = 0 if state.why else len(family.processes)
                rescuer.ending, last = True, now + _PATIENCE
            elif family.status is not None:
                over = min(over, now + _PATIENCE)
        future.result()
    state.code = os.waitstatus_to_exitcode(family.status or 0)
    state.why = state.why.replace("now", "")  # it ended meanwhile
    for path in own.glob("*.profraw"):
        if path.stem.isdecimal() and int(path.stem) not in rescuer.followed:
            state.unfollowed += not path.stat().st_size
            if path.stat().st_size:
                state.ended.append(ChildRun(int(path.stem), Path("?"), own=path))
    return state


class _Rescuer(Follower):
    """Keeps each process of a family from both crashes, and copies its counters in time."""

    def __init__(self, state: FamilyRun, folder: Path, own: Path) -> None:
        self._state, self._folder, self._own = state, folder, own
        self._answers: dict[tuple[object, ...], tuple[LiveImage, Note]] = {}
        self.followed: set[int] = set()  # processes with instrumented images
        self.ending = False  # whether each is to be ended when it is asked

    def loaded(self, process: Process, elf: Elf, bias: int) -> None:
        """Change in an instrumented image what live.py says."""
        if not elf.instrumented:
            return
        run = self._run(process)
        address = bias + elf.sections[_DATA][0]
        names = (*live.VALUE_SITES, live.BUFFER, live.WRITER, VERSION)
        symbols = {name: at and bias + at for name, at in elf.addresses(names).items()}
        version = symbols.pop(VERSION)
        number = int.from_bytes(process.read(version, 8), "little") if version else 0
        key = elf, address
        if key not in self._answers:
            event = RescueEvent("image", str(elf.path), address, symbols, number)
            self._answers[key] = live.answer(event)
        image, note = self._answers[key]
        run.images[elf.path] = dataclasses.replace(image)
        for place in note["patch"]:
            process.write(place, RETURN[platform.machine()])
        for place in note["values"]:
            process.stop_at(place, functools.partial(self._mend, elf.path, note))
        own = [symbols[live.WRITER]] if image.healthy else note["writer"]
        for place in own:  # inside of it, where no symbol tells
            start = place if place in symbols.values() else bias + elf.start(place - bias)
            if start not in (0, bias):
                process.stop_at(start, functools.partial(self._write, elf.path))

    def _mend(self, path: Path, note: Note, process: Process) -> bool:
        """Let the runtime find in foreign records what it looks for: their own value counters.

        Not before a value site is reached: by then the program has been relocated.
        """
        run, (elf, bias) = self._run(process), process.images[path]
        address, size = elf.sections[_DATA]
        records = process.read(bias + address, size)
        pointers = [records[own : own + 8] for own in note["own"]]
        mended = all(map(any, pointers))
        run.images[path].valued = mended
        for slot, pointer in zip(note["slots"], pointers, strict=True):
            if mended:
                process.write(bias + address + slot, pointer)
                run.records[path] = records
        for place in note["values"]:  # not before: other threads go on
            process.clear(place)
            if not mended:
                process.write(place, RETURN[platform.machine()])
        return False

    def _write(self, path: Path, process: Process) -> bool:
        """Copy an image that is about to write its profile; return whether it must not."""
        run = self._run(process)
        if not process.shared:
            self._copy(process, run, [path])
            run.written.add(path)
        return run.forked or not run.images[path].healthy

    def _copy(self, process: Process, run: ChildRun, paths: Iterable[Path]) -> None:
        """Copy the profile's sections of images, where all of them can be read.

        A file has its content's name: what is the same in each child is there once.
        """
        for path in paths:
            copies = {}
            for name, address, size in _places(process, path, _SECTIONS):
                records = run.records.get(path) if name == _DATA else None
                content = records or process.read(address, size)
                if len(content) == size:
                    content = _since(content, run.inherited.get((path, name), b""), name)
                    copy = self._folder / hashlib.blake2b(content, digest_size=16).hexdigest()
                    if not copy.exists():
                        copy.write_bytes(content)
                    copies[name] = address, str(copy)
            if copies.keys() >= {_DATA, _COUNTERS, "__llvm_prf_names"}:
                run.images[path].copies = copies

    def _copy_rest(self, process: Process) -> None:
        run = self._run(process)
        self._copy(process, run, run.images.keys() - run.written)

    def forked(self, process: Process, parent: Process) -> None:
        """Begin a child: until it becomes another program, it shares memory, or has its own."""
        before = self._run(parent)
        self._state.going[process.pid] = before
        if not process.shared:
            run = ChildRun(process.pid, before.program, True, records=dict(before.records))
            for path, image in before.images.items():
                run.images[path] = dataclasses.replace(image, copies={})
                for name, address, size in _places(process, path, _COUNTED):
                    run.inherited[path, name] = parent.read(address, size)
            self._state.going[process.pid] = run

    def executed(self, process: Process) -> None:
        """Begin a program; what was in the process before it is over."""
        before = self._state.going.get(process.pid)
        if before and before.pid == process.pid and before.images and not before.forked:
            self._finish(before, "it became another program")
            if not before.own and not before.written:
                self._state.ended.remove(before)
                self._state.became.append(before.program)
        self._state.going[process.pid] = ChildRun(process.pid, process.program)

    def fatal(self, process: Process, name: str) -> None:
        """Copy the counters of a program that a fatal signal ends."""
        self._run(process).crash = name, process.where()
        self._copy_rest(process)

    def asked(self, process: Process) -> None:
        """Copy the counters; end the process if that is due."""
        self._copy_rest(process)
        if self.ending:
            os.kill(process.pid, signal.SIGKILL)

    def exiting(self, process: Process, status: int) -> None:
        """Copy the counters of a program that ends, unless it has written them itself."""
        run = self._run(process)
        own = self._file(run)
        wrote = run.healthy and os.WIFEXITED(status) and own.exists() and own.stat().st_size
        if not (wrote or run.crash):
            self._copy_rest(process)

    def ended(self, process: Process, status: int) -> None:
        """Take note of how a program ended."""
        run = self._run(process)
        del self._state.going[process.pid]
        code = os.waitstatus_to_exitcode(status)
        ending = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        if run.pid == process.pid:
            self._finish(run, ending)

    def _finish(self, run: ChildRun, ending: str) -> None:
        run.ending, own = ending, self._file(run)
        if run.images:
            self.followed.add(run.pid)
            if run.healthy and own.exists() and own.stat().st_size:
                run.own = own.rename(own.with_name(f"{run.pid}-{len(self._state.ended)}.profraw"))
            self._state.ended.append(run)

    def _run(self, process: Process) -> ChildRun:
        begun = ChildRun(process.pid, process.program)
        return self._state.going.setdefault(process.pid, begun)

    def _file(self, run: ChildRun) -> Path:
        return self._own / f"{run.pid}.profraw"


def _places(process: Process, path: Path, names: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """Yield which of these sections an image has, and where."""
    elf, bias = process.images[path]
    for name in names:
        if name in elf.sections:
            address, size = elf.sections[name]
            yield name, bias + address, size


def _since(content: bytes, before: bytes, name: str) -> bytes:
    """Return counters, or value nodes, without what was counted before.

    A node is value, count and next. Counters of one byte are 0 or 255: nothing is taken off.
    """
    width = 8 if name == _COUNTERS else 24
    if len(before) != len(content) or len(content) % width or not content.strip(b"\0\xff"):
        return content
    now, then = (np.frombuffer(part, "<u8").copy() for part in (content, before))
    if name == _COUNTERS:
        return bytes(now - then)
    same = (now[::3] == then[::3]) & (now[1::3] >= then[1::3])
    now[1::3] -= np.where(same, then[1::3], 0)
    return bytes(now)


def _settle(family: Family) -> None:
    """Ask each process for its counters, and wait for those that can answer."""
    family.ask()
    end = time.monotonic() + _PATIENCE
    while family.asked and time.monotonic() < end:
        time.sleep(_TICK)


def _stdin() -> int:
    """Return our standard input, if there is one."""
    with contextlib.suppress(OSError):
        os.fstat(0)
        return 0
    return subprocess.DEVNULL


@contextlib.contextmanager
def _opened(stream: IO[str] | None) -> Iterator[int]:
    """Yield the descriptor of what writes to a stream (None: to nowhere)."""
    if stream is None:
        yield subprocess.DEVNULL
        return
    try:
        stream.flush()
        descriptor = stream.fileno()
    except (OSError, ValueError):  # it is not a file, as in a notebook
        with output_pipe(live.passing(stream)) as path, path.open("wb", 0) as file:
            yield file.fileno()
    else:
        yield descriptor
