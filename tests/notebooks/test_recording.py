"""What is committed of runs: refreshed notebooks, said before they are written, and recorded runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbsupport.base import progress, settings
from nbsupport.cli import commands
from nbsupport.notebooks import recording, results
from tests.report.test_site import MANIFEST, claim, make_run, shown
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


def test_a_run_of_several_llvms_is_recorded_beside_that_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cells = [shown(claim(holds=True, sentence="so it is"))]
    run = make_run(tmp_path / "run", **{"01-a--17": cells, "01-a--19": cells})
    entry = {"notebook": "01-a", "status": "executed", "seconds": 1.0, "fingerprint": "f"}
    notebooks = {f"01-a--{n}": {**entry, "parameters": {"llvm": n}} for n in ("17", "19")}
    arguments = {"notebooks": ["/home/me/01-a.ipynb"]}
    manifest = {**MANIFEST, "notebooks": notebooks, "arguments": arguments}
    (run / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(settings, "data_dir", lambda: tmp_path / "data")
    recording.record(run)
    folder = tmp_path / "data" / "recorded"
    assert [path.name for path in folder.iterdir()] == ["versions"]
    kept = (folder / "versions" / "manifest.json").read_text()
    assert "/home/me" not in kept
    assert "fingerprint" not in kept
    assert len(results.load(folder / "versions").claims) == 2
