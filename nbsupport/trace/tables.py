"""From what was streamed and copied out of a run to the tables of a trace."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbsupport.base import files
from nbsupport.base.errors import LabError
from nbsupport.crash.crash import from_stop
from nbsupport.crash.inside_lldb.protocol import TraceEvent
from nbsupport.trace import live_records, memory, syscalls, watch
from nbsupport.trace.live_records import LiveRecords
from nbsupport.trace.memory import Memory, Pointer
from nbsupport.trace.syscalls import Calls

if TYPE_CHECKING:
    from nbsupport.audit.objects import BinaryPart

#: What LLDB's side streams into, line by line; all else is made of it.
EVENTS = "events.jsonl"
MANIFEST = "trace.json"
#: The first of what the program printed.
OUTPUT = "output.txt"
#: The tables and their columns, text where no type is said.
TABLES = {
    "events": "n:int64 time:double thread:int64 kind function module caller what frames arguments",
    "pointers": "name of how value:uint64 owner",
    "records": "n:int64 byte:int64 function field read written",
    "places": "start:uint64 end:uint64 name owner rights",
    "calls": "time:double thread:int64 name path arguments result size:int64",
    "story": "moment what seen:bool detail",
}
#: Sections that are copied out of the program's memory.
COPIES = ("__llvm_prf_data", "__llvm_prf_vals", "__llvm_prf_vnds")

#: Kinds of events that only a profile runtime makes.
_RUNTIME = {"runtime", "value site", "write"}
_MOST_FRAMES = 8
#: The two runs, and the folders of their raw profiles.
RUNS = ("lldb", "strace")
_INTERRUPTED = Calls((), "", "interrupted before", None)


def assemble(
    folder: Path, manifest: dict[str, Any], calls: Calls = _INTERRUPTED, profile: str = ""
) -> None:
    """Write the tables and the manifest of the trace in a folder.

    `profile` is the raw profile's name, with its pattern. What was interrupted has no calls.
    """
    stream = list(_streamed(folder / EVENTS))
    shot = next((event for event in reversed(stream) if event.kind == "map"), None)
    events = [event for event in stream if event.kind != "map"]
    owns = memory.from_shot(shot, events) if shot else memory.Memory()
    copies = (folder / f"{name}.bin" for name in COPIES)
    data, sites, nodes = (path.read_bytes() if path.is_file() else b"" for path in copies)
    part = _part(shot.image) if shot else None
    records = live_records.from_memory(owns, data, part)
    manifest |= _end(events, records)
    if place := owns.section("vnds"):
        manifest["value_calls"] = live_records.value_calls(sites, nodes, place.start)
    manifest["notes"] = list(_notes(events, part, records, calls))
    story: Sequence[syscalls.ProfileStep] = ()
    if calls.rows:
        story = syscalls.profile_story(calls, profile)
        manifest["tracer"] = calls.tool
        ran = any(event.kind in _RUNTIME for event in events)
        if ran or any(step.seen for step in story[:-1]):  # else nothing there writes a profile
            manifest["empty"] = syscalls.why_empty(calls, profile)
    rows = {
        "events": [_row(n, event, owns, records, folder) for n, event in enumerate(events)],
        "pointers": [vars(pointer) for pointer in dict.fromkeys(_pointers(events, owns, records))],
        "records": list(_reads(events, records)) if records.slots else [],
        "places": [vars(place) for place in (*owns.sections, *owns.regions)],
        "calls": [_call(call, folder) for call in calls.rows],
        "story": [vars(step) for step in story],
    }
    for name in TABLES:
        write(folder / f"{name}.parquet", rows[name])
    files.write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _streamed(path: Path) -> Iterator[TraceEvent]:
    """Yield what was streamed; the last line of a run that was killed may be half a one."""
    with path.open() as lines:
        for line in lines:
            with contextlib.suppress(ValueError):
                yield TraceEvent(**json.loads(line))


def _part(image: str) -> BinaryPart | None:
    """Return the image whose code ran, as its file tells it."""
    from nbsupport.audit import objects  # noqa: PLC0415 - see `prepare`

    with contextlib.suppress(LabError):
        file = objects.read(Path(image))
        return next((part for part in file.parts if part.sections), None) if file else None
    return None


def _end(events: Sequence[TraceEvent], records: LiveRecords) -> dict[str, Any]:
    """Return how it ended, and for a crash where, and the record that was being read."""
    last = events[-1] if events else TraceEvent(0, 0, "")
    if last.stop is None:
        endings = {"ended": f"exit code {last.value}", "limit": "stopped at the time limit"}
        return {"ended": endings.get(last.kind, "the trace was interrupted")}
    crash = from_stop(last.stop, "LLDB")
    entries: dict[str, Any] = {"ended": crash.signal, "crash": dataclasses.asdict(crash)}
    if addresses := live_records.at_crash(records, last, events):
        address, good = addresses
        entries["record"] = {
            "function": records.name(address),
            "offset": address - records.start,
            "fields": records.dump(address),
            "last_good": records.name(good) if good else "",
        }
    return entries


def _notes(
    events: Sequence[TraceEvent], part: BinaryPart | None, records: LiveRecords, calls: Calls
) -> Iterator[str]:
    """Yield what the trace could not see, and why."""
    kinds = {event.kind for event in events}
    if "main" not in kinds:
        yield "main was never entered, or is not known (no __libc_start_main, no symbol)"
    if not kinds & _RUNTIME:
        yield "no call into a profile runtime was seen: none there, or its symbols are stripped"
    if part and not records.slots:
        yield "the records cannot be told apart: the runtime's raw version is not known"
    more = [memory.plain(event.function) for event in events if event.last]
    if more:
        rest = f" and {len(more) - 4} more" if len(more) > 4 else ""
        yield f"only the first calls are listed of {', '.join(more[:4])}{rest}"
    if len(events) >= watch.MOST_EVENTS:
        yield f"only the first {watch.MOST_EVENTS} events are listed"
    if any(event.function in ("fork", "vfork", "execve", "posix_spawn") for event in events):
        yield "what a child process does is seen by the tracer of system calls only"
    if calls.note:
        yield f"system calls: {calls.note.removeprefix('no system calls: ')}"


def _row(
    n: int, event: TraceEvent, owns: Memory, records: LiveRecords, folder: Path
) -> dict[str, Any]:
    caller, _, caller_module = event.caller
    frames, module = event.frames, event.module
    if event.stop:
        stack = event.stop["frames"][:_MOST_FRAMES]
        frames = tuple(frame["function"] for frame in stack)
        module = stack[0]["module"] if stack else ""
    return {
        "n": n,
        "time": event.time,
        "thread": event.thread,
        "kind": event.kind,
        "function": memory.plain(event.function) or event.module,
        "module": module,
        "caller": memory.plain(caller) or caller_module,
        "what": _inside(watch.what(event, records.name, owns), folder),
        "frames": " < ".join(filter(None, map(memory.plain, frames))),
        "arguments": " ".join(map(hex, event.arguments)),
    }


def _call(call: syscalls.Call, folder: Path) -> dict[str, Any]:
    row = dataclasses.asdict(call)
    path, arguments = _inside(call.path, folder), _inside(call.arguments, folder)
    if call.name == "execve":  # where a program lies is this machine's own affair
        path, arguments = Path(path).name, ""
    elif call.path and (folder / RUNS[1]).is_relative_to(call.path):
        path = ".."  # the runtime makes all folders on the way to its file
    return {**row, "path": path, "arguments": arguments}


def _inside(text: str, folder: Path) -> str:
    """Return a text without the trace's own folder: the same wherever it was made."""
    for part in RUNS:
        text = text.replace(f"{folder.absolute() / part}/", "")
    return text


