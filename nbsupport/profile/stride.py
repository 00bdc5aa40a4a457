"""Records as compilers wrote them, and as a runtime of one stride takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nbsupport.profile import infer
from nbsupport.profile.layout import Layout

if TYPE_CHECKING:
    from nbsupport.profile import infer

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


def lay(
    section: infer.Section, runtime: Layout, layouts: Mapping[int, Layout]
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Return the records of a section, and what a runtime takes for them with its own stride.

    `layouts` are by size of a record, in bytes; records of other sizes are left out.
    """
    found = infer.find(section)
    words = np.frombuffer(section.data, "<u8", len(section.data) // _WORD)
    text = section.names.text
    index = section.names.index(words[found.offsets // _WORD])
    names = [text[n].decode(errors="replace") if n >= 0 else "" for n in index]
    records = tuple(
        Record(offset, name, layouts[size])
        for offset, name, size in zip(
            found.offsets.tolist(), names, found.sizes.tolist(), strict=True
        )
        if size in layouts
    )
    starts = {record.offset: record.name for record in records}
    stride = runtime.record_size()
    slots = tuple(
        Record(at, starts.get(at, ""), runtime)
        for at in range(0, len(section.data) - stride + 1, stride)
    )
    return records, slots
