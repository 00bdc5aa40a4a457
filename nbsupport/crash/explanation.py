"""What a crash report shows: the fault of mixed records, and with which face, or another fault."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nbsupport.audit import images, judge, objects
from nbsupport.audit.judge import Judgement
from nbsupport.base.errors import LabError
from nbsupport.crash import reports
from nbsupport.crash.crash import Crash
from nbsupport.profile import infer, layout
from nbsupport.profile.layout import LAYOUTS, Layout

Verdict = Literal["ours", "not-ours"]
Certainty = Literal["shown", "likely"]
Face = Literal["at exit", "in main", "before main", "version message"]

#: What a value site calls, or else what walks records, without leading underscores. Source:
#: InstrProfilingValue.c; InstrProfilingWriter.c, InstrProfilingFile.c, InstrProfilingMerge.c.
_RUNTIME = re.compile(
    r"(?<!\S)(?:(llvm_profile_instrument_\w+)|(?:initializeValueProf|lprof(?:Write|Merge|Get))\w+"
    r"|write(?:One)?ValueProfData|doProfileMerging|llvm_profile_(?:write|dump|merge)\w*)(?!\S)"
)
_NEAR = 8  # frames: the C library's memcpy may be innermost
_MANY = 1 << 16  # more counters, or bytes of sites, a function has not; no stack is overrun by more
_OFF = "CFLAGS=-fno-profile-generate CXXFLAGS=-fno-profile-generate"
_FIX = f"Rebuild with {_OFF}, or CC a clang of the runtime's LLVM; pgo-lab audit names the objects."
_NULL = "null proves nothing, for x86 does not tell the address of a general protection fault"
_MISMATCH = re.compile(r"version mismatch\s*: expected (\d{1,9}), but get (\d{1,9})")
_STACK = re.compile(r"STACK GUARD|[Ss]tack size exceeded|has overflowed its stack")
_CONTINUOUS = re.compile(r"LLVM_PROFILE_FILE\S*%c|%c\S*\.profraw")


@dataclass(frozen=True)
class Explanation:
    """What was judged: "shown" rests on more than a function of the runtime on the stack.

    `why` and `advice` are sentences. `record` is the record of which the runtime took `values`
    for a pointer, where a program was given and it is clear. `problems` are what was not clear.
    """

    verdict: Verdict
    certainty: Certainty
    face: Face | None
    why: str
    advice: str
    crash: Crash = Crash("")  # noqa: RUF009 - it is frozen
    record: dict[str, Any] | None = None
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the document of `pgo-lab explain --json`; addresses are hexadecimal text."""
        crash, address = self.crash, self.crash.fault_address
        return {
            "verdict": self.verdict,
            "certainty": self.certainty,
            "face": self.face,
            "why": self.why,
            "advice": self.advice,
            "record": self.record,
            "problems": self.problems,
            "signal": crash.signal,
            "frames": [vars(frame) for frame in crash.frames],
            "instruction": crash.instruction,
            "registers": {name: f"{value:#x}" for name, value in crash.registers.items()},
            "fault_address": None if address is None else f"{address:#x}",
            "fault_address_from": crash.fault_address_from,
        }


def explain(path: Path, binary: Path | None = None) -> Explanation:
    """Judge what a file tells of a crash, and what the audit of its program adds.

    `path` is a crash report (.ips, .crash), a core file, or the text that a debugger or a program
    printed. `binary` is the program that crashed; with it the record that was misread is named.
    Raises `LabError` where either cannot be read, or no rule knows what is in the file.
    """
    image = judge.audit([binary]) if binary else None
    report = reports.read(path, binary)
    facts = _facts(report, binary, image.judgement if image else Judgement("unknown", ""))
    explanations = (rule(facts) for rule in RULES.values())
    explanation = next(filter(None, explanations), None)
    if explanation is None:
        raise LabError(f"explaining {path}", "no crash in it that we know", reports.GIVE)
    if not (binary and image):
        return explanation
    record, problems = None, image.problems
    if facts.face and explanation.verdict == "ours":
        parts = (part for file in image.files for part in file.parts)
        try:
            runtime = next(part.runtime for part in parts if part.runtime)
            record = _record(facts.crash, binary, LAYOUTS[runtime])
        except (ValueError, LookupError, AssertionError, OSError, StopIteration):
            problems += ("which record it read is not clear",)
    return dataclasses.replace(explanation, record=record, problems=problems)


