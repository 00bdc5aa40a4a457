"""What lines of a pasted text are frames of a backtrace, and which tell of the fault."""

import bisect
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from nbsupport.crash.crash import Frame
from nbsupport.crash.runtime_names import foreign_source
from nbsupport.crash.shapes import Matcher, load, matchers, ordered

#: Signals by what shapes call them; 10 is SIGBUS on a Mac alone. Source: <signal.h> of Linux and
#: macOS; <mach/exception_types.h>; ntstatus.h; Swift's docs/Backtracing.rst.
_SIGNALS = {
    "SIGSEGV": ("11", "SEGV", "segfault", "Segmentation fault", "EXC_BAD_ACCESS", "c0000005",
                "Access violation", "Access Violation", "EXCEPTION_ACCESS_VIOLATION_READ",
                "EXCEPTION_ACCESS_VIOLATION_WRITE", "Bad pointer dereference",
                "general protection fault", "c00000fd", "Stack overflow",
                "EXCEPTION_STACK_OVERFLOW"),
    "SIGBUS": ("7", "10", "BUS", "Bus error"),
    "SIGABRT": ("6", "ABRT", "Aborted", "EXC_CRASH", "Abgebrochen", "Abandon", "Abortado",
                "Annullato"),  # as glibc says it in German, French, Spanish, Italian
    "SIGILL": ("4", "ILL", "EXC_BAD_INSTRUCTION", "c000001d", "Illegal instruction",
               "invalid opcode"),
    "SIGFPE": ("8", "FPE", "EXC_ARITHMETIC", "divide error"),
    "SIGTRAP": ("5", "TRAP", "EXC_BREAKPOINT", "System trap", "int3"),
}  # fmt: skip
_NAMES = {word: name for name, words in _SIGNALS.items() for word in words}
#: What a debugger, or a linker's name for an inlined place, prints where it knows no name.
_NAMELESS = re.compile(
    r"___lldb_unnamed|\?\?|0x|n/a$|<(?:unknown|deduplicated_symbol|redacted|null|compiler-generated)"
    r"|\(?(?:Missing|unknown|stripped)\)?$|\d"
)
_HANDLER = "<signal handler called>"
#: What a program calls its own handler of a fatal signal, and what that calls.
_OF_A_HANDLER = re.compile(
    r"SIG|[Ss]ignal|[Ss]igsegv|sig_|[Cc]rash|[Bb]ack_?trace|[Ss]tack_?[Tt]race"
)
#: What prints a backtrace in a handler, as LLVM's tools and who copied theirs call it; and the
#: kernel's way back from there, below which stands what crashed.
_PRINTS = re.compile(
    r"(?:llvm::sys::|\(anonymous namespace\)::|_ZN4llvm3sys\d+|_ZL\d+)?"
    r"\w*(?:PrintStackTrace|RunSignalHandlers|SignalHandler|RunInterruptHandlers)\w*"
)
_WAY_BACK = re.compile(
    rf"_*sigtramp$|_*restore_rt$|__sigaction$|__kernel_rt_sigreturn$|{_HANDLER}$"
)
#: What may be a frame, a thread's heading, or tell of a fault, at little cost: most lines are not.
_MAY_FRAME = re.compile(
    r"[ >*]*(?:#\d|frame #|\d+[ :\t]|==\d|(?:[0-9a-f]{2} )?[0-9a-fA-F`]{8,17} |0x[0-9a-f]+ in "
    r"|#? ?[CVJjv]  \[|frame=\{level)"
    r"|[^\s()]+\(.{0,300}\) ?\[0x"
)
_MAY_HEAD = re.compile(
    r"[ >*]*\[?(?:Switching to thread |[Tt]hread |Stack trace of|pid: |Crashed|Fatal Exc|goroutine"
    r"|stack back|Current)"
)
#: Words of which one is in each line that tells of a fault; then the pattern that such a line has.
#: To look for words in the whole text is faster than for the pattern in each line.
_STOP_WORDS = (
    "SIG", "ignal", "anitizer", "tack ", "top reason", "atal ", "xception", "rash", "ault",
    "Access ", "permissions", "iolation", "*** ", "PC=0x", "anicked", "(): ", "ouble free",
    "orrupted", "ssertion", "borted", "=??", "ddress 0x", "EXC_", "] trap ", "si_", "SI_KERNEL",
    "high value", "erflowed", "ttempt to", "llegal instr", "siginfo", "us error",
    "terminate called", "bgebrochen", "Abandon", "bortado", "nnullato", "topped,", "nvalid ",
)  # fmt: skip
_MAY_STOP = re.compile(
    r"gnal:? (?:\(?\d|SIG)|SIG[A-Z]|Sanit|Stack (?:dump|overflow)|p reason|F(?:atal|ault) "
    r"|Exception"
    r"|Crash|Access |Bad p|General Prot|gfault at|fault (?:addr|ip)|violation|\*\*\*|PC=0x|ked at "
    r"|xpected signal|\(\): |^double f|^corrupted|Assertion|Aborted|=\?\?|Address 0x|EXC_|\] trap"
    r"|_addr|_code|erflowed"
    r"|(?:tion fault|us err\w+) \(|SI_KERNEL|gh value|Attempt to|Illegal instr|ginfo:|nate called"
    r"|Invalid (?:read|write)|invalid addr|Abgebro|Abandon|Abortado|Annullato"
)
#: Lines of each kind that are looked at, and frames of one backtrace that are read.
_MOST_LINES, _MOST_FRAMES = 50_000, 20_000
#: Lines from one frame to the next, where they have no numbers.
_GAP = 3


