"""The tracer's side inside LLDB, loaded by crash/agent.py; what to watch comes from watch.py.

Keeps to the part of LLDB's Python interface that LLDB 14 to 23 and Apple's share, and to
Python 3.8. Each event is sent as it happens, so that a run that is killed keeps what it saw.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

import lldb

#: Bytes of a section that are copied out of the program.
MOST_BYTES = 256 << 20
#: Callers, whose registers lead to the record that was being read.
CALLERS = 6


class Group:
    """Functions that are watched together: `when` is always, or inside of the profile runtime.

    `limit`: calls of each function that are seen one by one. A `scope` is what `runtime` groups
    wait for; `back`: its return is an event, too.
    """

    def __init__(self, plan: dict[str, Any], breakpoint: Any) -> None:
        self.kind: str = plan["kind"]
        self.gated: bool = plan.get("when") == "runtime"
        self.scope: bool = plan.get("scope", False)
        self.back: bool = plan.get("back", False)
        self.limit: int = plan["limit"]
        self.strings: dict[str, list[int]] = plan.get("strings", {})
        self.breakpoint = breakpoint
        self.functions: list[str] = plan.get("names", [])
        self.hits: dict[str, int] = {}
        self.names: dict[int, str] = {}  # by address


class EventTracer:
    """Follows one process from its launch to its end."""

    def __init__(
        self, target: Any, plan: dict[str, Any], emit: Callable[..., None], _notes: Any
    ) -> None:
        self.target, self.plan, self.send = target, plan, emit
        self.start = time.monotonic()
        self.events = 0
        self.shown = False
        self.groups: dict[int, Group] = {}
        self.returns: dict[int, tuple[Group, str, int]] = {}  # and the thread
        self.inside: dict[int, int] = {}  # thread: calls of the runtime that it is in
        self.watched: set[tuple[str, int]] = set()
        self.leaving = False  # after main nothing that frees memory is left out
        self.registered = 0  # the handler that was registered last
        self.arm = target.GetTriple().startswith(("aarch64", "arm64"))
        for one in plan["groups"]:
            made = target.BreakpointCreateByNames(
                one["names"],
                lldb.eFunctionNameTypeFull,
                lldb.SBFileSpecList(),
                lldb.SBFileSpecList(),
            )
            group = Group(one, made)
            self.groups[made.GetID()] = group
            if group.gated:
                made.SetEnabled(False)

    def _at(self, kind: str, address: int) -> None:
        if address and (kind, address) not in self.watched:
            self.watched.add((kind, address))
            made = self.target.BreakpointCreateByAddress(address)
            plan = {"kind": kind, "limit": 64, "back": kind == "main"}
            self.groups[made.GetID()] = Group(plan, made)

    def emit(self, kind: str, thread: int, **more: Any) -> None:
        """Send an event; time is in seconds since the launch."""
        self.events += 1
        seconds = round(time.monotonic() - self.start, 6)
        self.send({"time": seconds, "thread": thread, "kind": kind, **more})

    def turn(self, process: Any) -> None:
        """Nothing is asked of a trace while the program runs."""

    def handled(self, process: Any, thread: Any, name: str) -> bool:
        """Return whether a fatal signal is no end: a trace shows the first in any case."""
        return False

    def stopped(self, process: Any) -> None:
        """Tell what the threads stopped for, other than a fatal signal."""
        self.process = process
        for thread in process:
            self._stopped(thread)

    def _stopped(self, thread: Any) -> None:
        reason = thread.GetStopReason()
        if reason == lldb.eStopReasonBreakpoint:
            data = [
                thread.GetStopReasonDataAtIndex(n) for n in range(thread.GetStopReasonDataCount())
            ]
            for number, location in zip(data[::2], data[1::2]):  # noqa: B905 - of Python 3.10
                if number in self.returns:
                    # Breakpoints of other threads at this address are told, too.
                    if self.returns[number][2] == thread.GetThreadID():
                        self._returned(thread, number)
                elif number in self.groups:
                    self._called(thread, number, location)
        elif reason == lldb.eStopReasonSignal:
            number = thread.GetStopReasonDataAtIndex(0)
            name = self.process.GetUnixSignals().GetSignalAsCString(number)
            self.emit("signal", thread.GetIndexID(), function=name or str(number))
        elif reason == lldb.eStopReasonExec:
            self.emit("exec", thread.GetIndexID(), function=str(self.target.GetExecutable()))

    def _called(self, thread: Any, number: int, location: int) -> None:
        group, frame = self.groups[number], thread.GetFrameAtIndex(0)
        pc = frame.GetPC()
        here = group.breakpoint.FindLocationByID(location)
        name = self._name(group, frame, pc)
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
        text = [self._text(arguments[n]) for n in group.strings.get(name, ())]
        more: dict[str, Any] = {"last": True} if count == group.limit else {}
        if group.kind == "start":
            self._start(arguments[0])
            return
        if group.kind == "registered":
            if arguments[0] == self.registered:
                return  # atexit() is a call of __cxa_atexit()
            self.registered = arguments[0]
            more["handler"] = self._place(arguments[0])
            self._at("handler", arguments[0])
        if name == "exit":
            self._leave()
        if name == "_exit" and not self.shown:
            self.snapshot(thread)
        if group.kind == "write":
            more["stack"] = [self._word(sp + 8 * n) for n in range(1, 12)]
            self.snapshot(thread)
        self.emit(
            group.kind,
            who,
            function=name,
            module=frame.GetModule().GetFileSpec().GetFilename() or "",
            caller=self._place(back - 1),
            frames=_callers(thread),
            arguments=arguments,
            text=text,
            **more,
        )
        if group.back or group.scope:
            made = self.target.BreakpointCreateByAddress(back)
            made.SetThreadID(thread.GetThreadID())
            self.returns[made.GetID()] = (group, name, thread.GetThreadID())
            if group.scope:
                self._gate(who, 1)

    def _start(self, main: int) -> None:
        """Watch main, and what runs before and after it: the C library is about to call them."""
        kinds = {".preinit_array": "constructor", ".init_array": "constructor"}
        kinds[".fini_array"] = "handler"
        for name, address, size in _sections(self.target.GetModuleAtIndex(0), self.target):
            for place in range(address, address + size if name in kinds else 0, 8):
                self._at(kinds[name], self._word(place))
        self._at("main", main)

    def _name(self, group: Group, frame: Any, pc: int) -> str:
        """Return by which name a function is watched; "" for an inlined copy of one.

        In a copy the arguments are not in their registers. A C library has several names at
        one address.
        """
        if pc not in group.names:
            module = frame.GetModule()
            found = (
                name
                for name in group.functions
                for one in module.FindSymbols(name, lldb.eSymbolTypeCode)
                if one.GetSymbol().GetStartAddress().GetLoadAddress(self.target) == pc
            )
            unnamed = "" if group.functions else self._place(pc)[0] or hex(pc)
            group.names[pc] = next(found, unnamed)
        return group.names[pc]

    def _returned(self, thread: Any, number: int) -> None:
        group, name, _ = self.returns.pop(number)
        self.target.BreakpointDelete(number)  # LLDB's one-shot ones are gone before they are seen
        if group.scope:
            self._gate(thread.GetIndexID(), -1)
        if group.back:
            register = thread.GetFrameAtIndex(0).FindRegister("x0" if self.arm else "rax")
            value = register.GetValueAsUnsigned()
            self.emit("returned", thread.GetIndexID(), function=name, value=value)
            if group.kind == "main":
                self._leave()

    def _leave(self) -> None:
        if not self.leaving:
            self._gate(0, 1)
            self.leaving = True

    def _gate(self, thread: int, step: int) -> None:
        before = sum(self.inside.values())
        self.inside[thread] = self.inside.get(thread, 0) + step
        if bool(before) != bool(before + step):
            for group in self.groups.values():
                if group.gated:
                    group.breakpoint.SetEnabled(before == 0)

    def _word(self, address: int) -> int:
        value = self.process.ReadPointerFromMemory(address, lldb.SBError())
        return int(value)

    def _text(self, address: int) -> str:
        error = lldb.SBError()
        text = self.process.ReadCStringFromMemory(address, 512, error) if address else ""
        return text if error.Success() else ""

    def _place(self, address: int) -> list[Any]:
        """Return function, offset and module of an address."""
        found = self.target.ResolveLoadAddress(address)
        symbol, module = found.GetSymbol(), found.GetModule()
        name = (symbol.GetName() if symbol.IsValid() else "") or ""
        offset = address - symbol.GetStartAddress().GetLoadAddress(self.target) if name else address
        return [name, offset, (module.GetFileSpec().GetFilename() or "") if module else ""]

    def snapshot(self, thread: Any) -> None:
        """Send the memory map, and copy the profile's sections of the image that is running."""
        self.shown = True
        regions, info = self.process.GetMemoryRegions(), lldb.SBMemoryRegionInfo()
        mapped = []
        for n in range(regions.GetSize()):
            regions.GetMemoryRegionAtIndex(n, info)
            if info.IsMapped():
                flags = {"r": info.IsReadable(), "w": info.IsWritable(), "x": info.IsExecutable()}
                rights = "".join(letter for letter, has in flags.items() if has)
                span = info.GetRegionBase(), info.GetRegionEnd()
                mapped.append([*span, rights, info.GetName() or ""])
        modules = [thread.GetFrameAtIndex(n).GetModule() for n in range(CALLERS)]
        modules += [self.target.GetModuleAtIndex(0)]
        found = ((m, list(_sections(m, self.target))) for m in modules if m.IsValid())
        module, sections = next(
            ((m, s) for m, s in found if any("__llvm_prf_data" in one[0] for one in s)),
            (modules[-1], list(_sections(modules[-1], self.target))),
        )
        for name, address, size in sections:
            with contextlib.suppress(KeyError):
                path = self.plan["copies"][name.rpartition(".")[2]]
                error = lldb.SBError()
                content = self.process.ReadMemory(address, min(size, MOST_BYTES), error)
                if error.Success():
                    with open(path, "wb") as file:  # noqa: PTH123
                        file.write(content)
        image = os.path.abspath(str(module.GetFileSpec()))  # noqa: PTH100
        self.emit("map", thread.GetIndexID(), regions=mapped, sections=sections, image=image)

    def crashed(self, process: Any, thread: Any, stop: dict[str, Any]) -> None:
        """Tell where a fatal signal stopped the program; `stop` as crash/agent.py describes it."""
        self.process = process
        self.snapshot(thread)
        frames = [thread.GetFrameAtIndex(n) for n in range(CALLERS)]
        registers = [
            sorted({v.GetValueAsUnsigned() for v in f.GetRegisters().GetValueAtIndex(0)})
            for f in frames
            if f.IsValid()
        ]
        top = self._place(stop["pc"])
        self.emit(
            "crash",
            thread.GetIndexID(),
            function=stop["signal"],
            caller=top,
            stop=stop,
            callers=registers,
        )

    def exited(self, process: Any) -> None:
        """Tell how the program ended by itself, or by a signal that no debugger can stop."""
        text = process.GetExitDescription() or ""
        self.emit("ended", 0, function=text, value=process.GetExitStatus())

    def late(self, process: Any, listener: Any) -> None:
        """Tell where the program was when its time was over."""
        event = lldb.SBEvent()
        process.SendAsyncInterrupt()
        while listener.WaitForEvent(2, event):
            if lldb.SBProcess.GetStateFromEvent(event) == lldb.eStateStopped:
                frames = process.GetThreadAtIndex(0).frames[:CALLERS]
                self.process = process
                places = [self._place(frame.GetPC())[0] for frame in frames]
                self.emit("limit", 0, function="time", frames=places)
                return
        self.emit("limit", 0, function="time", frames=[])


def _callers(thread: Any) -> list[str]:
    """Return the functions below the innermost, as linked: without inlined ones."""
    frames = [thread.GetFrameAtIndex(n) for n in range(1, CALLERS + 1)]
    whole = [frame for frame in frames if frame.IsValid() and not frame.IsInlined()]
    return [frame.GetSymbol().GetName() or "" for frame in whole]


def _sections(module: Any, target: Any) -> Any:
    """Yield name, address and size of a module's loaded sections, those inside of segments."""
    for n in range(module.GetNumSections()):
        section = module.GetSectionAtIndex(n)
        inner = [section.GetSubSectionAtIndex(i) for i in range(section.GetNumSubSections())]
        for one in inner or [section]:
            address = one.GetLoadAddress(target)
            if address != lldb.LLDB_INVALID_ADDRESS and one.GetByteSize():
                yield [one.GetName() or "", address, one.GetByteSize()]
