"""A trace in words: its events as a story, whose its pointers are, the record at the crash.

Nothing is said that differs between two runs on one machine: addresses are said as whose they are.
"""

from __future__ import annotations

import difflib
import html
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nbsupport.show import look, shown
from nbsupport.show.shown import Shown
from nbsupport.trace.memory import UNMAPPED, Memory, Place
from nbsupport.trace.trace import Trace

#: Label and colour of the bands of sections, by the end of a section's name.
_SECTIONS = {
    "text": ("code", look.GREY),
    "__llvm_prf_names": ("names (__llvm_prf_names)", look.PURPLE),
    "__llvm_prf_cnts": ("counters (__llvm_prf_cnts)", look.GREEN),
    "__llvm_prf_vals": ("site pointers (__llvm_prf_vals)", look.YELLOW),
    "__llvm_prf_data": ("records (__llvm_prf_data)", look.SKY),
    "__llvm_prf_vnds": ("value nodes (__llvm_prf_vnds)", look.ORANGE),
    "": ("other sections", look.PALE),
}
BANDS = dict(_SECTIONS.values())
RECORDS, _OTHER, NOWHERE = _SECTIONS["__llvm_prf_data"][0], "other sections", "no such address"
GIVEN = re.compile("heap of|mapped by")  # an allocator's memory, or may be
#: Kinds of which events in a row are one row, whatever their functions.
_ALIKE = re.compile("allocator|constructor|handler|memory|record|returned|value site")
#: Decisive moments: title, and marks of the event (kind, function, what; see watch.py); of the
#: first mark that is there, the first event.
_MOMENTS = (
    ("the raw profile is created", r"file f?open\w* .*, w", "runtime __llvm_profile_initialize"),
    ("its writing is registered", "registered .*writeFile"),
    ("the program runs", "main ", "value site "),
    ("main is over", "allocator's life _?mi_process_done", "process _?exit", "returned main"),
    ("the profile is to be written", "write ", "runtime __llvm_profile_write"),
    ("the end", "crash ", "ended "),
)


@dataclass(frozen=True)
class Moment:
    """A decisive moment: the number `n` of its event, a title, and what happens in a sentence."""

    n: int
    title: str
    sentence: str


class Map:
    """Whose memory is where: the labels of the `bands` in order; the program is the `image`."""

    def __init__(self, found: Trace) -> None:
        places = [Place(*row) for row in rows_of(found, "places")]
        inside = tuple(place for place in places if place.owner.endswith(f": {place.name}"))
        self.memory = Memory(inside, tuple(places[len(inside) :]))
        self.image = inside[0].owner.removesuffix(f": {inside[0].name}") if inside else ""
        low, high = (inside[0].start, inside[-1].end) if inside else (0, 0)
        starts = {self.label(place.owner): place.start for place in reversed(inside)}
        starts |= {_OTHER: high} if inside else {}  # one band, after those that matter
        for place in self.memory.regions:
            if place.end <= low or place.start >= high:
                starts.setdefault(self.label(place.owner), place.start)
        for one in rows_of(found, "pointers"):
            starts.setdefault(self.label(one.owner), one.value)
        starts[NOWHERE] = 1 << 64
        self.bands = sorted(starts, key=starts.__getitem__)

    def label(self, owner: str) -> str:
        """Return the band of an owner, as memory.py says it."""
        section = owner.removeprefix(f"{self.image}: ")
        if section != owner or owner == self.image:
            return next(label for end, (label, _) in _SECTIONS.items() if section.endswith(end))
        if "unmapped" in owner:
            return NOWHERE
        owner = "mapped by the program" if owner.startswith("mapped by") else owner
        return owner if GIVEN.match(owner) or owner == "stack" else "libraries, other mappings"

    def words(self, text: str) -> str:
        """Return a text with mapped addresses as whose they are, which is so in each run."""

        def said(number: re.Match[str]) -> str:
            owner = self.memory.owner(int(number[0], 16))
            return number[0] if owner == UNMAPPED else f"({owner})"

        return re.sub(r"0x[0-9a-f]{5,16}\b", said, text)


def rows_of(found: Trace, table: str = "events") -> list[Any]:
    """Return the rows of a table as named tuples."""
    return list(found.table(table).itertuples(index=False))


def _listed(words: Iterable[str]) -> str:
    """List words once each, with how often; of many the first and the last."""
    counts = Counter(filter(None, words))
    said = [word if n == 1 else f"{word} x {n}" for word, n in counts.items()]
    return ", ".join(said) if len(said) < 5 else f"{said[0]} … {said[-1]}"


