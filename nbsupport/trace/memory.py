"""Who owns which address: a program's memory map, the profile's pointers, the record at the crash.

Pure functions of what was copied out of a program's memory.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from nbsupport.profile import infer, layout, names, stride
from nbsupport.profile.stride import Record

if TYPE_CHECKING:
    from nbsupport.audit.objects import BinaryPart

_WORD = 8
UNMAPPED = "nobody: unmapped"
PAST = "unmapped, once "
HOLDS = "holds the profile's"
#: Whose functions map memory: prefix of the function's name, allocator.
_ALLOCATORS = {"mi_": "mimalloc", "_mi_": "mimalloc", "je_": "jemalloc"}
_ALLOCATORS |= dict.fromkeys(("pages_", "os_pages_"), "jemalloc")
#: Sections whose bounds the writer is given, by the name of its parameters.
#: Source: lprofWriteData (InstrProfilingWriter.c).
BOUNDS = {"data": "Data", "cnts": "Counters", "names": "Names", "bits": "Bitmap"}


@dataclass(frozen=True)
class Place:
    """A range of addresses and whose it is; `owner` says it in words."""

    start: int
    end: int
    name: str
    owner: str
    rights: str = ""


@dataclass(frozen=True)
class Pointer:
    """A pointer that the profile writer follows: `how` is passed, written or read.

    `written` is what a record's compiler put there; `read` is what the runtime takes for it.
    """

    name: str
    of: str
    how: str
    value: int
    owner: str


@dataclass(frozen=True)
class Memory:
    """The places of a map, the image's sections before all else; `past`: there no more."""

    sections: tuple[Place, ...] = ()
    regions: tuple[Place, ...] = ()
    past: tuple[Place, ...] = ()

    def owner(self, address: int) -> str:
        """Return whose an address is."""
        for places in (self.sections, self.regions):
            n = bisect.bisect_right(places, address, key=lambda place: place.start) - 1
            if n >= 0 and address < places[n].end:
                return places[n].owner
        once = (place.owner for place in self.past if place.start <= address < place.end)
        return f"{PAST}{was}" if (was := next(once, "")) else UNMAPPED

    def profile(self, start: int, size: int) -> str:
        """Say which of the profile's sections are in a range of bytes; "" for none."""
        names = [
            place.name
            for place in self.sections
            if "__llvm_prf" in place.name and place.start < start + size and start < place.end
        ]
        return f", which {HOLDS} {', '.join(names)}" if names else ""

    def section(self, name: str) -> Place | None:
        """Return the section of a role, such as `data`; Mach-O and ELF share the names."""
        return next((p for p in self.sections if p.name.endswith(f"__llvm_prf_{name}")), None)


