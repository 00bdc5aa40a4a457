"""What a notebook shows: outcomes, tables and figures, each as text and as HTML."""

from __future__ import annotations

import functools
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
from nbsupport.show.shown import Shown, element, framed, table
from nbsupport.show.widgets import Live, choice, control_row, page
from nbsupport.toolchains.probe import Toolchain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from nbsupport.lab.lab import Lab


_BESIDE = 5  # so many LLVMs at most leave room for a second panel beside the first


def trial(built: Trial) -> Shown:
    """Show who builds which part of a trial, with the raw version that each writes."""
    rows = [("main and runtime", built.main, built.main_instrument)]
    rows += [(f"library ({built.program.name})", built.foreign, built.instrument)]
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
        return Shown(head, element("p", head, class_=f"outcome {result.kind}"))
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
    line = element("p", head, class_=f"outcome {result.kind}")
    return Shown(f"{head}\n{frames.text}", line + frames.html)


def outcomes(results: pd.DataFrame, rows: str, columns: Sequence[str]) -> Shown:
    """Show the outcomes of a sweep crosswise, in the order in which they were asked for."""
    heads = [", ".join(map(_words, key)) for key in results[list(columns)].to_numpy()]
    cells = dict(zip(zip(results[rows], heads, strict=True), results["outcome"], strict=True))
    across = list(dict.fromkeys(heads))
    down = dict.fromkeys(results[rows])
    lines = [(str(r), *(cells.get((r, h), "-") for h in across)) for r in down]
    return table((rows, *across), lines)


def _words(value: object) -> str:
    """Return a parameter's value as people say it: `LLVM 19`, not `19@wheel`."""
    major, at, _ = str(value).partition("@")
    words = {"ir": "instrumented", "none": "not instrumented"}
    return f"LLVM {major}" if at else words.get(major, major.replace("-", " "))


def details(results: pd.DataFrame) -> Shown:
    """Show each trial of a sweep on a line, with its reason."""
    columns = ("program", "main", "foreign", "order", "instrument", "outcome", "detail")
    lines = [tuple(str(cell) for cell in row) for row in results[list(columns)].to_numpy()]
    return table(columns, lines) if lines else Shown("none", "<p>none</p>")


