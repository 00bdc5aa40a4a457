"""The record ruler: the bytes of a mixed section, as written and as the runtime reads them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lief
import pandas as pd

from nbsupport.audit import objects
from nbsupport.base import LabError, files, progress, settings
from nbsupport.lab import Lab, Trial
from nbsupport.macos import MachOProgram, executable
from nbsupport.profile import LAYOUTS, Layout, changes, infer
from nbsupport.profile.names import short
from nbsupport.profile.stride import Record, lay
from nbsupport.show import Shown, look, shown
from nbsupport.show.widgets import Live, choice, live
from nbsupport.toolchains import Toolchain, headers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Where Linux puts a position-independent program that it does not move about, as under a
#: debugger. Source: ELF_ET_DYN_BASE (arch/x86/include/asm/elf.h) and the page above it.
_BASE = 0x555555554000
#: From a node's start to its pointer to the next. Source: ValueProfNode in InstrProfData.inc.
_NEXT = 16
#: Source: INSTR_PROF_MAX_NUM_VAL_PER_SITE in InstrProfData.inc.
_MOST_NODES = 255
_WORD = 8
#: Fields: name, offset in the section, bytes.
Places = Collection[tuple[str, int, int]]


@dataclass(frozen=True)
class Misread:
    """The field that kills: what the runtime takes for the pointer `Values` of a record.

    `at` is its offset in the section, `value` what is there, `written` the fields of `record`
    that these bytes are, with their values. `node` is what stands where `value` points, if
    anything does (code, then); the runtime takes it for a node's address.
    """

    slot: Record
    at: int
    value: int
    record: Record
    written: Mapping[str, list[int]]
    node: int | None
    fault_address: int


@dataclass(frozen=True)
class Ruler:
    """A section: its bytes (pointers relocated), its records, and the runtime's."""

    data: bytes
    records: tuple[Record, ...]
    slots: tuple[Record, ...]
    misread: Misread | None

    @property
    def fault_address(self) -> str | None:
        """Where the runtime will die, as a trial's outcome says it; None: nowhere."""
        return f"{self.misread.fault_address:#x}" if self.misread else None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object, of which `from_json` makes it again."""
        rows = [
            [(record.offset, record.name, record.layout.raw_version) for record in records]
            for records in (self.records, self.slots)
        ]
        wrong = dict(vars(self.misread)) if self.misread else {}
        if wrong:
            wrong["slot"], wrong["record"] = (
                self.slots.index(wrong["slot"]),
                self.records.index(wrong["record"]),
            )
        return {"data": self.data.hex(), "records": rows[0], "slots": rows[1], "misread": wrong}


def from_trial(lab: Lab, trial: Trial) -> Ruler:
    """Read the program of a `trial`; an LLVM that is not in the table is asked for its layout.

    Raises `LabError` as `read` does, and where the program cannot be built.
    """
    return read(lab.linked(trial), *map(_layout, (trial.runtime, trial.foreign)))


def from_program(program: MachOProgram) -> Ruler:
    """Read a `program` of macOS, at the addresses that it is emulated at; raises as `read` does."""
    return read(program.path, *map(_layout, (program.main, program.foreign)))


def keep() -> None:
    """Keep the README's picture: the ruler of the default trial (19 with 17)."""
    with Lab() as lab:
        picture = figure(from_trial(lab, lab.trial("cold", "19", "17")))
    files.write(settings.data_dir() / "recorded" / "ruler.svg", shown.svg(picture))


def from_json(document: Mapping[str, Any]) -> Ruler:
    """Return a ruler out of what its `to_json` returned; its layouts are those of the table."""
    records, slots = (
        tuple(Record(offset, name, LAYOUTS[version]) for offset, name, version in document[part])
        for part in ("records", "slots")
    )
    wrong = dict(document["misread"])
    if wrong:
        wrong["slot"], wrong["record"] = slots[wrong["slot"]], records[wrong["record"]]
    misread = Misread(**wrong) if wrong else None
    return Ruler(bytes.fromhex(document["data"]), records, slots, misread)


