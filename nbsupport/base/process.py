"""Child processes that cannot get away.

What goes through `run` has a session of its own, no input and no core files; its time, memory
and output are bounded, and what it leaves behind is ended, even when this process dies. No
shell reads the command: `/bin/sh` sets the limits and becomes the program, because Python's
own hook for that (`preexec_fn`) is unsafe in a process with threads, as a kernel is.

A program that we talk to for long, as LLDB, is a `Child`. `end_all` ends both kinds.
"""

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import psutil

from nbsupport.base import settings
from nbsupport.base.errors import LabError, MissingError

#: Sets the limits, then becomes the program. The double-forked watcher holds the other end
#: of a pipe of ours: when this process goes, even by SIGKILL, it ends the child's group.
_LIMITER = """
exec 3<&0 </dev/null
((read -r _ <&3; kill -KILL -$$) >/dev/null 2>&1 &)
exec 3<&-
ulimit -c 0; ulimit -S -t "$1"; ulimit -f "$2"; shift 2
exec "$@"
"""
Limit = Literal["time", "memory", "output"]
#: A program and its arguments.
Command = Sequence[str | Path]

_TICK = 0.05  # seconds between looks at memory; most programs here end before the first

#: A child's own limits, set by the shell, end it with these.
_LIMIT_SIGNALS: dict[int, Limit] = {signal.SIGXCPU: "time", signal.SIGXFSZ: "output"}

#: Set after Ctrl-C, until what threads do has come to its end: what waits for no child looks here.
ending = threading.Event()

#: The process groups that `end_all` ends. Of CPython a set's own methods are atomic.
_live: set[int] = set()


@dataclass(frozen=True)
class Finished:
    """How a child ended: `exit_code` or `signal` (a number), and which limit, if any, ended it."""

    exit_code: int | None
    signal: int | None
    stdout: str
    stderr: str
    limit: Limit | None
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.exit_code == 0 and self.limit is None

    @property
    def signal_name(self) -> str | None:
        """`SIGSEGV` and the like."""
        return None if self.signal is None else signal.Signals(self.signal).name


