"""What a notebook shows: outcomes, tables and figures, each as text and as HTML.

Colours are of Okabe and Ito's palette, which survives colour-blindness; each cell of a
figure also says its outcome in letters.
"""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbsupport.outcome import Kind, Outcome
from nbsupport.trials import Trial

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colour and label of each outcome; a label must fit a cell.
_LOOK: dict[Kind, tuple[str, str]] = {
    "ok": ("#009E73", "ok"),
    "crash": ("#D55E00", "crash"),
    "version-mismatch": ("#E69F00", "mismatch"),
    "no-profile": ("#56B4E9", "none"),
    "malformed": ("#CC79A7", "broken"),
    "wrong-counts": ("#F0E442", "wrong"),
    "failed": ("#999999", "failed"),
    "limit": ("#999999", "limit"),
    "build-failed": ("#999999", "no build"),
}


@dataclass(frozen=True)
class Shown:
    """Something to look at: HTML where there is a browser, else the text."""

    text: str
    html: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


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


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Shown:
    """Show rows of text under headings."""
    lines = [tuple(columns), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in lines[1:]
    )
    return Shown(
        text, f'<table class="lab"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def outcomes(found: pd.DataFrame, rows: str, columns: str) -> Shown:
    """Show the outcomes of a sweep crosswise, in the order in which they were asked for."""
    across = list(dict.fromkeys(found[columns]))
    cells = {(r, c): o for r, c, o in found[[rows, columns, "outcome"]].itertuples(index=False)}
    down = dict.fromkeys(found[rows])
    lines = [(str(r), *(str(cells.get((r, c), "-")) for c in across)) for r in down]
    return table((rows, *(str(c) for c in across)), lines)


def grid(found: pd.DataFrame, caption: str) -> Shown:
    """Show a sweep over main x foreign as a figure: a panel for each program and order.

    `caption` states the finding; a table with the same content is the text alternative.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, only here

    programs, orders = list(dict.fromkeys(found["program"])), list(dict.fromkeys(found["order"]))
    size = 1.6 + 0.62 * found["foreign"].nunique(), 1.5 + 0.5 * found["main"].nunique()
    figure = Figure(figsize=(size[0] * len(orders), size[1] * len(programs)), layout="constrained")
    axes = figure.subplots(len(programs), len(orders), squeeze=False)
    for row, program in zip(axes, programs, strict=True):
        for panel, order in zip(row, orders, strict=True):
            part = found[(found["program"] == program) & (found["order"] == order)]
            _panel(panel, part, f"{program}: {order.replace('-', ' ')}")
    return _figure(figure, caption, _crosstab(found))


def _panel(axes: Axes, part: pd.DataFrame, title: str) -> None:
    mains, foreigns = list(dict.fromkeys(part["main"])), list(dict.fromkeys(part["foreign"]))
    for main, foreign, kind in part[["main", "foreign", "outcome"]].itertuples(index=False):
        colour, label = _LOOK[kind]
        x, y = foreigns.index(foreign), mains.index(main)
        axes.bar(x, 0.94, 0.94, y - 0.47, color=colour)
        axes.text(x, y, label, ha="center", va="center", fontsize=8)
    versions = {**dict(zip(part["main"], part["main_raw_version"], strict=True))}
    versions |= dict(zip(part["foreign"], part["foreign_raw_version"], strict=True))
    labels = [f"{name.partition('@')[0]}\nv{versions[name]:.0f}" for name in foreigns]
    axes.set_xticks(range(len(foreigns)), labels)
    labels = [f"{name.partition('@')[0]} (v{versions[name]:.0f})" for name in mains]
    axes.set_yticks(range(len(mains)), labels)
    axes.set_xlabel("library's LLVM (raw version)")
    axes.set_ylabel("main's LLVM")
    axes.set_xlim(-0.5, len(foreigns) - 0.5)
    axes.set_ylim(len(mains) - 0.5, -0.5)
    axes.set_title(title, fontsize=10)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _crosstab(found: pd.DataFrame) -> str:
    return "; ".join(
        f"{kind} {count}" for kind, count in found["outcome"].value_counts(sort=True).items()
    )


def _figure(figure: Figure, caption: str, alternative: str) -> Shown:
    """Render a figure as SVG inside the page, the same bytes each time."""
    import matplotlib as mpl  # noqa: PLC0415

    content = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "pgo-lab", "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    label = html.escape(f"{caption} ({alternative})", quote=True)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    shown = f'<figure class="lab">{svg}<figcaption>{html.escape(caption)}</figcaption></figure>'
    return Shown(f"figure: {caption} ({alternative})", shown)