def _layout(owner: Toolchain) -> Layout:
    return LAYOUTS.get(owner.raw_version or 0) or headers.read(owner)


def read(image: Path, runtime: Layout, foreign: Layout) -> Ruler:
    """Read the section of a linked 64-bit `image`, ELF or Mach-O, whose records are of two layouts.

    Its runtime steps by the layout `runtime`, `foreign` is the other. Raises `LabError` otherwise.
    """
    file = objects.read(image)
    sections = [section for part in file.parts for section in part.sections] if file else []
    layouts = {layout.record_size(): layout for layout in (foreign, runtime)}
    inferred = infer.find(sections[0]) if sections else None
    sizes = set(inferred.sizes.tolist()) if inferred else set()
    if not inferred or sections[0].bits != 64 or not sizes <= layouts.keys():
        raise LabError(image.name, "not a 64-bit image of these layouts", "link one of the lab's")
    data, word = _loaded(image)
    records, slots = lay(dataclasses.replace(sections[0], data=data), runtime, layouts)
    misread = filter(None, (_misread(data, slot, records, word) for slot in slots))
    return Ruler(data, records, slots, next(misread, None))


def _loaded(image: Path) -> tuple[bytes, Callable[[int], int | None]]:
    """Return the data section as the loader leaves it, and a reader of words at addresses."""
    binary: Any = lief.parse(image)
    if isinstance(binary, lief.MachO.Binary):
        return _emulated(image, binary.get_section("__llvm_prf_data"))
    if not isinstance(binary, lief.ELF.Binary):
        raise LabError(image.name, "neither ELF nor Mach-O", "give a program of the lab")
    base = _BASE if binary.is_pie else 0
    section: Any = binary.get_section("__llvm_prf_data")
    data = bytearray(section.content)
    for fix in binary.dynamic_relocations:
        at = fix.address - section.virtual_address
        if 0 <= at <= len(data) - _WORD:
            data[at : at + _WORD] = (base + fix.addend).to_bytes(_WORD, "little")

    def word(address: int) -> int | None:
        for segment in binary.segments:
            start = address - base - segment.virtual_address
            if segment.type == segment.TYPE.LOAD and 0 <= start <= segment.virtual_size - _WORD:
                return int.from_bytes(bytes(segment.content[start : start + _WORD]), "little")
        return None

    return bytes(data), word


def _emulated(image: Path, section: Any) -> tuple[bytes, Callable[[int], int | None]]:
    """Return the same of a Mach-O program, as it lies in the memory of its emulated processor."""
    segments = executable.load(image).segments

    def content(address: int, size: int) -> bytes | None:
        for start, segment in segments.items():
            if start <= address <= start + len(segment) - size:
                return bytes(segment[address - start : address - start + size])
        return None

    def word(address: int) -> int | None:
        found = content(address, _WORD)
        return None if found is None else int.from_bytes(found, "little")

    return content(section.virtual_address + executable.SLIDE, section.size) or b"", word


def _misread(
    data: bytes, slot: Record, records: Sequence[Record], word: Callable[[int], int | None]
) -> Misread | None:
    """Return where the runtime dies of what it takes for a record; None where it gets by.

    With sites, it reads a pointer to a node for each, then follows the nodes.
    Source: initializeValueProfRuntimeRecord (InstrProfilingValue.c).
    """
    fields = slot.values(data)
    (value,), sites = fields["Values"], sum(fields["NumValueSites"])
    at = slot.offset + slot.layout.offsets()["Values"]
    for touched in range(value, value + _WORD * sites if value else 0, _WORD):
        node = first = word(touched)
        for _ in range(_MOST_NODES):
            if not node:
                break
            touched, node = node + _NEXT, word(node + _NEXT)  # noqa: PLW2901
        if node is None:
            record = next(record for record in records if record.offset <= at < record.end)
            written = record.values(data)
            for name, start, size in record.fields():
                if start >= at + _WORD or at >= start + size:
                    del written[name]
            return Misread(slot, at, value, record, written, first, touched % (1 << 64))
    return None


