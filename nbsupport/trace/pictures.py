"""A trace drawn: the pointers on a map of memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets

from nbsupport.show import look, shown
from nbsupport.show.shown import Html, Shown, element
from nbsupport.show.widgets import Live, choice, live
from nbsupport.trace.memory import ALLOCATED, NOWHERE, RECORDS, SECTION_BANDS, UNMAPPED
from nbsupport.trace.trace import Trace
from nbsupport.trace.words import details, ending, milestone_table, milestones, misread_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PALETTE = look.GREY, look.PURPLE, look.GREEN, look.YELLOW, look.SKY, look.ORANGE, look.PALE
#: Colours of the bands of sections.
_COLOURS = dict(zip(SECTION_BANDS.values(), _PALETTE, strict=True))
#: Of a band of memory, in points: middle, width, and from one to the next.
_X, _WIDE, _HIGH = 212, 168, 26
_LEFT, _RIGHT = _X - _WIDE / 2 - 4, _X + _WIDE / 2 + 4


def _finding(trace: Trace) -> str:
    """Say where the writer's pointers lead, read off the table."""
    counts: Counter[str] = Counter()
    for pointer in trace.rows("pointers"):
        if pointer.how != "written":
            label = trace.memory_map.label(pointer.owner)
            if "__llvm_prf" in label:
                label = "the profile's own sections"
            if ALLOCATED.search(pointer.owner):
                label = f"an allocator's memory ({pointer.owner})"
            counts[label] += 1
    text = "No pointer of a writer was seen."
    if counts:
        parts = (f"{n} lead{'s' if n == 1 else ''} to {label}" for label, n in counts.items())
        leads = ", ".join(parts)
        none = "" if "an allocator's" in leads else "none leads to an allocator's memory, "
        text = f"The writer has {counts.total()} pointers to follow: {none}{leads}."
        text = text.replace(f"to {NOWHERE}", "nowhere")
    if misread := misread_values(trace):
        dies = f" It takes {misread[1]:#x} for Values of {misread[0]}, and dies there."
        text += trace.memory_map.words(dies)
    key = "Green: as a compiler wrote it. Red: as the runtime reads it. Hatched: an allocator's."
    return f"{text} The end: {ending(trace)}. {key} Not to scale, low addresses at the top."


def memory_map(trace: Trace) -> Shown:
    """Show where the profile's pointers lead, as a figure: whose memory is where.

    On the left what the writer was given, on the right `Values`. The caption states the finding.
    """
    ys = _heights(trace.memory_map.bands)
    figure, axes = look.sheet(ys[NOWHERE] + _HIGH)
    _draw_bands(axes, ys, trace.memory_map.image)
    pointers = trace.rows("pointers")
    _draw_passed(axes, ys, trace, [row for row in pointers if row.how == "passed"])
    values = [row for row in pointers if row.name == "Values"]
    leads = Counter((trace.memory_map.label(row.owner), row.how) for row in values)
    _draw_values(axes, ys, trace, leads)
    words = [f"{n} Values as {how} lead to {label}" for (label, how), n in leads.items()]
    return shown.framed(figure, _finding(trace), "; ".join(words) or "no Values")


def _heights(bands: Sequence[str]) -> dict[str, float]:
    """Return where each band stands, in points; the image's own stand apart."""
    own = [n for n, label in enumerate(bands) if label in _COLOURS] or [0]
    ys = {}
    for n, label in enumerate(bands):
        y: float = n
        if n >= own[0]:
            y += 0.9
        if n > own[-1]:
            y += 0.5
        ys[label] = _HIGH * (1.5 + y)
    return ys


def _draw_bands(axes: Axes, ys: Mapping[str, float], image: str) -> None:
    for label, y in ys.items():
        edge: dict[str, Any] = {"linestyle": "--" if label == NOWHERE else "-"}
        edge |= {"edgecolor": look.INK, "linewidth": 0.8}
        colour = _COLOURS.get(label, "none")
        look.cell(axes, (_X, y), (_WIDE, _HIGH - 4), colour, label, **edge)
        if ALLOCATED.match(label):
            end = _X - _WIDE / 2 + 10, y
            look.cell(axes, end, (20, _HIGH - 4), "none", "", hatch="////", **edge)
    own = [y for label, y in ys.items() if label in _COLOURS] or list(ys.values())[:1]
    low, high = own[0] - 17, own[-1] + 17
    corners = [_LEFT, _RIGHT, _RIGHT, _LEFT, _LEFT], [low, low, high, high, low]
    axes.plot(*corners, color=look.INK)
    axes.text(_LEFT, low - 8, f"the image of {image}", **look.LABEL)


