"""The records in the memory of a running program, and which of them was being read at a crash.

Pure functions of what was copied out of the program's memory.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nbsupport.crash.inside_lldb.protocol import TraceEvent
from nbsupport.profile import infer, layout, names, stride
from nbsupport.profile.stride import Record
from nbsupport.trace.memory import Memory

if TYPE_CHECKING:
    from nbsupport.audit.objects import BinaryPart

_WORD = 8


@dataclass(frozen=True)
class LiveRecords:
    """The data section of a running program: its records, and what the runtime takes for them.

    `start` is its address, `data` its bytes. Where nothing is known, there are no `slots`.
    """

    start: int = 0
    data: bytes = b""
    records: tuple[Record, ...] = ()
    slots: tuple[Record, ...] = ()

    def values(self, how: str) -> Iterator[tuple[str, int]]:
        """Yield function and `Values` of each record that has some, as `written` or `read`."""
        for record in self.records if how == "written" else self.slots:
            (value,) = record.values(self.data)["Values"]
            if value:
                yield names.short(record.name) or f"byte {record.offset}", value

    def name(self, address: int) -> str:
        """Return the function whose record an address is in; "" for none."""
        n = bisect.bisect_right(self.records, address - self.start, key=lambda r: r.offset) - 1
        known = n >= 0 and address - self.start < self.records[n].end
        return names.short(self.records[n].name) if known else ""

    def dump(self, address: int) -> tuple[tuple[str, str, str], ...]:
        """Return a record field by field: byte, as the runtime reads it, what was written there.

        What was written are the fields that have bytes in common with it.
        """
        slot = Record(address - self.start, self.name(address), self.slots[0].layout)
        if slot.end > len(self.data):
            return ()
        written = [
            (low, low + size, f"{field} of {names.short(record.name) or 'a record'}: {value}")
            for record in self.records
            if record.offset < slot.end and slot.offset < record.end
            for field, low, size, value in self._fields(record)
        ]
        rows = []
        for name, start, size, value in self._fields(slot):
            same = [what for low, high, what in written if low < start + size and start < high]
            rows.append((str(start), f"{name} = {value}", "; ".join(same) or "padding"))
        return tuple(rows)

    def _fields(self, record: Record) -> Iterator[tuple[str, int, int, str]]:
        """Yield name, offset, bytes and value of each field."""
        values = record.values(self.data)
        for name, start, size in record.fields():
            text = ", ".join(str(n) if n < 1 << 16 else hex(n) for n in values[name])
            yield name, start, size, text


def from_memory(memory: Memory, data: bytes, part: BinaryPart | None) -> LiveRecords:
    """Return the records in `data`, copied from the running program; `part` is its image's file."""
    place, counters = memory.section("data"), memory.section("cnts")
    runtime = layout.LAYOUTS.get(part.runtime_raw_version or 0) if part else None
    if not (place and part and runtime and part.bits == 64):
        return LiveRecords()
    bounds = (counters.start - place.start, counters.end - place.start) if counters else None
    section = infer.Section(data, part.sections[0].names, bounds)
    layouts = {size: layout.LAYOUTS[max(v)] for size, v in layout.sizes().items()}
    layouts[runtime.record_size()] = runtime
    return LiveRecords(place.start, data, *stride.lay(section, runtime, layouts))


def address_read(event: TraceEvent) -> int:
    """Return the address of the record that a call is about; 0 for any other event."""
    if event.kind not in ("record", "value site"):
        return 0
    return event.arguments[0 if event.function == "initializeValueProfRuntimeRecord" else 1]


def at_crash(
    records: LiveRecords, crash: TraceEvent, events: Sequence[TraceEvent]
) -> tuple[int, int | None] | None:
    """Return the addresses of the record that was being read at a crash, and of the last good one.

    The last call that was seen says it, if it is of the function that crashed. Otherwise the
    registers of the innermost frames do: of the records that they point at, the last one, for
    the writer starts at the first.
    """
    if not records.slots:
        return None
    frames = crash.stop["frames"][:3] if crash.stop else ()
    functions = {frame["function"].lstrip("_") for frame in frames}
    calls = [event for event in events if address_read(event)]
    if calls and calls[-1].function.lstrip("_") in functions and not calls[-1].last:
        address, *others = (address_read(event) for event in reversed(calls))
        return address, next((other for other in others if other != address), None)
    size, starts = records.slots[0].layout.record_size(), {row.offset for row in records.records}
    places = {value - records.start for registers in crash.callers for value in registers}
    inside = (place for place in places if 0 <= place <= len(records.data) - size)
    here = max((p for p in inside if p % size == 0 or p in starts), default=None)
    if here is None:
        return None
    before = records.start + here - size if "writeOneValueProfData" in functions and here else None
    return records.start + here, before


def value_calls(sites: bytes, nodes: bytes, base: int) -> int:
    """Return how many calls of value sites the runtime has counted; at least so many were made.

    `sites` are the pointers to each site's first node, `nodes` the nodes, whose section is at
    `base`: value, count, next. Source: ValueProfNode (InstrProfData.inc),
    instrumentTargetValueImpl (InstrProfilingValue.c), which drops what has no node.
    """
    words = np.frombuffer(nodes, "<u8", len(nodes) // _WORD)
    here = np.frombuffer(sites, "<u8", len(sites) // _WORD)
    total = 0
    for _ in range(len(words)):  # a chain that bites its tail ends, too
        here = (here - np.uint64(base))[(here >= base) & (here <= base + len(nodes) - 3 * _WORD)]
        if not len(here):
            break
        total += int(words[here // _WORD + 1].sum())
        here = words[here // _WORD + 2]
    return total
