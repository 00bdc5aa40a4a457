"""An emulated processor with a program in its memory: a laboratory, not a macOS.

Unicorn executes the program's instructions. There is no kernel and no dyld: where the program calls
a function that it imports, `Machine.serve` is asked, which libsystem.py has; there is one thread,
and no signal is delivered to it. Sources: Unicorn's unicorn.h; "Writing ARM64 code for Apple
platforms"; System V's ABI of x86-64, 3.2; EXCP_* of QEMU's cpu.h.
"""

import abc
import contextlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import capstone
import unicorn
from unicorn import arm64_const, x86_const

from nbsupport.base.errors import LabError
from nbsupport.macos.executable import Executable, unsupported

#: The most that is read or written at once, and that is mapped (bytes).
MOST, _MOST_MAPPED = 1 << 30, 16 << 30
#: Where things lie: what is served, a page each; stack; what the thread register points to; what
#: is mapped.
_STUBS, _STUB, _STUBS_SIZE = 0x1_8000_0000, 1 << 12, 64 << 20
_STACK, _STACK_SIZE, _THREAD, _MAPPED = 0x1_6F00_0000, 8 << 20, 0x1_6FF0_0000, 0x3_0000_0000
_WORD = (1 << 64) - 1
#: What becomes of Unicorn's errors on macOS; the others are of addresses where nothing is.
_SIGNALS = {
    unicorn.UC_ERR_INSN_INVALID: "SIGILL",
    unicorn.UC_ERR_EXCEPTION: "SIGILL",
    unicorn.UC_ERR_WRITE_PROT: "SIGBUS",
}


