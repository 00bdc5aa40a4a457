"""An audit as SARIF 2.1.0, which code-scanning services read.

Source of the format: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote_from_bytes

from nbsupport import __version__
from nbsupport.audit.blame import Blame
from nbsupport.audit.judge import AuditReport, Judgement
from nbsupport.base import files
from nbsupport.base.errors import visible, visible_lines

Level = Literal["error", "warning", "note"]

#: What each rule finds: its level, and its sentence.
_RULES: Mapping[str, tuple[Level, str]] = {
    "mixed-record-layouts": (
        "error",
        "Compilers with different raw-profile record layouts instrumented objects of one link.",
    ),
    "several-runtimes": (
        "warning",
        "Images of one process bring profile runtimes that append to one file in two layouts.",
    ),
    "not-read": ("warning", "A file that counts was not read whole, so there is no verdict."),
}
#: Objects shown with each result: services refuse results with too many.
_MOST_RELATED = 20


def from_audit(report: AuditReport, paths: Sequence[Path], exit_code: int) -> dict[str, Any]:
    """Return the SARIF log of an audit, a document for `json.dumps`.

    A mix is an error for each image (or else one for the objects' link), with the files to blame
    beside it. What was not read is a warning: the verdict `unknown` is never an empty list of
    results. `paths` were audited, `exit_code` is the command's own. Paths under the current folder
    are relative to it.
    """
    rules = [
        {
            "id": name,
            "shortDescription": {"text": text},
            "defaultConfiguration": {"level": level},
        }
        for name, (level, text) in _RULES.items()
    ]
    driver = {"name": "pgo-lab", "version": __version__, "rules": rules}
    notes = [{"level": "warning", "message": {"text": visible(text)}} for text in _problems(report)]
    invocation = {
        "executionSuccessful": report.verdict != "unknown",
        "exitCode": exit_code,
        "toolExecutionNotifications": notes,
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [invocation],
        "results": list(_results(report, paths)),
        "columnKind": "unicodeCodePoints",
    }
    schema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
    return {"$schema": schema, "version": "2.1.0", "runs": [run]}


def _results(report: AuditReport, paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    judgement = report.judgement
    if report.verdict == "mixed":
        mixed = [file for file in report.telling if file.judgement.verdict == "mixed"]
        images = [file for file in mixed if file.linked]
        for file in images:
            yield _mixed(file.path, file.judgement)
        if not images:
            objects = judgement.blame or [Blame(file.path) for file in report.telling]
            yield _mixed(objects[0].path, judgement)
    if report.verdict == "unknown":
        unknown = [file for file in report.telling if file.judgement.verdict == "unknown"]
        for file in unknown:
            yield _result("not-read", file.path, file.judgement.why)
        if not unknown:  # a file that could not even be opened: it is among the notifications
            yield _result("not-read", paths[0], judgement.why)
    for warning in report.warnings:
        yield _result("several-runtimes", next(iter(warning.runtimes)), str(warning))


def _mixed(path: Path, judgement: Judgement) -> dict[str, Any]:
    result = _result("mixed-record-layouts", path, f"{judgement.why}. {judgement.advice}")
    related = [_related(file) for file in judgement.blame[:_MOST_RELATED]]
    return {**result, "relatedLocations": related}


def _result(rule: str, path: Path, text: str) -> dict[str, Any]:
    return {
        "ruleId": rule,
        "ruleIndex": list(_RULES).index(rule),
        "level": _RULES[rule][0],
        "message": {"text": visible_lines(text)},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(path)}}}],
        # A service shows a finding once while this stays the same.
        "partialFingerprints": {"pgoLab/v1": files.digest(rule, _uri(path))},
    }


def _related(file: Blame) -> dict[str, Any]:
    text = f"{file.count} foreign records" if file.count else "foreign records"
    if file.functions:
        text += f", of {', '.join(file.functions)}"
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": _uri(file.path)}},
        "message": {"text": visible(text)},
    }
    if file.members:
        names = [{"fullyQualifiedName": visible(f"{file.path.name}({m})")} for m in file.members]
        location["logicalLocations"] = names
    return location


def _uri(path: Path) -> str:
    """Return a path as a reference: relative where it is under the current folder."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - a link stays one
    under = absolute.is_relative_to(Path.cwd())
    if under:
        absolute = absolute.relative_to(Path.cwd())
    quoted = quote_from_bytes(os.fsencode(absolute.as_posix()))
    return quoted if under else f"file://{quoted}"


def _problems(report: AuditReport) -> list[str]:
    inside = [f"{file.path}: {problem}" for file in report.files for problem in file.problems]
    return [*report.problems, *inside]
