"""From a program's sources to an executable: each part by its own compiler, each built once.

Objects are kept by the content of what made them (sources, compiler, flags), programs
by the trial they are for; both appear in the cache whole or not at all.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbsupport.base import files, process, settings
from nbsupport.base.errors import BuildError, LabError, MissingError, first_line, from_os
from nbsupport.base.process import Command
from nbsupport.lab.programs import Unit
from nbsupport.lab.trial import Instrument, Trial
from nbsupport.toolchains.probe import Toolchain

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
_OWN_DIGEST = files.sha256(Path(__file__))


@dataclass(frozen=True)
class CompileJob:
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
        return files.digest(*parts, *self.flags)


def jobs(trial: Trial) -> tuple[CompileJob, ...]:
    """Return the objects that a trial needs (a Rust main is compiled as it is linked)."""
    library = tuple(
        CompileJob(unit, trial.foreign, trial.instrument) for unit in trial.program.library
    )
    if trial.program.language == "rust":
        return library
    return (CompileJob(trial.program.main, trial.main, trial.main_instrument), *library)


def compiled(job: CompileJob, folder: Path) -> Path:
    """Return the object file, compiling it if it is not there; raises `BuildError`."""
    target = folder / "objects" / job.digest[:2] / f"{job.digest}.o"
    if not target.is_file():
        command: Command = (job.toolchain.compiler, *job.flags, "-c", job.unit.source, "-o")
        _make(target, command, job.unit.folder, job.toolchain, job.unit.source)
    return target


def linked(trial: Trial, folder: Path) -> Path:
    """Return the executable, building what is not there; raises `BuildError`."""
    target = folder / "programs" / trial.digest[:2] / trial.digest / trial.program.name
    if not target.is_file():
        objects = [compiled(job, folder) for job in jobs(trial)]
        program = trial.program
        _make(target, link_line(trial, objects), program.main.folder, trial.main, program.name)
    return target


def seconds(trial: Trial, folder: Path) -> float:
    """Return how long the compilers and linker of a built trial took, when they ran (0: unknown).

    One after the other, each part once: a clean build of it on one processor.
    """
    program = folder / "programs" / trial.digest[:2] / trial.digest / trial.program.name
    took = 0.0
    for path in (program, *(compiled(job, folder) for job in jobs(trial))):
        with contextlib.suppress(OSError, ValueError):
            took += float(_note(path).read_text())
    return took


def _note(target: Path) -> Path:
    return target.with_name(f"{target.name}.seconds")


def link_line(trial: Trial, objects: Sequence[Path]) -> list[str | Path]:
    """Return the command line that links these objects, but for the name of what it makes."""
    link = _link_rust if trial.program.language == "rust" else _link_c
    return link(trial, objects)


def _link_c(trial: Trial, objects: Sequence[Path]) -> list[str | Path]:
    main, library = objects[:1], objects[1:]
    ordered = [*main, *library] if trial.order == "main-first" else [*library, *main]
    # -fprofile-generate at link time only brings the runtime, which every trial has.
    flags = [*linker_flags(trial.linker), "-fprofile-generate", "-pthread", *trial.link]
    return [trial.linker.compiler, *flags, *ordered, "-lm", "-ldl", "-o"]


def _link_rust(trial: Trial, objects: Sequence[Path]) -> list[str | Path]:
    # -Z pre-link-args is the only way to the front of rustc's link line; RUSTC_BOOTSTRAP
    # allows it in a stable compiler.
    first = trial.order == "foreign-first"
    where = "-Zpre-link-args=" if first else "-Clink-arg="
    # Dead code stays: rustc keeps it beside an instrumented main, and would drop it otherwise.
    flags: list[str] = [*trial.program.main.flags, "-Copt-level=1", "-Ccodegen-units=1"]
    # v0 names: RUSTC_BOOTSTRAP must not change how symbols are mangled.
    flags += ["-Clink-dead-code", "-Csymbol-mangling-version=v0"]
    flags += [*_RUST_FLAGS[trial.main_instrument], f"-Clinker={trial.linker.compiler}"]
    flags += [f"-Clink-arg={flag}" for flag in linker_flags(trial.linker)]
    if trial.main_instrument == "none":
        # rustc does not bring its runtime then. Where that stands decides which exit handler
        # comes first, the profile's or an allocator's: as with rustc, it is before the library.
        assert trial.runtime.runtime
        flags += [f"-Clink-arg={flag}" for flag in _whole(trial.runtime.runtime)]
    flags += [f"-Clink-arg={flag}" for flag in trial.link]
    flags += [f"{where}{library}" for library in objects]
    return [trial.main.compiler, *flags, trial.program.main.source, "-o"]


def _whole(archive: Path) -> tuple[str, ...]:
    """Return the linker's flags for all of an archive, at this place of the link line."""
    if sys.platform == "darwin":
        return (f"-Wl,-force_load,{archive}",)
    return ("-Wl,--whole-archive", str(archive), "-Wl,--no-whole-archive")


def linker_flags(toolchain: Toolchain) -> list[str]:
    """Return what makes a clang link with the lld beside it, where there is one."""
    return ["-fuse-ld=lld"] if (toolchain.prefix / "bin" / "ld.lld").exists() else []


def _make(
    target: Path, command: Sequence[str | Path], folder: Path, toolchain: Toolchain, what: str
) -> None:
    """Run a command that writes the file named after its last word; keep it when it is whole."""
    env = process.environment({"RUSTC_BOOTSTRAP": "1"} if toolchain.kind == "rustc" else {})
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=".staging-"))
    except OSError as error:
        raise from_os(f"building {what}", error) from error
    try:
        output = staging / target.name
        done = process.run([*command, output], cwd=folder, env=env, limits=settings.COMPILER)
        if not done.ok:
            raise _failure(what, toolchain, done, staging)
        files.write(_note(target), f"{done.seconds:.3f}")
        output.replace(target)
    except OSError as error:
        raise from_os(f"building {what}", error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _failure(what: str, toolchain: Toolchain, done: process.Finished, folder: Path) -> LabError:
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
