"""What is known of a crash report, in words: what the rules of an explanation judge by."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nbsupport.crash import runtime
from nbsupport.crash.address import is_canonical
from nbsupport.crash.crash import Crash
from nbsupport.crash.reports import CrashReport
from nbsupport.crash.runtime_names import functions
from nbsupport.profile import layout
from nbsupport.profile.layout import LAYOUTS

if TYPE_CHECKING:
    from nbsupport.audit.judge import Judgement

#: What ends a program by its own will.
_ABORT = re.compile(
    r"(?:GI_)?(?:abort|raise|kill|t?g?kill|pthread_kill\w*|libc_message|malloc_printerr)\b|.*terminate"
    r"|.*(?:assert|panic)\w*"
)
#: A compiler or a linker, by the name of its program or of what it says as it crashes.
#: One pattern with three ways would be ten times as slow on a long text.
_TOOLS = (
    re.compile(
        r"Program arguments: (?:\S*/)?((?:clang|rustc|ld|lld|llvm|opt|llc|swift|flang)[\w.+-]*)"
    ),
    re.compile(
        r"(clang)\S*: error: clang frontend command failed (?:with exit code 1[34]\d|due to s)"
    ),
    re.compile(r"(rustc) interrupted by SIG"),
)
#: A command that reads profiles, and how a shell says, in its line or at the start of the next,
#: that it died; the functions that read profiles.
#: Source: llvm-project issues 212150, 70965, 54592; InstrProfReader.h, InstrProf.h.
_READER = re.compile(
    r"llvm-(?:profdata|cov)(?=\S* (?:merge|show|overlap|export|report)\b)"
    r"(?P<rest>.*)(?:\n\s*(?P<next>\S.{0,80}))?"
)
#: Where a debugger or a report names the program that crashed, or a frame the file that it is in.
_NAMED_TOOL = re.compile(
    r"(?:Thread \S+ \"|Process: +|[/(`]|^\d+ +|in )((?:llvm-\w+|clang|rustc|lld|opt)[\w.-]*)"
    r"(?=[\"'`)+ \t]|$)",
    re.M,
)
_READER_DIED = re.compile(
    r"\(?signal: \d+|SIG(?:ILL|SEGV|BUS|ABRT)\b|Illegal instruction|Segmentation fault|Bus error"
)
_READS_PROFILES = re.compile(
    r"(?:void |bool )?llvm::"
    r"(?:\w*InstrProf\w*Reader\w*|readPGO\w+|readAndDecodeStrings|InstrProfSymtab)\b"
    r"|_ZNK?4llvm\d+\w*?(?:InstrProf\w*Reader|readPGO|readAndDecodeStrings|InstrProfSymtab)"
)
DIED = re.compile(
    r"SIGSEGV|[Ss]egmentation fault|EXC_BAD_ACCESS|signal(?: |: )11\b|Seg[Ff]ault|SEGFAULT"
    r"|(?:[Cc]ode|status|exited with|exit):?\s+139\b"
    r"|segfault|access violation|Sanitizer: SEGV|0x[cC]0000005|Erreur de segmentation"
    r"|Speicherzugriffsfehler|Violaci[oó]n de segmento|Errore di segmentazione"
)
#: What other signals say that end a program while its profile is counted or written. Source:
#: signal(7), setrlimit(2), seccomp(2).
_SENT = {
    "SIGXFSZ": "says that the profile would be larger than a file may be (ulimit -f)",
    "SIGXCPU": "says that the time of the processor is over (ulimit -t)",
    "SIGSYS": "says that a sandbox (seccomp) forbids a system call that writing a profile needs",
    "SIGABRT": "was sent to it, as a watchdog does: nothing on its stack aborts",
    **dict.fromkeys(
        ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGQUIT", "SIGKILL", "SIGPIPE"),
        "was sent to it from outside: where it was then is chance",
    ),
}
_MANY = 1 << 16  # more counters, or bytes of sites, a function has not; no stack is overrun by more
_NEAR = 12  # frames in which a reader of profiles is looked for
_PAGE = 1 << 12  # bytes: a call, or a probe of the stack, reaches no farther below its pointer
_DEEP = 20_000  # frames: what has so many does not end
_OFF = "CFLAGS=-fno-profile-generate CXXFLAGS=-fno-profile-generate"
_FIX = f"Rebuild with {_OFF}, or CC a clang of the runtime's LLVM; pgo-lab audit names the objects."
_GIVE = "Give a core file, or what a debugger prints of it (bt, register read, x/i $pc)."
#: What is known of a report, in words; what does not hold is "".
Facts = Mapping[str, str]


def from_report(report: CrashReport, judgement: Judgement | None, program: str) -> Facts:
    """Return what the rules judge by: of a report, of its program's judgement, and of both.

    `where` is in words where it crashed, `face` where in the runtime. `runtime` is a function of
    it that crashed and reads no records, `beyond` one that called what did. `unmixed` says why the
    audit acquits the program, `proof` what shows that records were misread. Advice is how to mend
    the build (`fix`), to find out whether it is this fault (`test`), and where else to `look`.
    """
    text, dead, fault = "\n".join(report.lines), report.crash or Crash(""), report.fault
    address = dead.fault_address
    advice = judgement.advice if judgement else ""
    fix, look = advice or _FIX, "Look for the fault in the innermost frames, or in who calls them."
    if judgement and judgement.blame:
        look += f" It is mixed, too: {fix}"
    mixed = judgement.why if judgement and "crash" in judgement.outcomes else ""
    spelled = _spelled(dead)
    names = [function.lstrip("_") for function in report.functions]
    reader, caller = runtime.innermost([frame.function.lstrip("_") for frame in dead.frames])
    bug = runtime.known_bug(report, text) if report.crash else None
    tools = (pattern.search(text) for pattern in _TOOLS if report.crash)
    tool = next((tool[1] for tool in tools if tool), "")
    frames = [frame.function for frame in dead.frames[:_NEAR]]
    return {
        "text": text,
        "mismatch": _mismatch(text),
        "where": (dead.function or "what crashed") if report.crash else "",
        "function": dead.function.lstrip("_"),
        "face": runtime.face(names, reader),
        "runtime": dead.function if not reader and caller == 0 else "",
        "jumped": f"{report.place or 0:#x}" if _jumped(report) else "",
        "text_in": _ascii(address),
        "beyond": dead.frames[caller].function if dead.function and not reader and caller else "",
        "bug": f"{bug.why} (LLVM {bug.versions}; {bug.reference})" if bug else "",
        "bug_test": bug.test if bug else "",
        "abort": dead.signal if dead.signal == "SIGABRT" and _aborts(names) else "",
        "other_signal": dead.signal if dead.signal not in ("", "SIGSEGV", "SIGBUS") else "",
        "sent": _sent(dead, reader, caller),
        "panic": "yes" if fault.panicked and not fault.signal else "",
        "finding": fault.other if fault.other != "stack-overflow" else "",
        "overflow": _overflow(report, text),
        "unmixed": judgement.why if judgement and acquits(judgement) else "",
        "unmixed_note": "",
        "mixture": judgement.why if judgement and judgement.verdict == "mixed" else "",
        "proof": "; ".join(filter(None, (mixed, spelled))),
        "spelled": spelled,
        "address": f"{address:#x}" if address else "",
        "null": "null" if address == 0 else "",
        "names": _names(text, dead),
        "stranger": "" if dead.function or not _is_stranger(dead) else "yes",
        "tool": tool,
        "profile_reader": _profile_reader(text, frames, tool),
        "died": "yes" if report.crash or DIED.search(text) else "",
        "message": "",
        "message_advice": "",
        "give": _GIVE,
        "fix": fix,
        "test": f"Run pgo-lab audit {program}; or build with {_OFF}: does it still crash?",
        "look": look,
    }


def _profile_reader(text: str, functions: Sequence[str], tool: str) -> str:
    """Return the tool that died as it read a profile: by what a shell says, or its functions."""
    if not functions:
        for command in _READER.finditer(text):
            start = text.rfind("\n", 0, command.start()) + 1
            before = re.split("&&|;", text[start : command.start()])[-1]
            line = before + command["rest"]
            if _READER_DIED.search(line) or _READER_DIED.match(command["next"] or ""):
                return command[0].split(maxsplit=1)[0]
        return ""
    if not any(map(_READS_PROFILES.match, functions)):
        return ""
    named = _NAMED_TOOL.search(text)
    return tool or (named[1] if named else "a tool")


def _sent(crash: Crash, reader: str, caller: int | None) -> str:
    """Return what a signal says that the runtime got from the system or another process."""
    if crash.signal not in _SENT or not (reader or caller is not None):
        return ""
    return f"{crash.signal} {_SENT[crash.signal]}"


def _aborts(names: Sequence[str]) -> bool:
    """Return whether a program itself aborted, and not a handler of SIGSEGV."""
    return not any(names) or any(map(_ABORT.match, names[:12]))


def _is_stranger(crash: Crash) -> bool:
    """Return whether the innermost frame is of a library that is no compiler's."""
    module = crash.frames[0].module if crash.frames else ""
    return bool(module) and not re.search(r"rustc|LLVM|clang|lld|\bstd-|libc\b", module)


