"""Mach-O programs, executed on an emulated processor: what comes of one, as of a native trial.

It is a laboratory, not a macOS: see machine.py and libsystem.py.
"""

import importlib.util
import json
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nbsupport
from nbsupport.base import process, settings
from nbsupport.base.errors import LabError, MissingError, first_line, visible
from nbsupport.crash.address import fault_address
from nbsupport.crash.crash import Crash, Frame
from nbsupport.lab import counts
from nbsupport.lab.outcome import Outcome, ProfileState, classify
from nbsupport.toolchains import profdata
from nbsupport.toolchains.probe import Toolchain

#: Ends an endless loop after two seconds; the programs here take less than a tenth of it.
INSTRUCTIONS = 50_000_000


@dataclass(frozen=True)
class Emulated:
    """What came of a program: `outcome` as of a native trial, and the profile's `text`, or "".

    The outcome's fault address is computed from the instruction and the registers (`registers`), or
    is what the emulator reports (`siginfo`) where that cannot be done; that is `reported` anyway.
    """

    outcome: Outcome
    text: str
    reported: int | None
    stdout: str
    stderr: str


def emulate(
    program: Path,
    toolchain: Toolchain,
    *,
    environment: Mapping[str, str] | None = None,
    limits: settings.Limits = settings.PROGRAM,
    instructions: int = INSTRUCTIONS,
) -> Emulated:
    """Execute a Mach-O program (arm64 or x86-64, one thread, libSystem only), and judge it.

    Its files are in an empty folder, its profile is read by the llvm-profdata of `toolchain`.
    `environment` comes on top of LLVM_PROFILE_FILE. It may execute so many `instructions`; `limits`
    are those of the emulator that it runs in. Counts are not judged. Raises `MissingError` without
    the emulator, `LabError` for what it cannot execute.
    """
    for name in ("unicorn", "capstone", "lief"):
        if importlib.util.find_spec(name) is None:
            do = "pip install 'pgo-crash-lab[macho]'"
            raise MissingError("the emulator", f"{name} is not installed", do)
    own = {"LLVM_PROFILE_FILE": "run.profraw"} | dict(environment or {})
    merged, text = None, ""
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder, result = Path(name, "files"), Path(name, "result")
        folder.mkdir()
        words = (program.absolute(), folder, result, str(instructions), json.dumps(own))
        command = (sys.executable, "-P", "-m", f"{__package__}.child", *words)
        env = process.environment({"PYTHONPATH": str(Path(nbsupport.__file__).parents[1])})
        done = process.run(command, cwd=folder, env=env, limits=limits)
        state = _state(program, done, result)
        number = signal.Signals[state["signal"]] if "signal" in state else None
        done = replace(done, exit_code=state.get("exit_code"), signal=number)
        profile = min((p for p in folder.rglob("*.profraw") if p.is_file()), default=None)
        size = profile.stat().st_size if profile else 0
        if profile and size and done.ok:
            merged = profdata.as_text(profdata.tool(toolchain), profile)
            text = merged.stdout if merged.ok else ""
    counted = counts.parse(text)
    kind, detail = classify(done, size, merged, counted, None)
    if "limit" in state:
        kind, detail = "limit", f"stopped after {state['limit']}"
    elif kind == "ok":
        detail = "the profile merges"
    dead = _crash(state, program.name) if kind == "crash" else None
    quality = ProfileState(bool(merged and merged.ok), size, len(counted))
    how = (done.exit_code, done.signal_name, dead, quality, done.seconds)
    outcome = Outcome(kind, detail, *how)
    return Emulated(outcome, text, state.get("reported"), done.stdout, done.stderr)


def _state(program: Path, done: process.Finished, result: Path) -> dict[str, Any]:
    """Return what the child has written; raises `LabError` for what it could not do."""
    if done.limit:
        return {}
    if not result.is_file():
        last = first_line("\n".join(reversed(done.stderr.splitlines())))
        why = f"the emulator has failed ({visible(done.signal_name or last)})"
        raise LabError(program.name, why, "build it again")
    state: dict[str, Any] = json.loads(result.read_text())
    if "error" in state:
        raise LabError(*state["error"])
    return state


def _crash(state: Mapping[str, Any], module: str) -> Crash:
    """Return the crash as a debugger would, its address computed where that can be done."""
    instruction, registers = state["instruction"], state["registers"]
    frames = tuple(
        Frame(frame["function"], frame["offset"], frame["module"] or module)
        for frame in state["frames"]
    )
    dead = Crash(state["signal"], frames, instruction, registers, debugger="unicorn")
    if state["signal"] not in ("SIGSEGV", "SIGBUS"):
        return dead
    address = fault_address(instruction, registers) if instruction else None
    if address is None or frames[0].module == "libSystem":
        return replace(dead, fault_address=state["reported"], fault_address_from="siginfo")
    return replace(dead, fault_address=address, fault_address_from="registers")
