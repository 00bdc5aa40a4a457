"""Where and how a program crashed: signal, frames, fault address.

The fault address needs care. At a non-canonical address the processor of x86-64 raises
a general protection fault, which does not carry the address; Linux then reports
``si_code`` SI_KERNEL (128) and ``si_addr`` 0, and debuggers print 0x0. Only then, and
where there is no siginfo, the address is computed from instruction and registers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from nbsupport.crash.address import fault_address, is_branch, is_canonical
from nbsupport.crash.inside_lldb.protocol import Siginfo, Stop

Source = Literal["registers", "siginfo"]
SI_KERNEL = 0x80  # <asm-generic/siginfo.h>; codes of 0 and less mean: sent with kill()


@dataclass(frozen=True)
class Frame:
    """One function on the stack; `offset` is in bytes from its start.

    Without a name (stripped) it has `function` "", and LLDB's offset in the module, or None.
    """

    function: str
    offset: int | None
    module: str


@dataclass(frozen=True)
class Crash:
    """A program at its fatal signal; `frames` (at most 64) begin with the innermost.

    `signal` is its name. `instruction` is the one that crashed, as the debugger prints it, and
    None where there is nothing to execute; `registers` are those of general purpose, by name.
    `fault_address` is what the kernel said (`fault_address_from` is `siginfo`), or is computed
    (`registers`). `debugger` is None, and `frames` empty, where only the signal is known.
    `exception` and `words` are as LLDB tells them (see `Stop`): on macOS, `far` is among them.
    """

    signal: str
    frames: tuple[Frame, ...] = ()
    instruction: str | None = None
    registers: Mapping[str, int] = field(default_factory=dict)
    fault_address: int | None = None
    fault_address_from: Source | None = None
    debugger: str | None = None
    exception: Mapping[str, int] = field(default_factory=dict)
    words: str = ""

    @property
    def function(self) -> str:
        """The function that crashed, or ""."""
        return self.frames[0].function if self.frames else ""


def from_stop(stop: Stop, debugger: str) -> Crash:
    """Turn what a debugger saw at a fatal signal into a `Crash`."""
    signal, instruction, registers = stop["signal"], stop["instruction"], stop["registers"]
    frames = tuple(Frame(**frame) for frame in stop["frames"])
    fault = locate(signal, stop["siginfo"], instruction, registers, stop["pc"])
    told = stop.get("exception", {}), stop.get("words", "")  # a recorded trace may be older
    return Crash(signal, frames, instruction, registers, *fault, debugger, *told)


def locate(
    signal: str,
    siginfo: Siginfo | None,
    instruction: str | None,
    registers: Mapping[str, int],
    pc: int | None,
) -> tuple[int | None, Source | None]:
    """Return the fault address and how it was found: the kernel's word, where it has one.

    Without an instruction there was nothing to execute at `pc`.
    """
    if signal not in ("SIGSEGV", "SIGBUS") or (siginfo and siginfo["code"] <= 0):
        return None, None
    if siginfo and siginfo["code"] != SI_KERNEL:
        return siginfo["address"], "siginfo"
    address = pc if instruction is None else fault_address(instruction, registers)
    # A protection fault at a sound operand of a branch is about the target read from it.
    if siginfo and instruction and is_branch(instruction) and is_canonical(address or 0):
        address = None
    return (None, None) if address is None else (address, "registers")
