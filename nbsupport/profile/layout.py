"""How each raw version lays out records, headers and value data: the one table that all else reads.

What is not in it yet is learned from the header of an LLVM that writes it (`learn`).

Source: INSTR_PROF_DATA, INSTR_PROF_RAW_HEADER and VALUE_PROF_KIND in InstrProfData.inc of the
LLVM that writes the version (5: LLVM 11 and 12; 7: LLVM 13.0.1; 8 to 11: LLVM 14 to 23; LLVM's
development branch wrote 11, too, on 25 October 2026: commit 7e3c57157096, Debian's snapshot).
Version 4 is in that file of LLVM 6 (https://reviews.llvm.org/D39447) to 9, its records are those
of 5; profiles of LLVM 4 to 10 have it. Versions before are not read: their records point to a name
(NamePtr, LLVM 3.8), so nothing tells where one starts. Version 6 was in no release: it is 5 with
BinaryIdsSize (https://reviews.llvm.org/D102039), moved by 7 (D107143); 8 made CounterPtr relative
to its record (D111123).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from nbsupport.base.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np

Bits = Literal[32, 64]
Order = Literal["<", ">"]
Buffer: TypeAlias = "bytes | memoryview"
BYTE_ORDERS: dict[Order, Literal["little", "big"]] = {"<": "little", ">": "big"}

#: Records start at multiples of this. Source: INSTR_PROF_DATA_ALIGNMENT.
ALIGNMENT = 8
#: First eight bytes of a raw profile, most significant first; `R` for 32-bit programs.
#: Source: INSTR_PROF_RAW_MAGIC_64, INSTR_PROF_RAW_MAGIC_32.
MAGIC: dict[Bits, bytes] = {64: b"\xfflprofr\x81", 32: b"\xfflprofR\x81"}

#: Bits of `__llvm_profile_raw_version` above the version. Source: VARIANT_MASK_*; up to
#: version 8 bits 32 to 55 belonged to the version, which never grew that large.
VARIANTS = {
    "loop-entries": 55,
    "ir": 56,
    "context-sensitive": 57,
    "entry-first": 58,
    "debug-correlate": 59,
    "byte-coverage": 60,
    "entry-only": 61,
    "memory-profile": 62,
    "temporal": 63,
}


@dataclass(frozen=True)
class Field:
    """One field of a record: `size` bytes (0: a pointer's) times `count`."""

    name: str
    size: int
    count: int = 1


@dataclass(frozen=True)
class Layout:
    """What one raw version looks like, in memory and in a file.

    `raw_version` is its number, `llvm` the first and the last major version known to write it
    (None: no release). `record` are the fields of a record in order, `header` the names of those
    of a raw profile's header. `relative`: CounterPtr (BitmapPtr) is relative to its record, not
    absolute. All sizes and offsets are in bytes; `bits` are a program's pointers', 64 or 32,
    `order` is its byte order, `<` for little.

    >>> LAYOUTS[10].record_size(), LAYOUTS[10].record_size(32), LAYOUTS[10].header_size
    (64, 48, 128)
    >>> LAYOUTS[8].offsets()["NumCounters"], LAYOUTS[8].value_kinds, LAYOUTS[8].relative
    (40, 2, True)
    """

    raw_version: int
    llvm: tuple[int, int] | None
    record: tuple[Field, ...]
    header: tuple[str, ...]
    relative: bool = True

    @property
    def value_kinds(self) -> int:
        """Kinds of values that a record counts sites of."""
        return next(field.count for field in self.record if field.name == "NumValueSites")

    @property
    def header_size(self) -> int:
        """Bytes; every field of a header has eight."""
        return 8 * len(self.header)

    def offsets(self, bits: Bits = 64) -> dict[str, int]:
        """Return where each field of a record starts, in bytes, each aligned to its size."""
        starts, end = {}, 0
        for field in self.record:
            size = field.size or bits // 8
            starts[field.name] = end = -(-end // size) * size
            end += size * field.count
        return starts

    def record_size(self, bits: Bits = 64) -> int:
        """Return the bytes from one record to the next."""
        return self._sizes[bits]

    @functools.cached_property  # of a folder of objects, a third of the time went into this
    def _sizes(self) -> dict[Bits, int]:
        last, sizes = self.record[-1], dict[Bits, int]()
        for bits in (32, 64):
            end = self.offsets(bits)[last.name] + (last.size or bits // 8) * last.count
            sizes[bits] = -(-end // ALIGNMENT) * ALIGNMENT
        return sizes

    @functools.cache  # noqa: B019 - there are few layouts, and they stay
    def record_dtype(self, bits: Bits = 64, order: Order = "<") -> np.dtype[np.void]:
        """Return the record as a NumPy type."""
        import numpy as np  # noqa: PLC0415 - the lab's commands need this table without it

        numbers = [(f"{order}u{f.size or bits // 8}", f.count) for f in self.record]
        return np.dtype(
            {
                "names": [field.name for field in self.record],
                "formats": [kind if count == 1 else (kind, (count,)) for kind, count in numbers],
                "offsets": list(self.offsets(bits).values()),
                "itemsize": self.record_size(bits),
            }
        )

    def rows(
        self, data: Buffer, bits: Bits = 64, order: Order = "<", step: int = 0
    ) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """Return the records in `data` as NumPy rows, which are its bytes: nothing is copied.

        `step` is from one row to the next: by default a record's size; with `ALIGNMENT` there
        is a row for each place where a record may start, `offset // ALIGNMENT` is its number.
        """
        import numpy as np  # noqa: PLC0415

        kind = self.record_dtype(bits, order)
        step = step or kind.itemsize
        count = max(0, (len(data) - kind.itemsize) // step + 1)
        return np.ndarray((count,), kind, data, strides=(step,))


def _fields(text: str) -> tuple[Field, ...]:
    """Parse `name:size` or `name:size*count`; size `p` is a pointer's."""
    fields = []
    for item in text.split():
        name, _, what = item.partition(":")
        size, _, count = what.partition("*")
        fields.append(Field(name, 0 if size == "p" else int(size), int(count or 1)))
    return tuple(fields)


_START, _MIDDLE = "NameRef:8 FuncHash:8 CounterPtr:p", "FunctionPointer:p Values:p NumCounters:4"
_OLD = _fields(f"{_START} {_MIDDLE} NumValueSites:2*2")
_OLD_HEADER = (
    "DataSize PaddingBytesBeforeCounters CountersSize PaddingBytesAfterCounters NamesSize "
    "CountersDelta NamesDelta ValueKindLast"
)
_SIZES = (
    "BinaryIdsSize NumData PaddingBytesBeforeCounters NumCounters PaddingBytesAfterCounters "
    "NumBitmapBytes PaddingBytesAfterBitmapBytes"
)
_UNIFORM = "NumUniformCounters PaddingBytesAfterUniformCounters UniformCountersDelta"
_NAMES = "NamesSize CountersDelta BitmapDelta NamesDelta"


def _header(rest: str) -> tuple[str, ...]:
    return ("Magic", "Version", *rest.split())


_EARLY_HEADER = "DataSize CountersSize NamesSize CountersDelta NamesDelta ValueKindLast"
_KNOWN = (
    Layout(4, (4, 10), _OLD, _header(_EARLY_HEADER), relative=False),
    Layout(5, (11, 12), _OLD, _header(_OLD_HEADER), relative=False),
    Layout(6, None, _OLD, _header(f"{_OLD_HEADER} BinaryIdsSize"), relative=False),
    Layout(7, (13, 13), _OLD, _header(f"BinaryIdsSize {_OLD_HEADER}"), relative=False),
    Layout(8, (14, 17), _OLD, _header(f"BinaryIdsSize {_OLD_HEADER}")),
    Layout(
        9,
        (18, 18),
        _fields(f"{_START} BitmapPtr:p {_MIDDLE} NumValueSites:2*2 NumBitmapBytes:4"),
        _header(f"{_SIZES} {_NAMES} ValueKindLast"),
    ),
    Layout(
        10,
        (19, 22),
        _fields(f"{_START} BitmapPtr:p {_MIDDLE} NumValueSites:2*3 NumBitmapBytes:4"),
        _header(f"{_SIZES} {_NAMES} NumVTables VNamesSize ValueKindLast"),
    ),
    Layout(
        11,
        (23, 23),
        _fields(
            f"{_START} UniformCounterPtr:p BitmapPtr:p {_MIDDLE} NumValueSites:2*3 "
            "OffloadDeviceWaveSize:2 NumBitmapBytes:4"
        ),
        _header(f"{_SIZES} {_UNIFORM} {_NAMES} NumVTables VNamesSize ValueKindLast"),
    ),
)

#: Raw version to layout: the table, and what was learned.
LAYOUTS = {layout.raw_version: layout for layout in _KNOWN}
#: What finds records and headers before a layout is known.
_FIXED = ("NameRef", "FuncHash", "CounterPtr", "Magic", "Version")


def learn(*layouts: Layout) -> None:
    """Add layouts to `LAYOUTS`; those of raw versions that are there already change nothing.

    Raises `LabError` for one that lacks a field of the nearest known, or has one of `_FIXED`
    elsewhere: to read it would be a guess.
    """
    for layout in layouts:
        differences = changes(nearest(layout.raw_version), layout)
        names = ", ".join(d.name for d in differences if not d.after or d.name in _FIXED)
        if names:
            why = f"no {names} where it was"
            raise LabError(f"raw version {layout.raw_version}", why, "teach nbsupport.profile")
        LAYOUTS.setdefault(layout.raw_version, layout)


def nearest(raw_version: int) -> Layout:
    """Return the layout of the table that comes before a raw version, or is it, else the first.

    >>> [nearest(raw_version).raw_version for raw_version in (1, 9, 12)]
    [4, 9, 11]
    """
    return [_KNOWN[0], *(known for known in _KNOWN if known.raw_version <= raw_version)][-1]


class FieldChange(NamedTuple):
    """A field that two layouts have not alike, of a `record` or a `header` (`part`).

    `before` and `after` are (offset, size) in bytes of 64-bit ones, None: no such field.
    """

    part: str
    name: str
    before: tuple[int, int] | None
    after: tuple[int, int] | None

    def __str__(self) -> str:
        if self.before is None or self.after is None:
            return f"{self.name} is {'new' if self.after else 'gone'}"
        (old, size), (new, bytes_) = self.before, self.after
        moved = f"moves from {old} to {new}" if old != new else ""
        grown = f"has {bytes_} bytes, not {size}" if size != bytes_ else ""
        return f"{self.name} {' and '.join(filter(None, (moved, grown)))}"


def changes(old: Layout, new: Layout) -> tuple[FieldChange, ...]:
    """Return what is laid out otherwise in `new` than in `old`: fields in order, then what is gone.

    >>> [str(change) for change in changes(LAYOUTS[9], LAYOUTS[10]) if change.part == "record"]
    ['NumValueSites has 6 bytes, not 4', 'NumBitmapBytes moves from 56 to 60']
    """
    parts = {part: (places(old, part), places(new, part)) for part in ("record", "header")}
    return tuple(
        FieldChange(part, name, before.get(name), after.get(name))
        for part, (before, after) in parts.items()
        for name in {**after, **before}
        if before.get(name) != after.get(name)
    )


def places(layout: Layout, part: str) -> dict[str, tuple[int, int]]:
    """Return (offset, size) in bytes of each field of a `record` or a `header`, of 64 bits."""
    if part == "header":
        return {name: (8 * n, 8) for n, name in enumerate(layout.header)}
    sizes = ((field.size or 8) * field.count for field in layout.record)
    return {name: (at, next(sizes)) for name, at in layout.offsets().items()}


def split(version: int) -> tuple[int, tuple[str, ...]]:
    """Return the raw version and the variants that a `__llvm_profile_raw_version` holds.

    >>> split(10 | 1 << 56 | 1 << 60)
    (10, ('ir', 'byte-coverage'))
    """
    return version & 0xFFFFFFFF, tuple(n for n, bit in VARIANTS.items() if version >> bit & 1)


def sizes(bits: Bits = 64) -> dict[int, tuple[int, ...]]:
    """Return each record size there is, in bytes, with the raw versions that have it.

    >>> sizes()
    {48: (4, 5, 6, 7, 8), 64: (9, 10), 72: (11,)}
    """
    versions: dict[int, tuple[int, ...]] = {}
    for version in sorted(LAYOUTS):
        size = LAYOUTS[version].record_size(bits)
        versions[size] = (*versions.get(size, ()), version)
    return versions


def same_stride(first: int, second: int) -> bool:
    """Return whether records of two raw versions, `first` and `second`, have one size.

    Then a runtime can walk both with one stride. It makes no difference whether the program has
    64 bits or 32. A raw version that is not in the table is like none but itself.

    >>> same_stride(9, 10), same_stride(5, 8), same_stride(8, 9), same_stride(12, 12)
    (True, True, False, True)
    """
    return first == second or any({first, second} <= set(group) for group in sizes().values())


def learn_unknown(raw_versions: Iterable[int | None], learn: Callable[[], object] | None) -> bool:
    """Return whether layouts of raw versions came to be known: `learn` is called for unknown ones.

    It teaches what this system's LLVMs say (`learn` of this module); with none that is
    unknown it is not called, for it may start each compiler.
    """
    unknown = set(raw_versions) - {None, *LAYOUTS}
    if unknown and learn:
        learn()
    return bool(unknown & LAYOUTS.keys())


def llvm_of(raw_version: int) -> str:
    """Return in words which LLVMs write a raw version.

    >>> [llvm_of(raw_version) for raw_version in (3, 9, 10, 12)]
    ['an old LLVM', 'LLVM 18', 'LLVM 19 to 22', 'an LLVM newer than this tool knows']
    """
    if raw_version not in LAYOUTS:
        return "an LLVM newer than this tool knows" if raw_version > max(LAYOUTS) else "an old LLVM"
    majors = LAYOUTS[raw_version].llvm
    if majors is None:
        return "no released LLVM"
    first, last = majors
    return f"LLVM {first}" if first == last else f"LLVM {first} to {last}"
