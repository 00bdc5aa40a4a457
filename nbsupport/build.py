"""From a program's sources to an executable: each part by its own compiler, each built once.

Objects are kept by the content of what made them (sources, compiler, flags), programs
by the trial they are for; both appear in the cache whole or not at all.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import sys
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

#: A program and its arguments.
Command = Sequence[str | Path]

#: How clang is asked for each kind of instrumentation (clang's user manual,
#: "Profile Guided Optimization").
FLAGS: dict[Instrument, tuple[str, ...]] = {
    "ir": ("-fprofile-generate",),
    "front-end": ("-fprofile-instr-generate",),
    "none": (),
}

#: The same for rustc ("Profile-guided Optimization" and "Instrumentation-based Code
#: Coverage" in the rustc book).
_RUST_FLAGS: dict[Instrument, tuple[str, ...]] = {
    "ir": ("-Cprofile-generate",),
    "front-end": ("-Cinstrument-coverage",),
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
        command: Command = (job.toolchain.compiler, *job.flags, "-c", job.unit.source, "-o")
        _make(target, command, job.unit.folder, job.toolchain, job.unit.source)
    return target


def linked(recipe: Recipe, cache: Path) -> Path:
    """Return the executable, building what is not there; raises `BuildError`."""
    target = cache / "programs" / recipe.digest[:2] / recipe.digest / recipe.program.name
    if not target.is_file():
        objects = [compiled(job, cache) for job in jobs(recipe)]
        link = _link_rust if recipe.program.language == "rust" else _link_c
        folder = recipe.program.main.folder
        _make(target, link(recipe, objects), folder, recipe.main, recipe.program.name)
    return target


def _link_c(recipe: Recipe, objects: Sequence[Path]) -> list[str | Path]:
    main, library = objects[:1], objects[1:]
    ordered = [*main, *library] if recipe.order == "main-first" else [*library, *main]
    # -fprofile-generate at link time only brings the runtime, which every trial has.
    flags = [*_linker_flags(recipe.linker), "-fprofile-generate", "-pthread"]
    return [recipe.linker.compiler, *flags, *ordered, "-lm", "-ldl", "-o"]


def _link_rust(recipe: Recipe, objects: Sequence[Path]) -> list[str | Path]:
    # -Z pre-link-args is the only way to the front of rustc's link line; RUSTC_BOOTSTRAP
    # allows it in a stable compiler.
    first = recipe.order == "foreign-first"
    where = "-Zpre-link-args=" if first else "-Clink-arg="
    # Dead code stays: rustc keeps it beside an instrumented main, and would drop it otherwise.
    flags: list[str] = [*recipe.program.main.flags, "-Copt-level=1", "-Ccodegen-units=1"]
    # v0 names: RUSTC_BOOTSTRAP must not change how symbols are mangled.
    flags += ["-Clink-dead-code", "-Csymbol-mangling-version=v0"]
    flags += [*_RUST_FLAGS[recipe.main_instrument], f"-Clinker={recipe.linker.compiler}"]
    flags += [f"-Clink-arg={flag}" for flag in _linker_flags(recipe.linker)]
    if recipe.main_instrument == "none":
        # rustc does not bring its runtime then. Where that stands decides which exit handler
        # comes first, the profile's or an allocator's: as with rustc, it is before the library.
        assert recipe.runtime.runtime
        flags += [f"-Clink-arg={flag}" for flag in _whole(recipe.runtime.runtime)]
    flags += [f"{where}{library}" for library in objects]
    return [recipe.main.compiler, *flags, recipe.program.main.source, "-o"]


def _whole(archive: Path) -> tuple[str, ...]:
    """Return the linker's flags for all of an archive, at this place of the link line."""
    if sys.platform == "darwin":
        return (f"-Wl,-force_load,{archive}",)
    return ("-Wl,--whole-archive", str(archive), "-Wl,--no-whole-archive")


def _linker_flags(toolchain: Toolchain) -> list[str]:
    """Return what makes a clang link with the lld beside it, where there is one."""
    return ["-fuse-ld=lld"] if (toolchain.prefix / "bin" / "ld.lld").exists() else []


def _make(
    target: Path, command: Sequence[str | Path], folder: Path, toolchain: Toolchain, what: str
) -> None:
    """Run a command that writes the file named after its last word; keep it when it is whole."""
    env = contain.environment({"RUSTC_BOOTSTRAP": "1"} if toolchain.kind == "rustc" else {})
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=".staging-"))
    except OSError as error:
        raise from_os(f"building {what}", error) from error
    try:
        made = staging / target.name
        done = contain.run([*command, made], cwd=folder, env=env, limits=settings.COMPILER)
        if not done.ok:
            raise _failure(what, toolchain, done, staging)
        made.replace(target)
    except OSError as error:
        raise from_os(f"building {what}", error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _failure(what: str, toolchain: Toolchain, done: contain.Finished, folder: Path) -> LabError:
    output = done.stderr or done.stdout
    # A linker that maps its output into memory does not say so: it dies of a bus error.
    if "no space left" in output.lower() or shutil.disk_usage(folder).free < settings.MIB:
        return LabError(f"building {what}", "the disk is full", "make room, or set XDG_CACHE_HOME")
    if "'stdio.h' file not found" in output or "crt1.o" in output:
        return MissingError(
            f"building {what}",
            "libc's headers or crt files are missing",
            "apt-get install libc6-dev",
        )
    why = f"stopped at the {done.limit} limit" if done.limit else _error_line(output)
    return BuildError(
        f"{toolchain.name} on {what}", why, "mend the source, or choose another compiler", output
    )


def _error_line(output: str) -> str:
    """Return the line of a compiler's output that names the error."""
    errors = [line for line in output.splitlines() if "error" in line or "undefined" in line]
    return first_line("\n".join(errors) or output)


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
