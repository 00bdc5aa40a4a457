"""Faces: what a notebook imports is listed in a face, and each face works alone."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbsupport
from nbsupport.base import settings
from nbsupport.notebooks import document

PACKAGE = Path(nbsupport.__file__).parent
FACES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
BOOKS = sorted(settings.notebooks_dir().glob("*.ipynb"))


def names(face: str) -> set[str]:
    """Return the names that a face lists; those of `studies` are its modules."""
    stub = PACKAGE / face / "__init__.pyi"
    if stub.is_file():
        return {name for _, name in imported(stub.read_text())}
    if face == "studies":
        return {path.stem.removesuffix("__init__") or path.parent.name for path in studies()}
    return set(getattr(__import__(f"nbsupport.{face}", fromlist=["x"]), "__all__", ()))


def studies() -> Iterator[Path]:
    yield from (PACKAGE / "studies").glob("[!_]*.py")
    yield from (PACKAGE / "studies").glob("*/__init__.py")


def imported(source: str) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of each import of ours in a source, the name "" of a module's own."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield from ((f"{'.' * node.level}{node.module or ''}", n.name) for n in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def sources(path: Path) -> Iterator[str]:
    """Yield what of a notebook is code: its cells, and the solutions of its exercises."""
    book = document.read(path)
    yield from (cell.source for cell in document.code(book))
    for cell in book.cells:
        if cell.cell_type == "markdown":
            yield from re.findall(r"```python\n(.*?)```", cell.source, re.DOTALL)


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_from_faces_only(path: Path) -> None:
    for source in sources(path):
        for module, name in imported(source):
            if module.partition(".")[0] != "nbsupport":
                continue
            _, face, *deeper = module.split(".")
            assert face == "studies" if deeper else name in names(face), f"{name} of {module}"


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_takes_of_a_module_is_there(path: Path) -> None:
    known: dict[str, object] = {}
    for source in sources(path):
        for module, name in imported(source):
            if module.startswith("nbsupport"):
                known[name] = getattr(importlib.import_module(module), name, None)
                if known[name] is None:
                    known[name] = importlib.import_module(f"{module}.{name}")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = known.get(node.value.id)
                if isinstance(owner, types.ModuleType):
                    assert hasattr(owner, node.attr), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("face", FACES)
def test_a_face_works_alone_and_has_the_names_that_it_lists(face: str) -> None:
    checks = "".join(f"; face.{name}" for name in sorted(names(face)) if face != "studies")
    command = [sys.executable, "-c", f"import nbsupport.{face} as face{checks}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("face", FACES)
def test_a_name_of_a_face_is_no_module_beside_it(face: str) -> None:
    """Else the import of that module would hide it."""
    stub = PACKAGE / face / "__init__.pyi"
    pairs = imported(stub.read_text()) if stub.is_file() else ()
    hidden = {name for module, name in pairs if module != "."}
    assert not hidden & {path.stem for path in stub.parent.iterdir()}
