"""Each notebook's exercises: the kept answers are what their solutions find in that notebook."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from nbsupport.base import settings
from nbsupport.base.errors import LabError
from nbsupport.notebooks import document, exercises
from nbsupport.show.shown import Shown
from tests.base.test_errors import papermill

NOTEBOOKS = sorted(p for p in settings.notebooks_dir().glob("*.ipynb") if p.stem[:2] != "00")
KEPT = exercises.load()
CHECK = re.compile(r'\bcheck_answer\("([^"]*)", (.*)\)')
SOLUTION = re.compile(r"<details><summary>Solution.*?</details>", re.S)


def asked(path: Path) -> list[tuple[str, str]]:
    """Return (exercise, its solution's code) of a notebook, in order."""
    cells = document.read(path).cells
    first = next(n for n, cell in enumerate(cells) if cell.source.startswith("## Exercises"))
    found: list[tuple[str, str]] = []
    for question, answer, solution in zip(*(iter(cells[first:]),) * 3, strict=True):
        assert re.search(rf"^\*\*{len(found) + 1}\.\*\* ", question.source, re.M)
        ((name, placeholder),) = CHECK.findall(answer.source)
        assert placeholder == "..."
        assert "no answer yet" in answer.outputs[0]["data"]["text/plain"]
        (folded,) = SOLUTION.findall(solution.source)
        (code,) = re.findall(r"```python\n(.*?)```", folded, re.S)
        assert CHECK.findall(code)[-1][0] == name
        found.append((name, code))
    return found


def test_each_notebook_asks_three_things_and_each_kept_answer_is_asked_for() -> None:
    names = {path.stem[:2]: [name for name, _ in asked(path)] for path in NOTEBOOKS}
    assert len(names) == 10
    for notebook_, here in names.items():
        assert here == [f"{notebook_}-{n}" for n in range(1, len(here) + 1)]
        assert len(here) >= 3
    assert sorted(KEPT) == sorted(name for here in names.values() for name in here)


def needed(cells: Sequence[NotebookNode], code: str) -> list[NotebookNode]:
    """Return the cells with those statements only on whose values the code depends.

    nbval executes them all; executing them once more would show nothing.
    """
    kept: list[NotebookNode] = []
    solutions = ast.parse(code)
    missing = names(solutions, ast.Load) - names(solutions, ast.Store)
    for cell in reversed(cells):
        statements = ast.parse(cell.source).body
        if "parameters" not in cell.metadata.get("tags", ()) and "start(" not in cell.source:
            statements = []
            for statement in reversed(ast.parse(cell.source).body):
                bound = names(statement, ast.Store)
                if bound & missing:
                    statements.insert(0, statement)
                    if isinstance(statement, ast.Assign):  # anew, whatever it was
                        missing -= bound
                    missing |= names(statement, ast.Load)
            cell.source = "\n".join(map(ast.unparse, statements))
        if statements:
            kept.insert(0, cell)
    return kept


def names(code: ast.AST, context: type[ast.expr_context]) -> set[str]:
    nodes = [*ast.walk(code)]
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    bound = {
        alias.asname or alias.name.partition(".")[0] for node in imports for alias in node.names
    }
    augmented = {ast.unparse(node.target) for node in nodes if isinstance(node, ast.AugAssign)}
    used = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, context)}
    return used | (bound if context is ast.Store else augmented)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_each_solution_finds_the_kept_answer(path: Path, tmp_path: Path) -> None:
    whole = document.read(path)
    solutions = [code for _, code in asked(path)]
    whole.cells = needed(document.code(whole), "\n".join(solutions))
    for code in solutions:
        whole.cells.append(nbformat.v4.new_code_cell(code))  # type: ignore[no-untyped-call]
    done, cells = papermill(whole, tmp_path, cwd=path.parent, seconds=900)  # 08 builds with cargo
    assert done.returncode == 0, done.stderr[-2000:]
    solved = document.code(whole)[-len(asked(path)) :]
    said = [cell.outputs[-1]["data"]["text/plain"] for cell in cells[-len(solved) :]]
    assert said == [f"{name}: right" for name, _ in asked(path)]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three exercises of our own."""
    (tmp_path / "exercises.toml").write_text(
        "\n".join(
            f'[{name}]\nasks = "{kind}"\nanswer = {answer!r}\nhint = "look"\n'
            f'[{name}.hints]\n"other" = "that is the other"\n"1, 2" = "and one more"'
            for name, kind, answer in (
                ("a-word", "word", "writeFile"),
                ("a-number", "number", 80),
                ("a-set", "set", ["1", "2", "3"]),
            )
        )
    )
    monkeypatch.setattr(settings, "data_dir", lambda: tmp_path)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("a-word", "writeFile"),
        ("a-word", " writefile() "),
        ("a-word", "`writeFile`"),
        ("a-word", ["'writeFile'"]),
        ("a-number", 80),
        ("a-number", 80.0),
        ("a-number", "80"),
        ("a-number", "0x50"),
        ("a-set", ["3", "1", "2"]),
        ("a-set", {1, 2, 3}),
        ("a-set", (1, "2", 3, 3)),
        ("a-set", '"3", "2", 1'),
        ("a-set", (str(n) for n in (1, 2, 3))),
    ],
)
def test_how_it_is_written_does_not_matter(name: str, answer: object) -> None:
    assert exercises.check_answer(name, answer).text == f"{name}: right"


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        ("a-word", ..., "no answer yet: put yours in place of ... and run this cell"),
        ("a-word", "", "no answer yet"),
        ("a-word", None, "no answer yet"),
        ("a-set", [], "no answer yet"),
        ("a-word", "writeFil", "not yet: look"),
        ("a-word", "Other", "not yet: that is the other"),
        ("a-word", 7, "not yet: the answer is one word"),
        ("a-word", ["one", "two"], "not yet: the answer is one word"),
        ("a-number", 81, "not yet: look"),
        ("a-number", "eighty", "not yet: the answer is a number"),
        ("a-number", object, "not yet: the answer is a number"),
        ("a-set", [2, 1], "not yet: and one more"),
        ("a-set", 1, "not yet: look"),
    ],
)
def test_a_wrong_answer_gets_a_hint(name: str, answer: object, said: str) -> None:
    assert exercises.check_answer(name, answer).text.startswith(f"{name}: {said}")


@pytest.mark.usefixtures("kept")
def test_an_unknown_exercise_names_those_there_are() -> None:
    for name in ("01-9", 7, ["a-word"]):
        with pytest.raises(LabError, match="there is none; choose from a-word, a-number, a-set"):
            exercises.check_answer(name, "ok")  # type: ignore[arg-type]


def test_yes_is_true() -> None:
    assert exercises.normal(True) == exercises.normal("Yes") == ("yes",)
    assert exercises.normal(False) == exercises.normal("no") == ("no",)


def test_what_is_shown_is_escaped_and_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = exercises.check_answer(next(iter(KEPT)), ...)
    assert isinstance(shown, Shown)
    assert '<p class="exercise"><strong>01-1</strong> no answer yet' in shown.html
    monkeypatch.setitem(exercises.KINDS, "word", "<b>")
    assert "&lt;b&gt;" in exercises.check_answer("01-1", 5).html


@pytest.mark.parametrize("name", KEPT)
def test_the_answer_is_right_and_each_hint_can_be_met(name: str) -> None:
    entry = KEPT[name]
    assert exercises.check_answer(name, entry["answer"]).text == f"{name}: right"
    for wrong, hint in entry.get("hints", {}).items():
        assert exercises.check_answer(name, wrong).text == f"{name}: not yet: {hint}"
