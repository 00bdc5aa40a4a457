"""Crash reports as people have them, read into `Crash`: pasted text, macOS reports, core files.

The shapes of backtraces are data (`shapes`); `backtrace` finds them in lines. A report in JSON
(.ips) is first written out as such text; a core file is given to a debugger, whose text is then
read. What mail, Markdown and logs put around lines is left out. The .ips format is from Apple's
documentation ("Interpreting the JSON format of a crash report"): untested with one of a real Mac.
"""

import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from nbsupport.base import process, settings
from nbsupport.base.errors import LabError, first_line
from nbsupport.crash import backtrace
from nbsupport.crash.address import fault_address, is_canonical
from nbsupport.crash.backtrace import Backtrace, Fault, FrameRow
from nbsupport.crash.crash import SI_KERNEL, Crash, Frame, locate
from nbsupport.crash.inside_lldb.protocol import Siginfo
from nbsupport.toolchains import discovery

#: Of a longer text, such as a log, the end is read.
MOST_TEXT = 16 * settings.MIB
_MOST_FRAMES, _MOST_ROWS = 64, 4096
#: Frames that a judgement rests on, of those that were read.
_RESTS = 8
#: For who gave something else.
GIVE = "give a crash report (.ips, .crash), a core file, or what a debugger or program printed"
_LONG_LINE = re.compile(r"^([^\n]{1000})[^\n]+", re.M)
_COLOURS = re.compile(r"\x1b\[[\d;?]*[A-Za-z]|\x1b\][^\x07\n]*\x07")
#: What is put before a line: quote marks, times of CI, containers and their builds, logs of the
#: kernel and of Android, the journal, a debugger's prompt.
_PREFIX = re.compile(
    r"^(?:(?:> ?)+|\[?\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?\]? (?:\[\w+\] |\d\d[OE]\+? ?"
    r"|std(?:out|err) [FP] )?|\| |\[\d\d:\d\d:\d\d\] |[\w.-]+ +\| |\[ *(?:\+?\d+ ?ms|\d+\.\d+)?\] "
    r"|#\d+ \d+\.\d+ |(?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d\.\d+ +\d+ +\d+ [VDIWEFA] \S+ *: ?"
    r"|[VDIWEFA]/\w+ *\( *\d+\): ?|\d+-\d+/\S+ [VDIWEFA]/[\w.]+: ?"
    r"|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ (?:kernel|[\w./-]+\[\d+\]): (?:\[ *\d+\.\d+\] )?"
    r"|\(gdb\) |\(lldb\) )+",
    re.M,
)
#: The number of a test, which ctest -V puts before each line of it: a backtrace's numbers differ.
_NUMBERED = re.compile(r"^(\d+): .*\n\1: .*\n\1: ", re.M)
_GENERAL = r"(?<![\w%])(r(?:[abcd]x|[sd]i|[bsi]p|\d+)|x\d+|fp|lr|sp|pc|far)"
_REGISTER = re.compile(
    rf"{_GENERAL}(?:[ \t]*[=:][ \t]*|[ \t]+)"
    r"(?:0x([0-9a-fA-F]{1,16})|([0-9a-f]{16}|[0-9a-f]{8}))\b"
)
_PLACE = r"^[ \t]*[-=]>[ \t]*0x([0-9a-f]{1,16})\b(?: <(?:.*\+)?(\d+)>)?"
_INSTRUCTION = re.compile(rf"{_PLACE}:[ \t]*(\S.{{0,200}})", re.M)
_IS_HANDLER = re.compile(r"<signal handler called>|_sigtramp$|__restore_rt$")
#: What a handler of signals is in when a debugger sees it, above the crash that it is called for.
_ENDS = re.compile(
    r"(?:__)?(?:pthread_kill\w*|raise|abort|t?g?kill|wait\w*|nanosleep|pause|poll|select|read|syscall"
    r"|sigsuspend|\w*_exit|futex\w*)(?:@.*)?$|__GI_|__libc_"
)
_SAFE = "settings set target.load-script-from-symbol-file false"
_LLDB = ("bt 64", "register read", "disassemble --pc --count 1")
_GDB = ("bt 64", "info registers", "x/i $pc", "print $_siginfo")