@dataclass(frozen=True)
class FrameRow:
    """A line that is a frame: its index, the frame, its number and place where they are told.

    `inlined`: it is inlined in the next frame; `inner` is its own name, where the frame has that of
    the function it is in. `outer`: it says itself that it is not the innermost.
    """

    line: int
    frame: Frame
    number: int | None
    place: int | None
    inlined: bool = False
    inner: str = ""
    outer: bool = False


@dataclass
class Backtrace:
    """The frames of one thread, innermost first.

    `crashed`: its heading says that it did. `handled`: a handler's own frames are left out.
    """

    shape: str
    rows: list[FrameRow]
    thread: str = ""
    crashed: bool = False
    handled: bool = False


@dataclass(frozen=True)
class Fault:
    """What a text tells of a fault; `lines` are the indices of those that do.

    `signal` is its name, "" where none is told. `address` is None where it is not told; `hidden`:
    the text says that it cannot be. `other` is a fault that a sanitizer found, `panicked` a panic,
    `finding` a wrong access that was only watched: what is told of its address comes next.
    """

    shape: str
    lines: tuple[int, ...]
    signal: str = ""
    address: int | None = None
    hidden: bool = False
    thread: str = ""
    pc: int | None = None
    sp: int | None = None
    other: str = ""
    panicked: bool = False
    finding: bool = False


#: Where nothing is told of a fault.
NOTHING = Fault("", ())


def find(lines: Sequence[str]) -> tuple[list[Backtrace], list[Fault]]:
    """Return the backtraces that are in lines of text, and the faults, in their order.

    A line has no colours and no prefix of a log. What tells of one fault in several lines (its
    signal, then its address) is one `Fault`. The frames of a handler are left out.
    """
    traces: list[Backtrace] = []
    faults: list[Fault] = []
    open_: set[str] = set()  # shapes whose frames may stand here
    count = 0
    stops = _lines_with(lines, _STOP_WORDS)
    for index, line in enumerate(lines):
        if len(line) < 7 and not open_:
            continue
        tells = index in stops and _MAY_STOP.search(line)
        if open_ or tells or _MAY_HEAD.match(line):
            _open(line, open_, traces)
        if tells:
            _add_fault(faults, index, line, traces)
        if count < _MOST_LINES and (open_ or _MAY_FRAME.match(line)):
            count += 1
            frame = _row(index, line, open_, traces[-1].shape if traces else "")
            if frame:
                _add_row(traces, *frame)
    return [_whole(_without_handler(_inner_first(trace))) for trace in traces if trace.rows], faults


def _lines_with(lines: Sequence[str], words: Sequence[str]) -> set[int]:
    """Return the indices of lines that have one of the words, at most so many for each."""
    text = "\n".join(lines)
    starts = [0, *itertools.accumulate(len(line) + 1 for line in lines)]
    indices = set[int]()
    for word in words:
        place = text.find(word)
        for _ in range(_MOST_LINES):
            if place < 0:
                break
            index = bisect.bisect_right(starts, place) - 1
            indices.add(index)
            place = text.find(word, starts[index + 1])
    return indices


def _open(line: str, open_: set[str], traces: list[Backtrace]) -> None:
    """Note a thread's heading, and between which lines frames of some shapes stand."""
    for matcher in matchers():
        if matcher.inside:
            if matcher.inside[0].match(line):
                open_.add(matcher.name)
            elif matcher.name in open_ and matcher.inside[1].match(line):
                open_.discard(matcher.name)
        if matcher.heading and (match := matcher.heading.match(line)):
            groups = match.groupdict()
            crashed = bool(groups.get("crashed")) or "id" not in groups
            traces.append(Backtrace(matcher.name, [], groups.get("id") or "", crashed))


