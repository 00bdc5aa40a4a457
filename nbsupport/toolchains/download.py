"""What the lab downloads besides wheels: sources of allocators and LLVM, the user's own rustc.

Each file is pinned by SHA-256 (`data/sources.toml`), checked, unpacked into the cache, and
not kept. A folder appears there whole, or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import http
import http.client
import platform
import sys
import tarfile
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbsupport.base import files, progress, settings
from nbsupport.base.errors import LabError, MissingError, first_line
from nbsupport.toolchains import apt

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


#: More bytes than this of a file whose size is not known are refused.
_MOST = 64 * settings.MIB


class AbsentError(MissingError):
    """The host answers, and has no such file (HTTP 404)."""


@dataclass(frozen=True)
class Archive:
    """One file to download, of `size` bytes (0: not known).

    From `apt` (the system's Debian archive; a package, `name=version`), from `url`, or from
    the folder of the source package `pool` in that archive's pool, which has more than its
    lists do. Where the system has the shared library `unless`, it is not needed.
    """

    file: str
    sha256: str
    size: int = 0
    apt: str = ""
    url: str = ""
    pool: str = ""
    unless: str = ""


def source(name: str, *, say: files.Say = progress.say) -> Path:
    """Return the folder with the sources of `mimalloc` or `jemalloc`, which is not to be changed.

    Downloaded, checked and unpacked at first use. Raises `LabError` for an unknown name,
    a wrong hash, no space; `MissingError` where they cannot be had (no network).
    """
    folder, archives = pinned(name)

    def make(staging: Path) -> None:
        with tempfile.TemporaryDirectory(dir=staging) as work:
            _untar(_first(archives, Path(work), say), Path(work, "unpacked"), staging)

    return files.once(settings.cache_dir() / "sources" / folder, make, say=say)


def rustc_web(*, say: files.Say = progress.say) -> Path:
    """Return the prefix of Debian 12's rustc-web 1.85.0 (LLVM 19.1.7): `usr/bin/rustc` in it.

    No root is needed, and nothing in its environment. Raises `MissingError` where it cannot
    run or be had, `LabError` as `source` does.
    """
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
                    _undeb(_first([archive], Path(work), say), staging)
        wrapper, real = staging / "usr" / "bin" / "rustc", staging / "usr" / "libexec" / "rustc"
        real.parent.mkdir(exist_ok=True)
        wrapper.rename(real)
        wrapper.write_text(_RUSTC)
        wrapper.chmod(0o755)

    return files.once(settings.cache_dir() / "toolchains" / folder, make, say=say)


def pinned(name: str) -> tuple[str, list[Archive]]:
    """Return what `data/sources.toml` says: a folder's name, which follows the pins; its files."""
    known = tomllib.loads((settings.data_dir() / "sources.toml").read_text())
    if name not in known:
        raise LabError(f"sources of {name}", "not known", f"choose from {', '.join(known)}")
    archives = [Archive(**fields) for fields in known[name]["archive"]]
    pins = "".join(archive.sha256 for archive in archives)
    digest = hashlib.sha256(pins.encode()).hexdigest()[:8]
    return f"{name}-{known[name]['version']}-{digest}", archives


def _first(alternatives: Sequence[Archive], work: Path, say: files.Say) -> Path:
    """Return the first of the alternatives that can be had, downloaded and checked."""
    reasons = []
    for archive in alternatives:
        try:
            return get(archive, Path(tempfile.mkdtemp(dir=work)), say)
        except MissingError as error:
            reasons.append(f"{error.what}: {error.why}")
    raise MissingError(
        f"downloading {alternatives[0].file}",
        "; ".join(reasons),
        "check the network, or copy the cache folder of a machine that has it",
    )


def get(archive: Archive, folder: Path, say: files.Say = progress.say) -> Path:
    """Download a file into an empty folder, check it, and return it.

    Raises `MissingError` where it cannot be had, `LabError` for a wrong hash or no space.
    """
    size = f"{archive.size / 1e6:.1f} MB" if archive.size else "size unknown"
    say(f"{archive.file}: {size}, into {settings.cache_dir()}")
    files.require(archive.size, folder, archive.file)
    with progress.growing(archive.file, folder, archive.size):
        if archive.apt:
            kind: apt.Kind = "download" if archive.file.endswith(".deb") else "source"
            got = apt.download(kind, archive.apt, folder, say=say)
        elif archive.pool:
            got = _from_pool(archive, folder / archive.file, say)
        else:
            got = from_url(archive.url, folder / archive.file, archive.size)
    with got.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        raise LabError(
            archive.file,
            f"its SHA-256 is {found}, not the pinned {archive.sha256}",
            "it was not kept; try again, and do not use it if this stays so",
        )
    return got


def _from_pool(archive: Archive, target: Path, say: files.Say) -> Path:
    reasons = {}
    for base in apt.archives(say=say):
        for component in ("main", "universe"):  # where Debian, and Ubuntu, have free software
            place = f"{base}pool/{component}/{archive.pool[0]}/{archive.pool}/"
            try:
                return from_url(place + archive.file, target, archive.size)
            except MissingError as error:
                reasons[base] = f"{error.what}: {error.why}"
    why = "; ".join(dict.fromkeys(reasons.values())) or "the system has no archive on the network"
    raise MissingError(archive.file, why, "check the network and the system's apt sources")


def from_url(url: str, target: Path, most: int = 0) -> Path:
    """Download `url` to the file `target`, of at most so many bytes, and return it.

    Raises `AbsentError` where the host has no such file, `MissingError` where the host cannot
    be reached or stops half-way, `LabError` for more bytes than expected.
    """
    host, came = url.split("/")[2], 0
    try:
        # The address is pinned data, or the system's own archive.
        with urllib.request.urlopen(url, timeout=30) as answer, target.open("wb") as file:  # noqa: S310
            while chunk := answer.read(settings.MIB):
                came += file.write(chunk)
                if came > (most or _MOST):
                    raise LabError(url, f"more than {most or _MOST} bytes came", "do not use it")
            length = answer.headers["Content-Length"] or ""
    except (http.client.HTTPException, OSError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        if isinstance(error, urllib.error.HTTPError) and error.code == http.HTTPStatus.NOT_FOUND:
            raise AbsentError(host, f"it has no {error.url}", "check the name") from error
        raise MissingError(
            host, str(getattr(error, "reason", error)), "check the network"
        ) from error
    if length.isdecimal() and came < int(length):
        raise MissingError(host, f"{came} of {length} bytes came", "check the network")
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
