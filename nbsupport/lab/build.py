"""From a program's sources to an executable: each part by its own compiler, each built once.

Objects are kept by what made them, programs by their trial; both are whole, or not there. What two
notebooks need at once, one of them makes.
"""

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

#: How a compiler is asked to instrument. Sources: "Profile Guided Optimization" in clang's manual;
#: "Profile-guided Optimization" and "Instrumentation-based Code Coverage" in the rustc book.
_FLAGS: dict[tuple[str, Instrument], list[str]] = {
    ("clang", "ir"): ["-fprofile-generate"],
    ("clang", "front-end"): ["-fprofile-instr-generate"],
    ("rustc", "ir"): ["-Cprofile-generate"],
    ("rustc", "front-end"): ["-Cinstrument-coverage"],
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
    def command(self) -> list[str | Path]:
        """What compiles it, without the object: position-independent, so that any two link."""
        how = _FLAGS.get((self.toolchain.kind, self.instrument), [])
        flags = [self.unit.optimize, "-fPIC", *self.unit.flags, *how]
        return [self.toolchain.compiler, *flags, "-c", self.unit.source, "-o"]

    @property
    def digest(self) -> str:
        """What tells this object from any other."""
        _, *words = map(str, self.command)
        return files.digest(_OWN_DIGEST, self.unit.inputs_digest, self.toolchain.identity, *words)


def jobs(trial: Trial) -> tuple[CompileJob, ...]:
    """Return the objects that a trial needs (a Rust main is compiled as it is linked)."""
    program = trial.program
    library = tuple(CompileJob(unit, trial.foreign, trial.instrument) for unit in program.library)
    if program.language == "rust":
        return library
    return (CompileJob(program.main, trial.main, trial.main_instrument), *library)


def compiled(job: CompileJob, folder: Path) -> Path:
    """Return the object file, compiling it if it is not there; raises `BuildError`."""
    target = folder / "objects" / job.digest[:2] / f"{job.digest}.o"
    if not target.is_file():
        _make(target, job.command, job.unit.folder, job.toolchain, job.unit.source)
    return target


def linked(trial: Trial, folder: Path) -> Path:
    """Return the executable, building what is not there; raises `BuildError`."""
    program = trial.program
    target = folder / "programs" / trial.digest[:2] / trial.digest / program.name
    if not target.is_file():
        objects = [compiled(job, folder) for job in jobs(trial)]
        _make(target, link_line(trial, objects), program.main.folder, trial.main, program.name)
    return target


def seconds(trial: Trial, folder: Path) -> float:
    """Return how long a clean build of a trial took on one processor, when it ran (0: unknown)."""
    took = 0.0
    for path in (linked(trial, folder), *(compiled(job, folder) for job in jobs(trial))):
        with contextlib.suppress(OSError, ValueError):
            took += float(_note(path).read_text())
    return took


def _note(target: Path) -> Path:
    return target.with_name(f"{target.name}.seconds")


def link_line(trial: Trial, objects: Sequence[Path]) -> list[str | Path]:
    """Return the command line that links these objects, without the name of what it makes."""
    if trial.program.language == "rust":
        return _link_rust(trial, objects)
    main, *library = objects
    ordered = [main, *library] if trial.order == "main-first" else [*library, main]
    # -fprofile-generate at link time only brings the runtime, which every trial has.
    flags = [*linker_flags(trial.linker), "-fprofile-generate", "-pthread", *trial.link]
    return [trial.linker.compiler, *flags, *ordered, "-lm", "-ldl", "-o"]


def _link_rust(trial: Trial, library: Sequence[Path]) -> list[str | Path]:
    # -Z pre-link-args is the only way to the front of rustc's link line; RUSTC_BOOTSTRAP
    # allows it in a stable compiler.
    where = "-Zpre-link-args=" if trial.order == "foreign-first" else "-Clink-arg="
    # Dead code stays: rustc keeps it beside an instrumented main, and would drop it otherwise.
    flags: list[str] = [*trial.program.main.flags, "-Copt-level=1", "-Ccodegen-units=1"]
    # v0 names: RUSTC_BOOTSTRAP must not change how symbols are mangled.
    flags += ["-Clink-dead-code", "-Csymbol-mangling-version=v0"]
    flags += _FLAGS.get(("rustc", trial.main_instrument), [])
    link = linker_flags(trial.linker)
    if trial.main_instrument == "none":
        # rustc does not bring its runtime then. Where that stands decides which exit handler
        # comes first, the profile's or an allocator's: as with rustc, it is before the library.
        assert trial.runtime.runtime
        archive = str(trial.runtime.runtime)
        if sys.platform == "darwin":
            link.append(f"-Wl,-force_load,{archive}")
        else:
            link += ["-Wl,--whole-archive", archive, "-Wl,--no-whole-archive"]
    flags += [f"-Clinker={trial.linker.compiler}"]
    flags += [f"-Clink-arg={flag}" for flag in (*link, *trial.link)]
    flags += [f"{where}{path}" for path in library]
    return [trial.main.compiler, *flags, trial.program.main.source, "-o"]


def linker_flags(toolchain: Toolchain) -> list[str]:
    """Return what makes a clang link with the lld beside it, where there is one."""
    return ["-fuse-ld=lld"] if (toolchain.prefix / "bin" / "ld.lld").exists() else []


def _make(target: Path, command: Command, folder: Path, toolchain: Toolchain, what: str) -> None:
    """Run a command that writes the file named after its last word; keep it when it is whole."""
    env = process.environment({"RUSTC_BOOTSTRAP": "1"} if toolchain.kind == "rustc" else {})
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            files.alone(target.parent),
            tempfile.TemporaryDirectory(
                dir=target.parent, prefix=".staging-", ignore_cleanup_errors=True
            ) as staging,
        ):
            if target.is_file():  # another process, or a thread of this one, was faster
                return
            output = Path(staging, target.name)
            done = process.run([*command, output], cwd=folder, env=env, limits=settings.COMPILER)
            if not done.ok:
                raise _failure(what, toolchain, done, target.parent)
            files.write(_note(target), f"{done.seconds:.3f}")
            output.replace(target)
    except OSError as error:
        raise from_os(f"building {what}", error) from error


def _failure(what: str, toolchain: Toolchain, done: process.Finished, folder: Path) -> LabError:
    output = done.stderr or done.stdout
    # A linker that maps its output into memory does not say so: it dies of a bus error.
    if "no space left" in output.lower() or shutil.disk_usage(folder).free < settings.MIB:
        return LabError(f"building {what}", "the disk is full", "make room, or set XDG_CACHE_HOME")
    if "'stdio.h' file not found" in output or "crt1.o" in output:
        why = "libc's headers or crt files are missing"
        return MissingError(f"building {what}", why, "apt-get install libc6-dev")
    errors = [line for line in output.splitlines() if "error" in line or "undefined" in line]
    why = first_line("\n".join(errors) or output)
    if done.limit:
        why = f"stopped at the {done.limit} limit"
    do = "mend the source, or choose another compiler"
    return BuildError(f"{toolchain.name} on {what}", why, do, output)