def grid(results: pd.DataFrame) -> Shown:
    """Show a sweep over main x foreign as a figure: a panel for each program and order.

    The caption states the finding, read off the outcomes themselves.
    """
    programs, orders = (dict.fromkeys(results[column]) for column in ("program", "order"))
    wide = 2 if results["foreign"].nunique() <= _BESIDE else 1
    panels = list(itertools.product(programs, orders))
    rows = -(-len(panels) // wide)
    figure, axes = look.charts(rows * (60 + 24 * results["main"].nunique()), rows, wide)
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    for panel, (program, order) in zip(axes.flat, panels, strict=False):
        part = results[(results["program"] == program) & (results["order"] == order)]
        _panel(panel, part, f"{program}: {order.replace('-', ' ')}")
    return framed(figure, _finding(results), _crosstab(results))


def groups(results: pd.DataFrame, order: str) -> list[list[str]]:
    """Return the majors of a sweep that are healthy with just the same ones, whoever is main."""
    part = results[results["order"] == order]
    healthy = part.groupby(["main", "foreign"], sort=False)["outcome"].agg(
        lambda kinds: bool((kinds == "ok").all())
    )
    names = list(dict.fromkeys(results["main"]))
    together: dict[frozenset[str], list[str]] = {}
    for name in names:
        both = (o for o in names if healthy.get((name, o)) and healthy.get((o, name)))
        together.setdefault(frozenset(both), []).append(name.partition("@")[0])
    return list(together.values())


def _finding(results: pd.DataFrame) -> str:
    """Say which LLVMs are healthy together, in each link order, whoever compiles main."""
    sentences = []
    for order in dict.fromkeys(results["order"]):
        parted = " | ".join(", ".join(group) for group in groups(results, order))
        sentences.append(f"{order.replace('-', ' ')}: {parted}")
    return f"LLVMs that are healthy together, and with no other, {'; '.join(sentences)}."


def _panel(axes: Axes, part: pd.DataFrame, title: str) -> None:
    mains, foreigns = list(dict.fromkeys(part["main"])), list(dict.fromkeys(part["foreign"]))
    for main, foreign, kind in part[["main", "foreign", "outcome"]].itertuples(index=False):
        place = foreigns.index(foreign), mains.index(main)
        look.cell(axes, place, (0.95, 0.9), *look.OUTCOMES[kind])
    labels = _labels(part)
    below = [labels[name].replace(" (", "\n").removesuffix(")") for name in foreigns]
    axes.set_xticks(range(len(foreigns)), below)
    axes.set_yticks(range(len(mains)), [labels[name] for name in mains])
    axes.set_xlabel("library's LLVM (raw version)")
    spec = axes.get_subplotspec()
    axes.set_ylabel("main's LLVM" if spec and spec.is_first_col() else "")
    axes.set(xlim=(-0.5, len(foreigns) - 0.5), ylim=(len(mains) - 0.5, -0.5))
    axes.set_title(title, **look.HEAD)


def _crosstab(results: pd.DataFrame) -> str:
    return "; ".join(
        f"{kind} {count}" for kind, count in results["outcome"].value_counts(sort=True).items()
    )


#: The edge of a chosen cell, and of the others.
_EDGES = ("3px solid transparent", f"3px solid {look.CHOSEN}")


def grid_widget(results: pd.DataFrame, lab: Lab) -> Live:
    """Return a sweep over main x foreign as buttons; a click says what came of that pair.

    `results` is a sweep's table, `lab` the one that made it. A page without a kernel shows the
    figure, and each way to end with an example.
    """
    rows = {tuple(row[k] for k in _CELL): row for row in results.to_dict("records")}
    names = [list(dict.fromkeys(results[column])) for column in _CELL]
    choices = [choice(k, values) for k, values in zip(_CELL, names, strict=False)][:2]
    pane = ipywidgets.HTML(page("<p>Choose a cell: who compiles main, and who the library.</p>"))
    pairs = list(itertools.product(*names[2:]))
    shape = {"width": "auto", "height": "34px", "border": _EDGES[False]}
    cells = {pair: ipywidgets.Button(layout=shape) for pair in pairs}
    chosen: list[tuple[str, str]] = []

    def key(pair: tuple[str, str]) -> tuple[str, ...]:
        return (*(choice.value for choice in choices), *pair)

    def show(pair: tuple[str, str], _: object = None) -> None:
        for other in (*chosen, pair):
            cells[other].layout.border = _EDGES[other == pair]
        chosen[:] = [pair]
        row = rows.get(key(pair))
        pane.value = page(_explained(row, lab) if row else "<p>not run</p>")

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
    labels = _labels(results)
    body = [_head("main \\ library"), *(_head(labels[name]) for name in names[3])]
    for main in names[2]:
        body += [_head(labels[main]), *(cells[main, other] for other in names[3])]
    columns = f"minmax(7em, max-content) repeat({len(names[3])}, minmax(5.5em, 8em))"
    layout = ipywidgets.Layout(grid_template_columns=columns, overflow="auto")
    whole = ipywidgets.GridBox(body, layout=layout)
    return Live([control_row(choices), whole, pane], _ways(results))


#: Columns of a sweep that tell the cells of its grids apart.
_CELL = ("program", "order", "main", "foreign")


def _labels(results: pd.DataFrame) -> dict[str, str]:
    """Return what each toolchain of a sweep is called in its grid: `19 (v10)`."""
    versions = dict(zip(results["main"], results["main_raw_version"], strict=True))
    versions |= dict(zip(results["foreign"], results["foreign_raw_version"], strict=True))
    return {name: f"{name.partition('@')[0]} (v{versions[name]:.0f})" for name in versions}


def _head(words: str) -> Any:
    return ipywidgets.HTML(element("b", words))


def _explained(row: Mapping[Any, Any], lab: Lab) -> str:
    """Return what came of a row of a sweep, and the command lines that built it."""
    rows = [("outcome", f"{row['outcome']}: {row['detail']}")]
    if row["outcome"] == "crash":
        at = f"{row['fault_address']} (from the {row['fault_address_from']})"
        rows += [("fault address", at), ("frames", row["frames"])]
    head = f"main {row['main']}, library {row['foreign']}, {row['order']}"
    how = {name: row[name] for name in ("order", "instrument", "main_instrument")}
    lines = commands(lab.trial(row["program"], row["main"], row["foreign"], **how))
    return table((row["program"], head), rows).html + element("pre", "\n".join(lines))


def commands(trial: Trial) -> tuple[str, ...]:
    """Return the command lines that build a trial, without folders: its objects, and the link."""
    jobs = build.jobs(trial)
    objects = [Path(job.unit.source).with_suffix(".o") for job in jobs]
    lines: list[tuple[Toolchain, Sequence[str | Path]]] = [
        (job.toolchain, [job.toolchain.compiler, *job.flags, "-c", job.unit.source, "-o", out])
        for job, out in zip(jobs, objects, strict=True)
    ]
    linker = trial.main if trial.program.language == "rust" else trial.linker
    lines.append((linker, [*build.link_line(trial, objects), trial.program.name]))
    words = ((toolchain.name, " ".join(map(str, line))) for toolchain, line in lines)
    return tuple(f"# by {name}\n{re.sub(r'[^ =]*/', '', line)}" for name, line in words)


def _ways(results: pd.DataFrame) -> Shown:
    """Show the figure of a sweep, and below it each way in which its programs end."""
    figure = grid(results)
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    for row in results.to_dict("records"):
        # The C library's frames differ from machine to machine.
        own = re.match(r".*(?:[Pp]rof\w*|\bmain)(?= < |$)", row["frames"])
        main, other = (row[name].partition("@")[0] for name in ("main", "foreign"))
        pair = f"main {main}, library {other}, {row['order']}"
        way = (row["program"], pair, row["outcome"], row["detail"], own[0] if own else "")
        rows.setdefault((row["outcome"], row["function"]), way)
    ways = table(("program", "for example", "outcome", "detail", "frames"), [*rows.values()])
    return Shown(f"{figure.text}\n{ways.text}", figure.html + ways.html)
