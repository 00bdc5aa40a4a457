"""Which compilers there are, and which one a name means.

Every place where one may stand is looked at when asked; each found is probed
(`nbsupport.toolchains.probe`), those that do not start are left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nbsupport.base.errors import LabError, MissingError
from nbsupport.toolchains import headers, probe, wheels
from nbsupport.toolchains.probe import Kind, Toolchain

#: Which provider a bare major version means, first match first. Apple's and rustc's
#: numbers are not LLVM's, so those are only found by their own names.
_PREFERENCE = ("wheel", "debian", "homebrew", "conda", "system", "path")
#: Those that were found by their paths, by name.
_given: dict[str, Path] = {}


def discover() -> tuple[Toolchain, ...]:
    """Return every clang and rustc found, oldest LLVM first."""
    places = dict(_places())
    with ThreadPoolExecutor() as pool:
        probed = pool.map(lambda item: _quietly(*item), places.items())
        # By name: a rustup proxy and the rustc that it stands for are one.
        found = {toolchain.name: toolchain for toolchain in probed if toolchain}
    return tuple(sorted(found.values(), key=lambda t: (_numbers(t.version), rank(t), t.name)))


def find(name: str) -> Toolchain:
    """Return the clang (or gcc) that `name` means: `19`, `19@debian`, `gcc`, or a path.

    A bare number takes the wheel first, then the system's. Raises `MissingError` that
    says which there are and what installs the one asked for.
    """
    if name == "gcc":
        return _gcc()
    if os.sep in name or name in _given:
        return _at_path(_given.get(name) or Path(name).expanduser())
    toolchains = discover()
    matches = [t for t in toolchains if name == t.name or (t.kind == "clang" and _bare(t, name))]
    if matches:
        return min(matches, key=rank)
    raise MissingError(
        f"toolchain {name}", f"not found (there are {_list(toolchains, 'clang')})", how_to_get(name)
    )


def find_rustc(name: str) -> Toolchain:
    """Return the rustc whose LLVM is `name` (`19`, `19@rustc-1.85.0`, a path), or that clang's."""
    if os.sep in name:
        compiler = _at_path(Path(name).expanduser())
        if compiler.kind == "rustc":
            return compiler
        name = compiler.major
    toolchains = discover()
    major = name.partition("@")[0]
    exact = [t for t in toolchains if t.name == name and t.kind == "rustc"]
    matches = exact or [t for t in toolchains if t.kind == "rustc" and t.major == major]
    if matches:
        return matches[0]
    raise MissingError(
        f"a rustc with LLVM {major}",
        f"not found (there are {_list(toolchains, 'rustc')})",
        "pgo-lab toolchains --install rustc-web (the user's rustc 1.85.0, LLVM 19), or rustup",
    )


def companion(rustc: Toolchain) -> Toolchain:
    """Return the clang that links for a rustc and compiles C beside it: of its LLVM if possible."""
    clangs = [t for t in discover() if t.kind == "clang" and t.runtime]
    if not clangs:
        raise MissingError(f"a clang beside {rustc.name}", "none found", how_to_get(rustc.major))
    return min(
        clangs,
        key=lambda t: (t.major != rustc.major, t.raw_version != rustc.raw_version, rank(t)),
    )


def find_lldb() -> Path | None:
    """Return an LLDB, the newest toolchain's first, or None."""
    for toolchain in reversed(discover()):
        if toolchain.lldb:
            return toolchain.lldb
    for name in ("lldb", *(f"lldb-{major}" for major in range(30, 13, -1))):
        if found := shutil.which(name):
            return Path(found)
    return None


def _bare(toolchain: Toolchain, name: str) -> bool:
    return toolchain.provider in _PREFERENCE and name in (toolchain.major, toolchain.version)


