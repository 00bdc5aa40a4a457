"""Where the sources of LLVM's profile runtime are had from, and how they are known to be right.

A release's come one file at a time from the public repository, or else out of Debian's source
package; they are checked, kept in the cache, and never changed. A checkout is read where it is.
"""

import contextlib
import hashlib
import json
import lzma
import re
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nbsupport.base import files, progress, settings
from nbsupport.base.errors import AbsentError, LabError, MissingError
from nbsupport.toolchains import apt, download

#: Where the repository serves single files, below the name of a tag.
_REPOSITORY = "https://raw.githubusercontent.com/llvm/llvm-project/llvmorg-"
_RUNTIME, _HEADERS = "compiler-rt/lib/profile/", "compiler-rt/include/profile/"
_LIST, _RECORD = f"{_RUNTIME}CMakeLists.txt", f"{_HEADERS}InstrProfData.inc"
#: What a tree is made of. GCDAProfiling.c is gcov's, another runtime in the same folder.
_WANTED = re.compile(
    rf"{_RUNTIME}((?!GCDA)\w+\.(c|cpp|h)|CMakeLists\.txt)"
    rf"|{_HEADERS}(InstrProfData\.inc|instr_prof_interface\.h)"
)
#: How these name each other: CMakeLists.txt has a name on a line, the others include.
_NAMED = re.compile(r'^(?: +|#include "(?:profile/)?)(\w+\.\w+)', re.M)
#: Where a checkout states its version: since 19, and before.
_STATED = ("cmake/Modules/LLVMVersion.cmake", "llvm/CMakeLists.txt")
_NUMBER = re.compile(r"set\(LLVM_VERSION_(?:MAJOR|MINOR|PATCH) (\d{1,3})\)")
_MOST = 4 * settings.MIB  # bytes of one file; the largest is under 0.1 MB
_MANIFEST = "sources.json"
_Got = tuple[str, dict[str, bytes]]  # from where; contents by path


@dataclass(frozen=True)
class Tree:
    """The sources of the profile runtime of LLVM `version`, below `folder`.

    `files` maps each path below it to its SHA-256, sorted; `pinned`: all of them are the
    release's, by hashes that the project has. `origin` says where they came from.
    """

    version: str
    folder: Path
    origin: str
    files: Mapping[str, str]
    pinned: bool

    def content(self, name: str) -> bytes:
        """Return a file, by its path or bare name; `LabError` if it is not there, or changed."""
        for path in self.files:
            if name in (path, Path(path).name):
                if _hashes(self.folder, [path]).get(path) == self.files[path]:
                    return (self.folder / path).read_bytes()
                raise LabError(str(self.folder / path), "it has changed meanwhile", "start again")
        there = ", ".join(Path(path).name for path in self.files)
        raise LabError(f"LLVM {self.version}", f"no file {name!r}", f"there are {there}")

    @property
    def provenance(self) -> str:
        """One sentence: which version, where from, and what its files were checked against."""
        checked = "hashed at first use, not known to the project before"
        if pins := _pins().get(self.version):
            changed = len(_differing(self.files, pins))
            checked = f"{changed} of them not as in the release {self.version}"
        if self.pinned:
            checked = "each checked against its pinned SHA-256"
        return f"LLVM {self.version} from {self.origin}: {len(self.files)} files, {checked}."


def load(version: str) -> Tree:
    """Return the sources of a release (`19.1.7`), of the newest known one (`19`), or a checkout's.

    A release is fetched at first use; a checkout is the path of an llvm-project folder.
    Raises `MissingError` where they cannot be had (and says what can be), `LabError` for
    nonsense, for a wrong hash, and where a kept file was changed.
    """
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){2}|[0-9]{1,3}", version):
        return _checkout(version)
    if "." not in version:
        releases = [name for name in _available() if name.startswith(f"{version}.")]
        if not releases:
            raise MissingError(f"sources of LLVM {version}", "no release known", _advice())
        version = releases[-1]
    target = settings.cache_dir() / "sources" / f"llvm-{version}"
    return _kept(version, files.once(target, lambda staging: _fill(version, staging)))


