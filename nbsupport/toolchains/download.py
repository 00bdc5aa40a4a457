"""What the lab downloads: toolchains by name; sources of allocators and projects, archives.

Each file is pinned by SHA-256 (`data/sources.toml`), checked, unpacked into the cache, not kept.
"""

import contextlib
import dataclasses
import errno
import gzip
import http.client
import lzma
import shutil
import sys
import tarfile
import tempfile
import tomllib
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbsupport.base import files, progress, settings
from nbsupport.base.errors import AbsentError, LabError, MissingError, first_line, from_os
from nbsupport.toolchains import apt, wheels

#: How many are brought at a time: one waits for the network while another is unpacked.
_JOBS = 3


#: How an xz file begins whose blocks have a CRC64, as all of Debian's; so blocks can be read alone.
#: Source: The .xz File Format, 2.1.1.
_XZ = bytes.fromhex("fd377a585a000004e6d6b446")


@dataclass(frozen=True)
class Archive:
    """One file to download, of `size` bytes (0: not known).

    From the system's Debian archive: the folder of the source package `pool` in its pool, which
    has more than its lists do and needs none, or else `apt` (a package, `name=version`). From
    `url`, or the sources of a `package` (`name==version`) of the Python package index. Where the
    system has the shared library `unless`, it is not needed. `part`: what `get_part` takes of it,
    blocks of an xz archive from byte to byte.
    """

    file: str
    sha256: str
    size: int = 0
    apt: str = ""
    url: str = ""
    pool: str = ""
    package: str = ""
    unless: str = ""
    part: tuple[int, ...] = ()


def source(name: str) -> Path:
    """Return the folder with the sources of `mimalloc` or `jemalloc`, which is not to be changed.

    Downloaded, checked and unpacked at first use. Raises `LabError` for an unknown name,
    a wrong hash, no space; `MissingError` where they cannot be had (no network).
    """
    return unpacked(*pinned(name))


def unpacked(name: str, alternatives: Sequence[Archive]) -> Path:
    """Return the cache's folder `name`, of what is in a tar archive, without its single top folder.

    The first of the `alternatives` that is available is downloaded, checked and unpacked, once. One
    without a SHA-256 has to stay as it is at first. Raises as `source` does.
    """
    target = settings.cache_dir() / "sources" / name
    note = target.with_name(f"{name}.sha256")

    def make(staging: Path) -> None:
        with tempfile.TemporaryDirectory(dir=staging) as work:
            known = note.read_text() if note.exists() else ""
            pins = [dataclasses.replace(a, sha256=a.sha256 or known) for a in alternatives]
            file = get(pins[0], Path(work)) if len(pins) == 1 else _first(pins, Path(work))
            _untar(file, Path(work, "unpacked"), staging)
            if not all(archive.sha256 for archive in pins):
                came = files.sha256(file)
                files.write(note, came)
                progress.say(f"{file.name}: no SHA-256 is pinned; from now on it has to be {came}")

    return files.once(target, make)


def rustc_web() -> Path:
    """Return the prefix of Debian 12's rustc-web 1.85.0 (LLVM 19.1.7): `usr/bin/rustc` in it.

    No root is needed, and nothing in its environment. Raises `MissingError` where it cannot
    run or be had, `LabError` as `source` does.
    """
    do = "install the toolchain 1.85.0 with rustup, which has the same LLVM"

    def finish(staging: Path) -> None:
        wrapper, real = staging / "usr" / "bin" / "rustc", staging / "usr" / "libexec" / "rustc"
        real.parent.mkdir(exist_ok=True)
        wrapper.rename(real)
        shutil.copy(settings.data_dir() / "rustc-web.sh", wrapper)
        wrapper.chmod(0o755)

    return _packages("rustc-web", do, finish)


def debian_clangs() -> Path:
    """Return the prefix of Debian 12's clang 16 and 19, and lld 19: `usr/bin/clang-16` in it.

    They generate code for all processors, which the wheels do not; as `rustc_web` in all else.
    """
    do = "choose the architecture x86_64, for which the LLVM wheels do"

    def finish(staging: Path) -> None:
        for name in ("clang-16", "clang-19", "ld64.lld-19"):
            wrapper = staging / "usr" / "bin" / name
            wrapper.unlink()  # a link to what it stands for
            shutil.copy(settings.data_dir() / "debian-clang.sh", wrapper)
            wrapper.chmod(0o755)

    return _packages("debian-clang", do, finish)


