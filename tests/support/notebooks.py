"""Small notebooks for tests, and what came of executing them."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from nbsupport.notebooks import document

PROSE = "# A title\n\nProse."


def cell(source: str, *tags: str, outputs: tuple[NotebookNode, ...] = ()) -> NotebookNode:
    made: NotebookNode = nbformat.v4.new_code_cell(source, outputs=list(outputs))  # type: ignore[no-untyped-call]
    if tags:
        made.metadata["tags"] = list(tags)
    return made


def prose(source: str) -> NotebookNode:
    made: NotebookNode = nbformat.v4.new_markdown_cell(source)  # type: ignore[no-untyped-call]
    return made


def book(*cells: NotebookNode | str) -> NotebookNode:
    made: NotebookNode = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
        cells=[cell(one) if isinstance(one, str) else one for one in cells]
    )
    return made


def write(path: Path, *cells: NotebookNode | str, title: str = PROSE) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(document.dump(book(prose(title), *cells)))
    return path


def printed(path: Path) -> str:
    outputs = [out for one in document.code(document.read(path)) for out in one.outputs]
    return "".join(out.get("text", "") for out in outputs)


def output(kind: str, **content: object) -> NotebookNode:
    made: NotebookNode = nbformat.v4.new_output(kind, **content)  # type: ignore[no-untyped-call]
    return made


#: A cell that declares parameters of several types.
TAKES = cell(
    'llvm: str | None = "18"\nflag = "-fprofile-use=x"  # a = b\ncount: int = 1\nrun_folder = ""',
    "parameters",
)

#: Parameters, and a cell that records a table and makes a claim that holds.
PARAMETERS = 'llvm: str = "19"\nforeign: str = "17"\nsteps: int = 1\ngrid: str = "1,2"'
CODE = """
import pandas as pd
from nbsupport.notebooks import results
at = {"llvm": llvm, "foreign": foreign}
results.keep_table("seen", pd.DataFrame([{"main": llvm, "foreign": foreign, "steps": steps}]))
results.load_claims = lambda: {"sum": results.ClaimText("01-plain", "they add up")}
results.claim("sum", int(llvm) + steps, int(llvm) + steps, **at)
"""
