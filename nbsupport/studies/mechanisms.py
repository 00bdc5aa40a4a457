"""Each way to the user's crash, made to happen: how its signature agrees with what was seen.

What there is to make happen is data (`data/hypotheses/mechanisms.toml`). A signature is measured:
one program for each observation of the user's, changed in the same way, and run.
"""

from __future__ import annotations

import html
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import ipywidgets

from nbsupport.base import progress
from nbsupport.base.errors import BuildError, LabError
from nbsupport.crash.crash import Crash
from nbsupport.lab.lab import Lab
from nbsupport.lab.outcome import Outcome
from nbsupport.show import look, shown
from nbsupport.show.widgets import ALL, Live, choice, live, page
from nbsupport.studies import build_change, profile_file
from nbsupport.studies.build_change import BuildChange
from nbsupport.studies.observations import Observation

if TYPE_CHECKING:
    import pandas as pd


#: Does a signature agree with an observation? "assumed": only if the mechanism, for a reason of
#: its own, is absent where the user saw no crash. "untried": a tool or a program is missing.
Agreement = Literal["yes", "no", "assumed", "untried"]

#: By observation (data/seed): the programs that are run for it.
_ASKED = {
    "function": ("cold",),
    "address": ("cold",),
    "moment": ("explicit",),
    "merge": ("rich",),
    "allocators": ("mimalloc", "jemalloc"),
    "size": ("small",),
    "systems": ("gcc",),
    "entries": ("asked",),
}
_PROGRAMS = tuple(dict.fromkeys(name for names in _ASKED.values() for name in names))
#: An observation, as the head of a column.
_BRIEF = {
    "function": "dies in\ninitialize…\nRecord",
    "address": "debugger\nprints\n0x0",
    "moment": "an explicit\nwrite dies,\ntoo",
    "systems": "healthy\nwith gcc\n(Linux)",
    "allocators": "mimalloc\nand je-\nmalloc",
    "size": "healthy\nwithout C\n(small)",
    "merge": "too much\nprofile\ndata",
    "entries": "impossible\nnumbers\n(no crash)",
}
_FILLS = {"yes": look.GOOD, "assumed": look.YELLOW}  # else none: it says nothing for it
_AGREES = "agrees_"
_PAGE = 4096  # an address below it is 0, and the offset of a field or an element


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
        """Why it was not made to happen at all, or ""."""
        return self.errors.get("cold", "")

    def agrees(self, seen: Observation) -> Agreement:
        """Return whether it agrees with an observation; raises KeyError for one not asked of."""
        asked = [self.outcomes[name] for name in _ASKED[seen.id] if name in self.outcomes]
        if self.why or len(asked) < len(_ASKED[seen.id]):
            return "untried"
        first, plain = asked[0], self.outcomes["cold"]
        if seen.id == "entries":  # the question alone, whether it crashes or not
            return _word("impossible" in first.detail)
        if seen.id in ("size", "systems"):
            if plain.kind != "crash":
                return "no"
            return "assumed" if first.kind == "crash" else "yes"
        if seen.id in ("merge", "allocators"):
            said = seen.value in self.merge if seen.id == "merge" else True
            return _word(said and all(one.kind == "crash" for one in asked))
        if first.kind != "crash" or plain.kind != "crash":
            return "no"
        if first.crash is None or plain.crash is None:  # no debugger
            return "untried"
        if seen.id == "function":
            return _word(first.crash.function == seen.value)
        if seen.id == "address":  # what a debugger prints where the kernel knows no address
            by_registers = first.crash.fault_address_from == "registers"
            return _word(by_registers or first.crash.fault_address == 0)
        names = {frame.function for frame in first.crash.frames}
        writes = "__llvm_profile_write_file" in names and "exit" not in names
        return _word(writes and first.crash.function == plain.crash.function)

    def fits(self, seen: Sequence[Observation]) -> dict[str, Agreement]:
        """Return its agreement with each of those observations that can be asked of."""
        return {one.id: self.agrees(one) for one in seen if one.id in _ASKED}


def _word(agrees: bool) -> Agreement:
    return "yes" if agrees else "no"


def load() -> tuple[BuildChange, ...]:
    """Return the mechanisms, in the order to show them; the first is none."""
    return build_change.load("hypotheses/mechanisms.toml")