def _packages(name: str, do: str, finish: Callable[[Path], None]) -> Path:
    """Return the cache's folder with what is in pinned Debian packages, as `finish` leaves it."""
    folder, archives = pinned(name)
    wheels.require_support(folder.rpartition("-")[0], "it is", do)

    def make(staging: Path) -> None:
        # On x86-64, Debian's shared libraries are in its multiarch folder.
        libraries = Path("/usr/lib/x86_64-linux-gnu")
        needed = [a for a in archives if not (a.unless and (libraries / a.unless).exists())]
        with tempfile.TemporaryDirectory(dir=staging) as work:

            def bring(archive: Archive) -> None:
                _undeb(_first([archive], Path(work)), staging)

            progress.each(needed, bring, f"{name}, packages", jobs=_JOBS, step=lambda: None)
        finish(staging)

    return files.once(wheels.folder() / folder, make)


def pinned(name: str) -> tuple[str, list[Archive]]:
    """Return what `data/sources.toml` says: a folder's name, which follows the pins; its files."""
    known = files.read_toml(settings.data_dir() / "sources.toml")
    if name not in known:
        raise LabError(f"sources of {name}", "not known", f"choose from {', '.join(known)}")
    tables = known[name]["archive"]
    archives = [files.load(Archive, table, f"sources of {name}") for table in tables]
    key = files.digest("".join(archive.sha256 for archive in archives))[:8]
    return f"{name}-{known[name]['version']}-{key}", archives


def _first(alternatives: Sequence[Archive], work: Path) -> Path:
    """Return the first of the alternatives that is available, downloaded and checked."""
    reasons = []
    for archive in alternatives:
        try:
            return get(archive, Path(tempfile.mkdtemp(dir=work)))
        except MissingError as error:
            reasons.append(f"{error.what}: {error.why}")
    do = "check the network, or copy the cache folder of a machine that has it"
    raise MissingError(f"downloading {alternatives[0].file}", "; ".join(reasons), do)


def get(archive: Archive, folder: Path) -> Path:
    """Download a file into an empty folder, check it, and return it.

    Raises `MissingError` where it cannot be had, `LabError` for a wrong hash or no space.
    """
    size = f"{archive.size / 1e6:.1f} MB" if archive.size else "size unknown"
    progress.say(f"{archive.file}: {size}, into {settings.cache_dir()}")
    files.require(archive.size, folder, archive.file)
    with progress.growing(archive.file, folder, archive.size):
        if archive.pool or archive.apt:
            file = _from_system(archive, folder)
        else:
            url = archive.url or _sdist(archive.package)
            file = from_url(url, folder / archive.file, archive.size)
    came = files.sha256(file)
    if archive.sha256 not in ("", came):
        why = f"its SHA-256 is {came}, not the pinned {archive.sha256}"
        do = "it was not kept; try again, and do not use it if this stays so"
        raise LabError(archive.file, why, do)
    return file


def get_part(archive: Archive, folder: Path) -> bytes:
    """Download the `part` of an xz archive in the pool into an empty folder; return it unpacked.

    Nothing says yet that it is as it should be: check what is in it. Raises `MissingError` where
    it cannot be had, or is not whole blocks.
    """
    start, end = archive.part
    size = end - start
    progress.say(f"{archive.file}: {size / 1e6:.1f} MB of it, into {settings.cache_dir()}")

    def fetch(url: str, target: Path) -> Path:
        return from_url(url, target, size, start)

    packed = _from_pool(archive, folder, fetch).read_bytes()
    try:
        return lzma.LZMADecompressor().decompress(_XZ + packed, 256 * settings.MIB)
    except lzma.LZMAError as error:
        raise MissingError(archive.file, f"not blocks of xz ({error})", "take all of it") from error


def _from_system(archive: Archive, folder: Path) -> Path:
    """Download from the system's Debian archive: lists take longer than most files."""
    try:
        if archive.pool:
            return _from_pool(archive, folder)
    except MissingError:
        if not archive.apt:
            raise
    return apt.download(archive.apt, archive.file, folder)


def _from_pool(
    archive: Archive, folder: Path, fetch: Callable[[str, Path], Path] = apt.fetch
) -> Path:
    reasons, silent = {}, set[str]()  # hosts that do not answer: asked once, not in 12 s
    letter = archive.pool[: 4 if archive.pool.startswith("lib") else 1]
    for base in apt.archives():
        host = base.split("/")[2]
        for component in ("main", "universe"):  # where Debian, and Ubuntu, have free software
            if host in silent:
                break
            place = f"{base}pool/{component}/{letter}/{archive.pool}/"
            try:
                with tempfile.TemporaryDirectory(dir=folder) as work:
                    came = fetch(place + archive.file, Path(work, archive.file))
                    return came.rename(folder / archive.file)
            except MissingError as error:
                reasons[base] = f"{error.what}: {error.why}"
                if not isinstance(error, AbsentError):
                    silent.add(host)
    why = "; ".join(dict.fromkeys(reasons.values())) or "the system has no archive on the network"
    raise MissingError(archive.file, why, "check the network and the system's apt sources")


