"""What is committed of runs: refreshed notebooks, said before they are written, and recorded runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbsupport.base import progress, settings
from nbsupport.base.errors import LabError
from nbsupport.cli import commands
from nbsupport.notebooks import recording, results
from nbsupport.trace import trace
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


def test_a_run_that_failed_is_not_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "data_dir", lambda: tmp_path / "data")
    run = make_run(tmp_path / "run", x=[shown(claim(holds=True, sentence="so it is"))])
    entry = {"notebook": "x", "parameters": {}, "seconds": 1.0, "status": "failed", "error": "e"}
    (run / "manifest.json").write_text(json.dumps({**MANIFEST, "notebooks": {"x": entry}}))
    with pytest.raises(LabError, match="x failed"):
        recording.record(run)
    assert not (tmp_path / "data").exists()


def test_a_run_of_some_notebooks_takes_their_place_in_the_recording(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = {"status": "executed", "seconds": 1.0, "parameters": {"scope": "whole"}}
    monkeypatch.setattr(settings, "data_dir", lambda: tmp_path / "data")
    monkeypatch.setattr(settings, "notebooks_dir", lambda: tmp_path / "books")
    monkeypatch.setattr(trace, "keep", lambda _: None)
    (tmp_path / "books").mkdir()

    def record(run: str, *names: str, holds: bool) -> results.Run:
        """Record a run of these notebooks, which all claim one thing; return the recording."""
        cells = [shown(claim(holds=holds, sentence="so it is"))]
        folder = make_run(tmp_path / run, **dict.fromkeys(names, cells))
        entries = {name: {**entry, "notebook": name} for name in names}
        manifest = {**MANIFEST, "notebooks": entries, "what": run}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        recording.record(folder)
        return results.load(tmp_path / "data" / "recorded")

    for name in ("01-a", "02-b", "03-c"):
        (tmp_path / "books" / f"{name}.ipynb").touch()
    record("whole", "01-a", "02-b", "09-gone", holds=True)
    later = record("part", "02-b", "03-c", holds=False)
    assert list(later.manifest["notebooks"]) == ["01-a", "02-b", "03-c", "09-gone"]
    assert later.manifest["what"] == "whole"
    names, holds = (list(later.claims[column]) for column in ("notebook", "holds"))
    assert names == ["01-a", "02-b", "03-c", "09-gone"]
    assert holds == [True, False, False, True]
    again = record("whole again", "01-a", "02-b", "03-c", holds=True)  # all that there are
    assert list(again.manifest["notebooks"]) == ["01-a", "02-b", "03-c"]
    assert list(again.claims["holds"]) == [True] * 3
