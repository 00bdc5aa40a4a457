"""Pictures to play with, in a live notebook; each has a static twin for a page without a kernel.

All are made alike: labelled controls, panes of HTML, and `observe`. What is shown is in the
widgets' own traits, so a saved notebook restores it. No handler builds or runs a program.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import html
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets

from nbsupport.base.errors import LabError
from nbsupport.lab import build, tables
from nbsupport.show import look, shown
from nbsupport.show.shown import Shown
from nbsupport.studies import drawing, mechanisms
from nbsupport.studies import ruler as rulers
from nbsupport.studies import workarounds as tried
from nbsupport.studies.observations import Observation
from nbsupport.studies.ruler import Ruler
from nbsupport.trace.memory import UNMAPPED
from nbsupport.trace.trace import Trace
from nbsupport.trace.words import BANDS, Map, killer_of, moments, rows_of, said_of, twin

if TYPE_CHECKING:
    import pandas as pd

    from nbsupport.lab.build import Trial
    from nbsupport.lab.lab import Lab

ALL = "all"
_STYLE = (
    ".lab-live{color:var(--jp-content-font-color1,inherit);overflow-x:auto}"
    ".jp-RenderedHTMLCommon.lab-live table{margin-left:0}"
)
#: No step: a choice of None would show nothing at all.
_NONE = -1
#: The edge of a chosen cell, and of the others.
_EDGES = ("3px solid transparent", "3px solid var(--jp-brand-color1, #1976d2)")
#: A band of memory: its own text is black on a light ground, in a dark theme, too.
_BAND = "color:black;border:{}px solid {};width:18em;padding:1px 8px;margin:2px;background:{}"


class Live(ipywidgets.VBox):  # type: ignore[misc]
    """Widgets one below the other; a page without a kernel shows `static` instead."""

    def __init__(self, parts: Sequence[Any], static: Shown) -> None:
        super().__init__(list(parts))
        self._static = static

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**options)
        return {**bundle, "text/plain": self._static.text, "text/html": self._static.html}


def live(controls: Sequence[Any], draw: Callable[[], str], static: Shown, *above: Any) -> Live:
    """Return controls in a row (what is `above` before them), and below what `draw` returns.

    `draw` returns HTML; it is called now, and whenever the value of a control changes.
    """
    pane = ipywidgets.HTML()

    def redraw(_: object = None) -> None:
        pane.value = page(draw())

    for control in controls:
        control.observe(redraw, names="value")
    redraw()
    return Live([*above, control_row(controls), pane], static)


def control_row(controls: Sequence[Any]) -> Any:
    for control in controls:
        control.style.description_width = "initial"
    return ipywidgets.HBox(controls, layout={"flex_flow": "row wrap"})


def page(content: str) -> str:
    """Return HTML that looks as JupyterLab's own outputs do, in a light and in a dark theme."""
    return f'<style>{_STYLE}</style><div class="jp-RenderedHTMLCommon lab-live">{content}</div>'


def choice(what: str, options: Sequence[Any], value: Any = None) -> Any:
    """Return a labelled choice of `options`, each once, as wide as its words; else the first."""
    given = list(dict.fromkeys(options))
    chosen = {} if value is None else {"value": value}
    layout = {"width": "auto", "max_width": "100%"}
    return ipywidgets.Dropdown(options=given, description=f"{what}:", layout=layout, **chosen)


def ruler(lab: Lab, names: Sequence[str], main: str, foreign: str) -> Live:
    """Return the record ruler with a choice of both LLVMs, out of `names` and those two.

    All programs are linked and read at once; a choice only draws. What cannot be had says why.
    """
    given = list(dict.fromkeys((*names, main, foreign)))
    pairs = list(itertools.product(given, given))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = dict(zip(pairs, pool.map(functools.partial(_read, lab), pairs), strict=True))

    @functools.cache
    def drawn(main: str, foreign: str) -> Shown:
        found = read[main, foreign]
        with contextlib.suppress(RuntimeError):  # no kernel
            # When the reader looks; in the middle of a drawing it takes a tenth of a second.
            asyncio.get_running_loop().call_later(0.5, gc.collect)
        return drawing.figure(found) if isinstance(found, Ruler) else found

    choices = [choice("main", given, main), choice("library", given, foreign)]
    static = drawn(main, foreign)
    return live(choices, lambda: drawn(*(choice.value for choice in choices)).html, static)


