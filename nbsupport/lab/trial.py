"""A trial: one program, the toolchains that build its parts, and how."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nbsupport.base import files
from nbsupport.lab.programs import Program
from nbsupport.toolchains.probe import Toolchain

Instrument = Literal["ir", "front-end", "none"]
Order = Literal["main-first", "foreign-first"]

# The flags are in build.py: when it or this changes, what was built before is another thing.
_OWN_DIGEST = files.digest(Path(__file__), Path(__file__).with_name("build.py"))


@dataclass(frozen=True)
class Trial:
    """One program x toolchains x options: the library by `foreign`, all else by `main`.

    `linker` links (main itself; for a Rust main, the clang beside it). `runtime` is the
    toolchain whose profile runtime is linked: main, except in a reference build of an
    instrumented library under an uninstrumented main. `environment` is what the program finds
    in its environment besides what every program does. `link` are more of the linker's flags.
    """

    program: Program
    main: Toolchain
    foreign: Toolchain
    order: Order
    main_instrument: Instrument
    instrument: Instrument
    linker: Toolchain
    runtime: Toolchain
    environment: tuple[tuple[str, str], ...] = ()
    link: tuple[str, ...] = ()

    @functools.cached_property
    def digest(self) -> str:
        """What tells this build from any other: sources, compilers, flags, and what builds it."""
        parts = [_OWN_DIGEST, self.program.name, self.order]
        parts += [self.main_instrument, self.instrument, *self.link]
        parts += [t.identity for t in (self.main, self.foreign, self.linker, self.runtime)]
        for unit in (self.program.main, *self.program.library):
            parts += [unit.inputs_digest, unit.source, unit.optimize, *unit.flags]
        parts += [f"{name}={value}" for name, value in self.environment]  # so do its references
        return files.digest(*parts)

    @property
    def references(self) -> tuple[Trial, ...]:
        """The uniform builds that say which counts are right, one for each instrumented part.

        Each is by that part's own toolchain (compiler, linker, runtime), and only that
        part is instrumented, so that every function in its profile belongs to it. A Rust
        main has no compiler of the foreign LLVM; there it is only left uninstrumented. A
        library that is not instrumented is not optimized, either: nothing of it is counted, and
        an allocator is compiled in a quarter of the time.
        """
        rust = self.program.language == "rust"
        whole = replace(self, order=self.order if rust else "main-first", link=())
        parts = []
        if self.main_instrument != "none":
            library = tuple(replace(unit, optimize="-O0") for unit in self.program.library)
            plain = replace(whole, program=replace(self.program, library=library))
            parts.append(replace(plain, foreign=self.linker, instrument="none"))
        if self.instrument != "none":
            own = replace(whole, linker=self.foreign, runtime=self.foreign)
            main = self.main if rust else self.foreign
            parts.append(replace(own, main=main, main_instrument="none"))
        return tuple(parts)

    @property
    def parameters(self) -> dict[str, str]:
        """What identifies the trial from machine to machine: versions, not places."""
        return {
            "program": self.program.name,
            "main": f"{self.main.kind} {self.main.major}",
            "foreign": f"{self.foreign.kind} {self.foreign.major}",
            **self._how,
        }

    def to_row(self) -> dict[str, Any]:
        """Return the parameters as columns of a table."""
        return {
            "program": self.program.name,
            "main": self.main.name,
            "main_raw_version": self.main.raw_version,
            "foreign": self.foreign.name,
            "foreign_raw_version": self.foreign.raw_version,
            **self._how,
        }

    @property
    def _how(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in ("order", "instrument", "main_instrument")}
