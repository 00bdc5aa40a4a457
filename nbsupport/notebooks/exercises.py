"""Exercises that tell whether the reader's answer is right.

``data/exercises.toml`` has a table for each: `asks` (a key of `KINDS`), `answer` (`digest` of it,
so that nobody stumbles over it), `hint`, and `hints` for wrong answers that have a reason.
``python -m nbsupport.notebooks.exercises ID ANSWER`` prints the digest.
tests/notebooks/test_exercises.py runs each solution, which must end with a check of what it found.
"""

from __future__ import annotations

import hashlib
import html
import sys
import tomllib
from collections.abc import Iterable, Sequence
from typing import Any

from nbsupport.base import settings
from nbsupport.base.errors import LabError
from nbsupport.show.shown import Shown

#: What an exercise may ask for.
KINDS = {
    "word": 'one word, such as "name"',
    "number": "a number",
    "set": 'a list, such as ["one", "two"]; its order does not matter',
}


def check_answer(exercise: str, answer: object) -> Shown:
    """Say whether an answer is right; a wrong one has a hint.

    `answer` is text, a number, yes or no as a bool, or a list or set of them; ``...``, "" and
    None are none yet. Blanks, case, quotes and order do not matter. Raises `LabError` where there
    is no such exercise.
    """
    known = _known()
    entry = known.get(str(exercise))
    if entry is None:
        raise LabError(f"exercise {exercise!r}", "there is none", f"choose from {', '.join(known)}")
    words = normal(answer)
    if not words:
        how = "put yours in place of ... and run this cell, in JupyterLab (make lab)"
        return _said(exercise, "no answer yet", how)
    if entry["asks"] not in ("set", _kind(words)):
        return _said(exercise, "not yet", f"the answer is {KINDS[entry['asks']]}")
    if digest(exercise, words) == entry["answer"]:
        return _said(exercise, "right")
    hints = entry.get("hints", {})
    return _said(exercise, "not yet", hints.get(", ".join(words), entry["hint"]))


def normal(answer: object) -> tuple[str, ...]:
    """Return the words of an answer, each once, in order; () for none."""
    if answer is None or answer is ...:
        return ()
    if isinstance(answer, Iterable) and not isinstance(answer, str):
        return tuple(sorted({word for one in answer for word in normal(one)}))
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


def digest(exercise: str, answer: object) -> str:
    """Return by what the right answer of an exercise is known: salted with its name."""
    text = f"{exercise}: {', '.join(normal(answer))}"
    return hashlib.sha256(text.encode()).hexdigest()


def _known() -> dict[str, Any]:
    return tomllib.loads((settings.data_dir() / "exercises.toml").read_text())


def _said(exercise: str, verdict: str, why: str = "") -> Shown:
    line = f"{verdict}: {why}" if why else verdict
    mark = {"right": "✓ ", "not yet": "✗ "}.get(verdict, "")
    shown = f"<strong>{exercise}</strong> {mark}{html.escape(line)}"
    return Shown(f"{exercise}: {line}", f'<p class="exercise">{shown}</p>')


if __name__ == "__main__":
    print(digest(sys.argv[1], ",".join(sys.argv[2:])))  # noqa: T201
