"""Who owns which address: the memory map of a program, and the pointers of its profile."""

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from nbsupport.crash.inside_lldb.protocol import TraceEvent

UNMAPPED = "nobody: unmapped"
PAST = "unmapped, once "
HOLDS = "holds the profile's"
#: Whose functions map memory: prefix of the function's name, allocator.
_ALLOCATORS = {"mi_": "mimalloc", "_mi_": "mimalloc", "je_": "jemalloc"}
_ALLOCATORS |= dict.fromkeys(("pages_", "os_pages_"), "jemalloc")
#: Sections whose bounds the writer is given, by the name of its parameters.
#: Source: lprofWriteData (InstrProfilingWriter.c).
BOUNDS = {"data": "Data", "cnts": "Counters", "names": "Names", "bits": "Bitmap"}
#: The bands of sections on a map, by the end of a section's name.
SECTION_BANDS = {
    "text": "code",
    "__llvm_prf_names": "names (__llvm_prf_names)",
    "__llvm_prf_cnts": "counters (__llvm_prf_cnts)",
    "__llvm_prf_vals": "site pointers (__llvm_prf_vals)",
    "__llvm_prf_data": "records (__llvm_prf_data)",
    "__llvm_prf_vnds": "value nodes (__llvm_prf_vnds)",
    "": "other sections",
}
RECORDS, NOWHERE = SECTION_BANDS["__llvm_prf_data"], "no such address"
#: An allocator's memory, or memory that may be one's.
ALLOCATED = re.compile("heap of|mapped by")


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


class MemoryMap:
    """The memory of a trace in bands, for pictures: whose memory is where.

    `bands` are labels in the order of their addresses; `image` is the program's name. Made of
    the trace's table of places, sections first, and of its pointers, which may lead elsewhere.
    """

    def __init__(self, places: Iterable[Place], pointers: Iterable[Pointer]) -> None:
        rows = list(places)
        sections = [place for place in rows if place.owner.endswith(f": {place.name}")]
        self.memory = Memory(tuple(sections), tuple(rows[len(sections) :]))
        self.image = ""
        low = high = 0
        starts: dict[str, int] = {}
        if sections:
            self.image = sections[0].owner.removesuffix(f": {sections[0].name}")
            low, high = sections[0].start, sections[-1].end
            starts = {self.label(place.owner): place.start for place in reversed(sections)}
            starts[SECTION_BANDS[""]] = high  # one band, after those that matter
        for place in self.memory.regions:
            if place.end <= low or place.start >= high:
                starts.setdefault(self.label(place.owner), place.start)
        for pointer in pointers:
            starts.setdefault(self.label(pointer.owner), pointer.value)
        starts[NOWHERE] = 1 << 64
        self.bands = sorted(starts, key=starts.__getitem__)

    def label(self, owner: str) -> str:
        """Return the band of an owner."""
        section = owner.removeprefix(f"{self.image}: ")
        if section != owner or owner == self.image:
            return next(label for end, label in SECTION_BANDS.items() if section.endswith(end))
        if "unmapped" in owner:
            return NOWHERE
        if owner.startswith("mapped by"):
            return "mapped by the program"
        return owner if ALLOCATED.match(owner) or owner == "stack" else "libraries, other mappings"

    def words(self, text: str) -> str:
        """Return a text with mapped addresses as whose they are, which is so in each run."""

        def owner_of(number: re.Match[str]) -> str:
            owner = self.memory.owner(int(number[0], 16))
            return number[0] if owner == UNMAPPED else f"({owner})"

        return re.sub(r"0x[0-9a-f]{5,16}\b", owner_of, text)


def from_shot(shot: TraceEvent, events: Iterable[TraceEvent]) -> Memory:
    """Return the memory of a `map` event; the events before say who mapped what."""
    image = PurePath(shot.image).name
    calls: dict[int, TraceEvent] = {}  # by thread
    mapped: list[Place] = []
    for event in events:
        if event.function in ("mmap", "mmap64"):
            call = calls.get(event.thread)
            if event.kind == "returned" and call:
                name, _, module = call.caller
                owner = _mapper(plain(name) or module)
                mapped.append(Place(event.value, event.value + call.arguments[1], "", owner))
            calls[event.thread] = event
    by_address = sorted(shot.sections, key=lambda section: section[1])
    sections = [Place(at, at + size, name, f"{image}: {name}") for name, at, size in by_address]
    regions = [
        Place(start, end, PurePath(name).name, _owner(start, end, name, mapped), rights)
        for start, end, rights, name in sorted(shot.regions)
    ]
    return Memory(tuple(sections), tuple(regions), tuple(mapped))


def _mapper(function: str) -> str:
    """Say whose memory is that a function maps."""
    owners = (
        f"heap of {name}" for start, name in _ALLOCATORS.items() if function.startswith(start)
    )
    return next(owners, f"mapped by {function}")


def _owner(start: int, end: int, name: str, mapped: Sequence[Place]) -> str:
    """Say whose a region is: by its `name`, else by the function that mapped it last."""
    if name == "[heap]":
        return "heap of the C library"
    if name:
        return name.strip("[]") if name.startswith("[") else PurePath(name).name
    owners = (place.owner for place in reversed(mapped) if place.start < end and start < place.end)
    return next(owners, "anonymous")


def passed(memory: Memory, write: TraceEvent) -> Iterator[Pointer]:
    """Yield the bounds that the writer was given: those of its arguments that are a section's.

    Which argument is which has changed from LLVM to LLVM; where the sections are, has not.
    """
    arguments = {*write.arguments, *write.stack}
    for role, name in BOUNDS.items():
        if section := memory.section(role):
            for bound, value in (("Begin", section.start), ("End", section.end)):
                if value in arguments:
                    yield Pointer(f"{name}{bound}", "the writer", "passed", value, section.owner)


def plain(name: str) -> str:
    """Return a function's name without what compiler and debugger add to it."""
    if name.startswith("___lldb_unnamed"):
        return ""
    return re.sub(r"(::h[0-9a-f]{16}|[ (]*\.llvm\.\d+\)?)+$", "", name)
