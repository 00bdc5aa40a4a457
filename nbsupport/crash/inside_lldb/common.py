"""What follows a process in LLDB: the base class of EventTracer and Rescuer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import lldb

from .protocol import Stop

#: Bytes that are read from the program at once.
CHUNK = 16 << 20


class Watcher:
    """Follows one process from its launch to its end; agent.py calls it as things happen.

    This one does nothing of its own: it is for a crash alone. `plan` is what the lab has asked
    for, `emit` sends an event, `notes` is a queue. `process` is set at the launch.
    """

    #: Whether the program is to stop before its first instruction.
    at_entry = False

    def __init__(self, target: Any, emit: Callable[[Any], None], notes: Any, plan: Any) -> None:
        self.target, self.emit, self.notes, self.plan = target, emit, notes, plan
        self.process: Any = None

    def turn(self) -> None:
        """Do what the lab has asked for while the program runs."""

    def handled(self, thread: Any, name: str) -> bool:
        """Return whether a fatal signal is no end."""
        return False

    def stopped(self) -> None:
        """Look at what the threads stopped for, other than a fatal signal that is the end."""

    def crashed(self, thread: Any, stop: Stop) -> None:
        """Look at a program that a fatal signal ends."""

    def exited(self, code: int, why: str) -> None:
        """Take note that the program ended by itself, or by a signal no debugger can stop."""

    def late(self, listener: Any) -> None:
        """Look at a program whose time is over; it runs."""

    def interrupt(self, listener: Any) -> bool:
        """Stop the program; return whether it has stopped in time."""
        event = lldb.SBEvent()
        self.process.SendAsyncInterrupt()
        while listener.WaitForEvent(2, event):
            if lldb.SBProcess.GetStateFromEvent(event) == lldb.eStateStopped:
                return True
        return False

    def breakpoint(self, names: Iterable[str]) -> Any:
        """Make a breakpoint where functions of these names begin, in whichever image."""
        nowhere = lldb.SBFileSpecList()
        full = lldb.eFunctionNameTypeFull
        return self.target.BreakpointCreateByNames(list(names), full, nowhere, nowhere)

    def addresses(self, module: Any, name: str, kind: int = lldb.eSymbolTypeAny) -> list[int]:
        """Return where a module's symbols of this name are loaded."""
        symbols = (context.GetSymbol() for context in module.FindSymbols(name, kind))
        starts = (symbol.GetStartAddress().GetLoadAddress(self.target) for symbol in symbols)
        return [int(start) for start in starts if start != lldb.LLDB_INVALID_ADDRESS]

    def sections(self, module: Any) -> Iterator[tuple[str, int, int]]:
        """Yield name, address and size of a module's loaded sections, those inside of segments."""
        for n in range(module.GetNumSections()):
            section = module.GetSectionAtIndex(n)
            inner = [section.GetSubSectionAtIndex(i) for i in range(section.GetNumSubSections())]
            for part in inner or [section]:
                address, size = part.GetLoadAddress(self.target), part.GetByteSize()
                if size and address != lldb.LLDB_INVALID_ADDRESS:
                    yield part.GetName() or "", address, size

    def place(self, address: int) -> tuple[str, int, str]:
        """Return function ("": none), offset in it (or address) and module of an address."""
        resolved = self.target.ResolveLoadAddress(address)
        symbol, module = resolved.GetSymbol(), resolved.GetModule()
        name = (symbol.GetName() if symbol.IsValid() else "") or ""
        start = symbol.GetStartAddress().GetLoadAddress(self.target) if name else 0
        return name, address - start, name_of(module) if module else ""

    def copy(self, address: int, size: int, path: str) -> None:
        """Copy a range of the program's memory to a file, as far as it can be read."""
        error = lldb.SBError()
        with open(path, "wb") as file:  # noqa: PTH123
            for here in range(address, address + size, CHUNK):
                content = self.process.ReadMemory(here, min(CHUNK, address + size - here), error)
                if not error.Success():
                    return
                file.write(content)


def registers_of(frame: Any) -> dict[str, int]:
    """Return the general purpose registers of full width, without their aliased parts."""
    general = frame.GetRegisters().GetValueAtIndex(0)
    return {v.GetName(): v.GetValueAsUnsigned() for v in general if v.GetByteSize() == 8}


def exception_of(frame: Any) -> dict[str, int]:
    """Return what the processor told of the exception: `far` on arm64, `faultvaddr` on x86-64.

    Only macOS has such a set. Source: g_exc_registers and g_reg_sets in DNBArchImplARM64.cpp and
    DNBArchImplX86_64.cpp (lldb/tools/debugserver): far, esr, exception; trapno, err, faultvaddr.
    """
    groups = [group for group in frame.GetRegisters() if "Exception" in (group.GetName() or "")]
    return {v.GetName(): v.GetValueAsUnsigned() for group in groups for v in group}


def name_of(module: Any) -> str:
    """Return the name of a module's file."""
    return module.GetFileSpec().GetFilename() or ""


def path_of(module: Any) -> str:
    """Return the path of a module's file."""
    return os.path.abspath(str(module.GetFileSpec()))  # noqa: PTH100