def known_versions() -> tuple[str, ...]:
    """Return the releases whose files the project has hashes of, oldest first."""
    return _in_order(_pins())


def _pins() -> dict[str, dict[str, str]]:
    pins: dict[str, dict[str, str]] = files.read_json(settings.data_dir() / "llvm-sources.json")
    return pins


def _in_order(versions: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(versions, key=lambda version: [int(n) for n in version.split(".")]))


def _available() -> tuple[str, ...]:
    """Return the known releases, and those in the cache."""
    folders = (settings.cache_dir() / "sources").glob("llvm-*")
    names = (folder.name.removeprefix("llvm-") for folder in folders)
    return _in_order({*_pins(), *(n for n in names if re.fullmatch(r"\d+\.\d+\.\d+", n))})


def _advice() -> str:
    return f"there are {', '.join(_available())}; or give the folder of an llvm-project checkout"


def _hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of those files that can be read; what is too large is no source file."""
    hashes = {}
    for name in sorted(names):
        with contextlib.suppress(OSError):
            if (path := folder / name).is_file() and path.stat().st_size <= _MOST:
                hashes[name] = files.sha256(path)
    return hashes


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _kept(version: str, folder: Path) -> Tree:
    """Return a release of the cache: each file as its manifest has it, and that as the pins do."""
    wrong, pins = [_MANIFEST], _pins().get(version)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        origin, hashes = str(manifest["origin"]), dict(manifest["files"])
        if _complete(hashes):
            now = _hashes(folder, hashes)
            wrong = _differing(now, hashes) or _differing(now, pins or now)
    if wrong:
        advice = f"remove {folder}, and it is fetched again"
        raise LabError(str(folder / wrong[0]), "missing, or not as it was fetched", advice)
    return Tree(version, folder, origin, hashes, pinned=pins is not None)


def _complete(hashes: Mapping[str, str]) -> bool:
    return {_LIST, _RECORD} <= hashes.keys() and all(map(_WANTED.fullmatch, hashes))


def _checkout(name: str) -> Tree:
    hashes: dict[str, str] = {}
    versions: list[list[str]] = []
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        root = Path(name).expanduser().absolute()
        paths = (*root.glob(f"{_HEADERS}*"), *root.glob(f"{_RUNTIME}*"))
        names = (path.relative_to(root).as_posix() for path in paths)
        hashes = _hashes(root, filter(_WANTED.fullmatch, names))
        stated = (_NUMBER.findall((root / place).read_text()) for place in _hashes(root, _STATED))
        versions = [numbers for numbers in stated if len(numbers) == 3]
    if not versions or not _complete(hashes):
        why = "neither a version nor a folder with the profile runtime"
        do = "give a major version (19), an exact one (19.1.7), or the folder of an llvm-project"
        raise LabError(f"sources of LLVM {name!r}", why, do)
    version = ".".join(versions[0])
    return Tree(version, root, f"the checkout {root}", hashes, hashes == _pins().get(version))


def _fill(version: str, staging: Path) -> None:
    reasons = []
    for provider in (_from_repository, _from_debian):
        try:
            with tempfile.TemporaryDirectory(dir=staging) as work:
                origin, contents = provider(version, Path(work))
            break
        except MissingError as error:
            reasons.append(f"{error.what}: {error.why}")
    else:
        raise MissingError(f"sources of LLVM {version}", "; ".join(reasons), _advice())
    for name, content in contents.items():
        files.write(staging / name, content)
        (staging / name).chmod(0o444)
    hashes = _hashes(staging, contents)
    wrong = _differing(hashes, _pins().get(version, hashes))
    if wrong or not _complete(hashes):
        why = f"{(wrong or [_RECORD])[0]} is missing, or not the release's"
        raise LabError(origin, why, "nothing was kept; try again, and do not use it if it stays so")
    record = {"version": version, "origin": origin, "when": time.strftime("%F"), "files": hashes}
    files.write(staging / _MANIFEST, json.dumps(record, indent=1))


def _from_repository(version: str, work: Path) -> _Got:
    """Fetch file by file: those that are pinned, or else what those that came name."""
    pins = set(_pins().get(version, ()))

    def fetch(name: str) -> bytes:
        try:
            url, target = f"{_REPOSITORY}{version}/{name}", work / Path(name).name
            return download.from_url(url, target, _MOST).read_bytes()
        except AbsentError:
            if name == _LIST or name in pins:
                raise
            return b""  # a name in passing

    came: dict[str, bytes] = {}
    new = [_LIST]  # alone: it shows whether there is a network, and such a release
    while new and len(came) < 200:
        contents = progress.each(new, fetch, f"LLVM {version}, source files", jobs=4)
        came |= zip(new, contents, strict=True)
        text = b"\n".join(came.values()).decode(errors="replace")
        named = {f + name for name in _NAMED.findall(text) for f in (_RUNTIME, _HEADERS)}
        new = sorted((pins or {_RECORD, *filter(_WANTED.fullmatch, named)}) - came.keys())
    sources = {name: content for name, content in came.items() if content}
    return f"the public repository, tag llvmorg-{version}", sources


def _from_debian(version: str, work: Path) -> _Got:
    major = version.partition(".")[0]
    package = f"llvm-toolchain-{major}"
    if version in known_versions():
        archive = download.pinned(f"llvm-{major}")[1][0]
    else:
        name, size, sha256 = apt.source(package)
        archive = download.Archive(name, sha256, size, pool=package)
    if not archive.file.startswith(f"{package}_{version}.orig."):
        raise MissingError(package, f"the system's archive has {archive.file}", _advice())
    origin = f"Debian's {archive.file}"
    if archive.part:  # a hundredth of what is to be downloaded and unpacked
        with contextlib.suppress(MissingError):
            contents = _members(download.get_part(archive, work))
            came = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
            if came == _pins()[version]:
                return origin, contents
    file = download.get(archive, work)
    try:
        return origin, _unpacked(file)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise LabError(archive.file, f"cannot be unpacked ({error})", "try again") from error


def _members(part: bytes) -> dict[str, bytes]:
    """Read the runtime's files out of a part of a tar archive, which begins and ends anywhere."""
    contents: dict[str, bytes] = {}
    place, block = 0, tarfile.BLOCKSIZE
    while place + block <= len(part):
        header, place = part[place : place + block], place + block
        with contextlib.suppress(tarfile.HeaderError):
            member = tarfile.TarInfo.frombuf(header, "utf-8", "replace")
            name = member.name.partition("/")[2]
            if _WANTED.fullmatch(name) and member.isreg():
                contents[name] = part[place : place + member.size]
            place += -(-member.size // block) * block
    return contents


def _unpacked(archive: Path) -> dict[str, bytes]:
    """Read the runtime's files out of a tar archive, up to where compiler-rt ends in it."""
    contents: dict[str, bytes] = {}
    size, steps, ended = archive.stat().st_size, 0, False
    with (
        progress.bar(f"{archive.name}, MB unpacked", size // settings.MIB) as step,
        archive.open("rb") as file,
        tarfile.open(fileobj=file, mode="r|*") as tar,
    ):
        while not ended and (member := tar.next()):
            tar.members = []  # type: ignore[attr-defined]  # else it keeps all 190,000
            name = member.name.partition("/")[2]
            if _WANTED.fullmatch(name) and member.isreg() and member.size <= _MOST:
                source = tar.extractfile(member)
                contents[name] = source.read() if source else b""
            ended = _LIST in contents and not name.startswith("compiler-rt/")
            while steps < (size if ended else file.tell()) // settings.MIB:
                step()
                steps += 1
    if not ended:
        raise EOFError("it ends before compiler-rt does")
    return contents
