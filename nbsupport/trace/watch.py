"""What a trace watches (data/watched.toml), and what the arguments of these functions mean."""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nbsupport.base import files, settings
from nbsupport.crash.inside_lldb.protocol import TraceEvent, TracePlan
from nbsupport.trace.live_records import address_read
from nbsupport.trace.memory import PAST, Memory, plain

#: Events of one run; from then on each function is seen once more at most.
MOST_EVENTS = 20_000


@functools.cache
def _watched() -> dict[str, Any]:
    return files.read_toml(settings.data_dir() / "watched.toml")


def plan(copies: Mapping[str, Path]) -> TracePlan:
    """Return what LLDB's side is to watch; `copies`: where it copies which section of memory."""
    # Elsewhere the C library's __libc_start_main tells where main is, even without symbols.
    main = {"kind": "main", "names": ["main"], "limit": 1, "back": True}
    return {
        "watcher": "trace",
        "groups": [*_watched()["group"], *([main] if sys.platform == "darwin" else [])],
        "strings": _watched()["strings"],
        "most": MOST_EVENTS,
        "copies": {name: str(path) for name, path in copies.items()},
    }


def what(event: TraceEvent, name: Callable[[int], str], owns: Memory) -> str:
    """Say in words what an event's arguments mean; `name` says whose record is at an address."""
    kind, function, arguments = event.kind, event.function, event.arguments
    if kind == "registered":
        return plain(event.handler[0]) or event.handler[2]
    if kind == "returned":
        value = event.value
        return f"returned {value if value < 1 << 32 else owns.owner(value).removeprefix(PAST)}"
    if kind in ("value site", "record"):
        words = f"record of {name(address_read(event)) or 'no function'}"
        if kind == "value site":
            words += f", site {arguments[2]}, value {arguments[0]:#x}"
        return words
    if kind == "write":
        records, counters = arguments[2] - arguments[1], arguments[4] - arguments[3]
        return f"{records} bytes of records, {counters} of counters"
    sized = _watched()["sized"]
    if function in sized:
        return f"{arguments[sized[function]]} bytes"
    if function in ("free", "mi_free", "je_free", "lab_free"):
        place = arguments[0]
        return f"{owns.owner(place)}{owns.profile(place, 1)}" if place else "null"
    if function in ("munmap", "mprotect", "madvise"):
        place, size, *_ = arguments
        return f"{size} bytes of: {owns.owner(place).removeprefix(PAST)}{owns.profile(place, size)}"
    if kind == "ended":
        return f"exit code {event.value}"
    return ", ".join(event.text)