def _row(
    index: int, line: str, open_: set[str], last: str
) -> tuple[Matcher, FrameRow, bool] | None:
    """Return the frame that a line is, and whether it is the innermost for certain."""
    for matcher in ordered(last):
        if matcher.inside and matcher.name not in open_:
            continue
        for pattern in matcher.frames:
            match = pattern.match(line)
            if match:
                groups = match.groupdict()
                number = groups.get("n")
                pc = groups.get("pc")
                frame = _frame(groups.get("name") or "", groups)
                if own := foreign_source(frame.function, line):
                    frame = replace(frame, function=f"{frame.function} ({own})")
                row = FrameRow(
                    index,
                    frame,
                    int(number, matcher.shape.base) if number else None,
                    int(pc, 16) if pc else None,
                    "[inlined]" in line,
                    _inner(line),
                    groups.get("first") == "by",
                )
                return matcher, row, groups.get("first") == "at"
    return None


def _inner(line: str) -> str:
    match = re.search(r"\[inlined\] ([\w:~<>]+)", line)
    return match[1] if match else ""


def _frame(name: str, groups: dict[str, Any]) -> Frame:
    """Return a frame: the name without arguments, its offset, the module without folder."""
    inside = re.search(r" ?\+ ?(0x[0-9a-f]+|\d+)(?=$| \(| \[| in )", name)
    digits = groups.get("offset") or (inside[1] if inside else "")
    offset = int(digits, 16 if digits.startswith("0x") else 10) if digits else None
    function = re.split(
        r" ?\+ ?(?:0x[0-9a-f]+|\d+)\b| \+$|(?<=[\w>])\(| \(| at | \[|@", name.strip()
    )[0]
    module = PurePath((groups.get("module") or "").replace("\\", "/")).name
    if name == _HANDLER:
        return Frame(_HANDLER, None, "")
    if _NAMELESS.match(function):
        return Frame("", None if function.startswith("0x") else offset, module)
    return Frame(function, offset, module)


def _add_row(traces: list[Backtrace], matcher: Matcher, row: FrameRow, first: bool) -> None:
    """Add a frame to the backtrace that it goes on with, or begin another with it."""
    headings = []
    while traces and not traces[-1].rows:
        headings.append(traces.pop())
    own = next((trace for trace in headings if trace.shape == matcher.name), None)
    if own:
        own.rows.append(row)  # below its heading
        traces.append(own)
        return
    last = traces[-1] if traces else None
    first = first or bool(headings)
    goes_on = last is not None and last.shape == matcher.name and not first
    if last and not first and _begins(last, row):
        last.shape, goes_on = matcher.name, True  # frames without a name look alike in many shapes
    if goes_on and last and row.number is None:
        goes_on = row.line - last.rows[-1].line <= _GAP
    if goes_on and last and row.number is not None:
        before = last.rows[-1].number
        goes_on = before is not None and row.number in (before, before + 1)
        # A number twice: an inlined frame, as macOS and Swift print it.
        if row.number == before and not (row.inlined or last.rows[-1].inlined):
            goes_on = row.number != 0 and row.place == last.rows[-1].place
    if last and last.shape == matcher.name and matcher.shape.last:
        goes_on = row.line - last.rows[-1].line <= 2 * _GAP
    if goes_on and last:
        if len(last.rows) < _MOST_FRAMES:
            last.rows.append(row)
    elif row.number in (None, 0) or last is None or last.shape != matcher.name:
        # A debugger says where a thread is as it goes there, and again in its backtrace.
        again = last is not None and row.place is not None and last.rows[0].place == row.place
        traces.append(Backtrace(matcher.name, [row], last.thread if last and again else ""))
    elif last and row.number is not None:  # some are missing, as where a log was cut
        last.rows.append(row)


def _begins(trace: Backtrace, row: FrameRow) -> bool:
    """Return whether a frame is the one below frames that all have no name."""
    last = trace.rows[-1] if trace.rows else row
    follows = row.number is not None and last.number == row.number - 1 and row.line == last.line + 1
    return follows and not any(before.frame.function for before in trace.rows)


def _add_fault(faults: list[Fault], index: int, line: str, traces: Sequence[Backtrace]) -> None:
    """Add what a line tells of a fault: of another, or more of the last one."""
    for matcher in matchers():
        for pattern in matcher.stops:
            match = pattern.match(line)
            if not match:
                continue
            groups = {key: text for key, text in match.groupdict().items() if text is not None}
            new = _fault(matcher.name, index, groups)
            begins = bool(
                groups.keys()
                & {"signal", "abort", "other", "overflow", "panicked", "handled", "finding"}
            )
            if not faults:
                faults.append(new)
                return
            old = faults[-1]
            # A handler's frames, and a debugger's, come after its signal: then another one is
            # another fault. Several lines in a row tell of the same.
            below = (trace.rows[0].line for trace in traces[-8:] if trace.rows)
            apart = any(line > old.lines[0] for line in below)
            another = old.signal and (apart or new.signal != old.signal)
            if begins and (another or (apart and old.finding and new.finding)):
                faults.append(new)
            elif begins and not old.signal:  # what came before was of another, or told of this one
                faults[-1] = replace(merged(new, old), lines=(index, old.lines[-1]))
            elif not (old.signal or old.finding):
                faults[-1] = merged(new, old)
            else:
                faults[-1] = merged(old, new)
            return


