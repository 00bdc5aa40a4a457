"""What PGO is worth: each build is what it says, and no figure pretends to be surer than it is."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nbsupport.base.errors import LabError, MissingError
from nbsupport.lab import cases
from nbsupport.lab.lab import Lab
from nbsupport.studies import benefit
from nbsupport.studies.benefit import Variant
from nbsupport.toolchains import discovery

#: Blocks of a busy machine: all builds of a block are as slow.
BUSY = np.array([1.0, 5.0, 1.5, 3.0, 2.0, 9.0])


@pytest.fixture(scope="module")
def builds(lab: Lab) -> dict[str, Variant]:
    """Return a program without PGO, and with PGO of one or both parts; one has C by LLVM 17."""
    made = benefit.build_variants(lab, "workload-mimalloc", "19")
    return {
        one.build: one for one in (*made, *benefit.build_mixed(lab, made[0].program, "19", "17"))
    }


@pytest.fixture
def scripts(tmp_path: Path) -> Callable[[str], Variant]:
    """Return a function that makes a build of a shell script, which notes its turn."""

    def make(build: str, script: str = "echo checksum 1; echo seconds 2") -> Variant:
        command = ("/bin/sh", "-c", f"echo {build} $0 $1 $2 >>log; {script}")
        case = cases.Case(tmp_path / "own.toml", folder=".", run_as="sh", command=command)
        rustc = discovery.find_rustc("19")
        return Variant("script", build, cases.Built(case, rustc, tmp_path, (), 0))

    return make


def runs(**seconds: np.ndarray) -> pd.DataFrame:
    rows = [
        {"program": "p", "build": build, "block": block, "seconds": taken, "load": 0.5 * block}
        for build, times in seconds.items()
        for block, taken in enumerate(times)
    ]
    return pd.DataFrame(rows)


# -- builds


def test_each_part_has_the_profile_that_its_build_says(builds: dict[str, Variant]) -> None:
    (none,), (rust,), (both,), (clean,) = (
        one.built.commands for one in (builds[b] for b in ("none", "rust", "both", "clean"))
    )
    assert "profile" not in none.replace("no-profile", "")
    words = rust.split()
    (given,) = (n for n, word in enumerate(words) if word.startswith("-fprofile-use="))
    assert words.index("-fno-profile-use") > given
    for command, llvm in ((both, "19"), (clean, "17")):
        assert "-fprofile-use=" in command and "-fno-profile-use" not in command
        assert command.startswith(str(discovery.find(llvm).compiler))
    assert not [said for one in builds.values() for said in one.warnings]


def test_a_profile_that_fits_is_used_and_changes_no_result(
    lab: Lab, builds: dict[str, Variant]
) -> None:
    counted = benefit.count_instructions(lab, list(builds.values()))
    share = {b: n / counted["workload-mimalloc", "none"] for (_, b), n in counted.items()}
    assert max(share["rust"], share["both"], share["clean"]) < 0.95
    assert share["rust"] != share["both"]  # C is optimized otherwise
    seen = benefit.measure(lab, list(builds.values()), repetitions=1)
    assert seen["checksum"].nunique() == 1 and (seen["seconds"] > 0).all()
    assert (seen["load"] >= 0).all()


def test_instructions_are_the_same_twice(
    lab: Lab, builds: dict[str, Variant], tmp_path: Path
) -> None:
    first = benefit.count_instructions(lab, [builds["both"]])
    with Lab(tmp_path) as other:  # has counted nothing yet
        assert benefit.count_instructions(other, [builds["both"]]) == pytest.approx(first, rel=1e-3)


def test_a_function_that_the_profile_lacks_is_warned_of(lab: Lab, tmp_path: Path) -> None:
    text = tmp_path / "other.proftext"
    text.write_text(":ir\nother\n1\n1\n1\n")
    maker = benefit.Maker(lab, "workload-mimalloc", "19", "19")
    warned = Variant("workload-mimalloc", "both", maker.using(maker.indexed(text))).warnings
    assert any("no profile data available for function" in one for one in warned)
    assert not any("build_script" in one for one in warned)


# -- measuring


def test_builds_take_turns_in_an_order_of_chance_that_a_seed_repeats(
    lab: Lab, scripts: Callable[..., Variant], tmp_path: Path
) -> None:
    made = [scripts(name) for name in ("none", "rust", "both")]

    def order() -> list[str]:
        (tmp_path / "log").unlink(missing_ok=True)
        seen = benefit.measure(lab, made, repetitions=6)
        assert len(seen) == 18 and set(seen["block"]) == set(range(1, 7))
        return (tmp_path / "log").read_text().splitlines()

    lines = order()
    blocks = [[line.split()[0] for line in lines[n : n + 3]] for n in range(0, 21, 3)]
    assert all(sorted(block) == ["both", "none", "rust"] for block in blocks)
    assert len({tuple(block) for block in blocks}) > 2
    assert order() == lines


def test_a_run_that_fails_says_which(lab: Lab, scripts: Callable[..., Variant]) -> None:
    with pytest.raises(LabError, match=r"^script, PGO of Rust: no luck; run that command$"):
        benefit.measure(lab, [scripts("rust", "echo no luck >&2; exit 3")])


def test_without_valgrind_no_instructions(
    lab: Lab, scripts: Callable[..., Variant], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingError, match="apt-get install valgrind"):
        benefit.count_instructions(lab, [scripts("none")])


# -- what it comes to


def summary(*ratios: float, executed: float | None = None) -> dict[Hashable, Any]:
    """Return the row of a build that takes so much of the time of the one without PGO, by block."""
    counted = {("p", "none"): 10_000, ("p", "both"): round(10_000 * (executed or 0))}
    times = runs(none=np.ones(len(ratios)), both=np.array(ratios))
    return benefit.summarize(times, counted if executed else {}).to_dict("records")[1]


def test_what_slows_a_whole_block_does_not_blur_the_ratio() -> None:
    found = benefit.summarize(
        runs(none=BUSY, both=0.9 * BUSY), {("p", "none"): 8, ("p", "both"): 6}
    )
    none, both = found.to_dict("records")
    assert (none["ratio"], none["low"], none["high"], none["note"]) == (1, 1, 1, "")
    assert [both[key] for key in ("ratio", "low", "high")] == pytest.approx([0.9] * 3)
    assert both["spread"] == pytest.approx(0)
    assert (both["instructions"], both["load"]) == (0.75, 2.5)
    assert both["note"] == "instructions: saves 25 %; time: saves 10 %"
    shown = benefit.figure(found)
    assert "without PGO. p: 25 % fewer with PGO of Rust and C." in shown.text
    assert 'role="img"' in shown.html


def test_the_interval_is_that_of_signed_ranks() -> None:
    # Hollander, Wolfe and Chicken, example 3.3: nine patients, averages of differences; the level
    # next to 96 % leaves out five averages at each end.
    before = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    after = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
    ratios = np.exp(np.array(after) - np.array(before))
    ratio, low, high = np.log(benefit.interval(ratios))
    assert (ratio, low, high) == pytest.approx((-0.46, -0.786, -0.010), abs=1e-3)


def test_the_interval_is_as_sure_as_it_says() -> None:
    """Of 2,000 experiments whose ratio is 0.97, about 95 in 100 intervals contain it."""
    chance = np.random.default_rng(1)
    for blocks in (6, 12):
        drawn = chance.standard_t(3, size=(2000, blocks))  # far outliers, as on a machine
        ends = [benefit.interval(0.97 * np.exp(0.02 * row))[1:] for row in drawn]
        share = np.mean([low <= 0.97 <= high for low, high in ends])
        assert 0.94 <= share <= 0.985, blocks


def test_five_blocks_have_no_interval_and_six_do() -> None:
    five, six = summary(*[0.5] * 5), summary(*[0.5] * 6)
    assert np.isnan([five["low"], five["high"]]).all()
    assert five["note"] == "time: too few blocks for an interval"
    assert six["note"] == "time: saves 50 %"


def test_a_sure_slow_down_costs_and_does_not_save() -> None:
    row = summary(1.3, 1.31, 1.32, 1.33, 1.34, 1.36, executed=1.09)
    assert row["note"] == "instructions: costs 9 %; time: costs 30 to 36 %"


def test_noise_does_not_hide_an_interval_without_1() -> None:
    row = summary(1.01, 1.2, 1.3, 1.4, 1.5, 1.6)
    assert row["low"] > 1  # wider than the effect, and sure of its sign
    assert row["note"] == "time: costs 1 to 60 % (too noisy: spread 25 %)"


@pytest.mark.parametrize(("width", "said"), [(0.09, False), (0.13, True)])
def test_what_is_too_noisy_is_stated(width: float, said: bool) -> None:
    ratios = 0.8 + width * np.array([-2, -0.5, -0.5, 0.5, 0.5, 2])
    row = summary(*ratios, executed=0.8)
    assert row["spread"] == pytest.approx(width)
    assert ("too noisy" in row["note"]) == said


def test_instructions_decide_where_time_does_not() -> None:
    row = summary(1.1, 0.8, 1.3, 0.9, 0.7, 1.2, executed=0.5)
    assert row["note"].startswith("instructions: saves 50 %; time: no sure difference (too")
    found = benefit.summarize(runs(none=np.ones(6), both=np.ones(6)), {})
    assert np.isnan(found["instructions"]).all()
    assert "not counted with PGO" in benefit.figure(found).text
    assert "time: no sure difference" in benefit.table(found).text
    assert summary(*[1] * 6, executed=1.0004)["note"].startswith("instructions: saves nothing")


def test_what_cannot_be_built_here_is_left_out_and_said(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    builds = benefit.build_all(lab, [("workload-mimalloc", "99")])
    assert builds == []
    assert capsys.readouterr().out.startswith("left out workload-mimalloc: a rustc with LLVM 99")
    # A notebook goes on: there is nothing to measure.
    runs = benefit.measure(lab, builds)
    assert benefit.summarize(runs, benefit.count_if_here(lab, builds)).empty
