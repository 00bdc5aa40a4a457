"""Reports to send say what the run says, and their commands do what the reports say they do."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.lab import cases
from nbsupport.lab.lab import Invocation, Lab
from nbsupport.notebooks import document, results
from nbsupport.notebooks.results import Run
from nbsupport.profile import layout
from nbsupport.profile.layout import LAYOUTS
from nbsupport.report import reproducer, upstream
from nbsupport.toolchains.probe import Toolchain
from tests.report.test_reproducer import run

Find = Callable[[str], Toolchain]
ALL = ("llvm", "cc-rs", "cargo-pgo", "analysis")
RECORDED = results.recorded()


def variant(*, only: str = "", **changed: Any) -> Run:
    """Return the recorded run with some of it changed; `only` these LLVMs were in its grid."""
    tables = {name: table for name, table in RECORDED.tables.items() if name != "versions"}
    if only:
        kept = tables["trials"]
        for part in ("main", "foreign"):
            kept = kept[kept[part].str.partition("@")[0].isin(only.split(","))]
        tables["trials"] = kept
    return dataclasses.replace(RECORDED, **{"tables": tables, "recorded": False, **changed})


def claims(name: str, **columns: object) -> pd.DataFrame:
    """Return the recorded claims, in which one has other values, or is left out."""
    made = RECORDED.claims.copy()
    if not columns:
        return made[made["name"] != name]
    for column, value in columns.items():
        made[column] = made[column].mask(made["name"] == name, value)
    return made


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.S | re.M)


@pytest.fixture(scope="module")
def llvm_report() -> str:
    return upstream.render(RECORDED, "llvm")


def test_the_reports_commands_end_as_it_says(
    llvm_report: str, tmp_path: Path, toolchain: Find, lab: Lab
) -> None:
    for name, source in re.findall(r"^`(\w+\.c)`:\n\n```c\n(.*?)^```", llvm_report, re.S | re.M):
        (tmp_path / name).write_text(source)
    said = re.search(r"`CC` a clang of LLVM (\S+) and `CC2` one of LLVM (\S+)", llvm_report)
    assert said
    main, other = (toolchain(version.partition(".")[0]) for version in said.groups())
    (commands,) = blocks(llvm_report, "sh")
    done = run(["sh", "-c", commands], tmp_path, CC=str(main.compiler), CC2=str(other.compiler))
    actual, frames = blocks(llvm_report, "text")
    crashed, message, ended = actual.splitlines()
    assert done.stdout.splitlines() == [crashed, ended]
    assert message in done.stderr.splitlines()
    assert (tmp_path / "swapped.profraw").stat().st_size == 0
    outcome, _ = lab.judge_command(Invocation([tmp_path / "mixed"], main, settings.PROGRAM))
    assert outcome.crash
    seen = [frame.function for frame in outcome.crash.frames]
    assert seen[:6] == frames.splitlines()[:6]


def test_the_command_that_reads_a_clangs_raw_version_does(tmp_path: Path, toolchain: Find) -> None:
    (command,) = re.findall(r"`(echo [^`]*)`", upstream.render(RECORDED, "cc-rs"))
    for name in ("17", "19"):
        found = toolchain(name)
        done = run(["sh", "-c", command], tmp_path, CC=str(found.compiler))
        value = re.search(r"^@__llvm_profile_raw_version = .* i64 (\d+)", done.stdout, re.M)
        assert value, done.stderr
        assert layout.split(int(value[1]))[0] == found.raw_version


@pytest.mark.parametrize("to", ALL)
def test_a_report_is_for_strangers(to: str) -> None:
    text = upstream.render(RECORDED, to)
    assert not document._MACHINE_PATH.findall(text)
    assert "wheel" not in text
    assert "nbsupport" not in text
    assert "{" not in re.sub(r"```.*?```", "", text, flags=re.S)
    assert not re.search(r"\n{3}|[ \t]\n|\bnan\b|None\b", text)
    assert text.endswith(".\n")
    prose = re.sub(r"^\|.*$", "", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.M)
    assert len(prose.split()) < 800


def test_a_report_of_another_pair_has_its_numbers() -> None:
    """The preferred pair is that of notebook 01; sizes, offsets and messages follow."""
    made = claims("mixed-layouts-decide", at='{"main": "clang 22", "foreign": "clang 23"}')
    text = upstream.render(variant(claims=made), "llvm")
    assert "by LLVM 22.1.8 and by LLVM 23.1.4" in text
    assert "(64 and 72 bytes)" in text
    assert "expected 10, but get 11" in text
    assert "| Values | 40 | FunctionPointer |" in text
    assert "8 foreign records of 72 bytes fill whole records of 64" in text


def test_pairs_in_a_report_are_those_of_its_run(llvm_report: str) -> None:
    row = "| 17 (v8) | ok | crash / message | crash / message | crash / message |"
    few = upstream.render(variant(only="17,19,23"), "llvm")
    assert "| 19 (v10) | crash / message | ok | crash / message |\n" in few
    assert "18" not in few.partition("## Affected")[2].partition("## Proposals")[0]
    assert "0 of the pairs above" in few
    assert row in llvm_report
    assert "| 20 (v10) | crash / message | ok / message | ok | ok |" in llvm_report  # of all seven
    assert re.search(r"\((1?\d|2\d) of the 30 ordered pairs", llvm_report)
    trials = variant().tables["trials"]
    missing = trials[(trials["main"] != "22@wheel") | (trials["foreign"] != "23@wheel")]
    text = upstream.render(
        variant(tables={**RECORDED.tables, "trials": missing, "versions": missing}), "llvm"
    )
    assert "| 22 (v10) | crash / message | ok / message | ok | ok | - |\n" in text
    assert "`-`: not run" in text


def test_what_was_tested_is_not_listed_as_untested() -> None:
    manifest = {**RECORDED.manifest, "platform": "Darwin arm64"}
    for to in ALL:
        assert "macOS and Apple's linker, AArch64" in upstream.render(RECORDED, to)
        there = upstream.render(variant(manifest=manifest), to)
        untested = there.lower().rpartition("not tested")[2]
        assert "macos" not in untested
        assert "aarch64" not in untested


@pytest.mark.parametrize("to", ALL[:3])
def test_without_a_crash_there_is_nothing_to_report(to: str) -> None:
    with pytest.raises(LabError, match=r"no link of two LLVMs crashed.*\(16 ok\).*raw versions"):
        upstream.render(variant(only="19,22"), to)


def test_without_a_crash_the_analysis_says_so() -> None:
    text = upstream.render(variant(only="19,22"), "analysis")
    assert "no link of two LLVMs crashed (16 ok), so it says nothing" in text
    assert "SIGSEGV" not in text
    assert "really going on" not in text
    assert "the allocator frees memory" in text


def test_a_run_in_which_no_project_crashed_is_no_case_for_cargo() -> None:
    made = claims("real-projects-crash-and-are-cured", observed="ok, then ok")
    for to in ("cc-rs", "cargo-pgo"):
        with pytest.raises(LabError, match="no cargo project crashed"):
            upstream.render(variant(claims=made), to)


def test_a_claim_that_does_not_hold_is_not_reported() -> None:
    made = claims("fate-as-predicted", holds=False, observed="22 of 25")
    with pytest.raises(LabError, match=r"does not hold \(22 of 25\); see 03-record-layout"):
        upstream.render(variant(claims=made), "llvm")
    told = upstream.render(variant(claims=claims("front-end-has-no-message", holds=False)), "llvm")
    assert "-fprofile-instr-generate" not in told


def test_the_prototype_is_told_of_where_the_run_tried_it(llvm_report: str) -> None:
    tried = {
        "the-guard-refuses-each-mix": ("12 of 12 mixes", '{"grid": "17, 18, 19, 23"}'),
        "a-test-fails-today-and-passes-guarded": ("today: fails, guarded: passes", "{}"),
    }
    rows = [
        {"notebook": "10", "name": name, "holds": True, "observed": seen, "at": at}
        for name, (seen, at) in tried.items()
    ]
    made = RECORDED.claims[~RECORDED.claims["name"].isin(list(tried))]
    without = upstream.render(variant(claims=made), "llvm")
    told = upstream.render(variant(claims=pd.concat([made, pd.DataFrame(rows)])), "llvm")
    for words in ("refused 12 of 12 mixes of LLVM 17, 18, 19, 23", "passes with the prototype"):
        assert words not in without
        assert words in told


def test_of_several_runs_of_07_it_is_the_one_with_the_crash() -> None:
    name = "real-projects-crash-and-are-cured"
    healthy = RECORDED.claims[RECORDED.claims["name"] == name].copy()
    healthy[["observed", "at"]] = [
        "with the other clang: ok; else: ok",
        '{"foreign": "20", "newest": "22", "rustc": "19"}',
    ]
    text = upstream.render(variant(claims=pd.concat([healthy, RECORDED.claims])), "cc-rs")
    assert "crashes with clang 17." in text


def test_a_pair_of_unknown_layout_is_not_explained() -> None:
    trials = variant().tables["trials"].replace({"foreign_raw_version": {11: 99}})
    made = claims("mixed-layouts-decide", at='{"main": "clang 19", "foreign": "clang 23"}')
    text = upstream.render(variant(claims=made, tables={"trials": trials}), "llvm")
    assert "LLVM 23.1.4 link without" not in text


def test_what_is_no_run_of_ours_is_told_in_a_line() -> None:
    trials = variant().tables["trials"]
    cases: tuple[dict[str, Any], ...] = (
        {"tables": {"trials": trials.drop(columns="order")}},
        {"claims": claims("mixed-layouts-decide", at="{}")},
        {"claims": claims("addresses-read-off-the-file", at="{}")},
        {"manifest": {"toolchains": [{}]}},
    )
    for broken in cases:
        with pytest.raises(LabError, match="report --to llvm: not a run of this version.*again$"):
            upstream.render(variant(**broken), "llvm")


@pytest.mark.parametrize(
    ("to", "name", "book"),
    [
        ("llvm", "grid-as-predicted", "01-reproduction"),
        ("cc-rs", "the-flag-is-mirrored", "07-workarounds"),
        ("cargo-pgo", "real-projects-crash-and-are-cured", "07-workarounds"),
        ("analysis", "one-explanation-fits", "06-hypotheses"),
    ],
)
def test_what_a_run_lacks_is_named(to: str, name: str, book: str) -> None:
    with pytest.raises(MissingError, match=f"{name}; run {book}"):
        upstream.render(variant(claims=claims(name)), to)
    with pytest.raises(MissingError, match="run 01-reproduction"):
        upstream.render(variant(tables={}), to)


def test_the_patch_for_evtx_applies_and_its_script_trains(tmp_path: Path) -> None:
    (patch,) = blocks(upstream.render(RECORDED, "analysis"), "diff")
    (tmp_path / "evtx.patch").write_text(patch)
    run(["git", "apply", "evtx.patch"], tmp_path)
    for name in ("samples/a.evtx", "samples/deep er/b.evtx", "samples/c.txt"):
        files.write(tmp_path / name, "")
    files.write(tmp_path / "evtx_dump", '#!/bin/sh\necho "$@" >>seen\n')
    (tmp_path / "evtx_dump").chmod(0o755)
    run(["./train_pgo.sh"], tmp_path, PGO_BIN=str(tmp_path / "evtx_dump"))
    lines = sorted((tmp_path / "seen").read_text().splitlines())
    ways = ("-t 1 -o json", "-t 1 -o xml", "-t 8 -o json")
    paths = ("samples/a.evtx", "samples/deep er/b.evtx")
    assert lines == sorted(f"{way} {path}" for way in ways for path in paths)


def test_the_patch_for_evtx_calls_what_there_is() -> None:
    (step,) = blocks(upstream.render(RECORDED, "analysis"), "yaml")
    assert all(line.startswith("+") for line in step.splitlines())
    command = shlex.split(next(line for line in step.splitlines() if "pgo-lab build" in line)[1:])
    assert command[:4] == ["pgo-lab", "build", "--train", "./train_pgo.sh"]
    features = next(word for word in cases.get("evtx").cargo if "fast-alloc" in word)
    assert features.startswith(command[command.index("--features") + 1])
    assert "${{ matrix.target }}" in step


def test_the_analysis_ranks_what_was_tried() -> None:
    text = upstream.render(RECORDED, "analysis").partition("## Workarounds")[2]
    verdicts = re.findall(r"^\| (whole profile|no crash|does not help|not tried)", text, re.M)
    assert verdicts == sorted(
        verdicts, key=["whole profile", "no crash", "does not help", "not tried"].index
    )
    assert text.index("lacks 319 of 319") < text.index("no PGO") < text.index("a forked child")


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [pair for pair in itertools.permutations(LAYOUTS, 2) if not layout.same_stride(*pair)],
)
def test_what_stands_in_a_fields_place_is_right(mine: int, theirs: int) -> None:
    """Each byte of two foreign records gets the number of its field; the runtime reads numbers."""
    names = list(LAYOUTS[theirs].offsets())
    records = np.zeros(2, LAYOUTS[theirs].record_dtype())
    for nth, name in enumerate(names):
        for which in (0, 1):
            size = records.dtype[name].itemsize
            place = records[which : which + 1][name]
            place[...] = np.frombuffer(bytes([1 + nth + 100 * which]) * size, place.dtype.base)
    read = np.frombuffer(records.tobytes(), LAYOUTS[mine].record_dtype(), 1)
    for field in upstream._READ:
        seen = dict.fromkeys(read[field].tobytes())
        words = [names[n % 100 - 1] + " of the next record" * (n > 100) for n in seen if n]
        told = upstream._in_place(LAYOUTS[mine], LAYOUTS[theirs], field)
        assert told == (", ".join(words) or "padding")


def test_a_report_is_written_with_its_archive(tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.md"
    assert upstream.write(RECORDED, "llvm", out) == out
    assert out.read_text() == upstream.render(RECORDED, "llvm")
    assert (out.parent / reproducer.ARCHIVE).read_bytes() == reproducer.archive()
    assert len(list(out.parent.iterdir())) == 2
    with pytest.raises(LabError, match="writing"):
        upstream.write(RECORDED, "llvm", out.parent)
    with pytest.raises(LabError, match="choose one of llvm, cc-rs, cargo-pgo, analysis"):
        upstream.write(RECORDED, "gcc", out)
