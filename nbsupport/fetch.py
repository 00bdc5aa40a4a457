"""What the lab downloads besides wheels: sources of allocators, and the user's own rustc.

Each file is pinned by SHA-256 (`data/sources.toml`), checked, unpacked into the cache, and
not kept. A folder appears there whole, or not at all.
"""

from __future__ import annotations

import hashlib
import http.client
import platform
import sys
import tarfile
import tempfile
import tomllib
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbsupport import apt, files, progress, settings
from nbsupport.errors import LabError, MissingError, first_line

#: Where Debian on x86-64 keeps shared libraries (its multiarch folder).
_LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")

#: Debian's rustc expects its libraries in the system's folders. LD_LIBRARY_PATH would reach
#: the linker that it starts too, and give a clang of the same LLVM the wrong libLLVM; so the
#: dynamic loader is told by its own option, which no child inherits.
_RUSTC = """\
#!/bin/sh
usr=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd) || exit
unset LD_LIBRARY_PATH
exec /lib64/ld-linux-x86-64.so.2 --library-path "$usr/lib/x86_64-linux-gnu" \\
  "$usr/libexec/rustc" "$@"
"""


@dataclass(frozen=True)
class Archive:
    """One file to download, of `size` bytes (0: not known).

    From `apt` (the system's Debian archive; a package, `name=version`), or from `url`.
    Where the system has the shared library `unless`, it is not needed.
    """

    file: str
    sha256: str
    size: int = 0
    apt: str = ""
    url: str = ""
    unless: str = ""


def source(name: str, *, cache: Path | None = None, say: files.Say = progress.say) -> Path:
    """Return the folder with the sources of `mimalloc` or `jemalloc`, which is not to be changed.

    Downloaded, checked and unpacked at first use. Raises `LabError` for an unknown name,
    a wrong hash, no space; `MissingError` where they cannot be had (no network).
    """
    cache = cache or settings.cache_dir()
    folder, archives = pinned(name)

    def make(staging: Path) -> None:
        with tempfile.TemporaryDirectory(dir=staging) as work:
            _untar(_first(archives, Path(work), cache, say), Path(work, "unpacked"), staging)

    return files.once(cache / "sources" / folder, make, say=say)


def rustc_web(*, cache: Path | None = None, say: files.Say = progress.say) -> Path:
    """Return the prefix of Debian 12's rustc-web 1.85.0 (LLVM 19.1.7): `usr/bin/rustc` in it.

    No root is needed, and nothing in its environment. Raises `MissingError` where it cannot
    run or be had, `LabError` as `source` does.
    """
    cache = cache or settings.cache_dir()
    folder, archives = pinned("rustc-web")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise MissingError(
            "rustc-web 1.85.0",
            f"it is for Linux x86-64, not {sys.platform} {platform.machine()}",
            "install the toolchain 1.85.0 with rustup, which has the same LLVM",
        )

    def make(staging: Path) -> None:
        with tempfile.TemporaryDirectory(dir=staging) as work:
            for archive in archives:
                if not archive.unless or not (_LIBRARIES / archive.unless).exists():
                    _undeb(_first([archive], Path(work), cache, say), staging)
        wrapper, real = staging / "usr" / "bin" / "rustc", staging / "usr" / "libexec" / "rustc"
        real.parent.mkdir(exist_ok=True)
        wrapper.rename(real)
        wrapper.write_text(_RUSTC)
        wrapper.chmod(0o755)

    return files.once(cache / "toolchains" / folder, make, say=say)


def pinned(name: str) -> tuple[str, list[Archive]]:
    """Return what `data/sources.toml` says: a folder's name, which follows the pins; its files."""
    known = tomllib.loads((settings.data_dir() / "sources.toml").read_text())
    if name not in known:
        raise LabError(f"sources of {name}", "not known", f"choose from {', '.join(known)}")
    archives = [Archive(**fields) for fields in known[name]["archive"]]
    pins = "".join(archive.sha256 for archive in archives)
    digest = hashlib.sha256(pins.encode()).hexdigest()[:8]
    return f"{name}-{known[name]['version']}-{digest}", archives


def _first(alternatives: Sequence[Archive], work: Path, cache: Path, say: files.Say) -> Path:
    """Return the first of the alternatives that can be had, downloaded and checked."""
    reasons = []
    for archive in alternatives:
        try:
            return _get(archive, Path(tempfile.mkdtemp(dir=work)), cache, say)
        except MissingError as error:
            reasons.append(f"{error.what}: {error.why}")
    raise MissingError(
        f"downloading {alternatives[0].file}",
        "; ".join(reasons),
        "check the network, or copy the cache folder of a machine that has it",
    )


def _get(archive: Archive, folder: Path, cache: Path, say: files.Say) -> Path:
    size = f"{archive.size / 1e6:.1f} MB" if archive.size else "size unknown"
    say(f"{archive.file}: {size}, into {cache}")
    with progress.growing(archive.file, folder, archive.size):
        if archive.apt:
            kind: apt.Kind = "download" if archive.file.endswith(".deb") else "source"
            got = apt.download(kind, archive.apt, folder, cache=cache, say=say)
        else:
            got = _from_url(archive.url, folder / archive.file)
    found = hashlib.sha256(got.read_bytes()).hexdigest()
    if found != archive.sha256:
        raise LabError(
            archive.file,
            f"its SHA-256 is {found}, not the pinned {archive.sha256}",
            "it was not kept; try again, and do not use it if this stays so",
        )
    return got


def _from_url(url: str, target: Path) -> Path:
    try:
        # The address is pinned data (https), and so is what it must yield: a MB or less.
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
            content: bytes = answer.read()
    except (http.client.HTTPException, OSError) as error:
        host, reason = url.split("/")[2], getattr(error, "reason", error)
        raise MissingError(host, str(reason), "check the network") from error
    target.write_bytes(content)
    return target


def _untar(archive: Path, work: Path, folder: Path) -> None:
    """Unpack a tar archive into a folder, without its single top folder."""
    with tarfile.open(archive) as tar:
        # Pinned, so trusted: Debian 12's Python 3.11.2 has no filter yet, 3.12 asks for one.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(work)  # noqa: S202
    (top,) = work.iterdir()
    for part in top.iterdir():
        part.rename(folder / part.name)


def _undeb(archive: Path, folder: Path) -> None:
    done = files.run_tool(("dpkg-deb", "-x", archive, folder), folder)
    if not done.ok:
        raise LabError(f"unpacking {archive.name}", first_line(done.stderr), "try again")