def _fault(shape: str, index: int, groups: dict[str, str]) -> Fault:
    signal = groups.get("posix") or groups.get("signal") or ""
    if "abort" in groups:
        signal = "SIGABRT"

    def number(name: str) -> int | None:
        return int(groups[name].replace("`", ""), 16) if name in groups else None

    overflow = "overflow" in groups or "overflow" in signal.lower() or signal == "c00000fd"
    other = groups.get("other") or ("stack-overflow" if overflow else "")
    return Fault(
        shape,
        (index,),
        _NAMES.get(signal, signal if signal.startswith("SIG") else ""),
        number("address"),
        "hidden" in groups,
        groups.get("id", ""),
        number("pc"),
        number("sp"),
        other,
        "panicked" in groups,
        "finding" in groups,
    )


def merged(old: Fault, new: Fault) -> Fault:
    """Return a fault with what another line says of it; what was said first counts."""
    return replace(
        old,
        lines=(*old.lines, *new.lines),
        signal=old.signal or new.signal,
        address=new.address if old.address is None else old.address,
        hidden=old.hidden or new.hidden,
        thread=old.thread or new.thread,
        pc=new.pc if old.pc is None else old.pc,
        sp=new.sp if old.sp is None else old.sp,
        other=old.other or new.other,
        panicked=old.panicked or new.panicked,
    )


def _inner_first(trace: Backtrace) -> Backtrace:
    """Return a backtrace with the innermost frame first, and with what is inlined told so."""
    shape, rows = load()[trace.shape], trace.rows
    if shape.last:
        rows = rows[::-1]
    if shape.inlines:
        rows = [*map(_inlined_in, rows, [*rows[1:], None])]
    return replace(trace, rows=rows)


def _inlined_in(row: FrameRow, outer: FrameRow | None) -> FrameRow:
    """Return a frame, inlined where the next one has no place: they share this one's."""
    handler = _HANDLER in (row.frame.function, outer.frame.function if outer else "")
    inlined = outer is not None and outer.place is None and not handler
    return replace(row, inlined=True) if inlined else row


def _without_handler(trace: Backtrace) -> Backtrace:
    """Return a backtrace that a handler printed without the handler's own frames.

    They end with the kernel's way back, a frame of the C library that mostly has no name.
    """
    matcher = next(matcher for matcher in matchers() if matcher.name == trace.shape)
    rows, after, handles = trace.rows, _below_printer(trace.rows), matcher.shape.within
    if after:
        return replace(trace, rows=rows[after:], handled=True)
    for n, row in enumerate(rows[:8]):
        function = row.frame.function
        if matcher.handler and matcher.handler.match(function):
            after = n + 1
        elif function and not _OF_A_HANDLER.search(function):
            break
        elif function:
            handles = True  # of a handler only if the way back follows
        elif _is_library(row.frame) and n and handles:
            after = n + 1
            break
    if not after or not rows[after:]:
        return trace
    return replace(trace, rows=rows[after:], handled=True)


def _below_printer(rows: Sequence[FrameRow]) -> int:
    """Return how many frames are of LLVM's handler of signals, in whatever shape; 0: none."""
    named = False
    for n, row in enumerate(rows[:12]):
        function = row.frame.function
        if _WAY_BACK.match(function):
            return n + 1 if named and rows[n + 1 :] else 0
        if function and not _PRINTS.match(function):
            return 0
        named = named or bool(function)
    return 0


def _is_library(frame: Frame) -> bool:
    return re.match(r"lib(?:c|pthread|system_platform)\b", frame.module) is not None


def _whole(trace: Backtrace) -> Backtrace:
    """Return a backtrace with a frame without a name where the text has no innermost one."""
    matcher = next(matcher for matcher in matchers() if matcher.name == trace.shape)
    first = trace.rows[0]
    hidden = matcher.hides and matcher.hides.match(first.frame.function)
    begins = first.number in (None, 0) and not first.outer
    if not hidden and (begins or trace.handled):
        return trace
    return replace(trace, rows=[FrameRow(first.line, Frame("", None, ""), None, None), *trace.rows])
