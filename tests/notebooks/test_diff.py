"""What `pgo-lab diff` calls changed, in which order, and what it does not."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nbsupport.base.errors import LabError
from nbsupport.cli import commands
from nbsupport.notebooks import diff, document, results

Made = Callable[..., str]
Rows = list[dict[str, Any]]

CLAIM = {"notebook": "01-a", "name": "c", "sentence": "so it is", "holds": True}
CLAIM |= {"predicted": "ok", "observed": "ok", "at": '{"llvm": "19"}'}
TRIAL: dict[str, Any] = {
    "program": "cold",
    "main": "19@wheel",
    "foreign": "17@wheel",
    "order": "main-first",
}
TRIAL |= {"instrument": "ir", "main_instrument": "ir", "outcome": "ok", "function": None}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Return a function that makes a run's folder of what it found."""

    def make(
        claims: Rows | None = None, manifest: dict[str, Any] | None = None, **tables: Rows
    ) -> str:
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        found = {name: pd.DataFrame(rows) for name, rows in tables.items()}
        rows = [CLAIM] if claims is None else claims
        claimed = pd.DataFrame(rows, columns=None if rows else [*CLAIM])
        results.save(results.Run({}, claimed, found), folder)
        (folder / "manifest.json").write_text(json.dumps(manifest or {}))
        return str(folder)

    return make


def kinds(a: str, b: str) -> list[str]:
    return [change.kind for change in diff.diff(a, b).changes]


def lines(a: str, b: str) -> list[str]:
    """Return what a person reads, but for the names of the runs."""
    return [line.strip() for line in diff.diff(a, b).lines()[1:]]


# -- real runs


def test_a_recording_is_the_same_as_itself() -> None:
    found = diff.diff("recorded", "recorded")
    assert found.same
    assert found.to_json()["changes"] == []
    assert found.lines()[0].startswith("same: recorded (20")
    assert len(found.lines()) == 1


def test_one_altered_trial_of_a_real_run_is_all_that_changed(tmp_path: Path) -> None:
    real = results.recorded()
    trials = real.tables["trials"].copy()
    (row, *_) = trials.index[(trials["main"] == "19@wheel") & (trials["outcome"] == "ok")]
    trials.loc[row, "outcome"] = "malformed"
    results.save(
        dataclasses.replace(real, tables={**real.tables, "trials": trials}), tmp_path / "run"
    )
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(dict(real.manifest)))
    (change,) = diff.diff("recorded", str(tmp_path / "run")).changes
    assert (change.kind, change.before, change.after) == ("outcome", "ok", "malformed")
    assert (change.what, change.at["main"]) == ("cold", "19")


def test_a_run_is_read_from_its_notebooks_too(tmp_path: Path, made: Made) -> None:
    claim = {key: value for key, value in CLAIM.items() if key != "notebook"}
    data = {
        document.CLAIM: {**claim, "at": {"llvm": "19"}},
        results.TABLE: {"name": "trials", "rows": [{**TRIAL, "exit_code": 0.0}]},
    }
    cells = [{"cell_type": "code", "outputs": [{"data": {k: v}} for k, v in data.items()]}]
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01-a.ipynb").write_text(json.dumps({"cells": cells}))
    assert diff.diff(str(tmp_path), made(trials=[{**TRIAL, "exit_code": None}])).same


# -- claims, most important first


def test_claims_are_told_apart_and_ordered(made: Made) -> None:
    def claim(name: str, holds: bool, observed: str = "ok") -> dict[str, Any]:
        return {**CLAIM, "name": name, "holds": holds, "observed": observed}

    a = made([claim("gone", True), claim("otherwise", True), claim("lost", True)])
    a = made(
        [
            claim("gone", True),
            claim("otherwise", True),
            claim("regained", False, "crash"),
            claim("lost", True),
            claim("alike", True),
        ],
        ledger=[{"hypothesis": "mixed", "verdict": "supported"}],
    )
    b = made(
        [
            claim("new", True),
            claim("otherwise", True, "fine"),
            claim("regained", True),
            claim("unheld", False, "crash"),
            claim("lost", False, "crash"),
            claim("alike", True),
        ],
        ledger=[{"hypothesis": "mixed", "verdict": "refuted"}],
    )
    assert lines(a, b) == [
        "no longer holds lost: ok -> crash; llvm 19",
        "new claim, does not hold unheld: new, crash; llvm 19",
        "holds now regained: crash -> ok; llvm 19",
        "observed otherwise otherwise: ok -> fine; llvm 19",
        "claim gone: gone, ok; llvm 19",
        "claim that holds new: new, ok; llvm 19",
        "verdict on mixed: supported -> refuted",
    ]
    found = diff.diff(a, b).to_json()["changes"]
    assert [one["importance"] for one in found] == [1, 2, 3, 4, 5, 6, 7]


