"""Each way to the user's crash, tried in a program: how its signature agrees with what was seen.

The mechanisms are data (`data/hypotheses/mechanisms.toml`). A signature is measured:
one program for each observation of the user's, changed in the same way, and run.
"""

import functools
import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import ipywidgets
import pandas as pd

from nbsupport.base import files, progress, settings
from nbsupport.base.errors import BuildError, LabError
from nbsupport.crash import Crash
from nbsupport.lab import Lab, Outcome
from nbsupport.show import look, shown
from nbsupport.show.widgets import ALL, Live, choice, live, page
from nbsupport.studies import build_change, profile_file
from nbsupport.studies.build_change import BuildChange
from nbsupport.studies.observations import Observation

#: Does a signature agree with an observation? "assumed": only if the mechanism, for a reason of
#: its own, is absent where the user saw no crash. "untried": a tool or a program is missing.
Agreement = Literal["yes", "no", "assumed", "untried"]

#: What the agreement of a mechanism with an observation means (see 06, section 3).
_AGREEMENTS: dict[Agreement, str] = {
    "yes": "agrees",
    "no": "contradicts it",
    "assumed": "agrees only if the mechanism was absent where the user saw no crash",
    "untried": "not tried here",
}
_FILLS = {"yes": look.GOOD, "assumed": look.YELLOW}  # else none: it says nothing for it
_AGREES = "agrees_"
#: The groups of rows in the figure, by the source of a mechanism, in the order of the data.
_GROUPS = {
    "control": "no change",
    "ours": "our explanation",
    "notes": "what the notes say",
    "rival": "other explanations",
}
#: What was measured, as a reason says it.
_PHRASES = {
    "crash at exit": "only at exit",
    "crash in main": "in main, before any write",
    "skipped without a word": "an empty file",
    "valid": "a valid profile",
}
_PAGE = 4096  # an address below it is 0, and the offset of a field or an element


@dataclass(frozen=True)
class Criterion:
    """How a mechanism is held against an observation; `criteria.toml` explains the fields."""

    head: str
    short: str
    programs: tuple[str, ...]
    costly: tuple[str, ...] = ()
    crash: tuple[str, ...] = ()
    debugger: bool = False
    same_function: bool = False
    column: str = ""
    says: str = ""
    detail: str = ""
    alive: tuple[str, ...] = ()
    in_crash: bool = True
    unlike: str = ""


@functools.cache
def criteria() -> Mapping[str, Criterion]:
    """Return the criterion of each observation that has one, by its id in data/seed."""
    path = settings.data_dir() / "hypotheses" / "criteria.toml"
    entries = files.read_toml(path).items()
    return {name: files.load(Criterion, entry, f"{path.name}: {name}") for name, entry in entries}


def _programs() -> tuple[str, ...]:
    """Return what is run of each mechanism, in the order of the table's columns."""
    return tuple(dict.fromkeys(name for one in criteria().values() for name in one.programs))


@dataclass(frozen=True)
class Signature:
    """What a mechanism looks like: the outcome of each program that was run, by its name.

    `small` is the program `cold` without its C part, `gcc` the same with that part by gcc. `merge`
    is what llvm-profdata says to what `rich` left. `errors` say why a program was not run.
    """

    mechanism: BuildChange
    outcomes: Mapping[str, Outcome]
    merge: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def why(self) -> str:
        """Why it was not tried at all, or ""."""
        return self.errors.get("cold", "")

    @property
    def measured(self) -> dict[str, str]:
        """What the programs came to, by columns of `compare`; "" where a program was not run."""
        dead = None if self.why else self.outcomes["cold"].crash
        return {
            "ends": self._end("cold"),
            "ends_explicit": self._end("explicit"),
            "function": (dead.function or "the C library") if dead else "",
            "address": printed(dead) if dead else "",
            "merge": self.merge.partition(":")[0],
        }

    def _end(self, program: str) -> str:
        return ends(self.outcomes[program]) if program in self.outcomes else ""

    def agrees(self, observation: Observation) -> Agreement:
        """Return whether it agrees with an observation; KeyError for one without criterion."""
        criterion = criteria()[observation.id]
        if self.why:
            return "untried"
        crashed = [self.outcomes[name] for name in criterion.crash if name in self.outcomes]
        if any(outcome.kind != "crash" for outcome in crashed):
            return "no"
        if not self.outcomes.keys() >= {*criterion.programs, *criterion.crash}:
            return "untried"
        functions = {outcome.crash.function for outcome in crashed if outcome.crash}
        if criterion.debugger and not all(outcome.crash for outcome in crashed):
            return "untried"
        if criterion.same_function and len(functions) > 1:
            return "no"
        says = criterion.says.format(value=observation.value)
        detail = self.outcomes[criterion.programs[0]].detail
        if says not in self.measured.get(criterion.column, "") or criterion.detail not in detail:
            return "no"
        alive = all(self.outcomes[name].kind != "crash" for name in criterion.alive)
        return "yes" if alive else "assumed"

    def fits(self, observations: Sequence[Observation]) -> dict[str, Agreement]:
        """Return its agreement with each of those observations that have a criterion."""
        return {one.id: self.agrees(one) for one in observations if one.id in criteria()}


