"""The writer's steps in two traced runs, side by side, until they part; and the call graph."""

from __future__ import annotations

import itertools
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbsupport.show import Shown, look, shown
from nbsupport.studies.sources.compare import WAYS, crash_path
from nbsupport.studies.sources.structure import Structure
from nbsupport.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALLOCATOR = frozenset({"malloc", "calloc", "realloc", "free", "strdup"})
#: What takes the raw version out of an image's variable, to compare it (InstrProfData.inc); who
#: writes, and who gives it the bounds (InstrProfilingWriter.c).
CHECK, WRITER, START = "GET_VERSION", "lprofWriteDataImpl", "lprofWriteData"
#: What stands beside the line that decides the crash, and beside the line that dies.
DECIDES, DIES = "decides", "dies here"
#: Whose stride decides it. Source: writeValueProfData (InstrProfilingWriter.c).
_STRIDE = "writeValueProfData"
#: What the writer computes from the bounds, by calls that a trace sees.
_COUNTS = {
    "__llvm_profile_get_num_data": "NumData",
    "__llvm_profile_get_num_counters": "NumCounters",
}
#: In points: of the way, its middle, width, and from one function to the next; ends of texts
#: on its left, beginnings of those on its right.
_X, _WIDE, _STEP, _LEFT, _RIGHT = 272, 206, 46, 156, 384
_HEADS = {
    0: "other callers",
    _X: "calls on the way to the crash",
    _RIGHT: "what both runs read there",
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


Steps = Sequence[ReadStep]


def steps(structure: Structure, run: Trace) -> tuple[ReadStep, ...]:
    """Return the writer's steps in a run: the bounds, the counts, then record by record.

    Which fields of a record a function reads is from the sources (`structure`); what it finds
    there is from the trace of the `run`, which lists the first calls only.
    """
    word_for = run.memory_map.words
    steps: list[ReadStep] = []
    fields: dict[int, dict[str, Any]] = defaultdict(dict)
    for row in run.rows("records"):
        fields[row.n][row.field] = row
    begun, number, last = False, 0, -1
    for event in run.rows("events"):
        begun = begun or event.kind == "write"
        if event.kind == "write":
            steps.append(ReadStep(START, "the sections' bounds", event.what))
        elif begun and event.kind == "returned" and event.function in _COUNTS:
            value = event.what.removeprefix("returned ")
            steps.append(ReadStep(WRITER, _COUNTS[event.function], value))
        elif begun and event.kind == "record":
            record = fields[event.n]
            place = min(row.byte for row in record.values()) if record else last
            if place != last:
                number, last = number + 1, place
            for field in structure.function(event.function).reads:
                if row := record.get(field):
                    where = f"{field} of record {number}, byte {place}"
                    words = word_for(row.read), word_for(row.written)
                    steps.append(ReadStep(event.function, where, *words))
    return tuple(steps)


def parting(healthy: Steps, crashing: Steps) -> int | None:
    """Return the number of the first step that finds, in the crashing run alone, another field."""
    for n, step in enumerate(crashing):
        if step.misread and not (n < len(healthy) and healthy[n].misread):
            return n
    return None


def dies_at(crashing: Steps) -> dict[str, str]:
    """Return what of initializeValueProfRuntimeRecord follows the misread pointer, with its words.

    A number that is no address dies as it is followed; an address of this program leads to bytes,
    which die as they are followed in turn. {} where no `Values` is misread.
    Source: InstrProfilingValue.c.
    """
    values = [step.value for step in crashing if step.field == "Values" and step.misread]
    if not values:
        return {}
    return {"NodesKind[I][J]" if values[0].startswith("0x") else "Site->Next": DIES}


def show_steps(healthy: Steps, crashing: Steps) -> Shown:
    """Show the `steps` of two runs in two columns, until the crashing one ends.

    A record that is the same in both, and read as it was written, is one row.
    """
    part = parting(healthy, crashing)
    steps = [(n, *pair) for n, pair in enumerate(zip(healthy, crashing, strict=False))]
    rows = []
    for record, group in itertools.groupby(steps, lambda step: step[2].record):
        members = list(group)
        differing = [died for _, fine, died in members if died.misread or fine.value != died.value]
        if record and not differing:
            texts = dict.fromkeys(f"{died.field} {died.value}" for _, _, died in members)
            functions = dict.fromkeys(died.function for _, _, died in members)
            value = "; ".join(texts)
            rows.append((", ".join(functions), record, value, value, "the same"))
            continue
        for n, fine, died in members:
            value, note = died.value, "" if fine.value == died.value else "differs"
            if died.misread:
                value, note = f"{died.value}, written as {died.written}", "misread"
            if n == part:
                note = "first misread"
            rows.append((died.function, died.reads, fine.value, value, note))
    columns = ("function", "reads", "healthy run", "crashing run", "note")
    return shown.table(columns, rows, marked=False)


def spine(structure: Structure, run: Trace) -> tuple[tuple[str, bool], ...]:
    """Return the functions of the runtime from its entry to where a run died: (name, has a frame).

    What the debugger saw is joined by the shortest way of calls in the sources: a function
    that has no frame was inlined into its caller. () where a frame is not in the sources.
    """
    names = [frame["function"] for frame in run.manifest.get("crash", {"frames": ()})["frames"]]
    runtime = {function.name for function in structure.functions}
    frames = list(reversed(list(itertools.takewhile(runtime.__contains__, names))))
    way: dict[str, bool] = dict.fromkeys(frames[:1], True)
    for caller, callee in itertools.pairwise(frames):
        between = structure.path(caller, callee)
        if not between:
            return ()
        way |= {name: name in frames for name in between}
    return tuple(way.items())


def table(structure: Structure, names: Sequence[str]) -> Shown:
    """Show functions by their `names`: where, how long, what each reads of a record, and uses."""
    rows = []
    for name in names:
        function = structure.function(name)
        calls = [call for call in function.calls if call in names]
        calls += [f"through {pointer}" for pointer in function.through]
        fields, variables = (*function.reads, *function.writes), function.globals
        cells = (", ".join(calls), ", ".join(fields) or "-", ", ".join(variables) or "-")
        rows.append((name, function.file, function.lines, *cells))
    columns = ("function", "file", "lines", "calls", "fields of a record", "variables")
    return shown.table(columns, rows, marked=False)


def comes_from(structure: Structure, name: str, file: str) -> str:
    """Return where the variables come from that a function uses, as its `file` defines it."""
    functions = [one for one in structure.functions if (one.name, one.file) == (name, file)]
    used = {variable for function in functions for variable in function.globals}
    return ", ".join(sorted({one.comes_from for one in structure.globals if one.name in used}))


def count_records(steps: Steps, record_size: int) -> tuple[int, int]:
    """Return NumData of a run, and the bytes of all records by the size of one, rounded up.

    `record_size` is in bytes. Source: __llvm_profile_get_num_data (InstrProfilingBuffer.c).
    """
    size = int(next(step.value for step in steps if step.function == START).split()[0])
    number = next(step.value for step in steps if step.reads == "NumData")
    return int(number), -(-size // record_size)


def checked_on_path(structure: Structure) -> str:
    """Return the functions of the crash's path that compare the image's raw version."""
    return ", ".join(n for n in crash_path(structure) if CHECK in structure.function(n).calls)


def figure(structure: Structure, run: Trace, healthy: Steps, crashing: Steps) -> Shown:
    """Draw the call graph around a crash: `run`'s way from registration on, the fork marked.

    On the left who else calls a function of the way, with those past the check of the raw
    version marked; on the right what the two runs read there: `healthy` and `crashing` are their
    `steps`. Of a run that did not die in the writer it says so.
    """
    way, part = dict(spine(structure, run)), parting(healthy, crashing)
    if not way or part is None:
        text = "No fork to draw: this run did not die in the profile writer."
        return Shown(text, shown.element("p", text))
    names = [name for name in structure.path(*WAYS[0]) if name not in way] + list(way)
    checks = [CHECK in structure.function(name).calls for name in names]
    gate, fork = checks.index(True) if True in checks else -1, names.index(crashing[part].function)
    drawn, axes = look.sheet(_STEP * (len(names) + 1) + 20)
    for x, head in _HEADS.items():
        axes.text(x, 8, head, ha="center" if x == _X else "left", **look.HEAD)
    for n, name in enumerate(names):
        y = _STEP * (n + 1)
        inlined = way.get(name) is False
        label = "inlined: no frame of its own" if inlined else structure.function(name).file
        fill = look.BAD if n >= fork else "none"
        if n == gate:
            label, fill = f"{label}; checks the raw version", look.SKY
        edge = {"edgecolor": look.INK, "linewidth": 0.8, "linestyle": "--" if inlined else "-"}
        look.cell(axes, (_X, y), (_WIDE, 28), fill, f"{name}\n{label}", **edge)
        if n:
            _arrow(axes, (_X, y - 32), (_X, y - 14), look.BAD if n > fork else look.INK)
            if by := structure.leads_to(names[n - 1])[name]:
                how = "to atexit, as a value" if by == "as a value" else f"by the pointer {by}"
                axes.text(_X + 6, y - 23, how, **look.MUTED)
        if others := [caller for caller in structure.callers(name) if caller not in names]:
            text = ",\n".join(others[:2])
            text += f" and {len(others) - 2} more" if len(others) > 2 else ""
            text += "\n(below the check)" if n > gate else ""
            axes.text(_LEFT, y, text, ha="right", **look.SMALL)
            _arrow(axes, (_LEFT + 2, y), (_X - _WIDE / 2, y), look.INK)
        _reads(axes, y, name, healthy, crashing, part)
        if name == _STRIDE:
            words = f"{DECIDES}: DI++ steps by the size\nof the runtime's record"
            axes.text(_RIGHT, y, words, **{**look.SMALL, "fontweight": "bold"})
    y = _STEP * (len(names) + 1)
    sites, fields = WAYS[2], ", ".join(structure.function(WAYS[2][1]).reads)
    calls = " calls\n".join(structure.path(*sites))
    text = f"value sites, in main:\n{calls},\nwhich reads {fields}\n(no check)"
    axes.text(_LEFT, y - _STEP - 10, text, ha="right", **look.SMALL)
    _arrow(axes, (_X + 30, y - 32), (_X + 80, y - 4), look.GOOD)
    axes.text(_X + 84, y, "healthy run: the whole profile is written", **look.SMALL)
    _arrow(axes, (_X - 30, y - 32), (_X - 55, y - 8), look.BAD)
    axes.text(0, y, f"{DIES}: {run.manifest['crash']['signal']}", **look.HEAD)
    return shown.framed(drawn, _finding(structure, names, gate, crashing[part]), " -> ".join(names))


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4}
    axes.annotate("", end, start, arrowprops=style)


def _reads(axes: Axes, y: float, name: str, healthy: Steps, crashing: Steps, part: int) -> None:
    """Write beside a function what it reads first, in both runs: at the record where they part."""
    numbers = [n for n, step in enumerate(crashing) if step.function == name]
    number = next((n for n in numbers if n >= part), next(iter(numbers), None))
    if number is None:
        return
    fine, died = healthy[number], crashing[number]
    field = "" if name == START else f"{died.field}\n"
    above = field + textwrap.fill(f"healthy: {fine.value}", 33)
    axes.text(_RIGHT, y + 2, above, **{**look.SMALL, "va": "bottom"})
    weight = "bold" if died.misread else "normal"
    below = textwrap.fill(f"this run: {died.value}", 33)
    axes.text(_RIGHT, y + 2, below, **{**look.SMALL, "va": "top", "fontweight": weight})


def _finding(structure: Structure, names: Sequence[str], gate: int, fork: ReadStep) -> str:
    """Say what the picture shows, read off the structure."""
    callers = {caller for name in names[gate + 1 :] for caller in structure.callers(name)}
    past = sorted(callers - set(names))
    sites = structure.path(*WAYS[2])
    checked = any(CHECK in structure.function(name).calls for name in sites)
    where = names[gate] if gate >= 0 else "no function of this way"
    return (
        f"{where} checks the raw version. {len(past)} other functions enter below that check "
        f"({', '.join(past)}). A value site in main ({' -> '.join(sites)}) "
        f"{'is checked, too' if checked else 'is not checked'}. Orange: the two runs differ. "
        f"The crashing run first misreads a field in {fork.function}: it reads {fork.reads} as "
        f"{fork.value}. The library's compiler wrote other fields there: {fork.written}."
    )
