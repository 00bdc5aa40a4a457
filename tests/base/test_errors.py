"""Errors that a reader meets: in a notebook a box of what, why and what to do; never a traceback."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from nbsupport.base import progress, settings
from nbsupport.base.errors import BuildError, LabError, from_os
from nbsupport.lab.lab import Lab
from nbsupport.notebooks import batch, document, replay, results
from nbsupport.studies import rescued_counts
from nbsupport.toolchains import discovery, headers

RAISE = "from nbsupport.base.errors import LabError, MissingError\n\n"
WRONG = (
    f'{RAISE}raise MissingError("llvm 99", "not installed here", "pgo-lab toolchains --install")'
)
BOX = [
    "┌ llvm 99",
    "│ Why:     not installed here",
    "│ Do this: pgo-lab toolchains --install",
    "└",
]


def book(*codes: str, parameters: str = "") -> NotebookNode:
    """Return a notebook of these code cells; the first one with parameters, if there are any."""
    new = nbformat.v4.new_code_cell
    cells = [new(code) for code in codes]  # type: ignore[no-untyped-call]
    if parameters:
        tagged = {"tags": [document.PARAMETERS]}
        cells.insert(0, new(parameters, metadata=tagged))  # type: ignore[no-untyped-call]
    made: NotebookNode = nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    return document.normalize(made)


def papermill(
    what: NotebookNode,
    folder: Path,
    *given: str,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    seconds: float = 300,
) -> tuple[subprocess.CompletedProcess[str], list[NotebookNode]]:
    """Execute a notebook with parameters; return how it ended, and its code cells."""
    source, out = folder / "in.ipynb", folder / "out.ipynb"
    source.write_text(document.dump(what))
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3"]
    done = subprocess.run(
        [*command, "--cwd", str(cwd or folder), str(source), str(out), *given],
        env=env or {**os.environ, progress.QUIET: "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    cells = document.code(document.read(out)) if out.exists() else []
    return done, [cell for cell in cells if document.PAPERMILL_ERROR not in document.tags(cell)]


def errors(cells: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Return what of the outputs is an error."""
    return [o for cell in cells for o in cell.outputs if o.output_type == "error"]


def plain(lines: Sequence[str]) -> list[str]:
    """Return lines without bold."""
    return [re.sub(r"\x1b\[\d+m", "", line) for line in lines]


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int, NotebookNode]:
    """A notebook that meets an error: papermill's words, its exit code, and the error."""
    done, cells = papermill(book(WRONG, "print('after')"), tmp_path_factory.mktemp("failed"))
    (shown,) = errors(cells)
    return done.stderr, done.returncode, shown


def test_a_notebook_shows_a_box_and_no_traceback(failed: tuple[str, int, NotebookNode]) -> None:
    _, _, shown = failed
    assert plain(shown.traceback) == BOX
    assert shown.ename == "MissingError"
    assert shown.evalue == "llvm 99: not installed here; pgo-lab toolchains --install"
    assert "Traceback" not in str(shown)


def test_papermill_fails_all_the_same(failed: tuple[str, int, NotebookNode]) -> None:
    said, code, _ = failed
    assert code == 1
    assert "\n".join(BOX) in "\n".join(plain(said.splitlines()))


def test_a_run_says_the_sentence(tmp_path: Path) -> None:
    path = tmp_path / "wrong.ipynb"
    path.write_text(document.dump(book(WRONG)))
    (done,) = batch.execute([path], tmp_path / "run", {})
    assert done.status == "failed"
    said = "cell 1: MissingError: llvm 99: not installed here; pgo-lab toolchains --install"
    assert done.error == said


@pytest.mark.parametrize(("now", "code"), [("not installed here", 0), ("broken", 1)])
def test_nbval_compares_it(
    now: str, code: int, failed: tuple[str, int, NotebookNode], tmp_path: Path
) -> None:
    whole = book(WRONG.replace("not installed here", now))
    (cell,) = whole.cells
    cell.metadata["tags"] = ["raises-exception"]  # else nbval compares nothing: the cell fails
    cell.outputs, cell.execution_count = [failed[2]], 1
    (tmp_path / "kept.ipynb").write_text(document.dump(whole))
    nbval = ["--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-q", "kept.ipynb"]
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, *nbval]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert ("evalue" in done.stdout) == bool(code)


def test_long_advice_is_broken_between_words_and_stays_in_the_box() -> None:
    path = "/" + 100 * "x"
    lines = plain(BuildError("a program", "word " * 40, f"look at {path}", "output").box())
    assert lines[0] == "┌ a program"
    assert lines[1].startswith("│ Why:     word word")
    assert all(line.startswith("│          word") for line in lines[2:4])
    assert lines[-2:] == [f"│          {path}", "└"]
    assert max(map(len, lines[:4])) <= 88


def test_what_has_several_lines_is_one() -> None:
    assert plain(LabError("a\n  b", "c", "d").box())[0] == "┌ a b"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_folder_that_was_given_is_not_moved_by_the_cache(code: int, tmp_path: Path) -> None:
    for place, advice, other in (
        (tmp_path / "out", "give another folder (-o)", "XDG_CACHE_HOME"),
        (settings.cache_dir() / "toolchains", "set XDG_CACHE_HOME", "-o"),
    ):
        error = from_os("this command", OSError(code, os.strerror(code), str(place)))
        assert advice in error.do and other not in error.do
        assert error.why == f"{os.strerror(code)} ({place})"
    error = from_os("this command", OSError(code, os.strerror(code)))
    assert "XDG_CACHE_HOME" in error.do and "-o" in error.do


