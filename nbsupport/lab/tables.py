"""What a notebook shows: outcomes, tables and figures, each as text and as HTML."""

from __future__ import annotations

import functools
import html
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets

from nbsupport.lab import build
from nbsupport.lab.outcome import Outcome
from nbsupport.lab.trial import Trial
from nbsupport.show import look
from nbsupport.show.shown import Shown, framed, table
from nbsupport.show.widgets import Live, choice, control_row, page

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from nbsupport.lab.lab import Lab


_BESIDE = 5  # so many LLVMs at most leave room for a second panel beside the first


def trial(made: Trial) -> Shown:
    """Show who builds which part of a trial, with the raw version that each writes."""
    rows = [("main and runtime", made.main, made.main_instrument)]
    rows += [(f"library ({made.program.name})", made.foreign, made.instrument)]
    cells = [
        (
            part,
            f"{'rustc' if t.kind == 'rustc' else t.kind} {t.name}, {t.version}",
            {"ir": "by IR", "front-end": "by the front end", "none": "none"}[how],
            "-" if how == "none" else str(t.raw_version),
        )
        for part, t, how in rows
    ]
    return table(("part", "compiled by", "instrumentation", "raw version"), cells)


def outcome(result: Outcome) -> Shown:
    """Show what came of a trial: kind, why, and for a crash the address and the frames."""
    head = f"{result.kind}: {result.detail}"
    dead = result.crash
    if dead is None:
        return Shown(head, f'<p class="outcome {result.kind}">{html.escape(head)}</p>')
    if dead.fault_address is not None:
        head += f", at {dead.fault_address:#x} (from the {dead.fault_address_from})"
    rows = []
    for n, frame in enumerate(dead.frames):
        if frame.module != dead.frames[0].module:
            # The C library's frames differ from machine to machine and tell nothing more.
            rows.append((f"#{n}…", f"(from {frame.module})", ""))
            break
        offset = "" if frame.offset is None else f"+{frame.offset}"
        rows.append((f"#{n}", frame.function or "(no name)", offset))
    frames = table(("frame", "function", "offset"), rows)
    shown = f'<p class="outcome {result.kind}">{html.escape(head)}</p>{frames.html}'
    return Shown(f"{head}\n{frames.text}", shown)


def outcomes(found: pd.DataFrame, rows: str, columns: Sequence[str]) -> Shown:
    """Show the outcomes of a sweep crosswise, in the order in which they were asked for."""
    heads = [", ".join(map(_said, key)) for key in found[list(columns)].to_numpy()]
    cells = dict(zip(zip(found[rows], heads, strict=True), found["outcome"], strict=True))
    across = list(dict.fromkeys(heads))
    down = dict.fromkeys(found[rows])
    lines = [(str(r), *(cells.get((r, h), "-") for h in across)) for r in down]
    return table((rows, *across), lines)


def _said(value: object) -> str:
    """Return a parameter's value as people say it: `LLVM 19`, not `19@wheel`."""
    major, at, _ = str(value).partition("@")
    words = {"ir": "instrumented", "none": "not instrumented"}
    return f"LLVM {major}" if at else words.get(major, major.replace("-", " "))


def details(found: pd.DataFrame) -> Shown:
    """Show each trial of a sweep on a line, with its reason."""
    columns = ("program", "main", "foreign", "order", "instrument", "outcome", "detail")
    lines = [tuple(str(cell) for cell in row) for row in found[list(columns)].to_numpy()]
    return table(columns, lines) if lines else Shown("none", "<p>none</p>")