@dataclass(frozen=True)
class CrashReport:
    """A text, and the crash that it tells of; None where it tells of none.

    `lines` are without what surrounds them. `fault` is what it tells of the fault; `rests` the
    indices of the lines that say so. `functions` are those on the stack, with those that are
    inlined, `others` those of other threads; `place` is the innermost pc, `depth` the number of
    the outermost frame that is told.
    """

    lines: tuple[str, ...]
    crash: Crash | None
    fault: Fault = backtrace.NOTHING
    rests: tuple[int, ...] = ()
    functions: tuple[str, ...] = ()
    others: tuple[tuple[str, ...], ...] = ()
    place: int | None = None
    depth: int = 0


def read(path: Path, binary: Path | None = None) -> CrashReport:
    """Read a report, a pasted text or a core file (that with the symbols of `binary`).

    `path` may be `-`, which is standard input. Raises `LabError` for what is none of them, and
    where no debugger reads the core file.
    """
    what = f"explaining {path}"
    if str(path) == "-":
        return _read(_from_json(_text(sys.stdin.buffer.read(MOST_TEXT), what), what))
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not wait
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise LabError(what, "not a regular file", GIVE)
            head = file.read(20)
            # Source: ET_CORE in elf.h, of either byte order; MH_CORE in Apple's mach-o/loader.h.
            elf, mac = head[:4] == b"\x7fELF", head[1:4] == b"\xfa\xed\xfe"
            core = (elf and 4 in head[16:18]) or (mac and head[12:13] == b"\4")
            if core or head[:4] == b"MDMP":  # a minidump, which LLDB saves on Linux
                return _read(_debugged(path, binary, what))
            file.seek(max(0, status.st_size - MOST_TEXT))
            data = file.read(MOST_TEXT)
    except (OSError, ValueError) as error:
        raise LabError(what, getattr(error, "strerror", None) or str(error), GIVE) from error
    return _read(_from_json(_text(data, what), what))


def _text(data: bytes, what: str) -> str:
    """Decode a text: UTF-8, or UTF-16, as Windows' shells write it."""
    if not data.strip():
        raise LabError(what, "it is empty", GIVE)
    coding = "utf-8-sig"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        coding = "utf-16"
    elif data[1:40:2].count(0) > 15:
        coding = "utf-16-le"
    text = data.decode(coding, errors="replace").lstrip()
    if "\0" in text:
        raise LabError(what, "not text", GIVE)
    return text


def _debugged(core: Path, binary: Path | None, what: str) -> str:
    """Return what LLDB, or gdb, says of a core file."""
    program = [str(binary.absolute())] if binary else []
    lldb, gdb = discovery.find_lldb(), shutil.which("gdb")
    if not (lldb or gdb):
        raise LabError(what, "a core file, and no debugger here", "install LLDB or gdb")
    if lldb:
        options = ["--no-lldbinit", "--batch", "-O", _SAFE]
        options += [word for command in _LLDB for word in ("-o", command)]
    else:
        options = ["-nx", "--batch", *(f"-ex={command}" for command in _GDB)]
    argv = [str(lldb or gdb), *options, "--core", str(core.absolute()), *program]
    # No symbols from the network; what this Python is told is not for LLDB's.
    env = {k: v for k, v in process.environment().items() if not k.startswith(("PY", "DEBUGINFOD"))}
    reply = process.run(argv, cwd=Path("/"), env=env, limits=settings.COMPILER)
    if not re.search(r"^[ \t*]*(?:frame )?#0", reply.stdout, re.M):
        raise LabError(what, f"the debugger says: {first_line(reply.stderr)}", GIVE)
    return reply.stdout


def _from_json(text: str, what: str) -> str:
    """Return an .ips report as the text of a .crash, any other text as it is."""
    if text[:1] != "{" or not re.search('"(?:bug_type|usedImages)"', text):
        return text
    try:
        body, end = json.JSONDecoder().raw_decode(text)
        if "threads" not in body:  # a line about the report comes first
            body = json.loads(text[end:])
        return "\n".join(_written_out(body))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        why = f"a macOS report that is cut off, or not of a crash ({type(error).__name__})"
        raise LabError(what, why, "give the whole .ips file") from error