def test_a_claim_is_compared_at_equal_parameters_only(made: Made) -> None:
    elsewhere = {**CLAIM, "at": '{"llvm": "23"}', "observed": "crash", "holds": False}
    assert kinds(made(), made([CLAIM, elsewhere])) == ["claim-unheld"]
    assert kinds(made(), made([elsewhere])) == ["claim-unheld", "claim-gone"]


def test_a_claim_made_several_times_holds_when_each_does(made: Made) -> None:
    failed = {**CLAIM, "holds": False, "observed": "crash"}
    (change,) = diff.diff(made([CLAIM, CLAIM]), made([CLAIM, failed])).changes
    assert (change.kind, change.before, change.after) == ("claim-lost", "ok", "crash | ok")
    assert kinds(made([failed]), made([failed, CLAIM])) == ["claim-observed"]
    (change,) = diff.diff(made(), made([{**CLAIM, "observed": o} for o in "hfgabecd"])).changes
    assert change.after == "a | b | c | d | e | f | g | h"


def test_another_sentence_is_no_change(made: Made) -> None:
    assert diff.diff(made(), made([{**CLAIM, "sentence": "in other words"}])).same


# -- tables


def test_a_compiler_is_its_major_version_whoever_made_it(made: Made) -> None:
    debian = {**TRIAL, "main": "19@debian", "foreign": "17.0.6@debian"}
    assert diff.diff(made(trials=[TRIAL]), made(trials=[debian])).same
    claim = {**CLAIM, "at": '{"llvm": "19@debian"}'}
    assert diff.diff(made(), made([claim])).same
    other = {**TRIAL, "foreign": "18@wheel"}
    for table in ("trials", "allocators", "versions"):
        runs = [made(**{table: [row]}) for row in (TRIAL, other)]
        assert kinds(*runs) == ["outcome", "outcome"]


def test_where_it_died_is_part_of_an_outcome(made: Made) -> None:
    crash = {**TRIAL, "outcome": "crash", "function": "f"}
    a = made(trials=[crash], allocators=[crash])
    b = made(trials=[{**crash, "function": "g"}], allocators=[TRIAL])
    assert [(one.before, one.after) for one in diff.diff(a, b).changes] == [
        ("crash in f", "ok"),
        ("crash in f", "crash in g"),
    ]


def test_order_and_measured_columns_do_not_count(made: Made) -> None:
    other = {**TRIAL, "order": "foreign-first"}
    a = made(trials=[TRIAL, other], mine=[{"x": 1, "seconds": 1.0, "build": 1, "run": 2}])
    b = made(trials=[other, TRIAL], mine=[{"x": 1, "seconds": 9.0, "build": 3, "run": 4}])
    assert diff.diff(a, b).same


def test_like_changes_are_one_line(made: Made) -> None:
    rows = [
        {**TRIAL, "main": main, "foreign": foreign, "program": program}
        for main in ("19", "24")
        for foreign in ("17", "18", "22")
        for program in ("cold", "hot")
    ]
    broken = [
        {**row, "outcome": "crash", "function": "f"}
        if row["main"] == "24" and row["foreign"] != "22"
        else row
        for row in rows
    ]
    assert lines(made(trials=rows), made(trials=broken)) == [
        "outcome of cold, hot (4 times): ok -> crash in f; main 24; foreign 17, 18; "
        "order main-first; instrument ir; main_instrument ir"
    ]


