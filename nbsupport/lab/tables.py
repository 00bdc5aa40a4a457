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

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from nbsupport.lab.lab import Lab


#: How the order on the link line is told.
_LINKED = {"main-first": "Main linked first", "foreign-first": "Library linked first"}
_BESIDE = 5  # so many LLVMs at most leave room for a second panel beside the first
#: What the words in a grid's cells mean.
_MEANS = {
    "ok": "ok (green): the profile is whole",
    "crash": "crash (red): a signal ended the program",
    "version-mismatch": "mismatch (orange): the runtime writes a message and no profile",
    "no-profile": "none (blue): no profile and no message",
    "malformed": "broken (purple): llvm-profdata refuses the profile",
    "wrong-counts": "wrong (yellow): the profile has wrong counts",
}


def trial(built: Trial) -> Shown:
    """Show who builds which part of a trial, with the raw version that each writes."""
    rows = []
    for part, tool, how in (
        ("main and runtime", built.main, built.main_instrument),
        (f"library ({built.program.name})", built.foreign, built.instrument),
    ):
        words = {"ir": "by IR", "front-end": "by the front end", "none": "none"}[how]
        raw_version = "-" if how == "none" else str(tool.raw_version)
        rows.append((part, f"{tool.kind} {tool.name}, {tool.version}", words, raw_version))
    return table(("part", "compiled by", "instrumentation", "raw version"), rows)


def outcome(result: Outcome) -> Shown:
    """Show how a trial ended: kind, why, and for a crash the address and the frames."""
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
    lines = [(str(r), *(cells.get((r, h), "-") for h in across)) for r in results[rows].unique()]
    return table((rows, *across), lines)


def _words(value: object) -> str:
    """Return a parameter's value as people say it: `LLVM 19`, not `19@wheel`."""
    major, at, _ = str(value).partition("@")
    words = {"ir": "instrumented", "none": "not instrumented"}
    return f"LLVM {major}" if at else words.get(major, major.replace("-", " "))


def details(results: pd.DataFrame, empty: str = "none") -> Shown:
    """Show each trial of a sweep on a line, with its reason; `empty` says why there is none."""
    columns = ("program", "main", "foreign", "order", "instrument", "outcome", "detail")
    lines = results[list(columns)].to_numpy().tolist()
    return table(columns, lines) if lines else Shown(empty, element("p", empty))


