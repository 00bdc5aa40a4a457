"""Programs for macOS: one on the command line, and the grid of notebook 11."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from nbsupport.base.errors import LabError, MissingError
from nbsupport.cli.commands import main
from nbsupport.studies import macho, macho_trial, observations
from nbsupport.studies.macho import MachOStudy
from nbsupport.toolchains.probe import Toolchain


@pytest.mark.parametrize(("arch", "foreign"), [("arm64", "16"), ("x86_64", "17")])
def test_the_address_is_foretold_read_off_the_file_and_met(
    toolchain: Callable[[str], Toolchain],
    capsys: pytest.CaptureFixture[str],
    arch: str,
    foreign: str,
) -> None:
    toolchain("19")
    words = ["trial", "--macos", arch, "--llvm", "19", "--foreign", foreign]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["outcome"], document["foretold"]) == ("crash", ["crash", "malformed"])
    assert document["frames"][0]["function"] == "initializeValueProfRuntimeRecord"
    address = document["fault_address"]
    assert document["spelled"] == document["reported"] == address == "0x1000100000003"
    assert main(words) == 0
    text = capsys.readouterr().out
    assert f"its records spell the address {address}\n" in text
    assert text.endswith("on an emulated processor: no macOS was there\n")


def test_a_crash_in_main_is_at_no_address_that_the_records_spell(
    toolchain: Callable[[str], Toolchain],
) -> None:
    toolchain("19")
    trial = macho_trial.try_program("x86_64", "19", "17", "hot", "main-first", None)
    assert trial.outcome.crash and "instrument_target" in trial.outcome.crash.function
    assert not trial.spelled and trial.reported and len(trial.notes()) == 3


@pytest.mark.parametrize(
    ("wrong", "choices"),
    [
        ({"arch": "ppc"}, "arm64, x86_64"),
        ({"order": "sideways"}, "main-first, foreign-first"),
        ({"instrument": "half"}, "ir, front-end, none"),
        ({"main_instrument": "none"}, "ir"),
    ],
)
def test_what_there_is_not_is_one_line(wrong: dict[str, str], choices: str) -> None:
    words = {"arch": "arm64", "order": "main-first", "instrument": "ir", "main_instrument": "ir"}
    with pytest.raises(LabError, match=f"not known; choose from {choices}"):
        macho_trial.try_program(llvm="19", foreign="16", program="cold", **{**words, **wrong})


# The grid, and what is recorded of it.


@pytest.fixture
def study() -> MachOStudy:
    """Return what the default scope shows: the recording."""
    return macho.measure("both", "19", "17", "cold", scope="default")


def test_the_default_builds_nothing_and_says_how_to(
    study: MachOStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(macho, "build_program", None)  # it would be called
    asked = macho.measure("arm64", "23", "17", "rust-cold", scope="default")
    assert not asked.live and set(asked.rows["arch"]) == {"arm64"}
    assert len(study.rows) == 2 * len(asked.rows) == 2 * len(macho.cases("arm64", "cold"))
    assert "To do it: make report-all" in study.note.text
    assert "of LLVM 19 and 17, not 23 and 17. rust-cold is not among them" in asked.note.text
    assert asked.program == "cold" and asked.at == {"llvm": "19", "foreign": "17", "arch": "arm64"}
    with pytest.raises(LabError, match="arch ppc: not known; choose from arm64, x86_64"):
        macho.measure("ppc", "19", "17", "cold", scope="default")


def test_what_is_missing_is_asked_for_once_and_said(
    study: MachOStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Any]()

    def refuse(name: str, arch: str, *rest: object, **how: object) -> None:
        asked.append(arch)
        raise MissingError(f"a compiler for {arch}", "it is not here", "get one")

    monkeypatch.setattr(macho, "build_program", refuse)
    shown = macho.measure("both", "19", "16", "cold", scope="whole")
    assert asked == ["arm64", "x86_64"]
    assert shown.rows.equals(study.rows) and not shown.live
    assert "since a compiler for arm64: it is not here; a compiler for x86_64: " in shown.note.text


def test_each_program_is_built_in_each_way_once(study: MachOStudy) -> None:
    cases = macho.cases("arm64", "rich")
    assert len(set(cases)) == len(cases)
    assert {case.program for case in cases} > {"rich", "cold", "mimalloc-checked"}
    assert {(case.mix, case.order) for case in cases} == set(macho._WAYS)
    rich = [case for case in cases if case.program == "rich"]
    assert {case.optimize for case in rich} == {"s", "2", "3"}
    assert {case.link for case in rich} == set(macho.LINKS)


def test_an_end_that_was_not_foretold_is_noticed_and_framed(study: MachOStudy) -> None:
    assert macho.surprises(study.rows).empty
    rows = study.rows.copy()
    place = rows.index[rows["mix"] == macho.MIXED][0]
    rows.loc[place, "outcome"] = "ok"
    assert list(macho.surprises(rows).index) == [place]
    before, after = macho.figure(study.rows), macho.figure(rows)
    assert before.text.startswith(f"figure: {len(rows)} of {len(rows)} programs end as")
    assert after.text.startswith(f"figure: {len(rows) - 1} of {len(rows)} programs end as")
    assert "stroke-width: 2.5" in after.html and "stroke-width: 2.5" not in before.html


def test_the_widget_lists_what_is_chosen(study: MachOStudy) -> None:
    live = macho.widget(study.rows)
    controls, pane = live.children
    arch, program = controls.children
    assert "x86_64" in pane.value and "mimalloc-checked" in pane.value
    arch.value, program.value = "arm64", "cold"
    assert "x86_64" not in pane.value and "mimalloc" not in pane.value


@pytest.mark.parametrize(
    ("first", "outcome", "expected"),
    [("in main", "", "crash"), ("at exit", "", "version-mismatch"), ("", "ok", "ok")],
)
def test_the_other_order_follows_from_when_a_program_dies(
    study: MachOStudy, first: str, outcome: str, expected: str
) -> None:
    rows = study.rows.copy()
    rows.loc[rows["order"] == "main-first", ["died", "outcome"]] = first, outcome
    table = macho.faces(dataclasses.replace(study, rows=rows))
    assert set(table["expected"]) == {expected} and len(table) == 14


def test_each_observation_of_the_user_is_held_against_the_programs(study: MachOStudy) -> None:
    seen = observations.load()
    table = macho.compare(study, seen).set_index("what")
    assert sorted(table.index) == sorted(fact.what for fact in seen)
    assert table["leaves"].all()
    agrees = table["agrees"].to_dict()
    assert (agrees["crashes in"], agrees["at address"], agrees["the far register"]) == (
        *("yes", "no", "no"),
    )
    assert agrees["offset in that function"] == "on arm64 alone"
    assert (agrees["allocators"], agrees["the program"]) == ("in part", "not tried")
    rows = study.rows.copy()
    rows.loc[(rows["program"] == "cold") & (rows["arch"] == "arm64"), "function"] = "other"
    changed = macho.compare(dataclasses.replace(study, rows=rows), seen).set_index("what")
    assert changed.loc["crashes in", "agrees"] == "on x86_64 alone"


PROFILE = """main
# Func Hash:
7
# Num Counters:
1
# Counter Values:
{count}
# Num Value Kinds:
1
# ValueKind = IPVK_IndirectCallTarget:
0
# NumValueSites:
1
{values}
"""


@pytest.mark.parametrize(
    ("count", "values", "says"),
    [
        (3, "1\nstep:3", "the same bytes"),
        (3, "0", "the same counts, other values"),
        (4, "1\nstep:3", "0 of 1 alike"),
    ],
)
def test_a_profile_is_held_against_that_of_linux(count: int, values: str, says: str) -> None:
    linux = PROFILE.format(count=3, values="1\nstep:3")
    assert macho._beside(PROFILE.format(count=count, values=values), linux) == says


def test_the_recorded_ruler_is_that_of_the_address(study: MachOStudy) -> None:
    rows = study.select(mix=macho.MIXED, program="cold")
    pictures = macho.rulers(rows)
    assert list(pictures) == list(rows["arch"]) == ["arm64", "x86_64"]
    assert {picture.fault_address for picture in pictures.values()} == set(rows["address"])


@pytest.mark.whole  # what make report-all measures is what make report shows
@pytest.mark.parametrize("arch", ["arm64", "x86_64"])
def test_what_was_recorded_is_what_is_measured(
    arch: str, study: MachOStudy, toolchain: Callable[[str], Toolchain]
) -> None:
    toolchain("19"), toolchain("17")
    measured = macho.measure(arch, "19", "17", "cold", scope="whole")
    recorded = study.rows[study.rows["arch"] == arch].reset_index(drop=True)
    assert measured.live, measured.note
    assert sorted(measured.rows.columns) == sorted(recorded.columns)
    different = measured.rows.compare(recorded[list(measured.rows.columns)])
    assert different.empty, different
