"""Crash reports as people have them, read into `Crash`: pasted text, macOS reports, core files.

One reader takes the text of LLDB, of gdb and of macOS (.crash). A report in JSON (.ips) is
first written out as such text; a core file is given to a debugger, whose text is then read.
The macOS formats are from Apple's documentation ("Interpreting the JSON format of a crash
report", "Examining the fields in a crash report"): untested with a report of a real Mac.
"""

import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from nbsupport.base import process, settings
from nbsupport.base.errors import LabError, first_line
from nbsupport.crash.address import fault_address, is_canonical
from nbsupport.crash.crash import SI_KERNEL, Crash, Frame, locate
from nbsupport.crash.inside_lldb.protocol import FATAL, Siginfo
from nbsupport.toolchains import discovery

#: Of a longer text, such as a log, the end is read.
MOST_TEXT = 16 * settings.MIB
_MOST_FRAMES, _MOST_ROWS = 64, 4096
#: For who gave something else.
GIVE = "give a crash report (.ips, .crash), a core file, or what a debugger or program printed"
_LONG_LINE = re.compile(r"^([^\n]{1000})[^\n]+", re.M)
#: Colours, and what a log puts before each line.
_NOISE = re.compile(r"\x1b\[[\d;]*m|^\d{4}-\d\d-\d\dT[\d:.]+Z ", re.M)
_WHY = r"(?:stop reason = (?:signal )?|(?:received|terminated with) signal |^Exception Type:[ \t]*)"
_STOP = rf"{_WHY}(?:(EXC_\w+)(?:[ \t]+\((SIG[A-Z]+)\))?|({'|'.join(FATAL)}))"
#: As in inside_lldb/agent.py, by name. Source: <mach/exception_types.h>.
_EXCEPTIONS = {"ACCESS": "SIGSEGV", "INSTRUCTION": "SIGILL", "ARITHMETIC": "SIGFPE"}
_EXCEPTIONS |= {"BREAKPOINT": "SIGTRAP", "CRASH": "SIGABRT"}
_HEX = r"0x([0-9a-f]{1,16})\b"
_ADDRESS = re.compile(rf"(?:fault address[:=] ?|code=\d+, address=|KERN_\w+ at |si_addr = ){_HEX}")
#: A general protection fault (trap 13 of x86), which does not carry the address.
_HIDDEN = re.compile(r"SI_KERNEL|si_code = 128\b|EXC_I386_GPFLT|UNKNOWN_0xD|\(code=13,")
_PC = r"0x(?P<pc>[0-9a-f]{1,16})"
_LLDB_FRAME = rf"^[ \t>*]*frame #(?P<n>\d+): {_PC}(?: (?P<module>[^`\n]*)`(?P<name>.+))?"
_GDB_FRAME = rf"^[ \t>]*(?=#\d|0x[0-9a-f]+ in )(?:#(?P<n>\d+)[ \t]+)?(?:{_PC} in )?"
_GDB_FRAME += r"(?P<name>\S.*?) \((?:.* from (?P<module>\S+)$)?"
_MAC_FRAME = rf"^[ \t>]*(?P<n>\d+)[ \t]+(?P<module>\S.*?)[ \t]+{_PC}[ \t]+(?P<name>.+)"
_MAC_THREAD = re.compile(r"^[ \t>]*Thread \d+ Crashed:.*\n((?:.*\S.*\n){0,99})", re.M)
_NAMELESS = re.compile(r"___lldb_unnamed|\?\?|0x|<")
_GENERAL = r"(?<![\w%])(r(?:[abcd]x|[sd]i|[bsi]p|\d+)|x\d+|fp|lr|sp|pc|far)"
_REGISTER = re.compile(rf"{_GENERAL}(?: += |: |[ \t]+){_HEX}")
_PLACE = rf"^[ \t]*[-=]>[ \t]*{_HEX}(?: <(?:.*\+)?(\d+)>)?"
_INSTRUCTION = re.compile(rf"{_PLACE}:[ \t]*(\S.{{0,200}})", re.M)
_SAFE = "settings set target.load-script-from-symbol-file false"
_LLDB = ("bt 64", "register read", "disassemble --pc --count 1")
_GDB = ("bt 64", "info registers", "x/i $pc", "print $_siginfo")


