"""A rescue's side inside LLDB; what to do comes from rescue/live.py.

No breakpoint stays where the program spends its time: before the first value site is recorded,
the records are mended; what must not run at all is made to return at once, by other instructions
in the program's memory.
"""

from __future__ import annotations

import os
from typing import Any

import lldb

from .common import Watcher, path_of
from .protocol import RETURN, Note, RescueEvent, RescuePlan, Stop


class LoadedImage:
    """An instrumented image in the process: its path, its sections, what the lab says of it."""

    def __init__(self, path: str, sections: dict[str, list[int]]) -> None:
        self.path, self.sections = path, sections
        self.note: Note = {}
        self.written = False  # its profile would have been written
        self.records = b""  # as they were before they were mended


class Rescuer(Watcher):
    """Keeps one process from both crashes, and copies its counters when it ends or when told."""

    at_entry = True
    plan: RescuePlan

    def __init__(self, target: Any, *others: Any) -> None:
        super().__init__(target, *others)
        self.images: list[LoadedImage] = []
        self.modules: set[tuple[str, int]] = set()  # that were looked at, by path and place
        self.due: str = ""  # why a snapshot is wanted
        self.copies = 0
        self.ending = False
        debugger = target.GetDebugger()
        debugger.HandleCommand("settings set target.process.stop-on-sharedlibrary-events true")
        self.exits = self.breakpoint(self.plan["exits"])
        self.forks = self.breakpoint(self.plan["forks"])
        self.writers: dict[int, LoadedImage] = {}  # by breakpoint, as the next
        self.waiting: dict[int, LoadedImage] = {}  # for a value site

    def turn(self) -> None:
        """Do what the lab has asked for meanwhile: a snapshot, and perhaps the end."""
        while not self.notes.empty():
            self._note(self.notes.get())
        if self.due:
            self.process.SendAsyncInterrupt()

    def _note(self, note: Note) -> None:
        self.due = note["snapshot"]
        self.ending = self.ending or self.due == "end"

    def handled(self, thread: Any, name: str) -> bool:
        """Return whether the program has a handler for the signal (known on Linux).

        Rust's, which looks for stack overflows, gives up its place and has it raised again.
        """
        try:
            with open(f"/proc/{self.process.GetProcessID()}/status") as file:  # noqa: PTH123
                caught = next(line.split()[1] for line in file if line.startswith("SigCgt"))
        except (OSError, StopIteration):
            return False
        number = thread.GetStopReasonDataAtIndex(0)
        by_signal = thread.GetStopReason() == lldb.eStopReasonSignal and name != "SIGTRAP"
        return by_signal and bool(int(caught, 16) >> (number - 1) & 1)

    def stopped(self) -> None:
        """Look for new images; copy the counters where that is due, or the program ends."""
        for thread in self.process:
            if thread.GetStopReason() == lldb.eStopReasonExec:
                for number in (*self.writers, *self.waiting):
                    self.target.BreakpointDelete(number)
                for table in (self.images, self.modules, self.writers, self.waiting):
                    table.clear()
                self.emit(RescueEvent("exec"))
            elif thread.GetStopReason() == lldb.eStopReasonBreakpoint:
                self._breakpoint(thread.GetStopReasonDataAtIndex(0))
        for n in range(self.target.GetNumModules()):
            self._look(self.target.GetModuleAtIndex(n))
        if self.due:
            why, self.due = self.due, ""
            self.snapshot(why, self.images)
        if self.ending:
            self.process.Kill()

    def _breakpoint(self, number: int) -> None:
        """Copy an image's counters when it would write its profile, else when the program ends.

        Counters go on after that: an allocator's exit handler may come later.
        """
        if number == self.forks.GetID():
            self.forks.SetEnabled(False)
            self.emit(RescueEvent("fork"))
            for place in list(self.waiting):  # in the child there are no breakpoints
                if place in self.waiting:
                    self._mend(self.waiting[place])
        elif number == self.exits.GetID():
            self.snapshot("exit", [image for image in self.images if not image.written])
        elif number in self.writers:
            image = self.writers[number]
            image.written = True
            self.snapshot("exit", [image])
        elif number in self.waiting:
            self._mend(self.waiting[number])

    def _mend(self, image: LoadedImage) -> None:
        """Let the runtime find in foreign records what it looks for: their own value counters.

        Not before a value site is reached: by then the program has been relocated.
        """
        for number in [n for n, other in self.waiting.items() if other is image]:
            self.target.BreakpointDelete(number)
            del self.waiting[number]
        note = image.note
        address, size = image.sections["__llvm_prf_data"]
        error = lldb.SBError()
        before = self.process.ReadMemory(address, size, error) or b""
        pointers = [before[own : own + 8] for own in note["own"]]
        done = error.Success() and all(map(any, pointers))
        mended = bytearray(before)
        for slot, pointer in zip(note["slots"], pointers):  # noqa: B905 - of Python 3.10
            mended[slot : slot + 8] = pointer
        if done and note["slots"]:
            low, high = min(note["slots"]), max(note["slots"]) + 8
            content = bytes(mended[low:high])
            done = self.process.WriteMemory(address + low, content, error) == high - low
        if done:
            image.records = before
        self.emit(RescueEvent("mended", image.path, done=done))
        if not done:
            for place in note["values"]:
                self._disarm(place)

    def _look(self, module: Any) -> None:
        """Tell the lab of an instrumented image, and change in its memory what the lab says."""
        sections = {name.rpartition(".")[2]: place for name, *place in self.sections(module)}
        address, _ = sections.get("__llvm_prf_data", (0, 0))
        key = (str(module.GetFileSpec()), address)
        if key in self.modules or not sections:
            return
        self.modules.add(key)
        if not address:
            return
        image = LoadedImage(path_of(module), sections)
        self.images.append(image)
        names = (*self.plan["functions"], self.plan["version"])
        symbols = {name: next(iter(self.addresses(module, name)), 0) for name in names}
        version = symbols.pop(self.plan["version"])
        number = self.process.ReadUnsignedFromMemory(version, 8, lldb.SBError()) if version else 0
        self.emit(RescueEvent("image", image.path, address, symbols, number))
        while "patch" not in (note := self.notes.get()):
            self._note(note)
        image.note = note
        for place in note["patch"]:
            self._disarm(place)
        for place in note["values"]:
            self.waiting[self.target.BreakpointCreateByAddress(place).GetID()] = image
        for inside in note["writer"]:
            start = inside - self.place(inside)[1]  # of its symbol, or of its unwind table
            if start and self._disarm(start):
                self.writers[self.target.BreakpointCreateByAddress(start).GetID()] = image

    def _disarm(self, address: int) -> bool:
        """Make a function return 0 at once."""
        code = RETURN.get(self.target.GetTriple().partition("-")[0], b"")
        size = self.process.WriteMemory(address, code, lldb.SBError()) if code else 0
        done = bool(code) and size == len(code)
        self.emit(RescueEvent("disarmed", address=address, done=done))
        return done

    def snapshot(self, why: str, images: list[LoadedImage]) -> None:
        """Copy the profile's sections of images to files, and say where."""
        self.copies += 1
        copies = []
        for n, image in enumerate(images):
            parts = {}
            for name in sorted(image.sections.keys() & self.plan["sections"]):
                path = os.path.join(self.plan["copies"], f"{self.copies}-{n}-{name}")  # noqa: PTH118
                address, size = image.sections[name]
                if name == "__llvm_prf_data" and image.records:
                    with open(path, "wb") as file:  # noqa: PTH123
                        file.write(image.records)
                else:
                    self.copy(address, size, path)
                parts[name] = (address, path)
            copies.append({"path": image.path, "parts": parts})
        self.emit(RescueEvent("snapshot", why=why, images=tuple(copies)))

    def crashed(self, thread: Any, stop: Stop) -> None:
        """Copy the counters of a program that a fatal signal ends."""
        self.emit(RescueEvent("crash", stop=stop))
        self.snapshot("crash", self.images)

    def exited(self, code: int, why: str) -> None:
        """Tell how the program ended."""
        self.emit(RescueEvent("ended", why=why, code=code))

    def late(self, listener: Any) -> None:
        """Copy the counters of a program whose time is over."""
        if self.interrupt(listener):
            self.snapshot("limit", self.images)
