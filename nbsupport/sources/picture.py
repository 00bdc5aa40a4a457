"""The call graph drawn: the way to the crash, who else comes this way, what two runs read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbsupport import views
from nbsupport.sources.compare import WAYS
from nbsupport.sources.structure import Structure
from nbsupport.sources.walk import CHECK, START, Step, parting, spine
from nbsupport.trace import Trace
from nbsupport.views import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe and Ito's.
_GOOD, _BAD, _GATE, _PAST, _PLAIN = "#009E73", "#D55E00", "#56B4E9", "#B07800", "#EEEEEE"
_X, _WIDE = 42, 31
_STYLE: dict[str, Any] = {"va": "center", "fontsize": 8.5, "parse_math": False}
_SMALL: dict[str, Any] = {**_STYLE, "fontsize": 7.5, "color": "#444444"}


def figure(
    found: Structure, run: Trace, healthy: Sequence[Step], crashing: Sequence[Step]
) -> Shown:
    """Draw the call graph around a crash: `run`'s way from registration on, the fork marked.

    On the left who else calls a function of the way, with those past the check of the raw
    version marked; on the right what the two runs read there (see `walk.steps`). Of a run that
    did not die in the writer it says so.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, only here

    way, part = dict(spine(found, run)), parting(healthy, crashing)
    if not way or part is None:
        said = "No fork to draw: this run did not die in the profile writer."
        return Shown(said, f"<p>{said}</p>")
    names = [name for name in found.path(*WAYS[0]) if name not in way] + list(way)
    gates = [n for n, name in enumerate(names) if CHECK in found.function(name).calls]
    gate = gates[0] if gates else -1
    fork = names.index(crashing[part].function)
    drawn = Figure((9.4, 0.62 * (len(names) + 1.6)), layout="constrained")
    axes = drawn.subplots()
    axes.set(xlim=(0, 100), ylim=(len(names) + 0.5, -1.1))
    axes.set_axis_off()
    heads = {12: "who else calls it", _X: "the way to the crash", 79: "what two runs read there"}
    for x, head in heads.items():
        axes.text(x, -0.8, head, ha="center", fontweight="bold", **_STYLE)
    for y, name in enumerate(names):
        small = found.function(name).file
        small = "inlined: no frame of its own" if way.get(name) is False else small
        small = f"{small}; checks the raw version" if y == gate else small
        colour = _GATE if y == gate else _BAD if y >= fork else _PLAIN
        look: dict[str, Any] = {"edgecolor": "#555555", "alpha": 0.75}
        look["linestyle"] = "--" if way.get(name) is False else "-"
        axes.barh(y, _WIDE, 0.72, _X - _WIDE / 2, color=colour, **look)
        axes.text(_X, y - 0.14, name, ha="center", **{**_STYLE, "fontsize": 8})
        axes.text(_X, y + 0.19, small, ha="center", **_SMALL)
        if y:
            by = dict(found.leads_to(names[y - 1]))[name]
            _arrow(axes, (_X, y - 0.63), (_X, y - 0.37), _BAD if y > fork else "black")
            label = "to atexit, as a value" if by == "as a value" else f"by the pointer {by}"
            axes.text(_X + 1, y - 0.5, label if by else "", **_SMALL)
        others = [one for one in found.callers(name) if one not in names]
        if others:
            colour = _PAST if y > gate else "#555555"
            said = ",\n".join(others[:2]) + (f" and {len(others) - 2} more" if others[2:] else "")
            said += "\n(past the check)" if y > gate else ""
            axes.text(23.5, y, said, ha="right", **{**_SMALL, "color": colour})
            _arrow(axes, (23.7, y), (_X - _WIDE / 2, y), colour)
        _reads(axes, y, name, healthy, crashing[:part], crashing[part:])
    sites = " calls\n".join(found.path(*WAYS[2]))
    read = ", ".join(found.function(WAYS[2][1]).reads)
    said = f"value sites, in main:\n{sites},\nwhich reads {read}\n(past the check)"
    axes.text(23.5, len(names) - 1.4, said, ha="right", **{**_SMALL, "color": _PAST})
    y = len(names)
    _arrow(axes, (_X + 4, y - 0.63), (_X + 14, y - 0.15), _GOOD)
    axes.text(_X + 15, y - 0.05, "healthy: all is written, and 0 returned", color=_GOOD, **_STYLE)
    _arrow(axes, (_X - 4, y - 0.63), (_X - 6, y - 0.25), _BAD)
    died = f"{run.manifest['crash']['signal']} in {run.where}"
    axes.text(_X + 2, y + 0.1, died, ha="right", color=_BAD, **_STYLE)
    return views.framed(drawn, _finding(found, names, gate, crashing[part]), " -> ".join(names))


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4}
    axes.annotate("", end, start, arrowprops=style)


def _reads(
    axes: Axes,
    y: int,
    name: str,
    healthy: Sequence[Step],
    before: Sequence[Step],
    after: Sequence[Step],
) -> None:
    """Write beside a function what it reads first, in both runs: at the record where they part."""
    steps = [*before, *after]
    numbers = [n for n, step in enumerate(steps) if step.function == name]
    for n in ([n for n in numbers if n >= len(before)] or numbers)[:1]:
        one, this = healthy[n], steps[n]
        reads = "" if name == START else f"{this.field}: "
        axes.text(59, y - 0.17, f"healthy: {reads}{one.value}", color=_GOOD, **_STYLE)
        colour = _BAD if this.misread else "black"
        axes.text(59, y + 0.17, f"this run: {reads}{this.value}", color=colour, **_STYLE)


def _finding(found: Structure, names: Sequence[str], gate: int, fork: Step) -> str:
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
