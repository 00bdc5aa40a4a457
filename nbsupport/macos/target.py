"""What compiles and links for macOS here: which compiler for which processor, and with which flags.

Headers and the list of libSystem's symbols are those of macOS 14, out of Zig's wheel: a stand-in
for Apple's SDK. The linker is LLVM's, not Apple's.
"""

from pathlib import Path
from typing import Literal

from nbsupport.base.errors import MissingError
from nbsupport.toolchains import Toolchain, discovery, download, probe, wheels

Arch = Literal["arm64", "x86_64"]

#: The oldest macOS that the programs run on: the first whose x86-64 programs may have chained
#: fixups, too. Source: shouldEmitChainedFixups in lld/MachO/Driver.cpp.
_OLDEST = "13.0"
#: The version of the SDK that the headers are of.
_SDK = "14.0"
#: What LLVM calls the code generators.
_BACKENDS = {"arm64": "aarch64", "x86_64": "x86-64"}
#: Those of Debian that the cache has for arm64.
_UNPACKED = ("16", "19")


def compiler(arch: Arch, version: str) -> Toolchain:
    """Return the clang that `version` means and that generates code for a processor.

    For x86_64 that is what `toolchains.find` returns. The LLVM wheels know no other processor:
    for arm64, `16` and `19` are Debian's, downloaded at first use. Raises `MissingError` where
    there is none, or it cannot generate code for `arch`.
    """
    if arch == "arm64" and version in _UNPACKED:
        path = download.debian_clangs() / "usr" / "bin" / f"clang-{version}"
        return probe.probe(path, "debian-clang")
    toolchain = discovery.find(version)
    if toolchain.kind != "clang" or _BACKENDS[arch] not in toolchain.targets:
        why = f"{toolchain.name} generates no code for {arch}"
        do = f"choose {' or '.join(_UNPACKED)}, or give the path of a clang that does"
        raise MissingError(f"a compiler for {arch}-apple-macos", why, do)
    return toolchain


def linker(arch: Arch, main: Toolchain) -> Path:
    """Return the ld64.lld that links a program: for arm64 Debian's 19, else that beside main."""
    if arch == "arm64" and main.provider == "debian-clang":
        return download.debian_clangs() / "usr" / "bin" / "ld64.lld-19"
    path = main.prefix / "bin" / "ld64.lld"
    if not path.exists():
        do = "choose an LLVM that pgo-lab installs, or install its lld"
        raise MissingError("ld64.lld", f"not beside {main.compiler}", do)
    return path


def compile_flags(arch: Arch) -> tuple[str, ...]:
    """Return what makes a clang compile for macOS, with headers of macOS only.

    Apple's headers fortify of themselves (`_types.h`), so that memory operations are other calls;
    here they do not, as Linux's do not: counts can then be compared.
    """
    include = wheels.headers_of_macos() / "include"
    # Behind the compiler's own headers, as those of an SDK are.
    where = ("-nostdlibinc", "-idirafter", str(include))
    return (f"--target={arch}-apple-macos{_OLDEST}", *where, "-D_FORTIFY_SOURCE=0")


def link_flags(arch: Arch, *, fixups: bool, dead_strip: bool) -> tuple[str, ...]:
    """Return what ld64.lld is told besides objects: chained fixups or none, dead code dropped."""
    chained = "-fixup_chains" if fixups else "-no_fixup_chains"
    flags = ("-arch", arch, "-platform_version", "macos", _OLDEST, _SDK, chained)
    return (*flags, "-dead_strip") if dead_strip else flags


def system_library() -> Path:
    """Return the list of symbols that stands for libSystem when a program is linked."""
    return wheels.headers_of_macos() / "libSystem.tbd"