def _pointers(
    events: Sequence[TraceEvent], owns: Memory, records: LiveRecords
) -> Iterator[Pointer]:
    for event in events:
        if event.kind == "write":
            yield from memory.passed(owns, event)
    for how in ("written", "read"):
        for function, value in records.values(how):
            yield Pointer("Values", function, how, value, owns.owner(value))


def _reads(events: Sequence[TraceEvent], records: LiveRecords) -> Iterator[dict[str, Any]]:
    """Yield, for each call that is about a record, what it can read there, field by field."""
    for n, event in enumerate(events):
        if address := live_records.address_read(event):
            function = records.name(address)
            for place, read, written in records.dump(address):
                field, _, value = read.partition(" = ")
                row = {"n": n, "byte": int(place), "function": function, "field": field}
                yield {**row, "read": value, "written": written}


def prepare() -> None:
    """Import what takes a third of a second, while LLDB starts."""
    import pyarrow.json  # noqa: PLC0415
    import pyarrow.parquet  # noqa: F401, PLC0415

    from nbsupport.audit import objects  # noqa: F401, PLC0415


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one of the tables, whose name is the file's."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import json as reader  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    columns = (column.partition(":") for column in TABLES[path.stem].split())
    schema = pa.schema([(name, pa.type_for_alias(kind or "string")) for name, _, kind in columns])
    # By way of JSON: from Python's values pyarrow would import pandas first.
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    options = reader.ParseOptions(explicit_schema=schema)
    table = reader.read_json(io.BytesIO(lines), None, options) if rows else schema.empty_table()
    content = io.BytesIO()
    parquet.write_table(table, content, compression="zstd")
    files.write(path, content.getvalue())