def ends(outcome: Outcome) -> str:
    """Return how a program ends: its outcome, and for a crash when."""
    if outcome.crash is None:
        return outcome.kind
    names = {frame.function for frame in outcome.crash.frames}
    if "exit" in names:
        return "crash at exit"
    return f"crash in {'the write' if '__llvm_profile_write_file' in names else 'main'}"


def load() -> tuple[BuildChange, ...]:
    """Return the mechanisms, in the order to show them; the first is none."""
    return build_change.load("hypotheses/mechanisms.toml")


def measure(lab: Lab, llvm: str, foreign: str, *, whole: bool = True) -> tuple[Signature, ...]:
    """Make each mechanism happen, in parallel; return the signatures, in order.

    `llvm` is the LLVM that builds main and brings the runtime, `foreign` the other one. Unless it
    is to be `whole`, what is `costly` to compile is run of the mechanism `mixed` alone. Raises
    `LabError` where these two are not there. What cannot be run here says why, and prints it once.
    """
    lab.trial("cold", llvm, foreign)
    costly = {name for criterion in criteria().values() for name in criterion.costly}

    def make(mechanism: BuildChange) -> Signature:
        outcomes, merge, errors = dict[str, Outcome](), "", dict[str, str]()
        for name in _programs():
            if name in costly and not whole and mechanism.id != "mixed":
                continue
            try:
                outcomes[name], merged = _run(lab, mechanism, name, llvm, foreign)
                merge = merged or merge
            except LabError as error:
                errors[name] = re.sub(r"/\S*/", "", f"{error.what}: {error.why}")  # no places
        return Signature(mechanism, outcomes, merge, errors)

    signatures = progress.each(load(), make, "mechanisms")
    reasons = [signature.errors.values() for signature in signatures if not signature.why]
    for reason in dict.fromkeys(itertools.chain(*reasons)):
        print(f"left out: {reason}")  # noqa: T201 - the notebook shows it
    return tuple(signatures)


def _run(lab: Lab, change: BuildChange, name: str, llvm: str, foreign: str) -> tuple[Outcome, str]:
    """Return what comes of a program with a mechanism; for `rich` what is said of its profile."""
    program = "cold" if name in ("small", "gcc") else name
    if name == "small":
        change = replace(change, main=(*change.main, "-DALLOCATOR="), without_library=True)
        change = replace(change, instrument="none")
    elif name == "gcc":
        change = replace(change, foreign="gcc", instrument=None)
    trial = change.changed(lab, program, llvm, foreign)
    outcome = lab.run(trial)
    if outcome.kind == "build-failed":
        raise BuildError(f"{change.id} of {name}", outcome.detail, "", "")
    if name != "rich":
        return outcome, ""
    pattern = dict(trial.environment).get("LLVM_PROFILE_FILE", "run.profraw")
    return outcome, profile_file.run(lab, [trial], pattern).found


