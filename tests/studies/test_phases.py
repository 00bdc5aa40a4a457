"""What the function can touch follows from two layouts, and the kernel agrees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from nbsupport.profile import LAYOUTS
from nbsupport.studies import phases
from nbsupport.toolchains import Toolchain

PAGE, HELD = 0x2_0000_0000, 0x8348535641574165


@pytest.fixture(scope="module")
def tried(toolchain: Callable[[str], Toolchain]) -> pd.DataFrame:
    return phases.try_all(toolchain("19"), toolchain("17"))


@pytest.mark.parametrize(
    ("runtime", "foreign", "starts"),
    [
        (10, 8, [0, 16, 32]),
        (11, 8, [0, 24]),
        (8, 10, [0, 16, 32, 48]),
        (10, 11, [*range(0, 72, 8)]),
        (10, 9, [0]),
    ],
)
def test_a_walk_begins_where_the_sizes_allow(runtime: int, foreign: int, starts: list[int]) -> None:
    found = phases.enumerate_phases(LAYOUTS[runtime], LAYOUTS[foreign])
    assert [phase.at for phase in found] == starts
    size, stride = LAYOUTS[foreign].record_size(), LAYOUTS[runtime].record_size()
    assert starts == sorted({n * stride % size for n in range(size)})  # by walking


def test_what_is_read_as_a_pointer_in_each_phase() -> None:
    found = phases.enumerate_phases(LAYOUTS[10], LAYOUTS[8])
    assert [phase.values for phase in found] == [
        ("NumCounters", "NumValueSites"),
        ("next record's FuncHash",),
        ("next record's FunctionPointer",),
    ]
    assert [phase.values for phase in phases.enumerate_phases(LAYOUTS[10], LAYOUTS[9])] == [
        ("Values",)
    ]


def record(**fields: object) -> bytes:
    row = np.zeros(1, LAYOUTS[10].record_dtype())
    for name, value in fields.items():
        row[name] = value
    return row.tobytes()


@pytest.mark.parametrize(
    ("fields", "arrays", "touched"),
    [
        ({}, (0, 0, 0), []),
        ({"NumValueSites": [2, 0, 0]}, (7, 0, 0), [7]),
        ({"NumValueSites": [1, 0, 0], "Values": 5}, (7, 0, 0), [5, 7]),
        ({"NumValueSites": [0, 2, 0], "Values": 5}, (0, 7, 0), [5, 7, 13]),
        # A node (5 holds 100): its Next; then the writer's array, which is null.
        ({"NumValueSites": [1, 1, 0], "Values": 5}, (7, 0, 0), [5, 116, 7, 13, 0]),
        # A node at -16 has its Next at 0.
        ({"NumValueSites": [1, 0, 0], "Values": 21}, (7, 0, 0), [21, 0, 7]),
    ],
)
def test_addresses_come_in_order(
    fields: dict[str, object], arrays: tuple[int, ...], touched: list[int]
) -> None:
    words = {5: 100 if len(touched) == 5 else 0, 116: 0, 13: 0, 21: 2**64 - 16, 0: 0}
    assert [*phases.touch(record(**fields), LAYOUTS[10], arrays, words.get)] == touched


def test_it_faults_at_the_first_address_that_is_not_there() -> None:
    known = {PAGE: 0}
    other = {"FunctionPointer": 0, "Values": PAGE}  # high half: two sites, read by raw version 8
    one = record(NumValueSites=[0, 1, 0], **other)
    assert phases.fault(one, LAYOUTS[10], LAYOUTS[10], known) is None
    assert phases.fault(one, LAYOUTS[8], LAYOUTS[10], known) == 0
    assert (
        phases.fault(record(NumValueSites=[1, 0, 0], Values=3), LAYOUTS[10], LAYOUTS[10], known)
        == 3
    )


def test_the_runtime_faults_where_the_layouts_say(tried: pd.DataFrame) -> None:
    assert (tried["foretold"] == tried["records"]).all()
    assert (tried["records"] > 1000).all()
    assert (tried["faults"] > 0).all()
    assert (tried["faults"] < tried["records"]).all()


def test_only_two_layouts_or_a_node_at_minus_16_touch_0(tried: pd.DataFrame) -> None:
    assert (tried["zero"] == tried["zero_foretold"]).all()
    assert (tried["zero"] > 0).tolist() == [False, False, False, True, True]
    assert phases.zeros(tried, "zero") == ("none", "some")
    assert "InstrProfilingValue.c of LLVM 17" in phases.table(tried).text


def test_one_layout_touches_no_0(toolchain: Callable[[str], Toolchain]) -> None:
    uniform = phases.try_all(toolchain("19"), toolchain("22"))
    assert (uniform["foretold"] == uniform["records"]).all()
    assert phases.zeros(uniform, "zero") == ("none", "none")


def test_another_layout_than_the_runtimes_foretells_something_else(
    toolchain: Callable[[str], Toolchain],
) -> None:
    mine, old, clang = LAYOUTS[10], LAYOUTS[8], toolchain("19")
    (phase,) = phases.enumerate_phases(mine, mine)
    row = phases._Case("wrong", clang, old, mine, mine).try_phase(phase)
    assert row["foretold"] != row["records"]
