"""A trace in words: its events as a story, whose its pointers are, the record at the crash.

Nothing is said that differs between two runs on one machine: addresses are said as whose they are.
"""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nbsupport.show import shown
from nbsupport.show.shown import Shown, element
from nbsupport.trace.trace import Trace

#: Kinds of which events in a row are one row, whatever their functions.
_ALIKE = re.compile("allocator|constructor|handler|memory|record|returned|value site")
#: Milestones: title, and marks of the event (kind, function, what; see watch.py); of the first
#: mark that is there, the first event.
_MILESTONES = (
    ("the raw profile is created", r"file f?open\w* .*, w", "runtime __llvm_profile_initialize"),
    ("the exit handler is registered", "registered .*writeFile"),
    ("the program runs", "main ", "value site "),
    ("main is over", "allocator's life _?mi_process_done", "process _?exit", "returned main"),
    ("the write begins", "write ", "runtime __llvm_profile_write"),
    ("the end", "crash ", "ended "),
)
#: Kinds of events that a tracer of system calls may see, too.
_CALLS = ("file", "runtime", "write", "main", "process", "crash", "ended")
#: Rows of `aligned`: of each tracer the last, and what is shown of all at most.
_MOST_CALLS, _MOST_ROWS = 400, 44


@dataclass(frozen=True)
class Milestone:
    """A decisive moment: the number `n` of its event, a title, and what happens in a sentence."""

    n: int
    title: str
    sentence: str


def _listed(words: Iterable[str]) -> str:
    """List words once each, with how often; of many the first and the last."""
    counts = Counter(filter(None, words))
    items = [word if n == 1 else f"{word} x {n}" for word, n in counts.items()]
    return ", ".join(items) if len(items) < 5 else f"{items[0]} … {items[-1]}"


def ending(trace: Trace) -> str:
    """Say how the run ended, and what is left of the profile."""
    manifest, text = trace.manifest, trace.manifest["ended"]
    if crash := manifest.get("crash"):
        if crash["frames"]:
            text += f" in {crash['frames'][0]['function']}"
        if crash["fault_address"] is not None:
            text += f" at {crash['fault_address']:#x}"
    if record := manifest.get("record"):
        text += f", reading the record of {record['function'] or 'no function'}"
    for step in trace.rows("story"):
        if step.what == "written":
            text += f"; raw profile: {step.detail or '0 bytes'}"
            if manifest.get("empty"):
                text += f", {manifest['empty']}"
    return trace.memory_map.words(text)


def details(trace: Trace, event: Any) -> str:
    """Say what an event is about, without what differs from run to run."""
    text = ending(trace) if event.kind in ("crash", "ended") else event.what
    return re.sub(r", value 0x[0-9a-f]{5,}", "", text.replace("4294967295", "-1"))


def timeline(trace: Trace, kinds: Collection[str] = ()) -> Shown:
    """Show the events in order (those of `kinds`, else all); what repeats itself is one row."""
    groups: list[tuple[Any, list[Any]]] = []
    for event in trace.rows("events"):
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
        steps = dict.fromkeys((str(group[0].n), str(group[-1].n)))
        functions = _listed(event.function for event in calls)
        callers = _listed(event.caller for event in calls)
        text = _listed(details(trace, event) for event in group)
        rows.append(("-".join(steps), group[0].kind, functions, callers, text))
    columns = ("step", "what happens", "function", "called from", "details")
    return shown.table(columns, rows, marked=False)


def misread_values(trace: Trace) -> tuple[str, int] | None:
    """Return of which record `Values` were misread at the crash, and as what, if they were."""
    record = trace.manifest.get("record") or {"fields": ()}
    for _, field, written in record["fields"]:
        if field.startswith("Values = ") and not written.startswith("Values of"):
            return record["function"] or "no function", int(field[9:], 0)
    return None


def pointers(trace: Trace) -> Shown:
    """Show the bounds that the writer was given, and where `Values` lead, as written and read."""
    counts = Counter((row.name, row.how, row.owner) for row in trace.rows("pointers"))
    rows = [(name, how, str(n), owner) for (name, how, owner), n in counts.items()]
    if misread := misread_values(trace):
        function, value = misread
        words = trace.memory_map.words(f"{value:#x}: the crash")
        rows.append((f"Values of {function}", "read", "1 of them", words))
    columns = ("pointer", "passed, written or read", "how many", "leads to")
    return shown.table(columns, rows, marked=False)


def record(trace: Trace) -> Shown:
    """Show the record that was being read at the crash, field by field, and how it was read."""
    row, crash, places = trace.manifest.get("record"), trace.manifest.get("crash"), trace.memory_map
    if not (row and crash):
        text = f"No record was being read at the end: {ending(trace)}."
        return Shown(text, element("p", text))
    used = re.findall(r"\w+", "".join(re.findall(r"\[.*?\]", crash["instruction"])))
    registers = crash["registers"]
    values = [f"{name} = {registers[name]:#x}" for name in used if name in registers]
    note = places.words(
        f"{ending(trace)}. The instruction: {crash['instruction']}, {', '.join(values)}; the "
        f"address is from the {crash['fault_address_from']}. "
        f"Last good record: {row['last_good'] or '-'}."
    )
    rows = [
        (*map(places.words, field), "followed" if field[1].startswith("Values =") else "")
        for field in row["fields"]
    ]
    columns = ("byte", "as the runtime reads it", "as its compiler wrote it", "note")
    fields = shown.table(columns, rows, marked=False)
    return Shown(f"{fields.text}\n{note}", fields.html + element("p", note))


