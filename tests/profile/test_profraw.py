"""The raw profile reader against llvm-profdata, real profiles, and bytes that are wrong."""

from __future__ import annotations

import json
import os
import random
import re
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nbsupport.base.errors import LabError
from nbsupport.profile import layout, profraw, training
from nbsupport.profile.layout import Bits, Order
from nbsupport.profile.names import Doubt
from nbsupport.profile.profraw import RawProfile
from tests.support import hostile, synthetic
from tests.support.malformed import (
    DOUBTFUL,
    HEADER,
    IR10,
    MALFORMED,
    RECORD,
    TWO,
    U32,
    U64,
    changed,
    edited,
)
from tests.support.synthetic import Function, names_blob
from tests.support.trained import CASES, VARIANTS, VERSIONS, Maker, read_counts


@pytest.mark.parametrize(("version", "kind"), CASES)
def test_names_hashes_and_counts_are_those_of_llvm_profdata(
    version: str, kind: str, maker: Maker
) -> None:
    path = maker.profile(version, kind)
    raw = profraw.read(path)
    expected = maker.counts(version, path)
    assert read_counts(path) == expected
    assert raw.raw_version == maker.find(version).raw_version
    assert raw.variants == VARIANTS.get(kind, raw.variants)
    assert raw.functions == len(expected) >= 7  # IR has one inlined
    assert raw.counters == sum(map(len, expected.values()))
    assert training.state(raw) == "ok" and "merges it" in training.merge(raw)


@pytest.mark.parametrize("version", VERSIONS)
def test_build_ids_and_value_sites_are_there_and_so_are_bitmaps(version: str, maker: Maker) -> None:
    """Guards the test above: value data must be there, whose end is found, and bitmaps."""
    [profile] = profraw.read(maker.profile(version, "build-id")).profiles
    [build_id] = profile.header.binary_ids()[0]
    assert re.fullmatch(r"[0-9a-f]{16,}", build_id)
    assert all(profile.records.column("NumValueSites").sum(axis=0)[:2])  # calls, sizes
    assert profile.end == len(profile.header.data) > profile.header.places["values"][0]
    if version != "17":
        [profile] = profraw.read(maker.profile(version, "mcdc")).profiles
        assert profile.records.bitmaps[1].any()


@pytest.mark.parametrize("version", VERSIONS)
def test_profiles_one_after_the_other_are_read_as_one_file(
    version: str, maker: Maker, tmp_path: Path
) -> None:
    path = tmp_path / "two.profraw"
    one = maker.profile(version, "ir").read_bytes()
    path.write_bytes(one + bytes(24) + maker.profile(version, "build-id").read_bytes() + bytes(8))
    assert len(profraw.read(path).profiles) == 2
    assert read_counts(path) == maker.counts(version, path)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("raw_version", sorted(layout.LAYOUTS))
def test_every_raw_version_is_read_in_both_sizes_and_byte_orders(
    raw_version: int, bits: Bits, order: Order, tmp_path: Path
) -> None:
    functions = [
        Function("main", 0x123456789ABCDEF0, [1, 2**40, 3], address=0x4000),
        Function("file.c;inner", 7, [4], sites={0: [[(0x4000, 5)], []], 1: [[(8, 6), (9, 1)]]}),
        Function("last", 8, [0, 9]),
    ]
    if raw_version >= 9:
        functions[2].bitmap = b"\x05\x80\x01"
    path = tmp_path / "x.profraw"
    path.write_bytes(synthetic.profile(functions, raw_version, bits=bits, order=order))
    raw = profraw.read(path)
    assert raw.problems == ()
    assert (raw.functions, raw.counters) == (3, 6)
    assert list(raw.rows()) == [(f.name.encode(), f.hash, list(f.counts)) for f in functions]
    [profile] = raw.profiles
    assert (profile.header.bits, profile.header.order) == (bits, order)
    assert profile.records.bitmaps[1].tolist() == [0, 0, len(functions[2].bitmap)]
    assert profile.end == path.stat().st_size > profile.header.places["values"][0]


