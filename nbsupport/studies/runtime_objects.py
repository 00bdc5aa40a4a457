"""The objects of another LLVM's profile runtime, each alone before the archive that main brings.

A linker takes from an archive what nothing before it defines: of one object that stands first, it
takes the functions, and the rest of main's own runtime. Reader and writer of one record are then
of two LLVMs, though all records are of one layout.
"""

from collections.abc import Mapping
from pathlib import Path

from nbsupport.base import files, process, settings
from nbsupport.base.errors import BuildError, MissingError, first_line
from nbsupport.toolchains import Toolchain, profdata


def extract(toolchain: Toolchain) -> Mapping[str, Path]:
    """Return the objects of a toolchain's profile runtime by the names of their sources.

    They are unpacked once, into the cache folder. Raises `MissingError` where the toolchain has no
    runtime, `BuildError` where its llvm-ar cannot read it (a universal one of macOS).
    """
    if toolchain.runtime is None:
        raise MissingError(f"{toolchain.name}'s profile runtime", "not found", "install it")
    target = settings.cache_dir() / "runtimes" / files.sha256(toolchain.runtime)
    command = (profdata.tool(toolchain).with_name("llvm-ar"), "x", toolchain.runtime.absolute())

    def unpack(staging: Path) -> None:
        done = process.run(command, cwd=staging, limits=settings.COMPILER)
        if not done.ok:
            raise BuildError("unpacking the profile runtime", first_line(done.stderr), "", "")

    objects = sorted(files.once(target, unpack).glob("*.o"))
    return {path.name.removesuffix(".o"): path for path in objects}
