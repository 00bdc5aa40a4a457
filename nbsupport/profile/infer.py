"""Records found in bytes without trusting any version, and the runs of layouts that they form.

Two independent invariants say where a record starts: its NameRef is the hash of a name that
the file holds, and its CounterPtr, relative to the record, lands among the counters. The gaps
between starts are the strides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nbsupport.profile import layout
from nbsupport.profile.layout import ALIGNMENT, Bits, Layout, Order
from nbsupport.profile.names import Names

Array = np.ndarray[Any, np.dtype[Any]]
By = Literal["both", "names", "counters", "nothing"]


@dataclass(frozen=True)
class Section:
    """Bytes of a data section (`__llvm_prf_data`) and what its records refer to.

    `counters` is where the counters start and end, in bytes relative to the section's start;
    None where that is not known (objects before linking, COFF).
    """

    data: bytes | memoryview
    names: Names
    counters: tuple[int, int] | None = None
    bits: Bits = 64
    order: Order = "<"


@dataclass(frozen=True)
class Run:
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
class Found:
    """The records of a section: where each starts, its size, by which invariants it was found."""

    offsets: Array
    sizes: Array
    by: By
    runs: tuple[Run, ...]


def find(section: Section) -> Found:
    """Return the records of a section, and the runs of layouts that they form."""
    offsets, by = _starts(section)
    sizes = _sizes(section, offsets)
    return Found(offsets, sizes, by, _runs(section, offsets, sizes))


def _starts(section: Section) -> tuple[Array, By]:
    words = _words(section, 8)
    smallest = min(layout.sizes(section.bits))
    places = np.arange(max(0, len(section.data) - smallest + ALIGNMENT) // ALIGNMENT)
    places = places[: len(words)]
    if section.counters:
        low, high = section.counters
        target = _targets(section, places * ALIGNMENT)
        landing = places[(target >= low) & (target < high)]
        named = landing[section.names.index(words[landing]) >= 0]
        # Absolute CounterPtrs (raw version 5 to 7) do not land; then names decide alone.
        if len(named):
            strangers = _named_apart(section, words, places, named)
            return strangers * ALIGNMENT, "both"
        if len(landing) and not section.names.text:
            return landing * ALIGNMENT, "counters"
    named = places[section.names.index(words[places]) >= 0]
    return named * ALIGNMENT, "names" if len(named) else "nothing"


def _named_apart(section: Section, words: Array, places: Array, named: Array) -> Array:
    """Return the starts by both invariants, with those by name alone that stand apart from them.

    Records of raw version 5 to 7 among newer ones have a CounterPtr that does not land.
    """
    taken = np.zeros(len(words) + 16, bool)
    for step in range(min(layout.sizes(section.bits)) // ALIGNMENT):
        taken[named + step] = True
    free = places[~taken[: len(places)]]
    more = free[section.names.index(words[free]) >= 0]
    return np.sort(np.concatenate([named, more])) if len(more) else named


def _sizes(section: Section, offsets: Array) -> Array:
    """Return the size of each record: the gap to the next, or what its fields make likely."""
    ends = np.append(offsets[1:], len(section.data))
    gaps = ends - offsets
    known = np.array(sorted(layout.sizes(section.bits)))
    sizes = gaps.copy()
    doubtful = ~np.isin(gaps, known)
    strange, often = np.unique(gaps[doubtful], return_counts=True)
    regular = strange[(often > 1) & (strange % ALIGNMENT == 0)] if len(offsets) > 2 else strange[:0]
    doubtful &= ~np.isin(gaps, regular)  # a stride newer than we know
    if len(offsets):
        doubtful[-1] = True  # what follows the last record is not a record
    for place in np.flatnonzero(doubtful):
        before = int(sizes[place - 1]) if place else 0
        sizes[place] = _likely(section, int(offsets[place]), int(gaps[place]), before)
    return sizes


def _likely(section: Section, offset: int, gap: int, before: int) -> int:
    """Return the size of a record whose gap does not tell: of a layout that makes sense there."""
    fitting = [
        size
        for size, versions in layout.sizes(section.bits).items()
        if size <= gap and _plausible(section, offset, layout.LAYOUTS[versions[-1]])
    ]
    for choice in (gap, before):
        if choice in fitting:
            return choice
    if before and before not in layout.sizes(section.bits) and gap >= before:
        return before
    return fitting[0] if fitting else gap


def _plausible(section: Section, offset: int, known: Layout) -> bool:
    """Say whether the record there, in this layout, has counters, and as many as there can be."""
    dtype = known.record_dtype(section.bits, section.order)
    if offset + dtype.itemsize > len(section.data):
        return False
    record = np.frombuffer(section.data, dtype, 1, offset)[0]
    most = 1 << 24
    if section.counters:
        target = int(_targets(section, np.array([offset]))[0])
        if section.counters[0] <= target < section.counters[1]:
            most = section.counters[1] - target
    return 0 < int(record["NumCounters"]) <= most


def _runs(section: Section, offsets: Array, sizes: Array) -> tuple[Run, ...]:
    if not len(offsets):
        return ()
    changes = np.flatnonzero(np.diff(sizes)) + 1
    runs = []
    for first, last in zip([0, *changes], [*changes, len(offsets)], strict=True):
        size = int(sizes[first])
        width = _counter_size(section, offsets[first:last], size)
        runs.append(Run(int(offsets[first]), size, int(last - first), width))
    return tuple(runs)


def _counter_size(section: Section, offsets: Array, size: int) -> int | None:
    """Return how many bytes a counter has, from how far apart neighbours' counters start."""
    versions = layout.sizes(section.bits).get(size)
    if not versions or not section.counters or len(offsets) < 2:
        return None
    place = layout.LAYOUTS[versions[-1]].offsets(section.bits)["NumCounters"]
    counts = _at(section, offsets[:-1] + place, 4).astype(np.int64)
    apart = np.diff(_targets(section, offsets))
    votes = [int(np.count_nonzero(apart == counts * width)) for width in (1, 8)]
    return None if not any(votes) else (1, 8)[votes[1] >= votes[0]]


def _targets(section: Section, offsets: Array) -> Array:
    """Return where the CounterPtr of records lands, relative to the section's start."""
    wide = section.bits // 8
    place = layout.LAYOUTS[max(layout.LAYOUTS)].offsets(section.bits)["CounterPtr"]
    inside = np.minimum(offsets + place, max(0, len(section.data) - wide))
    pointers = _at(section, inside, wide).astype(f"i{wide}").astype(np.int64)
    targets: Array = offsets + pointers
    return targets


def _words(section: Section, size: int) -> Array:
    count = len(section.data) // size
    words: Array = np.frombuffer(section.data, f"{section.order}u{size}", count)
    return words


def _at(section: Section, offsets: Array, size: int) -> Array:
    """Return the unsigned words at offsets that are multiples of their size."""
    found: Array = _words(section, size)[offsets // size]
    return found
