"""Linux's ptrace(2), as far as a `Family` needs it: on x86-64 and AArch64.

Source: ptrace(2), linux/ptrace.h; user.h and asm/ptrace.h for the registers.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform

POKE, CONT, SEIZE, LISTEN = 5, 7, 0x4206, 0x4208
_MESSAGE, _GET, _SET = 0x4201, 0x4204, 0x4205
_FIXED = 0x40000  # ADDR_NO_RANDOMIZE of personality(2)
#: A breakpoint; how far behind it the program counter stands; and among the general registers
#: (NT_PRSTATUS) result, program counter, stack pointer, link register.
_MACHINES = {"x86_64": (b"\xcc", 1, 10, 16, 19, 0), "aarch64": (b"\0\0\x20\xd4", 0, 0, 32, 31, 30)}
CODE, BEHIND, RESULT, COUNTER, STACK, LINK = _MACHINES.get(platform.machine(), (b"", 0, 0, 0, 0, 0))
Registers = ctypes.Array[ctypes.c_uint64]


class _Vector(ctypes.Structure):
    """A place in memory. Source: bits/types/struct_iovec.h."""

    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    libc.personality.argtypes = [ctypes.c_ulong]
    return libc


def fix_addresses() -> None:
    """Let what this thread starts have the addresses that it has under a debugger."""
    _libc().personality(_FIXED)


def request(number: int, thread: int, address: int = 0, data: int = 0) -> None:
    """Ask something of a thread that this one follows; raises `OSError` where that is refused."""
    if _libc().ptrace(number, thread, address, data) == -1:
        refused = ctypes.get_errno()
        raise OSError(refused, os.strerror(refused))


def message(thread: int) -> int:
    """Return what comes with an event of a thread: a new process, an exit status."""
    number = ctypes.c_ulong()
    request(_MESSAGE, thread, 0, ctypes.addressof(number))
    return number.value


def registers(thread: int) -> Registers:
    """Return the general registers of a thread: 27 on x86-64, 34 on AArch64."""
    values = (ctypes.c_uint64 * (34 if LINK else 27))()
    vector = _Vector(ctypes.addressof(values), ctypes.sizeof(values))
    request(_GET, thread, 1, ctypes.addressof(vector))
    return values


def set_registers(thread: int, values: Registers) -> None:
    """Change the general registers of a thread."""
    vector = _Vector(ctypes.addressof(values), ctypes.sizeof(values))
    request(_SET, thread, 1, ctypes.addressof(vector))
