"""A trace shown: the story in events, the pointers on a map of memory, the record at the crash."""

from __future__ import annotations

import difflib
import html
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nbsupport import views
from nbsupport.trace import Trace
from nbsupport.trace.memory import UNMAPPED, Memory, Place
from nbsupport.views import Shown

#: Label and colour (Okabe and Ito's) of the bands of sections, by the end of a section's name.
_SECTIONS = {
    "text": ("code", "#999999"),
    "__llvm_prf_names": ("names (__llvm_prf_names)", "#CC79A7"),
    "__llvm_prf_cnts": ("counters (__llvm_prf_cnts)", "#009E73"),
    "__llvm_prf_vals": ("site pointers (__llvm_prf_vals)", "#F0E442"),
    "__llvm_prf_data": ("records (__llvm_prf_data)", "#56B4E9"),
    "__llvm_prf_vnds": ("value nodes (__llvm_prf_vnds)", "#E69F00"),
    "": ("other sections", "#DDDDDD"),
}
_BANDS = dict(_SECTIONS.values())
_RECORDS, _OTHER, _NOWHERE = _SECTIONS["__llvm_prf_data"][0], "other sections", "no such address"
_GIVEN = re.compile("heap of|mapped by")  # an allocator's memory, or may be
_GOOD, _BAD = "#009E73", "#D55E00"
#: Kinds of which events in a row are one row, whatever their functions.
_ALIKE = "allocator allocator's life constructor handler memory record returned value site"
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


class _Map:
    """Whose memory is where: the labels of the `bands` in order; the program is the `image`."""

    def __init__(self, found: Trace) -> None:
        places = [Place(*row) for row in _rows(found, "places")]
        inside = tuple(place for place in places if place.owner.endswith(f": {place.name}"))
        self.memory = Memory(inside, tuple(places[len(inside) :]))
        self.image = inside[0].owner.removesuffix(f": {inside[0].name}") if inside else ""
        low, high = (inside[0].start, inside[-1].end) if inside else (0, 0)
        starts = {self.label(place.owner): place.start for place in reversed(inside)}
        starts |= {_OTHER: high} if inside else {}  # one band, after those that matter
        for place in self.memory.regions:
            if place.end <= low or place.start >= high:
                starts.setdefault(self.label(place.owner), place.start)
        for one in _rows(found, "pointers"):
            starts.setdefault(self.label(one.owner), one.value)
        starts[_NOWHERE] = 1 << 64
        self.bands = sorted(starts, key=starts.__getitem__)

    def label(self, owner: str) -> str:
        section = owner.removeprefix(f"{self.image}: ")
        if section != owner or owner == self.image:
            return next(label for end, (label, _) in _SECTIONS.items() if section.endswith(end))
        if "unmapped" in owner:
            return _NOWHERE
        owner = "mapped by the program" if owner.startswith("mapped by") else owner
        return owner if _GIVEN.match(owner) or owner == "stack" else "libraries, other mappings"

    def words(self, text: str) -> str:
        """Return a text with mapped addresses as whose they are, which is so in each run."""

        def said(number: re.Match[str]) -> str:
            owner = self.memory.owner(int(number[0], 16))
            return number[0] if owner == UNMAPPED else f"({owner})"

        return re.sub(r"0x[0-9a-f]{5,16}\b", said, text)


def _rows(found: Trace, table: str = "events") -> list[Any]:
    return list(found.table(table).itertuples(index=False))


def _listed(words: Iterable[str]) -> str:
    """List words once each, with how often; of many the first and the last."""
    counts = Counter(filter(None, words))
    said = [word if n == 1 else f"{word} x {n}" for word, n in counts.items()]
    return ", ".join(said) if len(said) < 5 else f"{said[0]} … {said[-1]}"


def _end(found: Trace) -> str:
    """Say how the run ended, and what became of the profile."""
    told, said = found.manifest, found.manifest["ended"]
    if dead := told.get("crash"):
        said += f" in {dead['frames'][0]['function']}" if dead["frames"] else ""
        said += "" if dead["fault_address"] is None else f" at {dead['fault_address']:#x}"
    if read := told.get("record"):
        said += f", reading the record of {read['function'] or 'no function'}"
    for step in (step for step in _rows(found, "story") if step.what == "written"):
        empty = f", {told['empty']}" if told.get("empty") else ""
        said += f"; raw profile: {step.detail or '0 bytes'}{empty}"
    return _Map(found).words(said)