def _sdist(package: str) -> str:
    """Return where the package index that uv is set to has a package's sources."""
    # A kernel asks all tools for colours (FORCE_COLOR), which are not TOML.
    ask = ("pip", "compile", "-q", "--color", "never", "--no-deps", "--format", "pylock.toml")
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        Path(name, "requirements.in").write_text(package)
        where = ("requirements.in", "--python", sys.executable)
        done = files.run_tool((wheels.find_uv(), *ask, *where), Path(name))
    if not done.ok:
        raise MissingError(package, first_line(done.stderr), "check the network, and the name")
    with contextlib.suppress(ValueError, LookupError):
        return str(tomllib.loads(done.stdout)["packages"][0]["sdist"]["url"])
    raise LabError(package, "the package index has no sources of it", "give a `url`")


def from_url(url: str, target: Path, most: int = 0, start: int = 0) -> Path:
    """Download `url` to the file `target`, of at most so many bytes (0: 64 MB), and return it.

    With `start` it is so many bytes from there on, of a host that serves parts of files. Raises
    `AbsentError` where the host has no such file, `MissingError` where the host cannot be reached
    or stops half-way, `LabError` for more bytes than expected.
    """
    most = most or 64 * settings.MIB
    host, came = url.split("/")[2], 0
    headers = {"Range": f"bytes={start}-{start + most - 1}"} if start else {}
    try:
        # The address is pinned data, or the system's own archive.
        request = urllib.request.Request(url, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer, target.open("wb") as file:  # noqa: S310
            if start and answer.status != 206:
                raise MissingError(host, "it serves no parts of files", "take all of it")
            while chunk := answer.read(settings.MIB):
                came += file.write(chunk)
                if came > most:
                    raise LabError(url, f"more than {most} bytes came", "do not use it")
            length = answer.headers["Content-Length"] or ""
    except (http.client.HTTPException, OSError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # an answer, too, that nobody reads
            if error.code == 404:
                raise AbsentError(host, f"it has no {error.url}", "check the name") from error
        why = str(getattr(error, "reason", error))
        raise MissingError(host, why, "check the network") from error
    if length.isdecimal() and came < int(length):
        raise MissingError(host, f"{came} of {length} bytes came", "check the network")
    return target


def _untar(archive: Path, work: Path, folder: Path) -> None:
    """Unpack a tar archive into a folder, without its single top folder."""
    try:
        with tarfile.open(archive) as tar:
            extract(tar, work)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        why = first_line(str(error))
        raise LabError(f"unpacking {archive.name}", why, "check it") from error
    (top,) = work.iterdir()
    for part in top.iterdir():
        part.rename(folder / part.name)


def extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Unpack a tar archive into a folder; raises tarfile.TarError for what would leave it."""
    # Debian 12's Python 3.11.2 has no filter yet, 3.12 asks for one.
    tar.extraction_filter = getattr(tarfile, "data_filter", None)
    tar.extractall(folder)  # noqa: S202 - pinned by hash, or our own


def _undeb(archive: Path, folder: Path) -> None:
    done = files.run_tool(("dpkg-deb", "-x", archive, folder), folder)
    if not done.ok:
        raise LabError(f"unpacking {archive.name}", first_line(done.stderr), "try again")


def install(name: str) -> None:
    """Install one LLVM, `rustc-web`, `macho`, `all`, or `report`; what is there is left alone.

    `macho` is what builds programs of macOS beside the LLVMs: Debian's clangs, and headers. Of a
    group some are installed at a time. What this machine cannot have is said and passed over, what
    fails otherwise is raised when the others are there; a single one that cannot be had raises
    `LabError`.
    """
    groups = {  # what takes longest begins
        "all": ["rustc-web", *(release.version for release in wheels.releases())],
        # Every raw version there is, and one control of an equal one: what `make report` compares.
        "report": ["rustc-web", "17", "18", "19", "22", "23"],
    }
    if name not in groups:
        _install_one(name)
        return
    failures: list[LabError] = []

    def install_member(member: str) -> None:
        try:
            _install_one(member)
        except MissingError as error:
            progress.say(f"skipped: {error}")
        except LabError as error:
            progress.say(f"failed: {error}")
            failures.append(error)

    progress.each(groups[name], install_member, "toolchains", jobs=_JOBS, step=lambda: None)
    if failures:
        raise failures[0]


def _install_one(name: str) -> None:
    if name == "rustc-web":
        rustc_web()
    elif name == "macho":
        debian_clangs()
        wheels.headers_of_macos()
    else:
        wheels.install(name)


def prune() -> None:
    """Remove the installed toolchains, and what was built with them; `LabError` if refused."""
    names = ["objects", "programs", "macos", "runtimes", "references", "probes", "sweeps"]
    names.append("forecast")
    built = [settings.cache_dir() / name for name in names]
    try:
        for folder in (*sorted(wheels.folder().glob("*")), *built):
            if folder.is_dir():
                files.remove(folder)
                progress.say(f"removed {folder.name}")
    except OSError as error:
        raise from_os(f"removing {folder.name}", error) from error
