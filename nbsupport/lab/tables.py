"""What a notebook shows: outcomes, tables and figures, each as text and as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbsupport.lab.build import Trial
from nbsupport.lab.outcome import Outcome
from nbsupport.notebooks.results import Run
from nbsupport.show import look
from nbsupport.studies.observations import Observation

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Verdicts, by how a page marks them: well, badly, or undecided.
_MARKS = {
    "holds": "holds",
    "DOES NOT HOLD": "fails",
    "supported": "holds",
    "refuted": "refuted",
    "open": "open",
    "cures": "holds",
    "does not help": "fails",
}
_BESIDE = 5  # so many LLVMs at most leave room for a second panel beside the first

#: JupyterLab aligns cells to the right and in the middle, which is for numbers.
_STYLE = (
    "<style>table.lab :is(th,td){text-align:left;vertical-align:top}"
    "table.lab .outcome{font-weight:600}</style>"
)


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


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, marked: bool = True) -> Shown:
    """Show rows of text under headings.

    `marked`: a cell that is an outcome or a verdict has its colour. Long names may break in a line.
    """
    lines = [tuple(columns), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    cell = _cell if marked else _breaking
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(map(cell, line)) + "</tr>" for line in lines[1:])
    return Shown(
        text,
        f'{_STYLE}<table class="lab"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>',
    )


def _breaking(text: str) -> str:
    def parted(word: re.Match[str]) -> str:
        return re.sub(r"(_+|::|[$]|[a-z](?=[A-Z]))(?=\S)", r"\1<wbr>", word[0])

    long = r"\S{16,}"
    return f"<td>{re.sub(long, parted, html.escape(text))}</td>"


def _cell(text: str) -> str:
    """Return a cell; one that holds a kind of outcome, or a verdict, is marked for the style."""
    word = "open" if text.startswith("survives, ") else re.sub(r" (at exit|in .*)$", "", text)
    kind = _MARKS.get(word, word if word in look.OUTCOMES else "")
    return f'<td class="outcome {kind}">{html.escape(text)}</td>' if kind else _breaking(text)


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


def compare(observed: Sequence[Observation], result: Outcome) -> Shown:
    """Show a crash beside what the user saw."""
    dead = result.crash
    here: dict[str, str] = {}
    if dead and dead.frames:
        exits = any(frame.function == "exit" for frame in dead.frames)
        computed = "" if dead.fault_address is None else f"{dead.fault_address:#x}"
        here = {
            "function": dead.function,
            "offset": str(dead.frames[0].offset),
            "address": f"{computed} (from the {dead.fault_address_from})",
            "moment": "at exit" if exits else "in main",
            "allocators": "none",
        }
    rows = [(one.what, one.value, here[one.id]) for one in observed if one.id in here]
    return table(("observation", "the user, on macOS", "here"), rows)


def claims(run: Run) -> Shown:
    """Show the claims of a run, one a line, each with a link to the notebook that shows it."""
    columns = ["holds", "sentence", "observed", "notebook"]
    rows = [
        ("holds" if holds else "DOES NOT HOLD", *said)
        for holds, *said in run.claims[columns].itertuples(index=False)
    ]
    shown = table(("verdict", "claim", "observed", "shown in"), rows)
    page = shown.html
    for name, notebook in run.claims[["name", "notebook"]].itertuples(index=False):
        link = f'<a href="{notebook}.ipynb#claim-{name}">{notebook}</a>'
        page = page.replace(f"<td>{notebook}</td></tr>", f"<td>{link}</td></tr>", 1)
    return Shown(shown.text, page)


def provenance(run: Run) -> Shown:
    """Show of when and what a run is."""
    manifest = run.manifest
    names = ", ".join(t["name"] for t in manifest.get("toolchains", ()))
    when = str(manifest.get("started", "")).partition("T")[0] or "an unknown day"
    what = "A recording that came with the project" if run.recorded else "A run on this machine"
    line = f"{what}, of {when}, {manifest.get('platform', '')}, with {names}"
    line += f" (stale: made by {run.outdated}; make it again)" if run.outdated else ""
    return Shown(line, f'<p class="provenance">{html.escape(line)}</p>')


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


def svg(figure: Shown) -> str:
    """Return the picture of a figure alone, on white, for a page that is not ours."""
    drawn = figure.html[figure.html.index("<svg") : figure.html.index("</svg>")] + "</svg>\n"
    return drawn.replace('style="', 'style="background: white; ', 1)


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


def framed(figure: Figure, caption: str, alternative: str) -> Shown:
    """Show a figure (of `look`) above its caption, which states the finding.

    `alternative` says in words what else there is to see.
    """
    drawn = look.svg(figure, caption, alternative)
    shown = f'<figure class="lab">{drawn}<figcaption>{html.escape(caption)}</figcaption></figure>'
    return Shown(f"figure: {caption} ({alternative})", shown)