def from_snapshot(shot: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> Memory:
    """Return the memory of a `map` event; `events` say who mapped what (see tracing.py)."""
    image = PurePath(shot["image"]).name
    calls: dict[int, Mapping[str, Any]] = {}  # by thread
    mapped: list[tuple[int, int, str]] = []
    for event in events:
        if event.get("function") in ("mmap", "mmap64"):
            if event["kind"] == "returned" and event["thread"] in calls:
                call = calls[event["thread"]]
                size, (name, _, module) = call["arguments"][1], call["caller"]
                mapped.append((event["value"], event["value"] + size, plain(name) or module))
            calls[event["thread"]] = event
    sections = sorted(
        (Place(at, at + size, name, f"{image}: {name}") for name, at, size in shot["sections"]),
        key=lambda place: place.start,
    )
    regions = (
        Place(start, end, PurePath(name).name, _owner(start, end, name, mapped), rights)
        for start, end, rights, name in shot["regions"]
    )
    past = (
        Place(low, high, "", _owner(low, high, "", [(low, high, who)])) for low, high, who in mapped
    )
    return Memory(
        tuple(sections), tuple(sorted(regions, key=lambda place: place.start)), tuple(past)
    )


def _owner(start: int, end: int, name: str, mapped: Sequence[tuple[int, int, str]]) -> str:
    if name == "[heap]":
        return "heap of the C library"
    if name:
        return name.strip("[]") if name.startswith("[") else PurePath(name).name
    who = next((who for low, high, who in reversed(mapped) if low < end and start < high), None)
    if who is None:
        return "anonymous"
    known = (allocator for prefix, allocator in _ALLOCATORS.items() if who.startswith(prefix))
    return (
        f"heap of {next(known, '')}" if who.startswith(tuple(_ALLOCATORS)) else f"mapped by {who}"
    )


def passed(memory: Memory, event: Mapping[str, Any]) -> Iterator[Pointer]:
    """Yield the bounds that the writer was given: those of its arguments that are a section's.

    Which argument is which has changed from LLVM to LLVM; where the sections are, has not.
    """
    given = {*event["arguments"], *event["stack"]}
    for role, name in BOUNDS.items():
        section = memory.section(role)
        for bound in ("Begin", "End") if section else ():
            value = section.start if bound == "Begin" else section.end  # type: ignore[union-attr]
            if value in given:
                inside = value - (bound == "End")
                yield Pointer(name + bound, "the writer", "passed", value, memory.owner(inside))


@dataclass(frozen=True)
class LiveRecords:
    """The data section of a running program: its records, and what the runtime takes for them."""

    start: int
    data: bytes
    records: tuple[Record, ...]
    slots: tuple[Record, ...]

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

    def dump(self, at: int) -> tuple[tuple[str, str, str], ...]:
        """Return a record field by field: byte, as the runtime reads it, what was written there.

        `at` is its address. What was written are the fields that have bytes in common with it.
        """
        slot = Record(at - self.start, self.name(at), self.slots[0].layout)
        if slot.end > len(self.data):
            return ()
        near = [r for r in self.records if r.offset < slot.end and slot.offset < r.end]
        written = [
            (low, low + size, f"{field} of {names.short(r.name) or 'a record'}: {said}")
            for r in near
            for field, low, size, said in self._fields(r)
        ]
        rows = []
        for name, start, size, said in self._fields(slot):
            there = [what for low, high, what in written if low < start + size and start < high]
            rows.append((str(start), f"{name} = {said}", "; ".join(there) or "padding"))
        return tuple(rows)

    def _fields(self, record: Record) -> Iterator[tuple[str, int, int, str]]:
        """Yield name, offset, bytes and value of each field."""
        values = record.values(self.data)
        for name, start, size in record.fields():
            said = ", ".join(str(n) if n < 1 << 16 else hex(n) for n in values[name])
            yield name, start, size, said


def records(memory: Memory, data: bytes, part: BinaryPart | None) -> LiveRecords | None:
    """Return the records in `data`, copied from the running program; None where nothing is known.

    `part` is the image, as its file tells it.
    """
    place, counters = memory.section("data"), memory.section("cnts")
    known = layout.LAYOUTS.get(part.runtime_raw_version or 0) if part else None
    if not (place and part and known and part.bits == 64):
        return None
    bounds = (counters.start - place.start, counters.end - place.start) if counters else None
    section = infer.Section(data, part.sections[0].names, bounds)
    layouts = {size: layout.LAYOUTS[max(v)] for size, v in layout.sizes().items()}
    layouts[known.record_size()] = known
    return LiveRecords(place.start, data, *stride.lay(section, known, layouts))


def read_last(events: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the addresses of records that calls were about, in order, each change once."""
    found: list[int] = []
    for event in events:
        if event["kind"] in ("record", "value site"):
            first = event["function"] == "initializeValueProfRuntimeRecord"
            address = event["arguments"][0 if first else 1]
            found += [address] if found[-1:] != [address] else []
    return found


def at_crash(
    found: LiveRecords, crash: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> tuple[int, int | None] | None:
    """Return the addresses of the record that was being read at a crash, and of the last good one.

    The last call that was seen says it, if it is of the function that crashed. Otherwise the
    registers of the innermost frames do: of the records that they point at, the last one, for
    the writer starts at the first.
    """
    frames = {frame["function"].lstrip("_") for frame in crash["stop"]["frames"][:3]}
    calls = [e for e in events if e["kind"] in ("record", "value site")]
    if calls and calls[-1]["function"].lstrip("_") in frames and not calls[-1].get("last"):
        read = read_last(events)
        return read[-1], read[-2] if len(read) > 1 else None
    size, starts = found.slots[0].layout.record_size(), {record.offset for record in found.records}
    places = {value - found.start for frame in crash["callers"] for value in frame}
    inside = (place for place in places if 0 <= place <= len(found.data) - size)
    here = max((p for p in inside if p % size == 0 or p in starts), default=None)
    if here is None:
        return None
    before = found.start + here - size if "writeOneValueProfData" in frames and here else None
    return found.start + here, before


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


def plain(name: str) -> str:
    """Return a function's name without what compiler and debugger add to it."""
    if name.startswith("___lldb_unnamed"):
        return ""
    return re.sub(r"(::h[0-9a-f]{16}|[ (]*\.llvm\.\d+\)?)+$", "", name)