def measure(lab: Lab, llvm: str, foreign: str) -> tuple[Signature, ...]:
    """Make each mechanism happen, in parallel; return the signatures, in order.

    `llvm` builds main and brings the runtime, `foreign` is the other LLVM. Raises `LabError`
    where these two are not there. What cannot be run here says why, and prints it once.
    """
    lab.trial("cold", llvm, foreign)
    grid = [(mechanism, name) for mechanism in load() for name in _PROGRAMS]

    def go(asked: tuple[BuildChange, str]) -> tuple[Outcome, str] | str:
        try:
            return _run(lab, *asked, llvm, foreign)
        except LabError as error:
            return re.sub(r"/\S*/", "", f"{error.what}: {error.why}")  # no places

    found: dict[BuildChange, dict[str, tuple[Outcome, str] | str]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress.bar("mechanisms", len(grid)) as step:
        for (mechanism, name), one in zip(grid, pool.map(go, grid), strict=True):
            found.setdefault(mechanism, {})[name] = one
            step()
    signatures = []
    for mechanism, tried in found.items():
        good = {name: one for name, one in tried.items() if not isinstance(one, str)}
        errors = {name: one for name, one in tried.items() if isinstance(one, str)}
        outcomes = {name: outcome for name, (outcome, _) in good.items()}
        merge = good["rich"][1] if "rich" in good else ""
        signatures.append(Signature(mechanism, outcomes, merge, errors))
    for error in dict.fromkeys(e for one in signatures for e in one.errors.values() if not one.why):
        print(f"left out: {error}")  # noqa: T201 - the notebook shows it
    return tuple(signatures)


def _run(
    lab: Lab, mechanism: BuildChange, name: str, llvm: str, foreign: str
) -> tuple[Outcome, str]:
    """Return what comes of a program with a mechanism; for `rich` what is said of its profile."""
    program = {"small": "cold", "gcc": "cold"}.get(name, name)
    if name == "small":
        mechanism = replace(mechanism, main=(*mechanism.main, "-DALLOCATOR="), without_library=True)
        mechanism = replace(mechanism, instrument="none")
    elif name == "gcc":
        mechanism = replace(mechanism, foreign="gcc", instrument=None)
    trial = mechanism.changed(lab, program, llvm, foreign)
    outcome = lab.run(trial)
    if outcome.kind == "build-failed":
        raise BuildError(f"{mechanism.id} of {name}", outcome.detail, "", "")
    if name != "rich":
        return outcome, ""
    pattern = dict(trial.environment).get("LLVM_PROFILE_FILE", "run.profraw")
    return outcome, profile_file.run(lab, [trial], pattern).found


def compare(signatures: Sequence[Signature], seen: Sequence[Observation]) -> pd.DataFrame:
    """Return a row for each signature, of what differs from machine to machine only if it does.

    Columns: mechanism, source, what, `why` it was not made, the outcome of each program; how and
    in which function `cold` ends, the address that a debugger prints, how `explicit` ends, what
    llvm-profdata says to what `rich` leaves (merge); its agreements (`agrees_function` and so on).
    """
    import pandas as pd  # noqa: PLC0415 - a quarter of a second, only here

    rows = []
    for one in signatures:
        dead = None if one.why else one.outcomes["cold"].crash
        row: dict[str, object] = {"mechanism": one.mechanism.id, "source": one.mechanism.source}
        row |= {"what": one.mechanism.what, "why": one.why}
        row |= {name: getattr(one.outcomes.get(name), "kind", "") for name in _PROGRAMS}
        row |= {"ends": _end(one, "cold"), "ends_explicit": _end(one, "explicit")}
        row |= {"function": (dead.function or "the C library") if dead else ""}
        row |= {"address": _printed(dead) if dead else "", "merge": one.merge.partition(":")[0]}
        row |= {f"{_AGREES}{key}": value for key, value in one.fits(seen).items()}
        rows.append(row)
    return pd.DataFrame(rows)


def lacks(row: Mapping[Any, Any]) -> list[str]:
    """Return which observations of the user's crash a row of `table` contradicts.

    The numbers of the harness are no part of it: they are reported without a crash, too.
    """
    asked = [name for name in _ASKED if name != "entries"]
    return [name for name in asked if row.get(f"{_AGREES}{name}") == "no"]


def measurement(row: Mapping[Any, Any], observation: str) -> str:
    """Return what a row of `table` measured for an observation, by its id; "" for nothing."""
    columns = {"function": "function", "address": "address", "moment": "ends_explicit"}
    columns |= {"merge": "merge"}
    asked = (columns[observation],) if observation in columns else _ASKED[observation]
    return ", ".join(dict.fromkeys(row[name] for name in asked if row[name]))


def table(found: pd.DataFrame) -> shown.Shown:
    """Show a table of signatures: what each mechanism comes to, measured."""
    columns = ["what", "ends", "function", "address", "ends_explicit", "merge"]
    heads = ("mechanism", "ends in", "function", "a debugger prints", "if main writes", "profile")
    rows = [
        (row["what"], f"not made: {row['why']}", "", "", "", "")
        if row["why"]
        else tuple(row[name] or "-" for name in columns)
        for row in found.to_dict("records")
    ]
    return shown.table(heads, rows)


def figure(found: pd.DataFrame, seen: Sequence[Observation]) -> shown.Shown:
    """Draw the matrix, mechanism x observation; the caption says which rows lack nothing."""
    asked = [one for one in seen if one.id in _ASKED]
    made = [row for row in found.to_dict("records") if not row["why"]]
    drawn, ((axes,),) = look.charts(50 + 23 * len(made))
    xs = [n + 0.3 * (one.id == "entries") for n, one in enumerate(asked)]  # no part of the crash
    for y, row in enumerate(made):
        for x, one in zip(xs, asked, strict=True):
            word = row[f"{_AGREES}{one.id}"]
            fill, said = _FILLS.get(word, "none"), word.replace("untried", "-")
            look.cell(axes, (x, y), (0.94, 0.86), fill, said)
    axes.set_xticks(xs, [_BRIEF[one.id] for one in asked])
    axes.set_yticks(range(len(made)), [textwrap.fill(row["what"], 32) for row in made])
    axes.set(xlim=(-0.5, xs[-1] + 0.5), ylim=(len(made) - 0.5, -0.5))
    axes.xaxis.tick_top()
    for name, row in zip(axes.get_yticklabels(), made, strict=True):
        name.set_fontweight("normal" if lacks(row) else "bold")
    whole = [row["what"] for row in made if not lacks(row)]
    caption = f"Of {len(made)} mechanisms, these show all that was seen of the crash: "
    caption += f"{'; '.join(whole) or 'none'}."
    told = (f"{row['mechanism']}: {', '.join(lacks(row)) or 'nothing'}" for row in made)
    return shown.framed(drawn, caption, f"what each contradicts: {'; '.join(told)}")


def _end(signature: Signature, program: str) -> str:
    """Return how a program ends: its outcome, and for a crash when."""
    outcome = signature.outcomes.get(program)
    if outcome is None or outcome.crash is None:
        return outcome.kind if outcome else ""
    names = {frame.function for frame in outcome.crash.frames}
    when = "in main" if "__llvm_profile_write_file" not in names else "in the write"
    return f"crash {'at exit' if 'exit' in names else when}"


def _printed(dead: Crash) -> str:
    """Return what a debugger prints as the address of a crash; in words where machines differ."""
    if dead.fault_address is None or dead.fault_address_from == "registers":
        return "0x0"
    return f"{dead.fault_address:#x}" if dead.fault_address < _PAGE else "a real address"


def widget(found: pd.DataFrame, seen: Sequence[Observation]) -> Live:
    """Return the matrix of mechanisms and observations, and in words what was measured for one.

    `found` is of `table`. A page without a kernel shows the figure.
    """
    rows = found.to_dict("records")
    asked = [one for one in seen if f"agrees_{one.id}" in found]
    whole = [row["what"] for row in rows if not row["why"] and not lacks(row)]
    mechanism = choice("mechanism", [ALL, *found["what"]], next(iter(whole), ALL))
    observation = choice("observation", [ALL, *(one.what for one in asked)])

    def draw() -> str:
        mine = [row for row in rows if mechanism.value in (ALL, row["what"])]
        ours = [one for one in asked if observation.value in (ALL, one.what)]
        if len(mine) == 1:
            return _judged(mine[0], ours)
        if len(ours) == 1:
            heads = ("mechanism", "here", f"{ours[0].what}: {ours[0].value}")
            lines = [(row["what"], *_measured(row, ours[0])) for row in mine]
        else:
            heads = ("mechanism", "contradicts", "of the crash")
            lines = [(row["what"], *_lacking(row, asked)) for row in mine]
        return shown.table(heads, lines, marked=False).html

    drawn = figure(found, seen)
    return live([mechanism, observation], draw, drawn, ipywidgets.HTML(page(drawn.html)))


#: What the agreement of a mechanism with an observation means (see 06, section 3).
_AGREEMENTS = {
    "yes": "agrees",
    "no": "contradicts it",
    "assumed": "agrees only if it was absent where the user saw no crash",
    "untried": "not tried here",
}


def _measured(row: Mapping[Any, Any], one: Observation) -> tuple[str, str]:
    said = measurement(row, one.id) or "-"
    return said, _AGREEMENTS[row[f"agrees_{one.id}"]]


def _lacking(row: Mapping[Any, Any], asked: Sequence[Observation]) -> tuple[str, str]:
    if row["why"]:
        return "-", f"not made: {row['why']}"
    contradicted = lacks(row)
    return str(len(contradicted)), "; ".join(
        one.what for one in asked if one.id in contradicted
    ) or "nothing"


def _judged(row: Mapping[Any, Any], ours: Sequence[Observation]) -> str:
    """Return what was measured for one mechanism, beside what the user saw."""
    which = _lacking(row, ours)[1]
    said = which if row["why"] else f"contradicts {which}"
    said = f"<p><b>{html.escape(row['what'])}</b> {html.escape(said)}.</p>"
    heads = ("the user saw", "namely", "here", "so it")
    lines = [(one.what, one.value, *_measured(row, one)) for one in ours]
    return said + shown.table(heads, lines, marked=False).html