def explain(ruler: Ruler) -> tuple[tuple[str, str], ...]:
    """Return the steps from the bytes to the fault address, each with a word for it.

    A number of several bytes is stored last byte first (little-endian): a step spells it.
    """
    wrong = ruler.misread
    if not wrong:
        return ()
    owner = short(wrong.record.name)
    if wrong.node is None:
        say: Callable[[int], str] = str if len(wrong.written) > 1 else hex
        numbers = (f"{n} {', '.join(map(say, values))}" for n, values in wrong.written.items())
        steps = [
            ("written", f"{_hex(wrong.value)}: {' and '.join(numbers)} of {owner}"),
            ("last byte first", f"{wrong.value:#018x}"),
            ("read as", "Values, a pointer to nodes"),
        ]
    else:  # an address, which differs from machine to machine
        steps = [
            ("written", f"{' and '.join(wrong.written)} of {owner}"),
            ("read as", "Values, a pointer to nodes"),
            ("found there", f"{_hex(wrong.node)}, read as the address of a node"),
            ("last byte first", f"{wrong.node:#018x}"),
            ("touched", f"Next of that node, {_NEXT} bytes after its start"),
        ]
    steps.append(("fault address", f"{ruler.fault_address}"))
    return tuple(steps)


def caption(ruler: Ruler) -> str:
    """Say in a few sentences what the ruler shows."""
    mine = ruler.slots[0].layout
    steps = f"The runtime of raw version {mine.raw_version} steps {mine.record_size()} bytes"
    wrong = ruler.misread
    if not wrong:
        return f"{steps}. All records have this size: the runtime reads what was written."
    return (
        f"{steps}. The library's records have {wrong.record.layout.record_size()} bytes. Where the "
        f"runtime expects Values, the library has {' and '.join(wrong.written)} of "
        f"{short(wrong.record.name)}. The runtime follows this as a pointer, and faults at "
        f"{ruler.fault_address}."
    )


def _hex(word: int) -> str:
    """Return a word's bytes as they lie in memory."""
    return word.to_bytes(_WORD, "little").hex(" ")


def widget(lab: Lab, names: Sequence[str], main: str, foreign: str) -> Live:
    """Return the record ruler with a choice of both LLVMs: of `names`, and `main` and `foreign`.

    These are chosen first. The reader sees a question, and unfolds its answer. All pairs are
    linked and read at once: a choice draws, or says why it cannot.
    """
    llvms = list(dict.fromkeys((*names, main, foreign)))
    pairs = list(itertools.product(llvms, llvms))

    def read_pair(pair: tuple[str, str]) -> Ruler | Shown:
        try:
            return from_trial(lab, lab.trial("cold", *pair))
        except LabError as error:
            return Shown(str(error), shown.element("p", error))

    rulers = dict(zip(pairs, progress.each(pairs, read_pair, "record rulers"), strict=True))

    @functools.cache
    def drawn(main: str, foreign: str) -> Shown:
        ruler = rulers[main, foreign]
        with contextlib.suppress(RuntimeError):  # no kernel
            # When the reader looks; in the middle of a drawing it takes a tenth of a second.
            asyncio.get_running_loop().call_later(0.5, gc.collect)
        return _ask(ruler) if isinstance(ruler, Ruler) else ruler

    choices = [choice("main", llvms, main), choice("library", llvms, foreign)]
    static = drawn(main, foreign)
    return live(choices, lambda: drawn(*(choice.value for choice in choices)).html, static)


