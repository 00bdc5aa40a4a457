"""Cells of a run: a notebook with one combination of the parameters that it declares."""

import contextlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from nbsupport.base.errors import LabError
from nbsupport.notebooks import document


@dataclass(frozen=True)
class Cell:
    """A notebook (its `content`, read from `path`) with one combination of its parameters."""

    name: str
    path: Path
    content: NotebookNode
    parameters: Mapping[str, object]


def expand(path: Path, book: NotebookNode, values: Mapping[str, Sequence[object]]) -> list[Cell]:
    """Return the cells of a notebook: one for each combination of the values that it declares."""
    declared = document.defaults(book)
    grid = {name: choices for name, choices in values.items() if name in declared}
    several = [name for name, choices in grid.items() if choices[1:]]
    cells: dict[str, Cell] = {}
    for combination in itertools.product(*grid.values()):
        chosen = dict(zip(grid, combination, strict=True))
        words = [re.sub(r"[^\w.@]+", "_", str(chosen[name])).strip("_") for name in several]
        name = f"{path.stem}--{'-'.join(words)}" if words else path.stem
        cells.setdefault(name, Cell(name, path, book, chosen))
    return list(cells.values())


def typed(
    books: Sequence[NotebookNode], parameters: Mapping[str, object]
) -> dict[str, list[object]]:
    """Return the values of parameters, of the types that notebooks declare; refuse a strange one.

    Each command gives `llvm` and `foreign`, which not every notebook needs.
    """
    defaults: dict[str, object] = {}
    for book in books:
        defaults |= document.defaults(book)
    values_of: dict[str, list[object]] = {}
    for name, value in parameters.items():
        if name not in {*defaults, "llvm", "foreign"}:
            names = ", ".join(sorted(defaults.keys() - {"run_folder"})) or "none"
            raise LabError(
                f"parameter {name}", "none of these notebooks has it", f"choose from: {names}"
            )
        values = value if isinstance(value, list) else [value]
        if not values:
            raise LabError(f"parameter {name}", "it has no value", "give one, or leave it out")
        values_of[name] = [_as_default(name, v, defaults.get(name)) for v in values]
    return values_of


def _as_default(name: str, value: object, default: object) -> object:
    """Return the value of a parameter; text as what its default in the notebook is."""
    if not isinstance(value, str) or not isinstance(default, bool | int | float):
        return value
    with contextlib.suppress(ValueError):
        if not isinstance(default, bool):
            return type(default)(value)
        words = {"true": True, "false": False}
        return words[value.lower()] if value.lower() in words else bool(int(value))
    kind = type(default).__name__
    raise LabError(f"parameter {name}", f"{value!r} is no {kind}", f"give a {kind}")
