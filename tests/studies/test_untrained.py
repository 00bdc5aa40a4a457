"""Why a program executes more with PGO: what was counted, what was trained, and by which build."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbsupport.lab.lab import Lab
from nbsupport.studies import benefit, untrained

PROFILE = ":ir\nunit;hot\n1\n2\n5\n0\n\nunit;cold\n1\n2\n0\n0\n"


def test_each_instruction_is_one_functions(lab: Lab, tmp_path: Path) -> None:
    none, *_ = benefit.build_variants(lab, "workload-mimalloc", "19")
    with Lab(tmp_path) as other:  # has counted nothing yet
        costs = untrained.executed(other, none)  # nothing twice, as what is called
    assert sum(costs.values()) == pytest.approx(benefit.instructions(lab, none), rel=1e-2)
    assert max(costs.values()) < 0.9 * sum(costs.values())
    assert not any("'" in name for name in costs)


def test_a_function_is_untrained_if_all_its_counters_are_zero(tmp_path: Path) -> None:
    profile = tmp_path / "some.proftext"
    profile.write_text(PROFILE)
    assert untrained._untrained({"hot": 30, "cold": 10, "libc's": 99}, profile) == 0.25
    assert untrained._untrained({"hot": 30, "libc's": 99}, profile) == 0
    assert untrained._untrained({"libc's": 99}, profile) == 1


def test_a_row_is_a_build_beside_the_one_without_pgo(lab: Lab) -> None:
    builds = untrained.build_all(lab, "workload-mimalloc", "19", ("none", "here", "nothing"))
    counted = untrained.count(lab, builds)
    assert list(counted.index) == ["none", "here", "nothing"]
    none, here, nothing = counted["ratio"]
    assert none == 1 and here < 0.95 and nothing != 1
    never = counted["untrained"]
    assert never["here"] < 0.1 and never["nothing"] == 1 and never.isna()["none"]
    row = untrained.table(counted).text.splitlines()[3].split()
    assert row[-4:] == [f"{100 * (nothing - 1):+.1f}", "%", "100", "%"]


def test_functions_that_differ_most_come_first(lab: Lab) -> None:
    builds = untrained.build_all(lab, "workload-mimalloc", "19", ("none", "here"))
    functions = untrained.by_function(lab, builds)
    differences = (functions["here"] - functions["none"]).abs()
    assert differences.is_monotonic_decreasing and differences.iloc[0] > 10_000
    assert functions.index.is_unique and not functions.index.str.contains("_ZN").any()
    saved = sum(number for number in functions["none"]) - sum(functions["here"])
    numbers = untrained.count(lab, builds)["instructions"]
    assert saved == pytest.approx(numbers["none"] - numbers["here"], rel=0.2)
    shown = untrained.function_table(functions, 2).text.splitlines()
    assert len(shown) == 3 and shown[0].split() == ["function", "none", "here"]
    assert shown[1].split() == [
        functions.index[0],
        *(f"{functions[way].iloc[0] / 1000:.0f}" for way in ("none", "here")),
    ]


def test_a_training_is_run_as_its_way_says(lab: Lab) -> None:
    maker = benefit.Maker(lab, "workload-mimalloc", "19", "19")
    here, counter = (untrained._profile(maker, untrained.WAYS[way]) for way in ("here", "counter"))
    assert here != counter
    texts = [path.read_text() for path in (here, counter)]
    assert texts[0].count("\n# Func Hash:") == texts[1].count("\n# Func Hash:") > 50