def _read(lab: Lab, pair: tuple[str, str]) -> Ruler | Shown:
    try:
        return rulers.of(lab, lab.trial("cold", *pair))
    except LabError as error:
        return Shown(str(error), f"<p>{html.escape(str(error))}</p>")


def timeline(found: Trace) -> Live:
    """Return a slider over the events: each in words, its frames, and where on the map it is.

    A page without a kernel shows the decisive moments instead, to which a choice jumps here.
    """
    known, events, decisive = Map(found), rows_of(found), moments(found)
    slider = ipywidgets.IntSlider(0, 0, max(0, len(events) - 1), description="step:")
    slider.layout.width = "30em"
    options = [("-", _NONE), *((f"{one.n}: {one.title}", one.n) for one in decisive)]
    jump = choice("jump to", options)

    def stepped(_: object = None) -> None:
        jump.value = slider.value if slider.value in {one.n for one in decisive} else _NONE

    def jumped(change: Mapping[str, Any]) -> None:
        slider.value = slider.value if change["new"] == _NONE else change["new"]

    slider.observe(stepped, names="value")
    jump.observe(jumped, names="value")
    stepped()

    def draw() -> str:
        return "".join(_event(found, known, one) for one in events[slider.value :][:1])

    made = live([slider], draw, twin(found))
    made.children = (control_row([slider, jump]), *made.children[1:])
    return made


def _event(found: Trace, known: Map, event: Any) -> str:
    """Return an event in words, with its frames, and the memory map with what it touches."""
    given = {known.memory.owner(int(word, 16)) for word in event.arguments.split()}
    marks = {known.label(owner): "its arguments" for owner in given - {UNMAPPED}}
    if event.module:
        own = f"{known.image}: text" if event.module == known.image else event.module
        marks[known.label(own)] = "its code"
    if event.kind == "crash" and (killer := killer_of(found)):
        marks[known.label(known.memory.owner(killer[1]))] = "taken for Values"
    bands = "".join(_band(one, marks.get(one, "")) for one in known.bands)
    frames = "".join(f"<li>{html.escape(f)}</li>" for f in event.frames.split(" < ") if f)
    head, more = html.escape(f"{event.kind}: {event.function}"), said_of(found, event)
    first = 0 if event.kind == "crash" else 1  # else the innermost is the function itself
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:1em 3em;min-height:32em">'
        f'<div style="width:26em"><p><b>{head}</b></p><p>{html.escape(more)}</p>'
        f"<ol start={first}>{frames}</ol></div><div>{bands}</div></div>"
    )


def _band(label: str, mark: str) -> str:
    """Return a band of the memory map; where it is marked, framed, and the mark beside it."""
    frame = (3, "var(--jp-brand-color1,#1976d2)") if mark else (1, "#777777")
    style = _BAND.format(*frame, BANDS.get(label, "white"))
    said = f"&#9664; <b>{html.escape(mark)}</b>" if mark else ""
    return f'<div style="display:flex"><div style="{style}">{html.escape(label)}</div>{said}</div>'


