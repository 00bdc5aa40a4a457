"""Where and how a program crashed: signal, frames, fault address.

A debugger reruns the program until a fatal signal. LLDB comes first: it is kept alive
and answers in about 50 ms (lldb.py). Without it, one gdb run per crash (gdb.py).

The fault address needs care. At a non-canonical address the processor of x86-64 raises
a general protection fault, which does not carry the address; Linux then reports
``si_code`` SI_KERNEL (128) and ``si_addr`` 0, and debuggers print 0x0. Only then, and
where there is no siginfo, the address is computed from instruction and registers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from nbsupport.base.errors import LabError
from nbsupport.crash.address import fault_address, is_branch, is_canonical
from nbsupport.crash.gdb import Gdb
from nbsupport.crash.lldb import Lldb

__all__ = ["Crash", "Debugger", "Frame", "fault_address", "from_stop", "locate", "open_debugger"]

_SI_KERNEL = 0x80  # <asm-generic/siginfo.h>; codes of 0 and less mean: sent with kill()


@dataclass(frozen=True)
class Frame:
    """One function on the stack.

    `offset` is in bytes from the function's start. A function without a name (stripped) has
    `function` "" and LLDB's offset from the start of the module, or None.
    """

    function: str
    offset: int | None
    module: str


@dataclass(frozen=True)
class Crash:
    """A program at its fatal signal; `frames` (at most 64) begin with the innermost.

    `fault_address` is what the kernel said (`siginfo`), or is computed (`registers`).
    `debugger` is None, and `frames` empty, where only the signal is known.
    """

    signal: str
    frames: tuple[Frame, ...] = ()
    instruction: str | None = None
    registers: Mapping[str, int] = field(default_factory=dict)
    fault_address: int | None = None
    fault_address_from: Literal["registers", "siginfo"] | None = None
    debugger: str | None = None

    @property
    def function(self) -> str:
        """The function that crashed, or ""."""
        return self.frames[0].function if self.frames else ""


class _Backend(Protocol):
    """What `Lldb` and `Gdb` have in common; agent.py describes what `stop` returns."""

    name: str

    def stop(
        self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], seconds: float
    ) -> Mapping[str, Any] | None: ...

    def close(self) -> None: ...


class Debugger:
    """A debugger that reruns programs, one at a time; a context manager.

    `name` is the debugger's name and version, such as "lldb 19.1.7".
    """

    def __init__(self, backend: _Backend) -> None:
        self._backend = backend
        self.name = backend.name

    def crash(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path,
        env: Mapping[str, str],
        seconds: float,
    ) -> Crash | None:
        """Run a program until its first fatal signal; None without one, or not in time.

        `env` is the program's whole environment. The program is ended in any case, and a
        handler that it has for the signal does not run. Raises LabError when the debugger
        cannot start the program, or ends unexpectedly; the next call starts it anew.
        """
        stop = self._backend.stop([str(part) for part in argv], cwd, env, seconds)
        return None if stop is None else from_stop(stop, self.name)

    def close(self) -> None:
        """End the debugger and what it runs; may be called twice."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_debugger(lldb: Path | None, gdb: Path | None) -> Debugger | None:
    """Return LLDB; gdb where LLDB is missing or broken (no Python, say); None without both."""
    if lldb is not None:
        with contextlib.suppress(LabError):
            return Debugger(Lldb(lldb))
    if gdb is not None:
        with contextlib.suppress(LabError):
            return Debugger(Gdb(gdb))
    return None


def from_stop(stop: Mapping[str, Any], debugger: str) -> Crash:
    """Turn what a debugger saw at a fatal signal (see agent.py) into a `Crash`."""
    instruction = _resolved(stop)
    address, source = locate(stop, instruction)
    return Crash(
        signal=stop["signal"],
        frames=tuple(Frame(**frame) for frame in stop["frames"]),
        instruction=instruction,
        registers=stop["registers"],
        fault_address=address,
        fault_address_from=source,
        debugger=debugger,
    )


def _resolved(stop: Mapping[str, Any]) -> str | None:
    """Return the instruction, its rip-relative operand resolved in a comment, as gdb does."""
    instruction: str | None = stop["instruction"]
    if instruction is None or "[rip" not in instruction or " # " in instruction:
        return instruction
    following = stop["pc"] + stop["instruction_size"]
    address = fault_address(instruction, {"rip": following})
    return instruction if address is None else f"{instruction} # {address:#x}"


def locate(
    stop: Mapping[str, Any], instruction: str | None
) -> tuple[int | None, Literal["registers", "siginfo"] | None]:
    """Return the fault address and how it was found: the kernel's word, where it has one.

    `stop` is as in agent.py; without an instruction there was nothing to execute at its pc.
    """
    siginfo = stop["siginfo"]
    if stop["signal"] not in ("SIGSEGV", "SIGBUS") or (siginfo and siginfo["code"] <= 0):
        return None, None
    if siginfo and siginfo["code"] != _SI_KERNEL:
        return siginfo["address"], "siginfo"
    if instruction is None:
        address: int | None = stop["pc"]  # nothing to execute there
    else:
        address = fault_address(instruction, stop["registers"])
        # A protection fault at a sound operand of a branch is about the target read from it.
        if siginfo and address is not None and is_branch(instruction) and is_canonical(address):
            address = None
    return (None, None) if address is None else (address, "registers")