def _said(found: Trace, event: Any) -> str:
    """Say what an event is about, without what differs from run to run."""
    what = _end(found) if event.kind in ("crash", "ended") else event.what
    return re.sub(r", value 0x[0-9a-f]{5,}", "", what.replace("4294967295", "-1"))


def timeline(found: Trace, kinds: Collection[str] = ()) -> Shown:
    """Show the events in order, of some `kinds` or all; what repeats itself is one row."""
    groups: list[tuple[Any, list[Any]]] = []
    for event in _rows(found):
        key = event.kind, event.kind in _ALIKE or (event.function, event.caller)
        last = groups[-1][1][-1] if groups else event
        answers = event.kind == "returned" and event.function == last.function
        if groups and (answers or key == groups[-1][0]):
            groups[-1][1].append(event)
        else:
            groups.append((key, [event]))
    rows = []
    for group in (group for _, group in groups if not kinds or group[0].kind in kinds):
        calls = [event for event in group if event.kind != "returned" or event is group[0]]
        said = [_said(found, event) for event in group]
        columns = [event.function for event in calls], [event.caller for event in calls], said
        step = "-".join(dict.fromkeys(str(event.n) for event in (group[0], group[-1])))
        rows.append((step, group[0].kind, *map(_listed, columns)))
    return views.table(("step", "what happens", "function", "called from", "details"), rows)


def _killer(found: Trace) -> tuple[str, int] | None:
    """Return of which record `Values` were misread at the crash, and as what, if they were."""
    read = found.manifest.get("record") or {"fields": ()}
    for _, field, written in read["fields"]:
        if field.startswith("Values = ") and not written.startswith("Values of"):
            return read["function"] or "no function", int(field[9:], 0)
    return None


def pointers(found: Trace) -> Shown:
    """Show the bounds that the writer was given, and where `Values` lead, as written and read."""
    counts = Counter((one.name, one.how, one.owner) for one in _rows(found, "pointers"))
    rows = [(name, how, str(n), owner) for (name, how, owner), n in counts.items()]
    if killer := _killer(found):
        what = _Map(found).words(f"{killer[1]:#x}: the crash")
        rows.append((f"Values of {killer[0]}", "read", "1 of them", what))
    return views.table(("pointer", "passed, written or read", "how many", "leads to"), rows)


def record(found: Trace) -> Shown:
    """Show the record that was being read at the crash, field by field, and how it was read."""
    read, dead, words = found.manifest.get("record"), found.manifest.get("crash"), _Map(found).words
    if not (read and dead):
        said = f"No record was being read at the end: {_end(found)}."
        return Shown(said, f"<p>{html.escape(said)}</p>")
    used = re.findall(r"\w+", "".join(re.findall(r"\[.*?\]", dead["instruction"])))
    held = [f"{n} = {dead['registers'][n]:#x}" for n in used if n in dead["registers"]]
    note = words(
        f"{_end(found)}. The instruction: {dead['instruction']}, {', '.join(held)}; the address is "
        f"from the {dead['fault_address_from']}. Last good record: {read['last_good'] or '-'}."
    )
    mark = "<- followed"
    rows = [(*map(words, row), mark * row[1].startswith("Values =")) for row in read["fields"]]
    shown = views.table(("byte", "as the runtime reads it", "as its compiler wrote it", ""), rows)
    return Shown(f"{shown.text}\n{note}", f"{shown.html}<p>{html.escape(note)}</p>")


