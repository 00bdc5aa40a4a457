"""The records of a raw profile, and what they refer to: as the header says, or as recognized."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nbsupport.profile import infer, layout
from nbsupport.profile.header import Header
from nbsupport.profile.infer import Array
from nbsupport.profile.layout import ALIGNMENT, Layout
from nbsupport.profile.names import Doubt, Names, Problem

#: Problems of one kind that are listed one by one.
MOST = 100
#: A larger count is taken for damage, from raw version 9 on. Source: MaxCounterValue
#: (InstrProfReader.cpp).
LARGEST = 1 << 56
#: Bytes of records that are recognized one by one where the header's layout makes no sense.
MOST_RECOGNIZED = 64 << 20
#: Records that are checked at once.
_TOGETHER = 1 << 20
#: Records may share counters, but hostile ones could add up to anything: to this many times
#: the counters that there are, at most.
MOST_SHARED = 4


@dataclass(frozen=True)
class RecordBlock:
    """Neighbours of one layout: where each starts among the data, and all as NumPy rows."""

    layout: Layout
    offsets: Array
    rows: Array


@dataclass(frozen=True, eq=False)
class RecordTable:
    """Records in the order of the file; all columns have one item for each."""

    header: Header
    blocks: tuple[RecordBlock, ...]

    def column(self, name: str) -> Array:
        """Return one field; zeros where a layout lacks it."""
        columns = []
        for block in self.blocks:
            known = name in block.layout.offsets()
            columns.append(block.rows[name] if known else np.zeros(len(block.rows), np.uint32))
        if len(columns) == 1:
            return columns[0]
        return np.concatenate(columns) if columns else np.zeros(0, np.uint64)

    @functools.cached_property
    def offsets(self) -> Array:
        """Where they start, in bytes from the first."""
        if len(self.blocks) == 1:
            return self.blocks[0].offsets
        return np.concatenate([np.zeros(0, np.uint32), *(p.offsets for p in self.blocks)])

    @property
    def sizes(self) -> Array:
        """Bytes of each."""
        sizes = [np.full(len(p.rows), p.rows.itemsize, np.uint8) for p in self.blocks]
        return np.concatenate([np.zeros(0, np.uint8), *sizes])

    @functools.cached_property
    def counters(self) -> tuple[Array, Array]:
        """Where their counters start, in bytes (see `places`), and how many."""
        return self.places("CounterPtr", "CountersDelta"), self.column("NumCounters")

    @property
    def bitmaps(self) -> tuple[Array, Array]:
        """The same for the bitmaps of MC/DC, whose size is in bytes."""
        numbers = self.column("NumBitmapBytes")
        if not (numbers.any() and "BitmapDelta" in self.header.fields):
            return np.zeros(len(numbers), np.uint8), np.zeros(len(numbers), np.uint8)
        return self.places("BitmapPtr", "BitmapDelta"), numbers

    def places(self, pointer: str, delta: str) -> Array:
        """Return where pointers lead, from the start of their part, as numbers without sign.

        What lies before the part is thus far behind its end.
        """
        places: Array = self.column(pointer).astype("u8")
        if self.header.layout.relative:  # to its record, while the header's is to the first
            places += self.offsets
        places -= np.uint64(self.header.fields[delta])
        places &= np.uint64((1 << self.header.bits) - 1)
        return places

    @functools.cached_property
    def outside(self) -> Array:
        """Which have no counters, or some that are not there.

        They may start at any byte: on Windows the runtime's one-byte symbol comes before them.
        Source: CountersStart (InstrProfilingPlatformWindows.c); RawInstrProfReader::readRawCounts
        (InstrProfReader.cpp) asks for no alignment.
        """
        outside = _outside(*self.counters, self.header.width, len(self.header.part("counters")))
        outside |= self.counters[1] == 0
        return outside

    @functools.cached_property
    def overlapping(self) -> Array:
        """Which share some of their counters with others; to share all of them is no harm."""
        bad = np.zeros(len(self.outside), bool)
        inside = np.flatnonzero(~self.outside)
        starts = self.counters[0][inside].astype(_narrow(self.header.part("counters")))
        ends = starts + self.counters[1][inside].astype(starts.dtype) * self.header.width
        if (ends[:-1] <= starts[1:]).all():
            return bad
        order = np.lexsort((ends, starts))
        bad[inside[order[1:]]] = _overlaps(starts[order], ends[order])
        return bad

    @property
    def _shared(self) -> Array:
        """Which share some with others, before them or behind."""
        shared: Array = self.overlapping.copy()
        if shared.any():
            inside = np.flatnonzero(~self.outside)
            starts = self.counters[0][inside].astype(np.int64)
            ends = starts + self.counters[1][inside].astype(np.int64) * self.header.width
            order = np.lexsort((-starts, -ends))
            shared[inside[order[1:]]] |= _overlaps(-ends[order], -starts[order])
        return shared

    @functools.cached_property
    def moved(self) -> Array:
        """Which are, or have counters, where bytes are missing, or too many: see `holes`."""
        start, end = self.header.unknown
        if start == end:
            return np.zeros(len(self.outside), bool)
        low = self.offsets.astype(np.int64) + self.header.places["data"][0]
        first = np.where(self.outside, np.uint64(0), self.counters[0]).astype(np.int64)
        first += self.header.places["counters"][0]
        last = first + self.counters[1].astype(np.int64) * self.header.width
        moved: Array = ~self.outside & (first < end) & (last > start)
        return moved | (low < end) & (low + self.sizes > start)

    @functools.cached_property
    def uncertain(self) -> Array:
        """Which may have other counters than these, for something was written over.

        Of two records with some counters in common one is wrong, as is one of two that are the
        same in each byte. Where the last one is none, the first counters may be none either.
        """
        uncertain = self._shared | self._repeated
        if len(uncertain) and self.outside[-1] and self.header.whole and not self.mixed:
            uncertain[:] = True
        return uncertain & ~self.outside

    @functools.cached_property
    def _repeated(self) -> Array:
        """Which are the same as another one, byte for byte, while counters are no record's."""
        repeated = np.zeros(len(self.offsets), bool)
        starts, numbers = (column[~self.outside].astype(np.int64) for column in self.counters)
        numbers = numbers[np.unique(starts, return_index=True)[1]]
        if int(numbers.sum()) * self.header.width < len(self.header.part("counters")):
            first = 0
            for block in self.blocks:
                rows = np.ascontiguousarray(block.rows).view(f"V{block.rows.itemsize}")
                _, which, times = np.unique(rows, return_inverse=True, return_counts=True)
                repeated[first : first + len(rows)] = times[which] > 1
                first += len(rows)
        return repeated

    @functools.cached_property
    def sound(self) -> Array:
        """Which have all of their counters in the file; these are functions."""
        most = MOST_SHARED * (len(self.header.part("counters")) // self.header.width)
        sound: Array = ~(self.outside | self.moved)
        if int(self.counters[1].sum(dtype=np.uint64, where=sound)) > most:
            total = np.cumsum(np.where(sound, self.counters[1], np.uint32(0)), dtype=np.uint64)
            sound &= total <= np.uint64(most)
        return sound

    @functools.cached_property
    def numbers(self) -> Array:
        """How many counters each sound one has, timestamps aside."""
        stamp = 8 // self.header.width if self.header.timed else 0
        numbers = self.counters[1][self.sound]
        return numbers if not stamp else np.maximum(numbers.astype(np.int64) - stamp, 0)

    def counts(self) -> tuple[Array, Array]:
        """Return where each sound one's counts start, and the counts, without timestamps.

        Without a copy if they are in line, as they nearly always are.
        """
        width, numbers, raw = self.header.width, self.numbers, self.header.part("counters")
        kind = np.dtype(f"{self.header.order}u{width}")
        starts = self.counters[0][self.sound].astype(np.int64) + (8 if self.header.timed else 0)
        first = np.concatenate([[0], np.cumsum(numbers, dtype=np.int64)])
        line = starts - width * first[:-1]
        if first[-1] and (line == line[0]).all():
            counts = np.ndarray((first[-1],), kind, raw, line[0])
        else:
            anywhere = np.ndarray((max(0, len(raw) - width + 1),), kind, raw, strides=(1,))
            counts = anywhere[np.repeat(line, numbers) + width * np.arange(first[-1])]
        return first, counts if width == 8 else (counts == 0).astype(np.uint8)

    @functools.cached_property
    def large(self) -> Array:
        """Which have a count that llvm-profdata does not believe."""
        large = np.zeros(len(self.offsets), bool)
        if self.header.layout.raw_version > 8 and self.header.width == 8:
            first, counts = self.counts()
            where = np.searchsorted(first, np.flatnonzero(counts > LARGEST), side="right") - 1
            large[np.flatnonzero(self.sound)[where]] = True
        return large

    def problems(self, names: Names) -> list[Problem]:
        """Return what is malformed in them; `names` are those of the profile."""
        starts, numbers = self.counters
        size, width = len(self.header.part("counters")), self.header.width
        refs = self.column("NameRef")
        named = names.index(refs)
        at, bits = self.bitmaps
        astray = _outside(at, bits, 1, len(self.header.part("bitmaps"))) & (bits > 0)
        unstamped = np.zeros(len(starts), bool)
        if self.header.timed:
            unstamped[self.sound] = self.numbers == 0
        astray_uniform = np.zeros(len(starts), bool)
        if self.header.fields.get("NumUniformCounters"):
            places = self.places("UniformCounterPtr", "UniformCountersDelta")
            room = len(self.header.part("uniform_counters"))
            astray_uniform = _outside(places, numbers, 8, room)
        kinds: tuple[tuple[type[Problem], Array, str], ...] = (
            (
                Problem,
                ~self.sound,
                "expected 1 or more counters within {size} bytes, found {number} of {width} "
                "from byte {place}",
            ),
            (Problem, self.large, "expected counts up to 2^56, found a larger one in {name}"),
            (Problem, astray, "expected a bitmap of {bits} bytes, found no such"),
            (Problem, astray_uniform, "expected {number} uniform counters, found no such"),
            (
                Doubt,
                self.overlapping & self.sound,
                "expected {number} counters of its own, found another's among them (objects of "
                "two variants were linked, or it is damaged)",
            ),
            (
                Doubt,
                self._repeated,
                "expected one of its own, found another's again (it was written over)",
            ),
            (Doubt, named < 0, "expected a name for NameRef {ref:#x}, found none"),
            (Doubt, unstamped, "expected a timestamp before its counters, found none"),
        )
        start, problems = self.header.places["data"][0], list[Problem]()
        data = self.header.part("data")
        if len(data) > MOST_RECOGNIZED and (self.outside.any() or self.overlapping.any()):
            what = f"records: {len(data):,} bytes, too many to look for others than the header's"
            problems.append(Problem(start, what))
        if self.padding:
            what = f"records: expected the first one here, found {self.padding} bytes of padding"
            problems.append(Problem(start, f"{what}, which llvm-profdata takes for a record"))
        for kind, wrong, what in kinds:
            records = np.flatnonzero(wrong)
            listed = names.resolve(refs[records[:MOST]]) if "{name}" in what else []
            for i in records[:MOST].tolist():
                place = self.header.signed(int(starts[i]))
                facts = {"number": numbers[i], "place": place, "bits": bits[i], "ref": int(refs[i])}
                facts["name"] = listed.pop(0).decode(errors="backslashreplace") if listed else ""
                text = what.format(size=size, width=width, **facts)
                problems.append(kind(start + int(self.offsets[i]), f"record: {text}"))
            if len(records) > MOST:
                more = f"record: {len(records) - MOST} more like the one before"
                problems.append(kind(start + int(self.offsets[records[MOST]]), more))
        return problems

    @property
    def padding(self) -> int:
        """Bytes before the first record: some linkers for Windows leave zeros there."""
        return int(self.offsets[0]) if len(self.offsets) and not self.mixed else 0

    @property
    def mixed(self) -> bool:
        """Whether there are others than the header says: objects of several LLVMs were linked."""
        return any(p.rows.itemsize != self.header.record_size for p in self.blocks)

    def mixture(self) -> Problem:
        """Say which sizes of records follow one another."""
        main = self.header.layout
        start = self.header.places["data"][0]
        parts = []
        for block in self.blocks:
            size = block.rows.itemsize
            versions = layout.sizes(self.header.bits)[size]
            raw = "-".join(str(v) for v in sorted({versions[0], versions[-1]}))
            place = start + int(block.offsets[0])
            parts.append(f"{len(block.rows)} of {size} bytes (raw version {raw}) from byte {place}")
        return Problem(
            start,
            f"records: expected all of {self.header.record_size} bytes, the stride with which the "
            f"runtime (raw version {main.raw_version}, {layout.llvm_of(main.raw_version)}) wrote "
            f"them, found {', then '.join(parts)}: objects of two LLVMs were linked",
        )


def read(header: Header, names: Callable[[], Names]) -> RecordTable:
    """Return the records of a profile, with the header's layout if that makes sense.

    Else, those that their names and counters give away: the linker put objects' records one
    after the other, and the runtime wrote them all with its own stride.
    """
    rows = header.layout.rows(header.part("data"), header.bits, header.order)
    kind = _narrow(header.part("data"))
    offsets: Array = np.arange(len(rows), dtype=kind)
    offsets *= kind(rows.itemsize)
    ours = RecordTable(header, (RecordBlock(header.layout, offsets, rows),))
    if header.unknown[1] or not (ours.outside.any() or ours.overlapping.any()):
        return ours
    if len(header.part("data")) > MOST_RECOGNIZED:
        return ours
    text = names()
    recognized = _recognized(header, text)
    return recognized if _sensible(recognized, text) > _sensible(ours, text) else ours


def _sensible(records: RecordTable, names: Names) -> int:
    good = records.sound & ~records.overlapping
    if names.text:
        good &= names.index(records.column("NameRef")) >= 0
    return int(np.count_nonzero(good))


def _recognized(header: Header, names: Names) -> RecordTable:
    data, span = header.part("data"), None
    if header.layout.relative:
        start = header.signed(header.fields["CountersDelta"])
        span = (start, start + len(header.part("counters")))
    section = infer.find(infer.Section(data, names, span, header.bits, header.order))
    blocks, first = [], 0
    for run in section.runs:
        offsets = section.offsets[first : first + run.records]
        first += run.records
        versions = run.raw_versions(header.bits)
        if versions:
            same = header.layout.raw_version in versions
            own = header.layout if same else layout.LAYOUTS[versions[-1]]
            rows = own.rows(data, header.bits, header.order, ALIGNMENT)[offsets // ALIGNMENT]
            blocks.append(RecordBlock(own, offsets.astype(_narrow(data)), rows))
    return RecordTable(header, tuple(blocks))


def _overlaps(starts: Array, ends: Array) -> Array:
    """Return which stretches, in the order of their starts, overlap with any before; not the first.

    What is the same as the one before does not.
    """
    same = (starts[1:] == starts[:-1]) & (ends[1:] == ends[:-1])
    overlaps: Array = (starts[1:] < np.maximum.accumulate(ends)[:-1]) & ~same
    return overlaps


def _outside(starts: Array, numbers: Array, width: int, size: int) -> Array:
    """Return which starts and numbers do not lie within so many bytes."""
    outside = np.zeros(len(starts), bool)
    for first in range(0, len(starts), _TOGETHER):
        part = slice(first, first + _TOGETHER)
        room = np.uint64(size) - np.minimum(starts[part], np.uint64(size))
        outside[part] = numbers[part] > room // np.uint64(width)
    return outside


def _narrow(part: memoryview) -> type[np.uint32 | np.uint64]:
    """Return the smaller type that holds each place of a part."""
    return np.uint32 if len(part) < 1 << 31 else np.uint64
