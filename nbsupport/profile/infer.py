"""Records found in bytes without trusting any version, and the runs of layouts that they form.

Two independent invariants say where a record starts: its NameRef is the hash of a name that
the file holds, and its CounterPtr, relative to the record, lands among the counters. The gaps
between starts are the strides.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nbsupport.profile import layout
from nbsupport.profile.layout import ALIGNMENT, Bits, Buffer, Layout, Order
from nbsupport.profile.names import Names

Array = np.ndarray[Any, np.dtype[Any]]
By = Literal["both", "names", "counters", "nothing"]

#: More than functions have; what is larger is part of an address or of a hash.
_MOST_COUNTERS = 1 << 16
_FAR = 1 << 62
#: Places that are looked at at once.
_TOGETHER = 1 << 18


@dataclass(frozen=True)
class Section:
    """Bytes of a data section (`__llvm_prf_data`) and what its records refer to.

    `data` are its bytes, `names` the names of the file. `counters` is where the counters start
    and end, in bytes relative to the section's start; None where that is not known (objects
    before linking, COFF). `bits` (64 or 32) and `order` (`<`, `>`) are the program's.
    """

    data: Buffer
    names: Names
    counters: tuple[int, int] | None = None
    bits: Bits = 64
    order: Order = "<"

    def column(self, name: str, offsets: Array, of: Layout | None = None) -> Array:
        """Return one field of the records `of` a layout that start at `offsets`.

        Without a layout: one of the fields that all have at the same place.
        """
        if of is None:
            sizes = layout.sizes(self.bits)
            of = layout.LAYOUTS[sizes[min(sizes)][-1]]
        rows = of.rows(self.data, self.bits, self.order, ALIGNMENT)
        values: Array = rows[name][offsets // ALIGNMENT]
        return values

    def targets(self, offsets: Array) -> Array:
        """Return where the CounterPtr of records lands, relative to the section's start."""
        pointers = self.column("CounterPtr", offsets).astype(f"i{self.bits // 8}")
        targets: Array = offsets + pointers.astype(np.int64)
        return targets

    def landing(self, targets: Array) -> Array:
        """Say which of the targets are among the counters."""
        low, high = self.counters or (0, 0)
        inside: Array = (targets >= low) & (targets < high)
        return inside


@dataclass(frozen=True)
class Stretch:
    """Records of one stride, one after the other: offset of the first, in bytes, and how many.

    `counter_size` is 8 or 1 (byte coverage), None where nothing tells.
    """

    offset: int
    record_size: int
    records: int
    counter_size: int | None = None

    def raw_versions(self, bits: Bits = 64) -> tuple[int, ...]:
        """Return the known raw versions that have such records; none: newer than we know."""
        return layout.sizes(bits).get(self.record_size, ())


@dataclass(frozen=True)
class SectionRecords:
    """The records of a section.

    `offsets` and `sizes` say where each starts and how long it is, in bytes; `by` names the
    invariants by which they were found; `runs` are the runs of layouts that they form.
    """

    offsets: Array
    sizes: Array
    by: By
    runs: tuple[Stretch, ...]


def find(section: Section) -> SectionRecords:
    """Return the records of a section, and the runs of layouts that they form.

    Any `section` has an answer: what makes no sense is no record.
    """
    offsets, by = _starts(section)
    room = _room(section, offsets)
    sizes = _sizes(section, offsets, room)
    return SectionRecords(offsets, sizes, by, _runs(section, offsets, sizes, room))


def _starts(section: Section) -> tuple[Array, By]:
    """Return where records start: what both invariants say, then, apart from it, what one says.

    CounterPtrs of raw version 5 to 7 are absolute and do not land; a name may be missing.
    """
    starts: Array = np.zeros(0, np.int64)
    by: By = "nothing"
    rules: tuple[tuple[bool, bool, By], ...] = (
        (True, True, "both"),
        (False, True, "names"),
        (True, False, "counters"),
    )
    for landing, named, rule in rules:
        new = _others(section, starts, landing=landing, named=named)
        if len(new):
            by = rule if by == "nothing" else by
            starts = np.sort(np.concatenate([starts, new]))
    return starts, by