def _written_out(body: dict[str, Any]) -> Iterator[str]:
    exception, images = body["exception"], body["usedImages"]
    number = body.get("faultingThread", 0)
    thread = body["threads"][number]
    state = thread.get("threadState", {})
    yield f"Exception Type: {exception['type']} ({exception.get('signal', '')})"
    yield f"Exception Codes: {exception.get('subtype') or exception.get('codes')}"
    yield from (str(body[key]) for key in ("vmRegionInfo", "vmregioninfo", "asi") if key in body)
    yield f"Thread {number} Crashed:"
    for n, frame in enumerate(thread["frames"][:_MOST_FRAMES]):
        image = images[frame["imageIndex"]]
        name = f"{frame.get('symbol', '0x')} + {frame.get('symbolLocation', frame['imageOffset'])}"
        name += " [inlined]" if frame.get("inline") else ""
        yield f"{n} {image.get('name', '?')} {image['base'] + frame['imageOffset']:#x} {name}"
    yield ""
    for name, value in ({f"x{n}": v for n, v in enumerate(state.get("x", ()))} | state).items():
        if isinstance(value, dict) and "value" in value:
            yield f"{name}: {value['value']:#x}"


def _read(raw: str) -> CrashReport:
    """Read text: its first fatal stop, and the backtrace of the thread that had it."""
    text = _plain(raw)
    lines = tuple(line.strip() for line in text.split("\n"))
    traces, faults = backtrace.find(lines)
    fault, end = _first(faults, traces, len(lines))
    trace = _crashed(traces, fault)
    if not (fault or trace):
        return CrashReport(lines, None)
    if fault and trace and trace.handled and fault.signal == "SIGABRT":
        fault = replace(fault, signal="")  # so a handler ends: what it was called for is not told
    start = fault.lines[0] if fault else trace.rows[0].line if trace else 0
    is_frame = {row.line for trace in traces for row in trace.rows}
    tail = "\n".join(line for n, line in enumerate(lines[start:end], start) if n not in is_frame)
    registers: dict[str, int] = {}
    for match in islice(_REGISTER.finditer(tail), _MOST_ROWS):
        registers.setdefault(match[1], int((match[2] or match[3]).replace("`", ""), 16))
    rows = _below_handler(trace.rows) if trace else []
    frames, place = _frames(rows)
    fault = fault or backtrace.NOTHING
    pc = fault.pc if fault.pc is not None else registers.get("rip", registers.get("pc", place))
    matches = (match for match in _INSTRUCTION.finditer(tail) if pc in (None, int(match[1], 16)))
    line = next((match for match in matches if not match[3].startswith("Cannot access")), None)
    instruction = " ".join(line[3].split()) if line else ""
    instruction = re.sub(" # (?!0x[0-9a-f]+(?: |$)).*", "", instruction)
    if frames and line and line[2] and frames[0].offset is None:
        frames[0] = replace(frames[0], offset=int(line[2]))
    # rip counts from the next instruction, which only a resolved operand knows.
    sound = {name: value for name, value in registers.items() if name != "rip"}
    kernel = _siginfo(fault, instruction, sound)
    address = locate(fault.signal or "SIGSEGV", kernel, instruction, sound, pc)
    if fault.sp is not None:
        registers.setdefault("rsp", fault.sp)
    crash = Crash(fault.signal, tuple(frames), instruction or None, registers, *address)
    names = ((row.inner, row.frame.function) for row in rows[:_MOST_FRAMES])
    functions = tuple(name for pair in names for name in (pair if pair[0] else pair[1:]))
    others = tuple(
        tuple(row.frame.function for row in other.rows[:_MOST_FRAMES])
        for other in traces[:_MOST_FRAMES]
        if trace and (other.thread, other.rows[0].frame) != (trace.thread, trace.rows[0].frame)
    )
    rests = sorted({*fault.lines, *(row.line for row in rows[:_RESTS])})
    depth = max((row.number or 0 for row in rows), default=0)
    return CrashReport(lines, crash, fault, tuple(rests), functions, others, pc, depth)


