"""The profile runtime's sources: where they come from, and what is refused.

A small release of our own comes from a web server on this machine, by file or in an archive.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import server
from pathlib import Path

import pytest

from nbsupport.base import settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.toolchains import download, tree
from nbsupport.toolchains.probe import Toolchain

RUNTIME, HEADERS = "compiler-rt/lib/profile", "compiler-rt/include/profile"
PORT = f"{RUNTIME}/Port.h"
FILES = {
    f"{HEADERS}/InstrProfData.inc": b"RECORD\n",
    f"{HEADERS}/instr_prof_interface.h": b"void dump(void);\n",
    f"{RUNTIME}/CMakeLists.txt": b"set(SOURCES\n  Writer.c\n  GCDAProfiling.c)\n  Gone.c\n",
    PORT: b"int port;\n",
    f"{RUNTIME}/Writer.c": b'#include "Port.h"\n#include "profile/InstrProfData.inc"\n'
    b'#include "profile/instr_prof_interface.h"\n#include "other/Other.h"\n#include <stdio.h>\n',
}
PINS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}

#: An apt-get that knows two archives, and of the package only version 99.1.3.
APT = """#!/bin/sh
case "$*" in
  *update*) for part in nothing debian; do echo "'{address}/$part/dists/x/InRelease' x 0"; done ;;
  *) echo "'{address}/x' llvm-toolchain-99_99.1.3.orig.tar.xz {size} SHA256:{sha256}" ;;
