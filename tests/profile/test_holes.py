"""A file that lost bytes in its middle, or got some, says so and where; a cut end is no hole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.profile import profraw, training
from nbsupport.profile.profraw import RawProfile
from tests.support import synthetic
from tests.support.malformed import HEADER, IR10, RECORD
from tests.support.synthetic import Function, names_blob
from tests.support.trained import VERSIONS, Maker

FIVE = [Function(f"function_{n}", n, [n, 10 * n]) for n in range(1, 6)]
COUNTERS = HEADER + 5 * RECORD
NAMES = COUNTERS + 5 * 16
Read = Callable[[bytes], RawProfile]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write_and_read(data: bytes) -> RawProfile:
        (tmp_path / "x.profraw").write_bytes(data)
        return profraw.read(tmp_path / "x.profraw")

    return write_and_read


def five(*, compress: bool) -> bytes:
    blob = names_blob([function.name for function in FIVE], compress=compress)
    return synthetic.profile(FIVE, IR10, names=blob)


def counted(raw: RawProfile) -> dict[str, list[int]]:
    return {name.decode(): counts for name, _, counts in raw.rows()}


RIGHT = {function.name: list(function.counts) for function in FIVE}


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    ("size", "place", "line", "functions"),
    [
        (8, 64, "8 bytes are missing before byte 120, in its header", []),
        (16, HEADER + 8, "16 bytes are missing before byte 176, in its records", [2, 3, 4, 5]),
        (
            8,
            HEADER + RECORD + 24,
            "8 bytes are missing before byte 248, in its records",
            [1, 3, 4, 5],
        ),
        (64, HEADER + RECORD, "64 bytes are missing before byte 464, in its", []),
        (8, COUNTERS + 8, "8 bytes are missing before byte 520, in its records or counters", []),
        (3, COUNTERS + 8, "3 bytes are missing before byte 525, in its records or counters", []),
    ],
)
def test_where_bytes_are_missing(
    read: Read, compress: bool, size: int, place: int, line: str, functions: list[int]
) -> None:
    data = five(compress=compress)
    raw = read(data[:place] + data[place + size :])
    assert [problem.what for problem in raw.problems if line in problem.what], raw.problems
    assert "truncated" not in str(raw.problems) and training.state(raw) == "malformed"
    assert counted(raw) == {f"function_{n}": RIGHT[f"function_{n}"] for n in functions}


@pytest.mark.parametrize(
    ("size", "place", "line", "functions"),
    [
        (8, HEADER, "8 bytes are too many before byte 136, in its", [1, 2, 3, 4, 5]),
        (8, HEADER + 72, "8 bytes are too many before byte 264, in its records", [1, 3, 4, 5]),
        (24, COUNTERS, "24 bytes are too many before byte 552, in its records or counters", []),
        (1, COUNTERS, "1 byte is too many before byte 529, in its records or counters", []),
    ],
)
def test_where_bytes_are_too_many(
    read: Read, size: int, place: int, line: str, functions: list[int]
) -> None:
    data = five(compress=True)
    raw = read(data[:place] + bytes(size) + data[place:])
    assert [problem.what for problem in raw.problems if line in problem.what], raw.problems
    assert counted(raw) == {f"function_{n}": RIGHT[f"function_{n}"] for n in functions}


def test_two_holes_leave_what_lies_before_and_behind_them(read: Read) -> None:
    data = five(compress=True)
    first, second = HEADER + RECORD + 8, HEADER + 3 * RECORD + 8
    raw = read(data[:first] + data[first + 8 : second] + data[second + 8 :])
    assert counted(raw) == {name: RIGHT[name] for name in ("function_1", "function_5")}
    raw = read(data[:first] + data[first + 8 : COUNTERS] + data[COUNTERS + 8 :])
    assert counted(raw) == {} and not raw.valid


def test_a_hole_in_the_names_leaves_the_counters_where_they_are(read: Read) -> None:
    data = five(compress=True)
    raw = read(data[: NAMES + 12] + data[NAMES + 20 :])
    (problem,) = raw.problems
    assert problem.what.startswith("8 bytes are missing before byte") and "names" in problem.what
    assert [counts for *_, counts in raw.rows()] == list(RIGHT.values())


def test_an_end_that_is_cut_off_is_no_hole(read: Read) -> None:
    data = five(compress=True)
    for length in range(HEADER, len(data), 4):
        raw = read(data[:length])
        assert "truncated" in raw.problems[0].what and not raw.profiles[0].hole
        assert list(RIGHT.values())[: raw.functions] == [counts for *_, counts in raw.rows()]
    assert raw.functions == 5


def test_the_profile_that_follows_one_with_a_hole_is_read(read: Read) -> None:
    data = five(compress=True)
    raw = read(data[: COUNTERS + 8] + data[COUNTERS + 16 :] + data)
    assert len(raw.profiles) == 2 and counted(raw) == RIGHT and not raw.valid
    assert "8 bytes are missing" in raw.problems[0].what and len(raw.problems) == 1


def test_no_hole_is_seen_in_what_is_whole(maker: Maker) -> None:
    for version in VERSIONS:
        for kind in ("ir", "front-end", "block-coverage", "temporal", "build-id"):
            raw = profraw.read(maker.profile(version, kind))
            assert raw.valid and raw.profiles[0].hole is None
        mixed = profraw.read(maker.mixed(version, "19" if version != "19" else "17", "main"))
        assert mixed.profiles[0].hole is None


def test_a_file_that_was_copied_as_text_is_told_from_one_of_a_newer_llvm(read: Read) -> None:
    raw = read(five(compress=True).replace(b"\n", b"\r\n"))
    assert "copied as text" in raw.problems[0].what and not raw.profiles


def test_zeros_over_the_end_of_the_records_leave_no_count(read: Read) -> None:
    data = five(compress=True)
    raw = read(data[: COUNTERS - 8] + bytes(NAMES + 8 - COUNTERS + 8) + data[NAMES + 8 :])
    assert not raw.valid
    assert counted(raw) == {}