def grid(found: pd.DataFrame, lab: Lab) -> Live:
    """Return a sweep over main x foreign as buttons; a click says what came of that pair.

    `found` is a sweep's table, `lab` the one that made it. A page without a kernel shows the
    figure, and each way to end with an example.
    """
    rows = {tuple(row[k] for k in _CELL): row for row in found.to_dict("records")}
    names = [list(dict.fromkeys(found[column])) for column in _CELL]
    choices = [choice(k, values) for k, values in zip(_CELL, names, strict=False)][:2]
    pane = ipywidgets.HTML(page("<p>Choose a cell: who compiles main, and who the library.</p>"))
    pairs = list(itertools.product(*names[2:]))
    shape = {"width": "auto", "height": "34px", "border": _EDGES[False]}
    cells = {pair: ipywidgets.Button(layout=shape) for pair in pairs}
    chosen: list[tuple[str, str]] = []

    def key(pair: tuple[str, str]) -> tuple[str, ...]:
        return (*(choice.value for choice in choices), *pair)

    def show(pair: tuple[str, str], _: object = None) -> None:
        for one in (*chosen, pair):
            cells[one].layout.border = _EDGES[one == pair]
        chosen[:] = [pair]
        row = rows.get(key(pair))
        pane.value = page(_told(row, lab) if row else "<p>not run</p>")

    def colour(_: object = None) -> None:
        for pair, button in cells.items():
            kind = rows.get(key(pair), {"outcome": "-"})["outcome"]
            button.style.button_color, button.description = look.OUTCOMES.get(
                kind, (look.PALE, "-")
            )
            button.tooltip = f"main {pair[0]}, library {pair[1]}: {kind}"
        for pair in chosen[:1]:
            show(pair)

    for pair, button in cells.items():
        button.style.text_color = "black"
        button.on_click(functools.partial(show, pair))
    for choice in choices:
        choice.observe(colour, names="value")
    colour()
    versions = dict(zip(found["main"], found["main_raw_version"], strict=True))
    versions |= dict(zip(found["foreign"], found["foreign_raw_version"], strict=True))
    body = [_head("main \\ library"), *(_head(_short(n, versions[n])) for n in names[3])]
    for main in names[2]:
        body += [_head(_short(main, versions[main])), *(cells[main, other] for other in names[3])]
    columns = f"minmax(7em, max-content) repeat({len(names[3])}, minmax(5.5em, 8em))"
    layout = ipywidgets.Layout(grid_template_columns=columns, overflow="auto")
    whole = ipywidgets.GridBox(body, layout=layout)
    return Live([control_row(choices), whole, pane], _ways(found))


#: Columns of a sweep that tell the cells of its grids apart.
_CELL = ("program", "order", "main", "foreign")


def _short(name: str, raw_version: float) -> str:
    return f"{name.partition('@')[0]} (v{raw_version:.0f})"


def _head(words: str) -> Any:
    return ipywidgets.HTML(f"<b>{html.escape(words)}</b>")


def _told(row: Mapping[Any, Any], lab: Lab) -> str:
    """Return what came of a row of a sweep, and the command lines that built it."""
    said = [("outcome", f"{row['outcome']}: {row['detail']}")]
    if row["outcome"] == "crash":
        at = f"{row['fault_address']} (from the {row['fault_address_from']})"
        said += [("fault address", at), ("frames", row["frames"])]
    head = f"main {row['main']}, library {row['foreign']}, {row['order']}"
    how = {name: row[name] for name in ("order", "instrument", "main_instrument")}
    made = commands(lab.trial(row["program"], row["main"], row["foreign"], **how))
    lines = html.escape("\n".join(made))
    return f"{shown.table((row['program'], head), said).html}<pre>{lines}</pre>"


def commands(trial: Trial) -> tuple[str, ...]:
    """Return the command lines that build a trial, without folders: its objects, and the link."""
    jobs = build.jobs(trial)
    objects = [Path(job.unit.source).with_suffix(".o") for job in jobs]
    made = [
        (job.toolchain, [job.toolchain.compiler, *job.flags, "-c", job.unit.source, "-o", out])
        for job, out in zip(jobs, objects, strict=True)
    ]
    linker = trial.main if trial.program.language == "rust" else trial.linker
    made.append((linker, [*build.link_line(trial, objects), trial.program.name]))
    return tuple(
        f"# by {by.name}\n{re.sub(r'[^ =]*/', '', ' '.join(map(str, line)))}" for by, line in made
    )