def test_what_is_new_is_one_line_but_for_outcomes(made: Made) -> None:
    new = [{**CLAIM, "name": f"n{n}", "observed": str(n)} for n in range(3)]
    rows = [{**TRIAL, "program": name} for name in ("hot", "rich")]
    rows.append({**TRIAL, "program": "small", "outcome": "crash"})
    a, b = made(trials=[TRIAL]), made([CLAIM, *new], trials=[TRIAL, *rows])
    at = "main 19; foreign 17; order main-first; instrument ir; main_instrument ir"
    assert lines(a, b) == [
        "claim that holds n0, n1, n2: new; llvm 19",
        f"outcome of hot, rich: new, ok; {at}",
        f"outcome of small: new, crash; {at}",
    ]


def test_mechanisms_workarounds_layouts_and_the_runtime(made: Made) -> None:
    mechanism = {"mechanism": "freed", "cold": "crash", "address": "0x0", "why": "prose"}
    cure = {
        "workaround": "cc-of-main",
        "program": "cold",
        "verdict": "whole profile",
        "why": "prose",
    }
    layout = {"raw_version": 10, "bits": 64, "field": "Values", "offset": 32, "size": 8}
    function = {"llvm": "23.1.4", "function": "f", "file": "a.c", "digest": "1"}
    a = made(mechanisms=[mechanism], workarounds=[cure], layouts=[layout], runtime=[function])
    b = made(
        mechanisms=[{**mechanism, "address": "0x3", "why": "other"}],
        workarounds=[{**cure, "verdict": "does not help", "why": "other"}],
        layouts=[{**layout, "offset": 40}, {**layout, "raw_version": 11}],
        runtime=[
            {**function, "llvm": "23.1.5", "digest": "2"},
            {**function, "function": "g"},
        ],
    )
    assert lines(a, b) == [
        "mechanism freed: address: 0x0 -> 0x3",
        "workaround cc-of-main: whole profile -> does not help; program cold",
        "record layout Values: 32 + 8 -> 40 + 8; raw_version 10; bits 64",
        "record layout Values: new, 32 + 8; raw_version 11; bits 64",
        "function of the runtime f: changed; llvm 23; file a.c",
        "function of the runtime g: new, 1; llvm 23; file a.c",
    ]


def test_projects_and_builds(made: Made) -> None:
    case = {"case": "orjson", "rustc": "1.85", "cc": "17@wheel", "cflags": "", "outcome": "crash"}
    a = made(cases=[case], benefit=[{"program": "cold", "build": "pgo", "ratio": 0.9}])
    b = made(cases=[{**case, "outcome": "ok"}], benefit=[{"program": "hot", "ratio": 0.8}])
    assert lines(a, b) == [
        "outcome of project orjson: crash -> ok; rustc 1.85; cc 17; cflags none",
        "builds of cold: gone, cold",
        "builds of hot: new, hot",
    ]


def test_a_table_that_is_not_known_is_a_set_of_rows(made: Made) -> None:
    a = made(mine=[{"x": 1, "y": None}, {"x": 2, "y": "b"}])
    b = made(mine=[{"y": "b", "x": 2.0}, {"y": "c", "x": None}])
    (gone, new) = sorted(diff.diff(a, b).changes, key=lambda one: one.before is None)
    assert (gone.kind, gone.what, gone.at) == ("table", "mine", {"x": "1", "y": ""})
    assert (new.before, new.after, new.at) == (None, "", {"x": "", "y": "c"})


def test_parameters_of_a_cell_belong_to_a_row(made: Made) -> None:
    rows = [
        {"hypothesis": "mixed", "verdict": "open", "at": '{"llvm": "19"}'},
        {"hypothesis": "mixed", "verdict": "open", "at": '{"llvm": "23"}'},
    ]
    changed = [rows[0], {**rows[1], "verdict": "refuted"}]
    (change,) = diff.diff(made(ledger=rows), made(ledger=changed)).changes
    assert change.at == {"llvm": "23"}
    # A run of one combination has no such column: it is compared with its own combination.
    entry = {"status": "executed", "seconds": 1.0, "parameters": {"llvm": "19@debian"}}
    one = made(manifest={"notebooks": {"01-a": entry}}, ledger=[{**rows[0], "at": None}])
    alone = pd.read_parquet(Path(one, "ledger.parquet")).drop(columns="at")
    alone.to_parquet(Path(one, "ledger.parquet"))
    assert diff.diff(made(ledger=changed), one).same
    assert diff.diff(one, made(ledger=changed)).same


