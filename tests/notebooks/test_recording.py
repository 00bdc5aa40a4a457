"""Refreshing the committed notebooks: what is written, what is refused, and what is said before."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbsupport.base import progress
from nbsupport.cli import commands
from nbsupport.notebooks import recording
from tests.support.notebooks import CODE, PARAMETERS, TAKES, cell, printed, write


def test_refresh_twice_is_the_same_bytes(tmp_path: Path) -> None:
    cells = (
        TAKES,
        "import sys; print(llvm); print('e', file=sys.stderr); print('o')",
        "import ipywidgets; ipywidgets.IntSlider()",
    )
    path = write(tmp_path / "books" / "x.ipynb", *cells)
    (done,) = recording.refresh([path])
    assert done.status == "executed"
    first, when = path.read_bytes(), path.stat().st_mtime_ns
    assert b"injected-parameters" not in first
    assert printed(path) == "18\no\ne\n"
    failing = write(tmp_path / "books" / "y.ipynb", "1 / 0")
    before = failing.read_bytes()
    assert commands.main(["dev", "refresh", str(tmp_path / "books")]) == 3
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (first, when)
    assert failing.read_bytes() == before


def test_refresh_refuses_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "books" / "x.ipynb", "print('/home/me/y')")
    before = path.read_bytes()
    assert commands.main(["dev", "refresh", str(path)]) == 2
    assert "x.ipynb: cell 2 shows the path /home/me/y; print names" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_refresh_says_what_changed_before_it_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write(tmp_path / "books" / "01-plain.ipynb", cell(PARAMETERS, "parameters"), CODE)
    recording.refresh([path])
    path.write_text(path.read_text().replace('"observed": "20"', '"observed": "21"'))
    written, lines = path.read_text(), list[str]()

    def say(line: str) -> None:
        if "observed otherwise sum" in line:
            assert path.read_text() == written
        lines.append(line)

    monkeypatch.setattr(progress, "say", say)
    recording.refresh([path])
    assert any("observed otherwise sum: 21 -> 20" in line for line in lines), lines
    assert path.read_text() != written
