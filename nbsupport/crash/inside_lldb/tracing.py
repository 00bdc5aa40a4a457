"""A trace's side inside LLDB; what to watch comes from trace/watch.py.

Each event is sent as it happens, so that a run that is killed keeps what it saw.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import lldb

from .common import Watcher, name_of, path_of, registers_of
from .protocol import Stop, TraceEvent, TracePlan

#: Bytes of a section that are copied out of the program.
MOST_BYTES = 256 << 20
#: Callers, whose registers lead to the record that was being read.
CALLERS = 6
#: Arrays of functions that run before main, and after it.
ARRAYS = {".preinit_array": "constructor", ".init_array": "constructor", ".fini_array": "handler"}


@dataclass
class Group:
    """Functions that are watched together, as data/watched.toml says, and what was seen of them."""

    kind: str
    breakpoint: Any
    names: Sequence[str] = ()
    limit: int = 64
    back: bool = False
    scope: bool = False
    gated: bool = False
    hits: dict[str, int] = field(default_factory=dict)
    by_address: dict[int, str] = field(default_factory=dict)


class EventTracer(Watcher):
    """Follows one process from its launch to its end."""

    plan: TracePlan

    def __init__(self, target: Any, *others: Any) -> None:
        super().__init__(target, *others)
        self.start = time.monotonic()
        self.events = 0
        self.shot = False  # whether the memory map was taken
        self.groups: dict[int, Group] = {}
        self.returns: dict[int, tuple[Group, str, int]] = {}  # and the thread
        self.inside: dict[int, int] = {}  # thread: calls of the runtime that it is in
        self.watched: set[tuple[str, int]] = set()
        self.leaving = False  # after main nothing that frees memory is left out
        self.registered = 0  # the handler that was registered last
        self.arm = target.GetTriple().startswith(("aarch64", "arm64"))
        for plan in self.plan["groups"]:
            group = Group(breakpoint=self.breakpoint(plan["names"]), **plan)
            self.groups[group.breakpoint.GetID()] = group
            group.breakpoint.SetEnabled(not group.gated)

    def _at(self, kind: str, address: int) -> None:
        if address and (kind, address) not in self.watched:
            self.watched.add((kind, address))
            breakpoint = self.target.BreakpointCreateByAddress(address)
            group = Group(kind, breakpoint, back=kind == "main")
            self.groups[breakpoint.GetID()] = group

    def tell(self, kind: str, thread: Any, **more: Any) -> None:
        """Send an event of a thread (None: of all)."""
        self.events += 1
        seconds = round(time.monotonic() - self.start, 6)
        self.emit(TraceEvent(seconds, thread.GetIndexID() if thread else 0, kind, **more))

    def stopped(self) -> None:
        """Tell what the threads stopped for, other than a fatal signal."""
        for thread in self.process:
            reason = thread.GetStopReason()
            if reason == lldb.eStopReasonBreakpoint:
                self._breakpoint(thread)
            elif reason == lldb.eStopReasonSignal:
                number = thread.GetStopReasonDataAtIndex(0)
                name = self.process.GetUnixSignals().GetSignalAsCString(number)
                self.tell("signal", thread, function=name or str(number))
            elif reason == lldb.eStopReasonExec:
                self.tell("exec", thread, function=str(self.target.GetExecutable()))

    def _breakpoint(self, thread: Any) -> None:
        data = [thread.GetStopReasonDataAtIndex(n) for n in range(thread.GetStopReasonDataCount())]
        for number, location in zip(data[::2], data[1::2]):  # noqa: B905 - of Python 3.10
            if number in self.returns:
                # Breakpoints of other threads at this address are told, too.
                if self.returns[number][2] == thread.GetThreadID():
                    self._returned(thread, number)
            elif number in self.groups:
                self._called(thread, number, location)

    def _called(self, thread: Any, number: int, location: int) -> None:
        group, frame = self.groups[number], thread.GetFrameAtIndex(0)
        here = group.breakpoint.FindLocationByID(location)
        name = self._name(group, frame, frame.GetPC())
        if not name:
            here.SetEnabled(False)
            return
        who = thread.GetIndexID()
        if group.gated and not (self.leaving or self.inside.get(who)):
            return
        group.hits[name] = count = group.hits.get(name, 0) + 1
        if count >= group.limit or self.events > self.plan["most"]:
            here.SetEnabled(False)
        sp = frame.GetSP()
        back = frame.FindRegister("lr").GetValueAsUnsigned() if self.arm else self._word(sp)
        arguments = [frame.FindRegister(f"arg{n}").GetValueAsUnsigned() for n in range(1, 7)]
        if group.kind == "start":
            self._start(arguments[0])
            return
        more: dict[str, Any] = {}
        if group.kind == "registered":
            if arguments[0] == self.registered:
                return  # atexit() is a call of __cxa_atexit()
            self.registered = arguments[0]
            more["handler"] = self.place(arguments[0])
            self._at("handler", arguments[0])
        if name == "exit":
            self._leave()
        if name == "_exit" and not self.shot:
            self.snapshot(thread)
        if group.kind == "write":
            more["stack"] = tuple(self._word(sp + 8 * n) for n in range(1, 12))
            self.snapshot(thread)
        frames = [thread.GetFrameAtIndex(n) for n in range(1, CALLERS + 1)]
        linked = [frame for frame in frames if frame.IsValid() and not frame.IsInlined()]
        self.tell(
            group.kind,
            thread,
            function=name,
            module=name_of(frame.GetModule()),
            caller=self.place(back - 1),
            frames=tuple(frame.GetSymbol().GetName() or "" for frame in linked),
            arguments=tuple(arguments),
            text=tuple(self._text(arguments[n]) for n in self.plan["strings"].get(name, ())),
            last=count == group.limit,
            **more,
        )
        if group.back or group.scope:
            breakpoint = self.target.BreakpointCreateByAddress(back)
            breakpoint.SetThreadID(thread.GetThreadID())
            self.returns[breakpoint.GetID()] = (group, name, thread.GetThreadID())
            if group.scope:
                self._gate(who, 1)

    def _start(self, main: int) -> None:
        """Watch main, and what runs before and after it: the C library is about to call them."""
        for name, address, size in self.sections(self.target.GetModuleAtIndex(0)):
            if name in ARRAYS:
                for place in range(address, address + size, 8):
                    self._at(ARRAYS[name], self._word(place))
        self._at("main", main)

    def _name(self, group: Group, frame: Any, pc: int) -> str:
        """Return by which name a function is watched; "" for an inlined copy of one.

        In a copy the arguments are not in their registers. A C library has several names at
        one address.
        """
        if pc not in group.by_address:
            module = frame.GetModule()
            code = lldb.eSymbolTypeCode
            names = (name for name in group.names if pc in self.addresses(module, name, code))
            unnamed = "" if group.names else self.place(pc)[0] or hex(pc)
            group.by_address[pc] = next(names, unnamed)
        return group.by_address[pc]

    def _returned(self, thread: Any, number: int) -> None:
        group, name, _ = self.returns.pop(number)
        self.target.BreakpointDelete(number)  # LLDB's one-shot ones are gone before they are seen
        if group.scope:
            self._gate(thread.GetIndexID(), -1)
        if group.back:
            register = thread.GetFrameAtIndex(0).FindRegister("x0" if self.arm else "rax")
            value = register.GetValueAsUnsigned()
            self.tell("returned", thread, function=name, value=value)
            if group.kind == "main":
                self._leave()

    def _leave(self) -> None:
        if not self.leaving:
            self._gate(0, 1)
            self.leaving = True

    def _gate(self, thread: int, step: int) -> None:
        """Count a call into the runtime, or out of it; only inside, gated groups are watched."""
        before = sum(self.inside.values())
        self.inside[thread] = self.inside.get(thread, 0) + step
        if bool(before) != bool(before + step):
            for group in self.groups.values():
                if group.gated:
                    group.breakpoint.SetEnabled(before == 0)

    def _word(self, address: int) -> int:
        return int(self.process.ReadPointerFromMemory(address, lldb.SBError()))

    def _text(self, address: int) -> str:
        error = lldb.SBError()
        text = self.process.ReadCStringFromMemory(address, 512, error) if address else ""
        return text if error.Success() else ""

    def snapshot(self, thread: Any) -> None:
        """Send the memory map, and copy the profile's sections of the image that is running."""
        self.shot = True
        regions, info = self.process.GetMemoryRegions(), lldb.SBMemoryRegionInfo()
        mapped = []
        for n in range(regions.GetSize()):
            regions.GetMemoryRegionAtIndex(n, info)
            if info.IsMapped():
                flags = {"r": info.IsReadable(), "w": info.IsWritable(), "x": info.IsExecutable()}
                rights = "".join(letter for letter, has in flags.items() if has)
                span = info.GetRegionBase(), info.GetRegionEnd()
                mapped.append((*span, rights, info.GetName() or ""))
        module, sections = self._running(thread)
        for name, address, size in sections:
            if path := self.plan["copies"].get(name.rpartition(".")[2]):
                self.copy(address, min(size, MOST_BYTES), path)
        maps = {"regions": tuple(mapped), "sections": tuple(sections)}
        self.tell("map", thread, image=path_of(module), **maps)

    def _running(self, thread: Any) -> tuple[Any, list[tuple[str, int, int]]]:
        """Return the innermost image that is instrumented, else the program; and its sections."""
        for n in range(CALLERS):
            module = thread.GetFrameAtIndex(n).GetModule()
            sections = list(self.sections(module)) if module.IsValid() else []
            if any("__llvm_prf_data" in name for name, _, _ in sections):
                return module, sections
        program = self.target.GetModuleAtIndex(0)
        return program, list(self.sections(program))

    def crashed(self, thread: Any, stop: Stop) -> None:
        """Tell where a fatal signal stopped the program."""
        self.snapshot(thread)
        frames = [thread.GetFrameAtIndex(n) for n in range(CALLERS)]
        callers = tuple(tuple(registers_of(f).values()) for f in frames if f.IsValid())
        signal = stop["signal"]
        caller = self.place(stop["pc"])
        self.tell("crash", thread, function=signal, caller=caller, stop=stop, callers=callers)

    def exited(self, code: int, why: str) -> None:
        """Tell how the program ended."""
        self.tell("ended", None, function=why, value=code)

    def late(self, listener: Any) -> None:
        """Tell where the program was when its time was over."""
        stopped = self.interrupt(listener)
        frames = self.process.GetThreadAtIndex(0).frames[:CALLERS] if stopped else ()
        names = tuple(self.place(frame.GetPC())[0] for frame in frames)
        self.tell("limit", None, function="time", frames=names)