def test_what_only_one_run_has_is_said_and_the_rest_is_compared(made: Made) -> None:
    old = {key: value for key, value in TRIAL.items() if key != "main_instrument"}
    a = made(trials=[old], ledger=[{"verdict": "open"}], gone=[{"x": 1}])
    b = made(trials=[{**TRIAL, "outcome": "crash"}], ledger=[{"hypothesis": "h", "verdict": "x"}])
    assert lines(a, b) == [
        "outcome of cold: ok -> crash; main 19; foreign 17; order main-first; instrument ir",
        f"not compared table gone: only in {a}",
        "not compared table ledger, without hypothesis",
        "not compared table trials: main_instrument, which only one run has",
    ]


@pytest.mark.parametrize("column", [None, "program", "at", "other"])
def test_a_table_that_lost_all_rows_is_gone_row_by_row(made: Made, column: str | None) -> None:
    b = made(trials=[])
    if column:  # which the other may not have
        pd.DataFrame({column: pd.Series([], dtype=object)}).to_parquet(Path(b, "trials.parquet"))
    (change,) = diff.diff(made(trials=[TRIAL]), b).changes
    assert (change.before, change.after) == ("ok", None)
    (change,) = diff.diff(b, made(trials=[TRIAL])).changes
    assert (change.before, change.after) == (None, "ok")


# -- notebooks, surroundings, time


def manifest(**seconds: float) -> dict[str, Any]:
    return {
        "notebooks": {name: {"status": "executed", "seconds": s} for name, s in seconds.items()}
    }


def test_a_notebook_that_failed_or_is_missing_is_news(made: Made) -> None:
    failed = {"status": "failed", "seconds": 1.0, "error": "cell 3: the kernel died"}
    other = {**CLAIM, "notebook": "02-b", "name": "d"}
    a = made([CLAIM, other], {"notebooks": {}})
    b = made([CLAIM], {"notebooks": {"01-a": failed}})
    assert lines(a, b) == [
        "claim d: gone, ok; llvm 19",
        "notebook 01-a: executed -> failed: cell 3: the kernel died",
        "notebook 02-b: gone, executed",
    ]
    assert diff.diff(b, b).same


def test_a_cell_is_of_its_notebook(made: Made) -> None:
    failed = {"status": "failed", "seconds": 1.0, "error": "cell 3: no", "notebook": "01-a"}
    grid = made(manifest={"notebooks": {"01-a--19": failed}})
    assert lines(made(), grid) == ["notebook 01-a: executed -> failed: cell 3: no"]
    # Notebooks that claim nothing can be compared, too.
    silent = made([], {"notebooks": {"01-a--19": {**failed, "status": "executed"}}})
    assert diff.diff(silent, silent).same


def test_surroundings_are_shown_but_make_no_difference(made: Made) -> None:
    tool = {"name": "19@wheel", "kind": "clang", "version": "19.1.7", "raw_version": 10}
    a = made(manifest={"platform": "Linux x86_64", "toolchains": [tool]})
    b = made(
        manifest={
            "platform": "Darwin arm64",
            "toolchains": [{**tool, "raw_version": 11}, {**tool, "name": "24@x"}],
        }
    )
    found = diff.diff(a, b)
    assert found.same
    assert [line.strip() for line in found.lines()[1:]] == [
        "made with platform: Linux x86_64 -> Darwin arm64",
        "toolchain 19@wheel: 19.1.7, raw version 10 -> 19.1.7, raw version 11",
        "toolchain 24@x: new, 19.1.7, raw version 10",
    ]


USUAL = {"a": 20.0, "b": 20.0, "c": 30.0, "d": 2.0}


