"""A recorded notebook on a machine with nothing but Python: it shows what was recorded."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from nbsupport.base import settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.notebooks import document, replay

BOOKS = sorted(
    path for path in settings.notebooks_dir().glob("*.ipynb") if "replay.start" in path.read_text()
)


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


def bundles(cell: nbformat.NotebookNode) -> list[object]:
    return [output.get("text") or output["data"] for output in cell.outputs]


def test_every_notebook_that_runs_trials_can_be_replayed() -> None:
    assert {path.stem[:2] for path in BOOKS} >= {"01", "03", "06", "07", "09"}
    for path in set(settings.notebooks_dir().glob("*.ipynb")) - set(BOOKS):
        assert {"source", "run_folder"} & set(document.declared(document.read(path))), path


@pytest.mark.parametrize("path", BOOKS, ids=[path.stem for path in BOOKS])
def test_a_recording_is_shown_and_says_so(path: Path, tmp_path: Path) -> None:
    cells = execute(path, tmp_path)
    committed = document.code(document.read(path))
    (start,) = [n for n, cell in enumerate(cells) if "replay.start" in cell.source]
    said = cells[start].outputs[0]["data"]["text/plain"]
    assert "A recording that came with the project, of 20" in said
    assert "Nothing below was run here, unless you change a cell." in said
    assert list(map(bundles, cells[start + 1 :])) == list(map(bundles, committed[start + 1 :]))
    assert not (tmp_path / "cache").exists()


def test_a_cell_that_was_changed_is_executed(tmp_path: Path) -> None:
    book = document.read(BOOKS[0])
    book.cells.append(nbformat.v4.new_code_cell("print('mine', 6 * 7)"))  # type: ignore[no-untyped-call]
    path = tmp_path / BOOKS[0].name
    path.write_text(document.dump(book))
    assert execute(path, tmp_path)[-1].outputs[0].text == "mine 42\n"


def test_what_is_above_the_recording_runs_and_live_ends_it(tmp_path: Path) -> None:
    """The form, run again, shows what is set now; with `live` the cells below run."""
    book = document.read(BOOKS[0])
    cells = document.code(book)
    form = next(cell for cell in cells if "parameters.form(" in cell.source)
    last = cells[-1].source
    again = f'replay.start("{BOOKS[0].stem}", "live", {{}})\nprint({last!r} in replay._recorded)'
    more = [form.source, f"print({last!r} in replay._recorded)", again]
    start = next(n for n, cell in enumerate(book.cells) if "replay.start(" in cell.source)
    new = nbformat.v4.new_code_cell
    book.cells = [*book.cells[: start + 1], *(new(text) for text in more)]  # type: ignore[no-untyped-call]
    path = tmp_path / BOOKS[0].name
    path.write_text(document.dump(book))
    shown, *states = [str(bundles(cell)) for cell in execute(path, tmp_path)[-3:]]
    assert re.search("source +recorded", shown)
    assert states == ["['True\\n']", "['False\\n']"]


@pytest.mark.parametrize(
    ("source", "given", "said"),
    [
        ("taped", {}, "source 'taped': not known; choose live or recorded"),
        ("recorded", {"llvm": "22"}, "llvm '22': recorded with '19' only; leave it out"),
    ],
)
def test_what_was_not_recorded_says_so(source: str, given: dict[str, str], said: str) -> None:
    book = settings.notebooks_dir() / "06-hypotheses.ipynb"
    defaults = document.defaults(document.read(book))
    with pytest.raises(LabError) as error:
        replay.start(book.stem, source, {**defaults, **given})
    assert said in str(error.value)


def test_live_shows_nothing() -> None:
    assert replay.start("06-hypotheses", "live", {}) is None


def test_without_a_checkout_or_a_kernel_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    book = settings.notebooks_dir() / "06-hypotheses.ipynb"
    with pytest.raises(LabError, match="open it in JupyterLab"):
        replay.start(book.stem, "recorded", document.defaults(document.read(book)))
    monkeypatch.setattr(settings, "notebooks_dir", lambda: tmp_path)
    with pytest.raises(MissingError, match="notebooks come with a checkout"):
        replay.start("06-hypotheses", "recorded", {})