def _jumped(report: CrashReport) -> bool:
    """Return whether there was no code where the program was: a bad function pointer."""
    place, named = report.place, report.crash is None or report.crash.function
    if named or place is None:
        return False
    # A core file may lack the code; a process that is stopped has it, if there is any.
    absent = f"Cannot access memory at address {place:#x}"
    text = "\n".join(report.lines)
    return place < 4096 or (absent in text and "Core was generated" not in text)


def _ascii(address: int | None) -> str:
    """Return the text that an address is, where all its bytes are printable."""
    data = (address or 0).to_bytes(8, "little")
    return data.decode() if all(32 <= byte < 127 for byte in data) else ""


def _mismatch(text: str) -> str:
    """Return the runtime's message of two versions, and which LLVMs they are of."""
    if "version mismatch" not in text:
        return ""
    message = re.search(r"version mismatch\s*: expected (\d{1,9}), but get (\d{1,9})", text)
    if not message:
        return ""
    return f"{message[0]} ({' and '.join(layout.llvm_of(int(n)) for n in message.groups())})"


def _overflow(report: CrashReport, text: str) -> str:
    """Return what shows that the stack ran over: what the system says, or the address beside sp.

    The lowest addresses (mmap_min_addr) are no stack's, whatever the stack pointer is told to be.
    Source: SignalContext::IsStackAccess (sanitizer_posix.cpp).
    """
    crash = report.crash
    for words in ("STACK GUARD", "tack size exceeded"):
        if words in text and crash:
            return f"the text says {words!r}"
    if report.fault.other == "stack-overflow":
        return "so it says"
    if report.depth > _DEEP:
        return f"its backtrace has {report.depth:,} frames"
    if not crash or crash.fault_address is None:
        return ""
    stack, address = crash.registers.get("rsp", crash.registers.get("sp")), crash.fault_address
    near = stack is not None and -_PAGE <= address - stack < _MANY and address >= _MANY
    return f"the address {crash.fault_address:#x} is beside the stack pointer" if near else ""