def _finding(found: Trace, known: _Map) -> str:
    """Say where the writer's pointers lead, read off the table."""
    count: Counter[str] = Counter()
    for owner in (one.owner for one in _rows(found, "pointers") if one.how != "written"):
        label = known.label(owner)
        label = "the profile's own sections" if "__llvm_prf" in label else label
        count[f"an allocator's memory ({owner})" if _GIVEN.search(owner) else label] += 1
    said = [f"{n} lead{'s' * (n == 1)} to {label}" for label, n in count.items()]
    none = "" if "an allocator's" in str(said) else "none leads to an allocator's memory, "
    text = f"Of the {count.total()} pointers that the writer is to follow {none}{', '.join(said)}."
    text = text.replace(f"to {_NOWHERE}", "nowhere") if said else "No pointer of a writer was seen."
    if killer := _killer(found):
        text += known.words(f" It dies of what it takes for Values of {killer[0]}: {killer[1]:#x}.")
    return f"{text} The end: {_end(found)}. Not to scale, low addresses at the top."


def memory_map(found: Trace) -> Shown:
    """Show where the profile's pointers lead, as a figure: whose memory is where.

    On the left what the writer was given, on the right `Values`. The caption states the finding.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, only here

    known, killer, rows = _Map(found), _killer(found), _rows(found, "pointers")
    own = [n for n, label in enumerate(known.bands) if label in _BANDS] or [0]
    ys = {a: n + 0.9 * (n >= own[0]) + 0.5 * (n > own[-1]) for n, a in enumerate(known.bands)}
    drawn = Figure((9.4, 1.2 + 0.38 * ys[_NOWHERE]), layout="constrained")
    axes = drawn.subplots()
    axes.set(xlim=(0, 100), ylim=(ys[_NOWHERE] + 0.6, -1.2))
    axes.set_axis_off()
    style: dict[str, Any] = {"va": "center", "fontsize": 8.5, "parse_math": False}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.7}
    for label, y in ys.items():
        look: dict[str, Any] = {"hatch": "///" if _GIVEN.match(label) else "", "alpha": 0.6}
        look |= {"linestyle": "--" if label == _NOWHERE else "-", "edgecolor": "#555555"}
        axes.barh(y, 34, 0.86, 24, color=_BANDS.get(label, "white"), **look)
        axes.text(41, y, label, ha="center", bbox=box, **style)
    low, high = ys[known.bands[own[0]]] - 0.6, ys[known.bands[own[-1]]] + 0.6
    axes.plot([23, 59, 59, 23, 23], [low, low, high, high, low], color="black")
    axes.text(23, low - 0.3, f"the image of {known.image}", **style)
    passed = [one for one in rows if one.how == "passed"]
    head = "the writer was given" if passed else "no call of the writer was seen"
    axes.text(19, -0.9, head, ha="right", fontweight="bold", **style)
    axes.text(68, -0.9, "Values of the records lead to", fontweight="bold", **style)
    for one in passed:
        y = ys[known.label(one.owner)] + (0.22 if one.name.endswith("End") else -0.22)
        arrow: dict[str, Any] = {"arrowstyle": "->"}
        axes.annotate(one.name, (24, y), (16, y), arrowprops=arrow, ha="right", **style)
    lead = Counter((known.label(one.owner), one.how) for one in rows if one.name == "Values")
    begin = ys.get(_RECORDS, 0)
    ends = sorted({label for label, _ in lead}, key=lambda label: abs(ys[label] - begin))
    for lane, label in enumerate(ends):
        hows = [how for how in ("written", "read") if lead[label, how]]
        said = [", ".join(f"{lead[label, how]} as {how}" for how in hows)]
        if killer and label == known.label(known.memory.owner(killer[1])):
            what = f"= {killer[1]:#x}: " * (label == _NOWHERE)
            said.append(f"Values of {killer[0][:30]}\n{what}the program dies of it")
        x, y, colour = 61 + 1.5 * lane, ys[label], _GOOD if "written" in hows else _BAD
        shift = begin + (0.1 + 0.1 * lane) * (1 if y > begin else -1)
        axes.plot([58, x, x], [shift, shift, y], color=colour, linewidth=2)
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2}
        axes.annotate("", (57.5, y), (x + 0.2, y), arrowprops=arrow)
        axes.text(63 + 1.5 * len(ends), y, "\n".join(said), **style)
    told = "; ".join(f"{n} Values as {how} lead to {label}" for (label, how), n in lead.items())
    return views.framed(drawn, _finding(found, known), told or "no Values")


def moments(found: Trace) -> tuple[Moment, ...]:
    """Return the decisive moments that there are, six at most, in order."""
    events, chosen = _rows(found), []
    bounds = dict.fromkeys(one.owner for one in _rows(found, "pointers") if one.how == "passed")
    for title, *marks in _MOMENTS:
        hits = (e for m in marks for e in events if re.match(m, f"{e.kind} {e.function} {e.what}"))
        for event in [*hits][:1]:
            said = f"{event.function}, called from {event.caller}: {_said(found, event)}"
            if title == "the end":
                said = _end(found)
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
    frames = {event.n: event.frames for event in _rows(found)}
    rows = [(str(one.n), one.title, one.sentence, frames[one.n]) for one in moments(found)]
    return views.table(("step", "moment", "what happens", "frames, innermost first"), rows)


def stepper(found: Trace) -> Any:
    """Return a slider over the events: each in words, its frames, and where on the map it is.

    A page without a kernel shows the decisive moments instead.
    """
    import ipywidgets  # type: ignore[import-untyped]  # noqa: PLC0415 - only notebooks have it

    known, start, events = _Map(found), twin(found), _rows(found)
    slider = ipywidgets.IntSlider(0, 0, max(0, len(events) - 1), description="step:")
    pane = ipywidgets.HTML()

    def draw(_: object) -> None:
        for event in events[slider.value : slider.value + 1]:
            given = {known.memory.owner(int(word, 16)) for word in event.arguments.split()}
            marks = {known.label(owner): "its arguments" for owner in given - {UNMAPPED}}
            if event.module:
                own = f"{known.image}: text" if event.module == known.image else event.module
                marks[known.label(own)] = "its code"
            if event.kind == "crash" and (killer := _killer(found)):
                marks[known.label(known.memory.owner(killer[1]))] = "taken for Values"
            here = views.table(("memory", ""), [(one, marks.get(one, "")) for one in known.bands])
            lines = f"{event.kind}: {event.function}", _said(found, event), event.frames
            said = (f"<p>{html.escape(line)}</p>" for line in lines)
            pane.value = "".join((*said, here.html))

    slider.observe(draw, names="value")
    draw(None)

    class Stepper(ipywidgets.VBox):  # type: ignore[misc]
        def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
            live: dict[str, Any] = super()._repr_mimebundle_(**options)
            return {**live, "text/plain": start.text, "text/html": start.html}

    return Stepper([slider, pane])


def story(traces: Mapping[str, Trace]) -> Shown:
    """Show what became of the raw profile, step by step, in each of some traces."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for name, one in traces.items():
        for step in _rows(one, "story"):
            cell = (step.detail or "yes") if step.seen else f"MISSING {step.detail}".strip()
            rows.setdefault((step.moment, step.what), {})[name] = cell
    for what in ("ended", "empty"):
        said = {name: one.manifest.get(what) or "-" for name, one in traces.items()}
        rows["outcome", {"ended": "how it ended", "empty": "why it is empty"}[what]] = said
    order = sorted(rows, key=lambda key: ("start-up", "writing", "end", "outcome").index(key[0]))
    cells = [(*key, *(rows[key].get(name, "-") for name in traces)) for key in order]
    return views.table(("when", "what", *traces), cells)


def aligned(found: Trace) -> Shown:
    """Show what the debugger and the tracer of system calls saw, side by side, a page at most."""
    left, right, begun = [], [], False
    kinds = "file", "runtime", "write", "main", "process", "crash", "ended"
    main = next((event.n for event in _rows(found) if event.kind == "main"), 0)
    for event in _rows(found):
        if event.kind in kinds or (event.kind == "memory" and event.n >= main):
            left.append(f"{event.function} {_said(found, event)}".strip())
    for call in _rows(found, "calls"):
        mine = call.path and not re.search("[/:]", call.path)  # in the trace's own folder
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
    return views.table(("debugger", "system calls", "seen by"), rows)


def _same(said: str) -> str:
    """Return what makes an event and a system call one: both saw it."""
    for ours, theirs in (("open", "openat"), ("_exit", "exit_group"), ("exit code", "exited")):
        said = said.replace(theirs, ours)
    return re.match(r"m\w+ \d+|SIG\w+|_exit|exit code|.*", said)[0]  # type: ignore[index]
