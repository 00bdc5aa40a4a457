"""The call graph drawn: the way to the crash, who else comes this way, what two runs read."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nbsupport.show import look, shown
from nbsupport.show.shown import Shown
from nbsupport.studies.sources.compare import WAYS
from nbsupport.studies.sources.structure import Structure
from nbsupport.studies.writer import CHECK, START, ReadStep, parting, spine
from nbsupport.trace.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: In points: of the way, its middle, width, and from one function to the next; ends of texts
#: on its left, beginnings of those on its right.
_X, _WIDE, _STEP, _LEFT, _RIGHT = 272, 206, 46, 156, 384
_SMALL, _MUTED = look.SMALL, look.MUTED


def figure(
    found: Structure, run: Trace, healthy: Sequence[ReadStep], crashing: Sequence[ReadStep]
) -> Shown:
    """Draw the call graph around a crash: `run`'s way from registration on, the fork marked.

    On the left who else calls a function of the way, with those past the check of the raw
    version marked; on the right what the two runs read there (see `walk.steps`). Of a run that
    did not die in the writer it says so.
    """
    way, part = dict(spine(found, run)), parting(healthy, crashing)
    if not way or part is None:
        said = "No fork to draw: this run did not die in the profile writer."
        return Shown(said, f"<p>{said}</p>")
    names = [name for name in found.path(*WAYS[0]) if name not in way] + list(way)
    gates = [n for n, name in enumerate(names) if CHECK in found.function(name).calls]
    gate = gates[0] if gates else -1
    fork = names.index(crashing[part].function)
    ys = [_STEP * (n + 1) for n in range(len(names) + 1)]
    drawn, axes = look.sheet(ys[-1] + 20)
    heads = {0: "who else calls it", _X: "the way to the crash", _RIGHT: "what two runs read there"}
    for x, head in heads.items():
        axes.text(x, 8, head, ha="center" if x == _X else "left", **look.HEAD)
    for n, (y, name) in enumerate(zip(ys, names, strict=False)):
        small = found.function(name).file
        small = "inlined: no frame of its own" if way.get(name) is False else small
        small = f"{small}; checks the raw version" if n == gate else small
        fill = look.SKY if n == gate else look.BAD if n >= fork else "none"
        line = "--" if way.get(name) is False else "-"
        edge = {"edgecolor": look.INK, "linewidth": 0.8, "linestyle": line}
        look.cell(axes, (_X, y), (_WIDE, 28), fill, f"{name}\n{small}", **edge)
        if n:
            by = dict(found.leads_to(names[n - 1]))[name]
            _arrow(axes, (_X, y - 32), (_X, y - 14), look.BAD if n > fork else look.INK)
            label = "to atexit, as a value" if by == "as a value" else f"by the pointer {by}"
            axes.text(_X + 6, y - 23, label if by else "", **_MUTED)
        others = [one for one in found.callers(name) if one not in names]
        if others:
            said = ",\n".join(others[:2]) + (f" and {len(others) - 2} more" if others[2:] else "")
            _beside(axes, y, f"{said}\n(past the check)" if n > gate else said)
            _arrow(axes, (_LEFT + 2, y), (_X - _WIDE / 2, y), look.INK)
        _reads(axes, y, name, healthy, crashing[:part], crashing[part:])
    sites = " calls\n".join(found.path(*WAYS[2]))
    read = ", ".join(found.function(WAYS[2][1]).reads)
    said = f"value sites, in main:\n{sites},\nwhich reads {read}\n(past the check)"
    _beside(axes, ys[-2] - 10, said)
    y = ys[-1]
    _arrow(axes, (_X + 30, y - 32), (_X + 80, y - 4), look.GOOD)
    axes.text(_X + 84, y, "healthy: all is written, and 0 returned", **_SMALL)
    _arrow(axes, (_X - 30, y - 32), (_X - 55, y - 8), look.BAD)
    died = f"{run.manifest['crash']['signal']} in {run.where}"
    axes.text(0, y, died, **_SMALL)
    return shown.framed(drawn, _finding(found, names, gate, crashing[part]), " -> ".join(names))


def _beside(axes: Axes, y: float, said: str) -> None:
    axes.text(_LEFT, y, said, ha="right", **_SMALL)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4}
    axes.annotate("", end, start, arrowprops=style)


def _reads(
    axes: Axes,
    y: float,
    name: str,
    healthy: Sequence[ReadStep],
    before: Sequence[ReadStep],
    after: Sequence[ReadStep],
) -> None:
    """Write beside a function what it reads first, in both runs: at the record where they part."""
    steps = [*before, *after]
    numbers = [n for n, step in enumerate(steps) if step.function == name]
    for n in ([n for n in numbers if n >= len(before)] or numbers)[:1]:
        one, this = healthy[n], steps[n]
        reads = "" if name == START else f"{this.field}\n"
        above, below = (
            f"{who}: {step.value}" for who, step in (("healthy", one), ("this run", this))
        )
        weight = "bold" if this.misread else "normal"
        styles = {**_SMALL, "va": "bottom"}, {**_SMALL, "va": "top", "fontweight": weight}
        axes.text(_RIGHT, y + 2, reads + textwrap.fill(above, 33), **styles[0])
        axes.text(_RIGHT, y + 2, textwrap.fill(below, 33), **styles[1])


def _finding(found: Structure, names: Sequence[str], gate: int, fork: ReadStep) -> str:
    """Say what the picture shows, read off the structure."""
    past = {one for name in names[gate + 1 :] for one in found.callers(name)} - set(names)
    sites = found.path(*WAYS[2])
    checked = any(CHECK in found.function(name).calls for name in sites)
    where = names[gate] if gate >= 0 else "no function of this way"
    return (
        f"The raw version is checked in {where}; {len(past)} other functions enter "
        f"below it ({', '.join(sorted(past))}), and so does every value site in main "
        f"({' -> '.join(sites)}), which {'checks it, too' if checked else 'checks nothing'}. The "
        f"runs part in {fork.function}, at {fork.reads}: {fork.value}, which its compiler wrote "
        f"as {fork.written}."
    )