@pytest.mark.parametrize("version", ["17", "18", "19", "23"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [32, 64])
def test_what_we_write_is_what_llvm_profdata_reads(
    version: str, bits: Bits, order: Order, maker: Maker, tmp_path: Path
) -> None:
    """So that the writer, with which the rest is tested, is right: 32 bits, big endian."""
    raw_version = maker.find(version).raw_version
    assert raw_version
    path = tmp_path / "x.profraw"
    # LLVM 17 does not swap the bytes of addresses when it looks for a value's function.
    address = 0 if (version, order) == ("17", ">") else 0x40
    functions = [
        Function("f", 1, [5, 6], address=address, sites={0: [[(0x40, 3)]]}),
        Function("g", 2, [7]),
    ]
    path.write_bytes(synthetic.profile(functions, raw_version | 1 << 56, bits=bits, order=order))
    assert read_counts(path) == maker.counts(version, path)
    target = "f" if address else "** External Symbol **"
    assert maker.content(version, path)["f", 1] == ([5, 6], [], {0: [{target: 3}]})


def check(data: bytes, offset: int, what: str, path: Path) -> RawProfile:
    path.write_bytes(data)
    raw = profraw.read(path)
    assert [p for p in raw.problems if p.offset == offset and what in p.what], raw.problems
    assert not raw.valid
    list(raw.rows())
    return raw


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_malformed_is_said_with_its_place_and_llvm_profdata_rejects_it(
    case: str, maker: Maker, tmp_path: Path
) -> None:
    data, offset, what = MALFORMED[case]
    raw = check(data, offset, what, tmp_path / "x.profraw")
    assert training.state(raw) != "ok"
    done = maker.merge("19", tmp_path / "x.profraw")
    assert done.exit_code == 1 or done.signal or case in {"names cut", "records near 2^64"}, done


@pytest.mark.parametrize("case", DOUBTFUL)
def test_what_is_doubtful_is_said_and_llvm_profdata_takes_it(
    case: str, maker: Maker, tmp_path: Path
) -> None:
    raw = check(*DOUBTFUL[case], tmp_path / "x.profraw")
    assert all(isinstance(p, Doubt) for p in raw.problems)
    assert "merges it as it is" in training.merge(raw)
    assert maker.merge("19", tmp_path / "x.profraw").ok


def test_what_a_newer_raw_version_still_tells(tmp_path: Path) -> None:
    path = tmp_path / "x.profraw"
    path.write_bytes(changed(Version=12 | 1 << 63 | 1 << 56))
    raw = profraw.read(path)
    assert (raw.raw_version, raw.variants) == (12, ("ir", "temporal"))
    assert (raw.functions, raw.valid, training.state(raw)) == (0, False, "other-version")


RICH = [
    Function("main", 1, [1, 2, 3], b"\7", {0: [[(0x40, 5)]], 1: [[(8, 1), (9, 2)], []]}, 0x40),
    Function("other", 2, [4], address=0x80),
]
WHOLE = synthetic.profile(RICH, IR10, binary_ids=U64(4) + b"abcd" + bytes(4))


def outcome(data: bytes, path: Path) -> str:
    """Read everything; return what a merge would do: take, reject, skip."""
    path.write_bytes(data)
    try:
        raw = profraw.read(path)
        assert raw.functions == len(list(raw.rows()))
        assert raw.counters == sum(len(counts) for *_, counts in raw.rows())
        json.dumps(training.to_json(raw))
    except LabError:
        return "reject"
    if not data:
        return "skip"
    return "take" if all(isinstance(p, Doubt) for p in raw.problems) else "reject"


def test_a_profile_cut_off_anywhere_is_not_valid(maker: Maker, tmp_path: Path) -> None:
    path = tmp_path / "x.profraw"
    assert outcome(WHOLE, path) == "take" and profraw.read(path).valid
    for data in hostile.cuts(WHOLE):
        assert outcome(data, path) == ("reject" if data else "skip"), len(data)
        if data and len(data) % 12 == 0:
            assert not maker.merge("19", path).ok, len(data)


@given(hostile.spoiled([WHOLE, WHOLE + WHOLE]))
@hypothesis_settings(max_examples=300)
def test_spoiled_bytes_raise_nothing(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "spoiled.profraw"
    outcome(data, path)
    outcome(data + WHOLE, path)


@given(st.binary(max_size=400), st.sampled_from([*layout.LAYOUTS, 99]), st.booleans())
@hypothesis_settings(max_examples=200)
def test_anything_behind_a_magic_raises_nothing(
    tmp_path_factory: pytest.TempPathFactory, rest: bytes, version: int, big: bool
) -> None:
    start = layout.MAGIC[64] if big else layout.MAGIC[64][::-1]
    start += struct.pack(">Q" if big else "<Q", version)
    outcome(start + rest, tmp_path_factory.getbasetemp() / "random.profraw")


@pytest.mark.parametrize("version", VERSIONS)
def test_what_we_take_llvm_profdata_takes(version: str, maker: Maker, tmp_path: Path) -> None:
    """And what it rejects is not valid; the other way round is allowed: we look at more."""
    draw = random.Random(int(version))  # noqa: S311
    path, stricter = tmp_path / "x.profraw", 0
    kinds = ["ir", "coverage", "block-coverage", "temporal", "build-id"]
    for turn in range(60):
        data = bytearray(maker.profile(version, kinds[turn % 5]).read_bytes())
        place = draw.randrange(8 if turn % 3 else 128, len(data))
        if turn % 4:
            data[place] ^= 1 << draw.randrange(8)
        else:
            del data[place:]
        ours, theirs = outcome(bytes(data), path), maker.merge(version, path)
        if ours == "take":
            assert theirs.ok, (turn, theirs.stderr)
        stricter += ours == "reject" and theirs.ok
    assert stricter <= 5


HOSTILE = {
    "all records share all counters": edited(
        [Function(f"f{i}", i, [1] * 50) for i in range(1000)],
        *((HEADER + i * RECORD + 16, U64(synthetic.APART - i * RECORD)) for i in range(1000)),
        *((HEADER + i * RECORD + 48, U32(50_000)) for i in range(1000)),
    ),
    "one profile after the other, empty": synthetic.profile([], IR10, names=b"") * 9000,
    "names that inflate": synthetic.profile(
        TWO,
        IR10,
        names=names_blob(["f" * 50_000_000]),  # 50 MB in 50 kB
    ),
    "names that inflate, one by one": synthetic.profile(
        TWO, IR10, names=names_blob(["f" * 4000]) * 20_000
    ),
    "padding in names": synthetic.profile(TWO, IR10, names=(b"\1\0f" + bytes(97)) * 10_000),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_memory_is_bounded_by_the_size_of_the_file(case: str, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        outcome(HOSTILE[case], tmp_path / "x.profraw")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000 + 60 * len(HOSTILE[case])
    finally:
        tracemalloc.stop()


def test_a_file_that_is_no_profile_is_told_apart(tmp_path: Path) -> None:
    for start, what in (
        (b"\xfflprofi\x81", "an indexed profile"),
        (b"\x81rforpm\xff", "a raw memory profile"),
        (b"\x7fELF\2\1\1\0", "an ELF file"),
        (b":ir\nmain\n", "a text profile"),
        (b"hello, world", "it does not start as one"),
    ):
        (tmp_path / "x").write_bytes(start + bytes(100))
        with pytest.raises(LabError, match=f"not a raw profile: .*{what}"):
            profraw.read(tmp_path / "x")


def test_what_cannot_be_read_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, why in (
        (tmp_path, "a folder"),
        (tmp_path / "fifo", "not a regular file"),
        (tmp_path / "none", "No such file"),
        (tmp_path / "nul\0", "null"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        with pytest.raises(LabError, match=why):
            profraw.read(path)

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LabError, match="Permission denied"):
        profraw.read(tmp_path / "x")


def test_a_large_file_is_mapped_and_may_be_removed_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "large.profraw"
    assert synthetic.large(path, 20_000) > profraw.SMALL
    raw = profraw.read(path)
    path.unlink()
    assert (raw.functions, raw.valid) == (20_000, True)


def test_a_large_profile_is_as_llvm_profdata_shows_it(maker: Maker, tmp_path: Path) -> None:
    path = tmp_path / "large.profraw"
    synthetic.large(path, 5000)
    assert read_counts(path) == maker.counts("19", path)