def _plain(raw: str) -> str:
    """Return a text without what terminals, mail, Markdown and logs put around its lines."""
    text = raw.replace("\r\n", "\n") + "\n"
    if "\r" in text:  # within a line: what stands before it is written over
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    if "frame={" in text:  # GDB/MI: a line for each frame, and the console's as they are meant
        text = re.sub(r'(?m)^.*?~"(.*?)(?:\\n)?"$', r"\1", text.replace("frame={", "\nframe={"))
    if number := _NUMBERED.search(text):
        text = re.sub(rf"(?m)^{number[1]}: ?", "", text)
    text = _COLOURS.sub("", _LONG_LINE.sub(r"\1", text))
    return _PREFIX.sub("", text).removesuffix("\n")


def _first(
    faults: Sequence[Fault], traces: Sequence[Backtrace], end: int
) -> tuple[Fault | None, int]:
    """Return the first fault, and where what is told of it ends: before another one.

    A debugger says the same one again with each backtrace; that begins with the same frame.
    """

    def top(fault: Fault) -> tuple[int | None, str] | None:
        rows = next((trace.rows for trace in traces if trace.rows[0].line > fault.lines[0]), None)
        return (rows[0].place, rows[0].frame.function) if rows else None

    if not faults:
        return None, end
    fatal = [fault for fault in faults if fault.signal or not fault.finding]
    first, *others = fatal or faults  # valgrind goes on after what it finds, up to what is fatal
    for other in others:
        if other.signal not in ("", first.signal) or top(other) not in (None, top(first)):
            return first, other.lines[0]
        first = backtrace.merged(first, other)
    return first, end


def _crashed(traces: Sequence[Backtrace], fault: Fault | None) -> Backtrace | None:
    """Return the backtrace of the crash: of the thread that is said to be it, or the first one.

    Where it was printed again, below the first fatal stop, the longest counts.
    """
    if fault and (fault.other or fault.panicked or fault.signal or fault.shape):
        traces = [trace for trace in traces if trace.rows[-1].line > fault.lines[0]] or [*traces]
    if not traces:
        return None
    marked = [trace for trace in traces if trace.crashed]
    same = [trace for trace in traces if fault and fault.thread and trace.thread == fault.thread]
    # What a debugger shows of another thread is not of the crash.
    others = fault is not None and bool(fault.thread)
    untold = [trace for trace in traces if not (others and trace.thread)]
    if not (marked or same or untold):
        return None
    chosen = (marked or same or untold)[0]
    top = chosen.rows[0]
    alike = (
        trace
        for trace in traces
        if trace.shape == chosen.shape
        and (trace.rows[0].place, trace.rows[0].frame.function) == (top.place, top.frame.function)
    )
    return max(alike, key=lambda trace: len(trace.rows), default=chosen)


def _below_handler(rows: Sequence[FrameRow]) -> Sequence[FrameRow]:
    """Return the frames without a handler above the crash, which waits, or ends the program."""
    for n, row in enumerate(rows[:64]):
        if _IS_HANDLER.match(row.frame.function) and n and _ENDS.match(rows[0].frame.function):
            return rows[n + 1 :] or rows
    return rows


def _siginfo(fault: Fault, instruction: str, registers: dict[str, int]) -> Siginfo | None:
    """Return what the kernel said of the fault; None where nothing tells it."""
    address = fault.address if fault.address is not None else registers.get("far")
    # LLDB before 20 prints 0 for an address that the processor does not tell.
    untold = address == 0 and not is_canonical(fault_address(instruction, registers) or 0)
    if untold or (fault.hidden and not address):
        return {"code": SI_KERNEL, "address": address or 0}
    return None if address is None else {"code": 1, "address": address}


def _frames(rows: Sequence[FrameRow]) -> tuple[list[Frame], int | None]:
    """Return the frames of a backtrace, and where it begins.

    Of an inlined function and the one that it is in, the next, the latter stands for both; the
    place is told for the first.
    """
    frames, places = list[Frame](), list[int | None]()
    for n, row in enumerate(rows[:_MOST_FRAMES]):
        frame, place = row.frame, row.place
        if n and rows[n - 1].inlined and places[-1] is not None:
            frame, place = replace(frame, offset=None), places.pop()
            frames.pop()
        frames.append(frame)
        places.append(place)
    return frames, places[0] if places else None
