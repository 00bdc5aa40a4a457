"""A program's system calls, and what they do to its raw profile: by strace, on macOS by dtruss."""

from __future__ import annotations

import itertools
import re
import shutil
import sys
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
_ALLOW = "allow ptrace (kernel.yama.ptrace_scope=1, docker --cap-add=SYS_PTRACE); dtruss: be root"
_LINE = re.compile(r"(\d{1,9}) +(\d{1,12}\.\d{1,9}) (.*)")
_EVENT = re.compile(r"(\w+)\((.*)\) += (.*)|--- (SIG\w+) (.*) ---|\+{3} (\w+) \w+ (\w+)")
_NAMED = re.compile(r'(?:AT_FDCWD(?:<.*?>)?, )?"((?:[^"\\]|\\.)*)"(?:\.{3})?(?:, )?')
_HELD = re.compile(r"\b(\d+|AT_FDCWD)<(.*?)>")
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|(.))")
#: dtruss: process and thread, microseconds, call, arguments, result; as in public reports
#: (restic/rest-server issue 198, mawww/kakoune issue 1042), never run on a Mac by us.
_DTRUSS = re.compile(r"^[ \t]*(\d+)/\w+: +(\d+) (\w+?)(?:_nocancel)?\((.*)\)[ \t]+= (-?\w+) ", re.M)
_FLAGS = {0x2: "O_RDWR", 0x8: "O_APPEND", 0x400: "O_TRUNC"}  # source: <fcntl.h> of macOS
#: What happens to a raw profile: when, what, by which call (0x9: F_SETLKW of macOS), and if with
#: a merge pool (%m) only, without one only, or always (None). Source: truncateCurrentFile,
#: openFileForMerging, writeFile (InstrProfilingFile.c), lprofLockFd (InstrProfilingUtil.c).
_STEPS = (
    ("start-up", "created", r"open(at)?\(.*O_TRUNC", False),
    ("writing", "opened", r"open(at)?\(.*O_(APPEND|RDWR)", None),
    ("writing", "locked", r"fcntl\(.*(F_SETLK|0x9)|flock\(", True),
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
    """Run a program under a tracer, its standard input empty; return its calls, a million at most.

    A run of its own: a debugger excludes a tracer. What a limit ends keeps its calls; without a
    tracer, or leave to trace, there are none. Raises `LabError` when the program cannot start.
    """
    if shutil.which(argv[0]) is None:
        raise MissingError(str(argv[0]), "no such program", "check the path, or install it")
    name = tool = "dtruss" if sys.platform == "darwin" else "strace"
    if shutil.which(tool) is None:
        return Calls((), tool, f"no system calls: {tool} is not here; install it", None)
    try:
        with tempfile.NamedTemporaryFile("r", errors="replace", prefix="pgo-lab-") as out:
            how = [*_STRACE, _TRACED, "-o", out.name] if tool == "strace" else ["-f", "-d"]
            done = process.run([tool, *how, *argv], cwd=cwd, env=env, limits=limits)
            found = _parse(out if tool == "strace" else _from_dtruss(done.stderr))
            # A call that another thread interrupts is said only when it returns.
            rows = tuple(sorted(itertools.islice(found, 10**6), key=lambda row: row.time))
        name += process.run([tool, "-V"], cwd=cwd).stdout.partition("version")[2][:4]
    except OSError as error:
        raise from_os(f"tracing {argv[0]}", error) from error
    if all(row.name == "exited" for row in rows):  # the tracer's child, not yet the program
        return Calls((), name, f"no system calls: {first_line(done.stderr)}; {_ALLOW}", done)
    if rows[0].name == "execve" and rows[0].result.startswith("-1"):
        raise LabError(str(argv[0]), f"cannot start it ({rows[0].result[3:]})", "check the path")
    note = "only the first million calls" if len(rows) == 10**6 else ""
    return Calls(rows, name, f"stopped at the {done.limit} limit" if done.limit else note, done)


def _parse(lines: Iterable[str]) -> Iterator[Call]:
    """Yield the calls of `strace -f -ttt -y` (its manual page describes the lines)."""
    begun: dict[str, tuple[str, str]] = {}
    start: float | None = None
    for thread, time, text in (found.groups() for line in lines if (found := _LINE.match(line))):
        start, when, said = float(time) if start is None else start, time, text
        if said.endswith("<unfinished ...>"):
            begun[thread] = time, said.removesuffix("<unfinished ...>")
        elif (resumed := re.match(r"<\.{3} \w+ resumed>", said)) and thread in begun:
            when, before = begun.pop(thread)
            said = before + said[resumed.end() :]
        if event := _EVENT.match(said):
            call, arguments, result, signal, info, end, by = (part or "" for part in event.groups())
            named = _NAMED.match(arguments)
            # What open returns is the whole path.
            held = _HELD.match(result) or (None if named else _HELD.search(arguments))
            octal = (held[2] if held else named[1] if named else "").encode()
            path = _ESCAPE.sub(lambda m: m[2] or bytes([int(m[1], 8) & 255]), octal)
            rest = info or _HELD.sub(r"\1", arguments[named.end() if named else 0 :])[:200]
            result = _HELD.sub(r"\1", result or by)[:200]
            size = int(result) if "write" in call and re.fullmatch(r"\d{1,18}", result) else None
            who, where = (int(thread), call or signal or end), path.decode(errors="replace")
            yield Call(float(when) - start, *who, where, rest, result, size)


def _from_dtruss(text: str) -> Iterator[str]:
    """Yield the lines of `dtruss -f -d` as strace writes them; there are no signals."""
    held: dict[tuple[str, str], str] = {}
    for pid, time, name, arguments, result in _DTRUSS.findall(text):
        first, *rest = arguments.replace("\\0", "").split(", ")
        if name == "open" and rest and re.fullmatch("0x[0-9A-Fa-f]{1,8}", rest[0]):
            rest[0] = "|".join(word for bit, word in _FLAGS.items() if int(rest[0], 16) & bit)
            held[pid, f"0x{int(result[:9]):X}" if result.isdecimal() else ""] = first.strip('"')
        elif (pid, first) in held:
            first = f"0<{held[pid, first]}>"
        yield f"{pid} {int(time[:15]) / 1e6:f} {name}({', '.join([first, *rest])}) = {result}"


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
    seen = end is not None and end.name == "exited"
    how = f"{'exit code' if seen else 'killed by'} {end.result}" if end else calls.note
    return (*steps, ProfileStep("end", "exited", seen, how))


def why_empty(calls: Calls, profile: str) -> str:
    """Return why a raw profile is empty or missing, from the calls alone; "" when it is neither.

    Only until LLVM 17 by a crash as it is written: later runtimes seek, which flushes (measured).
    """
    steps = {step.what: step for step in profile_story(calls, profile)}
    if steps["written"].seen or not calls.rows:
        return "" if calls.rows else calls.note
    failed = [f"{s.what}: {s.detail}" for s in steps.values() if s.detail.startswith("failed")]
    said = (re.search(f'{MESSAGE.decode()}[^"]*', row.arguments) for row in calls.rows)
    why = [*failed, *(message[0] for message in said if message), steps["exited"].detail][0]
    return f"{why}, {'while' if steps['opened'].seen else 'before'} the profile was written"
