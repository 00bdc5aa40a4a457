"""Workarounds on trial: a small change to a program that crashes, and how the program ends then.

What a workaround changes is data (`data/workarounds/workarounds.toml`). How it fares, runs show:
of the program with the change, and of the same change where one LLVM compiles all (the control).
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nbsupport.base import LabError, process, progress, settings
from nbsupport.crash import runtime
from nbsupport.lab import Lab, Outcome, Trial, build, counts
from nbsupport.show import shown
from nbsupport.show.widgets import ALL, Live, choice, live
from nbsupport.studies import build_change
from nbsupport.studies.build_change import BuildChange
from nbsupport.toolchains import profdata

PARTS = ("main", "library")
#: How often a program is run, for its counts (which chance may spoil) and for its time.
_RUNS = 5
#: Outcomes of a program that is no better off.
_DEAD = ("crash", "failed", "limit", "build-failed")
#: Verdicts by how they begin, from the best to the worst, and in short.
_RANKS = {
    "not tried": "",
    "not needed": "is healthy",
    "whole profile": "whole profile",
    "no crash": "lacks counts",
    "no crash, no profile": "no profile",
    "does not help": "with an error",
}
#: Columns of the two tables.
_SHOWN = ("workaround", "source", "verdict", "outcome", "why", *PARTS, "control")
_COSTS = ("workaround", "change", "needs", "rebuilt", "values", "usual_values", "build", "run")
#: A case without a change, what comes of it, and the number of values by one LLVM.
_Case = tuple[Trial, Outcome, int]


@dataclass(frozen=True)
class Row:
    """How a workaround fared on a program; without a trial it was not tried.

    `why` says where the program dies, what it prints, or why it was not tried. `case`,
    `outcome` and `control` are without the change, with it, and with it where one LLVM makes
    all. By part: `right` is the number of functions with right counts, `functions` how many it
    has when instrumented. `values` is how many the profile has, `seconds` are of a clean build and
    of a run; `usual_` are those of the case unchanged, by one LLVM. `rebuilt`: to compile again.
    """

    workaround: BuildChange
    program: str
    why: str = ""
    trial: Trial | None = None
    case: Outcome | None = None
    outcome: Outcome | None = None
    control: Outcome | None = None
    right: tuple[int, ...] = (0, 0)
    functions: tuple[int, ...] = (0, 0)
    values: int = 0
    usual_values: int = 0
    rebuilt: tuple[str, ...] = ()
    seconds: tuple[float, float] = (0.0, 0.0)
    usual_seconds: tuple[float, float] = (0.0, 0.0)

    @property
    def verdict(self) -> str:
        """Return `whole profile` (each function is right), `no crash, lacks ...`, `does not help`.

        A workaround does not help where the program dies, fails or is not built. Values are lacking
        if all are. `not tried`, `not needed`: there is nothing to judge.
        """
        if not self.case or not self.outcome:
            return "not tried"
        if self.case.kind == "ok":
            return "not needed"
        if self.outcome.kind in _DEAD:
            return "does not help"
        if not any(self.right):
            return "no crash, no profile"
        parts = zip(PARTS, self.right, self.functions, strict=True)
        lost = [f"{all_ - n} of {all_} functions of {part}" for part, n, all_ in parts if n < all_]
        if self.usual_values and not self.values:
            lost.append("all values")
        return f"no crash, lacks {' and '.join(lost)}" if lost else "whole profile"

    @property
    def step(self) -> str:
        """Return where the program dies, or what main's end leaves; "" where it was not tried.

        A program that dies at a value site never comes to the write: it says nothing about writing.
        """
        if not self.outcome:
            return ""
        if not self.outcome.crash:
            return f"main ends: {list(_RANKS.values())[self.rank]}"
        names = [frame.function.lstrip("_") for frame in self.outcome.crash.frames]
        reader, _ = runtime.innermost(names)
        if not reader:
            return f"dies in {self.outcome.crash.function or 'code without a name'}"
        return (
            "dies at a value site" if reader in runtime.readers()["sites"] else "dies in the write"
        )

    @property
    def rank(self) -> int:
        """Return the place of the verdict among all verdicts, from the best to the worst."""
        starts = (n for n, start in enumerate(_RANKS) if self.verdict.startswith(start))
        return max(starts)

    def to_row(self) -> dict[str, Any]:
        """Return the columns of a table; `build` and `run` are times, relative to the usual ones.

        They alone differ from run to run. None: not tried, or not measured.
        """
        parts = zip(PARTS, self.right, self.functions, strict=True)
        times = zip(("build", "run"), self.seconds, self.usual_seconds, strict=True)
        return {
            "workaround": self.workaround.id,
            "source": self.workaround.source,
            "change": self.workaround.what,
            "needs": self.workaround.needs,
            "program": self.program,
            "case": self.case and self.case.kind,
            "outcome": self.outcome and self.outcome.kind,
            "control": self.control and self.control.kind,
            **{part: f"{n} of {total}" if total else None for part, n, total in parts},
            "verdict": self.verdict,
            "step": self.step,
            "why": self.why,
            "rebuilt": ", ".join(self.rebuilt),
            "values": self.values if self.trial else None,
            "usual_values": self.usual_values if self.trial else None,
            **{name: round(new / old, 1) if new and old else None for name, new, old in times},
        }


def load() -> tuple[BuildChange, ...]:
    """Return the workarounds, in the order to try them; the first changes nothing."""
    return build_change.load("workarounds/workarounds.toml")


def try_all(
    lab: Lab,
    program: str,
    llvm: str,
    foreign: str,
    *,
    only: Sequence[str] = (),
    whole: bool = True,
) -> tuple[Row, ...]:
    """Try the workarounds (or `only` those named) on a case; return a row for each, in order.

    The case is a `program` with its main by `llvm` and its library by `foreign`; what cannot be
    tried on it is tried on the first program that it is for. Without `whole`, those that take long
    are left out. Raises `LabError` where the case itself cannot be made, or there is no such
    workaround.
    """
    everything = {workaround.id: workaround for workaround in load()}
    for name in only:
        if name not in everything:
            choice = f"choose from {', '.join(everything)}"
            raise LabError(f"workaround {name}", "there is none", choice)
    chosen = [everything[name] for name in everything if name in only]
    if not only:
        quick = [w for w in everything.values() if not w.whole or program in w.on]
        chosen = [*everything.values()] if whole else quick
    lab.trial(program, llvm, foreign)

    @functools.cache
    def case(name: str) -> _Case:
        trial, uniform = (lab.trial(name, llvm, other) for other in (foreign, llvm))
        return trial, lab.run(trial), _values(_texts(lab, uniform))

    def try_one(workaround: BuildChange) -> Row:
        name = program if program in (workaround.on or (program,)) else workaround.on[0]
        try:
            trials = [workaround.changed(lab, name, llvm, other) for other in (foreign, llvm)]
            return _try(lab, workaround, case(name), *trials)
        except LabError as error:
            return Row(workaround, name, f"{error.what}: {error.why}")

    rows = progress.each(chosen, try_one, "workarounds")
    usual = functools.cache(lambda name: _seconds(lab, lab.trial(name, llvm, llvm)))
    for n, row in enumerate(rows):  # when nothing else of ours runs
        if row.trial and row.outcome and row.outcome.kind not in _DEAD:
            took, usually = _seconds(lab, row.trial), usual(row.program)
            rows[n] = dataclasses.replace(row, seconds=took, usual_seconds=usually)
    return tuple(rows)


def try_each(
    lab: Lab, programs: Sequence[str], llvm: str, foreign: str, *, whole: bool = True
) -> dict[str, tuple[Row, ...]]:
    """Try the workarounds on several programs, which die at different steps; see `try_all`.

    On the first all are tried; on the others, which are cases of the same mix, those that they can
    be tried on.
    """
    fared = {name: try_all(lab, name, llvm, foreign, whole=whole) for name in programs}
    return {
        name: tuple(row for row in rows if name == programs[0] or row.program == name)
        for name, rows in fared.items()
    }


def worst(fared: Mapping[str, Sequence[Row]]) -> tuple[Row, ...]:
    """Return of each workaround how it fared where it fared worst, the first program's if alike."""
    by_workaround: dict[str, list[Row]] = {}
    for row in itertools.chain.from_iterable(fared.values()):
        by_workaround.setdefault(row.workaround.id, []).append(row)
    return tuple(max(rows, key=lambda row: row.rank) for rows in by_workaround.values())


