"""What a crash report shows: the fault of mixed records, and with which face, or another fault."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError
from nbsupport.crash import messages, reports
from nbsupport.crash.crash import Crash
from nbsupport.crash.facts import DIED, Facts, acquits, from_report, value_words
from nbsupport.crash.messages import Cause, Occurrence
from nbsupport.crash.reports import CrashReport
from nbsupport.profile.layout import LAYOUTS

if TYPE_CHECKING:
    from nbsupport.audit.judge import AuditReport, Judgement

Verdict = Literal["ours", "not-ours", "no-crash", "unknown"]
Certainty = Literal["shown", "likely"]


@dataclass(frozen=True)
class Explanation:
    """What was judged: "shown" rests on more than a function of the runtime on the stack.

    `face`: at exit, in main, before main, or version message. `why` and `advice` are sentences.
    `record` is the record of which the runtime took `values` for a pointer, where a program was
    given and it is clear. `problems` are what was not clear. `lines` are those of the report that
    the judgement rests on, each with its number. `causes` are those that a message may have.
    """

    verdict: Verdict
    certainty: Certainty
    face: str | None
    why: str
    advice: str
    crash: Crash
    record: dict[str, Any] | None
    problems: tuple[str, ...]
    lines: tuple[tuple[int, str], ...] = ()
    causes: tuple[Cause, ...] = ()

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
        for name in ("causes", "lines"):
            del document[name]
        document["causes"] = [vars(cause) for cause in self.causes]
        document["lines"] = [{"line": number, "text": text} for number, text in self.lines]
        return document


def explain(path: Path, binary: Path | None = None) -> Explanation:
    """Judge what a file tells of a crash, and what the audit of its program adds.

    `path` is a crash report (.ips, .crash), a core file, or the text that a debugger or a program
    printed. `binary` is the program that crashed; with it the record that was misread is named.
    Raises `LabError` where either cannot be read, or no rule knows what is in the file.
    """
    image = _audited(binary)
    report = reports.read(path, binary)
    judgement = image.judgement if image else None
    facts = from_report(report, judgement, str(binary or "PROGRAM"))
    rule, occurrences = _decided(facts), list[Occurrence]()
    causes: tuple[Cause, ...] = ()
    if rule is None or rule.verdict == "unknown":
        occurrences = messages.find(report.lines)
        if occurrences and not (facts["died"] and occurrences[0].message.general):
            causes = messages.causes(occurrences[0], report.lines, mixed=_is_mixed(judgement))
            facts = {**facts, **_message(occurrences, causes, judgement)}
            rule = _decided(facts)
    if rule is None:
        raise LabError(f"explaining {path}", "no crash in it that we know", reports.GIVE)
    face = (rule.face or facts["face"] or None) if rule.verdict == "ours" else None
    record = None
    problems = image.problems if image else ()
    if report.crash and binary and image and face and facts["face"]:
        parts = (part for file in image.files for part in file.parts)
        try:
            # Only for a crash of ours: it reads the program again.
            from nbsupport.crash import misread  # noqa: PLC0415

            version = next(part.runtime for part in parts if part.runtime)
            record = misread.record(
                report.crash, value_words(report.crash), binary, LAYOUTS[version]
            )
        except (ValueError, LookupError, AssertionError, OSError, StopIteration):
            problems += ("which record it read is not clear",)
    if rule.verdict == "not-ours" and facts["unmixed"] and facts["face"] and facts["spelled"]:
        problems += (f"yet {facts['spelled']}: is {binary} the program that crashed?",)
    why = rule.why.format_map(facts)
    crash = report.crash or Crash("")
    if not facts["message"] or "{message" not in rule.why:
        causes = ()
    numbers = sorted(_rests(report, facts, occurrences if causes else ()))
    lines = tuple((n + 1, report.lines[n][:200]) for n in numbers)
    advice = " ".join(rule.advice.split()).format_map(facts)  # facts may have a line to paste
    judged = (rule.verdict, rule.certainty)
    return Explanation(*judged, face, why, advice, crash, record, problems, lines, causes)


def _audited(binary: Path | None) -> AuditReport | None:
    """Return what the audit says of a program."""
    if not binary:
        return None
    from nbsupport.audit import judge  # noqa: PLC0415

    return judge.audit([binary])


def _is_mixed(judgement: Judgement | None) -> bool | None:
    """Return whether an audit says that a program is mixed; None where it does not tell."""
    if acquits(judgement):
        return False
    return True if judgement and judgement.verdict == "mixed" else None


def _message(
    occurrences: Sequence[Occurrence], causes: Sequence[Cause], judgement: Judgement | None
) -> Facts:
    """Return what is known of a message: what it means, and what to do, cause by cause."""
    note = ""
    if judgement and acquits(judgement) and len(causes) < len(occurrences[0].message.causes):
        note = f" The program is not mixed ({judgement.why}), so causes that need a mix are out."
    steps = [f"{cause.why} {cause.tells} tells. {cause.do}" for cause in causes]
    if len(steps) > 1:
        steps = [f"({n}) {step}" for n, step in enumerate(steps, 1)]
    advice = " ".join(steps) or "None of the causes that are known is left: report it."
    summary = messages.summary(occurrences)
    return {"message": summary, "message_advice": advice, "unmixed_note": note}


def _decided(facts: Facts) -> Rule | None:
    return next((rule for rule in rules().values() if rule.decides(facts)), None)


def _rests(report: CrashReport, facts: Facts, occurrences: Sequence[Occurrence]) -> set[int]:
    """Return the lines that a judgement rests on: of fault and frames, or of what else is told."""
    if occurrences:
        return {occurrence.line for occurrence in occurrences}
    if report.rests:
        return set(report.rests)
    mismatch = facts["mismatch"].partition(" (")[0]
    named = facts["names"].rpartition(": ")[2].split(", ")
    words = [word for word in (mismatch, facts["profile_reader"], *named) if word]
    pattern = "|".join(map(re.escape, words))
    matching = (n for n, line in enumerate(report.lines) if pattern and re.search(pattern, line))
    died = (n for n, line in enumerate(report.lines) if DIED.search(line))
    return set(itertools.islice(itertools.chain(matching, died), 8))


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
