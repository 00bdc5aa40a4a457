"""What the command line shows people, on standard output: `--json` is for scripts."""

from __future__ import annotations

import shlex
import sys
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nbsupport.base.errors import visible, visible_lines

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nbsupport.audit.judge import Audited, AuditReport, Judgement
    from nbsupport.crash.crash import Crash
    from nbsupport.crash.explanation import Explanation
    from nbsupport.forecast.verdict import Forecast
    from nbsupport.lab.outcome import Outcome
    from nbsupport.toolchains.probe import Toolchain

#: Files that a table for people shows.
_SHOWN = 30


class _Lines(Console):
    """Standard output; nothing that a file or its name holds controls the terminal."""

    def print(self, *parts: Any, **options: Any) -> None:
        """Print texts, in visible characters, and tables, whose cells are such already."""
        super().print(*(visible_lines(p) if isinstance(p, str) else p for p in parts), **options)


def _console() -> Console:
    """Return a console; paths stay whole where no terminal forces a width."""
    return _Lines(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 10_000)


def say(*lines: object, err: bool = False) -> None:
    """Print lines, each in visible characters."""
    typer.echo("\n".join(visible(str(line)) for line in lines), err=err)


def toolchains(compilers: Iterable[Toolchain]) -> None:
    """Show compilers, as wide as the terminal is."""
    compilers = list(compilers)
    table = Table()
    # Names are what other commands take: they stay whole however narrow the terminal is.
    longest = max((len(t.name) for t in compilers), default=0)
    table.add_column("name", no_wrap=True, min_width=longest)
    for heading in ("version", "raw version", "runtime", "llvm-profdata", "LLDB"):
        table.add_column(heading)
    table.add_column("prefix")
    for t in compilers:
        marks = ("yes" if tool else "-" for tool in (t.runtime, t.llvm_profdata, t.lldb))
        raw = "-" if t.raw_version is None else str(t.raw_version)
        table.add_row(t.name, t.version, raw, *marks, escape(visible(str(t.prefix))))
    Console().print(table)


def outcome(result: Outcome, *notes: str) -> None:
    """Show what came of a trial, and notes on it."""
    out = _console()
    out.print(f"[bold]{result.kind}[/bold]: {escape(result.detail)}")
    if result.crash:
        _crash(out, result.crash)
    for note in notes:
        out.print(note, markup=False)


def _crash(out: Console, dead: Crash) -> None:
    for n, frame in enumerate(dead.frames):
        offset = "" if frame.offset is None else f" + {frame.offset}"
        module = f" ({frame.module})" if frame.module else ""
        out.print(f"  #{n} {frame.function or '?'}{offset}{module}", markup=False)
    if dead.fault_address is not None:
        source = "from the registers" if dead.fault_address_from == "registers" else "as told"
        instruction = f": {dead.instruction}" if dead.instruction else ""
        out.print(f"  at {dead.fault_address:#x} ({source}){instruction}", markup=False)


def verdict(judgement: Judgement) -> None:
    """Show the verdict of an audit, before all that follows from it."""
    out = _console()
    colour = {"mixed": "red", "consistent": "green"}.get(judgement.verdict, "yellow")
    out.print(f"[bold {colour}]{judgement.verdict}[/]: {escape(judgement.why)}")
    if judgement.verdict == "mixed":
        orders = " (by link order and runtime)" if len(judgement.links) > 1 else ""
        out.print(f"what will happen: {' or '.join(judgement.outcomes)}{orders}")
    sys.stdout.flush()


def audit(report: AuditReport) -> None:
    """Show the rest of an audit; what could not be read goes to standard error."""
    out = _console()
    judgement = report.judgement
    files = report.telling[:_SHOWN]
    if files:
        out.print(_audited(files))
    paths = {file.path for file in files}
    others = Counter(file.judgement.verdict for file in report.files if file.path not in paths)
    if others:
        out.print("others: " + ", ".join(f"{count} {what}" for what, count in others.items()))
    for origin in report.origins[:_SHOWN]:
        out.print(f"foreign: {origin}", markup=False)
    if rest := len(report.origins[_SHOWN:]):
        out.print(f"foreign: {rest} more crates or folders (--json lists all)")
    for warning in report.warnings:
        out.print(f"[yellow]warning[/]: {escape(str(warning))}")
        for path, version in warning.runtimes.items():
            out.print(f"  runtime of raw version {version}: {path}", markup=False)
    if judgement.advice:
        out.print(f"do: {judgement.advice}", markup=False)
    inside = (f"{file.path}: {problem}" for file in report.files for problem in file.problems)
    _problems(*report.problems, *inside)


def _audited(files: Iterable[Audited]) -> Table:
    table = Table("verdict", "raw version", "runtime", "bytes x records", box=None)
    table.add_column("file", overflow="fold")
    for file in files:
        row = file.to_json()
        versions = ", ".join(map(str, row["raw_versions"])) or "?"
        layouts = ", ".join(f"{size} x {count}" for size, count in file.layouts[:6])
        runtime = str(row["runtime_raw_version"] or "-")
        table.add_row(row["verdict"], versions, runtime, layouts, escape(visible(row["path"])))
    return table