@pytest.mark.parametrize(
    ("now", "beyond"),
    [
        ({"a": 65.0}, ["a"]),
        ({"a": 55.0}, []),  # not three times
        ({"d": 9.0}, []),  # not ten seconds
        ({"a": 5.0}, ["a"]),
        ({"a": 80.0, "b": 80.0, "c": 120.0, "d": 8.0}, []),  # all four times: the machine is slow
        ({"a": 240.0, "b": 80.0, "c": 120.0, "d": 8.0}, ["a"]),
        ({"a": float("inf")}, []),
        ({"a": 0.0}, []),
    ],
)
def test_times_beyond_noise(made: Made, now: dict[str, float], beyond: list[str]) -> None:
    found = diff.diff(made(manifest=manifest(**USUAL)), made(manifest=manifest(**USUAL | now)))
    assert found.same
    assert [one.what for one in found.timings] == beyond


# -- what people and programs get


def test_a_lot_of_changes_is_half_a_page(made: Made) -> None:
    def many(word: str) -> str:
        rows = [{**TRIAL, "program": f"p{n}", "outcome": f"{word}{n // 2}"} for n in range(200)]
        tables = {f"t{n}": [{word: 1}] for n in range(20)}
        return made(trials=rows, **tables)

    found = diff.diff(many("a"), many("b"))
    shown = found.lines()
    assert len(found.changes) == 200
    assert len(shown) <= 40
    assert "  and 154 more; --json has all" in shown
    assert "  and 17 more; --json has all" in shown


def test_what_a_file_says_cannot_disturb_a_terminal(made: Made) -> None:
    name = "\x1b[31m" + "x" * 500
    found = diff.diff(made(), made([{**CLAIM, "name": name}, CLAIM]))
    (line,) = found.lines()[1:]
    assert line.isprintable()
    assert len(line) < 250