def read(path: Path, binary: Path | None = None) -> tuple[str, Crash | None]:
    """Read a report, a pasted text or a core file (that with the symbols of `binary`).

    Raises `LabError` for what is none of them, and where no debugger reads the core file.
    """
    what = f"explaining {path}"
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
    if b"\0" in data or not data.strip():
        raise LabError(what, "not text" if data.strip() else "it is empty", GIVE)
    return _read(_from_json(data.decode("utf-8-sig", errors="replace").lstrip(), what))


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


def _read(raw: str) -> tuple[str, Crash | None]:
    """Read text, from the fatal stop on: what stopped before was a breakpoint."""
    text = _NOISE.sub("", _LONG_LINE.sub(r"\1", raw.replace("\r", "") + "\n"))
    stop = re.search(_STOP, text, re.M)
    tail = text[stop.start() :] if stop else text
    frames, place = _frames(tail)
    if not (stop or frames):
        return text, None
    exception, signal, plain = stop.groups("") if stop else ("", "", "")
    registers: dict[str, int] = {}
    for match in islice(_REGISTER.finditer(tail), _MOST_ROWS):
        registers.setdefault(match[1], int(match[2], 16))
    pc = registers.get("rip", registers.get("pc", place))
    lines = (match for match in _INSTRUCTION.finditer(tail) if pc in (None, int(match[1], 16)))
    line = next(lines, None)
    instruction = " ".join(line[3].split()) if line else ""
    instruction = re.sub(" # (?!0x[0-9a-f]+(?: |$)).*", "", instruction)
    if frames and line and line[2] and frames[0].offset is None:
        frames[0] = replace(frames[0], offset=int(line[2]))
    # rip counts from the next instruction, which only a resolved operand knows.
    sound = {name: value for name, value in registers.items() if name != "rip"}
    signal = signal or plain or _EXCEPTIONS.get(exception.rpartition("_")[2], "")
    kernel = _siginfo(tail, instruction, sound)
    fault = locate(signal or "SIGSEGV", kernel, instruction, sound, pc)
    return text, Crash(signal, tuple(frames), instruction or None, registers, *fault)


def _siginfo(text: str, instruction: str, registers: dict[str, int]) -> Siginfo | None:
    """Return what the kernel said of the fault; None where nothing tells it."""
    match = _ADDRESS.search(text)
    far = registers.get("far")
    address = (int(match[1], 16) if match else 0) or far or 0
    shown = bool(match) or far is not None
    # LLDB before 20 prints 0 for an address that the processor does not tell.
    untold = shown and not address and not is_canonical(fault_address(instruction, registers) or 0)
    if untold or _HIDDEN.search(text):
        return {"code": SI_KERNEL, "address": address}
    return {"code": 1, "address": address} if shown else None


def _frames(text: str) -> tuple[list[Frame], int | None]:
    """Return the longest backtrace that begins as the first does, and where it does."""
    crashed = _MAC_THREAD.search(text)
    texts = (text, text, crashed[1] if crashed else "")
    traces: list[list[re.Match[str]]] = []
    for pattern, part in zip((_LLDB_FRAME, _GDB_FRAME, _MAC_FRAME), texts, strict=True):
        for match in islice(re.finditer(pattern, part, re.M), 0 if traces else _MOST_ROWS):
            traces += [[]] if not traces or not int(match["n"] or 0) else []
            traces[-1].append(match)
    rows = max((t for t in traces if t[0]["pc"] == traces[0][0]["pc"]), key=len, default=[])
    frames, places = list[Frame](), list[int | None]()
    for n, row in enumerate(rows[:_MOST_FRAMES]):
        name, place = row["name"] or "", int(row["pc"], 16) if row["pc"] else None
        function, offset = re.split(r" \+ \d|\(| at | \[", name)[0], re.search(r" \+ (\d+)", name)
        # The frame of an inlined function has the true place of the one it is in, the next.
        if n and (place is None or "[inlined]" in (rows[n - 1]["name"] or "")):
            offset, place, _ = None, places.pop(), frames.pop()
        if _NAMELESS.match(function):
            function = ""
        module = PurePath(row["module"] or "").name
        frames.append(Frame(function, int(offset[1]) if offset else None, module))
        places.append(place)
    return frames, places[0] if places else None
