"""Value profiling across layouts: where the runtime looks in foreign records, and what it leaves.

A record's `Values` leads to a pointer for each of its value sites, and these to lists of nodes:
value, count, next. Both are the same in each raw version; only where `Values` stands is not.
Source: ValueProfNode, INSTR_PROF_VALUE_NODE (InstrProfData.inc), instrumentTargetValueImpl
(InstrProfilingValue.c), getOrCreateRegionCounters (InstrProfiling.cpp).
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nbsupport.audit.objects import BinaryPart
from nbsupport.profile import infer, layout
from nbsupport.profile.layout import Order

#: Values of one site that are kept. Source: INSTR_PROF_MAX_NUM_VAL_PER_SITE (InstrProfData.inc).
_MOST = 255


def slots(image: BinaryPart, runtime: int | None) -> tuple[list[int], list[int]] | None:
    """Return where in its data section an image's runtime looks for `Values` of foreign records.

    Beside these offsets in bytes are those where the records with sites have them. None: cannot
    be mended, since the `runtime` (a raw version) or a record is not known, or it looks beyond
    the section, or where a record of its own has its `Values`.
    """
    stepping = layout.LAYOUTS.get(runtime or 0)
    if stepping is None or len(image.sections) != 1 or image.bits != 64:
        return None
    section = image.sections[0]
    stride = stepping.record_size()
    place = stepping.offsets()["Values"]
    records = infer.find(section)
    own = records.offsets[records.sizes == stride] + place
    looked, written = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for size in np.setdiff1d(records.sizes, stride).tolist():
        if size not in layout.sizes():
            return None
        foreign = layout.LAYOUTS[layout.sizes()[size][-1]]
        offsets = records.offsets[records.sizes == size]
        offsets = offsets[section.column("NumValueSites", offsets, foreign).any(axis=1)]
        looked = np.append(looked, offsets + place)
        written = np.append(written, offsets + foreign.offsets()["Values"])
    if (looked + 8 > len(section.data)).any() or np.isin(looked, own).any():
        return None
    return looked.tolist(), written.tolist()


@dataclass(frozen=True)
class Nodes:
    """What value sites left, copied: their pointers (`sites`) and nodes, and where these stood."""

    sites_at: int
    sites: bytes
    nodes_at: int
    nodes: bytes
    order: Order

    def values(self, pointer: int, numbers: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
        """Yield value and count of each that a record's sites saw, site by site, kind by kind."""
        here = pointer - self.sites_at
        for _ in range(sum(numbers)):
            values: list[tuple[int, int]] = []
            if 0 <= here <= len(self.sites) - 8:
                (node,) = struct.unpack_from(f"{self.order}Q", self.sites, here)
                while 0 <= node - self.nodes_at <= len(self.nodes) - 24 and len(values) < _MOST:
                    place = node - self.nodes_at
                    value, count, node = struct.unpack_from(f"{self.order}QQQ", self.nodes, place)
                    values.append((value, count))
            here += 8
            yield values