@dataclass(frozen=True)
class Facts:
    """What the rules judge: a report, the judgement of its program, and what follows from both.

    `crash` has no signal and no frames where the report shows none (`died`). `face` is None
    outside of the runtime. `unmixed` says why the audit acquits the program, `proof` what shows
    that records were misread ("": nothing does). Advice is how to mend the build (`fix`), how to
    find out whether it is this fault (`test`), and where else to look (`look`).
    """

    text: str
    crash: Crash
    died: bool
    where: str
    face: Face | None
    unmixed: str
    proof: str
    fix: str
    test: str
    look: str

    def ours(self, certainty: Certainty, why: str, advice: str) -> Explanation:
        """Say that it is the fault of mixed records."""
        return Explanation("ours", certainty, self.face, why, advice, self.crash)

    def not_ours(self, certainty: Certainty, why: str, advice: str) -> Explanation:
        """Say that it is another fault."""
        return Explanation("not-ours", certainty, None, why, advice, self.crash)


def _facts(report: reports.CrashReport, binary: Path | None, judgement: Judgement) -> Facts:
    crash = report.crash or Crash("")
    fix, look = " ".join(judgement.advice.split()) or _FIX, "Look at the innermost frames."
    if judgement.blame:
        look += f" It is mixed, too: {fix}"
    mixed = judgement.why if "crash" in judgement.outcomes else ""
    acquitted = judgement.verdict in ("consistent", "not-instrumented")
    return Facts(
        text=report.text,
        crash=crash,
        died=report.crash is not None,
        where=crash.function or "what crashed",
        face=_face(crash),
        unmixed=judgement.why if acquitted else "",
        proof="; ".join(filter(None, (mixed, _spelled(crash)))),
        fix=fix,
        test=f"Run pgo-lab audit {binary or 'PROGRAM'}; or build with {_OFF}: does it still crash?",
        look=look,
    )


def _face(crash: Crash) -> Face | None:
    """Return where in the runtime it crashed, by the innermost frames."""
    names = [frame.function.lstrip("_") for frame in crash.frames]
    runtime = _RUNTIME.search(" ".join(names[:_NEAR]))
    if not runtime:
        return None
    if not runtime[1]:
        return "at exit"
    return "before main" if "llvm_profile_initialize" in names else "in main"


Rule = Callable[[Facts], Explanation | None]


def _version_message(facts: Facts) -> Explanation | None:
    message = _MISMATCH.search(facts.text)
    if not message:
        return None
    llvms = " and ".join(layout.llvm_of(int(version)) for version in message.groups())
    why = f"{message[0]} ({llvms}): no profile"
    explanation = facts.ours("shown", why, facts.fix)
    return dataclasses.replace(explanation, face="version message")


#: What a text that shows no crash means: name, pattern in it, verdict, why, and what to do.
_MESSAGES: tuple[tuple[str, str, Verdict, str, str], ...] = (
    ("gcov", "gcov_init", "not-ours",
     "gcc got clang's flags, and the link lacks gcc's coverage library",
     "Use cc 1.2.9 or later, or set CC to a clang of the runtime's LLVM."),
    ("cut-off profile", "file header is corrupt|truncated profile data|failure-mode=(?:all|warn)",
     "not-ours", "a process was ended as it wrote its profile",
     "Let it end by itself (pgo-lab profraw DIR)."),
    ("stale profile", "source profile file is not compatible", "ours",
     "it found a profile of another build, or of a crash", "Remove that and run again."),
    ("malformed profile", "malformed instrumentation profile data", "ours",
     "records are not what the profile says", ""),
    ("raw version", r"raw profile (?:format )?version(?: mismatch| *=)", "ours",
     "one of the build's two LLVMs wrote the profile, or only the tool is of another", ""),
    ("died somewhere", r"\A(?s:(?=.*profile-generate).*(?:SIGSEGV|[Ss]egmentation fault))", "ours",
     "an instrumented program died, nothing says where", "Run it in LLDB and explain its text."),
)  # fmt: skip


def _message(pattern: str, verdict: Verdict, why: str, do: str) -> Rule:
    """Return the rule of a row of `_MESSAGES`."""

    def rule(facts: Facts) -> Explanation | None:
        if facts.died or not re.search(pattern, facts.text):
            return None
        if verdict == "not-ours":
            return facts.not_ours("likely", why, do)
        return facts.ours("likely", why, f"{do} {facts.test}".strip())

    return rule


def _stack_overflow(facts: Facts) -> Explanation | None:
    if not facts.died:
        return None
    address, registers = facts.crash.fault_address, facts.crash.registers
    stack = registers.get("rsp", registers.get("sp"))
    overrun = address is not None and stack is not None and abs(address - stack) < _MANY
    if overrun or _STACK.search(facts.text):
        return facts.not_ours("shown", "stack overflow", facts.look)
    return None


def _abort(facts: Facts) -> Explanation | None:
    if facts.crash.signal != "SIGABRT":
        return None
    return facts.not_ours("shown", "the program ended itself (abort)", facts.look)


