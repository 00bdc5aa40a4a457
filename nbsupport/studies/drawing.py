"""The record ruler drawn: what was written above, what the runtime reads below; and its tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nbsupport.profile.layout import Layout
from nbsupport.show import look, shown
from nbsupport.show.shown import Shown
from nbsupport.studies import ruler
from nbsupport.studies.ruler import Record, Ruler

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nbsupport.profile import infer

#: Who it is, where its counters are, its code, where its values are, how many: a colour each.
_COLOURS = {
    **dict.fromkeys(("NameRef", "FuncHash"), look.SKY),
    **dict.fromkeys(("CounterPtr", "UniformCounterPtr", "BitmapPtr"), look.GREEN),
    "FunctionPointer": look.YELLOW,
    "Values": look.VERMILION,
    **dict.fromkeys(("NumCounters", "NumValueSites", "NumBitmapBytes"), look.ORANGE),
    "OffloadDeviceWaveSize": look.ORANGE,
}
#: Bytes that the ruler shows, and points: of a byte, of a field's height, where the first is.
_SPAN, _BYTE, _HEIGHT, _LEFT = 136, 3.8, 88, 24


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
    return shown.table(("field", *heads), [(name, *map(str, row)) for name, row in rows.items()])


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
    return shown.table(columns, rows)


def figure(found: Ruler) -> Shown:
    """Show the ruler around the misread: what was written above, what the runtime reads below.

    To scale; what is read as it was written is pale.
    """
    steps, wrong = ruler.explain(found), found.misread
    first = max(0, wrong.slot.offset - 16) if wrong else 0
    window = range(first, min(first + _SPAN, len(found.data)) + 1)
    drawn, axes = look.sheet(2 * _HEIGHT + 60 + (30 + 14 * len(steps)) * bool(steps))
    right = {part for record in found.records for part in record.fields()}
    written, read = 20, _HEIGHT + 40
    _band(axes, found.records, window, written, "written")
    _band(axes, found.slots, window, read, "read", right)
    for place in window[::8]:
        axes.text(_x(window, place), _HEIGHT + 30, str(place), ha="center", **look.MUTED)
    if wrong:
        middle, y = _x(window, wrong.at + 4), read + _HEIGHT + 30
        for top in (written, read):
            at, size = (middle, top + _HEIGHT / 2), (8 * _BYTE, _HEIGHT)
            look.cell(axes, at, size, "none", "", edgecolor=look.INK, linewidth=2.5)
        axes.plot([middle, middle, 110], [read + _HEIGHT, y, y], color=look.INK, linewidth=1.2)
        for line, (does, what) in enumerate(steps, 1):
            bold = {**look.SMALL, "fontweight": "bold" if line == len(steps) else "normal"}
            axes.text(102, y + 14 * line, does, ha="right", **look.MUTED)
            axes.text(110, y + 14 * line, what, family="monospace", **bold)
    told = "; ".join(f"{does}: {what}" for does, what in steps) or "no field is misread"
    return shown.framed(drawn, ruler.caption(found), told)


def _x(window: range, place: float) -> float:
    return _LEFT + (place - window[0]) * _BYTE


def _band(
    axes: Axes,
    records: Sequence[Record],
    window: range,
    top: float,
    head: str,
    right: Collection[tuple[str, int, int]] = (),
) -> None:
    """Draw records, field by field; pale those in `right`. The read ones are named beneath."""
    edge, side = (top - 4, -7) if head == "written" else (top + _HEIGHT + 4, 8)
    style: dict[str, Any] = {"ha": "center", "rotation": 90}
    axes.text(_LEFT / 2 - 4, top + _HEIGHT / 2, head, **style, **look.HEAD)
    boxes, colours = [], []
    for record in records:
        start, end = max(record.offset, window[0]), min(record.end, window[-1])
        if start >= end:
            continue
        said = f"{ruler.short(record.name)}, {record.layout.record_size()} bytes"
        said = said if record.name else f"no record begins at {record.offset}"
        line = [_x(window, start) + 1, _x(window, end) - 1]
        axes.plot(line, [edge, edge], color=look.INK, linewidth=1)
        if end - start > 16:  # else there is no room
            axes.text(line[0], edge + side, said, **look.SMALL)
        for name, place, size in record.fields():
            if place not in window or place + size not in window:
                continue
            colour = _COLOURS.get(name, look.GREY)
            pale = (name, place, size) in right
            boxes.append((_x(window, place) + 0.5, size * _BYTE - 1))
            colours.append(look.tint(colour) if pale else colour)
            small = {"fontsize": 6.5} if size == 2 else {}  # two bytes are no wider
            words = {**look.SMALL, **small, "color": "black"}
            axes.text(_x(window, place + size / 2), top + _HEIGHT / 2, name, **style, **words)
    axes.broken_barh(boxes, (top, _HEIGHT), facecolors=colours, zorder=0.5)
