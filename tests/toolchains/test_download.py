"""What is downloaded is checked, and is there whole or not at all; `files.once` sees to that.

Interrupts, kills and races of a real install are in test_wheels.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import shutil
import socket
import tarfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nbsupport.base import files, process, progress, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.toolchains import apt, download

UNREACHABLE = "http://127.0.0.1:9/a.tar"
Offer = Callable[..., None]


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Return a function that adds an archive, which is there, to the pinned ones of `thing`."""
    path, inside, pins = (tmp_path / name for name in ("thing.tar.xz", "tool", "sources.toml"))
    inside.touch(mode=0o755)
    with tarfile.open(path, "w:xz") as tar:
        tar.add(inside, "thing-1.0/bin/tool")
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    shutil.copy(settings.data_dir() / "apt.conf", tmp_path)
    monkeypatch.setattr(settings, "data_dir", lambda: tmp_path)
    pins.write_text('[thing]\nversion = "1"\n')

    def add(**changes: str) -> None:
        fields = {"file": path.name, "sha256": good, "url": path.as_uri(), **changes}
        lines = "".join(f'{key} = "{value}"\n' for key, value in fields.items())
        pins.write_text(f"{pins.read_text()}[[thing.archive]]\nsize = 1_500_000\n{lines}")

    return add


def get() -> Path:
    return download.source("thing")


def made(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]


# -- what is pinned


@pytest.mark.parametrize(
    "name", ["mimalloc", "mimalloc-2.1", "jemalloc", "rustc-web", "debian-clang"]
)
def test_every_file_has_a_hash_and_comes_from_the_systems_archive_or_its_project(name: str) -> None:
    for archive in download.pinned(name)[1]:
        assert re.fullmatch("[0-9a-f]{64}", archive.sha256)
        assert bool(archive.apt) == bool(archive.pool) != bool(archive.url)
        assert not archive.url or archive.url.startswith("https://github.com/")


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(LabError, match=r"tcmalloc.*mimalloc, jemalloc"):
        download.source("tcmalloc")


# -- fetching


