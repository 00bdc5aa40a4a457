"""What a notebook claims and records can be read back, from it or from Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nbsupport.base.errors import LabError, MissingError
from nbsupport.notebooks import document, results
from nbsupport.studies import observations

AT = {"program": "cold", "main": "clang 19"}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Catch what a notebook would display."""
    bundles: list[dict[str, Any]] = []
    monkeypatch.setattr(results, "_display", bundles.append)
    texts = {name: results.ClaimText("01-test", "it is so") for name in ("c", "first", "second")}
    monkeypatch.setattr(results, "load_claims", lambda: texts)
    monkeypatch.setattr(results, "_claims", [])
    monkeypatch.setattr(results, "_tables", {})
    return bundles


def write(folder: Path, bundles: list[dict[str, Any]]) -> Path:
    outputs = [{"output_type": "display_data", "data": bundle} for bundle in bundles]
    notebook = {"cells": [{"cell_type": "markdown"}, {"cell_type": "code", "outputs": outputs}]}
    (folder / "notebooks").mkdir(exist_ok=True)
    (folder / "notebooks" / "01-test.ipynb").write_text(json.dumps(notebook))
    return folder


def claim(predicted: object, observed: object, name: str = "c") -> None:
    results.claim(name, predicted, observed, **AT)


@pytest.mark.parametrize(
    ("predicted", "observed", "line"),
    [
        ("ok", "ok", "holds: it is so (predicted: ok; observed: ok)"),
        ("ok", "crash", "DOES NOT HOLD: it is so (predicted: ok; observed: crash)"),
        (
            frozenset({"crash", "version-mismatch"}),
            "crash",
            "holds: it is so (predicted: crash or version-mismatch; observed: crash)",
        ),
        (frozenset({"ok"}), "crash", "DOES NOT HOLD: it is so (predicted: ok; observed: crash)"),
        (7, 7, "holds: it is so (predicted: 7; observed: 7)"),
        (None, None, "holds: it is so (predicted: None; observed: None)"),
        ([64, 48], [64, 48], "holds: it is so (predicted: [64, 48]; observed: [64, 48])"),
        ((1, "a"), ("1", "a"), "holds: it is so (predicted: 1, a; observed: 1, a)"),
        ("none", (), "holds: it is so (predicted: none; observed: none)"),
    ],
)
def test_a_claim_is_one_line(
    shown: list[dict[str, Any]], predicted: object, observed: object, line: str
) -> None:
    claim(predicted, observed)
    assert shown[0]["text/plain"] == line
    assert shown[0][document.CLAIM]["at"] == AT


def test_a_notebook_knows_what_it_has_claimed_so_far(shown: list[dict[str, Any]]) -> None:
    assert results.here().claims.empty
    claim("ok", "crash", "first")
    results.keep_table("outcomes", pd.DataFrame({"outcome": ["ok"], "seconds": [0.1]}))
    here = results.here()
    assert here.observed("first") == ("crash",)
    assert not here.holds("first")
    assert list(here.tables["outcomes"]) == ["outcome"]
    assert len(shown) == 2


def test_claims_and_tables_come_back(tmp_path: Path, shown: list[dict[str, Any]]) -> None:
    table = pd.DataFrame({"outcome": ["ok", "crash"], "seconds": [0.1, 0.2]})
    claim("ok", "ok", "first")
    claim("ok", "crash", "second")
    results.keep_table("trials", table)
    run = results.collect(write(tmp_path, shown))
    again = results.load(tmp_path)
    for one in (run, again):
        assert list(one.claims["name"]) == ["first", "second"]
        assert list(one.claims["holds"]) == [True, False]
        # Times differ from run to run, and are not part of what was found.
        assert one.tables["trials"].to_dict("list") == {"outcome": ["ok", "crash"]}
    assert run.verdict() == "1 of 2 claims hold; not so: second"
    assert again.verdict() == run.verdict()
    assert run.holds("first")
    assert not run.holds("second")
    assert not run.holds("never made")


def test_a_claim_that_came_out_otherwise_is_changed(
    tmp_path: Path, shown: list[dict[str, Any]]
) -> None:
    claim("ok", "ok")
    before = results.read(write(tmp_path, shown))
    shown.clear()
    claim("ok", "crash")
    after = results.read(write(tmp_path, shown))
    assert after.changed(before) == ("c",)
    assert before.changed(before) == ()
    shown.clear()
    results.claim("c", "ok", "crash", **{**AT, "main": "clang 23"})
    elsewhere = results.read(write(tmp_path, shown))
    assert elsewhere.changed(before) == ()  # other parameters: nothing to compare with


def test_a_folder_without_a_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no executed notebooks there; pgo-lab run -o"):
        results.read(tmp_path)
    # A run that has just begun, beside what an earlier one has left.
    (write(tmp_path, []) / "manifest.json").write_text('{"notebooks": {}}')
    with pytest.raises(MissingError, match="no executed notebooks there; pgo-lab run -o"):
        results.read(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"cells": 5}', '{"cells": [5]}', "[]"])
def test_a_broken_notebook_is_named(tmp_path: Path, content: str) -> None:
    write(tmp_path, [])
    (tmp_path / "notebooks" / "02-broken.ipynb").write_text(content)
    with pytest.raises(LabError, match=r"02-broken\.ipynb: not a readable notebook"):
        results.read(tmp_path)


def test_a_broken_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="not a recorded run"):
        results.load(tmp_path)
    (tmp_path / "claims.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(LabError, match="not a recorded run"):
        results.load(tmp_path)


def test_the_recording_is_of_a_real_run_and_says_of_when() -> None:
    run = results.recorded()
    assert run.recorded
    assert run.manifest["started"]
    assert len(run.tables["trials"]) == 100
    assert bool(run.claims["holds"].all())
    assert results.provenance(run).text.startswith("A recording that came with the project, of 20")


# -- what the user saw


def test_what_the_user_saw_has_sources() -> None:
    observed = {one.id: one for one in observations.load()}
    assert observed["entries"].value == "67673216"
    assert observed["function"].value == "initializeValueProfRuntimeRecord"
    assert all(one.source for one in observations.load())


def test_the_baseline_has_the_claims_of_all_llvms() -> None:
    found, default = results.baseline(), results.recorded()
    llvms = {json.loads(at).get("llvm") for at in found.claims["at"]}
    assert {"17", "18", "19", "20", "21", "22", "23"} <= llvms
    assert not found.claims.duplicated(["name", "at"]).any()
    assert set(default.claims["name"]) <= set(found.claims["name"])
    assert len(found.claims) > 4 * len(default.claims)  # some are of no LLVM
