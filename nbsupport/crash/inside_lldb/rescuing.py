"""The rescuer's side inside LLDB, loaded by crash/agent.py; what to do comes from live.py.

Keeps to the part of LLDB's Python interface that LLDB 14 to 23 and Apple's share, and to
Python 3.8. No breakpoint stays where the program spends its time: before the first value site is
recorded, the records are mended; what must not run at all is made to return at once, by other
instructions in the program's memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import lldb

#: Bytes that are read from the program at once.
CHUNK = 16 << 20
#: `return 0`, by the start of a target triple.
RETURN = {
    "x86_64": b"\x31\xc0\xc3",  # xor eax, eax; ret
    "aarch64": b"\x00\x00\x80\x52\xc0\x03\x5f\xd6",  # mov w0, #0; ret
}
RETURN["arm64"] = RETURN["aarch64"]


class Rescuer:
    """Keeps one process from both crashes, and copies its counters when it ends or when told."""

    def __init__(
        self, target: Any, plan: dict[str, Any], emit: Callable[[dict[str, Any]], None], notes: Any
    ) -> None:
        self.target, self.plan, self.emit, self.notes = target, plan, emit, notes
        self.images: dict[tuple[str, int], Any] = {}  # what is instrumented, by path and place
        self.seen: set[tuple[str, int]] = set()
        self.due: str = ""  # why a snapshot is wanted
        self.copies = 0
        self.ended = False
        debugger = target.GetDebugger()
        debugger.HandleCommand("settings set target.process.stop-on-sharedlibrary-events true")
        self.exits = self._watch(plan["exits"])
        self.forks = self._watch(plan["forks"])
        self.writers: dict[int, tuple[str, int]] = {}  # breakpoint: image
        self.written: set[tuple[str, int]] = set()
        self.waiting: dict[int, tuple[tuple[str, int], dict[str, Any]]] = {}  # for a value site
        self.records: dict[tuple[str, int], bytes] = {}  # as they were before they were mended

    def _watch(self, names: list[str]) -> Any:
        nowhere = lldb.SBFileSpecList()
        return self.target.BreakpointCreateByNames(
            names, lldb.eFunctionNameTypeFull, nowhere, nowhere
        )

    def turn(self, process: Any) -> None:
        """Do what the lab has asked for meanwhile: a snapshot, and perhaps the end."""
        while not self.notes.empty():
            self._note(self.notes.get()["note"])
        if self.due:
            process.SendAsyncInterrupt()

    def _note(self, note: dict[str, Any]) -> None:
        self.due = note["snapshot"]
        self.ended = self.ended or self.due == "end"

    def handled(self, process: Any, thread: Any, name: str) -> bool:
        """Return whether the program has a handler for the signal (known on Linux).

        Rust's, which looks for stack overflows, gives up its place and has it raised again.
        """
        try:
            with open(f"/proc/{process.GetProcessID()}/status") as file:  # noqa: PTH123
                caught = next(line.split()[1] for line in file if line.startswith("SigCgt"))
        except (OSError, StopIteration):
            return False
        number = thread.GetStopReasonDataAtIndex(0)
        by_signal = thread.GetStopReason() == lldb.eStopReasonSignal and name != "SIGTRAP"
        return by_signal and bool(int(caught, 16) >> (number - 1) & 1)

    def stopped(self, process: Any) -> None:
        """Look for new images; copy the counters where that is due, or the program ends."""
        self.process = process
        for thread in process:
            if thread.GetStopReason() == lldb.eStopReasonExec:
                for number in (*self.writers, *self.waiting):
                    self.target.BreakpointDelete(number)
                for found in (self.images, self.seen, self.written, self.records):
                    found.clear()
                for places in (self.writers, self.waiting):
                    places.clear()
                self.emit({"kind": "exec"})
            elif thread.GetStopReason() == lldb.eStopReasonBreakpoint:
                self._breakpoint(thread.GetStopReasonDataAtIndex(0))
        for n in range(self.target.GetNumModules()):
            self._look(self.target.GetModuleAtIndex(n))
        if self.due:
            why, self.due = self.due, ""
            self.snapshot(why, list(self.images))
        if self.ended:
            process.Kill()

    def _breakpoint(self, number: int) -> None:
        """Copy an image's counters when it would write its profile, else when the program ends.

        Counters go on after that: an allocator's exit handler may come later.
        """
        if number == self.forks.GetID():
            self.forks.SetEnabled(False)
            self.emit({"kind": "fork"})
            for place in list(self.waiting):  # in the child there are no breakpoints
                if place in self.waiting:
                    self._mend(*self.waiting[place])
        elif number == self.exits.GetID():
            self.snapshot("exit", [key for key in self.images if key not in self.written])
        elif number in self.writers:
            self.written.add(self.writers[number])
            self.snapshot("exit", [self.writers[number]])
        elif number in self.waiting:
            self._mend(*self.waiting[number])

    def _mend(self, key: tuple[str, int], note: dict[str, Any]) -> None:
        """Let the runtime find in foreign records what it looks for: their own value counters.

        Not before a value site is reached: by then the program has been relocated.
        """
        for number in [n for n, (other, _) in self.waiting.items() if other == key]:
            self.target.BreakpointDelete(number)
            del self.waiting[number]
        address, size = self.images[key]["__llvm_prf_data"]
        error = lldb.SBError()
        before = self.process.ReadMemory(address, size, error) if size else b""
        mended = bytearray(before or b"")
        done = error.Success()
        for there, own in zip(note["there"], note["own"]):  # noqa: B905 - of Python 3.10
            pointer = mended[there : there + 8] if not done else before[own : own + 8]
            done = done and any(pointer)
            mended[there : there + 8] = pointer
        if done and note["there"]:
            low, high = min(note["there"]), max(note["there"]) + 8
            content = bytes(mended[low:high])
            done = self.process.WriteMemory(address + low, content, error) == high - low
        if done:
            self.records[key] = before
        self.emit({"kind": "mended", "path": os.path.abspath(key[0]), "done": done})  # noqa: PTH100
        if not done:
            for place in note["values"]:
                self._disarm(place)

    def _look(self, module: Any) -> None:
        """Tell the lab of an instrumented image, and change in its memory what the lab says."""
        sections = dict(_sections(module, self.target))
        data = sections.get("__llvm_prf_data")
        key = (str(module.GetFileSpec()), data[0] if data else 0)
        if key in self.seen or not module.GetNumSections():
            return
        self.seen.add(key)
        if not data or data[0] == lldb.LLDB_INVALID_ADDRESS:
            if data:
                self.seen.discard(key)  # not loaded yet
            return
        self.images[key] = sections
        symbols = {name: self._symbol(module, name) for name in self.plan["functions"]}
        path = os.path.abspath(key[0])  # noqa: PTH100
        version = self._symbol(module, self.plan["version"])
        number = self.process.ReadUnsignedFromMemory(version, 8, lldb.SBError()) if version else 0
        said = {"path": path, "data": data[0], "symbols": symbols, "version": number}
        self.emit({"kind": "image", **said})
        while "patch" not in (note := self.notes.get()["note"]):
            self._note(note)
        for address in note["patch"]:
            self._disarm(address)
        for address in note["values"]:
            made = self.target.BreakpointCreateByAddress(address)
            self.waiting[made.GetID()] = (key, note)
        for inside in note["writer"]:
            address = self._start(inside)
            if address and self._disarm(address):
                self.writers[self.target.BreakpointCreateByAddress(address).GetID()] = key

    def _symbol(self, module: Any, name: str) -> int:
        for found in module.FindSymbols(name):
            address = found.GetSymbol().GetStartAddress().GetLoadAddress(self.target)
            if address != lldb.LLDB_INVALID_ADDRESS:
                return int(address)
        return 0

    def _start(self, inside: int) -> int:
        """Return where the function around an address starts: its symbol, or unwind table."""
        symbol = self.target.ResolveLoadAddress(inside).GetSymbol()
        if not symbol.IsValid():
            return 0
        return int(symbol.GetStartAddress().GetLoadAddress(self.target))

    def _disarm(self, address: int) -> bool:
        """Make a function return 0 at once."""
        error = lldb.SBError()
        code = RETURN.get(self.target.GetTriple().partition("-")[0], b"")
        done = code and self.process.WriteMemory(address, code, error) == len(code)
        self.emit({"kind": "disarmed", "address": address, "done": bool(done)})
        return bool(done)

    def snapshot(self, why: str, keys: list[tuple[str, int]]) -> None:
        """Copy the profile's sections of images to files, and say where."""
        self.copies += 1
        images = []
        for n, key in enumerate(keys):
            sections, parts = self.images[key], {}
            for name in self.plan["sections"]:
                if name in sections:
                    path = os.path.join(self.plan["copies"], f"{self.copies}-{n}-{name}")  # noqa: PTH118
                    address, size = sections[name]
                    self._copy(address, size, path)
                    if name == "__llvm_prf_data" and key in self.records:
                        with open(path, "wb") as file:  # noqa: PTH123
                            file.write(self.records[key])
                    parts[name] = [address, path]
            images.append({"path": os.path.abspath(key[0]), "data": key[1], "parts": parts})  # noqa: PTH100
        self.emit({"kind": "snapshot", "why": why, "images": images})

    def _copy(self, address: int, size: int, path: str) -> None:
        error = lldb.SBError()
        with open(path, "wb") as file:  # noqa: PTH123
            for here in range(0, size, CHUNK):
                content = self.process.ReadMemory(address + here, min(CHUNK, size - here), error)
                if not error.Success():
                    return
                file.write(content)

    def crashed(self, process: Any, thread: Any, stop: dict[str, Any]) -> None:
        """Copy the counters of a program that a fatal signal ends."""
        self.process = process
        self.emit({"kind": "crash", "stop": stop})
        self.snapshot("crash", list(self.images))

    def exited(self, process: Any) -> None:
        """Tell how the program ended by itself, or by a signal that no debugger can stop."""
        self.emit(
            {
                "kind": "ended",
                "code": process.GetExitStatus(),
                "why": process.GetExitDescription() or "",
            }
        )

    def late(self, process: Any, listener: Any) -> None:
        """Copy the counters of a program whose time is over."""
        event = lldb.SBEvent()
        process.SendAsyncInterrupt()
        while listener.WaitForEvent(2, event):
            if lldb.SBProcess.GetStateFromEvent(event) == lldb.eStateStopped:
                self.process = process
                self.snapshot("limit", list(self.images))
                return


def _sections(module: Any, target: Any) -> Any:
    """Yield name, address and size of a module's sections, those inside of segments."""
    for n in range(module.GetNumSections()):
        section = module.GetSectionAtIndex(n)
        inner = [section.GetSubSectionAtIndex(i) for i in range(section.GetNumSubSections())]
        for one in inner or [section]:
            if one.GetByteSize():
                yield (
                    (one.GetName() or "").rpartition(".")[2],
                    (one.GetLoadAddress(target), one.GetByteSize()),
                )
