"""A notebook as a value: what it declares, what it is known by, what of it is committed."""

import ast
import copy
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from nbsupport.base import files
from nbsupport.base.errors import LabError

CLAIM = "application/vnd.pgo-lab.claim+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
SOURCE = 'class="source"'  # in HTML that holds lines of LLVM's
_EXCERPT = re.compile(rf"(<(\w+) {SOURCE}>.*?<pre>).*?(</pre></\2>)", re.DOTALL)
#: What stands for LLVM's own lines in a committed notebook.
LEFT_OUT = "… LLVM's own lines: run the cell, or make report, to read them"
PARAMETERS, INJECTED = "parameters", "injected-parameters"
PAPERMILL_ERROR = "papermill-error-cell-tag"

_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}

#: A place on one machine: an absolute path below a folder that differs between machines.
_MACHINE_PATH = re.compile(
    r"(?<![\w.~>/-])/(?:home|root|tmp|var|Users|private|work|mnt|srv|build|opt)/[^\s'\"<>)]+"
)


def read(path: Path) -> NotebookNode:
    """Read a notebook; raises `LabError` where there is none, or something else."""
    try:
        notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(notebook)
    except OSError as error:
        why = error.strerror or str(error)
        raise LabError(str(path), why, "give the path of a notebook (.ipynb)") from error
    except (ValueError, LookupError, TypeError, AttributeError, nbformat.ValidationError) as error:
        why = f"not a notebook ({type(error).__name__})"
        raise LabError(str(path), why, "restore it from git") from error
    return notebook


def dump(notebook: NotebookNode) -> str:
    """Return the file of a notebook: the same notebook, the same bytes."""
    text: str = nbformat.writes(notebook, version=4)  # type: ignore[no-untyped-call]
    return f"{text.rstrip()}\n"


def tags(cell: NotebookNode) -> tuple[str, ...]:
    """Return the tags of a cell, in their order."""
    return tuple(cell.metadata.get("tags", ()))


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def defaults(notebook: NotebookNode) -> dict[str, object]:
    """Return the parameters that a notebook takes, each with its default (None: not a literal).

    Papermill's own inspection overlooks annotations like ``str | None``, and values with a ``=``.
    """
    return {name: literal for name, literal, _ in _assigned(notebook)}


def comments(notebook: NotebookNode) -> dict[str, str]:
    """Return the parameters that a notebook takes, each with the comment on its line, or ""."""
    return {name: comment for name, _, comment in _assigned(notebook)}


def _assigned(notebook: NotebookNode) -> Iterator[tuple[str, object, str]]:
    source = "\n".join(cell.source for cell in code(notebook) if PARAMETERS in tags(cell))
    try:
        body = ast.parse(source).body
    except SyntaxError:  # the kernel will say so, at the right line
        return
    for statement in body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign):
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        literal = statement.value.value if isinstance(statement.value, ast.Constant) else None
        line = source.splitlines()[(statement.end_lineno or 1) - 1].encode()
        comment = line[statement.end_col_offset :].decode().strip(" #")
        for target in targets:
            if isinstance(target, ast.Name):
                yield target.id, literal, comment


def digest(notebook: NotebookNode, parameters: Mapping[str, object], *rest: object) -> str:
    """Return what an executed notebook is known by: code, parameters, and `rest`; not its prose."""
    cells = [(cell.source, tags(cell)) for cell in code(notebook)]
    return files.digest(json.dumps([cells, dict(parameters), rest], sort_keys=True, default=str))


def with_prose(executed: NotebookNode, source: NotebookNode) -> NotebookNode:
    """Return an executed notebook with the prose of a later source that has the same code."""
    result = copy.deepcopy(executed)
    done = iter(code(result))
    cells: list[NotebookNode] = []
    for cell in source.cells:
        if cell.cell_type != "code":
            cells.append(copy.deepcopy(cell))
            continue
        cells.append(next(done))
        while INJECTED in tags(cells[-1]) and INJECTED not in tags(cell):
            cells.append(next(done))
    result.cells = cells
    return result


def normalize(notebook: NotebookNode, *, excerpts: bool = False) -> NotebookNode:
    """Return what of an executed notebook is committed: the same run, the same bytes.

    Kept: kernel name, sources, tags, execution counts, outputs. Dropped: times, papermill's notes,
    widget views and their state, versions of the language, and, unless `excerpts` are asked for,
    LLVM's own lines (a note stands for them). Ids are numbers in order. The code of a claim is
    folded.
    """
    metadata = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    cells = [_normal_cell(cell, n, excerpts) for n, cell in enumerate(notebook.cells, start=1)]
    whole = {"metadata": metadata, "nbformat": 4, "nbformat_minor": 5, "cells": cells}
    result: NotebookNode = nbformat.from_dict(whole)  # type: ignore[no-untyped-call]
    return result


def _normal_cell(cell: NotebookNode, number: int, excerpts: bool) -> dict[str, Any]:
    normal: dict[str, Any] = {
        "cell_type": cell.cell_type,
        "id": f"cell-{number}",
        "metadata": {"tags": list(tags(cell))} if tags(cell) else {},
        "source": cell.source,
    }
    if cell.get("attachments"):
        normal["attachments"] = copy.deepcopy(cell.attachments)
    if cell.cell_type == "code":
        if any(CLAIM in output.get("data", {}) for output in cell.outputs):
            normal["metadata"]["jupyter"] = {"source_hidden": True}  # a reader wants what it says
        normal["execution_count"] = cell.execution_count
        normal["outputs"] = _normal_outputs(cell.outputs, excerpts)
    return normal


def _normal_outputs(outputs: list[NotebookNode], excerpts: bool) -> list[dict[str, Any]]:
    """Merge the streams between two displays, stdout first: their interleaving is chance."""
    normal: list[dict[str, Any]] = []
    for kind, group in itertools.groupby(outputs, key=lambda output: output.output_type):
        if kind == "stream":
            by_name = sorted(group, key=lambda output: output.name, reverse=True)
            for name, parts in itertools.groupby(by_name, key=lambda output: output.name):
                text = "".join(part.text for part in parts)
                normal.append({"output_type": kind, "name": name, "text": text})
            continue
        for output in copy.deepcopy(list(group)):
            data = output.get("data", {})
            data.pop(WIDGET, None)
            if not excerpts and SOURCE in data.get("text/html", ""):
                data["text/html"], left_out = _EXCERPT.subn(rf"\1{LEFT_OUT}\3", data["text/html"])
                if data["text/html"].count(SOURCE) != left_out:
                    # Not as our excerpts are: nothing of it is sure to be ours.
                    del data["text/html"]
            if output.get("data", True):
                normal.append(output)
    return normal


def machine_paths(notebook: NotebookNode) -> tuple[tuple[int, str], ...]:
    """Return (number of the cell, path) for each place on this machine that the outputs show."""
    return tuple(
        (number, path)
        for number, cell in enumerate(notebook.cells, start=1)
        for output in cell.get("outputs", ())
        for text in _texts(output)
        for path in _MACHINE_PATH.findall(text)
    )


def _texts(output: NotebookNode) -> Iterator[str]:
    """Yield what a person may read in an output (not images, where a path may be by chance)."""
    yield from (output[key] for key in ("text", "evalue") if key in output)
    yield from output.get("traceback", ())
    for kind, content in output.get("data", {}).items():
        if kind.startswith("image/") and kind != "image/svg+xml":
            continue
        yield content if isinstance(content, str) else json.dumps(content)
