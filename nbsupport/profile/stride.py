"""Records as compilers wrote them, and as a runtime of one stride takes them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nbsupport.profile import infer, layout
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
    whole = infer.find(section)
    names = section.names.resolve(section.column("NameRef", whole.offsets))
    records = tuple(
        Record(at, name.decode(errors="replace"), layouts[size])
        for at, name, size in zip(whole.offsets.tolist(), names, whole.sizes.tolist(), strict=True)
        if size in layouts
    )
    starts = {record.offset: record.name for record in records}
    stride = runtime.record_size()
    slots = tuple(
        Record(at, starts.get(at, ""), runtime)
        for at in range(0, len(section.data) - stride + 1, stride)
    )
    return records, slots