def compare(signatures: Sequence[Signature], observations: Sequence[Observation]) -> pd.DataFrame:
    """Return a row for each of the `signatures`, beside the `observations` of the user's.

    Of what differs from machine to machine it has only that it does. Columns: mechanism, source,
    what, `why` it was not made, the outcome of each program; how and in which function `cold`
    ends, the address that a debugger prints, how `explicit` ends, what llvm-profdata says to what
    `rich` leaves (merge); its agreements (`agrees_function` and so on, as `Agreement`).
    """
    rows = []
    for signature in signatures:
        mechanism, outcomes = signature.mechanism, signature.outcomes
        row: dict[str, str] = {"mechanism": mechanism.id, "source": mechanism.source}
        row |= {"what": mechanism.what, "why": signature.why}
        row |= {n: outcomes[n].kind if n in outcomes else "" for n in _programs()}
        row |= signature.measured
        row |= {f"{_AGREES}{name}": word for name, word in signature.fits(observations).items()}
        rows.append(row)
    return pd.DataFrame(rows)


def lacks(row: Mapping[Any, Any]) -> list[str]:
    """Return which observations of the user's crash a `row` of `compare` contradicts, by id.

    The numbers of the harness are no part of it: they are reported without a crash, too.
    """
    crash = [name for name, criterion in criteria().items() if criterion.in_crash]
    return [name for name in crash if row.get(f"{_AGREES}{name}") == "no"]


