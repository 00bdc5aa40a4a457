"""What the processor told of an exception, read by a real LLDB off core files of macOS made here."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from nbsupport.crash import inside_lldb

FAR, PC = 0x0001_0001_0000_0003, 0x1_0000_4000
#: Of <mach/arm/_structs.h> and <mach/i386/_structs.h>: flavor, words, and the registers themselves.
ARM64 = (
    0x100000C,
    (6, 68, struct.pack("<33Q2I", *range(29), 1, 2, 3, PC, 0, 0)),
    (7, 4, struct.pack("<Q2I", FAR, 0x92000004, 0)),
)
X86_64 = (
    0x1000007,
    (4, 42, struct.pack("<21Q", *range(16), PC, *range(4))),
    (6, 4, struct.pack("<2HIQ", 14, 0, 4, FAR)),
)
#: As in agent.py, but of a thread that does not run.
LOOK = """
import sys
sys.path.insert(0, {folder!r})
from inside_lldb.common import exception_of, registers_of
frame = lldb.thread.GetFrameAtIndex(0)
print("told", exception_of(frame), registers_of(frame).keys() & exception_of(frame).keys())
"""


def core(path: Path, cpu: int, *states: tuple[int, int, bytes]) -> Path:
    """Write a core file: one thread with these states, and a page of code.

    Sources: <mach-o/loader.h> (MH_CORE, LC_THREAD, LC_SEGMENT_64).
    """
    page = 0x4000
    thread = b"".join(struct.pack("<2I", flavor, words) + state for flavor, words, state in states)
    commands = struct.pack("<2I", 4, 8 + len(thread)) + thread
    where = (PC, page, page, page)
    commands += struct.pack("<2I16s4Q2i2I", 0x19, 72, b"", *where, 5, 5, 0, 0)
    head = struct.pack("<8I", 0xFEEDFACF, cpu, 0, 4, 2, len(commands), 0, 0)
    path.write_bytes((head + commands).ljust(page, b"\0") + bytes(page))
    return path


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        (ARM64, {"far": FAR, "esr": 0x92000004, "exception": 0}),
        (X86_64, {"trapno": 14, "err": 4, "faultvaddr": FAR}),
    ],
    ids=["arm64", "x86_64"],
)
def test_the_fault_register_of_macos_is_told(
    lldb: Path,
    tmp_path: Path,
    machine: tuple[int, *tuple[tuple[int, int, bytes], ...]],
    told: dict[str, int],
) -> None:
    folder = str(Path(inside_lldb.__file__).parents[1])
    (tmp_path / "look.py").write_text(LOOK.format(folder=folder))
    path = core(tmp_path / "core", *machine)
    looks = ("register read --all", f"script exec(open({str(tmp_path / 'look.py')!r}).read())")
    command: list[str | Path] = [lldb, "--no-lldbinit", "--batch", "--core", path]
    for look in looks:
        command += ["-o", look]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("told")]
    assert line.startswith(f"told {told} ")
    # They are in the text of pgo-lab mac-check, too, and no registers of general purpose.
    assert line.endswith(" set()")
    name = "far" if "far" in told else "faultvaddr"
    assert f"{name} = 0x0001000100000003\n" in done.stdout