def run(
    argv: Command,
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    limits: settings.Limits = settings.PROGRAM,
) -> Finished:
    """Run a program to its end, or to its limit, and return how it ended.

    `env` is its whole environment; None gives it `environment()`. Raises `MissingError`
    when the program cannot be started. An interrupt (Ctrl-C) ends the child and passes on.
    """
    command = [str(part) for part in argv]
    if shutil.which(command[0]) is None:
        raise MissingError(command[0], "no such program", "check the path, or install it")
    # The processor time limit is a second fence, for a child that outlives this process.
    fence = str(int(limits.seconds * (os.cpu_count() or 1)) + 2)
    limiter = ("/bin/sh", "-c", _LIMITER, "sh", fence, str(limits.file // 512))
    start = time.monotonic()
    pipe = subprocess.PIPE
    try:
        child = Child([*limiter, *command], cwd=cwd, env=env, stdin=pipe, output=pipe)
    except OSError as error:
        why = f"cannot start it ({error.strerror})"
        raise LabError(command[0], why, "check the path") from error
    try:
        limit, (stdout, stderr) = _watch(child.popen, start, limits)
    finally:
        child.end()
    code = child.popen.returncode
    if limit is None:
        limit = _LIMIT_SIGNALS.get(-code)
    return Finished(
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        stdout=stdout,
        stderr=stderr,
        limit=limit,
        seconds=time.monotonic() - start,
    )


def run_freely(
    argv: Command,
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    output: int = subprocess.DEVNULL,
    errors: int = 2,
) -> int:
    """Run a program to its end, without limits: a user's own build, or training.

    Returns its exit code, or minus the signal that ended it. `output` and `errors` are descriptors.
    An interrupt ends it, with all that it started, and passes on. Raises OSError as `Child` does.
    """
    child = Child(argv, cwd=cwd, env=env, output=output, errors=errors)
    try:
        while (code := child.wait(1.0)) is None:
            pass
    finally:
        child.end()
    return code


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with `extra`, messages in English."""
    return {**os.environ, "LC_ALL": "C", **(extra or {})}


def _watch(
    child: subprocess.Popen[bytes], start: float, limits: settings.Limits
) -> tuple[Limit | None, list[str]]:
    """Read both streams until the child ends or passes a limit."""
    assert child.stdout and child.stderr
    buffers: dict[IO[bytes], bytearray] = {child.stdout: bytearray(), child.stderr: bytearray()}
    limit: Limit | None = None
    next_look = start + _TICK
    wait = 0.005
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for stream in buffers:
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ)
        with contextlib.suppress(AttributeError, OSError):  # Linux only, and not an old one
            notice = os.pidfd_open(child.pid)
            stack.callback(os.close, notice)
            selector.register(notice, selectors.EVENT_READ)
            wait = _TICK
        # Ends with the child, not with its pipes: a grandchild may hold them open for ever.
        while limit is None and child.poll() is None:
            selector.select(wait)
            if _drain(selector, buffers, limits.output):
                limit = "output"
            now = time.monotonic()
            if now - start > limits.seconds:
                limit = "time"
            elif now >= next_look:
                next_look = now + _TICK
                if _memory(child.pid) > limits.memory:
                    limit = "memory"
        kill_group(child.pid)
        if _drain(selector, buffers, limits.output) and limit is None:
            limit = "output"
    streams = (buffer[: limits.output] for buffer in buffers.values())
    return limit, [stream.decode(errors="replace") for stream in streams]


def _drain(
    selector: selectors.BaseSelector, buffers: dict[IO[bytes], bytearray], limit: int
) -> bool:
    """Move what is waiting in the pipes to the buffers; return whether it is too much."""
    for stream, buffer in buffers.items():
        while len(buffer) <= limit:
            try:
                chunk = os.read(stream.fileno(), 1 << 16)
            except BlockingIOError:
                break
            if not chunk:
                with contextlib.suppress(KeyError):
                    selector.unregister(stream)
                break
            buffer.extend(chunk)
    return any(len(buffer) > limit for buffer in buffers.values())


def _memory(pid: int) -> int:
    """Return the resident bytes of a process and its descendants."""
    total = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def kill_group(pid: int) -> None:
    """End a process group, if there (still) is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class Child:
    """A program in a session of its own, until it ends or `end` is called.

    `output` is the file descriptor that it writes to (default: nowhere), `errors` that of its
    errors (default: the same); `pass_fds` are the descriptors of ours that it inherits besides.
    Raises OSError where it cannot be started.
    """

    def __init__(
        self,
        argv: Command,
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        output: int = subprocess.DEVNULL,
        errors: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.popen = subprocess.Popen(
            argv,
            cwd=cwd,
            env=environment() if env is None else env,
            stdin=stdin,
            stdout=output,
            stderr=output if errors is None else errors,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self._groups: set[int] = set()
        self.adopt(self.popen.pid)

    @property
    def ended(self) -> bool:
        """Whether it has gone, or is about to."""
        # Killed, it can be waited for only when the last of its threads is gone.
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.popen.pid).status() == psutil.STATUS_ZOMBIE
        return True

    def wait(self, seconds: float) -> int | None:
        """Return its exit code, or minus the signal that ended it; None after so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.popen.wait(max(seconds, 0))
        return None

    def adopt(self, group: int) -> None:
        """End this process group, too, when the child ends: a program that it debugs."""
        self._groups.add(group)
        _live.add(group)

    def disown(self, group: int) -> None:
        """Take back `adopt`: that group has ended."""
        self._groups.discard(group)
        _live.discard(group)

    def family(self) -> list[psutil.Process]:
        """Return its descendants that are there, in whatever session."""
        with contextlib.suppress(psutil.Error):
            if self.popen.poll() is None:
                return psutil.Process(self.popen.pid).children(recursive=True)
        return []

    def end(self, family: Sequence[psutil.Process] = ()) -> None:
        """Kill it with its descendants, and what is left of the `family` that it had before."""
        with self.popen:  # which closes its pipes, and waits
            if self.popen.poll() is None:
                end_family(self.popen.pid)
            for member in family:
                with contextlib.suppress(psutil.Error):
                    member.kill()
            for group in tuple(self._groups):
                kill_group(group)
                self.disown(group)


def end_all() -> None:
    """End every child that any thread of this process has, with its family (after Ctrl-C)."""
    for group in _live.copy():
        end_family(group)
        kill_group(group)


def end_family(pid: int) -> None:
    """End a process and its descendants, whatever groups they have made.

    All are frozen first, lest one starts another meanwhile: a debugger's server does, and
    lets go of a program whose launch is under way.
    """
    family: set[psutil.Process] = set()
    with contextlib.suppress(psutil.Error):
        head = psutil.Process(pid)
        while new := {head, *head.children(recursive=True)} - family:
            family |= new
            for process in new:
                with contextlib.suppress(psutil.Error):
                    process.suspend()
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.kill()


@contextlib.contextmanager
def handling(handlers: Mapping[int, Any]) -> Iterator[None]:
    """Have signals, by number, handled so in a block: in the main thread, for no other can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # nohup ignores SIGHUP for what it starts, and so it stays.
    kept_off = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if not (number == signal.SIGHUP and kept_off)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def heed_interrupts() -> None:
    """Let SIGINT end this program, and what it starts, even where its parent ignores SIGINT.

    A job that a script starts in the background inherits that, and so would all our children.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