def test_the_command(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = made(), made([{**CLAIM, "observed": "crash", "holds": False}])
    assert commands.main(["diff", a, a]) == 0
    assert capsys.readouterr().out.startswith("same: ")
    assert commands.main(["diff", a, b, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is False
    assert found["changes"] == [
        {
            "kind": "claim-lost",
            "importance": 1,
            "what": "c",
            "before": "ok",
            "after": "crash",
            "at": {"llvm": "19"},
        }
    ]
    assert (found["a"]["run"], found["b"]["run"]) == (a, b)


# -- bad input


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", b"{"),
        ("manifest.json", b"[]"),
        ("manifest.json", b"[" * 100_000),
        ("manifest.json", b'{"notebooks": {"01-a": 5}}'),
        ("manifest.json", b'{"notebooks": {"01-a": {"status": "executed", "seconds": "x"}}}'),
        ("manifest.json", b'{"toolchains": [{}]}'),
        ("manifest.json", b"\xff\xfe"),
        ("claims.parquet", b"PAR1 and then nothing"),
        ("trials.parquet", b""),
    ],
)
def test_a_damaged_run_is_named(made: Made, file: str, content: bytes) -> None:
    run = made(trials=[TRIAL])
    Path(run, file).write_bytes(content)
    with pytest.raises(LabError, match=re.escape(run)) as caught:
        diff.diff("recorded", run)
    assert len(str(caught.value).splitlines()) == 1


def test_claims_without_what_a_claim_has_are_named(made: Made) -> None:
    for column in ("name", "holds", "observed", "notebook", "at"):
        rows = [{key: value for key, value in CLAIM.items() if key != column}]
        with pytest.raises(LabError, match="not a readable run"):
            diff.diff(made(rows), made())


def test_runs_that_have_nothing_in_common_are_no_pair(made: Made) -> None:
    other = made([{**CLAIM, "notebook": "02-b"}])
    with pytest.raises(LabError, match="no notebook in common; run the same notebooks"):
        diff.diff(made(), other)


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from nbsupport.cli.commands import entry; entry()", "diff"]
    done = subprocess.run(
        [*command, "recorded", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"pgo-lab: {tmp_path}: no executed notebooks there; ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("at", "given", "asked"),
    [
        ({"llvm": "19", "foreign": "17"}, {"llvm": {"24"}, "foreign": {"17"}}, False),
        ({"llvm": "24", "foreign": "19"}, {"llvm": {"24"}, "foreign": {"17"}}, False),
        ({"llvm": "24", "foreign": "17"}, {"llvm": {"19", "24"}, "foreign": {"17"}}, True),
        ({"main": "clang 19", "foreign": "clang 17"}, {"llvm": {"24"}}, False),
        ({"main": "rustc 24", "foreign": "clang 17"}, {"llvm": {"24"}}, True),
        ({"grid": "17,18"}, {"llvm": {"24"}}, True),
        ({}, {}, True),
    ],
)
def test_what_a_run_was_not_asked_for_is_not_gone(
    at: dict[str, str], given: dict[str, set[str]], asked: bool
) -> None:
    assert diff._asked(at, given) is asked


# -- a run of the default scope beside one of the whole


def scope(name: str, *toolchains: str) -> dict[str, Any]:
    parameters = {"scope": "whole"} if name == "whole" else {}
    entry = {"notebook": "01-a", "status": "executed", "seconds": 1.0, "parameters": parameters}
    rows = [{"name": name, "version": "1", "raw_version": 8} for name in toolchains]
    return {"notebooks": {"01-a": entry}, "toolchains": rows}


def test_what_only_the_whole_claims_is_neither_new_nor_gone(made: Made) -> None:
    more = {**CLAIM, "name": "d", "at": '{"scope": "whole"}'}
    some, whole = made(manifest=scope("default")), made([CLAIM, more], scope("whole"))
    assert kinds(some, whole) == kinds(whole, some) == []
    # Two runs of the whole are compared whole, and so is what the default claims.
    assert kinds(whole, made([CLAIM], scope("whole"))) == ["claim-gone"]
    other = {**CLAIM, "name": "e"}
    assert kinds(whole, made([other], scope("default"))) == ["claim-gone", "claim-new"]
    assert kinds(made([CLAIM], scope("whole")), whole) == ["claim-new"]


TRIED: dict[str, Rows] = {
    "cases": [{"case": name, "outcome": "ok"} for name in ("workload-mimalloc", "orjson")],
    "trials": [TRIAL],
    "mechanisms": [
        {"mechanism": name, "cold": "ok", "jemalloc": "ok", "agrees_allocators": "yes"}
        for name in ("mixed", "pool")
    ],
}
UNTRIED = {"jemalloc": "", "agrees_allocators": "untried"}
#: What a run of the default has of that.
SOME = TRIED | {
    "cases": TRIED["cases"][:1],
    "mechanisms": [TRIED["mechanisms"][0], TRIED["mechanisms"][1] | UNTRIED],
}


def test_what_only_the_whole_tried_is_not_compared_and_said(made: Made) -> None:
    some, whole = made(None, scope("default"), **SOME), made(None, scope("whole"), **TRIED)
    for pair in ((some, whole), (whole, some)):
        assert lines(*pair) == [
            "not compared table cases: 1 of its rows, with what the whole alone tries",
            "not compared table mechanisms: 1 of its rows, with what the whole alone tries",
        ]
    assert len(kinds(whole, made(None, scope("whole"), **SOME))) == 3


@pytest.mark.parametrize(
    ("name", "rows", "line"),
    [
        ("cases", [], "outcome of project workload-mimalloc: gone, ok"),
        ("cases", [{**SOME["cases"][0], "outcome": ""}], "workload-mimalloc: ok -> nothing"),
        ("cases", [*SOME["cases"], {"case": "mine", "outcome": "crash"}], "mine: new, crash"),
        ("trials", [], "outcome of cold: gone, ok"),
        ("mechanisms", SOME["mechanisms"][:1], "mechanism pool: gone, ok"),
        ("mechanisms", [TRIED["mechanisms"][0] | UNTRIED, SOME["mechanisms"][1]], "mixed: "),
        ("mechanisms", [row | {"cold": ""} for row in SOME["mechanisms"]], "cold: ok -> nothing"),
    ],
)
def test_what_both_scopes_try_is_compared(made: Made, name: str, rows: Rows, line: str) -> None:
    whole = made(None, scope("whole"), **TRIED)
    other = made(None, scope("default"), **SOME | {name: rows})
    assert any(line in text for text in lines(whole, other)), lines(whole, other)
    assert kinds(whole, other) != [] != kinds(other, whole)


def test_a_toolchain_is_of_no_scope(made: Made) -> None:
    found = diff.diff(made(None, scope("whole", "20")), made(None, scope("default")))
    assert [change.what for change in found.surroundings] == ["20"] and not found.notes
