"""The writer's steps in two traced runs, side by side, until they part; and the call graph."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nbsupport.show import shown
from nbsupport.show.shown import Shown
from nbsupport.studies.sources.compare import crash_path
from nbsupport.studies.sources.structure import Structure
from nbsupport.trace import words
from nbsupport.trace.trace import Trace

ALLOCATOR = frozenset({"malloc", "calloc", "realloc", "free", "strdup"})
#: What takes the raw version out of an image's variable, to compare it (InstrProfData.inc); who
#: writes, and who gives it the bounds (InstrProfilingWriter.c).
CHECK, WRITER, START = "GET_VERSION", "lprofWriteDataImpl", "lprofWriteData"
#: What the writer computes from the bounds, by calls that a trace sees.
_COUNTS = {
    "__llvm_profile_get_num_data": "NumData",
    "__llvm_profile_get_num_counters": "NumCounters",
}


@dataclass(frozen=True)
class ReadStep:
    """What one function reads, and what it finds there in a run: `value`, as it was `written`."""

    function: str
    reads: str
    value: str
    written: str = ""

    @property
    def field(self) -> str:
        """The name of what is read, without that of its record."""
        return self.reads.partition(" of record ")[0]

    @property
    def record(self) -> str:
        """Which record it is read of; "" for none."""
        return self.reads.partition(f"{self.field} of ")[2]

    @property
    def misread(self) -> bool:
        """Whether a compiler wrote something else there: another field."""
        return bool(self.written) and not self.written.startswith(f"{self.field} of ")


def steps(found: Structure, run: Trace) -> tuple[ReadStep, ...]:
    """Return the writer's steps in a run: the bounds, the counts, then record by record.

    Which fields of a record a function reads is from the sources; what it finds there is from
    the trace, which lists the first calls only.
    """
    return tuple(_steps(found, run))


def _steps(found: Structure, run: Trace) -> Iterator[ReadStep]:
    word_for = words.Map(run).words
    fields: dict[int, dict[str, Any]] = defaultdict(dict)
    for row in words.rows_of(run, "records"):
        fields[row.n][row.field] = row
    begun, number, last = False, 0, -1
    for event in words.rows_of(run):
        begun = begun or event.kind == "write"
        if event.kind == "write":
            yield ReadStep(START, "the sections' bounds", event.what)
        elif begun and event.kind == "returned" and event.function in _COUNTS:
            yield ReadStep(WRITER, _COUNTS[event.function], event.what.removeprefix("returned "))
        elif begun and event.kind == "record":
            record = fields[event.n]
            place = min(row.byte for row in record.values()) if record else last
            number, last = number + (place != last), place
            for field in found.function(event.function).reads:
                if row := record.get(field):
                    where = f"{field} of record {number}, byte {place}"
                    yield ReadStep(event.function, where, word_for(row.read), word_for(row.written))


def parting(healthy: Sequence[ReadStep], crashing: Sequence[ReadStep]) -> int | None:
    """Return the number of the first step that finds, in the crashing run alone, another field."""
    for n, two in enumerate(itertools.zip_longest(healthy, crashing)):
        if two[1] and two[1].misread and not (two[0] and two[0].misread):
            return n
    return None


def side_by_side(healthy: Sequence[ReadStep], crashing: Sequence[ReadStep]) -> Shown:
    """Show the steps of two runs in two columns, until the crashing one ends.

    A record that is the same in both, and read as it was written, is one row.
    """
    part = parting(healthy, crashing)
    pairs = enumerate(zip(healthy, crashing, strict=False))
    rows = []
    for record, group in itertools.groupby(pairs, lambda pair: pair[1][1].record):
        steps = list(group)
        if record and all(one.value == two.value and not two.misread for _, (one, two) in steps):
            said = {two.field: two.value for _, (_, two) in steps}
            value = "; ".join(f"{field} {value}" for field, value in said.items())
            functions = ", ".join(dict.fromkeys(two.function for _, (_, two) in steps))
            rows.append((functions, record, value, value, "the same"))
            continue
        for n, (one, two) in steps:
            same = "" if one.value == two.value else "differs"
            note = "they part" if n == part else "misread" if two.misread else same
            value = f"{two.value}, written as {two.written}" if two.misread else two.value
            rows.append((two.function, two.reads, one.value, value, note))
    columns = ("function", "reads", "healthy run", "crashing run", "note")
    return shown.table(columns, rows, marked=False)


def spine(found: Structure, run: Trace) -> tuple[tuple[str, bool], ...]:
    """Return the functions of the runtime from its entry to where a run died: (name, seen).

    What the debugger saw is joined by the shortest way of calls in the sources: a function
    that was not seen was inlined into its caller. () where a frame is not in the sources.
    """
    names = [frame["function"] for frame in run.manifest.get("crash", {"frames": ()})["frames"]]
    known = {one.name for one in found.functions}
    frames = list(reversed(list(itertools.takewhile(known.__contains__, names))))
    way: dict[str, bool] = dict.fromkeys(frames[:1], True)
    for caller, callee in itertools.pairwise(frames):
        between = found.path(caller, callee)
        if not between:
            return ()
        way |= {name: name in frames for name in between}
    return tuple(way.items())


def table(found: Structure, names: Sequence[str]) -> Shown:
    """Show functions: where, how long, what each reads of a record, and what it uses."""
    rows = []
    for name in names:
        one = found.function(name)
        pointers = [f"by {pointer}" for pointer in one.through]
        reads, uses = ", ".join((*one.reads, *one.writes)), ", ".join(one.globals)
        calls = ", ".join([call for call in one.calls if call in names] + pointers)
        rows.append((name, one.file, str(one.lines), calls, reads or "-", uses or "-"))
    columns = ("function", "file", "lines", "calls", "fields of a record", "variables")
    return shown.table(columns, rows, marked=False)


def comes_from(found: Structure, name: str, file: str) -> str:
    """Return where the variables come from that a function uses, as its `file` defines it."""
    used = {one for f in found.functions if (f.name, f.file) == (name, file) for one in f.globals}
    return ", ".join(sorted({one.comes_from for one in found.globals if one.name in used}))


def counted(steps: Sequence[ReadStep], record_size: int) -> tuple[int, int]:
    """Return NumData of a run, and the bytes of all records by the size of one, rounded up.

    Source: __llvm_profile_get_num_data (InstrProfilingBuffer.c).
    """
    size = int(next(step.value for step in steps if step.function == START).split()[0])
    said = next(step.value for step in steps if step.reads == "NumData")
    return int(said), -(-size // record_size)


def checked_on_path(found: Structure) -> str:
    """Return the functions of the crash's path that compare the image's raw version."""
    return ", ".join(n for n in crash_path(found) if CHECK in found.function(n).calls)