def _ways(found: pd.DataFrame) -> Shown:
    """Show the figure of a sweep, and below it each way in which its programs end."""
    figure = tables.grid(found)
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    for row in found.to_dict("records"):
        # The C library's frames differ from machine to machine.
        own = re.match(r".*(?:[Pp]rof\w*|\bmain)(?= < |$)", row["frames"])
        main, other = (row[name].partition("@")[0] for name in ("main", "foreign"))
        pair = f"main {main}, library {other}, {row['order']}"
        said = (row["program"], pair, row["outcome"], row["detail"], own[0] if own else "")
        rows.setdefault((row["outcome"], row["function"]), said)
    ways = shown.table(("program", "for example", "outcome", "detail", "frames"), [*rows.values()])
    return Shown(f"{figure.text}\n{ways.text}", figure.html + ways.html)


def workarounds(rows: Sequence[tried.Row]) -> Live:
    """Return the workarounds with a choice of verdict and source, and one of them explained.

    A page without a kernel shows the whole table.
    """
    sources = [ALL, *(row.workaround.source for row in rows)]
    verdicts = [ALL, *(re.sub(",.*", "", row.verdict) for row in rows)]
    verdict, source = choice("verdict", verdicts), choice("source", sources)
    one = choice("workaround", [row.workaround.id for row in rows])

    def draw() -> str:
        kept = [
            row
            for row in rows
            if row.verdict.startswith("" if verdict.value == ALL else verdict.value)
            and source.value in (ALL, row.workaround.source)
        ]
        (chosen,) = [row for row in rows if row.workaround.id == one.value]
        return tried.table(rows, kept).html + _explained(chosen)

    return live([verdict, source, one], draw, tried.table(rows))


def _explained(row: tried.Row) -> str:
    """Return in words what a workaround changes, how it fared and why."""
    cells, change = row.to_row(), row.workaround
    said = {"changes": change.what, "needs": change.needs, "tried on": row.program}
    for name in ("main", "rust", "library", "link"):
        said[f"flags of {name}"] = " ".join(getattr(change, name))
    said["environment"] = " ".join(f"{name}={value}" for name, value in change.environment)
    said["verdict"] = f"{row.verdict}{f': {row.why}' if row.why else ''}"
    parts = [f"{cells[name]} of {name}" for name in tried.PARTS if cells[name]]
    said["functions with right counts"] = "; ".join(parts)
    said["by one LLVM alone"] = cells["control"] or ""
    kept = [(name, value) for name, value in said.items() if value]
    return shown.table(("workaround", change.id), kept).html


def matrix(found: pd.DataFrame, seen: Sequence[Observation]) -> Live:
    """Return the matrix of mechanisms and observations, and in words what was measured for one.

    `found` is of `mechanisms.table`. A page without a kernel shows the figure.
    """
    rows = found.to_dict("records")
    asked = [one for one in seen if f"agrees_{one.id}" in found]
    whole = [row["what"] for row in rows if not row["why"] and not mechanisms.lacks(row)]
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

    figure = mechanisms.figure(found, seen)
    return live([mechanism, observation], draw, figure, ipywidgets.HTML(page(figure.html)))


#: What the agreement of a mechanism with an observation means (see 06, section 3).
_AGREES = {
    "yes": "agrees",
    "no": "contradicts it",
    "assumed": "agrees only if it was absent where the user saw no crash",
    "untried": "not tried here",
}


def _measured(row: Mapping[Any, Any], one: Observation) -> tuple[str, str]:
    said = mechanisms.measured(row, one.id) or "-"
    return said, _AGREES[row[f"agrees_{one.id}"]]


def _lacking(row: Mapping[Any, Any], asked: Sequence[Observation]) -> tuple[str, str]:
    if row["why"]:
        return "-", f"not made: {row['why']}"
    lacks = mechanisms.lacks(row)
    return str(len(lacks)), "; ".join(one.what for one in asked if one.id in lacks) or "nothing"


def _judged(row: Mapping[Any, Any], ours: Sequence[Observation]) -> str:
    """Return what was measured for one mechanism, beside what the user saw."""
    which = _lacking(row, ours)[1]
    said = which if row["why"] else f"contradicts {which}"
    said = f"<p><b>{html.escape(row['what'])}</b> {html.escape(said)}.</p>"
    heads = ("the user saw", "namely", "here", "so it")
    lines = [(one.what, one.value, *_measured(row, one)) for one in ours]
    return said + shown.table(heads, lines, marked=False).html
