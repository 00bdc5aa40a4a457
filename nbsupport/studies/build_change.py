"""A small change to a case, which is tried as a workaround or as a rival explanation.

The changes are data: `data/workarounds/workarounds.toml`, `data/hypotheses/mechanisms.toml`.
"""

import dataclasses
import re
import sys
from dataclasses import dataclass

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.lab import Lab, Trial, programs
from nbsupport.lab.programs import Unit
from nbsupport.studies import runtime_objects
from nbsupport.toolchains import Toolchain, discovery


@dataclass(frozen=True)
class BuildChange:
    """One change; the fields are those that `workarounds.toml` explains."""

    id: str
    source: str
    what: str
    needs: str = ""
    on: tuple[str, ...] = ()
    platform: str = ""
    why: str = ""
    main: tuple[str, ...] = ()
    rust: tuple[str, ...] = ()
    library: tuple[str, ...] = ()
    link: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    foreign: str = ""
    order: str = "main-first"
    main_instrument: str = "ir"
    instrument: str | None = None
    without_library: bool = False
    whole: bool = False

    def changed(self, lab: Lab, program: str, llvm: str, foreign: str) -> Trial:
        """Return the case of a `program` with the change: main by `llvm`, its library by `foreign`.

        Raises `LabError` where the change does not apply, or a compiler is missing.
        """
        if self.platform not in ("", sys.platform):
            raise LabError(f"on {sys.platform}", self.why, f"try it on {self.platform}")
        chosen = {"": foreign, "main": llvm}.get(self.foreign, self.foreign)
        if chosen == "same":
            chosen = _find_same(lab.trial(program, llvm, llvm).main)
        how = {"order": self.order, "main_instrument": self.main_instrument}
        trial = lab.trial(program, llvm, chosen, instrument=self.instrument, **how)
        whole = trial.program
        main = _flagged(whole.main, self.rust if whole.language == "rust" else self.main)
        # gcc knows nothing of LLVM's flags, which are about instrumentation.
        flags = () if trial.foreign.kind == "gcc" else self.library
        units = () if self.without_library else whole.library
        library = tuple(_flagged(unit, flags) for unit in units)
        changed = dataclasses.replace(whole, main=main, library=library)
        # The other LLVM's runtime, whoever compiles the library.
        runtimes = {"main": trial.runtime}
        if any("{" in word for word in self.link):
            runtimes["other"] = lab.trial(program, llvm, foreign).foreign
        link = tuple(_filled(word, runtimes) for word in self.link)
        return dataclasses.replace(trial, program=changed, environment=self.environment, link=link)


def load(path: str) -> tuple[BuildChange, ...]:
    """Return the changes of a file below `data`, in the order to try them."""
    changes = []
    for name, entry in files.read_toml(settings.data_dir() / path).items():
        entry["environment"] = tuple(entry.get("environment", {}).items())
        changes.append(files.load(BuildChange, {"id": name, **entry}, f"{path}: {name}"))
    return tuple(changes)


def _filled(word: str, runtimes: dict[str, Toolchain]) -> str:
    """Return a word for the linker: `{other}` is a profile runtime, `{other:NAME.c}` of it one."""
    whose = re.fullmatch(r"\{(\w+)(?::([\w.]+))?\}", word)
    if whose is None:
        return word
    toolchain = runtimes[whose[1]]
    return str(runtime_objects.extract(toolchain)[whose[2]] if whose[2] else toolchain.runtime)


def _flagged(unit: Unit, flags: tuple[str, ...]) -> Unit:
    """Return a unit with more flags, which may name headers beside the changes."""
    if not flags:
        return unit
    digest = unit.inputs_digest
    for folder in ("workarounds", "hypotheses"):
        digest += programs.digest(settings.data_dir() / folder)
    return dataclasses.replace(unit, flags=(*unit.flags, *flags), inputs_digest=digest)


def _find_same(main: Toolchain) -> str:
    """Return the newest clang of another LLVM that writes main's raw version."""
    for clang in reversed(discovery.discover()):
        same = clang.kind == "clang" and clang.raw_version == main.raw_version
        if same and clang.runtime and clang.major != main.major:
            return clang.name
    what = f"a clang of another LLVM with raw version {main.raw_version}"
    raise MissingError(what, "there is none here", "pgo-lab toolchains --install 22")
