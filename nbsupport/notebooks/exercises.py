"""Exercises that tell whether the reader's answer is right.

``data/exercises.toml`` has a table for each: `asks` (a key of `KINDS`), `answer`, `hint`, and
`hints` for wrong answers that have a reason. tests/notebooks/test_exercises.py runs each solution,
which must end with a check of what it finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError
from nbsupport.show.shown import Shown, element

#: What an exercise may ask for.
KINDS = {
    "word": 'one word, such as "name"',
    "number": "a number",
    "set": 'a list, such as ["one", "two"]; its order does not matter',
}


@dataclass(frozen=True)
class Exercise:
    """What data/exercises.toml has of an exercise."""

    asks: str
    answer: str | int | float | tuple[str, ...]
    hint: str
    hints: Mapping[str, str] = field(default_factory=dict)


def load() -> dict[str, Exercise]:
    """Return the exercises of the notebooks, by their ids."""
    path = settings.data_dir() / "exercises.toml"
    entries = files.read_toml(path).items()
    return {name: files.load(Exercise, entry, f"{path.name}: {name}") for name, entry in entries}


def check_answer(exercise: str, answer: object) -> Shown:
    """Say whether an answer is right; a wrong one has a hint.

    `answer` is text, a number, yes or no as a bool, or a list or set of them; ``...``, "" and
    None are none yet. Blanks, case, quotes and order do not matter. Raises `LabError` where there
    is no such exercise.
    """
    exercises = load()
    entry = exercises.get(str(exercise))
    if entry is None:
        choice = f"choose from {', '.join(exercises)}"
        raise LabError(f"exercise {exercise!r}", "there is none", choice)
    words = normal(answer)
    if not words:
        how = "put yours in place of ... and run this cell, in JupyterLab (make lab)"
        return _reply(exercise, "no answer yet", how)
    if entry.asks not in ("set", _kind(words)):
        return _reply(exercise, "not yet", f"the answer is {KINDS[entry.asks]}")
    if words == normal(entry.answer):
        return _reply(exercise, "right")
    return _reply(exercise, "not yet", entry.hints.get(", ".join(words), entry.hint))


def normal(answer: object) -> tuple[str, ...]:
    """Return the words of an answer, each once, in order; () for none."""
    if answer is None or answer is ...:
        return ()
    if isinstance(answer, Iterable) and not isinstance(answer, str):
        return tuple(sorted({word for part in answer for word in normal(part)}))
    words = (" ".join(part.split()).strip("\"'`“” ").casefold() for part in str(answer).split(","))
    return tuple(sorted({_plain(word) for word in words if word}))


def _plain(word: str) -> str:
    """Return a number as everyone writes it, a function without its brackets, a bool in words."""
    word = {"true": "yes", "false": "no"}.get(word, word.removesuffix("()").removesuffix(".0"))
    try:
        return str(int(word, 0))
    except ValueError:
        return word


def _kind(words: Sequence[str]) -> str:
    if len(words) > 1:
        return "set"
    return "number" if words[0].lstrip("-").isdecimal() else "word"


def _reply(exercise: str, verdict: str, why: str = "") -> Shown:
    line = f"{verdict}: {why}" if why else verdict
    mark = {"right": "✓ ", "not yet": "✗ "}.get(verdict, "")
    page = element("p", element("strong", exercise), f" {mark}{line}", class_="exercise")
    return Shown(f"{exercise}: {line}", page)
