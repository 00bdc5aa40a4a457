"""Claims are data: each has its words in data/claims.toml, and is made by the notebook named there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nbformat import NotebookNode

from nbsupport.base import settings
from nbsupport.base.errors import LabError
from nbsupport.cli.commands import main
from nbsupport.notebooks import document, results
from nbsupport.report import upstream
from nbsupport.studies import hypotheses

BOOKS = {
    path.stem: document.read(path) for path in sorted(settings.notebooks_dir().glob("*.ipynb"))
}
CLAIMS = results.load_claims()


def made(book: NotebookNode) -> list[dict[str, Any]]:
    """Return the claims in the outputs of a notebook."""
    outputs = [output for cell in document.code(book) for output in cell.outputs]
    return [o["data"][document.CLAIM] for o in outputs if document.CLAIM in o.get("data", {})]


def calls(book: NotebookNode) -> Iterator[ast.Call]:
    """Yield the calls of `claim` in the code of a notebook."""
    for cell in document.code(book):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "claim":
                yield node


@pytest.mark.parametrize("name", BOOKS)
def test_a_notebook_makes_the_claims_that_are_its_own(name: str) -> None:
    own = [claim for claim, text in CLAIMS.items() if text.notebook == name]
    usual = [claim for claim in own if not CLAIMS[claim].scope]  # the others are of the whole run
    assert [record["name"] for record in made(BOOKS[name])] == usual
    assert [ast.literal_eval(call.args[0]) for call in calls(BOOKS[name])] == own


def test_each_claim_is_of_a_notebook() -> None:
    assert {text.notebook for text in CLAIMS.values()} <= set(BOOKS)


def test_an_id_never_changes() -> None:
    """Runs are compared by it: what was recorded has the ids of today."""
    assert set(results.baseline().claims["name"]) <= set(CLAIMS)


@pytest.mark.parametrize("name", BOOKS)
def test_a_claim_says_its_sentence(name: str) -> None:
    for record in made(BOOKS[name]):
        words = re.split(r"\{\w+\}", CLAIMS[record["name"]].sentence)
        assert re.fullmatch(".+".join(map(re.escape, words)), record["sentence"])


@pytest.mark.parametrize("name", BOOKS)
def test_a_claim_is_two_lines_at_most(name: str) -> None:
    for call in calls(BOOKS[name]):
        assert (call.end_lineno or 0) - call.lineno < 2, ast.unparse(call)


def test_what_names_a_claim_names_one_that_is_made() -> None:
    predictions = [one for each in hypotheses.load() for one in each.predictions]
    named = {prediction.claim for prediction in predictions}
    named |= {name for claims in upstream._RESTS.values() for name in claims}
    for path in (settings.data_dir() / "site").glob("*.md"):
        named |= set(re.findall(r'claim\("([^"]+)"\)', path.read_text()))
    for path in (settings.data_dir() / "upstream").glob("*.md"):
        named |= set(re.findall(r'(?:observed|holds|at)\("([^"]+)"\)', path.read_text()))
    assert len(named) > 20
    assert named <= set(CLAIMS)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> dict[str, results.ClaimText]:
    """Stand in for data/claims.toml."""
    texts: dict[str, results.ClaimText] = {}
    monkeypatch.setattr(results, "load_claims", lambda: texts)
    monkeypatch.setattr(results, "_claims", [])
    return texts


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Catch what a notebook would display."""
    bundles: list[dict[str, Any]] = []
    monkeypatch.setattr(results, "_display", bundles.append)
    return bundles


def test_words_of_a_sentence_are_no_parameters(
    texts: dict[str, results.ClaimText], shown: list[dict[str, Any]]
) -> None:
    texts["c"] = results.ClaimText("01", "all {cells} on {system}", "{} on {system}")
    results.claim("c", frozenset({"b", "a"}), "b", cells=5, system="Plan 9", llvm="/opt/llvm-19")
    assert shown[0]["text/plain"] == (
        "holds: all 5 on Plan 9 (predicted: a on Plan 9 or b on Plan 9; observed: b on Plan 9)"
    )
    assert shown[0][document.CLAIM]["at"] == {"llvm": "llvm-19"}


def test_values_are_told_as_the_data_says(
    texts: dict[str, results.ClaimText], shown: list[dict[str, Any]]
) -> None:
    texts["c"] = results.ClaimText("01", "so", "{} runs in {} files")
    results.claim("c", (2, 2), (2, 1))
    line = "DOES NOT HOLD: so (predicted: 2 runs in 2 files; observed: 2 runs in 1 files)"
    assert shown[0]["text/plain"] == line


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("missing", 0, "claim 'missing': there is none; add its sentence to data/claims.toml"),
        ("words", 0, "claim 'words': its text needs 'cells', which is not given"),
        ("parts", 0, "claim 'parts': its text needs "),
    ],
)
def test_a_claim_that_the_data_does_not_have_is_said(
    name: str,
    values: object,
    why: str,
    texts: dict[str, results.ClaimText],
    shown: list[dict[str, Any]],
) -> None:
    texts["words"] = results.ClaimText("01", "all {cells}")
    texts["parts"] = results.ClaimText("01", "so", "{} of {}")
    with pytest.raises(LabError) as error:
        results.claim(name, values, values)
    assert str(error.value).startswith(why)
    assert not shown


def test_a_wrong_entry_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "data_dir", lambda: tmp_path)
    (tmp_path / "claims.toml").write_text('[c]\nnotebook = "01"\nwords = "so"')
    with pytest.raises(LabError, match=r"claims.toml: c: 'words' is not known; choose from"):
        results.load_claims()


#: Claims about the crash of main's LLVM and `foreign` themselves: of another pair they foretell
#: something else.
OF_THE_PAIR = {
    *("mixed-layouts-decide", "dies-reading-a-record", "another-field-is-read-as-values"),
    *("explicit-write-dies-alike", "address-read-off-the-file", "faults-are-as-the-layouts-say"),
    *("zero-takes-two-layouts", "records-found-by-invariants", "they-part-before-the-crash"),
    *("the-report-is-a-way-through-the-sources", "a-crash-hides-in-a-pool"),
    *("only-the-writer-of-files-checks", "explicit-and-forked-die-alike"),
    *("the-buffer-is-never-checked", "crash-without-an-allocator", "crash-on-this-system"),
    *("an-earlier-write-is-no-help", "one-explanation-fits", "few-die-in-that-function"),
    *("each-rival-contradicts-several", "one-object-reads-the-values", "mimalloc-dies-at-exit"),
    *("rust-dies-in-main-of-a-foreign-object", "one-program-shows-all-but-the-address"),
    *("sites-that-ran-decide-when", "one-layout-cures", "real-projects-crash-and-are-cured"),
}


@pytest.mark.slow
def test_of_one_raw_version_each_claim_about_the_crash_foretells_another_end(
    tmp_path: Path,
) -> None:
    """A claim that foretold the same of a healthy pair could not fail."""
    books = sorted(settings.notebooks_dir().glob("0[1-7]*.ipynb"))
    words = ["run", *map(str, books), "--foreign", "22", "-o", str(tmp_path / "run")]
    assert main(words) in (0, 1)
    mine, usual = (results.open_run(run).claims for run in (str(tmp_path / "run"), "recorded"))
    assert mine["holds"].all(), list(mine.loc[~mine["holds"], "name"])
    both = mine.merge(usual, on="name", suffixes=("", "_usual")).set_index("name")
    assert set(both.index) >= OF_THE_PAIR
    same = both.index[both["predicted"] == both["predicted_usual"]]
    assert not OF_THE_PAIR & set(same)
