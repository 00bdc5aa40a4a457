"""What the lab and LLDB's side say to each other over a socket: one JSON object a line.

Both sides load this file; it needs neither lldb nor nbsupport. The lab sends a `Request`, and
notes (``{"note": ...}``) while it waits. LLDB's side says its version once; for each request it
says ``{"pid": ...}`` as soon as the program runs, then each ``{"event": ...}`` as it happens, and
at last ``{"crash": ...}``, a `Stop` or null (it ended, or ran out of time), or ``{"error": ...}``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypedDict

#: Signals that end a program because of what it did; all others are passed on to it.
FATAL = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS")

#: `return 0`, by the start of a target triple.
RETURN = {
    "x86_64": b"\x31\xc0\xc3",  # xor eax, eax; ret
    "aarch64": b"\x00\x00\x80\x52\xc0\x03\x5f\xd6",  # mov w0, #0; ret
}
RETURN["arm64"] = RETURN["aarch64"]


class StackFrame(TypedDict):
    """A function on the stack, as `nbsupport.crash.crash.Frame` has it."""

    function: str
    offset: int | None
    module: str


class Siginfo(TypedDict):
    """What the kernel said of a signal: ``si_code`` and ``si_addr``."""

    code: int
    address: int


class Stop(TypedDict):
    """What a debugger saw at a fatal signal; `instruction` is None if there is none to execute.

    `exception` are the processor's registers of the exception, where LLDB has them: on macOS.
    `words` are what LLDB says of the stop ("": gdb).
    """

    signal: str
    frames: list[StackFrame]
    instruction: str | None
    pc: int
    registers: dict[str, int]
    siginfo: Siginfo | None
    exception: dict[str, int]
    words: str


class TracePlan(TypedDict):
    """What tracing.py is to do: `most` events at most; `copies` are files, by section.

    The rest is from data/watched.toml.
    """

    watcher: str
    groups: list[dict[str, Any]]
    strings: dict[str, list[int]]
    most: int
    copies: dict[str, str]


class RescuePlan(TypedDict):
    """What rescuing.py is to do: symbols to look for, and the folder that copies go to."""

    watcher: str
    functions: list[str]
    version: str
    exits: list[str]
    forks: list[str]
    sections: list[str]
    copies: str


class Request(TypedDict, total=False):
    """A program to run until a fatal signal; `env` is its whole environment, `seconds` its time.

    `memory` is in bytes (-1: any), streams are paths, the `plan` is for who watches it.
    """

    argv: list[str]
    cwd: str
    env: dict[str, str]
    seconds: float
    memory: int
    stdin: str
    output: str
    errors: str
    plan: TracePlan | RescuePlan


class Note(TypedDict, total=False):
    """What the lab tells a rescue: why a `snapshot` is wanted, or what to change in an image.

    Functions (addresses) return at once where they are in `patch`, and once a profile is to be
    written in `writer`. At a value site of `values`, the pointers at `slots` in the records
    (bytes) become those at `own`.
    """

    snapshot: str
    patch: list[int]
    writer: list[int]
    values: list[int]
    slots: list[int]
    own: list[int]


@dataclass(frozen=True)
class TraceEvent:
    """An event of a trace: `time` is in seconds since the launch, `kind` the group's.

    `caller` is function, offset and module, as `handler` is of what is registered (`kind`
    "registered"). `arguments` are the first six, `text` those that are text. `value` is what a
    call returned, or an exit code. `last`: later calls of the function are not told. `stack`
    are the words above the return address (`kind` "write"). A crash has its `stop`, and the
    registers of the innermost frames (`callers`). A memory map (`kind` "map") has `regions`
    (start, end, rights, name), and name, address, size of the `sections` of the `image` that runs.
    """

    time: float
    thread: int
    kind: str
    function: str = ""
    module: str = ""
    caller: tuple[str, int, str] = ("", 0, "")
    frames: tuple[str, ...] = ()
    arguments: tuple[int, ...] = ()
    text: tuple[str, ...] = ()
    handler: tuple[str, int, str] = ("", 0, "")
    value: int = 0
    last: bool = False
    stack: tuple[int, ...] = ()
    stop: Stop | None = None
    callers: tuple[tuple[int, ...], ...] = ()
    regions: tuple[tuple[int, int, str, str], ...] = ()
    sections: tuple[tuple[str, int, int], ...] = ()
    image: str = ""


@dataclass(frozen=True)
class RescueEvent:
    """An event of a rescue, by `kind`.

    "image": an instrumented image is loaded: its `path`, where its records are (`address`),
    its `symbols` and the value of its `version` variable. "snapshot": copies of `images` were
    made, and `why`. "mended", "disarmed": whether records, or a function, could be changed
    (`done`). "crash": its `stop`. "ended": exit code (`code`) and `why`. "fork", "exec".
    """

    kind: str
    path: str = ""
    address: int = 0
    symbols: dict[str, int] = dataclasses.field(default_factory=dict)
    version: int = 0
    why: str = ""
    images: tuple[dict[str, Any], ...] = ()
    done: bool = False
    stop: Stop | None = None
    code: int | None = None


def to_message(event: TraceEvent | RescueEvent) -> dict[str, Any]:
    """Return an event as it is sent: what is as by default is left out."""
    defaults = {field.name: field.default for field in dataclasses.fields(event)}
    return {name: value for name, value in vars(event).items() if value != defaults[name]}