def _unmixed(facts: Facts) -> Explanation | None:
    if not (facts.died and facts.unmixed):
        return None
    return facts.not_ours("shown", f"the program is not mixed: {facts.unmixed}", facts.look)


def _outside_the_runtime(facts: Facts) -> Explanation | None:
    if facts.face or not facts.crash.function.lstrip("_"):
        return None
    return facts.not_ours("shown", f"{facts.where} is not of the runtime", facts.look)


def _misread(facts: Facts) -> Explanation | None:
    if not (facts.died and facts.proof):
        return None
    why = f"{facts.where} took other fields for Values: {facts.proof}"
    return facts.ours("shown" if facts.face else "likely", why, facts.fix)


def _nameless(facts: Facts) -> Explanation | None:
    if not facts.died or facts.face:
        return None
    return facts.not_ours("likely", "the innermost function has no name", facts.test)


def _continuous_mode(facts: Facts) -> Explanation | None:
    if not (facts.died and _CONTINUOUS.search(facts.text)):
        return None
    why = f"{facts.where} in continuous mode: the pointers are of another process"
    return facts.not_ours("likely", why, "Leave out %c.")


def _in_the_runtime(facts: Facts) -> Explanation | None:
    if not facts.died:
        return None
    address = facts.crash.fault_address
    but = f"{address:#x} does not spell counts" if address else _NULL
    return facts.ours("likely", f"{facts.where} is where this fault shows, but {but}", facts.test)


#: The rules by name. They are asked in this order, and the first that knows decides.
RULES: dict[str, Rule] = {
    "version message": _version_message,
    **{row[0]: _message(*row[1:]) for row in _MESSAGES},
    "stack overflow": _stack_overflow,
    "abort": _abort,
    "not mixed": _unmixed,
    "outside the runtime": _outside_the_runtime,
    "records misread": _misread,
    "no name": _nameless,
    "continuous mode": _continuous_mode,
    "in the runtime": _in_the_runtime,
}


def _pairs() -> str:
    """Name raw versions of a record, and of a runtime that steps to its NumCounters as Values."""
    layouts = [known for known in LAYOUTS.values() if known.relative]
    pairs = []
    for record, runtime in itertools.permutations(layouts, 2):
        distance = record.offsets()["NumCounters"] - runtime.offsets()["Values"]
        if distance % math.gcd(record.record_size(), runtime.record_size()) == 0:
            pairs.append(f"{record.raw_version} by {runtime.raw_version}")
    return f"raw version {', '.join(pairs)}"


def _words(crash: Crash) -> list[int]:
    """Return what may be Values: the address, or less by 8 for each site before, in a register."""
    address = crash.fault_address or 0
    names = re.findall(r"\w+", crash.instruction or "")
    values = (crash.registers.get(name) for name in names)
    return [value for value in values if value and 0 <= address - value < _MANY] + [address]


def _spelled(crash: Crash) -> str:
    """Return which fields of a record the address is, where a runtime may take them for Values."""
    for word in _words(crash):
        count, *sites = word & 0xFFFFFFFF, word >> 32 & 0xFFFF, word >> 48
        # No sites: what cannot be a field of a null pointer, which is at a multiple of 4.
        if 0 < count < _MANY and max(sites) < _MANY >> 4 and (any(sites) or word % 4):
            fields = f"NumCounters {count}, NumValueSites {sites[0]}, {sites[1]}"
            return f"{word:#x} is {fields} of a record that another runtime reads ({_pairs()})"
    return ""


def _record(crash: Crash, binary: Path, runtime: Layout) -> dict[str, Any]:
    """Return the record that gave the runtime such a word, and that a register points at."""
    image, file = images.parse(binary.read_bytes()), objects.read(binary)
    assert image and file and image.bits == 64  # not a fat file
    values = {*crash.registers.values(), crash.fault_address} - {0, None}
    inside, stride = runtime.offsets()["Values"], runtime.record_size()
    for (start, _, size), section in zip(image.places["data"], file.parts[0].sections, strict=True):
        records, words = infer.find(section), np.frombuffer(section.data, "<u8", size // 8)
        for slot in sorted({*range(0, size, stride), *records.offsets.tolist()}):
            word = int(words[(slot + inside) // 8]) if slot + inside < size else 0
            # Images move by whole pages.
            if word in values and any(
                (value - start - slot) % 4096 == 0 for value in values if value
            ):
                n = int(np.searchsorted(records.offsets, slot + inside, "right")) - 1
                offset, length = int(records.offsets[n]), int(records.sizes[n])
                index = section.names.index(words[[offset // 8]])[0]
                name = section.names.text[index].decode(errors="replace") if index >= 0 else ""
                return {
                    "function": name,
                    "offset": offset,
                    "record_size": length,
                    "raw_versions": list(layout.sizes().get(length, ())),
                    "values": f"{word:#x}",
                }
    raise LookupError
