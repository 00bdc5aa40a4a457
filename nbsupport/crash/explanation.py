"""What a crash report shows: the fault of mixed records, and with which face, or another fault."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nbsupport.audit import images, judge, objects
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
#: Raw versions of a record, and of a runtime that steps to where Values is its NumCounters.
_PAIRS = "raw version " + ", ".join(
    f"{a.raw_version} by {b.raw_version}"
    for a, b in itertools.permutations([v for v in LAYOUTS.values() if v.relative], 2)
    if not (a.offsets()["NumCounters"] - b.offsets()["Values"])
    % math.gcd(a.record_size(), b.record_size())
)
_OFF = "CFLAGS=-fno-profile-generate CXXFLAGS=-fno-profile-generate"
_FIX = f"Rebuild with {_OFF}, or CC a clang of the runtime's LLVM; pgo-lab audit names the objects."
_NULL = "null proves nothing, for x86 does not tell the address of a general protection fault"
_MISMATCH = re.compile(r"version mismatch\s*: expected (\d{1,9}), but get (\d{1,9})")
_STACK = re.compile(r"STACK GUARD|[Ss]tack size exceeded|has overflowed its stack")
#: What is said where no crash is shown, what that is, and what to do.
_SAID: tuple[tuple[str, Verdict, str, str], ...] = (
    ("gcov_init", "not-ours", "gcc got clang's flags, and the link lacks gcc's coverage library",
     "Use cc 1.2.9 or later, or set CC to a clang of the runtime's LLVM."),
    ("file header is corrupt|truncated profile data|failure-mode=(?:all|warn)", "not-ours",
     "a process was ended as it wrote its profile", "Let it end by itself (pgo-lab profraw DIR)."),
    ("source profile file is not compatible", "ours",
     "it found a profile of another build, or of a crash", "Remove that and run again."),
    ("malformed instrumentation profile data", "ours", "records are not what the profile says", ""),
    (r"raw profile (?:format )?version(?: mismatch| *=)", "ours",
     "one of the build's two LLVMs wrote the profile, or only the tool is of another", ""),
    (r"\A(?s:(?=.*profile-generate).*(?:SIGSEGV|[Ss]egmentation fault))", "ours",
     "an instrumented program died, nothing says where", "Run it in LLDB and explain its text."),
)  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """What was judged: "shown" rests on more than a function of the runtime on the stack."""

    verdict: Verdict
    certainty: Certainty
    face: Face | None
    why: str
    advice: str
    crash: Crash = Crash("")  # noqa: RUF009 - it is frozen
    record: dict[str, Any] | None = None  # of which the runtime took `values` for a pointer
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the document of `pgo-lab explain --json`; addresses are hexadecimal text."""
        found, at = {**vars(self), **vars(self.crash)}, self.crash.fault_address
        del found["crash"], found["debugger"]
        found["frames"] = [vars(frame) for frame in self.crash.frames]
        found["registers"] = {name: f"{n:#x}" for name, n in self.crash.registers.items()}
        return {**found, "fault_address": None if at is None else f"{at:#x}"}