class _Arm64Cpu:
    """The processor of Apple's own machines; the model has LSE's atomics."""

    engine = (unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    model = arm64_const.UC_CPU_ARM64_MAX
    decoder = (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    constants, prefix, page = arm64_const, "UC_ARM64_REG_", 1 << 14
    names = (*(f"x{n}" for n in range(29)), "fp", "lr", "sp", "pc")
    arguments = names[:8]
    result, pc, sp, fp, thread = "x0", "pc", "sp", "fp", "tpidrro_el0"
    back, longest, trap = bytes.fromhex("c0035fd6"), 4, 7  # ret; EXCP_BKPT


class _X86Cpu:
    """Intel's."""

    engine = (unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    model = x86_const.UC_CPU_X86_HASWELL
    decoder = (capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    constants, prefix, page = x86_const, "UC_X86_REG_", 1 << 12
    arguments = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
    names = (*arguments, "rax", "rbx", "rbp", "rsp", "rip", *(f"r{n}" for n in range(10, 16)))
    result, pc, sp, fp, thread = "rax", "rip", "rsp", "rbp", "gs_base"
    back, longest, trap = b"\xc3", 15, 3  # ret; EXCP03_INT3


class Ended(Exception):  # noqa: N818 - as StopIteration: no error
    """The program has ended: by itself (`exit_code`) or by a `signal`."""

    def __init__(self, exit_code: int | None = None, signal: str = "") -> None:
        super().__init__(exit_code, signal)
        self.exit_code, self.signal = exit_code, signal


class BadAccess(Exception):  # noqa: N818 - the program's, not ours
    """An access to memory that is not there, by what stands in for a function."""

    def __init__(self, address: int) -> None:
        super().__init__(address)
        self.address = address


class Machine(abc.ABC):
    """A processor, memory, and a program in it; raises `LabError` where that finds no room."""

    def __init__(self, program: Executable) -> None:
        self.program = program
        self.arm = program.cpu == "arm64"
        self.cpu: type[_Arm64Cpu] | type[_X86Cpu] = _Arm64Cpu if self.arm else _X86Cpu
        self.uc = unicorn.Uc(*self.cpu.engine)
        self.uc.ctl_set_cpu_model(self.cpu.model)
        # No page tables: `_fill` maps each page to itself, so that an address is reported whole.
        self.uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
        self._names: list[str] = []
        self._free = _MAPPED
        self._reported: int | None = None
        self._refusal: LabError | None = None
        self.uc.hook_add(unicorn.UC_HOOK_TLB_FILL, self._fill)
        self.uc.hook_add(unicorn.UC_HOOK_CODE, self._stub, begin=_STUBS, end=_STUBS + _STUBS_SIZE)
        self.uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._invalid)
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self._interrupt)
        self.uc.mem_map(_STUBS, _STUBS_SIZE, unicorn.UC_PROT_EXEC)
        rooms = {start: len(content) for start, content in program.segments.items()}
        rooms |= {_STACK - _STACK_SIZE: _STACK_SIZE, _THREAD: self.cpu.page}
        try:
            for start, size in rooms.items():
                fixed = unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC
                access = fixed if start in program.fixed else unicorn.UC_PROT_ALL
                self.uc.mem_map(start, -(-size // self.cpu.page) * self.cpu.page, access)
            for start, content in program.segments.items():
                self.uc.mem_write(start, bytes(content))
        except unicorn.UcError as error:
            why = f"a corrupt Mach-O file: its segments do not fit into memory ({error})"
            raise unsupported("the program", why, "build it again") from error
        self.store(_THREAD, _THREAD)
        self.set(self.cpu.thread, _THREAD)

    @abc.abstractmethod
    def serve(self, name: str) -> int | None:
        """Return what a function returns that the program has called; None: it has moved on."""

    def get(self, name: str) -> int:
        """Return a register."""
        return int(self.uc.reg_read(self._number(name)))

    def set(self, name: str, value: int) -> None:
        """Set a register."""
        self.uc.reg_write(self._number(name), value & _WORD)

    def _number(self, name: str) -> int:
        return int(getattr(self.cpu.constants, self.cpu.prefix + name.upper()))

    def read(self, address: int, size: int) -> bytes:
        """Return memory; raises `BadAccess`."""
        return bytes(self._access(self.uc.mem_read, address, size, size))

    def write(self, address: int, content: bytes) -> None:
        """Set memory; raises `BadAccess`."""
        self._access(self.uc.mem_write, address, len(content), content)

    def _access(self, act: Callable[..., Any], address: int, size: int, what: Any) -> Any:
        place = self._untagged(address)
        with contextlib.suppress(unicorn.UcError):
            if size <= MOST:
                return act(place, what) if size else b""
        for low, high, _ in sorted(self.uc.mem_regions()):
            place = high + 1 if low <= place <= high else place
        raise BadAccess(address + place - self._untagged(address))

    def _untagged(self, address: int) -> int:
        """Return an address as macOS has arm64 take it: the top byte is a tag, which is ignored."""
        return address & _WORD >> 8 if self.arm else address & _WORD

    def word(self, address: int) -> int:
        """Return the 8 bytes at an address as a number; raises `BadAccess`."""
        return int.from_bytes(self.read(address, 8), "little")

    def store(self, address: int, value: int) -> None:
        """Set the 8 bytes at an address; raises `BadAccess`."""
        self.write(address, struct.pack("<Q", value & _WORD))

    def text(self, address: int, most: int = 1 << 20) -> bytes:
        """Return a string without its end, or so much of it; raises `BadAccess`."""
        content = b""
        while len(content) < most:
            here = address + len(content)
            part = self.read(here, min(256 - here % 256, most - len(content)))
            content += part.partition(b"\0")[0]
            if b"\0" in part:
                break
        return content

    def map(self, size: int) -> int:
        """Return the address of new memory, all zeros, or 0 where it would be too much."""
        start, size = self._free, -(-max(size, 1) // self.cpu.page) * self.cpu.page
        if start + size > _MAPPED + _MOST_MAPPED:
            return 0
        self.uc.mem_map(start, size)
        self._free += size + self.cpu.page  # a gap, so that what runs over its end is seen
        return start

    def unmap(self, address: int, size: int) -> int:
        """Take memory of `map` away again."""
        with contextlib.suppress(unicorn.UcError):  # not mapped: munmap does not mind
            if _MAPPED <= address < self._free:
                self.uc.mem_unmap(address, -(-size // self.cpu.page) * self.cpu.page)
        return 0

    def argument(self, index: int) -> int:
        """Return an argument of the function that is being called, as 64 bits."""
        inside = self.cpu.arguments
        if index < len(inside):
            return self.get(inside[index])
        return self.word(self.stacked + 8 * (index - len(inside)))

    @property
    def stacked(self) -> int:
        """Where the arguments begin that are on the stack."""
        return self.get(self.cpu.sp) + (0 if self.arm else 8)

    def bind(self, name: str) -> int:
        """Return the address of what is served under a name."""
        if name not in self._names:
            self.uc.mem_write(_STUBS + _STUB * len(self._names), self.cpu.back)
            self._names.append(name)
        return _STUBS + _STUB * self._names.index(name)

    def enter(self, function: int, arguments: Sequence[int], back: str) -> None:
        """Go to a function of the program; when it returns, what is served as `back` goes on."""
        for register, value in zip(self.cpu.arguments, arguments, strict=False):
            self.set(register, value)
        stack = self.get(self.cpu.sp) // 16 * 16
        if self.arm:
            self.set("lr", self.bind(back))
        else:
            stack -= 8
            self.store(stack, self.bind(back))
        self.set(self.cpu.sp, stack)
        self.set(self.cpu.pc, function)

    def run(self, first: str, instructions: int) -> dict[str, Any]:
        """Begin with what is served as `first`; return how it ended, as values for JSON.

        Raises `LabError` where the program does what is not emulated.
        """
        self.set(self.cpu.sp, _STACK - 256)
        try:
            self.uc.emu_start(self.bind(first), _WORD, count=instructions)
        except Ended as end:
            if not end.signal:
                return {"exit_code": end.exit_code}
            signal = end.signal
        except BadAccess as fault:
            signal, self._reported = "SIGSEGV", fault.address
        except unicorn.UcError as error:
            if self._refusal:
                raise self._refusal from error
            signal = _SIGNALS.get(error.errno, "SIGSEGV")
        else:
            return {"limit": f"{instructions:,} instructions"}
        return {"signal": signal, "reported": self._reported, **self._crash()}

    def _fill(self, _uc: object, address: int, access: int, entry: Any, _data: object) -> bool:
        name = self._served(address)
        if name and access != unicorn.UC_MEM_FETCH:
            why = f"it reads {name} of libSystem, a variable that is not emulated"
            # What is raised here, Unicorn's own error hides.
            self._refusal = unsupported("the program", why, "leave out what needs it")
            return False
        entry.paddr = self._untagged(address)
        entry.perms = unicorn.UC_PROT_EXEC if name else unicorn.UC_PROT_ALL
        return True

    def _stub(self, _uc: object, address: int, _size: int, _data: object) -> None:
        result = self.serve(self._served(address))
        if result is not None:
            self.set(self.cpu.result, result)

    def _served(self, address: int) -> str:
        index = (address - _STUBS) // _STUB
        return self._names[index] if 0 <= index < len(self._names) else ""

    def _invalid(self, _uc: object, _access: int, address: int, *_rest: object) -> bool:
        self._reported = address
        return False

    def _interrupt(self, _uc: object, number: int, _data: object) -> None:
        if self.arm and number == 2:  # EXCP_SWI
            why = "it calls the kernel by itself (svc)"
            raise unsupported("the program", why, "have it call libSystem")
        raise Ended(signal="SIGTRAP" if number == self.cpu.trap else "SIGILL")

    def _crash(self) -> dict[str, Any]:
        """Return what a debugger would show; `rip` is the next instruction's, as it counts."""
        pc = self.get(self.cpu.pc)
        registers = {name: self.get(name) for name in self.cpu.names}
        frames = [self._frame(pc), *(self._frame(back, 1) for back in self._callers(pc))]
        instruction = None
        with contextlib.suppress(BadAccess):
            code = self.read(pc, self.cpu.longest)
            for row in capstone.Cs(*self.cpu.decoder).disasm(code, pc, 1):
                instruction = f"{row.mnemonic} {row.op_str}"
                registers[self.cpu.pc] += 0 if self.arm else row.size
        return {"instruction": instruction, "registers": registers, "frames": frames}

    def _frame(self, address: int, before: int = 0) -> dict[str, Any]:
        """Return a function and how far in it `address` is; without a module, the program's."""
        if name := self._served(address):
            return {"function": name, "offset": 0, "module": "libSystem"}
        name, start = self.program.function(address - before)
        return {"function": name, "offset": address - start if name else None, "module": ""}

    def _callers(self, pc: int) -> Iterator[int]:
        """Yield return addresses by frame pointers, at most 63.

        What has not made its frame, or makes none, has its own in the link register, or on top of
        the stack.
        """
        with contextlib.suppress(BadAccess):
            if not self._framed(pc):
                yield self.get("lr") if self.arm else self.word(self.get(self.cpu.sp))
            frame = self.get(self.cpu.fp)
            for _ in range(62):
                frame, back = self.word(frame), self.word(frame + 8)
                yield back
                if not self.program.function(back - 1)[0]:
                    return

    def _framed(self, pc: int) -> bool:
        """Whether a function has, before `pc`, made its frame: stp fp, lr; push rbp, mov."""
        name, start = self.program.function(pc)
        code = self.read(start, pc - start) if name else b""
        if not self.arm:
            return b"\x55\x48\x89\xe5" in code
        return any(word & 0xFE407FFF == 0xA8007BFD for (word,) in struct.iter_unpack("<I", code))
