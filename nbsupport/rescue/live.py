"""A profile out of a program that runs now, under LLDB: neither crash can happen to it.

What crashes is the profile runtime, in two places. Where a value site is recorded, it takes
something else in a foreign record for `Values`: there the record's own `Values` is put, which is
a list of nodes in every layout. Where that cannot be, value sites return at once, and what they
saw is lost. The writer returns at once in any case: records, counters and value nodes are
copied from memory instead, when the program would have written them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from nbsupport.audit import evidence, images, judge, machine_code, objects
from nbsupport.base import progress
from nbsupport.base.errors import LabError
from nbsupport.crash.debugger import output_pipe
from nbsupport.crash.lldb import Lldb
from nbsupport.profile import infer, layout, names
from nbsupport.rescue import value_sites
from nbsupport.rescue.profdata import raw

#: What value sites call, and what writes the profile to memory (which a program may call itself).
#: Source: InstrProfilingValue.c, InstrProfilingBuffer.c.
_VALUES = tuple(f"__llvm_profile_instrument_{one}" for one in ("target", "memop", "range"))
_BUFFER = "__llvm_profile_write_buffer"
#: Where a program ends, and where it doubles, in a C library.
_EXITS, _FORKS = ("_exit", "_Exit"), ("fork", "vfork", "_Fork")
#: Mach-O's sections have the same names, in the segment __DATA.
_SECTIONS = tuple(f"__llvm_prf_{one}" for one in ("data", "cnts", "bits", "names", "vals", "vnds"))
_ALLOW = "check that it is built for this machine, and that ptrace is allowed"


@dataclass
class LiveImage:
    """One instrumented image of the process: what was told of it."""

    path: Path
    version: int
    healthy: bool
    bits: layout.Bits = 64
    order: layout.Order = "<"
    valued: bool = True


@dataclass
class Ran:
    """How a run ended, and its memory: `images` by path, the last copies of their sections.

    `why` is `exit`, `crash`, `limit`, `end` (asked for) or `now` (it goes on).
    """

    seen: dict[Path, LiveImage] = field(default_factory=dict)
    why: str = ""
    images: dict[Path, dict[str, Any]] = field(default_factory=dict)
    code: int | None = None
    ended: str = ""
    stop: Mapping[str, Any] | None = None
    forked: bool = False
    executed: bool = False


def run(
    debugger: Lldb,
    argv: Sequence[str | Path],
    folder: Path,
    *,
    env: Mapping[str, str],
    cwd: Path,
    seconds: float,
    save: Callable[[Ran], object],
    streams: Sequence[IO[str] | None],
) -> Ran:
    """Run a program until it ends; `save` is called with its memory when SIGUSR1 asks for it.

    Copies go to `folder`. Ctrl-C and SIGTERM end the program, with its memory. `streams` as
    in `nbsupport.rescue.rescue.run`. Raises `LabError` where it cannot be run.
    """
    ran = Ran()
    plan = {
        "module": "rescuing",
        "class": "Rescuer",
        "entry": True,
        "functions": [*_VALUES, _BUFFER, images.WRITE_FILE],
        "version": images.VERSION,
        "exits": _EXITS,
        "forks": _FORKS,
        "sections": _SECTIONS,
        "copies": str(folder),
    }

    def see(event: Mapping[str, Any]) -> None:
        if event["kind"] == "image":
            one, note = _answer(event)
            ran.seen[one.path] = one
            debugger.tell(note)
            return
        _take(ran, event)
        if event["kind"] == "snapshot" and event["why"] == "now" and ran.images:
            progress.say(f"{save(ran)}")

    more: dict[str, Any] = {"trace": plan, "memory": -1, "stdin": _stdin()}
    with contextlib.ExitStack() as stack:
        for name, stream in zip(("output", "errors"), streams, strict=True):
            path = stack.enter_context(output_pipe(_pass(stream))) if stream else os.devnull
            more[name] = str(path)
        stack.enter_context(_asked(lambda why: debugger.tell({"snapshot": why})))
        try:
            debugger.stop([str(part) for part in argv], cwd, env, seconds, more, see)
        except LabError as error:
            raise LabError(error.what, error.why, _ALLOW) from error
    return ran


def _take(ran: Ran, event: Mapping[str, Any]) -> None:
    kind = event["kind"]
    if kind == "snapshot":
        ran.why = event["why"]
        for image in event["images"]:
            path = Path(image["path"])
            for _, copy in ran.images.get(path, {}).get("parts", {}).values():
                Path(copy).unlink()
            ran.images[path] = image
    elif kind == "crash":
        ran.stop = event["stop"]
    elif kind == "ended":
        ran.code, ran.ended = event["code"], event["why"]
    elif kind == "mended" and not event["done"]:
        ran.seen[Path(event["path"])].valued = False
    elif kind == "fork":
        ran.forked = True
    elif kind == "exec":
        ran.executed, ran.images, ran.seen = True, {}, {}


def _answer(event: Mapping[str, Any]) -> tuple[LiveImage, dict[str, Any]]:
    """Say what to change in an image: nothing where its profile will be whole."""
    path, symbols = Path(event["path"]), event["symbols"]
    values = [symbols[name] for name in _VALUES if symbols[name]]
    patch = [symbols[_BUFFER]] if symbols[_BUFFER] else []
    writer = [symbols[images.WRITE_FILE]] if symbols[images.WRITE_FILE] else []
    one, slots = LiveImage(path, event["version"], healthy=False), None
    with contextlib.suppress(LabError):  # it is gone, or no longer what is running
        file = objects.read(path)
        linked = [part for part in file.parts if part.kind != "object"] if file else []
        if file and linked:
            one.bits, one.order = linked[0].bits, linked[0].order
            found = evidence.from_file(file)
            one.healthy = _healthy(found)
            version = next((seen.runtime for seen in found.parts if seen.runtime), None)
            slots = None if one.healthy else value_sites.slots(linked[0], version)
    if not (values and writer) and (image := _image(path)):
        content, data = image
        slide = event["data"] - min(content.places["data"])[0]
        values = values or [slide + place for place in machine_code.value_functions(content, data)]
        writer = writer or [slide + place for place in machine_code.writer(content, data)]
    note: dict[str, Any] = {"patch": patch, "writer": writer, "values": [], "there": [], "own": []}
    if one.healthy:
        return one, {**note, "patch": [], "writer": []}
    if slots is None:
        one.valued = False
        return one, {**note, "patch": patch + values}
    return one, {**note, "values": values, **slots}


def _image(path: Path) -> tuple[images.Image, bytes] | None:
    """Return an image, and its bytes: of one without symbols, the code says where functions are."""
    with contextlib.suppress(OSError, ValueError):
        data = path.read_bytes()
        image = images.parse(data)
        if image and image.places.get("data"):
            return image, data
    return None


def _healthy(found: evidence.Evidence) -> bool:
    judged = [judge.judge_image(seen) for seen in found.parts if seen.linked]
    return bool(judged) and all(one.verdict == "consistent" for one in judged)


def profile(seen: LiveImage, image: Mapping[str, Any]) -> tuple[bytes, value_sites.Nodes | None]:
    """Return an image's copy as a raw profile without values, and the value nodes.

    Without a version symbol (stripped) it is taken for instrumented for optimization (`ir`).
    """
    there = {name: (at, Path(path).read_bytes()) for name, (at, path) in image["parts"].items()}
    home, data = there["__llvm_prf_data"]
    named = {"counters": "__llvm_prf_cnts", "bitmaps": "__llvm_prf_bits"}
    parts = {"data": data, "names": there.get("__llvm_prf_names", (0, b""))[1]}
    distances = {}
    for part, name in named.items():
        if name in there:
            distances[part], parts[part] = there[name][0] - home, there[name][1]
    version = seen.version
    known = layout.LAYOUTS.get(layout.split(version)[0])
    if known is None or not version >> 32:
        size = len(parts.get("counters", b""))
        span = distances.get("counters", 0), distances.get("counters", 0) + size
        section = infer.Section(data, names.decode(parts["names"]), span, seen.bits, seen.order)
        runs = infer.find(section).runs
        known = known or layout.LAYOUTS[max(layout.LAYOUTS)]
        byte = any(run.counter_size == 1 for run in runs)
        variants = ("ir",) if not version else ()
        variants = (*variants, "byte-coverage") if byte else variants
        bits = sum(1 << layout.VARIANTS[name] for name in variants)
        version = known.raw_version | bits
    nodes = None
    if seen.valued and "__llvm_prf_vals" in there and "__llvm_prf_vnds" in there:
        nodes = value_sites.Nodes(*there["__llvm_prf_vals"], *there["__llvm_prf_vnds"], seen.order)
    return raw(known, version, seen.bits, seen.order, parts, distances), nodes


def _stdin() -> str:
    """Return a path by which LLDB's child can open our standard input."""
    path = f"/proc/{os.getpid()}/fd/0"
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return path
    return os.devnull


def _pass(stream: IO[str]) -> Callable[[bytes], None]:
    def write(chunk: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            buffer = getattr(stream, "buffer", None)
            if buffer:
                buffer.write(chunk)
            else:
                stream.write(chunk.decode(errors="replace"))
            stream.flush()

    return write


@contextlib.contextmanager
def _asked(tell: Callable[[str], None]) -> Iterator[None]:
    """Turn signals to this process into notes: SIGUSR1 `now`, Ctrl-C and SIGTERM `end`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = {signal.SIGUSR1: "now", signal.SIGINT: "end", signal.SIGTERM: "end"}
    before = {
        number: signal.signal(number, lambda *_, why=why: tell(why))
        for number, why in wanted.items()
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
