"""The cells of a batch: each notebook with each combination of the parameters that it declares."""

from __future__ import annotations

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
class Source:
    """A notebook to execute."""

    name: str
    folder: Path
    content: NotebookNode

    @classmethod
    def of(cls, path: Path) -> Source:
        """Read it; raises `LabError` for what is no notebook."""
        return cls(path.stem, path.absolute().parent, document.read(path))


@dataclass(frozen=True)
class Cell:
    """A notebook with one combination of its parameters."""

    name: str
    source: Source
    given: Mapping[str, object]


def cells(source: Source, parameters: Mapping[str, object]) -> list[Cell]:
    """Return a notebook's cells, in the order of the values that were given."""
    takes = document.declared(source.content)
    mine = {name: value for name, value in parameters.items() if name in takes}
    several = [name for name, value in mine.items() if isinstance(value, list) and value[1:]]
    values = [listed(value) for value in mine.values()]
    found: dict[str, Cell] = {}
    for combination in itertools.product(*values):
        given = dict(zip(mine, combination, strict=True))
        words = [re.sub(r"[^\w.@]+", "_", str(given[name])).strip("_") for name in several]
        name = "--".join([source.name, *(["-".join(words)] if words else [])])
        found.setdefault(name, Cell(name, source, given))
    return list(found.values())


def tags(given: Mapping[str, object]) -> dict[str, int]:
    """Return what a machine must have for a cell: its LLVMs, by major version."""
    names = (str(given[name]) for name in ("llvm", "foreign") if name in given)
    majors = (re.match(r"\d+", name) for name in names)
    return {f"llvm={major[0]}": 1 for major in majors if major}


def checked(sources: Sequence[Source], parameters: Mapping[str, object]) -> dict[str, object]:
    """Return parameters, of the types that the notebooks declare; refuse one that none has.

    Each command gives `llvm` and `foreign`, which not every notebook needs.
    """
    defaults: dict[str, object] = {}
    for source in sources:
        defaults |= document.defaults(source.content)
    for name, value in parameters.items():
        if name not in {*defaults, "llvm", "foreign"}:
            there = ", ".join(sorted(defaults.keys() - {"run_folder"})) or "none"
            raise LabError(f"parameter {name}", "no notebook has it", f"choose from: {there}")
        if value == []:
            raise LabError(f"parameter {name}", "it has no value", "give one, or leave it out")
    return {
        name: [_typed(name, each, defaults.get(name)) for each in value]
        if isinstance(value, list)
        else _typed(name, value, defaults.get(name))
        for name, value in parameters.items()
    }


def _typed(name: str, value: object, default: object) -> object:
    """Return the value of a parameter; text as what its default in the notebook is."""
    if not isinstance(value, str) or not isinstance(default, bool | int | float):
        return value
    with contextlib.suppress(ValueError):
        if not isinstance(default, bool):
            return type(default)(value)
        return {"true": True, "false": False}.get(value.lower(), "") or bool(int(value))
    kind = type(default).__name__
    raise LabError(f"parameter {name}", f"{value!r} is no {kind}", f"give a {kind}")


def listed(value: object) -> list[object]:
    """Return a value that may be a list as one."""
    return value if isinstance(value, list) else [value]