def end_of(found: Trace) -> str:
    """Say how the run ended, and what became of the profile."""
    told, said = found.manifest, found.manifest["ended"]
    if dead := told.get("crash"):
        said += f" in {dead['frames'][0]['function']}" if dead["frames"] else ""
        said += "" if dead["fault_address"] is None else f" at {dead['fault_address']:#x}"
    if read := told.get("record"):
        said += f", reading the record of {read['function'] or 'no function'}"
    for step in (step for step in rows_of(found, "story") if step.what == "written"):
        empty = f", {told['empty']}" if told.get("empty") else ""
        said += f"; raw profile: {step.detail or '0 bytes'}{empty}"
    return Map(found).words(said)


def said_of(found: Trace, event: Any) -> str:
    """Say what an event is about, without what differs from run to run."""
    what = end_of(found) if event.kind in ("crash", "ended") else event.what
    return re.sub(r", value 0x[0-9a-f]{5,}", "", what.replace("4294967295", "-1"))


def timeline(found: Trace, kinds: Collection[str] = ()) -> Shown:
    """Show the events in order, of some `kinds` or all; what repeats itself is one row."""
    groups: list[tuple[Any, list[Any]]] = []
    for event in rows_of(found):
        key = event.kind, bool(_ALIKE.match(event.kind)) or (event.function, event.caller)
        last = groups[-1][1][-1] if groups else event
        answers = event.kind == "returned" and event.function == last.function
        if groups and (answers or key == groups[-1][0]):
            groups[-1][1].append(event)
        else:
            groups.append((key, [event]))
    rows = []
    for group in (group for _, group in groups if not kinds or group[0].kind in kinds):
        calls = [event for event in group if event.kind != "returned" or event is group[0]]
        said = [said_of(found, event) for event in group]
        columns = [event.function for event in calls], [event.caller for event in calls], said
        step = "-".join(dict.fromkeys(str(event.n) for event in (group[0], group[-1])))
        rows.append((step, group[0].kind, *map(_listed, columns)))
    return shown.table(
        ("step", "what happens", "function", "called from", "details"), rows, marked=False
    )


def killer_of(found: Trace) -> tuple[str, int] | None:
    """Return of which record `Values` were misread at the crash, and as what, if they were."""
    read = found.manifest.get("record") or {"fields": ()}
    for _, field, written in read["fields"]:
        if field.startswith("Values = ") and not written.startswith("Values of"):
            return read["function"] or "no function", int(field[9:], 0)
    return None


def pointers(found: Trace) -> Shown:
    """Show the bounds that the writer was given, and where `Values` lead, as written and read."""
    counts = Counter((one.name, one.how, one.owner) for one in rows_of(found, "pointers"))
    rows = [(name, how, str(n), owner) for (name, how, owner), n in counts.items()]
    if killer := killer_of(found):
        what = Map(found).words(f"{killer[1]:#x}: the crash")
        rows.append((f"Values of {killer[0]}", "read", "1 of them", what))
    columns = ("pointer", "passed, written or read", "how many", "leads to")
    return shown.table(columns, rows, marked=False)


def record(found: Trace) -> Shown:
    """Show the record that was being read at the crash, field by field, and how it was read."""
    read, dead, words = found.manifest.get("record"), found.manifest.get("crash"), Map(found).words
    if not (read and dead):
        said = f"No record was being read at the end: {end_of(found)}."
        return Shown(said, f"<p>{html.escape(said)}</p>")
    used = re.findall(r"\w+", "".join(re.findall(r"\[.*?\]", dead["instruction"])))
    held = [f"{n} = {dead['registers'][n]:#x}" for n in used if n in dead["registers"]]
    note = words(
        f"{end_of(found)}. The instruction: {dead['instruction']}, {', '.join(held)}; the address "
        f"is from the {dead['fault_address_from']}. Last good record: {read['last_good'] or '-'}."
    )
    mark = "followed"
    rows = [(*map(words, row), mark * row[1].startswith("Values =")) for row in read["fields"]]
    fields = shown.table(
        ("byte", "as the runtime reads it", "as its compiler wrote it", "note"), rows, marked=False
    )
    return Shown(f"{fields.text}\n{note}", f"{fields.html}<p>{html.escape(note)}</p>")


