"""The writer's steps in two traced runs, side by side, until they part; and the call graph."""

from __future__ import annotations

import itertools
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbsupport.show import look, shown
from nbsupport.show.shown import Shown
from nbsupport.studies.sources.compare import WAYS, crash_path
from nbsupport.studies.sources.structure import Structure
from nbsupport.trace.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    word_for = run.memory_map.words
    fields: dict[int, dict[str, Any]] = defaultdict(dict)
    for row in run.rows("records"):
        fields[row.n][row.field] = row
    begun, number, last = False, 0, -1
    for event in run.rows("events"):
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


def show_steps(healthy: Sequence[ReadStep], crashing: Sequence[ReadStep]) -> Shown:
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


def count_records(steps: Sequence[ReadStep], record_size: int) -> tuple[int, int]:
    """Return NumData of a run, and the bytes of all records by the size of one, rounded up.

    Source: __llvm_profile_get_num_data (InstrProfilingBuffer.c).
    """
    size = int(next(step.value for step in steps if step.function == START).split()[0])
    said = next(step.value for step in steps if step.reads == "NumData")
    return int(said), -(-size // record_size)


def checked_on_path(found: Structure) -> str:
    """Return the functions of the crash's path that compare the image's raw version."""
    return ", ".join(n for n in crash_path(found) if CHECK in found.function(n).calls)


#: In points: of the way, its middle, width, and from one function to the next; ends of texts
#: on its left, beginnings of those on its right.
_X, _WIDE, _STEP, _LEFT, _RIGHT = 272, 206, 46, 156, 384


_SMALL, _MUTED = look.SMALL, look.MUTED


def figure(
    found: Structure, run: Trace, healthy: Sequence[ReadStep], crashing: Sequence[ReadStep]
) -> Shown:
    """Draw the call graph around a crash: `run`'s way from registration on, the fork marked.

    On the left who else calls a function of the way, with those past the check of the raw
    version marked; on the right what the two runs read there (see `walk.steps`). Of a run that
    did not die in the writer it says so.
    """
    way, part = dict(spine(found, run)), parting(healthy, crashing)
    if not way or part is None:
        said = "No fork to draw: this run did not die in the profile writer."
        return Shown(said, f"<p>{said}</p>")
    names = [name for name in found.path(*WAYS[0]) if name not in way] + list(way)
    gates = [n for n, name in enumerate(names) if CHECK in found.function(name).calls]
    gate = gates[0] if gates else -1
    fork = names.index(crashing[part].function)
    ys = [_STEP * (n + 1) for n in range(len(names) + 1)]
    drawn, axes = look.sheet(ys[-1] + 20)
    heads = {0: "who else calls it", _X: "the way to the crash", _RIGHT: "what two runs read there"}
    for x, head in heads.items():
        axes.text(x, 8, head, ha="center" if x == _X else "left", **look.HEAD)
    for n, (y, name) in enumerate(zip(ys, names, strict=False)):
        small = found.function(name).file
        small = "inlined: no frame of its own" if way.get(name) is False else small
        small = f"{small}; checks the raw version" if n == gate else small
        fill = look.SKY if n == gate else look.BAD if n >= fork else "none"
        line = "--" if way.get(name) is False else "-"
        edge = {"edgecolor": look.INK, "linewidth": 0.8, "linestyle": line}
        look.cell(axes, (_X, y), (_WIDE, 28), fill, f"{name}\n{small}", **edge)
        if n:
            by = dict(found.leads_to(names[n - 1]))[name]
            _arrow(axes, (_X, y - 32), (_X, y - 14), look.BAD if n > fork else look.INK)
            label = "to atexit, as a value" if by == "as a value" else f"by the pointer {by}"
            axes.text(_X + 6, y - 23, label if by else "", **_MUTED)
        others = [one for one in found.callers(name) if one not in names]
        if others:
            said = ",\n".join(others[:2]) + (f" and {len(others) - 2} more" if others[2:] else "")
            _beside(axes, y, f"{said}\n(past the check)" if n > gate else said)
            _arrow(axes, (_LEFT + 2, y), (_X - _WIDE / 2, y), look.INK)
        _reads(axes, y, name, healthy, crashing[:part], crashing[part:])
    sites = " calls\n".join(found.path(*WAYS[2]))
    read = ", ".join(found.function(WAYS[2][1]).reads)
    said = f"value sites, in main:\n{sites},\nwhich reads {read}\n(past the check)"
    _beside(axes, ys[-2] - 10, said)
    y = ys[-1]
    _arrow(axes, (_X + 30, y - 32), (_X + 80, y - 4), look.GOOD)
    axes.text(_X + 84, y, "healthy: all is written, and 0 returned", **_SMALL)
    _arrow(axes, (_X - 30, y - 32), (_X - 55, y - 8), look.BAD)
    died = f"{run.manifest['crash']['signal']} in {run.where}"
    axes.text(0, y, died, **_SMALL)
    return shown.framed(drawn, _finding(found, names, gate, crashing[part]), " -> ".join(names))


def _beside(axes: Axes, y: float, said: str) -> None:
    axes.text(_LEFT, y, said, ha="right", **_SMALL)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4}
    axes.annotate("", end, start, arrowprops=style)


def _reads(
    axes: Axes,
    y: float,
    name: str,
    healthy: Sequence[ReadStep],
    before: Sequence[ReadStep],
    after: Sequence[ReadStep],
) -> None:
    """Write beside a function what it reads first, in both runs: at the record where they part."""
    steps = [*before, *after]
    numbers = [n for n, step in enumerate(steps) if step.function == name]
    for n in ([n for n in numbers if n >= len(before)] or numbers)[:1]:
        one, this = healthy[n], steps[n]
        reads = "" if name == START else f"{this.field}\n"
        above, below = (
            f"{who}: {step.value}" for who, step in (("healthy", one), ("this run", this))
        )
        weight = "bold" if this.misread else "normal"
        styles = {**_SMALL, "va": "bottom"}, {**_SMALL, "va": "top", "fontweight": weight}
        axes.text(_RIGHT, y + 2, reads + textwrap.fill(above, 33), **styles[0])
        axes.text(_RIGHT, y + 2, textwrap.fill(below, 33), **styles[1])


def _finding(found: Structure, names: Sequence[str], gate: int, fork: ReadStep) -> str:
    """Say what the picture shows, read off the structure."""
    past = {one for name in names[gate + 1 :] for one in found.callers(name)} - set(names)
    sites = found.path(*WAYS[2])
    checked = any(CHECK in found.function(name).calls for name in sites)
    where = names[gate] if gate >= 0 else "no function of this way"
    return (
        f"The raw version is checked in {where}; {len(past)} other functions enter "
        f"below it ({', '.join(sorted(past))}), and so does every value site in main "
        f"({' -> '.join(sites)}), which {'checks it, too' if checked else 'checks nothing'}. The "
        f"runs part in {fork.function}, at {fork.reads}: {fork.value}, which its compiler wrote "
        f"as {fork.written}."
    )
