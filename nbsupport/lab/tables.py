"""What a notebook shows: outcomes, tables and figures, each as text and as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nbsupport.lab.build import Trial
from nbsupport.lab.outcome import Outcome
from nbsupport.show import look
from nbsupport.show.shown import Shown, framed, table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

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