def moments(found: Trace) -> tuple[Moment, ...]:
    """Return the decisive moments that there are, six at most, in order."""
    events, chosen = rows_of(found), []
    bounds = dict.fromkeys(one.owner for one in rows_of(found, "pointers") if one.how == "passed")
    for title, *marks in _MOMENTS:
        hits = (e for m in marks for e in events if re.match(m, f"{e.kind} {e.function} {e.what}"))
        for event in [*hits][:1]:
            said = f"{event.function}, called from {event.caller}: {said_of(found, event)}"
            if title == "the end":
                said = end_of(found)
            elif event.kind == "write":
                said += f"; their bounds are in {', '.join(bounds)}"
            elif event.kind == "allocator's life":
                after = [e for e in events[event.n :] if e.function == "munmap"]
                freed = _listed(e.what for e in after if event.function in e.frames)
                said += f"unmaps {freed or 'nothing'}"
            chosen.append(Moment(event.n, title, f"{said.strip(': ')}."))
    return tuple(sorted(chosen, key=lambda moment: moment.n))


def twin(found: Trace) -> Shown:
    """Show the decisive moments one after another, each with its frames."""
    frames = {event.n: event.frames for event in rows_of(found)}
    rows = [(str(one.n), one.title, one.sentence, frames[one.n]) for one in moments(found)]
    return shown.table(
        ("step", "moment", "what happens", "frames, innermost first"), rows, marked=False
    )


def story(traces: Mapping[str, Trace]) -> Shown:
    """Show what became of the raw profile, step by step, in each of some traces."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for name, one in traces.items():
        for step in rows_of(one, "story"):
            cell = (step.detail or "yes") if step.seen else f"MISSING {step.detail}".strip()
            rows.setdefault((step.moment, step.what), {})[name] = cell
    for what in ("ended", "empty"):
        said = {name: one.manifest.get(what) or "-" for name, one in traces.items()}
        rows["outcome", {"ended": "how it ended", "empty": "why it is empty"}[what]] = said
    order = sorted(rows, key=lambda key: ("start-up", "writing", "end", "outcome").index(key[0]))
    cells = [(*key, *(rows[key].get(name, "-") for name in traces)) for key in order]
    return shown.table(("when", "what", *traces), cells, marked=False)


def aligned(found: Trace) -> Shown:
    """Show what the debugger and the tracer of system calls saw, side by side, a page at most."""
    left, right, begun = [], [], False
    kinds = "file", "runtime", "write", "main", "process", "crash", "ended"
    main = next((event.n for event in rows_of(found) if event.kind == "main"), 0)
    for event in rows_of(found):
        if event.kind in kinds or (event.kind == "memory" and event.n >= main):
            name, said = event.function, said_of(found, event)
            left.append(said if said.startswith(f"{name} ") else f"{name} {said}".strip())
    for call in rows_of(found, "calls"):
        mine = (
            call.path and call.name != "execve" and not re.search(r"[/:]|^\.\.$", call.path)
        )  # in the trace's own folder
        begun = begun or mine or not main
        size = [call.size] if call.size > 0 else re.findall("(?<=, )[0-9]+", call.arguments)
        said = f"{call.name} {call.path or call.result}"
        if call.name in ("mmap", "munmap", "mprotect", "madvise") and begun and not call.path:
            right.append(f"{call.name} {size[0]} bytes")
        elif mine or re.match("SIG|exit|killed", call.name):
            right.append(f"{said} {size[0]:.0f} bytes" if call.size > 0 else said.strip())
    left, right, rows = left[-400:], right[-400:], []
    keys = [*map(_same, left)], [*map(_same, right)]
    for what, a, b, c, d in difflib.SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        if what == "equal":
            rows += [(*pair, "both") for pair in zip(left[a:b], right[c:d], strict=True)]
        else:
            rows += [(said, "", "debugger") for said in left[a:b]]
            rows += [("", said, "system calls") for said in right[c:d]]
    if len(rows) > 44:
        rows[22:-22] = [("…", "…", f"{len(rows) - 44} more")]
    return shown.table(("debugger", "system calls", "seen by"), rows, marked=False)


def _same(said: str) -> str:
    """Return what makes an event and a system call one: both saw it."""
    for ours, theirs in (("open", "openat"), ("_exit", "exit_group"), ("exit code", "exited")):
        said = said.replace(theirs, ours)
    return re.match(r"m\w+ \d+|SIG\w+|_exit|exit code|.*", said)[0]  # type: ignore[index]
