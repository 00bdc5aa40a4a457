"""The record ruler drawn: what was written above, what the runtime reads below; and its tables."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nbsupport import ruler, views
from nbsupport.errors import LabError
from nbsupport.profile.layout import Layout
from nbsupport.ruler import Record, Ruler
from nbsupport.views import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nbsupport.profile import infer
    from nbsupport.trials import Lab

#: Colour of each meaning (Okabe and Ito), and the fields that have it.
_MEANINGS = {
    "who: NameRef, FuncHash": ("#56B4E9", ("NameRef", "FuncHash")),
    "where its counters are": ("#009E73", ("CounterPtr", "UniformCounterPtr", "BitmapPtr")),
    "its code": ("#F0E442", ("FunctionPointer",)),
    "where its values are": ("#D55E00", ("Values",)),
    "how many": (
        "#E69F00",
        ("NumCounters", "NumValueSites", "OffloadDeviceWaveSize", "NumBitmapBytes"),
    ),
}
_HEIGHT = 3.1
_COLOURS = {name: colour for colour, names in _MEANINGS.values() for name in names}


def layouts(read: Mapping[str, Layout]) -> Shown:
    """Show where each field of a record is, in bytes, for LLVMs by name; new ones and moved ones.

    LLVMs of one raw version (`v`) share a column.
    """
    groups: dict[int, list[str]] = {}
    for name, known in read.items():
        groups.setdefault(known.raw_version, []).append(name)
    heads = [f"LLVM {', '.join(names)} (v{version})" for version, names in groups.items()]
    each = [read[names[0]] for names in groups.values()]
    rows = {
        field.name: [known.offsets().get(field.name, "-") for known in each]
        for known in reversed(each)
        for field in known.record
    }
    rows["value kinds"] = [known.value_kinds for known in each]
    rows["bytes of a record"] = [known.record_size() for known in each]
    rows["bytes of the header"] = [known.header_size for known in each]
    return views.table(("field", *heads), [(name, *map(str, row)) for name, row in rows.items()])


def runs(found: infer.Found) -> Shown:
    """Show the runs of records that were found in a section, and who has such records."""
    columns = ("from byte", "records", "bytes each", "found by", "raw versions with such records")
    by = {"both": "NameRef and CounterPtr", "names": "NameRef", "counters": "CounterPtr"}
    rows = [
        (
            *map(str, (run.offset, run.records, run.record_size)),
            by.get(found.by, "-"),
            ", ".join(map(str, run.raw_versions())) or "none known",
        )
        for run in found.runs
    ]
    return views.table(columns, rows)


def figure(found: Ruler) -> Shown:
    """Show the ruler around the misread: what was written above, what the runtime reads below.

    To scale; what is read as it was written is pale.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, only here

    steps = ruler.explain(found)
    drawn = Figure(figsize=(9.4, 3.6 + 0.25 * len(steps)), layout="constrained")
    axes = drawn.subplots()
    first = max(0, found.misread.slot.offset - 40) if found.misread else 0
    last = min(first + 168, len(found.data))
    bottom = _HEIGHT + 1.7 + 0.72 * len(steps)
    axes.set(xlim=(first - 5, first + 169), ylim=(bottom, -_HEIGHT - 1.7))
    axes.set_axis_off()
    right = {part for record in found.records for part in record.fields()}
    _band(axes, found.records, (first, last), -_HEIGHT - 0.5, "written")
    _band(axes, found.slots, (first, last), 0.5, "read", right)
    for place in range(first, last + 1, 8):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": "#555555"}
        axes.text(place, 0, str(place), bbox=box, zorder=5, **style)
    if found.misread:
        _explain(axes, found, first)
    for meaning, (colour, _) in _MEANINGS.items():
        axes.bar([first], [0], color=colour, label=meaning)
    drawn.legend(loc="outside upper center", ncols=5, fontsize=8, frameon=False)
    told = "; ".join(f"{does}: {what}" for does, what in steps) or "no field is misread"
    return views.framed(drawn, ruler.caption(found), told)


