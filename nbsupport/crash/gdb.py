"""gdb as the second debugger: one batch run per crash, its text read back.

Plain commands only, because a gdb may be built without Python.
"""

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nbsupport.base import process, settings
from nbsupport.base.errors import MissingError
from nbsupport.crash.inside_lldb.protocol import FATAL, StackFrame, Stop

_MARGIN = 5.0  # seconds for gdb itself
_PREPARE = (
    "set startup-with-shell off",
    "set debuginfod enabled off",
    "set width 0",
    "set disassembly-flavor intel",  # an error elsewhere than on x86, of no consequence
    "set print asm-demangle on",
    "set backtrace past-main on",
    "handle all nostop noprint pass",
    # gdb itself needs SIGTRAP, and stops for it by default.
    f"handle {' '.join(name for name in FATAL if name != 'SIGTRAP')} stop print pass",
    "tty /dev/null",
    "unset environment",
)
#: Says the number of the program's process before it runs, for `_end_program`.
_RUN = ("starti", "info inferiors", r"echo @run\n", "continue")
_LOOK = (
    r"echo @stop\n",
    r'printf "@signal %d\n", $_siginfo.si_signo',
    r'printf "@kernel %d %lx\n", $_siginfo.si_code, $_siginfo._sifields._sigfault.si_addr',
    "x/i $pc",
    r"echo \n",  # ends the line where there is no instruction
    "info registers",
    "info proc mappings",
    "info symbol $pc",
    r"echo @frames\n",
    r'frame apply 64 -q printf "@frame %lx %lx\n", $pc, $sp',
    r"echo @symbols\n",
    # A return address can lie behind its function's end, after a call that does not return.
    "frame apply 64 -q info symbol $pc - 1",
    r"echo @end\n",
)
_SYMBOL = re.compile(r"(.+?)(?: \+ (\d+))? in section ")
_MAPPING = re.compile(r"\s*0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+0x\S+\s+0x\S+\s.*?(\S*/.+)$", re.M)


class Gdb:
    """One gdb run per crash. Raises MissingError when gdb does not run."""

    def __init__(self, gdb: Path) -> None:
        reply = process.run([gdb, "--version"], cwd=Path("/"))
        number = re.search(r"^GNU gdb.*?(\d+\.[\d.]*\d)\s*$", reply.stdout, re.MULTILINE)
        if not number:
            raise MissingError(str(gdb), "it does not tell its version", "install gdb, or LLDB")
        self._gdb = gdb
        self.name = f"gdb {number[1]}"

    def stop(
        self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], seconds: float
    ) -> Stop | None:
        """Run a program; return what gdb sees at a fatal signal, None without one or in time."""
        variables = [f"set environment {name} = {value}" for name, value in env.items()]
        commands = [f"-ex={command}" for command in (*_PREPARE, *variables, *_RUN, *_LOOK)]
        command: process.Command = [self._gdb, "-nx", "-batch", *commands, "--args", *argv]
        limits = settings.Limits(seconds + _MARGIN, 2 * settings.PROGRAM.memory)
        reply = process.run(command, cwd=cwd, limits=limits)
        _end_program(reply.stdout)
        return _read(reply.stdout)

    def close(self) -> None:
        """Do nothing: no gdb outlives its crash."""


def _end_program(text: str) -> None:
    """End what the program left behind: gdb makes it the head of a process group."""
    inferior = re.search(r"^\* 1 +process (\d+) ", text.partition("@run\n")[0], re.MULTILINE)
    if inferior:
        process.kill_group(int(inferior[1]))


def _read(text: str) -> Stop | None:
    """Read what `_LOOK` printed."""
    _, _, text = text.partition("@stop\n")
    number = re.search(r"^@signal (\d+)$", text, re.MULTILINE)
    name = signal.Signals(int(number[1])).name if number else ""
    if name not in FATAL:
        return None
    # The mask registers k0 to k7 of AVX-512 are no general purpose registers.
    rows = re.findall(r"^((?!k\d)[a-z]\w*) +(0x[0-9a-f]+) ", text, re.MULTILINE)
    registers = {name: int(value, 16) for name, value in rows}
    kernel = re.search(r"^@kernel (-?\d+) ([0-9a-f]+)$", text, re.MULTILINE)
    instruction = re.search(r"^=> 0x[0-9a-f]+(?: <.*>)?:[ \t]*(\S.*)$", text, re.MULTILINE)
    return {
        "signal": name,
        "frames": list(_frames(text)),
        "instruction": " ".join(instruction[1].split()) if instruction else None,
        "pc": registers.get("rip", registers.get("pc", 0)),
        "registers": registers,
        "siginfo": {"code": int(kernel[1]), "address": int(kernel[2], 16)} if kernel else None,
        "exception": {},
        "words": "",
    }


def _frames(text: str) -> Iterator[StackFrame]:
    """Yield the frames with a stack space of their own: inlined ones share the caller's."""
    head, _, tail = text.partition("@frames\n")
    places, _, symbols = tail.partition("@symbols\n")
    mappings = [(int(a, 16), int(b, 16), path) for a, b, path in _MAPPING.findall(head)]
    names = [head.splitlines()[-1], *symbols.partition("@end\n")[0].splitlines()[1:]]
    previous = ""
    for place, name in zip(places.splitlines(), names, strict=False):
        if place == previous:
            continue
        before = 1 if previous else 0  # gdb was asked for the address before
        previous = place
        pc = int(place.split()[1], 16)
        symbol = _SYMBOL.match(name)
        yield {
            "function": symbol[1] if symbol else "",
            "offset": int(symbol[2] or "0") + before if symbol else None,
            "module": next((Path(f).name for low, high, f in mappings if low <= pc <= high), ""),
        }
