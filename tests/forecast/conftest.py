"""What tests of forecasts share: a rustc, and projects of whose environment nothing else is seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbsupport.base.errors import MissingError
from nbsupport.forecast import verdict
from nbsupport.forecast.verdict import Forecast
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain
from tests.support import cargo_projects
from tests.support.cargo_projects import CargoProject

Write = Callable[..., CargoProject]
Check = Callable[..., Forecast]


@pytest.fixture(scope="module")
def rustc() -> Toolchain:
    try:
        return discovery.find_rustc("19")
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def write(tmp_path: Path, rustc: Toolchain) -> Iterator[Write]:
    """Return what writes a project into a folder of its own (by name)."""

    def make(cc: str = "1.6.0", *, name: str = "project", **options: Any) -> CargoProject:
        options.setdefault("rustc", rustc)
        return cargo_projects.write(tmp_path / name, options.pop("rustc"), cc, **options)

    yield make


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Check:
    """Return what checks a project, in the environment that its builds have."""

    def forecast(project: CargoProject, cc: str = "", **more: str) -> Forecast:
        env = project.environment(**more)
        with monkeypatch.context() as patch:
            for name in os.environ.keys() - env.keys() - {"PYTEST_CURRENT_TEST"}:
                patch.delenv(name)
            for name, value in env.items():
                patch.setenv(name, value)
            return verdict.check(project.folder, [cc] if cc else [])

    return forecast