def missing(row: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return what of the user's crash a `row` of `compare` contradicts, in a word or two each."""
    return tuple(criteria()[name].short for name in lacks(row))


def reasons(row: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return in words how a `row` of `compare` differs from the user's crash."""
    if lacks(row) and not str(row["ends"]).startswith("crash"):
        return (f"does not crash ({row['ends']})",)
    words = []
    for name in lacks(row):
        measured = row.get(criteria()[name].column, "")
        words.append(criteria()[name].unlike.format(here=_PHRASES.get(measured, measured)))
    return tuple(words)


def untried(row: Mapping[Any, Any]) -> list[str]:
    """Return of which observations of the user's crash a `row` of `compare` says nothing, by id."""
    crash = [name for name, criterion in criteria().items() if criterion.in_crash]
    return [name for name in crash if row.get(f"{_AGREES}{name}") == "untried"]


def measurement(row: Mapping[Any, Any], observation: str) -> str:
    """Return what a `row` of `compare` has for an `observation`, by its id; "" for nothing."""
    criterion = criteria()[observation]
    columns = [criterion.column] if criterion.column else criterion.programs
    return ", ".join(dict.fromkeys(row[name] for name in columns if row[name]))


def table(compared: pd.DataFrame) -> shown.Shown:
    """Show what each mechanism comes to, measured: a table of `compare`."""
    columns = ["what", "ends", "function", "address", "ends_explicit", "merge"]
    heads = ["mechanism", "how it ends", "in function", "a debugger prints"]
    heads += ["with an explicit write", "llvm-profdata says"]
    rows = []
    for row in compared.to_dict("records"):
        cells = [row[name] or "-" for name in columns]
        unmade = [row["what"], f"not tried: {row['why']}", "", "", "", ""]
        rows.append(unmade if row["why"] else cells)
    return shown.table(heads, rows)


def figure(compared: pd.DataFrame, observations: Sequence[Observation]) -> shown.Shown:
    """Draw the matrix, mechanism x observation; the caption says which rows lack nothing.

    `compared` is a table of `compare` with the same `observations`.
    """
    columns = [observation for observation in observations if observation.id in criteria()]
    rows = [row for row in compared.to_dict("records") if not row["why"]]
    groups = list(dict.fromkeys(row["source"] for row in rows))
    ys = [n + 0.8 * (groups.index(row["source"]) + 1) for n, row in enumerate(rows)]
    drawn, ((axes,),) = look.charts(50 + 23 * (len(rows) + 0.8 * len(groups)))
    # What is no part of the crash stands apart.
    xs = [n if criteria()[fact.id].in_crash else n + 0.3 for n, fact in enumerate(columns)]
    for group in groups:
        first = next(y for y, row in zip(ys, rows, strict=True) if row["source"] == group)
        axes.text(-0.5, first - 0.85, _GROUPS[group], **look.HEAD)
    for y, row in zip(ys, rows, strict=True):
        for x, observation in zip(xs, columns, strict=True):
            word = row[f"{_AGREES}{observation.id}"]
            fill, text = _FILLS.get(word, "none"), word.replace("untried", "-")
            look.cell(axes, (x, y), (0.94, 0.86), fill, text)
    axes.set_xticks(xs, [criteria()[observation.id].head for observation in columns])
    axes.set_yticks(ys, [textwrap.fill(row["what"], 32) for row in rows])
    axes.set(xlim=(-0.5, xs[-1] + 0.5), ylim=(max(ys, default=0) + 0.5, -0.5))
    axes.xaxis.tick_top()
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("normal" if lacks(row) or untried(row) else "bold")
    whole = [row["what"] for row in rows if not lacks(row) and not untried(row)]
    caption = "A row is a mechanism, a column is something that the user saw. Green: the mechanism "
    caption += (
        "shows it. Yellow: it agrees only with an assumption. In bold, what shows all of the "
    )
    caption += f"crash. Of {len(rows)} mechanisms these do: {'; '.join(whole) or 'none'}."
    words = (f"{row['what']}: {', '.join(reasons(row)) or 'in nothing'}" for row in rows)
    return shown.framed(drawn, caption, f"how each differs from the crash: {'; '.join(words)}")


def printed(crash: Crash) -> str:
    """Return what a debugger prints as the address of a crash; in words where machines differ.

    On Linux on x86-64 that is 0x0 where the kernel knows none, as of an address that cannot exist.
    """
    if crash.fault_address_from == "registers":
        return "0x0"
    if crash.fault_address is None:
        return ""
    return f"{crash.fault_address:#x}" if crash.fault_address < _PAGE else "a real address"


def widget(compared: pd.DataFrame, observations: Sequence[Observation]) -> Live:
    """Return the matrix of mechanisms and observations, and in words what was measured for one.

    `compared` is of `compare` with the same `observations`. Without a kernel it is the figure.
    """
    rows = compared.to_dict("records")
    columns = [fact for fact in observations if f"{_AGREES}{fact.id}" in compared]
    whole = [row["what"] for row in rows if not (row["why"] or lacks(row) or untried(row))]
    mechanism = choice("mechanism", [ALL, *compared["what"]], next(iter(whole), ALL))
    observation = choice("observation", [ALL, *(fact.what for fact in columns)])

    def draw() -> str:
        mine = [row for row in rows if mechanism.value in (ALL, row["what"])]
        ours = [fact for fact in columns if observation.value in (ALL, fact.what)]
        if len(mine) == 1:
            return _judged(mine[0], ours)
        if len(ours) == 1:
            heads = ("mechanism", "here", f"{ours[0].what}: {ours[0].value}")
            lines = [(row["what"], *_measured(row, ours[0])) for row in mine]
        else:
            heads = ("mechanism", "contradicts", "of the crash")
            lines = [(row["what"], *_lacking(row, columns)) for row in mine]
        return shown.table(heads, lines, marked=False).html

    drawn = figure(compared, observations)
    return live([mechanism, observation], draw, drawn, ipywidgets.HTML(page(drawn.html)))


def _measured(row: Mapping[Any, Any], observation: Observation) -> tuple[str, str]:
    """Return what was measured for an observation, and whether that agrees with it."""
    agreement: Agreement = row[f"{_AGREES}{observation.id}"]
    return measurement(row, observation.id) or "-", _AGREEMENTS[agreement]


def _lacking(row: Mapping[Any, Any], asked: Sequence[Observation]) -> tuple[str, str]:
    """Return how many observations of the crash a mechanism contradicts, and which."""
    if row["why"]:
        return "-", f"not tried: {row['why']}"
    names = lacks(row)
    which = "; ".join(observation.what for observation in asked if observation.id in names)
    return str(len(names)), which or "nothing"


def _judged(row: Mapping[Any, Any], asked: Sequence[Observation]) -> str:
    """Return what was measured for one mechanism, beside what the user saw."""
    which = _lacking(row, asked)[1]
    verdict = which if row["why"] else f"contradicts {which}"
    head = shown.element("p", shown.element("b", row["what"]), f" {verdict}.")
    heads = ("the user saw", "namely", "here", "so it")
    lines = [(one.what, one.value, *_measured(row, one)) for one in asked]
    return head + shown.table(heads, lines, marked=False).html
