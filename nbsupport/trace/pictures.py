"""A trace drawn: the pointers on a map of memory."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping
from typing import Any

import ipywidgets

from nbsupport.show import look, shown
from nbsupport.show.shown import Shown
from nbsupport.show.widgets import Live, choice, control_row, live
from nbsupport.trace.memory import UNMAPPED
from nbsupport.trace.trace import Trace
from nbsupport.trace.words import (
    BANDS,
    GIVEN,
    NOWHERE,
    RECORDS,
    Map,
    end_of,
    killer_of,
    moments,
    rows_of,
    said_of,
    twin,
)

#: Of a band of memory, in points: middle, width, and from one to the next.
_X, _WIDE, _HIGH = 212, 168, 26


def _finding(found: Trace, known: Map) -> str:
    """Say where the writer's pointers lead, read off the table."""
    count: Counter[str] = Counter()
    for owner in (one.owner for one in rows_of(found, "pointers") if one.how != "written"):
        label = known.label(owner)
        label = "the profile's own sections" if "__llvm_prf" in label else label
        count[f"an allocator's memory ({owner})" if GIVEN.search(owner) else label] += 1
    said = [f"{n} lead{'s' * (n == 1)} to {label}" for label, n in count.items()]
    none = "" if "an allocator's" in str(said) else "none leads to an allocator's memory, "
    text = f"Of the {count.total()} pointers that the writer is to follow {none}{', '.join(said)}."
    text = text.replace(f"to {NOWHERE}", "nowhere") if said else "No pointer of a writer was seen."
    if killer := killer_of(found):
        text += known.words(f" It dies of what it takes for Values of {killer[0]}: {killer[1]:#x}.")
    return f"{text} The end: {end_of(found)}. Not to scale, low addresses at the top."


def memory_map(found: Trace) -> Shown:
    """Show where the profile's pointers lead, as a figure: whose memory is where.

    On the left what the writer was given, on the right `Values`. The caption states the finding.
    """
    known, killer, rows = Map(found), killer_of(found), rows_of(found, "pointers")
    own = [n for n, label in enumerate(known.bands) if label in BANDS] or [0]
    apart = (n + 0.9 * (n >= own[0]) + 0.5 * (n > own[-1]) for n in range(len(known.bands)))
    ys = {label: _HIGH * (1.5 + y) for label, y in zip(known.bands, apart, strict=True)}
    drawn, axes = look.sheet(ys[NOWHERE] + _HIGH)
    for label, y in ys.items():
        edge: dict[str, Any] = {"linestyle": "--" if label == NOWHERE else "-"}
        edge |= {"edgecolor": look.INK, "linewidth": 0.8}
        look.cell(axes, (_X, y), (_WIDE, _HIGH - 4), BANDS.get(label, "none"), label, **edge)
        if GIVEN.match(label):
            end = _X - _WIDE / 2 + 10, y
            look.cell(axes, end, (20, _HIGH - 4), "none", "", hatch="////", **edge)
    low, high = ys[known.bands[own[0]]] - 17, ys[known.bands[own[-1]]] + 17
    left, right = _X - _WIDE / 2 - 4, _X + _WIDE / 2 + 4
    axes.plot([left, right, right, left, left], [low, low, high, high, low], color=look.INK)
    axes.text(left, low - 8, f"the image of {known.image}", **look.LABEL)
    passed = [one for one in rows if one.how == "passed"]
    head = "the writer was given" if passed else "no call of the writer was seen"
    axes.text(0, 8, head, **look.HEAD)
    for one in passed:
        y = ys[known.label(one.owner)] + (6 if one.name.endswith("End") else -6)
        arrow: dict[str, Any] = {"arrowstyle": "->", "color": look.INK}
        ends = (left + 4, y), (left - 32, y)
        axes.annotate(one.name, *ends, arrowprops=arrow, ha="right", **look.SMALL)
    lead = Counter((known.label(one.owner), one.how) for one in rows if one.name == "Values")
    begin = ys.get(RECORDS, 0)
    reached = sorted({label for label, _ in lead}, key=lambda label: abs(ys[label] - begin))
    beside = right + 16 + 8 * len(reached)
    axes.text(beside, 8, "Values of the records lead to", **look.HEAD)
    for lane, label in enumerate(reached):
        hows = [how for how in ("written", "read") if lead[label, how]]
        said = [", ".join(f"{lead[label, how]} as {how}" for how in hows)]
        if killer and label == known.label(known.memory.owner(killer[1])):
            what = f"= {killer[1]:#x}: " * (label == NOWHERE)
            said.append(f"Values of {killer[0][:30]}\n{what}the program dies of it")
        x, y, colour = right + 8 + 8 * lane, ys[label], look.GOOD if "written" in hows else look.BAD
        shift = begin + (3 + 3 * lane) * (1 if y > begin else -1)
        axes.plot([right - 4, x, x], [shift, shift, y], color=colour, linewidth=2)
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2}
        axes.annotate("", (right - 5, y), (x + 1, y), arrowprops=arrow)
        axes.text(beside, y, "\n".join(said), **look.SMALL)
    told = "; ".join(f"{n} Values as {how} lead to {label}" for (label, how), n in lead.items())
    return shown.framed(drawn, _finding(found, known), told or "no Values")


#: No step: a choice of None would show nothing at all.
_NONE = -1


#: A band of memory: its own text is black on a light ground, in a dark theme, too.
_BAND = "color:black;border:{}px solid {};width:18em;padding:1px 8px;margin:2px;background:{}"


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
    bands = "".join(_memory_band(one, marks.get(one, "")) for one in known.bands)
    frames = "".join(f"<li>{html.escape(f)}</li>" for f in event.frames.split(" < ") if f)
    head, more = html.escape(f"{event.kind}: {event.function}"), said_of(found, event)
    first = 0 if event.kind == "crash" else 1  # else the innermost is the function itself
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:1em 3em;min-height:32em">'
        f'<div style="width:26em"><p><b>{head}</b></p><p>{html.escape(more)}</p>'
        f"<ol start={first}>{frames}</ol></div><div>{bands}</div></div>"
    )


def _memory_band(label: str, mark: str) -> str:
    """Return a band of the memory map; where it is marked, framed, and the mark beside it."""
    frame = (3, "var(--jp-brand-color1,#1976d2)") if mark else (1, "#777777")
    style = _BAND.format(*frame, BANDS.get(label, "white"))
    said = f"&#9664; <b>{html.escape(mark)}</b>" if mark else ""
    return f'<div style="display:flex"><div style="{style}">{html.escape(label)}</div>{said}</div>'