def widget(lab: Lab, names: Sequence[str], main: str, foreign: str) -> Any:
    """Return the ruler with a choice of both LLVMs, for a live notebook.

    A page without a kernel shows the first choice instead.
    """
    import ipywidgets  # noqa: PLC0415 - only notebooks have it

    start = _drawn(lab, main, foreign)
    options = list(dict.fromkeys((*names, main, foreign)))
    choices = [
        ipywidgets.Dropdown(options=options, value=value, description=f"{what}:")
        for what, value in (("main", main), ("library", foreign))
    ]
    picture = ipywidgets.HTML(start.html)

    def draw(_: object) -> None:
        picture.value = _drawn(lab, *(choice.value for choice in choices)).html

    for choice in choices:
        choice.observe(draw, names="value")

    return views.live([ipywidgets.HBox(choices), picture], start)


def _drawn(lab: Lab, main: str, foreign: str) -> Shown:
    """Draw the ruler of a trial; in its place, what is missing for it."""
    try:
        return figure(ruler.of(lab, lab.trial("cold", main, foreign)))
    except LabError as error:
        return Shown(str(error), f"<p>{html.escape(str(error))}</p>")


def _band(
    axes: Axes,
    records: Sequence[Record],
    window: tuple[int, int],
    top: float,
    head: str,
    right: set[tuple[str, int, int]] | None = None,
) -> None:
    """Draw records, field by field; pale those in `right`."""
    first, last = window
    middle = top + _HEIGHT / 2
    edge = top - 0.2 if right is None else top + _HEIGHT + 0.2
    style: dict[str, Any] = {"ha": "center", "va": "center", "rotation": 90}
    axes.text(first - 3, middle, head, fontsize=10, fontweight="bold", **style)
    for record in records:
        start, end = max(record.offset, first), min(record.end, last)
        if start >= end:
            continue
        said = f"{ruler.short(record.name)}, {record.layout.record_size()} bytes"
        said = said if record.name else f"no record begins at {record.offset}"
        axes.plot([start + 0.3, end - 0.3], [edge, edge], color="black", linewidth=1)
        above = right is None
        axes.text(
            start + 0.3,
            edge - 0.12 if above else edge + 0.12,
            said,
            va="bottom" if above else "top",
            fontsize=8,
        )
        for name, place, size in record.fields():
            if place < first or place + size > last:
                continue
            pale = right is not None and (name, place, size) in right
            colour = _COLOURS.get(name, "#BBBBBB")
            alpha = 0.3 if pale else 1
            axes.barh(middle, size, _HEIGHT, place, color=colour, alpha=alpha, edgecolor="white")
            wide = size == 8
            axes.text(
                place + size / 2,
                middle,
                re.sub("(?<=[a-z])(?=[A-Z])", "\n", name) if wide else name,
                fontsize=6.5 if size > 2 else 5.5,
                color="#666666" if pale else "black",
                **{**style, "rotation": 0 if wide else 90},
            )


def _explain(axes: Axes, found: Ruler, first: int) -> None:
    """Frame the misread field in both bands, and say beneath what becomes of it."""
    assert found.misread
    at, low = found.misread.at, _HEIGHT + 0.6
    frame = [at, at + 8, at + 8, at, at], [-low, -low, low, low, -low]
    axes.plot(*frame, color="black", linewidth=2.5)
    axes.plot([at + 4, at + 4, first + 28], [low, low + 1, low + 1], color="black", linewidth=1.2)
    steps = ruler.explain(found)
    for line, (does, what) in enumerate(steps):
        y = low + 1.6 + line * 0.72
        bold = "bold" if line == len(steps) - 1 else "normal"
        style: dict[str, Any] = {"va": "center", "fontsize": 8.5}
        axes.text(first + 26, y, does, ha="right", color="#555555", **style)
        axes.text(first + 28, y, what, fontweight=bold, family="monospace", **style)
