"""Each notebook's exercises: what they ask, and what an answer gets.

`make nbval` runs the solutions (tests/support/solved.py).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nbsupport.base import settings
from nbsupport.base.errors import LabError
from nbsupport.notebooks import document, exercises
from nbsupport.show.shown import Shown
from tests.support.solved import CHECK, SOLUTION, solve

NOTEBOOKS = sorted(p for p in settings.notebooks_dir().glob("*.ipynb") if p.stem[:2] != "00")
KEPT = exercises.load()


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
        (code,) = SOLUTION.findall(solution.source)
        assert CHECK.findall(code)[-1][0] == name
        found.append((name, code))
    return found


def test_each_notebook_asks_three_things_and_each_kept_answer_is_asked_for() -> None:
    names = {path.stem[:2]: [name for name, _ in asked(path)] for path in NOTEBOOKS}
    assert len(names) == 11
    for notebook_, here in names.items():
        assert here == [f"{notebook_}-{n}" for n in range(1, len(here) + 1)]
        assert len(here) >= 3
    assert sorted(KEPT) == sorted(name for here in names.values() for name in here)


def test_each_solution_is_run_and_what_it_finds_is_compared() -> None:
    for path in NOTEBOOKS:
        book = document.read(path)
        before, names = document.code(book), [name for name, _ in asked(path)]
        solve(book)
        added = [cell for cell in document.code(book) if cell not in before]
        work, checks = added[::2], added[1::2]
        assert not any(document.tags(cell) for cell in checks)
        found = [cell.outputs[0]["data"]["text/plain"] for cell in checks]
        assert found == [f"{name}: right" for name in names]
        assert all(document.tags(cell) == ("nbval-ignore-output",) for cell in work)
        for cell, name in zip(checks, names, strict=True):
            assert cell.source.startswith("check_answer(") and f'"{name}"' in cell.source


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