def _ask(ruler: Ruler) -> Shown:
    """Show what was written, with the question what the runtime reads; the answer is folded."""
    mine = ruler.slots[0].layout
    words = (
        f"The records as their compilers wrote them. The runtime of raw version {mine.raw_version} "
        f"starts at byte 0 and steps {mine.record_size()} bytes. In each step it expects Values at "
        f"byte {mine.offsets()['Values']}. What is there once it reaches the library's records?"
    )
    drawn, axes = look.sheet(_HEIGHT + 44)
    window = _window(ruler)
    _band(axes, ruler.records, window, 20, "written")
    _scale(axes, window)
    answer = figure(ruler)
    question = shown.framed(drawn, words, "the fields of the records, in order")
    folded = shown.element("details", shown.element("summary", "Answer"), shown.Html(answer.html))
    return Shown(f"{question.text}\n{answer.text}", question.html + folded)


#: Bytes that belong to no field.
_PADDING = "padding"
#: Who it is, where its counters are, its code, where its values are, how many: a colour each.
_COLOURS = {
    **dict.fromkeys(("NameRef", "FuncHash"), look.SKY),
    **dict.fromkeys(("CounterPtr", "UniformCounterPtr", "BitmapPtr"), look.GREEN),
    "FunctionPointer": look.YELLOW,
    "Values": look.VERMILION,
    **dict.fromkeys(("NumCounters", "NumValueSites", "NumBitmapBytes"), look.ORANGE),
    "OffloadDeviceWaveSize": look.ORANGE,
    _PADDING: look.PALE,
}
#: Bytes that the ruler shows, and points: of a byte, of a field's height, where the first is.
_SPAN, _BYTE, _HEIGHT, _LEFT = 136, 3.8, 88, 24


def list_fields(layouts: Collection[Layout]) -> pd.DataFrame:
    """Return where each field of a record is, in layouts of 64 bits; of equal ones, once."""
    rows = [
        {"raw_version": layout.raw_version, "bits": 64, "field": name, "offset": offset}
        for layout in {layout.raw_version: layout for layout in layouts}.values()
        for name, offset in layout.offsets().items()
    ]
    return pd.DataFrame(rows)


def show_history(layouts: Mapping[str, Layout]) -> Shown:
    """Show layouts by the LLVM that has them, older ones first: what each moved in the record."""
    rows = []
    versions = list(layouts.values())
    for name, old, new in zip(layouts, versions[:1] + versions, versions, strict=False):
        moved = "; ".join(str(change) for change in changes(old, new) if change.part == "record")
        sizes = new.record_size(), new.header_size
        rows.append((name, f"v{new.raw_version}", *sizes, moved or "-"))
    heads = ("LLVM", "raw version", "record", "header", "what changed in the record")
    return shown.table(heads, rows)


def show_layouts(layouts: Mapping[str, Layout]) -> Shown:
    """Show where each field of a record is, in bytes, in `layouts` by the names of their LLVMs.

    LLVMs of one raw version (`v`) share a column.
    """
    groups: dict[int, list[str]] = {}
    for name, layout in layouts.items():
        groups.setdefault(layout.raw_version, []).append(name)
    heads = [f"LLVM {', '.join(names)} (v{version})" for version, names in groups.items()]
    columns = [layouts[names[0]] for names in groups.values()]
    rows = {
        field.name: [layout.offsets().get(field.name, "-") for layout in columns]
        for newer in reversed(columns)
        for field in newer.record
    }
    rows["value kinds"] = [layout.value_kinds for layout in columns]
    rows["bytes of a record"] = [layout.record_size() for layout in columns]
    rows["bytes of the header"] = [layout.header_size for layout in columns]
    return shown.table(("field", *heads), [(name, *row) for name, row in rows.items()])


def show_runs(section: infer.SectionRecords) -> Shown:
    """Show the runs of records that were found in a section, and who has such records."""
    columns = ("from byte", "records", "bytes each", "found by", "raw versions with such records")
    by = {"both": "NameRef and CounterPtr", "names": "NameRef", "counters": "CounterPtr"}
    rows = []
    for run in section.runs:
        versions = ", ".join(map(str, run.raw_versions())) or "none known"
        rows.append((run.offset, run.records, run.record_size, by.get(section.by, "-"), versions))
    return shown.table(columns, rows)


