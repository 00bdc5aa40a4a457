"""The corpus is whole: each text has a label, each label a text, and neither says more than it may."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.crash.corpus.make import HERE, LINES, labels, recipe

LABELS = labels()
FACES = {
    "ours": {"at exit", "in main", "before main", "version message", ""},
    "not-ours": {""},
    "no-crash": {""},
    "unknown": {""},
    "unreadable": {""},
}


def test_each_text_has_a_label_and_each_label_a_text() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == set(LABELS)


@pytest.mark.parametrize("name", LABELS)
def test_a_label_says_what_it_may(name: str) -> None:
    label = LABELS[name]
    assert set(label) - {"shown"} == {"shape", "made", "verdict", "face", "why"}
    assert label["face"] in FACES[str(label["verdict"])]
    assert label.get("shown", True) is True
    assert "shown" not in label or label["verdict"] in ("ours", "not-ours")


@pytest.mark.parametrize("name", LABELS)
def test_a_text_was_made_here_or_after_a_public_one(name: str) -> None:
    made = str(LABELS[name]["made"])
    if made.startswith("here: "):
        recipes = tomllib.loads((HERE / "builds.toml").read_text())
        view, build, _, _ = recipe(made)
        assert view in recipes["views"]
        assert build in recipes["builds"]
    else:
        assert re.fullmatch(r"after: https://\S+", made)


@pytest.mark.parametrize("name", LABELS)
def test_a_text_is_short_and_of_no_machine(name: str) -> None:
    text = (HERE / f"{name}.txt").read_bytes().decode()
    assert 0 < len(text.splitlines()) <= LINES + 16
    assert not re.search(r"/root\b|/tmp/(?!\w+-\w+\.)|/work\b|\.cache", text)