esac
"""


@dataclass
class Web:
    """A web server's folder, its address, and the paths that were asked for."""

    folder: Path
    address: str = ""
    asked: list[str] = field(default_factory=list)
    status: int = 0
    parts: bool = True

    def put(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture
def web(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """Serve a folder as the repository and as Debian's archives; no release is pinned yet."""
    site = Web(tmp_path / "web")

    class Handler(server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
            path = Path(self.translate_path(self.path))
            if site.status:
                self.send_error(site.status)
            elif asked and site.parts and path.is_file():
                self.send_response(206)
                self.end_headers()
                self.wfile.write(path.read_bytes()[int(asked[1]) : int(asked[2]) + 1])
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(site.folder))
    with server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        site.address = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(tree, "_REPOSITORY", f"{site.address}/llvmorg-")
        shutil.copy(settings.data_dir() / "apt.conf", tmp_path)
        monkeypatch.setattr(settings, "data_dir", lambda: tmp_path)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        pin(tmp_path)
        archive(tmp_path, site)
        yield site
        running.shutdown()


def pin(folder: Path, **changes: str) -> None:
    (folder / "llvm-sources.json").write_text(json.dumps({"99.1.2": {**PINS, **changes}}))


def at(version: str = "99.1.2") -> tree.Tree:
    return tree.load(version)


def release(web: Web, version: str = "99.1.2") -> None:
    for name, content in FILES.items():
        web.put(f"llvmorg-{version}/{name}", content)


def archive(
    folder: Path,
    web: Web,
    members: dict[str, bytes] = FILES,
    version: str = "99.1.2",
    keep: int | None = None,
) -> Path:
    """Put a source package into a pool, cut short after `keep` bytes; pin it, have apt-get list it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        link = tarfile.TarInfo(f"llvm/{RUNTIME}/Linked.c")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        inside = {f"llvm/{name}": content for name, content in members.items()}
        others = dict.fromkeys(("../../evil.c", "/evil.c", f"llvm/{RUNTIME}/tests/evil.c"), b"x")
        for name, content in {**others, **inside, "llvm/last": os.urandom(200_000)}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    data = packed.getvalue()[:keep]
    sha256, size = hashlib.sha256(data).hexdigest(), len(data)
    file, pool = f"llvm-toolchain-99_{version}.orig.tar.xz", "llvm-toolchain-99"
    fields = f'file = "{file}"\nsha256 = "{sha256}"\nsize = {size}\npool = "{pool}"\n'
    (folder / "sources.toml").write_text(f'[llvm-99]\nversion = "-"\n[[llvm-99.archive]]\n{fields}')
    (folder / "apt-get").write_text(APT.format(address=web.address, size=size, sha256=sha256))
    (folder / "apt-get").chmod(0o755)
    return web.put(f"debian/pool/universe/l/{pool}/{file}", data)


def kept(tmp_path: Path) -> list[str]:
    there = (tmp_path / "cache" / "sources").rglob("*")
    return sorted(path.name for path in there if path.is_file() and path.suffix != ".lock")


# -- a release


def test_a_pinned_release_is_fetched_file_by_file_then_works_offline(
    tmp_path: Path, web: Web
) -> None:
    release(web)
    got = at()
    assert (got.version, got.files, got.pinned) == ("99.1.2", PINS, True)
    assert list(got.files) == sorted(PINS)
    assert sorted(web.asked) == [f"/llvmorg-99.1.2/{name}" for name in sorted(PINS)]
    assert "repository, tag llvmorg-99.1.2: 5 files, each checked against its" in got.provenance
    assert all((got.folder / name).stat().st_mode & 0o777 == 0o444 for name in FILES)
    web.status = 503
    assert at() == at("99") == got and len(web.asked) == 5


def test_of_an_unknown_release_the_files_name_each_other(tmp_path: Path, web: Web) -> None:
    release(web, "99.2.0")
    web.put(f"llvmorg-99.2.0/{RUNTIME}/GCDAProfiling.c", b"another runtime")
    got = at("99.2.0")
    assert (got.files, got.pinned) == (PINS, False)
    assert "hashed at first use, not known to the project before" in got.provenance
    assert not [path for path in web.asked if re.search("GCDA|Other|stdio", path)]
    assert at("99") == got  # newer than the pinned one
    (got.folder / PORT).unlink()
    with pytest.raises(LabError, match=r"Port\.h: missing, or not"):
        at("99.2.0")


def test_debians_archive_is_unpacked_as_far_as_needed(tmp_path: Path, web: Web) -> None:
    archive(tmp_path, web, keep=100_000)
    got = at()
    assert (got.files, got.pinned) == (PINS, True)
    assert "Debian's llvm-toolchain-99_99.1.2.orig.tar.xz" in got.provenance
    assert kept(tmp_path) == sorted([*(Path(name).name for name in FILES), "sources.json"])
    assert not list(tmp_path.rglob("evil.c"))
    asked = ["/".join(path.split("/")[1:4]) for path in web.asked]
    parts = [
        "nothing/pool/main",
        "nothing/pool/universe",
        "debian/pool/main",
        "debian/pool/universe",
    ]
    assert asked == ["llvmorg-99.1.2/compiler-rt/lib", *parts]  # the repository comes first


def test_what_only_debian_knows_is_hashed_at_first_use(tmp_path: Path, web: Web) -> None:
    archive(tmp_path, web, version="99.1.3")
    got = at("99.1.3")
    assert (got.files, got.pinned) == (PINS, False)


def test_of_debians_archive_a_part_is_enough(tmp_path: Path, web: Web) -> None:
    packed = archive(tmp_path, web).read_bytes()
    index = (int.from_bytes(packed[-8:-4], "little") + 1) * 4  # its size is in the footer
    pins = tmp_path / "sources.toml"
    whole = (12, len(packed) - 12 - index)
    # A part that does not have it all, one that is not whole blocks, a host that has no parts.
    for part, parts in (((12, 300), True), ((13, 999), True), (whole, False), (whole, True)):
        archive(tmp_path, web)
        pins.write_text(f"{pins.read_text()}part = {list(part)}\n")
        web.parts = parts
        web.asked.clear()
        got = at()
        assert (got.files, got.pinned) == (PINS, True)
        assert "Debian's llvm-toolchain-99_99.1.2.orig.tar.xz" in got.provenance
        times = [path.partition("/pool/")[0] for path in web.asked].count("/debian")
        assert times == (2 if parts and part == whole else 4)
        shutil.rmtree(tmp_path / "cache" / "sources")


# -- what is refused


def test_a_release_that_does_not_exist_says_what_there_is(tmp_path: Path, web: Web) -> None:
    repository = r"it has no http://\S+/llvmorg-99\.9\.9/\S+"
    debian = r"llvm-toolchain-99: .* has llvm-toolchain-99_99\.1\.3\.orig\.tar\.xz"
    there = r"there are 99\.1\.2; or give the folder of an llvm-project"
    with pytest.raises(MissingError, match=f"LLVM 99.9.9: .*{repository}; {debian}; {there}"):
        at("99.9.9")
    with pytest.raises(MissingError, match=f"LLVM 9: no release known; {there}"):
        at("9")


def test_without_network_and_cache_each_reason_is_said(
    tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.status = 503
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingError, match=r"Unavailable; apt-get: no such program; there are 99"):
        at()
    assert len(web.asked) == 1 and kept(tmp_path) == []  # one attempt decides


def test_a_file_that_is_not_the_releases_is_named(tmp_path: Path, web: Web) -> None:
    pin(tmp_path, **{PORT: "f" * 64})
    with pytest.raises(LabError, match=r"99_99\.1\.2\.orig\.tar\.xz: .*Port\.h is missing, or not"):
        at()
    release(web)
    with pytest.raises(LabError, match=r"tag llvmorg-99\.1\.2: .*Port\.h is missing, or not"):
        at()
    assert kept(tmp_path) == []


def test_a_bad_archive_is_one_line(tmp_path: Path, web: Web) -> None:
    for keep in (0, 10, 200, 300, 400):
        archive(tmp_path, web, keep=keep)
        with pytest.raises(LabError, match=r"orig\.tar\.xz: cannot be unpacked \(.*\); try again"):
            at()
    archive(tmp_path, web).write_bytes(b"tampered")
    with pytest.raises(LabError, match=r"orig\.tar\.xz: its SHA-256 is .*, not the pinned"):
        at()
    archive(tmp_path, web, {f"{RUNTIME}/CMakeLists.txt": b""}, version="99.1.3")
    with pytest.raises(LabError, match=r"InstrProfData\.inc is missing"):
        at("99.1.3")
    assert kept(tmp_path) == []


NONSENSE = ("", "abc", "1.2.3.4", "19.1", "19.1.7\n", "٣", "/nowhere", "~x/y", "\0/", "a/" * 5000)


@pytest.mark.parametrize("name", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_one_line_about_what_to_give(name: str) -> None:
    with pytest.raises(LabError, match=r"neither a version .*; give a major version \(19\)"):
        tree.load(name)


LIE = json.dumps({"origin": "x", "files": {**PINS, PORT: hashlib.sha256(b"evil").hexdigest()}})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({PORT: "evil"}, PORT),
        ({PORT: None}, PORT),
        ({PORT: "evil", "sources.json": LIE}, PORT),
        ({"sources.json": "{"}, "sources.json"),
        ({"sources.json": None}, "sources.json"),
        ({"sources.json": LIE.replace(PORT, "../../x")}, "sources.json"),
    ],
)
def test_a_changed_copy_is_named(
    tmp_path: Path, web: Web, changes: dict[str, str | None], named: str
) -> None:
    release(web)
    got = at()
    for name, content in changes.items():
        (got.folder / name).unlink()
        if content:
            (got.folder / name).write_text(content)
    with pytest.raises(LabError, match=rf"{named}: missing, or not .*; remove {got.folder}, and"):
        at()
    if PORT in changes:
        with pytest.raises(LabError, match=r"Port\.h: it has changed meanwhile"):
            got.content("Port.h")


# -- a checkout


@pytest.mark.parametrize("place", ["cmake/Modules/LLVMVersion.cmake", "llvm/CMakeLists.txt"])
def test_a_checkout_is_read_in_place_and_compared_with_its_release(
    tmp_path: Path, web: Web, place: str
) -> None:
    root = Web(tmp_path / "checkout")
    numbers = zip(("MAJOR", "MINOR", "PATCH"), (99, 1, 2), strict=True)
    stated = "".join(f"  set(LLVM_VERSION_{part} {n})\n" for part, n in numbers)
    for name, content in {**FILES, place: stated.encode()}.items():
        root.put(name, content)
    root.put(f"{RUNTIME}/Huge.c", bytes(5 << 20))
    before = {path: path.stat().st_mtime_ns for path in root.folder.rglob("*")}
    got = at(str(root.folder))
    assert (got.version, got.folder, got.files, got.pinned) == ("99.1.2", root.folder, PINS, True)
    assert {path: path.stat().st_mtime_ns for path in root.folder.rglob("*")} == before
    root.put(f"{RUNTIME}/New.c", b"")
    root.put(PORT, b"int mine;\n")
    changed = at(str(root.folder))
    assert "6 files, 2 of them not as in the release 99.1.2" in changed.provenance
    assert not changed.pinned and web.asked == []


# -- the real ones


def test_what_is_pinned_is_whole() -> None:
    pinned = tomllib.loads((settings.data_dir() / "sources.toml").read_text())
    llvm = {name: entry for name, entry in pinned.items() if name.startswith("llvm-")}
    assert tree.known_versions() == tuple(entry["version"] for entry in llvm.values())
    for name, entry in llvm.items():
        (archive,) = download.pinned(name)[1]
        assert archive.file == f"{archive.pool}_{entry['version']}.orig.tar.xz" and archive.size
        assert archive.pool == f"llvm-toolchain-{entry['version'].split('.')[0]}"


def test_the_users_llvm_has_the_header_that_its_compiler_came_with(
    toolchain: Callable[[str], Toolchain],
) -> None:
    try:
        got = tree.load("19.1.7")
    except MissingError as error:
        pytest.skip(str(error))
    assert got.pinned and len(got.files) == 27
    for name in ("InstrProfilingWriter.c", f"{RUNTIME}/InstrProfilingWriter.c"):
        assert b"lprofWriteData(" in got.content(name)
    clang = toolchain("19")
    header = clang.prefix / "lib" / "clang" / "19" / "include" / "profile" / "InstrProfData.inc"
    assert clang.version != "19.1.7" or got.content("InstrProfData.inc") == header.read_bytes()
    with pytest.raises(LabError, match=r"no file 'Writer.c'; there are InstrProfData.inc, .*"):
        got.content("Writer.c")