def figure(ruler: Ruler) -> Shown:
    """Show the ruler around the misread: what was written above, what the runtime reads below.

    To scale; what is read as it was written is pale.
    """
    steps, wrong, window = explain(ruler), ruler.misread, _window(ruler)
    below = 30 + 14 * len(steps) if steps else 0
    drawn, axes = look.sheet(2 * _HEIGHT + 60 + below)
    right = {part for record in ruler.records for part in record.fields()}
    upper, lower = 20, _HEIGHT + 40
    _band(axes, ruler.records, window, upper, "written")
    _band(axes, ruler.slots, window, lower, "read", right)
    _scale(axes, window)
    if wrong:
        middle, y = _x(window, wrong.at + 4), lower + _HEIGHT + 30
        for top in (upper, lower):
            at, size = (middle, top + _HEIGHT / 2), (8 * _BYTE, _HEIGHT)
            look.cell(axes, at, size, "none", "", edgecolor=look.INK, linewidth=2.5)
        axes.plot([middle, middle, 110], [lower + _HEIGHT, y, y], color=look.INK, linewidth=1.2)
        for line, (does, what) in enumerate(steps, 1):
            bold = {**look.SMALL, "fontweight": "bold" if line == len(steps) else "normal"}
            axes.text(102, y + 14 * line, does, ha="right", **look.MUTED)
            axes.text(110, y + 14 * line, what, family="monospace", **bold)
    words = "; ".join(f"{does}: {what}" for does, what in steps) or "no field is misread"
    return shown.framed(drawn, caption(ruler), words)


def _window(ruler: Ruler) -> range:
    """Return which bytes of the section the ruler shows."""
    first = max(0, ruler.misread.slot.offset - 16) if ruler.misread else 0
    return range(first, min(first + _SPAN, len(ruler.data)) + 1)


def _scale(axes: Axes, window: range) -> None:
    """Write the bytes' numbers below the upper band."""
    for place in window[::8]:
        axes.text(_x(window, place), _HEIGHT + 30, str(place), ha="center", **look.MUTED)


def _x(window: range, place: float) -> float:
    return _LEFT + (place - window[0]) * _BYTE


def _band(
    axes: Axes, records: Sequence[Record], window: range, top: float, head: str, right: Places = ()
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
        label = f"no record begins at {record.offset}"
        if record.name:
            label = f"{short(record.name)}, {record.layout.record_size()} bytes"
        line = [_x(window, start) + 1, _x(window, end) - 1]
        axes.plot(line, [edge, edge], color=look.INK, linewidth=1)
        # A narrow part has room for a short name only.
        label = label if end - start > 16 else short(record.name)[:9]
        axes.text(line[0], edge + side, label, **look.SMALL)
        for name, place, size in _boxes(record):
            low, high = max(place, window[0]), min(place + size, window[-1])
            if low >= high:
                continue
            colour = _COLOURS.get(name, look.GREY)
            pale = (name, place, size) in right
            boxes.append((_x(window, low) + 0.5, (high - low) * _BYTE - 1))
            colours.append(look.tint(colour) if pale else colour)
            small = {"fontsize": 6.5} if high - low == 2 else {}  # two bytes are no wider
            words = {**look.SMALL, **small, "color": "black"}
            axes.text(_x(window, (low + high) / 2), top + _HEIGHT / 2, name, **style, **words)
    axes.broken_barh(boxes, (top, _HEIGHT), facecolors=colours, zorder=0.5)


def _boxes(record: Record) -> list[tuple[str, int, int]]:
    """Return the fields of a record, and the padding that a compiler puts between them."""
    boxes, at = [], record.offset
    for name, place, size in (*record.fields(), ("", record.end, 0)):
        if place > at:
            boxes.append((_PADDING, at, place - at))
        boxes += [(name, place, size)] if size else []
        at = place + size
    return boxes