def show_steps(fared: Mapping[str, Sequence[Row]]) -> shown.Shown:
    """Show how far each program came with each workaround; "-": it cannot be tried on it."""
    programs = list(fared)
    lines = []
    for own in worst(fared):
        line = [own.workaround.id, own.workaround.source]
        for program in programs:
            rows = [row for row in fared[program] if row.workaround == own.workaround]
            elsewhere = f" ({rows[0].program})" if rows and rows[0].program != program else ""
            line.append(f"{rows[0].step}{elsewhere}" if rows and rows[0].step else "-")
        lines.append([*line, own.verdict])
    return shown.table(["workaround", "source", *programs, "verdict (the worst)"], lines)


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the rows as a table, without times, which differ from run to run."""
    return pd.DataFrame([row.to_row() for row in rows]).drop(columns=["build", "run"])


def script_help() -> str:
    """Return what data/build_pgo.sh, which makes a build that one LLVM profiles, says of itself."""
    script = settings.data_dir() / "build_pgo.sh"
    return process.run(["bash", script, "--help"], cwd=script.parent).stdout


def table(rows: Sequence[Row], kept: Sequence[Row] | None = None) -> shown.Shown:
    """Show how each fared, or only those `kept`; one on another program than the first says so.

    `control` is by one LLVM, `main` and `library` are functions with right counts.
    """
    return _show(rows, _SHOWN, rows if kept is None else kept)


def show_costs(rows: Sequence[Row]) -> shown.Shown:
    """Show what each changes, needs and costs; times are measured, relative to the usual ones."""
    return _show(rows, _COSTS, rows)


def _show(rows: Sequence[Row], columns: Sequence[str], kept: Sequence[Row]) -> shown.Shown:
    cells = [row.to_row() for row in kept]
    lines = [[_text(row[column]) for column in columns] for row in cells]
    for row, line in zip(kept, lines, strict=True):
        if row.program != rows[0].program:
            line[0] += f" ({row.program})"
    return shown.table([column.replace("_", " ") for column in columns], lines)


def _text(value: object) -> str:
    """Return a cell; times have a sign by which nbval knows them (tests/notebooks/sanitize.cfg)."""
    if isinstance(value, float):
        return f"{value:4.1f} ×"
    return "-" if value is None else str(value)


def _try(lab: Lab, workaround: BuildChange, case: _Case, trial: Trial, control: Trial) -> Row:
    unchanged, before, values = case
    parts = _expected(lab, trial, unchanged)
    outcome = lab.run(trial)
    why = f"dies in {outcome.crash.function}" if outcome.crash else outcome.detail
    row = Row(
        workaround,
        trial.program.name,
        "" if outcome.kind == "ok" else re.sub(r"/\S*/", "", why),
        trial,
        before,
        outcome,
        lab.run(control),
        functions=tuple(map(len, parts)),
        usual_values=values,
        rebuilt=_rebuilt(trial, unchanged),
    )
    if outcome.kind in _DEAD:
        return row
    texts = _texts(lab, trial)
    right = max((_right(counts.parse(text), parts) for text in texts), key=sum)
    return dataclasses.replace(row, right=right, values=_values(texts))


def _texts(lab: Lab, trial: Trial) -> list[str]:
    return [lab.run_once(trial)[0] for _ in range(_RUNS)]


def _seconds(lab: Lab, trial: Trial) -> tuple[float, float]:
    """Return the seconds of a clean build, and of the fastest of some runs."""
    return build.seconds(trial, lab.cache), min(lab.run_once(trial)[1] for _ in range(_RUNS))


def _values(texts: Sequence[str]) -> int:
    return max(sum(row.values for row in profdata.parse(text).values()) for text in texts)


def _right(seen: counts.Counts, parts: Sequence[counts.Expected]) -> tuple[int, ...]:
    """Return how many functions of each part have the counts that they should."""
    whole = counts.together(parts)
    right = {key for key in seen if key in whole and whole[key] in (None, seen[key])}
    return tuple(len(right & part.keys()) for part in parts)


def _expected(lab: Lab, trial: Trial, case: Trial) -> list[counts.Expected]:
    """Return the counts that both parts should have, instrumented or not.

    Where the changed part profiles not even alone, or cannot, they are those of the part unchanged.
    """
    changed = list(dataclasses.replace(trial, main_instrument="ir", instrument="ir").references)
    if not trial.program.library or trial.foreign.raw_version is None:
        changed[1:] = case.references[1:]
    expected: list[counts.Expected] = [{}, {}]  # a library by gcc is not instrumented
    for n, (part, unchanged) in enumerate(zip(changed, case.references, strict=False)):
        try:
            expected[n] = lab.reference(part)
        except LabError:
            expected[n] = lab.reference(unchanged)
    return expected


def _rebuilt(trial: Trial, case: Trial) -> tuple[str, ...]:
    """Return which parts of a case are to be compiled again for a changed one."""
    mains = {(one.program.main, one.main, one.main_instrument) for one in (trial, case)}
    libraries = {(one.program.library, one.foreign, one.instrument) for one in (trial, case)}
    again = len(mains) > 1, len(libraries) > 1 and bool(trial.program.library)
    return tuple(part for part, differs in zip(PARTS, again, strict=True) if differs)


def widget(rows: Sequence[Row]) -> Live:
    """Return the workarounds with a choice of verdict and source, and one of them explained.

    A page without a kernel shows the whole table.
    """
    sources = [ALL, *(row.workaround.source for row in rows)]
    verdicts = [ALL, *(re.sub(",.*", "", row.verdict) for row in rows)]
    verdict, source = choice("verdict", verdicts), choice("source", sources)
    workaround = choice("workaround", [row.workaround.id for row in rows])

    def draw() -> str:
        chosen = [row for row in rows if source.value in (ALL, row.workaround.source)]
        if verdict.value != ALL:
            chosen = [row for row in chosen if row.verdict.startswith(verdict.value)]
        explained = next(row for row in rows if row.workaround.id == workaround.value)
        return table(rows, chosen).html + _explained(explained)

    return live([verdict, source, workaround], draw, table(rows))


def _explained(row: Row) -> str:
    """Return in words what a workaround changes, how it fared and why."""
    cells, change = row.to_row(), row.workaround
    lines = {"changes": change.what, "needs": change.needs, "tried on": row.program}
    for name in ("main", "rust", "library", "link"):
        lines[f"flags of {name}"] = " ".join(getattr(change, name))
    lines["environment"] = " ".join(f"{name}={value}" for name, value in change.environment)
    lines["verdict"] = f"{row.verdict}: {row.why}" if row.why else row.verdict
    parts = [f"{cells[name]} of {name}" for name in PARTS if cells[name]]
    lines["functions with right counts"] = "; ".join(parts)
    lines["by one LLVM alone"] = cells["control"] or ""
    return shown.table(("workaround", change.id), [row for row in lines.items() if row[1]]).html
