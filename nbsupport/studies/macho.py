"""A trial of a program for macOS, on an emulated processor: beside what was foretold of it.

It is a laboratory, not a macOS: nothing of Apple's is in it but headers.
"""

from dataclasses import dataclass
from typing import Any, get_args

from nbsupport.base import LabError
from nbsupport.crash import runtime
from nbsupport.lab import INSTRUMENTS, ORDERS
from nbsupport.lab.outcome import Outcome
from nbsupport.macos import build_program, emulate
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
    `LabError` for what there is not, `MissingError` for want of a compiler or the emulator.
    """
    architecture = _choice("--macos", arch, get_args(Arch))
    how = _choice("--instrument", instrument or "ir", INSTRUMENTS)
    link = _choice("--order", order, ORDERS)
    _choice("--main-instrument", main_instrument, ("ir",))
    built = build_program(program, architecture, llvm, foreign, order=link, instrument=how)
    emulated = emulate(built.path, built.main)
    spelled, crash = "", emulated.outcome.crash
    if crash and crash.function.lstrip("_") in runtime.readers()["walks"]:
        spelled = ruler.from_program(built).fault_address or ""
    reported = "" if emulated.reported is None else f"{emulated.reported:#x}"
    foretold = tuple(sorted(built.foretell().outcomes))
    return MachOTrial(emulated.outcome, foretold, spelled, reported)


def _choice(option: str, value: str, choices: Any) -> Any:
    if value not in choices:
        raise LabError(f"{option} {value}", "not known", f"choose from {', '.join(choices)}")
    return value
