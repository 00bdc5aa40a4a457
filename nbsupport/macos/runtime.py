"""The profile runtime for macOS, from the sources of a released LLVM."""

import re
from pathlib import Path
from typing import Literal

from nbsupport.base import files, process, progress, settings
from nbsupport.base.errors import BuildError, LabError, first_line
from nbsupport.lab import build
from nbsupport.lab.programs import Unit
from nbsupport.macos import target
from nbsupport.macos.target import Arch
from nbsupport.toolchains import Toolchain, discovery, tree

#: How the runtime is optimized: at `s` the user's offset comes out, at `2` and `3` another.
Optimize = Literal["s", "2", "3"]

#: Which of the sources are for macOS. The others are of other systems, and empty there.
_SOURCE = re.compile(r"InstrProfiling(?!Platform)\w*\.c|InstrProfilingPlatform(Darwin|Other)\.c")
_CPP = "InstrProfilingRuntime.cpp"
#: As compiler-rt's own build finds them on macOS. Source: compiler-rt/lib/profile/CMakeLists.txt.
_DEFINED = ("ATOMICS", "UNAME", "FCNTL_LCK")


def archive(arch: Arch, toolchain: Toolchain, optimize: Optimize = "s") -> Path:
    """Return the profile runtime of the toolchain's own LLVM, compiled by it, an archive.

    Sources are fetched, and all is built, at first use. Raises `MissingError` where they cannot be
    had, `BuildError` where the compiler refuses them.
    """
    sources = tree.load(toolchain.major)
    names = [Path(path).name for path in sources.files]
    chosen = sorted(name for name in names if _SOURCE.fullmatch(name) or name == _CPP)
    inputs = files.digest(*sources.files.values())
    defined = tuple(f"-DCOMPILER_RT_HAS_{name}=1" for name in _DEFINED)
    flags = (*target.compile_flags(arch), "-I../../include", "-fvisibility=hidden", "-w", *defined)
    folder = sources.folder / "compiler-rt" / "lib" / "profile"
    units = [Unit(folder, name, flags, inputs, f"-O{optimize}") for name in chosen]
    jobs = [build.CompileJob(unit, toolchain, "none") for unit in units]
    place = settings.cache_dir() / "runtimes" / files.digest("macos", *(j.digest for j in jobs))

    def fill(staging: Path) -> None:
        compiled = progress.each(
            jobs,
            lambda job: build.compiled(job, settings.cache_dir()),
            f"profile runtime of {toolchain.name} for {arch}, files",
            step=lambda: None,
        )
        # Members are named after their sources, as in the archive that Apple's compiler brings.
        members = []
        for name, path in zip(chosen, compiled, strict=True):
            members.append(staging / f"{name}.o")
            members[-1].write_bytes(path.read_bytes())
        library = staging / "libclang_rt.profile_osx.a"
        run((_archiver(toolchain), "--format=darwin", "rcsD", library, *members), staging)
        for member in members:
            member.unlink()

    return files.once(place, fill) / "libclang_rt.profile_osx.a"


def run(command: process.Command, folder: Path) -> None:
    """Run a linker or an archiver in a folder; raises `BuildError` with its own words."""
    done = process.run(command, cwd=folder, limits=settings.COMPILER)
    if not done.ok:
        output = done.stderr or done.stdout
        why = f"stopped at the {done.limit} limit" if done.limit else first_line(output)
        do = "choose another LLVM, or another way to link"
        raise BuildError(Path(command[0]).name, why, do, output)


def _archiver(toolchain: Toolchain) -> Path:
    """Return an llvm-ar: it reads Mach-O objects of every processor."""
    for owner in (toolchain, *reversed(discovery.discover())):
        if owner.llvm_profdata and (path := owner.llvm_profdata.with_name("llvm-ar")).exists():
            return path
    raise LabError("llvm-ar", "not found", "pgo-lab toolchains --install 19")
