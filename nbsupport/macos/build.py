"""A program of the lab as a Mach-O executable: each part by its own LLVM, with main's runtime."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from nbsupport.audit.fate import Fate, How, LinkPiece, Sites, predict
from nbsupport.base import files, settings
from nbsupport.base.errors import LabError
from nbsupport.lab import build, programs
from nbsupport.lab.programs import Unit
from nbsupport.lab.trial import Instrument, Order
from nbsupport.macos import runtime, target
from nbsupport.macos.runtime import Optimize
from nbsupport.macos.target import Arch
from nbsupport.toolchains import Toolchain, probe

# What links is in these files: when one changes, what they built before is another thing.
_OWN_DIGEST = files.digest(Path(__file__), Path(target.__file__))


@dataclass(frozen=True)
class MachOProgram:
    """An executable for macOS, with what it was made of.

    `path` is the executable, `objects` its objects in the order of the link, `runtime` the archive
    of main's profile runtime. `main` and `foreign` are the compilers of main and of the library,
    which was instrumented as `instrument` says.
    """

    name: str
    arch: Arch
    path: Path
    objects: tuple[Path, ...]
    runtime: Path
    main: Toolchain
    foreign: Toolchain
    order: Order
    instrument: Instrument

    def foretell(self, sites: Sites | None = None) -> Fate:
        """Predict what it does, from raw versions alone; `sites` as in `fate.predict`."""
        pieces = [LinkPiece(self.main.raw_version or 0)]
        if self.instrument != "none":
            how: How = "ir" if self.instrument == "ir" else "front-end"
            pieces.append(LinkPiece(self.foreign.raw_version or 0, how))
        if self.order == "foreign-first":
            pieces.reverse()
        return predict(self.main.raw_version or 0, pieces, sites)


def build_program(
    name: str,
    arch: Arch,
    main: str,
    foreign: str,
    *,
    order: Order = "main-first",
    instrument: Instrument = "ir",
    optimize: Optimize = "s",
    fixups: bool = True,
    dead_strip: bool = False,
) -> MachOProgram:
    """Return the C program `name` of the lab for macOS, building what is not in the cache.

    `main` and `foreign` are LLVMs (see `target.compiler`): the one compiles main and brings its
    profile runtime, optimized by `optimize`; the other compiles the library, instrumented as
    `instrument` says. Both optimize the program as the lab does. `order` is that of the link,
    `fixups` asks for chained ones (else for the older opcodes), `dead_strip` drops what nothing
    refers to. Raises `LabError` for a Rust program, jemalloc, or an unknown one, `MissingError`
    without a compiler, headers or sources, `BuildError` where a compiler or the linker refuses.
    """
    _refuse(name)
    compilers = target.compiler(arch, main), target.compiler(arch, foreign)
    linker = target.linker(arch, compilers[0])
    program = programs.get(name)
    jobs = [build.CompileJob(_for_macos(program.main, arch), compilers[0], "ir")]
    for unit in program.library:
        jobs.append(build.CompileJob(_for_macos(unit, arch), compilers[1], instrument))
    if order == "foreign-first":
        jobs = [*jobs[1:], jobs[0]]
    library = runtime.archive(arch, compilers[0], optimize)
    objects = tuple(build.compiled(job, settings.cache_dir()) for job in jobs)
    flags = target.link_flags(arch, fixups=fixups, dead_strip=dead_strip)
    parts = [*(job.digest for job in jobs), *flags, name, str(library), probe.identity(linker)]
    place = settings.cache_dir() / "macos" / files.digest(_OWN_DIGEST, *parts)

    def link(staging: Path) -> None:
        inputs = (*objects, library, target.system_library())
        runtime.run((linker, *flags, *inputs, "-o", staging / name), staging)

    path = files.once(place, link) / name
    return MachOProgram(name, arch, path, objects, library, *compilers, order, instrument)


def _refuse(name: str) -> None:
    """Raise `LabError` for a program that is not built for macOS here."""
    why = "its sources are configured for this machine" if name == "jemalloc" else ""
    if programs.language(name) == "rust":
        why = "rustc needs Apple's SDK for its main"
    if why:
        raise LabError(f"program {name} for macOS", why, "choose another, such as mimalloc or cold")


def _for_macos(unit: Unit, arch: Arch) -> Unit:
    # The unit's own flags stand last: a program may be fortified.
    return dataclasses.replace(unit, flags=(*target.compile_flags(arch), *unit.flags))
