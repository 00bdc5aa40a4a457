"""One program for macOS, on an emulated processor: what came of it, beside what was foretold.

It is a laboratory, not a macOS: nothing of Apple's is in it but headers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from nbsupport.base import LabError
from nbsupport.crash import runtime
from nbsupport.lab import INSTRUMENTS, ORDERS
from nbsupport.lab.outcome import Outcome
from nbsupport.macos import Emulated, MachOProgram, build_program, emulate
from nbsupport.macos.target import Arch
from nbsupport.studies import ruler


@dataclass(frozen=True)
class MachOTrial:
    """What came of a program: `outcome` as of a native trial, and what was known before it ran.

    `foretold` are the kinds of outcome that its raw versions leave possible; `spelled` is the
    address at which the file's own records say that it dies, `reported` the one of the emulator
    ("": none).
    """

    outcome: Outcome
    foretold: tuple[str, ...]
    spelled: str
    reported: str

    def to_json(self) -> dict[str, Any]:
        """Return the document of `pgo-lab trial --macos --json`."""
        document = self.outcome.to_json()
        known = {"foretold": list(self.foretold), "spelled": self.spelled}
        return {**document, **known, "reported": self.reported}

    def notes(self) -> list[str]:
        """Return what else there is to say, in lines."""
        lines = [f"foretold by the raw versions: {' or '.join(self.foretold)}"]
        if self.spelled:
            lines.append(f"its records spell the address {self.spelled}")
        if self.reported:
            lines.append(f"the emulated processor reports {self.reported}")
        return [*lines, "on an emulated processor: no macOS was there"]


def try_program(
    arch: str,
    llvm: str,
    foreign: str,
    program: str,
    order: str,
    instrument: str | None,
    main_instrument: str = "ir",
) -> MachOTrial:
    """Build a `program` of the lab for macOS, and execute it once.

    `arch` is arm64 (LLVM 16 and 19, from Debian) or x86_64; the rest is as in a trial, but that
    main is always instrumented in IR. Raises
    `LabError` for what there is not, `MissingError` where a compiler or the emulator is missing.
    """
    architecture = require_choice("--macos", arch, get_args(Arch))
    how = require_choice("--instrument", instrument or "ir", INSTRUMENTS)
    link = require_choice("--order", order, ORDERS)
    require_choice("--main-instrument", main_instrument, ("ir",))
    built = build_program(program, architecture, llvm, foreign, order=link, instrument=how)
    emulated = emulate(built.path, built.main)
    section = ruler_of_crash(built, emulated)
    foretold = tuple(sorted(built.foretell().outcomes))
    spelled = section.fault_address if section else None
    return MachOTrial(emulated.outcome, foretold, spelled or "", reported_address(emulated))


def require_choice(option: str, value: str, choices: Any) -> Any:
    """Return the value of an option; raises `LabError` for one that is not among the choices."""
    if value not in choices:
        raise LabError(f"{option} {value}", "not known", f"choose from {', '.join(choices)}")
    return value


def ruler_of_crash(built: MachOProgram, emulated: Emulated) -> ruler.Ruler | None:
    """Return the ruler of a program that died where the runtime walks its records; else None."""
    crash = emulated.outcome.crash
    walked = crash and crash.function.lstrip("_") in runtime.readers()["walks"]
    return ruler.from_program(built) if walked else None


def reported_address(emulated: Emulated) -> str:
    """Return the address of the fault as the emulated processor reports it; "": none."""
    return "" if emulated.reported is None else f"{emulated.reported:#x}"