def _problems(*problems: str) -> None:
    for problem in problems[:_SHOWN]:
        say(f"pgo-lab: {problem}", err=True)
    if rest := len(problems[_SHOWN:]):
        say(f"pgo-lab: and {rest} more (--json lists all)", err=True)


def profile(document: dict[str, Any], path: Path) -> None:
    """Show what `training.to_json` says of raw profiles; its parts are taken out of it.

    `path` is the file that was read, or the folder.
    """
    out = _console()
    table = Table("state", "raw version", "functions", "counters", box=None)
    table.add_column("file", overflow="fold")
    others, faults = list[str](), defaultdict[tuple[int, str], list[str]](list)
    for file in document.pop("files", ()):
        if file["state"] == "not-a-profile":
            others.append(file["path"])
            continue
        numbers = (str(file[key] or "-") for key in ("raw_version", "functions", "counters"))
        table.add_row(file["state"], *numbers, escape(visible(file["path"])))
        for fault in file["problems"]:
            faults[fault["offset"], fault["what"]].append(file["path"])
    if table.row_count:
        out.print(table)
    if others:
        what = "other files, at which a merge of the folder fails; the first is"
        out.print(visible(f"{len(others)} {what} {others[0]}"), markup=False)
    problems = document.pop("problems")
    for (offset, what), paths in faults.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        problems.append({"file": paths[0] + more, "offset": offset, "what": what})
    document["valid"] = "yes" if document["valid"] else "no"
    for key, value in document.items():
        text = ", ".join(value) if isinstance(value, list | tuple) else value
        out.print(f"{key.replace('_', ' ')}: {'-' if text in (None, '') else text}", markup=False)
    for problem in problems:
        place = None if problem["offset"] is None else f"byte {problem['offset']}"
        places = filter(None, (problem.get("file"), place))
        out.print(visible(": ".join((*places, problem["what"]))), markup=False)
    if document["valid"] == "no" and document["raw_version"] and path.is_file():
        file = shlex.quote(str(path))
        out.print(f"do: pgo-lab rescue --profraw {file} --binary PROGRAM", markup=False)


def explanation(answer: Explanation) -> None:
    """Show the verdict on a crash."""
    out = _console()
    face = f", {answer.face}" if answer.face else ""
    colour = {"ours": "red", "unknown": "yellow"}.get(answer.verdict, "green")
    certainty = f", {answer.certainty}" if answer.verdict in ("ours", "not-ours") else ""
    out.print(f"[bold {colour}]{answer.verdict}{certainty}{face}[/]: {escape(answer.why)}")
    _crash(out, answer.crash)
    for key, value in (answer.record or {}).items():
        out.print(f"record {key.replace('_', ' ')}: {value}", markup=False)
    if answer.lines:
        numbers = ", ".join(str(number) for number, _ in answer.lines)
        out.print(
            f"read in line {numbers}" if len(answer.lines) == 1 else f"read in lines {numbers}"
        )
    for number, cause in enumerate(answer.causes if len(answer.causes) > 1 else (), 1):
        out.print(f"  {number}. {cause.why}", markup=False)
        out.print(f"     {cause.tells} tells. {cause.do}", markup=False)
    if len(answer.causes) < 2 or answer.verdict != "no-crash":
        out.print(f"do: {answer.advice}", markup=False)
    _problems(*answer.problems)


def forecast(answer: Forecast) -> None:
    """Show what will happen in a build, and what to paste."""
    out = _console()
    colour = {"mixed": "red", "consistent": "green"}.get(answer.verdict, "yellow")
    out.print(f"[bold {colour}]{answer.verdict}[/]: {escape(answer.why)}")
    if answer.verdict == "mixed":
        out.print(f"what will happen: {' or '.join(answer.outcomes)}")
    if answer.rustc:
        out.print(answer.rustc, markup=False)
    for call in answer.calls:
        versions = sorted({piece.raw_version for piece in call.pieces})
        state = f"raw version {', '.join(map(str, versions))}" if versions else "not instrumented"
        what = f"{call.language}: {shlex.join(call.command)} ({call.because}): {call.name}, {state}"
        out.print(what, markup=False)
        if call.cc:
            names = ", ".join(call.packages)
            out.print(f"  {call.cc} hands it {call.effect}, for {names}", markup=False)
    if answer.llvm_profdata:
        words = {True: "reads", False: "does not read", None: "may read"}
        reads = words[answer.profdata_reads]
        out.print(f"{answer.llvm_profdata} {reads} what this rustc writes", markup=False)
    for name, reason in answer.undecided.items():
        out.print(f"not known: build.rs of {name}: {reason}", markup=False)
    for note in answer.notes:
        out.print(f"note: {note}", markup=False)
    if answer.advice:
        out.print(f"do: {answer.advice}", markup=False)
    if answer.lines and answer.verdict == "mixed":
        out.print("in a shell:", markup=False)
        out.print(answer.lines.shell(), markup=False)
        out.print("or in .cargo/config.toml, after the first line above:", markup=False)
        out.print(answer.lines.config(), markup=False)
        out.print("or with cargo-pgo:", markup=False)
        out.print(answer.lines.cargo_pgo(), markup=False)
