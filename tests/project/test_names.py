"""One name for one thing: held over the syntax tree of the package."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbsupport

ROOT = Path(nbsupport.__file__).parent
#: Participles and pronouns that name nothing: a reader must know what was found, or read.
BARE = {"found", "one", "said", "told", "made", "there", "each", "given", "seen", "tried", "asked"}
BARE |= {"known", "wanted", "left", "got", "read", "kept"}
LINES = 10  # in a shorter function the reader sees where a value comes from
#: Packages that keep to it; a package that is done joins them.
DONE = ["base", "show", "profile", "audit", "toolchains", "crash", "lab", "trace", "rescue"]
DONE += ["notebooks", "studies", "report", "cli", "forecast"]


def trees(package: str = "") -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text())


def test_a_class_name_stands_for_one_thing() -> None:
    places = defaultdict(list)
    for path, tree in trees():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def bound(function: ast.AST) -> Iterator[ast.Name | ast.arg]:
    """Yield the names that a function binds, those of the functions within aside."""
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.arg) or (
            isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        ):
            yield node
        yield from bound(node)


@pytest.mark.parametrize("package", DONE)
def test_values_of_longer_functions_are_nouns(package: str) -> None:
    bare = []
    for path, tree in trees(package):
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if (node.end_lineno or 0) - node.lineno + 1 <= LINES:
                continue
            for value in bound(node):
                name = value.arg if isinstance(value, ast.arg) else value.id
                if name in BARE:
                    bare.append(f"{path}:{value.lineno}: {name} in {node.name}")
    assert bare == []


def test_the_rule_sees_every_way_to_bind() -> None:
    code = "def f(one):\n for each in x: pass\n if (got := 1): [found for found in y]\n with z as made: said = 1\n lambda told: 1"
    [function] = ast.parse(code).body
    names = [value.arg if isinstance(value, ast.arg) else value.id for value in bound(function)]
    assert set(names) == {"one", "each", "got", "found", "made", "said", "told"}