def _others(section: Section, starts: Array, *, landing: bool, named: bool) -> Array:
    """Return where further records start, apart from those at `starts`, by these invariants."""
    smallest = min(layout.sizes(section.bits))
    reach = smallest // ALIGNMENT
    taken = np.zeros(len(section.data) // ALIGNMENT + 2 * reach, bool)
    for step in range(1, 2 * reach):
        taken[starts // ALIGNMENT + step] = True
    others, before = [np.zeros(0, np.int64)], -smallest
    end = len(section.data) - smallest + 1
    for first in range(0, end, ALIGNMENT * _TOGETHER):
        places = np.arange(first, min(end, first + ALIGNMENT * _TOGETHER), ALIGNMENT)
        if landing:
            places = places[section.landing(section.targets(places))]
        places = places[~taken[places // ALIGNMENT + reach]]
        if named:
            places = places[section.names.index(section.column("NameRef", places)) >= 0]
        others.append(_spaced(places, before, smallest))
        before = int(others[-1][-1]) if len(others[-1]) else before
    return np.concatenate(others)


def _spaced(places: Array, before: int, smallest: int) -> Array:
    """Return the places without those that overlap with one before."""
    if (np.diff(places, prepend=before) >= smallest).all():
        return places
    starts = list[int]()
    for place in places.tolist():
        if place - before >= smallest:
            starts.append(place)
            before = place
    return np.array(starts, np.int64)


def _room(section: Section, offsets: Array) -> Array:
    """Return how many bytes lie from each record's counters to the next one's; 0: not known."""
    room = np.zeros(len(offsets), np.int64)
    targets = section.targets(offsets)
    inside = section.landing(targets)
    if section.counters and inside.any():
        ends = np.sort(np.append(targets[inside], min(section.counters[1], _FAR)), kind="stable")
        after = np.searchsorted(ends, targets[inside], side="right")
        room[inside] = ends[np.minimum(after, len(ends) - 1)] - targets[inside]
    return room


def _sizes(section: Section, offsets: Array, room: Array) -> Array:
    """Return the size of each record: the gap to the next, or what its fields make likely.

    A gap tells nothing where a name may be missing in it, or behind the last record.
    """
    strides = layout.sizes(section.bits)
    gaps = np.append(offsets[1:], len(section.data))[: len(offsets)] - offsets
    # Shorter than two records, a gap is one record, maybe of a stride newer than we know.
    certain = gaps < 2 * min(strides)
    certain[-1:] = False
    likely = _by_fields(section, offsets, gaps, room)
    sizes: Array = np.where(certain | (likely == 0), gaps, likely)
    if len(sizes) > 1 and sizes[-2] not in strides and gaps[-1] >= sizes[-2]:
        sizes[-1] = sizes[-2]
    return sizes


def _by_fields(section: Section, offsets: Array, gaps: Array, room: Array) -> Array:
    """Return the size of the layout that makes sense of each record, 0 for none.

    The best has a NumCounters that fills the room; then the one of the record before,
    then the one that fills the gap, then the one with the fewest counters.
    """
    before = np.append([0], gaps[:-1])[: len(gaps)]
    best = np.full(len(offsets), _FAR)
    likely = np.zeros(len(offsets), np.int64)
    for size in layout.sizes(section.bits):
        fits = gaps >= size
        count = np.zeros(len(offsets), np.int64)
        count[fits] = _counts(section, offsets[fits], size)
        fits &= (count > 0) & (count <= np.where(room > 0, room, _MOST_COUNTERS))
        full = (count == room) | (count * 8 == room)
        cost = np.select([full, before == size, gaps == size], [-3, -2, -1], count)
        better = fits & (cost < best)
        best[better], likely[better] = cost[better], size
    return likely


def _counts(section: Section, offsets: Array, size: int) -> Array:
    newest = layout.LAYOUTS[layout.sizes(section.bits)[size][-1]]
    return section.column("NumCounters", offsets, newest).astype(np.int64)


def _runs(section: Section, offsets: Array, sizes: Array, room: Array) -> tuple[Stretch, ...]:
    if not len(offsets):
        return ()
    ends = offsets + sizes
    changes = np.flatnonzero((np.diff(sizes) != 0) | (ends[:-1] != offsets[1:])) + 1
    runs = []
    for first, last in zip([0, *changes], [*changes, len(offsets)], strict=True):
        size = int(sizes[first])
        width = _counter_size(section, offsets[first:last], size, room[first:last])
        runs.append(Stretch(int(offsets[first]), size, int(last - first), width))
    return tuple(runs)


def _counter_size(section: Section, offsets: Array, size: int, room: Array) -> int | None:
    """Return how many bytes a counter has, from the room that the counters fill."""
    if size not in layout.sizes(section.bits):
        return None
    counts = _counts(section, offsets, size)
    narrow, wide = (np.count_nonzero((counts > 0) & (room == counts * w)) for w in (1, 8))
    if not narrow and not wide:
        return None
    return 8 if wide >= narrow else 1
