"""A recorded notebook on a machine with nothing but Python: it shows what was recorded."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from nbsupport.base import settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.notebooks import document, replay

BOOKS = {path: document.read(path) for path in sorted(settings.notebooks_dir().glob("*.ipynb"))}
#: Those that show what was recorded, not read a recording themselves.
REPLAYED = [
    path
    for path, book in BOOKS.items()
    if "source" in document.defaults(book)
    and not any("replayed=False" in cell.source for cell in document.code(book))
]
FIRST = REPLAYED[0]
SET_UP = document.code(BOOKS[FIRST])[1].source


def execute(path: Path, folder: Path) -> list[nbformat.NotebookNode]:
    """Execute a notebook with source = "recorded" where there is no compiler; return its code."""
    out = folder / "out.ipynb"
    env = {"PATH": "/nowhere", "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    env |= {"JUPYTER_PLATFORM_DIRS": "1", "PGO_LAB_QUIET": "1", "LANG": "C.UTF-8"}
    command = [sys.executable, "-m", "papermill", str(path), str(out), "-r", "source", "recorded"]
    options = ["--no-progress-bar", "--log-level", "ERROR", "-k", "python3", "--cwd", str(folder)]
    done = subprocess.run(
        [*command, *options], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    cells = document.code(document.normalize(document.read(out)))
    return [cell for cell in cells if document.INJECTED not in document.tags(cell)]


def bundles(cell: nbformat.NotebookNode) -> list[Any]:
    return [output.get("text") or output["data"] for output in cell.outputs]


def test_every_notebook_needs_no_compiler_or_says_so() -> None:
    for path, book in BOOKS.items():
        assert {"source", "run_folder"} & document.defaults(book).keys(), path


@pytest.mark.parametrize("path", REPLAYED, ids=[path.stem for path in REPLAYED])
def test_a_recording_is_shown_and_says_so(path: Path, tmp_path: Path) -> None:
    cells = execute(path, tmp_path)
    committed = document.code(BOOKS[path])
    form, note = (output["data"]["text/plain"] for output in cells[1].outputs)
    assert re.search("source +recorded", form)
    assert "A recording that came with the project, of 20" in note
    assert "Nothing below was run here, unless you change a cell." in note
    assert list(map(bundles, cells[2:])) == list(map(bundles, committed[2:]))
    assert not (tmp_path / "cache").exists()


def with_cells(folder: Path, *sources: str, first: int | None = None) -> Path:
    """Write a copy of the first notebook, or of its `first` cells, with more below."""
    book = document.read(FIRST)
    new = nbformat.v4.new_code_cell
    book.cells = [*book.cells[:first], *(new(source) for source in sources)]  # type: ignore[no-untyped-call]
    path = folder / FIRST.name
    path.write_text(document.dump(book))
    return path


def test_a_cell_that_was_changed_is_executed_and_exercises_answer(tmp_path: Path) -> None:
    answer = 'check_answer("01-1", "version-mismatch")'
    *_, mine, checked = execute(with_cells(tmp_path, "print('mine', 6 * 7)", answer), tmp_path)
    assert mine.outputs[0].text == "mine 42\n"
    assert bundles(checked)[0]["text/plain"] == "01-1: right"


def test_what_is_above_the_recording_runs_and_live_ends_it(tmp_path: Path) -> None:
    """The set-up, run again, shows what is set now; with `live` the cells below run."""
    last = document.code(BOOKS[FIRST])[-1].source
    held = f"from nbsupport.notebooks import replay\n\nprint({last!r} in replay._recorded)"
    source = 'import nbsupport.toolchains.discovery as d\n\nd.find = print\nsource = "live"'
    at = next(n for n, cell in enumerate(BOOKS[FIRST].cells, 1) if cell.source == SET_UP)
    path = with_cells(tmp_path, SET_UP, held, source, SET_UP, held, first=at)
    again, before, _, live, after = execute(path, tmp_path)[-5:]
    assert re.search("source +recorded", str(bundles(again)))
    assert re.search("source +live", str(bundles(live)))
    assert [bundles(before), bundles(after)] == [["True\n"], ["False\n"]]


@pytest.mark.parametrize(
    ("source", "given", "said"),
    [
        ("taped", {}, "source 'taped': not known; choose one of live, recorded"),
        ("recorded", {"llvm": "22"}, "llvm '22': recorded with '19' only; leave it out"),
    ],
)
def test_what_was_not_recorded_says_so(source: str, given: dict[str, str], said: str) -> None:
    with pytest.raises(LabError) as error:
        replay.start(FIRST.stem, {**document.defaults(BOOKS[FIRST]), **given, "source": source})
    assert said in str(error.value)


def test_without_a_checkout_or_a_kernel_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = {**document.defaults(BOOKS[FIRST]), "source": "recorded"}
    with pytest.raises(LabError, match="open it in JupyterLab"):
        replay.start(FIRST.stem, given)
    monkeypatch.setattr(settings, "notebooks_dir", lambda: tmp_path)
    with pytest.raises(MissingError, match="notebooks come with a checkout"):
        replay.start(FIRST.stem, given)
