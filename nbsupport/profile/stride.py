"""Records as compilers wrote them, and as a runtime of one stride takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nbsupport.profile import infer, layout
from nbsupport.profile.infer import Array
from nbsupport.profile.layout import ALIGNMENT, Buffer, Layout

_WORD = 8


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
        starts = self.layout.offsets()
        return tuple(
            (f.name, self.offset + starts[f.name], (f.size or _WORD) * f.count)
            for f in self.layout.record
        )

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
    whole = infer.find(section)
    names = (name.decode(errors="replace") for name in section.text(whole.offsets))
    rows = zip(whole.offsets.tolist(), names, whole.sizes.tolist(), strict=True)
    records = tuple(Record(at, name, layouts[size]) for at, name, size in rows if size in layouts)
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
    looked, written, own = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], np.zeros(0, np.int64)
    for size in np.unique(records.sizes).tolist():
        versions = layout.sizes().get(size, ())
        if not versions:
            return None
        offsets = records.offsets[records.sizes == size]
        if size == runtime.record_size():
            own = offsets + place
            continue
        foreign = layout.LAYOUTS[versions[-1]]
        offsets = offsets[section.column("NumValueSites", offsets, foreign).any(axis=1)]
        looked.append(offsets + place)
        written.append(offsets + foreign.offsets()["Values"])
    places = np.concatenate(looked)
    if (places + _WORD > len(section.data)).any() or np.isin(places, own).any():
        return None
    return places, np.concatenate(written)