def _draw_passed(axes: Axes, ys: Mapping[str, float], trace: Trace, passed: Sequence[Any]) -> None:
    """Draw an arrow for each bound that the writer was given."""
    head = "the writer gets" if passed else "no call of the writer was seen"
    axes.text(0, 8, head, **look.HEAD)
    for pointer in passed:
        below = 6 if pointer.name.endswith("End") else -6
        y = ys[trace.memory_map.label(pointer.owner)] + below
        arrow = {"arrowstyle": "->", "color": look.INK}
        ends = (_LEFT + 4, y), (_LEFT - 32, y)
        axes.annotate(pointer.name, *ends, arrowprops=arrow, ha="right", **look.SMALL)


def _draw_values(
    axes: Axes, ys: Mapping[str, float], trace: Trace, leads: Counter[tuple[str, str]]
) -> None:
    """Draw an arrow to each band that `Values` lead to, and say how many do; with the killer."""
    begin = ys.get(RECORDS, 0)
    reached = sorted({label for label, _ in leads}, key=lambda label: abs(ys[label] - begin))
    beside = _RIGHT + 16 + 8 * len(reached)
    axes.text(beside, 8, "Values of the records lead to", **look.HEAD)
    misread, places = misread_values(trace), trace.memory_map
    for lane, label in enumerate(reached):
        hows = [how for how in ("written", "read") if leads[label, how]]
        lines = [", ".join(f"{leads[label, how]} as {how}" for how in hows)]
        if misread and label == places.label(places.memory.owner(misread[1])):
            value = f"= {misread[1]:#x}: " if label == NOWHERE else ""
            lines += [f"Values of {misread[0][:30]}", f"{value}the program dies here"]
        x, y = _RIGHT + 8 + 8 * lane, ys[label]
        colour = look.GOOD if "written" in hows else look.BAD
        start = begin + (3 + 3 * lane) * (1 if y > begin else -1)
        axes.plot([_RIGHT - 4, x, x], [start, start, y], color=colour, linewidth=2)
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2}
        axes.annotate("", (_RIGHT - 5, y), (x + 1, y), arrowprops=arrow)
        axes.text(beside, y, "\n".join(lines), **look.SMALL)


#: No step: a choice of None would show nothing at all.
_NONE = -1
#: A band of memory: its own text is black on a light ground, in a dark theme, too.
_BAND = "color:black;border:{}px solid {};width:18em;padding:1px 8px;margin:2px;background:{}"


def timeline(trace: Trace) -> Live:
    """Return a slider over the events: each in words, its frames, and where on the map it is.

    A page without a kernel shows the milestones instead, to which a choice jumps here.
    """
    events, stops = trace.rows("events"), milestones(trace)
    slider = ipywidgets.IntSlider(0, 0, max(0, len(events) - 1), description="step:")
    slider.layout.width = "30em"
    options = [("-", _NONE), *((f"{stop.n}: {stop.title}", stop.n) for stop in stops)]
    jump = choice("jump to", options)

    def stepped(_: object = None) -> None:
        jump.value = slider.value if slider.value in {stop.n for stop in stops} else _NONE

    def jumped(change: Mapping[str, Any]) -> None:
        slider.value = slider.value if change["new"] == _NONE else change["new"]

    slider.observe(stepped, names="value")
    jump.observe(jumped, names="value")
    stepped()

    def draw() -> str:
        return "".join(_event(trace, event) for event in events[slider.value :][:1])

    return live([slider, jump], draw, milestone_table(trace))


def _event(trace: Trace, event: Any) -> str:
    """Return an event in words, with its frames, and the memory map with what it touches."""
    places = trace.memory_map
    owners = {places.memory.owner(int(word, 16)) for word in event.arguments.split()}
    marks = {places.label(owner): "its arguments" for owner in owners - {UNMAPPED}}
    if event.module:
        own = f"{places.image}: text" if event.module == places.image else event.module
        marks[places.label(own)] = "its code"
    if event.kind == "crash" and (misread := misread_values(trace)):
        marks[places.label(places.memory.owner(misread[1]))] = "taken for Values"
    bands = (_memory_band(label, marks.get(label, "")) for label in places.bands)
    frames = "".join(element("li", frame) for frame in event.frames.split(" < ") if frame)
    first = 0 if event.kind == "crash" else 1  # else the innermost is the function itself
    head = element("p", element("b", f"{event.kind}: {event.function}"))
    more = element("p", details(trace, event)), Html(f"<ol start={first}>{frames}</ol>")
    words = element("div", head, *more, style="width:26em")
    style = "display:flex;flex-wrap:wrap;gap:1em 3em;min-height:32em"
    return element("div", words, element("div", *bands), style=style)


def _memory_band(label: str, mark: str) -> Html:
    """Return a band of the memory map; where it is marked, framed, and the mark beside it."""
    frame = (3, look.CHOSEN) if mark else (1, look.FRAME)
    band = element("div", label, style=_BAND.format(*frame, _COLOURS.get(label, "white")))
    words = (Html("&#9664; "), element("b", mark)) if mark else ()
    return element("div", band, *words, style="display:flex")
