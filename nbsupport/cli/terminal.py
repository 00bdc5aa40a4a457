"""What the command line shows people, on standard output: `--json` is for scripts."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from nbsupport.audit.judge import AuditReport
    from nbsupport.crash.crash import Crash
    from nbsupport.crash.explanation import Explanation
    from nbsupport.lab.outcome import Outcome

#: Files that a table for people shows.
_SHOWN = 30


def _console() -> Console:
    """Return a console; paths stay whole where no terminal forces a width."""
    return Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 10_000)


def outcome(found: Outcome) -> None:
    """Show what came of a trial."""
    out = _console()
    out.print(f"[bold]{found.kind}[/bold]: {escape(found.detail)}")
    if found.crash:
        _crash(out, found.crash)


def _crash(out: Console, dead: Crash) -> None:
    for n, frame in enumerate(dead.frames):
        offset = "" if frame.offset is None else f" + {frame.offset}"
        out.print(f"  #{n} {frame.function or '?'}{offset} ({frame.module or '?'})", markup=False)
    if dead.fault_address is not None:
        how = f"from the {dead.fault_address_from}"
        what = dead.instruction or "?"
        out.print(f"  at {dead.fault_address:#x} ({how}): {what}", markup=False)


def audit(report: AuditReport) -> None:
    """Show an audit; what could not be read goes to standard error."""
    out = _console()
    found = report.judgement
    colour = {"mixed": "red", "consistent": "green"}.get(found.verdict, "yellow")
    out.print(f"[bold {colour}]{found.verdict}[/]: {escape(found.why)}")
    if found.verdict == "mixed":
        orders = " (by link order and runtime)" if len(found.links) > 1 else ""
        out.print(f"what will happen: {' or '.join(found.outcomes)}{orders}")
    shown = report.telling[:_SHOWN]
    if shown:
        table = Table("verdict", "raw version", "runtime", "bytes x records", box=None)
        table.add_column("file", overflow="fold")
        for one in shown:
            row = one.to_json()
            layouts = [f"{size} x {count}" for size, count in one.layouts]
            cells = (row["raw_versions"] or "?", row["runtime_raw_version"] or "-", layouts[:6])
            text = (str(cell).translate({39: None}).strip("[]") for cell in cells)
            table.add_row(row["verdict"], *text, escape(row["path"]))
        out.print(table)
    paths = {one.path for one in shown}
    others = Counter(one.judgement.verdict for one in report.files if one.path not in paths)
    if others:
        out.print("others: " + ", ".join(f"{count} {what}" for what, count in others.items()))
    for blame in found.blame[:_SHOWN]:
        names = ", ".join(blame.functions) + (", …" if blame.count > len(blame.functions) else "")
        what = f": {blame.count} functions: {names}" if blame.count else ""
        out.print(f"foreign: {blame.path}{what}", markup=False)
    if rest := len(found.blame[_SHOWN:]):
        out.print(f"foreign: {rest} more files (--json lists all)")
    if found.advice:
        out.print(f"do: {found.advice}", markup=False)
    inside = (f"{one.path}: {problem}" for one in report.files for problem in one.problems)
    for problem in (*report.problems, *inside):
        print(f"pgo-lab: {problem}", file=sys.stderr)  # noqa: T201


def profile(document: dict[str, Any]) -> None:
    """Show what `training.to_json` says of raw profiles; its parts are taken out of it."""
    out = _console()
    table = Table("state", "raw version", "functions", "counters", box=None)
    table.add_column("file", overflow="fold")
    for file in document.pop("files", ()):
        numbers = (str(file[key] or "-") for key in ("raw_version", "functions", "counters"))
        table.add_row(file["state"], *numbers, escape(file["path"]))
        document["problems"] += [{**one, "file": file["path"]} for one in file["problems"]]
    if table.row_count:
        out.print(table)
    problems = document.pop("problems")
    document["valid"] = "yes" if document["valid"] else "no"
    for key, value in document.items():
        shown = ", ".join(value) if isinstance(value, list | tuple) else value
        out.print(f"{key.replace('_', ' ')}: {'-' if shown in (None, '') else shown}", markup=False)
    for one in problems:
        places = (one.get("file"), None if one["offset"] is None else f"byte {one['offset']}")
        out.print(": ".join((*filter(None, places), one["what"])), markup=False)


def explanation(found: Explanation) -> None:
    """Show the verdict on a crash."""
    out = _console()
    verdict = f"{found.verdict}, {found.certainty}" + (f", {found.face}" if found.face else "")
    out.print(
        f"[bold {'red' if found.verdict == 'ours' else 'green'}]{verdict}[/]: {escape(found.why)}"
    )
    _crash(out, found.crash)
    for key, value in (found.record or {}).items():
        out.print(f"record {key.replace('_', ' ')}: {value}", markup=False)
    out.print(f"do: {found.advice}", markup=False)
    for problem in found.problems:
        print(f"pgo-lab: {problem}", file=sys.stderr)  # noqa: T201
