"""Processes that a test starts, waits for, and looks for."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Callable

import psutil

#: Seconds: never waited for when all is well; a machine may be that slow.
CEILING = 300.0


def wait_until(condition: Callable[[], object], seconds: float = CEILING) -> None:
    """Wait until something is so, however slow the machine is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def running(token: str) -> list[psutil.Process]:
    """Return the processes with a text in their command lines."""
    return [process for process in psutil.process_iter() if has(process, token)]


def has(process: psutil.Process, token: str) -> bool:
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and token in " ".join(process.cmdline())
    except psutil.Error:
        return False


def without_ptrace() -> None:
    """Forbid ptrace to this process and its children, as containers do (seccomp)."""
    numbers = {"x86_64": 101, "aarch64": 117}
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, numbers[os.uname().machine])]
    steps += [(6, 0, 0, 0x50001), (6, 0, 0, 0x7FFF0000)]  # errno 1; allow
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None)
    assert libc.prctl(38, 1, 0, 0, 0) == 0 == libc.prctl(22, 2, ctypes.c_char_p(program))
