"""A profile out of a program that runs now, under LLDB: neither crash can happen to it.

What crashes is the profile runtime, in two places. Where a value site is recorded, it takes
something else in a foreign record for `Values`: there the record's own `Values` is put, which is
a list of nodes in every layout. Where that cannot be, value sites return at once, and what they
saw is lost. The writer returns at once in any case: records, counters and value nodes are
copied from memory instead, when the program would have written them.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from nbsupport.audit import evidence, images, judge, machine_code, objects
from nbsupport.audit.image import VERSION
from nbsupport.base import process, progress
from nbsupport.base.errors import LabError
from nbsupport.crash.debugger import output_pipe
from nbsupport.crash.inside_lldb.protocol import Note, Request, RescueEvent, RescuePlan, Stop
from nbsupport.crash.lldb import ALLOW, Lldb
from nbsupport.profile import infer, layout, names
from nbsupport.rescue import value_sites
from nbsupport.rescue.profdata import raw

#: What value sites call, and what writes the profile: to its file, or to memory (which a program
#: may call itself). Source: InstrProfilingValue.c, InstrProfilingFile.c, InstrProfilingBuffer.c.
VALUE_SITES = tuple(f"__llvm_profile_instrument_{kind}" for kind in ("target", "memop", "range"))
WRITER, BUFFER = "__llvm_profile_write_file", "__llvm_profile_write_buffer"
#: Mach-O's sections have the same names, in the segment __DATA.
ROLES = ("data", "cnts", "bits", "names", "vals", "vnds")
#: What the signals to this process ask for.
SIGNALS: dict[int, str] = {
    signal.SIGUSR1: "now",
    **dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT), "end"),
}


@dataclass
class LiveImage:
    """One instrumented image of the process: its file, and what is known of it.

    `version` is that of its version variable (0: stripped). A `healthy` one writes its profile
    itself. `valued`: its value sites are recorded. `copies` are the last ones that were made of
    its sections: by name, where the section stands, and the file that it is in.
    """

    path: Path
    version: int
    healthy: bool
    bits: layout.Bits = 64
    order: layout.Order = "<"
    valued: bool = True
    copies: Mapping[str, tuple[int, str]] = field(default_factory=dict)


@dataclass
class LiveRun:
    """A run, as far as it has come: its instrumented `images`, and how it ended.

    `copied` are those of them whose sections were. `why` is what the last copies were made for:
    `exit`, `crash`, `limit`, `end` (asked for), or `now` (it goes on). `stop` is where it
    crashed; `code` and `ending` are how it ended by itself.
    """

    images: dict[Path, LiveImage] = field(default_factory=dict)
    copied: dict[Path, LiveImage] = field(default_factory=dict)
    why: str = ""
    code: int | None = None
    ending: str = ""
    stop: Stop | None = None
    forked: bool = False
    executed: bool = False


def run(
    debugger: Lldb,
    command: tuple[Sequence[str], Path, Mapping[str, str], float],
    folder: Path,
    save: Callable[[LiveRun], object],
    streams: Sequence[IO[str] | None],
) -> LiveRun:
    """Run a program until it ends; `save` is called with its memory when SIGUSR1 asks for it.

    `command` is what `Lldb.stop` takes: the program, its folder, environment and time. Copies go
    to `folder`. Ctrl-C and SIGTERM end the program, with its memory. `streams` as in
    `nbsupport.rescue.rescue.run`. Raises `LabError` where it cannot be run.
    """
    state = LiveRun()
    plan: RescuePlan = {
        "watcher": "rescue",
        "functions": [*VALUE_SITES, BUFFER, WRITER],
        "version": VERSION,
        "exits": ["_exit", "_Exit"],
        "forks": ["fork", "vfork", "_Fork"],
        "sections": [f"__llvm_prf_{role}" for role in ROLES],
        "copies": str(folder),
    }

    def see(message: Mapping[str, Any]) -> None:
        event = RescueEvent(**message)
        if event.kind == "image":
            image, note = answer(event)
            state.images[image.path] = image
            debugger.tell(note)
        _update(state, event)
        if event.kind == "snapshot" and event.why == "now" and state.copied:
            progress.say(f"{save(state)}")

    def ask(number: int, _: object) -> None:
        debugger.tell({"snapshot": SIGNALS[number]})

    more: Request = {"plan": plan, "memory": -1, "stdin": _stdin()}
    with contextlib.ExitStack() as stack:
        paths = [
            str(stack.enter_context(output_pipe(passing(stream)))) if stream else os.devnull
            for stream in streams
        ]
        more["output"], more["errors"] = paths
        stack.enter_context(process.handling(dict.fromkeys(SIGNALS, ask)))
        try:
            debugger.stop(*command, more, see)
        except LabError as error:
            raise LabError(error.what, error.why, ALLOW) from error
    return state


def _update(state: LiveRun, event: RescueEvent) -> None:
    """Keep what an event tells; the copies of a snapshot replace those before."""
    if event.kind == "snapshot":
        state.why = event.why
        for row in event.images:
            image = state.images[Path(row["path"])]
            for _, path in image.copies.values():
                Path(path).unlink()
            image.copies = row["parts"]
            state.copied[image.path] = image
    elif event.kind == "crash":
        state.stop = event.stop
    elif event.kind == "ended":
        state.code, state.ending = event.code, event.why
    elif event.kind == "mended" and not event.done:
        state.images[Path(event.path)].valued = False
    elif event.kind == "fork":
        state.forked = True
    elif event.kind == "exec":
        state.executed, state.images, state.copied = True, {}, {}


def answer(event: RescueEvent) -> tuple[LiveImage, Note]:
    """Say what to change in an image: nothing where its profile will be whole."""
    path, symbols = Path(event.path), event.symbols
    values = [symbols[name] for name in VALUE_SITES if symbols[name]]
    patch = [symbols[BUFFER]] if symbols[BUFFER] else []
    writer = [symbols[WRITER]] if symbols[WRITER] else []
    image, places = LiveImage(path, event.version, healthy=False), None
    with contextlib.suppress(LabError):  # it is gone, or no longer what is running
        file = objects.read(path)
        linked = [part for part in file.parts if part.kind != "object"] if file else []
        if file and linked:
            image.bits, image.order = linked[0].bits, linked[0].order
            parts = [part for part in evidence.from_file(file).parts if part.linked]
            image.healthy = all(judge.judge_image(p).verdict == "consistent" for p in parts)
            version = next((part.runtime for part in parts if part.runtime), None)
            places = None if image.healthy else value_sites.slots(linked[0], version)
    if image.healthy:
        return image, {"patch": [], "writer": [], "values": [], "slots": [], "own": []}
    if not (values and writer):  # stripped: the code says where functions are
        with contextlib.suppress(OSError, ValueError):
            data = path.read_bytes()
            code = images.parse(data)
            if code and code.places.get("data"):
                slide = event.address - min(code.places["data"])[0]
                values = values or [slide + at for at in machine_code.value_functions(code, data)]
                writer = writer or [slide + at for at in machine_code.writer(code, data)]
    if places is None:
        image.valued = False
        patch, values, places = patch + values, [], ([], [])
    slots, own = places
    return image, {"patch": patch, "writer": writer, "values": values, "slots": slots, "own": own}


def profile(image: LiveImage) -> tuple[bytes, value_sites.Nodes | None]:
    """Return an image's copies as a raw profile without values, and the value nodes.

    Without a version symbol (stripped) it is taken for instrumented for optimization (`ir`).
    """
    sections = {name: (at, Path(path).read_bytes()) for name, (at, path) in image.copies.items()}
    home, data = sections["__llvm_prf_data"]
    roles = {"data": "data", "names": "names", "counters": "cnts", "bitmaps": "bits"}
    empty = home, b""
    parts = {part: sections.get(f"__llvm_prf_{role}", empty) for part, role in roles.items()}
    version = image.version
    runtime = layout.LAYOUTS.get(layout.split(version)[0])
    if runtime is None or not version >> 32:
        address, counters = parts["counters"]
        span = address - home, address - home + len(counters)
        text = names.decode(parts["names"][1])
        runs = infer.find(infer.Section(data, text, span, image.bits, image.order)).runs
        runtime = runtime or layout.LAYOUTS[max(layout.LAYOUTS)]
        variants = [] if version else ["ir"]
        if any(run.counter_size == 1 for run in runs):
            variants.append("byte-coverage")
        version = runtime.raw_version | sum(1 << layout.VARIANTS[variant] for variant in variants)
    nodes = None
    if image.valued and "__llvm_prf_vals" in sections and "__llvm_prf_vnds" in sections:
        values = *sections["__llvm_prf_vals"], *sections["__llvm_prf_vnds"]
        nodes = value_sites.Nodes(*values, image.order)
    return raw(runtime, version, image.bits, image.order, parts), nodes


def _stdin() -> str:
    """Return a path by which LLDB's child can open our standard input."""
    path = f"/proc/{os.getpid()}/fd/0"
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return path
    return os.devnull


def passing(stream: IO[str]) -> Callable[[bytes], None]:
    """Return what writes bytes to a stream, as long as somebody reads it."""

    def write(chunk: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            buffer = getattr(stream, "buffer", None)
            if buffer:
                buffer.write(chunk)
            else:
                stream.write(chunk.decode(errors="replace"))
            stream.flush()

    return write
