"""Which compilers there are, and which one a name means."""

import contextlib
import dataclasses
import itertools
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
    """Return every clang and rustc that is there and starts, oldest LLVM first."""
    with ThreadPoolExecutor() as pool:
        # By name: a rustup proxy and the rustc that it stands for are one.
        by_name = {t.name: t for t in pool.map(_quietly, _places().values()) if t}

    def age(toolchain: Toolchain) -> tuple[list[int], int, str]:
        numbers = [int(part) for part in re.findall(r"\d+", toolchain.version)]
        return numbers, rank(toolchain), toolchain.name

    return tuple(sorted(by_name.values(), key=age))


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
    numbered = [t for t in toolchains if t.kind == "clang" and t.provider in _PREFERENCE]
    matches = [t for t in numbered if name in (t.major, t.version)]
    matches += [t for t in toolchains if name == t.name]
    if matches:
        return min(matches, key=rank)
    raise MissingError(f"toolchain {name}", _absent(toolchains, "clang"), how_to_get(name))


def find_rustc(name: str) -> Toolchain:
    """Return the rustc whose LLVM is `name` (`19`, `19@rustc-1.85.0`, a path), or that clang's."""
    if os.sep in name:
        compiler = _at_path(Path(name).expanduser())
        if compiler.kind == "rustc":
            return compiler
        name = compiler.major
    toolchains = discover()
    major = name.partition("@")[0]
    matches = [t for t in toolchains if t.kind == "rustc" and t.major == major]
    if matches:
        return next((t for t in matches if t.name == name), matches[0])
    do = "pgo-lab toolchains --install rustc-web (the user's rustc 1.85.0, LLVM 19), or rustup"
    raise MissingError(f"a rustc with LLVM {major}", _absent(toolchains, "rustc"), do)


def companion(rustc: Toolchain) -> Toolchain:
    """Return the clang that links for a rustc and compiles C beside it: of its LLVM if possible."""
    clangs = [t for t in discover() if t.kind == "clang" and t.runtime]
    if not clangs:
        raise MissingError(f"a clang beside {rustc.name}", "none found", how_to_get(rustc.major))
    llvm, version = rustc.major, rustc.raw_version
    return min(clangs, key=lambda t: (t.major != llvm, t.raw_version != version, rank(t)))


def find_lldb() -> Path | None:
    """Return an LLDB, the newest toolchain's first, or None."""
    own = (toolchain.lldb for toolchain in reversed(discover()))
    names = ("lldb", *(f"lldb-{major}" for major in range(30, 13, -1)))
    places = itertools.chain(own, map(shutil.which, names))
    return next((Path(lldb) for lldb in places if lldb), None)


def rank(toolchain: Toolchain) -> int:
    """Return the place of its provider among those that a bare number may mean, the first first."""
    return (*_PREFERENCE, toolchain.provider).index(toolchain.provider)


def _absent(toolchains: tuple[Toolchain, ...], kind: Kind) -> str:
    names = ", ".join(t.name for t in toolchains if t.kind == kind) or f"no {kind} at all"
    return f"not found (there are {names})"


def how_to_get(name: str) -> str:
    """Return what to do without the toolchain `name` (`19`, `19@debian`)."""
    major = name.partition("@")[0]
    with contextlib.suppress(MissingError):
        version = wheels.find(major).version
        if wheels.supported():
            return f"pgo-lab toolchains --install {version}"
        return f"install LLVM {version} with the system's packages (brew install llvm@{major})"
    return "name one of them, or give the path of a clang"


def _quietly(place: tuple[Path, str]) -> Toolchain | None:
    with contextlib.suppress(LabError, OSError):
        return _probed(*place)
    return None


def _probed(compiler: Path, provider: str) -> Toolchain:
    """Probe a compiler; a layout that is not known is learned from it, if it has a header."""
    found = probe.probe(compiler, provider)
    with contextlib.suppress(LabError):  # it still compiles; `headers.learned` says what is amiss
        headers.learned(found)
    return found


def _places() -> dict[Path, tuple[Path, str]]:
    """Return where each compiler stands first, and its provider, by its real path."""
    places: dict[Path, tuple[Path, str]] = {}
    for compiler, provider in _candidates():
        if compiler.is_file():
            places.setdefault(compiler.resolve(), (compiler, provider))
    return places


def _candidates() -> Iterator[tuple[Path, str]]:
    rustup = Path(os.environ.get("RUSTUP_HOME", Path.home() / ".rustup"))
    patterns = (
        (wheels.folder(), "llvm-*/bin/clang", "wheel"),
        (Path("/usr/lib"), "llvm-*/bin/clang", "debian"),
        (Path("/opt/homebrew/opt"), "llvm*/bin/clang", "homebrew"),
        (Path("/usr/local/opt"), "llvm*/bin/clang", "homebrew"),
        (Path("/home/linuxbrew/.linuxbrew/opt"), "llvm*/bin/clang", "homebrew"),
        (rustup / "toolchains", "*/bin/rustc", "rustup"),
        (wheels.folder(), "rustc-*/usr/bin/rustc", "rustc-web"),
    )
    for folder, pattern, provider in patterns:
        for compiler in sorted(folder.glob(pattern)):
            yield compiler, provider
    if conda := os.environ.get("CONDA_PREFIX"):
        yield Path(conda, "bin", "clang"), "conda"
    if sys.platform == "darwin":
        yield Path("/usr/bin/clang"), "apple"
    for name in ("clang", "rustc"):
        if path := shutil.which(name):
            yield Path(path), "system"


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
    if place := _places().get(path.resolve()):
        return _probed(*place)
    toolchain = _probed(path.absolute(), "path")
    taken = toolchain.name.partition("@")[2] in (*_PREFERENCE, "apple")
    if taken or _given.setdefault(toolchain.name, toolchain.compiler) != toolchain.compiler:
        return dataclasses.replace(toolchain, name=str(toolchain.compiler))  # two of one name
    return toolchain
