"""From a program's sources to an executable: each part by its own compiler, each built once.

Objects are kept by the content of what made them (sources, compiler, flags), programs
by the trial they are for; both appear in the cache whole or not at all.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nbsupport import contain, files, settings
from nbsupport.errors import BuildError, LabError, MissingError, first_line, from_os
from nbsupport.probe import Toolchain
from nbsupport.programs import Program, Unit

Instrument = Literal["ir", "front-end", "none"]
Order = Literal["main-first", "foreign-first"]

#: How clang is asked for each kind of instrumentation (clang's user manual,
#: "Profile Guided Optimization").
FLAGS: dict[Instrument, tuple[str, ...]] = {
    "ir": ("-fprofile-generate",),
    "front-end": ("-fprofile-instr-generate",),
    "none": (),
}


# The flags are in this file: when it changes, what it built before is another thing.
_OWN_DIGEST = files.digest(Path(__file__))


@dataclass(frozen=True)
class Recipe:
    """What is built: `main` compiles main and brings the runtime, `foreign` the library.

    `runtime` is the toolchain whose profile runtime is linked; it is `main`, except in
    a reference build of an instrumented library under an uninstrumented main.
    """

    program: Program
    main: Toolchain
    foreign: Toolchain
    order: Order
    main_instrument: Instrument
    instrument: Instrument
    linker: Toolchain
    runtime: Toolchain

    @functools.cached_property
    def digest(self) -> str:
        """What tells this build from any other: sources, compilers, flags and this module."""
        parts = [_OWN_DIGEST, self.program.name, self.order, self.main_instrument]
        parts += [self.instrument]
        parts += [t.identity for t in (self.main, self.foreign, self.linker, self.runtime)]
        parts += [unit.inputs_digest for unit in (self.program.main, *self.program.library)]
        return _digest(parts)


@dataclass(frozen=True)
class Job:
    """One object file to be made: a unit, its compiler and its instrumentation."""

    unit: Unit
    toolchain: Toolchain
    instrument: Instrument

    @property
    def flags(self) -> tuple[str, ...]:
        """The compiler's flags. Position-independent, so that any two objects link anywhere."""
        return ("-O1", "-fPIC", *self.unit.flags, *FLAGS[self.instrument])

    @property
    def digest(self) -> str:
        """What tells this object from any other."""
        unit = self.unit
        parts = [_OWN_DIGEST, unit.source, unit.inputs_digest, self.toolchain.identity]
        return _digest([*parts, *self.flags])


def jobs(recipe: Recipe) -> tuple[Job, ...]:
    """Return the objects that a recipe needs (a Rust main is compiled as it is linked)."""
    library = tuple(Job(unit, recipe.foreign, recipe.instrument) for unit in recipe.program.library)
    if recipe.program.language == "rust":
        return library
    return (Job(recipe.program.main, recipe.main, recipe.main_instrument), *library)


def compiled(job: Job, cache: Path) -> Path:
    """Return the object file, compiling it if it is not there; raises `BuildError`."""
    target = cache / "objects" / job.digest[:2] / f"{job.digest}.o"
    if not target.is_file():
        command = [job.toolchain.compiler, *job.flags, "-c", job.unit.source, "-o"]
        _make(target, command, job.unit.folder, job.toolchain, job.unit.source)
    return target


def linked(recipe: Recipe, cache: Path) -> Path:
    """Return the executable, building what is not there; raises `BuildError`."""
    target = cache / "programs" / recipe.digest[:2] / recipe.digest / recipe.program.name
    if not target.is_file():
        objects = [compiled(job, cache) for job in jobs(recipe)]
        if recipe.program.language == "rust":
            command, folder = _link_rust(recipe, objects), recipe.program.main.folder
        else:
            command, folder = _link_c(recipe, objects), cache
        _make(target, command, folder, recipe.main, recipe.program.name)
    return target


def _link_c(recipe: Recipe, objects: Sequence[Path]) -> list[str | Path]:
    main, library = objects[:1], objects[1:]
    ordered = [*main, *library] if recipe.order == "main-first" else [*library, *main]
    # -fprofile-generate at link time only brings the runtime, which every trial has.
    flags = [*_linker_flags(recipe.linker), "-fprofile-generate", "-pthread"]
    return [recipe.linker.compiler, *flags, *ordered, "-lm", "-ldl", "-o"]


def _link_rust(recipe: Recipe, objects: Sequence[Path]) -> list[str | Path]:
    raise NotImplementedError


def _linker_flags(toolchain: Toolchain) -> list[str]:
    """Return what makes a clang link with the lld beside it, where there is one."""
    return ["-fuse-ld=lld"] if (toolchain.prefix / "bin" / "ld.lld").exists() else []


def _make(
    target: Path, command: Sequence[str | Path], folder: Path, toolchain: Toolchain, what: str
) -> None:
    """Run a command that writes the file named after its last word; keep it when it is whole."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=".staging-"))
    except OSError as error:
        raise from_os(f"building {what}", error) from error
    try:
        made = staging / target.name
        done = contain.run(
            [*command, made], cwd=folder, env=toolchain.env, limits=settings.COMPILER
        )
        if not done.ok:
            raise _failure(what, toolchain, done)
        made.replace(target)
    except OSError as error:
        raise from_os(f"building {what}", error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _failure(what: str, toolchain: Toolchain, done: contain.Finished) -> LabError:
    output = done.stderr or done.stdout
    if "no space left" in output.lower():
        return LabError(f"building {what}", "the disk is full", "make room, or set XDG_CACHE_HOME")
    if "'stdio.h' file not found" in output or "crt1.o" in output:
        return MissingError(
            f"building {what}",
            "libc's headers or crt files are missing",
            "apt-get install libc6-dev",
        )
    why = f"stopped at the {done.limit} limit" if done.limit else _error_line(output)
    return BuildError(f"{toolchain.name} on {what}", why, "see its whole output", output)


def _error_line(output: str) -> str:
    """Return the line of a compiler's output that names the error."""
    errors = [line for line in output.splitlines() if "error" in line or "undefined" in line]
    return first_line("\n".join(errors) or output)


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