RECORDED = """
from nbsupport.base import settings
from nbsupport.notebooks import document, replay

path = settings.notebooks_dir() / "01-reproduction.ipynb"
given = {**document.defaults(document.read(path)), "source": "recorded"}
replay.start(path.stem, given)
"""


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("lab", "LabError", "lab: the cells above show what was recorded, and have made nothing"),
        ("no_such_thing", "NameError", "name 'no_such_thing' is not defined"),
    ],
)
def test_a_changed_cell_of_a_recording_is_told_what_it_lacks(
    name: str, kind: str, said: str, tmp_path: Path
) -> None:
    done, cells = papermill(book(RECORDED, f"print({name})"), tmp_path)
    (shown,) = errors(cells)
    assert (done.returncode, shown.ename) == (1, kind)
    assert shown.evalue.startswith(said)
    assert shown.traceback[0].startswith("┌") == (kind == "LabError")


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("01", ["-r", "llvm", "99"], "toolchain 99: not found"),
        ("09", ["-p", "llvm", "19"], 'llvm 19: not a text; write llvm = "19"'),
        ("08", ["-p", "repetitions", "0"], "repetitions 0: "),
        ("10", ["-r", "run_folder", "nowhere"], "nowhere: no executed notebooks there"),
    ],
)
def test_a_wrong_parameter_is_told_in_a_box(
    name: str, given: list[str], said: str, tmp_path: Path
) -> None:
    (path,) = settings.notebooks_dir().glob(f"{name}-*.ipynb")
    done, cells = papermill(document.read(path), tmp_path, *given, cwd=path.parent)
    (shown,) = errors(cells)
    assert done.returncode == 1
    assert shown.traceback[0].startswith("┌ ")
    assert shown.evalue.startswith(said)


def test_a_machine_without_compilers_is_told_how_to_get_them(tmp_path: Path) -> None:
    (path,) = settings.notebooks_dir().glob("01-*.ipynb")
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "LANG": "C.UTF-8"}
    env = {"PATH": "/nowhere", "JUPYTER_PLATFORM_DIRS": "1", progress.QUIET: "1", **home}
    done, cells = papermill(document.read(path), tmp_path, env=env)
    (shown,) = errors(cells)
    assert (done.returncode, shown.ename) == (1, "MissingError")
    assert "pgo-lab toolchains --install" in shown.evalue


def test_gcc_is_not_told_to_install_a_header(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"^gcc: has no records of LLVM's; choose a clang$"):
        headers.read(discovery.find("gcc"))


def test_one_llvm_makes_an_empty_table_of_rescues(lab: Lab) -> None:
    found = rescued_counts.try_all(lab, ["hot"], ["19"])
    assert list(found["lost"]) == []


def recording(path: Path, **changed: object) -> tuple[NotebookNode, results.Run]:
    """Return a committed notebook, each cell executed, and the recorded run, if need be changed."""
    found = document.read(path)
    for n, cell in enumerate(document.code(found), 1):
        cell.execution_count = n
    run = results.recorded()
    return found, dataclasses.replace(run, manifest={**run.manifest, **changed})


@pytest.mark.parametrize(
    "path", sorted(settings.notebooks_dir().glob("*.ipynb")), ids=lambda p: p.stem
)
def test_the_recording_fits_the_notebooks(path: Path) -> None:
    assert replay.stale(*recording(path), path.stem) == "", "make record"


def test_a_stale_recording_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = settings.notebooks_dir().glob("06-*.ipynb")
    found, run = recording(path, what="PGO Crash Lab 0.0.1")
    assert replay.stale(found, run, path.stem) == "the recorded run was made by PGO Crash Lab 0.0.1"
    assert "made by PGO Crash Lab 0.0.1" in results.provenance(run).text
    found, run = recording(path)
    claims = [cell for cell in document.code(found) if cell.source.startswith("claim(")]
    claims[0].execution_count = None
    said = replay.stale(found, run, path.stem)
    assert said == "1 of its cells were not executed since they were written"
    claims[0].execution_count = 1
    name = claims[0].outputs[0]["data"][document.CLAIM]
    name["holds"] = not name["holds"]
    assert f"different things ({name['name']})" in replay.stale(found, run, path.stem)


OLDER = """
import dataclasses

from nbsupport.notebooks import document, results

run = dataclasses.replace(results.recorded(), manifest={"what": "PGO Crash Lab <0>"})
results.recorded = lambda: run
"""


def test_a_stale_recording_is_noted_where_it_begins(tmp_path: Path) -> None:
    _, cells = papermill(book(OLDER, RECORDED), tmp_path)
    shown = cells[1].outputs[-1]["data"]
    line = "Stale recording: the recorded run was made by PGO Crash Lab <0>. Take source = "
    assert line in shown["text/plain"]
    assert '<div class="admonition warning"' in shown["text/html"]
    assert "by PGO Crash Lab &lt;0&gt;. Take source" in shown["text/html"]