def test_it_is_downloaded_unpacked_and_then_works_offline(
    tmp_path: Path, cache: Path, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer()
    said: list[str] = []
    monkeypatch.setattr(progress, "say", said.append)
    folder = get()
    assert said == [f"thing.tar.xz: 1.5 MB, into {cache}"]  # what, how big, where
    assert [path.name for path in folder.iterdir()] == ["bin"]
    assert (folder / "bin" / "tool").stat().st_mode & 0o777 == 0o755
    (tmp_path / "thing.tar.xz").unlink()
    assert get() == folder and len(said) == 1


def test_a_wrong_hash_names_both_and_keeps_nothing(cache: Path, offer: Offer) -> None:
    offer(sha256="f" * 64)
    with pytest.raises(LabError, match="SHA-256 is [0-9a-f]{64}, not the pinned f{64}"):
        get()
    assert made(cache) == []


def test_an_alternative_is_taken_when_the_first_cannot_be_had(cache: Path, offer: Offer) -> None:
    offer(url=UNREACHABLE)
    offer()
    assert made(get()) == ["tool"]


def test_without_a_network_each_reason_is_said(
    tmp_path: Path, cache: Path, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(url=UNREACHABLE)
    offer(apt="thing=1")
    monkeypatch.setenv("PATH", str(tmp_path))  # nor is there an apt-get
    with pytest.raises(MissingError, match=r"127\.0\.0\.1:9: .*refused; apt-get: no such program"):
        get()
    assert made(cache / "sources") == []


@pytest.mark.parametrize(
    ("size", "error", "what"),
    [(0, MissingError, "5 of 9 bytes came"), (4, LabError, "more than 4 bytes came")],
)
def test_a_download_of_another_length_is_refused(
    tmp_path: Path, size: int, error: type[LabError], what: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as client:
                client.recv(1 << 16)
                client.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nabcde")

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.tar"
        with pytest.raises(error, match=what):
            download.from_url(url, tmp_path / "a.tar", size)


def test_a_full_disk_is_not_taken_for_a_bad_network(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(9999))
    with pytest.raises(OSError, match="No space left"):
        download.from_url((tmp_path / "a.tar").as_uri(), Path("/dev/full"))


def test_what_there_is_no_room_for_is_not_begun(tmp_path: Path) -> None:
    archive = download.Archive("a.tar", "", size=1 << 60, url=UNREACHABLE)
    with pytest.raises(LabError, match="a.tar: it needs .* MB are free"):
        download.get(archive, tmp_path)


# -- made once, alone, whole


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".staging-thing-abc").mkdir()
    (tmp_path / ".staging-thing-abc" / "half").touch()
    (tmp_path / ".thing.lock").touch()  # which nobody holds
    files.once(tmp_path / "thing", lambda staging: (staging / "whole").touch())
    assert made(tmp_path) == ["whole"]


def test_what_the_disk_refuses_is_one_line_of_advice(tmp_path: Path) -> None:
    def refused(staging: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with pytest.raises(LabError, match="making thing: Read-only file system; set XDG_CACHE_HOME"):
        files.once(tmp_path / "thing", refused)
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho 'tool: error: No space left on device' >&2; exit 2\n")
    tool.chmod(0o755)
    with pytest.raises(LabError, match="making thing: No space left .*; free some disk space"):
        files.once(tmp_path / "thing", functools.partial(files.run_tool, [tool]))


# -- some at a time


def test_of_a_group_some_are_installed_at_a_time_and_a_failure_loses_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together, done, said = threading.Barrier(2, timeout=10), [], list[str]()

    def install_one(name: str) -> None:
        if name in ("rustc-web", "17"):
            together.wait()
        if name == "17":
            raise LabError("LLVM 17", "a wrong hash", "try again")
        if name == "18":
            raise MissingError("LLVM 18", "not for this machine", "install it")
        done.append(name)

    monkeypatch.setattr(download, "_install_one", install_one)
    monkeypatch.setattr(progress, "say", said.append)
    with pytest.raises(LabError, match="LLVM 17: a wrong hash"):
        download.install("report")
    assert sorted(done) == ["19", "22", "23", "rustc-web"]
    assert sorted(line.partition(":")[0] for line in said) == ["failed", "skipped"]


# -- the system's Debian archive


def test_source_packages_are_asked_for_in_either_format() -> None:
    lines = "# deb http://off x main\n{}deb [arch=amd64] http://a x main\n"
    asked = lines + "deb-src [arch=amd64] http://a x main\n"
    assert apt.with_sources(lines.format("")) == asked.format("")
    stanzas = "Types: {}\nURIs: http://a\nSuites: x\n\nEnabled: no\nTypes: {}\n"
    asked = stanzas.format(*["deb deb-src"] * 2)
    assert apt.with_sources(stanzas.format("deb", "deb")) == asked


FAKE_APT = """\
#!/bin/sh
echo "$@" >> {home}/log
case "$*" in
  *update*) touch {home}/lists; exit 100 ;;
  *thing=1) [ -e {home}/lists ] && echo tar > thing.tar && exit 0 ;;
esac
printf 'W: unimportant\\nE: Unable to find it\\n' >&2
exit 100
"""


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an apt-get on the path that has thing 1, once its lists are there."""
    tool, parts = tmp_path / "bin" / "apt-get", tmp_path / "etc" / "sources.list.d"
    tool.parent.mkdir()
    parts.mkdir(parents=True)
    tool.write_text(FAKE_APT.format(home=tmp_path))
    tool.chmod(0o755)
    (parts.parent / "sources.list").write_text("deb http://a x main\n")
    (parts / "b.sources").write_text("Types: deb\n")
    (parts / "c.list.save").write_text("deb http://c x main\n")
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(apt, "_ETC", parts.parent)
    return tmp_path


def test_lists_are_fetched_when_needed_and_then_kept(fake_apt: Path, cache: Path) -> None:
    ask = functools.partial(apt.download, folder=fake_apt / "x")
    (fake_apt / "x").mkdir()
    assert ask("thing=1", "thing.tar").name == "thing.tar"
    with pytest.raises(MissingError, match="thing=2: Unable to find it"):
        ask("thing=2", "thing.tar")
    assert (fake_apt / "log").read_text().count(" update") == 1
    copied = sorted(p.read_text() for p in (cache / "apt" / "sources").iterdir())
    assert copied == ["Types: deb deb-src\n", "deb http://a x main\ndeb-src http://a x main\n"]


def test_out_of_the_pool_no_lists_are_needed_and_else_by_them(
    fake_apt: Path, cache: Path, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper, place = fake_apt / "helper", fake_apt / "pool" / "universe" / "libt" / "libthing"
    gone = "printf 'E: Failed to fetch it  404  Not Found [IP: ::1]\\n' >&2; exit 100"
    take = 'for last; do :; done\ncp "${5#http://a}" "$last"'
    helper.write_text(f"#!/bin/sh\n{take} || {{ {gone}; }}\n")
    helper.chmod(0o755)
    monkeypatch.setattr(apt, "_HELPER", helper)
    monkeypatch.setattr(apt, "archives", lambda: [f"http://a{fake_apt}/"])
    pinned = {"sha256": "", "pool": "libthing", "apt": "thing=1", "url": ""}
    offer(file="thing.tar.xz", **pinned)
    (archive,) = download.pinned("thing")[1]
    place.mkdir(parents=True)
    shutil.copy(fake_apt / "thing.tar.xz", place)
    folders = [fake_apt / "one", fake_apt / "two"]
    for folder in folders:
        folder.mkdir()
    came = download.get(archive, folders[0])
    assert came.read_bytes() == (fake_apt / "thing.tar.xz").read_bytes()
    assert not (fake_apt / "log").exists()
    shutil.rmtree(place)
    assert download.get(archive, folders[1]).name == "thing.tar"
    assert (fake_apt / "log").read_text().count(" update") == 1


@pytest.mark.skipif(not apt._HELPER.exists(), reason="apt is Debian's")
def test_a_host_that_answers_is_asked_for_more_and_a_silent_one_is_not(
    cache: Path, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # 501 to all
    threading.Thread(target=answering.serve_forever, daemon=True).start()
    asked, fetch = list[str](), apt.fetch
    offer(file="thing.tar.xz", sha256="", pool="thing", url="")
    apt._configure(cache / "apt")
    (archive,) = download.pinned("thing")[1]

    def listening(url: str, target: Path) -> Path:
        asked.append(url)
        return fetch(url, target)

    def missing(port: int) -> str:
        bases = [f"http://127.0.0.1:{port}/{name}/" for name in ("debian", "security")]
        monkeypatch.setattr(apt, "archives", lambda: bases)
        asked.clear()
        with pytest.raises(MissingError) as caught:
            download._from_pool(archive, cache, listening)
        return str(caught.value)

    assert "501" in missing(answering.server_port)
    assert len(asked) == 4
    answering.shutdown()
    answering.server_close()
    assert "onnection refused" in missing(answering.server_port)
    assert len(asked) == 1


def test_a_package_that_the_archive_no_longer_has_is_missing(fake_apt: Path, cache: Path) -> None:
    with pytest.raises(MissingError, match=r"downloading \S+\.deb: .*: Unable to find it; "):
        download.rustc_web()


def test_mimalloc_comes_from_the_systems_archive(cache: Path) -> None:
    try:
        folder = download.source("mimalloc")
    except MissingError as error:
        pytest.skip(str(error))
    assert "patch 9" in (folder / "cmake" / "mimalloc-config-version.cmake").read_text()
    assert (folder / "src" / "static.c").is_file()


@pytest.mark.slow
def test_rustc_web_runs_and_keeps_its_libraries_to_itself(cache: Path, tmp_path: Path) -> None:
    try:
        prefix = download.rustc_web()
    except MissingError as error:
        pytest.skip(str(error))
    rustc = prefix / "usr" / "bin" / "rustc"
    # The linker that rustc starts must not see rustc's libLLVM.
    linker = tmp_path / "linker"
    linker.write_text(f'#!/bin/sh\necho "[$LD_LIBRARY_PATH]" > {tmp_path}/seen\n')
    linker.chmod(0o755)
    (tmp_path / "a.rs").write_text("fn main() {}\n")
    said = process.run([rustc, "-vV"], cwd=tmp_path).stdout
    assert "release: 1.85.0" in said and "LLVM version: 19.1.7" in said
    env = {"LD_LIBRARY_PATH": str(prefix / "usr" / "lib" / "x86_64-linux-gnu")}
    process.run([rustc, f"-Clinker={linker}", "a.rs"], cwd=tmp_path, env=env)
    assert (tmp_path / "seen").read_text() == "[]\n"
