"""Records and their counters: as the header says, as pointers say, as they are recognized."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from nbsupport.profile import profraw, training
from tests.support import synthetic
from tests.support.malformed import HEADER, IR10, RECORD, U32
from tests.support.synthetic import Function
from tests.support.trained import Maker, maker_layout, uniform


def test_counters_out_of_line_are_found_by_their_pointers(tmp_path: Path) -> None:
    """A linker may drop counters, or put them in another order than records."""
    functions = [Function("f", 1, [1, 2]), Function("g", 2, [3]), Function("h", 3, [4, 5])]
    data = bytearray(synthetic.profile(functions, 10))
    second, third = 128 + 64, 128 + 128
    for record, place in ((second, 24), (third, 16)):  # g at the fourth counter, h at the third
        pointer = synthetic.APART + place - (record - 128)
        data[record + 16 : record + 24] = struct.pack("<q", pointer)
    data[third + 48] = 1  # h has one counter
    path = tmp_path / "x.profraw"
    path.write_bytes(data)
    assert [counts for _, _, counts in profraw.read(path).rows()] == [[1, 2], [4], [3]]


def test_records_may_share_all_of_their_counters(tmp_path: Path) -> None:
    """As two objects' records of one function do where the linker kept both."""
    data = bytearray(synthetic.profile([Function("f", 1, [1, 2]), Function("g", 2, [3, 4])], 10))
    data[192 + 16 : 192 + 24] = struct.pack("<q", synthetic.APART - 64)
    (tmp_path / "x").write_bytes(data)
    raw = profraw.read(tmp_path / "x")
    assert raw.valid and [counts for *_, counts in raw.rows()] == [[1, 2], [1, 2]]


@pytest.mark.parametrize("first", ["main", "lib"])
@pytest.mark.parametrize(
    ("main", "foreign"), [("19", "17"), ("17", "19"), ("22", "23"), ("23", "17")]
)
def test_records_of_two_llvms_are_recognized_and_read(
    main: str, foreign: str, first: str, maker: Maker
) -> None:
    path = maker.mixed(main, foreign, first)
    raw = profraw.read(path)
    sizes = [maker_layout(maker, v).record_size() for v in (main, foreign)]
    if first == "lib":
        sizes.reverse()
    assert [p.rows.itemsize for p in raw.profiles[0].records.blocks] == sizes
    whole = maker.counts(main, uniform(maker, main))
    assert {name.decode(): counts for name, _, counts in raw.rows()} == {
        name: counts for (name, _), counts in whole.items()
    }
    [problem] = [p for p in raw.problems if "stride" in p.what]
    start = raw.profiles[0].header.places["data"][0]
    assert problem.offset == start
    number = raw.profiles[0].records.blocks[0].rows.size
    assert f"of {sizes[1]} bytes (raw version" in problem.what
    assert f"from byte {start + number * sizes[0]}" in problem.what
    assert training.state(raw) == "malformed" and not maker.merge(main, path).ok


def test_the_runtime_cut_off_the_last_records_of_a_crash(maker: Maker, tmp_path: Path) -> None:
    """The header's number of records is right only for the runtime's stride, rounded up."""
    main, foreign = Function("main", 1, [1, 2]), Function("foreign", 2, [3])
    # As in memory: a record of raw version 10, then one of 8, whose counters follow main's.
    both = synthetic.profile([main, Function("foreign", 2, [3])], 10)
    first = both[128 : 128 + 64]
    old = struct.pack("<QQqQQIHH", foreign.ref, 2, synthetic.APART + 16 - 64, 0, 0, 1, 0, 0)
    path = tmp_path / "x.profraw"
    path.write_bytes(synthetic.profile([main, foreign], 10, records=first + old))
    raw = profraw.read(path)
    assert list(raw.rows()) == [(b"main", 1, [1, 2]), (b"foreign", 2, [3])]
    assert [p.rows.itemsize for p in raw.profiles[0].records.blocks] == [64, 48]


def test_many_problems_are_counted_not_listed(tmp_path: Path) -> None:
    functions = [Function(f"f{i}", i, [1]) for i in range(500)]
    data = bytearray(synthetic.profile(functions, IR10))
    for i in range(500):
        data[HEADER + i * RECORD + 48 : HEADER + i * RECORD + 52] = U32(0)
    path = tmp_path / "x.profraw"
    path.write_bytes(data)
    problems = profraw.read(path).problems
    assert len(problems) == 101 and "400 more" in problems[-1].what
