"""What a crash report shows: the fault of mixed records, and with which face, or another fault."""

import bisect
import functools
import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nbsupport.audit import images, judge, objects
from nbsupport.audit.judge import Judgement
from nbsupport.base import files, settings
from nbsupport.base.errors import LabError
from nbsupport.crash import reports
from nbsupport.crash.crash import Crash
from nbsupport.profile import infer, layout
from nbsupport.profile.layout import LAYOUTS, Layout

Verdict = Literal["ours", "not-ours"]
Certainty = Literal["shown", "likely"]

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
#: What is known of a report, in words; what does not hold is "".
Facts = Mapping[str, str]


@dataclass(frozen=True)
class Explanation:
    """What was judged: "shown" rests on more than a function of the runtime on the stack.

    `face`: at exit, in main, before main, or version message. `why` and `advice` are sentences.
    `record` is the record of which the runtime took `values` for a pointer, where a program was
    given and it is clear. `problems` are what was not clear.
    """

    verdict: Verdict
    certainty: Certainty
    face: str | None
    why: str
    advice: str
    crash: Crash
    record: dict[str, Any] | None
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document of `pgo-lab explain --json`; addresses are hexadecimal text."""
        address = self.crash.fault_address
        document: dict[str, Any] = {
            **vars(self),
            **vars(self.crash),
            "frames": [vars(frame) for frame in self.crash.frames],
            "registers": {name: f"{value:#x}" for name, value in self.crash.registers.items()},
            "fault_address": None if address is None else f"{address:#x}",
        }
        del document["crash"], document["debugger"]
        return document


def explain(path: Path, binary: Path | None = None) -> Explanation:
    """Judge what a file tells of a crash, and what the audit of its program adds.

    `path` is a crash report (.ips, .crash), a core file, or the text that a debugger or a program
    printed. `binary` is the program that crashed; with it the record that was misread is named.
    Raises `LabError` where either cannot be read, or no rule knows what is in the file.
    """
    image = judge.audit([binary]) if binary else None
    text, crash = reports.read(path, binary)
    judgement = image.judgement if image else Judgement("unknown", "")
    facts = _facts(text, crash, judgement, str(binary or "PROGRAM"))
    rule = next((rule for rule in rules().values() if rule.decides(facts)), None)
    if rule is None:
        raise LabError(f"explaining {path}", "no crash in it that we know", reports.GIVE)
    face = (rule.face or facts["face"] or None) if rule.verdict == "ours" else None
    record = None
    problems = image.problems if image else ()
    if crash and binary and image and face and facts["face"]:
        parts = (part for file in image.files for part in file.parts)
        try:
            runtime = next(part.runtime for part in parts if part.runtime)
            record = _record(crash, binary, LAYOUTS[runtime])
        except (ValueError, LookupError, AssertionError, OSError, StopIteration):
            problems += ("which record it read is not clear",)
    why, advice = rule.why.format_map(facts), rule.advice.format_map(facts)
    crash = crash or Crash("")
    return Explanation(rule.verdict, rule.certainty, face, why, advice, crash, record, problems)


@dataclass(frozen=True)
class Rule:
    """When to say what of a crash report; `explanations.toml` explains the fields."""

    verdict: Verdict
    certainty: Certainty
    why: str
    advice: str
    when: tuple[str, ...] = ()
    text: str = ""
    face: str = ""

    def decides(self, facts: Facts) -> bool:
        """Return whether the facts are those that the rule is for."""
        unmet = (bool(facts[n.removeprefix("not ")]) == n.startswith("not ") for n in self.when)
        return not any(unmet) and bool(re.search(self.text, facts["text"]))


@functools.cache
def rules() -> dict[str, Rule]:
    """Return the rules by name, in the order in which they are asked."""
    tables = files.read_toml(settings.data_dir() / "explanations.toml")
    return {name: files.load(Rule, table, f"rule {name}") for name, table in tables.items()}


def _facts(text: str, crash: Crash | None, judgement: Judgement, program: str) -> Facts:
    """Return what the rules judge by: of a report, of its program's judgement, and of both.

    `where` is in words where it crashed, `face` where in the runtime. `unmixed` says why the
    audit acquits the program, `proof` what shows that records were misread. Advice is how to mend
    the build (`fix`), to find out whether it is this fault (`test`), and where else to `look`.
    """
    dead = crash or Crash("")
    address = dead.fault_address
    stack = dead.registers.get("rsp", dead.registers.get("sp"))
    overrun = address is not None and stack is not None and abs(address - stack) < _MANY
    fix, look = " ".join(judgement.advice.split()) or _FIX, "Look at the innermost frames."
    if judgement.blame:
        look += f" It is mixed, too: {fix}"
    mixed = judgement.why if "crash" in judgement.outcomes else ""
    acquitted = judgement.verdict in ("consistent", "not-instrumented")
    return {
        "text": text,
        "mismatch": _mismatch(text),
        "where": (dead.function or "what crashed") if crash else "",
        "function": dead.function.lstrip("_"),
        "face": _face(dead),
        "abort": dead.signal if dead.signal == "SIGABRT" else "",
        "overrun": "yes" if overrun else "",
        "unmixed": judgement.why if acquitted else "",
        "proof": "; ".join(filter(None, (mixed, _spelled(dead)))),
        "address": f"{address:#x}" if address else "",
        "fix": fix,
        "test": f"Run pgo-lab audit {program}; or build with {_OFF}: does it still crash?",
        "look": look,
    }


def _mismatch(text: str) -> str:
    """Return the runtime's message of two versions, and which LLVMs they are of."""
    message = re.search(r"version mismatch\s*: expected (\d{1,9}), but get (\d{1,9})", text)
    if not message:
        return ""
    return f"{message[0]} ({' and '.join(layout.llvm_of(int(n)) for n in message.groups())})"


def _face(crash: Crash) -> str:
    """Return where in the runtime it crashed, by the innermost frames."""
    names = [frame.function.lstrip("_") for frame in crash.frames]
    runtime = _RUNTIME.search(" ".join(names[:_NEAR]))
    if not runtime or not runtime[1]:
        return "at exit" if runtime else ""
    return "before main" if "llvm_profile_initialize" in names else "in main"


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
    values = {*crash.registers.values(), crash.fault_address or 0} - {0}
    inside, stride = runtime.offsets()["Values"], runtime.record_size()
    for (start, _, size), section in zip(image.places["data"], file.parts[0].sections, strict=True):
        records = infer.find(section)
        offsets = records.offsets.tolist()
        for slot in sorted({*range(0, size, stride), *offsets}):
            place = slot + inside
            word = int.from_bytes(section.data[place : place + 8], "little")
            # Images move by whole pages.
            if word in values and any((value - start - slot) % 4096 == 0 for value in values):
                n = bisect.bisect_right(offsets, place) - 1
                length = int(records.sizes[n])
                (name,) = section.names.resolve(section.column("NameRef", records.offsets[[n]]))
                return {
                    "function": name.decode(errors="replace"),
                    "offset": offsets[n],
                    "record_size": length,
                    "raw_versions": list(layout.sizes().get(length, ())),
                    "values": f"{word:#x}",
                }
    raise LookupError
