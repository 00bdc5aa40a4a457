"""Records as compilers wrote them, and as a runtime of one stride takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nbsupport.profile import infer, layout
from nbsupport.profile.infer import Array
from nbsupport.profile.layout import ALIGNMENT, Buffer, Layout


@dataclass(frozen=True)
class Record:
    """A record as somebody takes it: where it starts, whose it is ("" unknown), which layout."""

    offset: int
    name: str
    layout: Layout

    @property
    def end(self) -> int:
        """Where the next record starts."""
        return self.offset + self.layout.record_size()

    def fields(self) -> tuple[tuple[str, int, int], ...]:
        """Return (name, offset in the section, bytes) of each field."""
        places = layout.places(self.layout, "record").items()
        return tuple((name, self.offset + start, size) for name, (start, size) in places)

    def values(self, data: Buffer) -> dict[str, list[int]]:
        """Return the numbers of each field, out of the section's bytes (64 bits, little-endian)."""
        row = self.layout.rows(data, step=ALIGNMENT)[self.offset // ALIGNMENT]
        return {field.name: np.atleast_1d(row[field.name]).tolist() for field in self.layout.record}


def lay(
    section: infer.Section, runtime: Layout, layouts: Mapping[int, Layout]
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Return the records of a section, and what a runtime takes for them with its own stride.

    `layouts` are by size of a record, in bytes; records of other sizes are left out.
    """
    whole, names = infer.find(section), [*section.names.text, b""]  # -1, for none, is the last one
    index = section.names.index(section.column("NameRef", whole.offsets)).tolist()
    records = tuple(
        Record(at, names[n].decode(errors="replace"), layouts[size])
        for at, n, size in zip(whole.offsets.tolist(), index, whole.sizes.tolist(), strict=True)
        if size in layouts
    )
    starts = {record.offset: record.name for record in records}
    stride = runtime.record_size()
    slots = tuple(
        Record(at, starts.get(at, ""), runtime)
        for at in range(0, len(section.data) - stride + 1, stride)
    )
    return records, slots


def misplaced_values(section: infer.Section, runtime: Layout) -> tuple[Array, Array] | None:
    """Return where a runtime looks for `Values` of foreign records with sites, and where they are.

    Both are offsets in the section of a 64-bit program, in bytes. None: they cannot be moved
    there, for the runtime looks beyond the section, or where a record of its own has its `Values`.
    """
    records, place = infer.find(section), runtime.offsets()["Values"]
    own = records.offsets[records.sizes == runtime.record_size()]
    looked, written = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for size in np.setdiff1d(records.sizes, runtime.record_size()).tolist():
        if size not in layout.sizes():
            return None
        foreign = layout.LAYOUTS[layout.sizes()[size][-1]]
        offsets = records.offsets[records.sizes == size]
        offsets = offsets[section.column("NumValueSites", offsets, foreign).any(axis=1)]
        looked = np.append(looked, offsets + place)
        written = np.append(written, offsets + foreign.offsets()["Values"])
    if (looked + 8 > len(section.data)).any() or np.isin(looked, own + place).any():
        return None
    return looked, written
