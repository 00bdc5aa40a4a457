"""A program's system calls, by strace, and what they do to its raw profile."""

from __future__ import annotations

import itertools
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nbsupport.audit.machine_code import MESSAGE
from nbsupport.base import process
from nbsupport.base.errors import LabError, MissingError, first_line, from_os
from nbsupport.base.settings import PROGRAM, Limits

if TYPE_CHECKING:
    from nbsupport.base.process import Command

#: With seccomp, what is not traced (a million reads) costs nothing.
_STRACE = ("--seccomp-bpf", "-f", "-ttt", "-y", "-s64", "-q", "-e")
_TRACED = "%file,%process,%memory,close,fcntl,flock,ftruncate,write,writev,pwrite64"
_ALLOW = "allow ptrace (kernel.yama.ptrace_scope=1, docker --cap-add=SYS_PTRACE)"
_LINE = re.compile(r"(\d{1,9}) +(\d{1,12}\.\d{1,9}) (.*)")
_EVENT = re.compile(r"(\w+)\((.*)\) += (.*)|--- (SIG\w+) (.*) ---|\+{3} (\w+) \w+ (\w+)")
_NAMED = re.compile(r'(?:AT_FDCWD(?:<.*?>)?, )?"(?P<path>(?:[^"\\]|\\.)*)"(?:\.{3})?(?:, )?')
_HELD = re.compile(r"\b(\d+|AT_FDCWD)<(?P<path>.*?)>")
_MOST = 10**6
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|(.))")
#: What happens to a raw profile: when, what, by which call, and if with a merge pool (%m) only,
#: without one only, or always (None). Source: truncateCurrentFile, openFileForMerging, writeFile
#: (InstrProfilingFile.c), lprofLockFd (InstrProfilingUtil.c).
_STEPS = (
    ("start-up", "created", r"open(at)?\(.*O_TRUNC", False),
    ("writing", "opened", r"open(at)?\(.*O_(APPEND|RDWR)", None),
    ("writing", "locked", r"fcntl\(.*F_SETLK|flock\(", True),
    ("writing", "truncated", r"ftruncate\(", True),
    ("writing", "written", r"p?writev?(64)?\(", None),
    ("writing", "closed", r"close\(", None),
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: `time` in seconds since the first, `path` of its file or descriptor ("": none).

    `arguments` (bounded) are without that path, `size` is the bytes it wrote. A signal is a row
    too (`name` SIGSEGV), and so is the end of a process: `exited` or `killed`, `result` by what.
    """

    time: float
    thread: int
    name: str
    path: str
    arguments: str
    result: str
    size: int | None


@dataclass(frozen=True)
class Calls:
    """Calls in order of time; `note` says why none, or not all. `done` is None if nothing ran."""

    rows: tuple[Call, ...]
    tool: str
    note: str
    done: process.Finished | None


@dataclass(frozen=True)
class ProfileStep:
    """What happens to a raw profile in a healthy run, and whether it was `seen` in this one."""

    moment: str
    what: str
    seen: bool
    detail: str


def trace(
    argv: Command, *, cwd: Path, env: Mapping[str, str] | None = None, limits: Limits = PROGRAM
) -> Calls:
    """Run a program under strace, its standard input empty; return its calls, a million at most.

    A run of its own: a debugger excludes a tracer. What a limit ends keeps its calls; without
    strace, or leave to trace, there are none. Raises `LabError` when the program cannot start.
    """
    if shutil.which(argv[0]) is None:
        raise MissingError(str(argv[0]), "no such program", "check the path, or install it")
    name = "strace"
    if shutil.which(name) is None:
        return Calls((), name, f"no system calls: {name} is not here; install it", None)
    try:
        with tempfile.NamedTemporaryFile("r", errors="replace", prefix="pgo-lab-") as out:
            tracer = [name, *_STRACE, _TRACED, "-o", out.name]
            done = process.run([*tracer, *argv], cwd=cwd, env=env, limits=limits)
            # A call that another thread interrupts is said only when it returns.
            calls = itertools.islice(_parse(out), _MOST)
            rows = tuple(sorted(calls, key=lambda call: call.time))
        name += process.run([name, "-V"], cwd=cwd).stdout.partition("version")[2][:4]
    except OSError as error:
        raise from_os(f"tracing {argv[0]}", error) from error
    if all(row.name == "exited" for row in rows):  # the tracer's child, not yet the program
        return Calls((), name, f"no system calls: {first_line(done.stderr)}; {_ALLOW}", done)
    if rows[0].name == "execve" and rows[0].result.startswith("-1"):
        raise LabError(str(argv[0]), f"cannot start it ({rows[0].result[3:]})", "check the path")
    note = "only the first million calls" if len(rows) == _MOST else ""
    return Calls(rows, name, f"stopped at the {done.limit} limit" if done.limit else note, done)


def _parse(lines: Iterable[str]) -> Iterator[Call]:
    """Yield the calls of `strace -f -ttt -y` (its manual page describes the lines)."""
    begun: dict[str, tuple[str, str]] = {}
    start: float | None = None
    for thread, time, line in (match.groups() for line in lines if (match := _LINE.match(line))):
        start = float(time) if start is None else start
        when, text = time, line
        if text.endswith("<unfinished ...>"):
            begun[thread] = time, text.removesuffix("<unfinished ...>")
        elif (resumed := re.match(r"<\.{3} \w+ resumed>", text)) and thread in begun:
            when, before = begun.pop(thread)
            text = before + text[resumed.end() :]
        if event := _EVENT.match(text):
            yield _call(event, int(thread), float(when) - start)


def _call(event: re.Match[str], thread: int, time: float) -> Call:
    name, arguments, result, signal, info, end, by = (part or "" for part in event.groups())
    named = _NAMED.match(arguments)
    # What open returns is the whole path.
    shown = _HELD.match(result) or named or _HELD.search(arguments)
    content = shown["path"].encode() if shown else b""
    path = _ESCAPE.sub(lambda m: m[2] or bytes([int(m[1], 8) & 255]), content)
    rest = info or _HELD.sub(r"\1", arguments[named.end() if named else 0 :])[:200]
    result = _HELD.sub(r"\1", result or by)[:200]
    size = int(result) if "write" in name and re.fullmatch(r"\d{1,18}", result) else None
    name = name or signal or end
    return Call(time, thread, name, path.decode(errors="replace"), rest, result, size)


def profile_story(calls: Calls, profile: str) -> tuple[ProfileStep, ...]:
    """Return each step of a healthy run, and if this one has it; `profile` is LLVM_PROFILE_FILE.

    Only its %m tells of a merge pool if that was never opened. Folders are not compared.
    """
    first, *rest = (re.escape(part) for part in re.split(r"%\d*[a-z]", Path(profile).name))
    name = re.compile(f"{first}.*{rest[-1]}" if rest else first)
    rows = [row for row in calls.rows if name.fullmatch(row.path.rpartition("/")[2])]
    pool = re.search(r"%\d*m", profile) or any("F_SETLK" in row.arguments for row in rows)
    steps = []
    for moment, what, by, pooled in _STEPS:
        hits = [row for row in rows if re.match(by, f"{row.name}({row.arguments}")]
        if what == "opened":  # at start-up the file was closed, too
            rows = rows[rows.index(hits[0]) :] if hits else []
        good = [row for row in hits if not row.result.startswith("-1")]
        detail = f"failed: {hits[0].result[3:]}" if hits and not good else ""
        if what == "written" and good:
            detail = f"{sum(row.size or 0 for row in good)} bytes"
        if hits or pooled in (None, bool(pool)):
            steps.append(ProfileStep(moment, what, bool(good), detail))
    mine = [row for row in calls.rows if row.thread == calls.rows[0].thread]
    end = next((row for row in reversed(mine) if row.name in ("exited", "killed")), None)
    if end:
        how = f"exit code {end.result}" if end.name == "exited" else f"killed by {end.result}"
        return (*steps, ProfileStep("end", "exited", end.name == "exited", how))
    return (*steps, ProfileStep("end", "exited", False, calls.note))


def why_empty(calls: Calls, profile: str) -> str:
    """Return why a raw profile is empty or missing, from the calls alone; "" when it is neither.

    Only until LLVM 17 by a crash as it is written: later runtimes seek, which flushes (measured).
    """
    steps = {step.what: step for step in profile_story(calls, profile)}
    if steps["written"].seen or not calls.rows:
        return "" if calls.rows else calls.note
    reasons = [f"{s.what}: {s.detail}" for s in steps.values() if s.detail.startswith("failed")]
    messages = (re.search(f'{MESSAGE.decode()}[^"]*', row.arguments) for row in calls.rows)
    reasons += [message[0] for message in messages if message]
    why = reasons[0] if reasons else steps["exited"].detail
    return f"{why}, {'while' if steps['opened'].seen else 'before'} the profile was written"