def milestones(trace: Trace) -> tuple[Milestone, ...]:
    """Return the milestones that there are, six at most, in order."""
    events = trace.rows("events")
    chosen = []
    for title, *marks in _MILESTONES:
        hits = (e for m in marks for e in events if re.match(m, f"{e.kind} {e.function} {e.what}"))
        if event := next(hits, None):
            sentence = _sentence(trace, event, title).strip(": ")
            chosen.append(Milestone(event.n, title, f"{sentence}."))
    return tuple(sorted(chosen, key=lambda milestone: milestone.n))


def _sentence(trace: Trace, event: Any, title: str) -> str:
    if title == "the end":
        return ending(trace)
    text = f"{event.function}, called from {event.caller}: {details(trace, event)}"
    if event.kind == "write":
        passed = (row.owner for row in trace.rows("pointers") if row.how == "passed")
        text += f"; their bounds are in {', '.join(dict.fromkeys(passed))}"
    if event.kind == "allocator's life":
        after = (row for row in trace.rows("events")[event.n :] if row.function == "munmap")
        freed = _listed(row.what for row in after if event.function in row.frames)
        text += f"unmaps {freed or 'nothing'}"
    return text


def milestone_table(trace: Trace) -> Shown:
    """Show the milestones one after another, each with its frames."""
    frames = {event.n: event.frames for event in trace.rows("events")}
    rows = [(str(m.n), m.title, m.sentence, frames[m.n]) for m in milestones(trace)]
    columns = ("step", "moment", "what happens", "frames, innermost first")
    return shown.table(columns, rows, marked=False)


def story(traces: Mapping[str, Trace]) -> Shown:
    """Show what happened to the raw profile, step by step, in some traces: a column for each."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for name, trace in traces.items():
        for step in trace.rows("story"):
            cell = (step.detail or "yes") if step.seen else f"MISSING {step.detail}".strip()
            rows.setdefault((step.moment, step.what), {})[name] = cell
    for key, what in (("ended", "how it ended"), ("empty", "why it is empty")):
        rows["outcome", what] = {n: trace.manifest.get(key) or "-" for n, trace in traces.items()}
    order = sorted(rows, key=lambda key: ("start-up", "writing", "end", "outcome").index(key[0]))
    cells = [(*key, *(rows[key].get(name, "-") for name in traces)) for key in order]
    return shown.table(("when", "what", *traces), cells, marked=False)


def aligned(trace: Trace) -> Shown:
    """Show what the debugger and the tracer of system calls saw, side by side, a page at most."""
    events, calls = _debugged(trace)[-_MOST_CALLS:], _system_calls(trace)[-_MOST_CALLS:]
    keys = [_same(text) for text in events], [_same(text) for text in calls]
    rows: list[tuple[str, str, str]] = []
    for what, a, b, c, d in difflib.SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        if what == "equal":
            rows += [(*pair, "both") for pair in zip(events[a:b], calls[c:d], strict=True)]
        else:
            rows += [(text, "", "debugger") for text in events[a:b]]
            rows += [("", text, "system calls") for text in calls[c:d]]
    if len(rows) > _MOST_ROWS:
        half = _MOST_ROWS // 2
        rows[half:-half] = [("…", "…", f"{len(rows) - _MOST_ROWS} more")]
    return shown.table(("debugger", "system calls", "seen by"), rows, marked=False)


def _main(trace: Trace) -> int:
    """Return the number of the event that main is entered with; 0 if it never is."""
    return next((event.n for event in trace.rows("events") if event.kind == "main"), 0)


def _debugged(trace: Trace) -> list[str]:
    """Say what the debugger saw of calls that are system calls, or about the profile."""
    main, lines = _main(trace), []
    for event in trace.rows("events"):
        if event.kind in _CALLS or (event.kind == "memory" and event.n >= main):
            name, text = event.function, details(trace, event)
            lines.append(text if text.startswith(f"{name} ") else f"{name} {text}".strip())
    return lines


def _system_calls(trace: Trace) -> list[str]:
    """Say which system calls were made, from the first that is about the profile on."""
    lines, begun = [], not _main(trace)
    for call in trace.rows("calls"):
        # In the trace's own folder.
        ours = call.path and call.name != "execve" and not re.search(r"[/:]|^\.\.$", call.path)
        begun = begun or ours
        text = f"{call.name} {call.path or call.result}"
        if call.name in ("mmap", "munmap", "mprotect", "madvise") and begun and not call.path:
            size = call.size if call.size > 0 else re.findall("(?<=, )[0-9]+", call.arguments)[0]
            lines.append(f"{call.name} {size} bytes")
        elif ours or re.match("SIG|exit|killed", call.name):
            lines.append(f"{text} {call.size:.0f} bytes" if call.size > 0 else text.strip())
    return lines


def _same(text: str) -> str:
    """Return what makes an event and a system call one: both saw it."""
    for ours, theirs in (("open", "openat"), ("_exit", "exit_group"), ("exit code", "exited")):
        text = text.replace(theirs, ours)
    return re.match(r"m\w+ \d+|SIG\w+|_exit|exit code|.*", text)[0]  # type: ignore[index]