def explain(path: Path, binary: Path | None = None) -> Explanation:
    """Judge what a file, and the audit of its program, tell of a crash; raises `LabError`."""
    image = judge.audit([binary]) if binary else None
    report = reports.read(path, binary)
    crash, text = report.crash or Crash(""), report.text
    names = [frame.function.lstrip("_") for frame in crash.frames]
    runs = _RUNTIME.search(" ".join(names[:_NEAR]))
    face: Face | None = "at exit" if runs and not runs[1] else "in main" if runs else None
    face = "before main" if face == "in main" and "llvm_profile_initialize" in names else face
    at, stack = crash.fault_address, crash.registers.get("rsp", crash.registers.get("sp"))
    overrun = at is not None and stack is not None and abs(at - stack) < _MANY
    judged = image.judgement if image else judge.Judgement("unknown", "")
    fine = judged.why if judged.verdict in ("consistent", "not-instrumented") else ""
    mixed = judged.why if "crash" in judged.outcomes else ""
    proof = "; ".join(filter(None, (mixed, _spelled(crash))))
    fix = " ".join(judged.advice.split()) or _FIX
    test = f"Run pgo-lab audit {binary or 'PROGRAM'}; or build with {_OFF}: does it still crash?"
    look = "Look at the innermost frames." + (f" It is mixed, too: {fix}" if judged.blame else "")
    said = _MISMATCH.search(text)
    llvms = " and ".join(layout.llvm_of(int(n)) for n in said.groups()) if said else ""
    where, dead = crash.function or "what crashed", bool(report.crash)
    rows: tuple[tuple[object, Verdict, Certainty, str, str], ...] = (
        (said, "ours", "shown", f"{said and said[0]} ({llvms}): no profile", fix),
        *((not dead and re.search(pattern, text), verdict, "likely", why,
           f"{do} {test}".strip() if verdict == "ours" else do)
          for pattern, verdict, why, do in _SAID),
        (dead and (overrun or _STACK.search(text)), "not-ours", "shown", "stack overflow", look),
        (crash.signal == "SIGABRT", "not-ours", "shown", "the program ended itself (abort)", look),
        (dead and fine, "not-ours", "shown", f"the program is not mixed: {fine}", look),
        (not face and any(names[:1]), "not-ours", "shown", f"{where} is not of the runtime", look),
        (dead and proof, "ours", "shown" if face else "likely",
         f"{where} took other fields for Values: {proof}", fix),
        (dead and not face, "not-ours", "likely", "the innermost function has no name", test),
        (dead and re.search(r"LLVM_PROFILE_FILE\S*%c|%c\S*\.profraw", text), "not-ours", "likely",
         f"{where} in continuous mode: the pointers are of another process", "Leave out %c."),
        (dead, "ours", "likely", f"{where} is where this fault shows, but "
         + (f"{at:#x} does not spell counts" if at else _NULL), test),
    )  # fmt: skip
    found = [row[1:] for row in rows if row[0]]
    if not found:
        raise LabError(f"explaining {path}", "no crash in it that we know", reports.GIVE)
    verdict, certainty, why, do = found[0]
    record, problems = None, image.problems if image else ()
    if binary and image and face and verdict == "ours":
        try:
            seen = [part.runtime for one in image.files for part in one.parts if part.runtime]
            record = _record(crash, binary, LAYOUTS[seen[0]])
        except (ValueError, LookupError, AssertionError, OSError):
            problems += ("which record it read is not clear",)
    face = "version message" if said else face if verdict == "ours" else None
    return Explanation(verdict, certainty, face, why, do, crash, record, problems)


def _words(crash: Crash) -> list[int]:
    """Return what may be Values: the address, or less by 8 for each site before, in a register."""
    at, named = crash.fault_address or 0, re.findall(r"\w+", crash.instruction or "")
    return [n for n in map(crash.registers.get, named) if n and 0 <= at - n < _MANY] + [at]


def _spelled(crash: Crash) -> str:
    """Return which fields of a record the address is, where a runtime may take them for Values."""
    for word in _words(crash):
        count, *sites = word & 0xFFFFFFFF, word >> 32 & 0xFFFF, word >> 48
        # No sites: what cannot be a field of a null pointer, which is at a multiple of 4.
        if 0 < count < _MANY and max(sites) < _MANY >> 4 and (any(sites) or word % 4):
            fields = f"NumCounters {count}, NumValueSites {sites[0]}, {sites[1]}"
            return f"{word:#x} is {fields} of a record that another runtime reads ({_PAIRS})"
    return ""


def _record(crash: Crash, binary: Path, runtime: Layout) -> dict[str, Any]:
    """Return the record that gave the runtime such a word, and that a register points at."""
    image, file = images.parse(binary.read_bytes()), objects.read(binary)
    assert image and file and image.bits == 64  # not a fat file
    values = {*crash.registers.values(), crash.fault_address} - {0, None}
    inside, stride = runtime.offsets()["Values"], runtime.record_size()
    for (start, _, size), section in zip(image.places["data"], file.parts[0].sections, strict=True):
        found, words = infer.find(section), np.frombuffer(section.data, "<u8", size // 8)
        for slot in sorted({*range(0, size, stride), *found.offsets.tolist()}):
            word = int(words[(slot + inside) // 8]) if slot + inside < size else 0
            # Images move by whole pages.
            if word in values and any(not (n - start - slot) % 4096 for n in values if n):
                n = int(np.searchsorted(found.offsets, slot + inside, "right")) - 1
                offset, length = int(found.offsets[n]), int(found.sizes[n])
                whose = section.names.index(words[[offset // 8]])[0]
                name = section.names.text[whose].decode(errors="replace") if whose >= 0 else ""
                versions = list(layout.sizes().get(length, ()))
                record = {"function": name, "offset": offset, "record_size": length}
                return {**record, "raw_versions": versions, "values": f"{word:#x}"}
    raise LookupError