def grid(found: pd.DataFrame) -> Shown:
    """Show a sweep over main x foreign as a figure: a panel for each program and order.

    The caption states the finding, read off the outcomes themselves.
    """
    programs, orders = list(dict.fromkeys(found["program"])), list(dict.fromkeys(found["order"]))
    wide = 2 if found["foreign"].nunique() <= _BESIDE else 1
    panels = [(program, order) for program in programs for order in orders]
    rows = -(-len(panels) // wide)
    figure, axes = look.charts(rows * (60 + 24 * found["main"].nunique()), rows, wide)
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    for panel, (program, order) in zip(axes.flat, panels, strict=False):
        part = found[(found["program"] == program) & (found["order"] == order)]
        _panel(panel, part, f"{program}: {order.replace('-', ' ')}")
    return framed(figure, _finding(found), _crosstab(found))


def groups(found: pd.DataFrame, order: str) -> list[list[str]]:
    """Return the majors of a sweep that are healthy with just the same ones, whoever is main."""
    part = found[found["order"] == order]
    healthy = part.groupby(["main", "foreign"], sort=False)["outcome"].agg(
        lambda kinds: bool((kinds == "ok").all())
    )
    names = list(dict.fromkeys(found["main"]))
    together: dict[frozenset[str], list[str]] = {}
    for one in names:
        both = (o for o in names if healthy.get((one, o)) and healthy.get((o, one)))
        together.setdefault(frozenset(both), []).append(one.partition("@")[0])
    return list(together.values())


def _finding(found: pd.DataFrame) -> str:
    """Say which LLVMs are healthy together, in each link order, whoever compiles main."""
    sentences = []
    for order in dict.fromkeys(found["order"]):
        parted = " | ".join(", ".join(group) for group in groups(found, order))
        sentences.append(f"{order.replace('-', ' ')}: {parted}")
    return f"LLVMs that are healthy together, and with no other, {'; '.join(sentences)}."


def _panel(axes: Axes, part: pd.DataFrame, title: str) -> None:
    mains, foreigns = list(dict.fromkeys(part["main"])), list(dict.fromkeys(part["foreign"]))
    for main, foreign, kind in part[["main", "foreign", "outcome"]].itertuples(index=False):
        place = foreigns.index(foreign), mains.index(main)
        look.cell(axes, place, (0.95, 0.9), *look.OUTCOMES[kind])
    versions = {**dict(zip(part["main"], part["main_raw_version"], strict=True))}
    versions |= dict(zip(part["foreign"], part["foreign_raw_version"], strict=True))
    labels = [f"{name.partition('@')[0]}\nv{versions[name]:.0f}" for name in foreigns]
    axes.set_xticks(range(len(foreigns)), labels)
    labels = [f"{name.partition('@')[0]} (v{versions[name]:.0f})" for name in mains]
    axes.set_yticks(range(len(mains)), labels)
    axes.set_xlabel("library's LLVM (raw version)")
    spec = axes.get_subplotspec()
    axes.set_ylabel("main's LLVM" if spec and spec.is_first_col() else "")
    axes.set(xlim=(-0.5, len(foreigns) - 0.5), ylim=(len(mains) - 0.5, -0.5))
    axes.set_title(title, **look.HEAD)


def _crosstab(found: pd.DataFrame) -> str:
    return "; ".join(
        f"{kind} {count}" for kind, count in found["outcome"].value_counts(sort=True).items()
    )


#: The edge of a chosen cell, and of the others.
_EDGES = ("3px solid transparent", "3px solid var(--jp-brand-color1, #1976d2)")


def grid_widget(found: pd.DataFrame, lab: Lab) -> Live:
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
    for control in choices:
        control.observe(colour, names="value")
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
    return f"{table((row['program'], head), said).html}<pre>{lines}</pre>"


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
    figure = grid(found)
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    for row in found.to_dict("records"):
        # The C library's frames differ from machine to machine.
        own = re.match(r".*(?:[Pp]rof\w*|\bmain)(?= < |$)", row["frames"])
        main, other = (row[name].partition("@")[0] for name in ("main", "foreign"))
        pair = f"main {main}, library {other}, {row['order']}"
        said = (row["program"], pair, row["outcome"], row["detail"], own[0] if own else "")
        rows.setdefault((row["outcome"], row["function"]), said)
    ways = table(("program", "for example", "outcome", "detail", "frames"), [*rows.values()])
    return Shown(f"{figure.text}\n{ways.text}", figure.html + ways.html)
