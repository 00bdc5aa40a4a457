"""A site is built while its run goes on, one build at a time, and none after."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from nbsupport.base import process, progress
from nbsupport.base.errors import LabError
from nbsupport.report import filling, site
from nbsupport.report.filling import FillingSite


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines = list[str]()
    monkeypatch.setattr(progress, "say", lines.append)
    monkeypatch.setattr(filling, "_EVERY", 0.2)
    return lines


def test_one_build_at_a_time_not_too_often_and_said_once(
    lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    began, go = list[float](), threading.Event()

    def build(run: str, out: Path) -> Path:
        began.append(time.monotonic())
        assert go.wait(20)
        return out / "index.html"

    monkeypatch.setattr(site, "build", build)
    with FillingSite(tmp_path / "run", tmp_path / "site") as filled:
        filled.settle()
        for _ in range(3):
            filled.fill()
        time.sleep(0.3)
        filled.fill()  # one is under way
        go.set()
        filled.settle()
        filled.fill()
        filled.settle()
        filled.fill()  # one was just begun
        filled.settle()
    assert len(began) == 2
    page = tmp_path / "site" / "index.html"
    assert lines == [f"to read meanwhile: {page}, which fills as notebooks end"]


def test_a_build_that_fails_is_passed_over(
    lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results: list[Path | LabError] = [LabError("the site", "Sphinx: no", "mend it"), tmp_path]

    def build(run: str, out: Path) -> Path:
        result = results.pop(0)
        if isinstance(result, LabError):
            raise result
        return result

    monkeypatch.setattr(site, "build", build)
    monkeypatch.setattr(filling, "_EVERY", 0.0)
    with FillingSite(tmp_path / "run", tmp_path / "site") as filled:
        for _ in range(2):
            filled.fill()
            filled.settle()
    assert results == [] and len(lines) == 1


def test_where_a_site_cannot_go_is_said_before_a_run(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    (folder / "something").mkdir(parents=True)
    for out, why in (
        (file, "but a file"),
        (folder, "not a site"),
        (tmp_path / "run" / "site", "own"),
    ):
        with pytest.raises(LabError, match=why):
            FillingSite(tmp_path / "run", out)


def test_an_interrupt_ends_the_build(
    lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    running = threading.Event()

    def build(run: str, out: Path) -> Path:
        running.set()
        process.run(("sleep", "60"), cwd=tmp_path)
        raise LabError("the site", "ended", "")

    monkeypatch.setattr(site, "build", build)
    start = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        FillingSite(tmp_path / "run", tmp_path / "site") as filled,
    ):
        filled.fill()
        assert running.wait(20)
        raise KeyboardInterrupt
    assert time.monotonic() - start < 20
    assert lines == []