def grid(results: pd.DataFrame) -> Shown:
    """Show a sweep over main x foreign, a panel for each program and order, above the finding."""
    programs, orders = (dict.fromkeys(results[column]) for column in ("program", "order"))
    wide = 2 if results["foreign"].nunique() <= _BESIDE else 1
    panels = list(itertools.product(programs, orders))
    rows = -(-len(panels) // wide)
    figure, axes = look.charts(rows * (60 + 24 * results["main"].nunique()), rows, wide)
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    for panel, (program, order) in zip(axes.flat, panels, strict=False):
        part = results[(results["program"] == program) & (results["order"] == order)]
        _panel(panel, part, f"{program}: {_LINKED.get(order, order).lower()}")
    kinds = results["outcome"].value_counts(sort=True).items()
    return framed(figure, _finding(results), "; ".join(f"{kind} {n}" for kind, n in kinds))


def groups(results: pd.DataFrame, order: str) -> list[list[str]]:
    """Return the majors of a sweep in groups: each works with the same majors, whoever is main."""
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
    """Say which LLVMs work together in each link order, and what the words in the cells mean."""
    sentences = []
    for order in dict.fromkeys(results["order"]):
        parted = " | ".join(", ".join(group) for group in groups(results, order))
        sentences.append(f"{_LINKED.get(order, order)}: {parted}.")
    kinds = results["outcome"].unique()
    means = "; ".join(text for kind, text in _MEANS.items() if kind in kinds)
    return f"LLVMs work together within these groups. {' '.join(sentences)} {means}."


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


def grid_widget(results: pd.DataFrame, lab: Lab) -> Live:
    """Return a sweep over main x foreign as buttons; a click says what came of that pair.

    `results` is a sweep's table, `lab` the one that made it. A page without a kernel shows the
    figure, and each way to end with an example.
    """
    columns = ("program", "order", "main", "foreign")
    rows = {tuple(row[column] for column in columns): row for row in results.to_dict("records")}
    programs, orders, mains, foreigns = (results[c].unique().tolist() for c in columns)
    choices = [choice("program", programs), choice("order", orders)]
    pane = ipywidgets.HTML(page("<p>Choose a cell: who compiles main, and who the library.</p>"))
    edge, chosen_edge = "3px solid transparent", f"3px solid {look.CHOSEN}"
    shape = {"width": "auto", "height": "34px", "border": edge}
    cells = {pair: ipywidgets.Button(layout=shape) for pair in itertools.product(mains, foreigns)}
    chosen: list[tuple[str, str]] = []

    def row_of(pair: tuple[str, str]) -> Mapping[Any, Any] | None:
        return rows.get((*(choice.value for choice in choices), *pair))

    def show(pair: tuple[str, str], _: object = None) -> None:
        for other in chosen:
            cells[other].layout.border = edge
        cells[pair].layout.border = chosen_edge
        chosen[:] = [pair]
        row = row_of(pair)
        pane.value = page(_explained(row, lab) if row else "<p>not run</p>")

    def colour(_: object = None) -> None:
        for pair, button in cells.items():
            kind = (row_of(pair) or {"outcome": "-"})["outcome"]
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
    labels = {name: ipywidgets.HTML(element("b", word)) for name, word in _labels(results).items()}
    body = [ipywidgets.HTML(element("b", "main \\ library")), *(labels[name] for name in foreigns)]
    for main in mains:
        body += [labels[main], *(cells[main, other] for other in foreigns)]
    tracks = f"minmax(7em, max-content) repeat({len(foreigns)}, minmax(5.5em, 8em))"
    layout = ipywidgets.Layout(grid_template_columns=tracks, overflow="auto")
    whole = ipywidgets.GridBox(body, layout=layout)
    return Live([control_row(choices), whole, pane], _ways(results))


def _labels(results: pd.DataFrame) -> dict[str, str]:
    """Return what each toolchain of a sweep is called in its grid: `19 (v10)`."""
    versions = dict(zip(results["main"], results["main_raw_version"], strict=True))
    versions |= dict(zip(results["foreign"], results["foreign_raw_version"], strict=True))
    return {name: f"{name.partition('@')[0]} (v{versions[name]:.0f})" for name in versions}


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
    lines = [(job.toolchain, [*job.command, out]) for job, out in zip(jobs, objects, strict=True)]
    linker = trial.main if trial.program.language == "rust" else trial.linker
    lines.append((linker, [*build.link_line(trial, objects), trial.program.name]))
    words = ((toolchain.name, " ".join(map(str, line))) for toolchain, line in lines)
    return tuple(f"# by {name}\n{re.sub(r'[^ =]*/', '', line)}" for name, line in words)


def _ways(results: pd.DataFrame) -> Shown:
    """Show the figure of a sweep, and below it each way in which its programs end."""
    figure = grid(results)
    rows = []
    for row in results.drop_duplicates(["outcome", "function"]).to_dict("records"):
        # The C library's frames differ from machine to machine.
        own = re.match(r".*(?:[Pp]rof\w*|\bmain)(?= < |$)", row["frames"])
        main, other = (row[name].partition("@")[0] for name in ("main", "foreign"))
        pair = f"main {main}, library {other}, {row['order']}"
        frames = own[0] if own else ""
        rows.append((row["program"], pair, row["outcome"], row["detail"], frames))
    ways = table(("program", "for example", "outcome", "detail", "frames"), rows)
    return Shown(f"{figure.text}\n{ways.text}", figure.html + ways.html)