def rank(toolchain: Toolchain) -> int:
    """Return the place of its provider among those that a bare number may mean, the first first."""
    known = toolchain.provider in _PREFERENCE
    return _PREFERENCE.index(toolchain.provider) if known else len(_PREFERENCE)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _list(there: tuple[Toolchain, ...], kind: Kind) -> str:
    return ", ".join(t.name for t in there if t.kind == kind) or f"no {kind} at all"


def how_to_get(name: str) -> str:
    """Return what to do for want of the toolchain `name` (`19`, `19@debian`)."""
    major = name.partition("@")[0]
    with contextlib.suppress(MissingError):
        version = wheels.find(major).version
        if wheels.supported():
            return f"pgo-lab toolchains --install {version}"
        return f"install LLVM {version} with the system's packages (brew install llvm@{major})"
    return "name one of them, or give the path of a clang"


def _quietly(compiler: Path, provider: str) -> Toolchain | None:
    try:
        return _probed(compiler, provider)
    except (LabError, OSError):
        return None


def _probed(compiler: Path, provider: str) -> Toolchain:
    """Probe a compiler; a layout that is not known is learned from it, if it has a header."""
    found = probe.probe(compiler, provider)
    with contextlib.suppress(LabError):  # it still compiles; `headers.learned` says what is amiss
        headers.learned(found)
    return found


def _places() -> Iterator[tuple[Path, str]]:
    """Yield (compiler, provider) for every place where one stands, each compiler once."""
    seen: set[Path] = set()
    for compiler, provider in _candidates():
        if compiler.is_file() and (real := compiler.resolve()) not in seen:
            seen.add(real)
            yield compiler, provider


def _candidates() -> Iterator[tuple[Path, str]]:
    for prefix in sorted(wheels.folder().glob("llvm-*")):
        yield prefix / "bin" / "clang", "wheel"
    for prefix in sorted(Path("/usr/lib").glob("llvm-*")):
        yield prefix / "bin" / "clang", "debian"
    for brew in ("/opt/homebrew", "/usr/local", "/home/linuxbrew/.linuxbrew"):
        for prefix in sorted(Path(brew, "opt").glob("llvm*")):
            yield prefix / "bin" / "clang", "homebrew"
    if conda := os.environ.get("CONDA_PREFIX"):
        yield Path(conda, "bin", "clang"), "conda"
    if sys.platform == "darwin":
        yield Path("/usr/bin/clang"), "apple"
    for name in ("clang", "rustc"):
        if path := shutil.which(name):
            yield Path(path), "system"
    rustup = Path(os.environ.get("RUSTUP_HOME", Path.home() / ".rustup"))
    for prefix in sorted((rustup / "toolchains").glob("*")):
        yield prefix / "bin" / "rustc", "rustup"
    for prefix in sorted(wheels.folder().glob("rustc-*")):
        yield prefix / "usr" / "bin" / "rustc", "rustc-web"


def _gcc() -> Toolchain:
    found = shutil.which("gcc")
    if found is None:
        raise MissingError("gcc", "not found", "install gcc with the system's packages")
    toolchain = probe.probe(Path(found), "system")
    if toolchain.kind != "gcc":  # macOS: gcc is a name of Apple's clang
        raise MissingError("gcc", f"{found} is a clang", "brew install gcc, and give its path")
    return toolchain


def _at_path(path: Path) -> Toolchain:
    if path.is_dir():
        path = path / "bin" / "clang"
    if not os.access(path, os.X_OK) or not path.is_file():
        raise MissingError(str(path), "no compiler there", "give the path of a clang or its prefix")
    # What it says is what it is, wherever it stands; an alias of a known one keeps its name.
    for place, provider in _places():
        if place.resolve() == path.resolve():
            return _probed(place, provider)
    toolchain = _probed(path.absolute(), "path")
    taken = toolchain.name.partition("@")[2] in (*_PREFERENCE, "apple")
    if taken or _given.setdefault(toolchain.name, toolchain.compiler) != toolchain.compiler:
        return dataclasses.replace(toolchain, name=str(toolchain.compiler))  # two of one name
    return toolchain
