"""A trace drawn: the pointers on a map of memory, and a slider through the events."""

from __future__ import annotations

import html
from collections import Counter
from typing import Any

from nbsupport import views
from nbsupport.trace.kept import Trace
from nbsupport.trace.memory import UNMAPPED
from nbsupport.trace.shown import (
    BANDS,
    GIVEN,
    NOWHERE,
    RECORDS,
    Map,
    end_of,
    killer_of,
    rows_of,
    said_of,
    twin,
)
from nbsupport.views import Shown

_GOOD, _BAD = "#009E73", "#D55E00"


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
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, only here

    known, killer, rows = Map(found), killer_of(found), rows_of(found, "pointers")
    own = [n for n, label in enumerate(known.bands) if label in BANDS] or [0]
    ys = {a: n + 0.9 * (n >= own[0]) + 0.5 * (n > own[-1]) for n, a in enumerate(known.bands)}
    drawn = Figure((9.4, 1.2 + 0.38 * ys[NOWHERE]), layout="constrained")
    axes = drawn.subplots()
    axes.set(xlim=(0, 100), ylim=(ys[NOWHERE] + 0.6, -1.2))
    axes.set_axis_off()
    style: dict[str, Any] = {"va": "center", "fontsize": 8.5, "parse_math": False}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.7}
    for label, y in ys.items():
        look: dict[str, Any] = {"hatch": "///" if GIVEN.match(label) else "", "alpha": 0.6}
        look |= {"linestyle": "--" if label == NOWHERE else "-", "edgecolor": "#555555"}
        axes.barh(y, 34, 0.86, 24, color=BANDS.get(label, "white"), **look)
        axes.text(41, y, label, ha="center", bbox=box, **style)
    low, high = ys[known.bands[own[0]]] - 0.6, ys[known.bands[own[-1]]] + 0.6
    axes.plot([23, 59, 59, 23, 23], [low, low, high, high, low], color="black")
    axes.text(23, low - 0.3, f"the image of {known.image}", **style)
    passed = [one for one in rows if one.how == "passed"]
    head = "the writer was given" if passed else "no call of the writer was seen"
    axes.text(19, -0.9, head, ha="right", fontweight="bold", **style)
    axes.text(68, -0.9, "Values of the records lead to", fontweight="bold", **style)
    for one in passed:
        y = ys[known.label(one.owner)] + (0.22 if one.name.endswith("End") else -0.22)
        arrow: dict[str, Any] = {"arrowstyle": "->"}
        axes.annotate(one.name, (24, y), (16, y), arrowprops=arrow, ha="right", **style)
    lead = Counter((known.label(one.owner), one.how) for one in rows if one.name == "Values")
    begin = ys.get(RECORDS, 0)
    ends = sorted({label for label, _ in lead}, key=lambda label: abs(ys[label] - begin))
    for lane, label in enumerate(ends):
        hows = [how for how in ("written", "read") if lead[label, how]]
        said = [", ".join(f"{lead[label, how]} as {how}" for how in hows)]
        if killer and label == known.label(known.memory.owner(killer[1])):
            what = f"= {killer[1]:#x}: " * (label == NOWHERE)
            said.append(f"Values of {killer[0][:30]}\n{what}the program dies of it")
        x, y, colour = 61 + 1.5 * lane, ys[label], _GOOD if "written" in hows else _BAD
        shift = begin + (0.1 + 0.1 * lane) * (1 if y > begin else -1)
        axes.plot([58, x, x], [shift, shift, y], color=colour, linewidth=2)
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2}
        axes.annotate("", (57.5, y), (x + 0.2, y), arrowprops=arrow)
        axes.text(63 + 1.5 * len(ends), y, "\n".join(said), **style)
    told = "; ".join(f"{n} Values as {how} lead to {label}" for (label, how), n in lead.items())
    return views.framed(drawn, _finding(found, known), told or "no Values")


def stepper(found: Trace) -> Any:
    """Return a slider over the events: each in words, its frames, and where on the map it is.

    A page without a kernel shows the decisive moments instead.
    """
    import ipywidgets  # noqa: PLC0415 - only notebooks have it

    known, start, events = Map(found), twin(found), rows_of(found)
    slider = ipywidgets.IntSlider(0, 0, max(0, len(events) - 1), description="step:")
    pane = ipywidgets.HTML()

    def draw(_: object) -> None:
        for event in events[slider.value : slider.value + 1]:
            given = {known.memory.owner(int(word, 16)) for word in event.arguments.split()}
            marks = {known.label(owner): "its arguments" for owner in given - {UNMAPPED}}
            if event.module:
                own = f"{known.image}: text" if event.module == known.image else event.module
                marks[known.label(own)] = "its code"
            if event.kind == "crash" and (killer := killer_of(found)):
                marks[known.label(known.memory.owner(killer[1]))] = "taken for Values"
            bands = "".join(_band(one, marks.get(one, "")) for one in known.bands)
            frames = "".join(f"<li>{html.escape(f)}</li>" for f in event.frames.split(" < ") if f)
            said = f"{event.kind}: {event.function}", said_of(found, event)
            head, more = map(html.escape, said)
            first = 0 if event.kind == "crash" else 1  # else the innermost is the function itself
            pane.value = (
                '<div style="display:flex;gap:3em;min-height:32em"><div style="width:26em">'
                f"<p><b>{head}</b></p><p>{more}</p><ol start={first}>{frames}</ol></div>"
                f"<div>{bands}</div></div>"
            )

    slider.observe(draw, names="value")
    draw(None)

    return views.live([slider, pane], start)


def _band(label: str, mark: str) -> str:
    """Return a band of the memory map, strong where it is marked, and the mark beside it."""
    look = f"background:{BANDS.get(label, '#FFFFFF')};opacity:{1 if mark else 0.7};color:black"
    look += f";border:{2 if mark else 1}px solid black;width:18em;padding:1px 8px;margin:2px"
    said = f"&#9664; <b>{html.escape(mark)}</b>" if mark else ""
    return f'<div style="display:flex"><div style="{look}">{html.escape(label)}</div>{said}</div>'
