"""One LLDB and one gdb for all tests of a worker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbsupport.crash.debugger import Debugger, open_debugger
from tests.crash.programs import compile_crasher


@pytest.fixture(scope="session")
def program(clang: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_crasher(clang, tmp_path_factory.mktemp("with a space"), "-O1")


@pytest.fixture
def token() -> str:
    """Return an argument that names this test's processes among all."""
    return f"token-{uuid.uuid4()}"


@pytest.fixture(scope="session")
def by_lldb(lldb: Path) -> Iterator[Debugger]:
    debugger = open_debugger(lldb, None)
    assert debugger
    with debugger:
        yield debugger


@pytest.fixture(scope="session")
def by_gdb(gdb: Path) -> Iterator[Debugger]:
    debugger = open_debugger(None, gdb)
    assert debugger
    with debugger:
        yield debugger


@pytest.fixture(params=["lldb", "gdb"])
def debugger(request: pytest.FixtureRequest) -> Debugger:
    found: Debugger = request.getfixturevalue(f"by_{request.param}")
    return found
