"""The solutions of the notebooks' exercises run, each after the notebook that it stands in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from nbsupport import notebook, progress

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SOLUTION = re.compile(r"<details><summary>Solution.*?</details>", re.S)


def solutions(path: Path) -> list[str]:
    """Return the code of a notebook's solutions, but what needs something of the reader's (DIR)."""
    prose = [cell.source for cell in notebook.read(path).cells if cell.cell_type == "markdown"]
    folded = SOLUTION.findall("\n".join(prose))
    blocks = [block for one in folded for block in re.findall(r"```python\n(.*?)```", one, re.S)]
    return [block for block in blocks if "DIR" not in block]


@pytest.mark.parametrize(
    "path",
    [one for one in sorted(NOTEBOOKS.glob("*.ipynb")) if solutions(one)],
    ids=lambda p: p.stem,
)
def test_solutions_run(path: Path, tmp_path: Path) -> None:
    whole, made = notebook.read(path), tmp_path / "with-solutions.ipynb"
    for code in solutions(path):
        whole.cells.append(nbformat.v4.new_code_cell(code))  # type: ignore[no-untyped-call]
    made.write_text(notebook.dump(whole))
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--cwd", str(NOTEBOOKS)]
    done = subprocess.run(
        [*command, str(made), str(made)],
        check=False,
        env={**os.environ, progress.QUIET: "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    last = notebook.code(notebook.read(made))[-len(solutions(path)) :]
    assert all(cell.outputs for cell in last)


def test_the_source_notebooks_have_three_exercises_each_with_code() -> None:
    for name in ("04-source-writer", "05-source-file"):
        assert len(solutions(NOTEBOOKS / f"{name}.ipynb")) == 3
