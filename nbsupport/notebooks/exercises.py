"""Exercises that tell whether the reader's answer is right.

``data/exercises.toml`` has a table for each: `asks` (a key of `KINDS`), `answer`, `hint`, and
`hints` for wrong answers that have a reason. `make nbval` runs each solution in its notebook; a
solution must end with a check of what it finds.
"""

from collections.abc import Iterable
from typing import Any

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError
from nbsupport.show.shown import Shown, element

#: What an exercise may ask for.
KINDS = {
    "word": 'one word, such as "name"',
    "number": "a number",
    "set": 'a list, such as ["one", "two"]; its order does not matter',
}


def load() -> dict[str, Any]:
    """Return the exercises of the notebooks, by their ids."""
    return files.read_toml(settings.data_dir() / "exercises.toml")


def check_answer(exercise: str, answer: object) -> Shown:
    """Say whether an answer is right; a wrong one has a hint.

    `exercise` is its id (`01-2`). `answer` is text, a number, yes or no as a bool, or a list or
    set of them; ``...``, "" and None are none yet. Blanks, case, quotes and order do not matter.
    Raises `LabError` where there is no such exercise.
    """
    exercises, words = load(), normal(answer)
    entry = exercises.get(str(exercise))
    if entry is None:
        choice = f"choose from {', '.join(exercises)}"
        raise LabError(f"exercise {exercise!r}", "there is none", choice)
    kind = "number" if len(words) == 1 and words[0].lstrip("-").isdecimal() else "word"
    line, mark = "right", "✓ "
    if not words:
        how = "put yours in place of ... and run this cell, in JupyterLab (make lab)"
        line, mark = f"no answer yet: {how}", ""
    elif entry["asks"] != "set" and (len(words) > 1 or entry["asks"] != kind):
        line, mark = f"not yet: the answer is {KINDS[entry['asks']]}", "✗ "
    elif words != normal(entry["answer"]):
        hint = entry.get("hints", {}).get(", ".join(words), entry["hint"])
        line, mark = f"not yet: {hint}", "✗ "
    page = element("p", element("strong", exercise), f" {mark}{line}", class_="exercise")
    return Shown(f"{exercise}: {line}", page)


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
