"""Fixtures: the real compilers and debuggers of this machine, and a lab that uses them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from nbsupport.base import process, settings
from nbsupport.base.errors import MissingError
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain
from tests.support import linked
from tests.support.trained import Maker

process.heed_interrupts()
# The same examples each time, however slow the machine: what is new is looked for by `make fuzz`.
hypothesis.settings.register_profile(
    "same",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("same")

TESTS = Path(__file__).parent
#: What takes longest comes first: a file runs on one core, and begun last would leave others idle.
FIRST = [
    "browser/test_lab.py",
    "lab/test_cases.py",
    "pipeline/test_phases.py",
    "notebooks/test_run.py",
    "lab/test_grid.py",
    "browser/test_site.py",
    "notebooks/test_cluster.py",
    "notebooks/test_replay.py",
    "forecast/test_agreement.py",
    "forecast/test_cc_crate.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files by `FIRST`; xdist hands them out in this order."""
    ranks = {TESTS / name: rank for rank, name in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a skipped test a failed one where nothing may be missing (CI)."""
    report = yield
    if os.environ.get("PGO_LAB_NO_SKIPS") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but nothing may be missing here: {report.longrepr}"
    return report


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the cache in this test, in place of the user's."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(settings, "cache_dir", lambda: folder)
    return folder


@pytest.fixture(scope="session")
def toolchain() -> Callable[[str], Toolchain]:
    """Return a function that finds a toolchain by name, or skips the test."""

    def find(name: str) -> Toolchain:
        try:
            return discovery.find(name)
        except MissingError as error:
            pytest.skip(str(error))

    return find


@pytest.fixture(scope="session")
def clang(toolchain: Callable[[str], Toolchain]) -> Path:
    return toolchain("19").compiler


@pytest.fixture(scope="session")
def lldb() -> Path:
    found = discovery.find_lldb()
    if found is None:
        pytest.skip("no LLDB; pgo-lab toolchains --install 19")
    return found


@pytest.fixture(scope="session")
def gdb() -> Path:
    found = shutil.which("gdb")
    if found is None:
        pytest.skip("no gdb; apt-get install gdb")
    return Path(found)


@pytest.fixture(scope="session")
def lab(toolchain: Callable[[str], Toolchain]) -> Iterator[Lab]:
    """Return a lab over the user's cache, with LLVM 19 in it."""
    toolchain("19")
    with Lab() as made:
        yield made


@pytest.fixture(scope="session")
def mixed_crash(lab: Lab, toolchain: Callable[[str], Toolchain]) -> Path:
    """Return an executable that crashes at exit: main by LLVM 19, library by LLVM 17."""
    toolchain("17")
    return build.linked(lab.trial("cold", "19", "17"), settings.cache_dir())


@pytest.fixture(scope="session")
def maker(toolchain: Callable[[str], Toolchain], tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Return what makes profiles of one program, by every LLVM and in every way."""
    return Maker(toolchain, tmp_path_factory.mktemp("profraw"))


@pytest.fixture(scope="session")
def target(
    lab: Lab, toolchain: Callable[[str], Toolchain], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a target folder as cargo leaves it: rustc of LLVM 19, the C part by LLVM 17."""
    return linked.cargo_target(lab, toolchain, tmp_path_factory.mktemp("cargo") / "target")