def _names(text: str, crash: Crash) -> str:
    """Return the runtime's functions that are named in a text whose frames could not be read."""
    if crash.function:
        return ""
    words = dict.fromkeys(re.findall(r"\b[A-Za-z_]\w+", text))
    words = dict.fromkeys(word for word in words if word.lstrip("_") in functions())
    told = ", ".join(itertools.islice(words, 4))
    return f"; named in it are functions of the runtime: {told}" if told else ""


def _pairs() -> str:
    """Name raw versions of a record, and of a runtime that steps to its NumCounters as Values."""
    layouts = [known for known in LAYOUTS.values() if known.relative]
    pairs = []
    for record, reader in itertools.permutations(layouts, 2):
        distance = record.offsets()["NumCounters"] - reader.offsets()["Values"]
        if distance % math.gcd(record.record_size(), reader.record_size()) == 0:
            pairs.append(f"{record.raw_version} by {reader.raw_version}")
    return f"raw versions, record by runtime: {', '.join(pairs)}"


def value_words(crash: Crash) -> list[int]:
    """Return what may be Values: the address, or less by 8 for each site before, in a register.

    Only the registers that the instruction names can be.
    """
    address = crash.fault_address or 0
    names = re.findall(r"\w+", crash.instruction or "")
    values = (crash.registers.get(name) for name in names)
    return [value for value in values if value and 0 <= address - value < _MANY] + [address]


def _spelled(crash: Crash) -> str:
    """Return which fields of a record the address is, where a runtime may take them for Values.

    Where no address and no instruction are told, a register may hold it, which only an address that
    x86 does not tell is: one that is not canonical.
    """
    words = value_words(crash)
    if crash.function and not crash.instruction and not crash.fault_address:
        words += [value for value in crash.registers.values() if not is_canonical(value)]
    for word in words:
        count, *sites = word & 0xFFFFFFFF, word >> 32 & 0xFFFF, word >> 48
        likely = any(sites)  # without sites it is a small number, as many are
        if not crash.function:  # then the word alone must be one that nothing else is
            likely = not is_canonical(word) and word in (crash.fault_address, words[0])
        if 0 < count < _MANY and max(sites) < _MANY >> 4 and likely:
            fields = f"NumCounters {count}, NumValueSites {sites[0]}, {sites[1]}"
            return f"{word:#x} is {fields} of a record that another runtime reads ({_pairs()})"
    return ""


def acquits(judgement: Judgement | None) -> bool:
    """Return whether an audit says that a program is not mixed."""
    return judgement is not None and judgement.verdict in ("consistent", "not-instrumented")
