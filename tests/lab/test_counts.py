"""Counts are right when every function has those of its uniform build."""

from __future__ import annotations

import re

import pytest

from nbsupport.lab import counts


def test_runs_that_differ_expect_nothing_of_that_function() -> None:
    a: counts.Counts = {("f", 1): (1,), ("g", 2): (5,)}
    b: counts.Counts = {("f", 1): (1,), ("g", 2): (6,), ("h", 3): (1,)}
    assert counts.agreed([a, b]) == {("f", 1): (1,), ("g", 2): None, ("h", 3): None}


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        ({("f", 1): (1,)}, "1 functions are missing \\(g\\)"),
        ({("f", 1): (1,), ("g", 2): (2,), ("x", 9): (0,)}, "belong to no part"),
        ({("f", 1): (1,), ("g", 2): (3,)}, "wrong counts \\(g\\)"),
        ({("f", 1): (1,), ("g", 7): (2,)}, "missing"),
    ],
)
def test_says_what_is_wrong(seen: counts.Counts, says: str) -> None:
    found = counts.difference(seen, {("f", 1): (1,), ("g", 2): (2,)})
    assert found is not None

    assert re.search(says, found)


def test_right_counts_are_right_and_unstable_ones_only_have_to_be_there() -> None:
    assert (
        counts.difference({("f", 1): (1,), ("g", 2): (9,)}, {("f", 1): (1,), ("g", 2): None})
        is None
    )
