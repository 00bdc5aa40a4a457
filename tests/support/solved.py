"""Copies the committed notebooks with the solutions of their exercises in them, for nbval.

    python -m tests.support.solved FOLDER [NOTEBOOK...]

So `make nbval` tries the solutions in the very run that compares the notebook; each has to find
the kept answer.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from nbsupport.base import settings
from nbsupport.notebooks import document, exercises

CHECK = re.compile(r'\bcheck_answer\("([^"]*)", (.*)\)')
SOLUTION = re.compile(r"<details><summary>Solution.*?```python\n(.*?)```.*?</details>", re.S)


def solve(book: NotebookNode) -> None:
    """Put each solution below it into cells of their own: what it does, and what it finds."""
    cells = []
    for cell in book.cells:
        cells.append(cell)
        for code in SOLUTION.findall(cell.source):
            last = ast.parse(code).body[-1].lineno - 1
            lines = code.splitlines()
            cells += [run("\n".join(lines[:last]), None), run("\n".join(lines[last:]), code)]
    book.cells = cells


def run(source: str, solution: str | None) -> NotebookNode:
    """Return a cell whose output does not matter, or is that the answer of a solution is right."""
    cell: NotebookNode = nbformat.v4.new_code_cell(source, execution_count=1)  # type: ignore[no-untyped-call]
    if solution is None:
        cell.metadata["tags"] = ["nbval-ignore-output"]
    else:
        name = CHECK.findall(solution)[-1][0]
        right = exercises.check_answer(name, exercises.load()[name]["answer"])
        data = {"text/plain": right.text, "text/html": right.html}
        output = nbformat.v4.new_output("execute_result", data=data, execution_count=1)  # type: ignore[no-untyped-call]
        cell.outputs.append(output)
    return cell


def main() -> int:
    """Write the copies into a folder that has nothing else in it."""
    folder, *names = map(Path, sys.argv[1:])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in names or sorted(settings.notebooks_dir().glob("*.ipynb")):
        book = document.read(path)
        solve(book)
        (folder / path.name).write_text(document.dump(book))
    return 0


if __name__ == "__main__":
    sys.exit(main())
