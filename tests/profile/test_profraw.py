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
    TWO_PLAIN,
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


@pytest.mark.parametrize("raw_version", sorted(layout.LAYOUTS))
def test_counters_may_begin_at_any_byte_as_on_windows(raw_version: int, tmp_path: Path) -> None:
    functions = [Function("f", 1, [1, 2**40]), Function("g", 2, [3])]
    path = tmp_path / "x.profraw"
    path.write_bytes(synthetic.profile(functions, raw_version, late=7))
    raw = profraw.read(path)
    assert raw.valid
    assert [counts for *_, counts in raw.rows()] == [[1, 2**40], [3]]


@pytest.mark.parametrize("version", ["17", "18", "19", "23"])
@pytest.mark.parametrize("late", [1, 7])
def test_late_counters_are_what_llvm_profdata_reads(
    version: str, late: int, maker: Maker, tmp_path: Path
) -> None:
    path = tmp_path / "x.profraw"
    functions = [Function("f", 1, [1, 2**40]), Function("g", 2, [3])]
    raw_version = maker.find(version).raw_version or 0
    path.write_bytes(synthetic.profile(functions, raw_version | 1 << 56, late=late))
    assert read_counts(path) == maker.counts(version, path)
    assert training.merge(profraw.read(path)).endswith(
        "merges it; any other fails (raw profile version mismatch)"
    )


def test_counters_that_begin_at_different_bytes_are_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "x.profraw"
    data = synthetic.profile([Function("f", 1, [1, 2]), Function("g", 2, [3])], 10, late=7)
    place = HEADER + RECORD + 16  # the second record's CounterPtr
    pointer = U64(synthetic.APART + 6 + 16 - RECORD)  # a byte earlier than it is
    path.write_bytes(data[:place] + pointer + data[place + 8 :])
    assert [counts for *_, counts in profraw.read(path).rows()] == [[1, 2], [3 << 8]]


def quads(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "little", signed=number < 0) for number in numbers)


#: As a program that MinGW's linker made may write it: each part is aligned to 16 bytes.
PADDED = b"".join(
    (
        b"\x81rforpl\xff",  # magic of 64 bits, little-endian
        quads(8, 0, 2),  # raw version; no build id; records, the padding counted with them
        quads(0, 2, 0),  # no padding; counters, rounded up; no padding
        quads(7, 96, 0, 1),  # bytes of names; CountersDelta; NamesDelta; ValueKindLast
        bytes(16),  # padding before the first record: its section is aligned to 16
        Function("go", 0, []).ref.to_bytes(8, "little"),  # NameRef
        quads(24),  # FuncHash
        quads(96 - 16 + 7),  # CounterPtr, from this record: 7 bytes into the counters
        quads(0, 0),  # FunctionPointer, Values
        quads(1),  # one counter, no value sites
        bytes(32),  # the rest of what the runtime took for a second record
        bytes(7),  # up to the first counter, from the one-byte symbol before it
        quads(5),  # the counter
        bytes(1),  # the counters' part is rounded up
        bytes(3),  # padding before the names: theirs is aligned to 4
        b"\2\0go",  # two bytes of names, not compressed
        bytes(1),  # the names' part is padded to 8
    )
)


def test_padding_before_records_and_names_is_said_and_skipped(maker: Maker, tmp_path: Path) -> None:
    path = tmp_path / "x.profraw"
    path.write_bytes(PADDED)
    raw = profraw.read(path)
    assert list(raw.rows()) == [(b"go", 24, [5])]
    assert [p.offset for p in raw.problems] == [88, 88 + 96 + 16]
    assert "found 16 bytes of padding" in raw.problems[0].what
    assert "takes it for an empty name" in raw.problems[1].what
    assert "fails" in training.merge(raw) and not maker.merge("17", path).ok


#: As a program of LLVM 9 writes it: its header has eight words.
RAW4 = b"".join(
    (
        b"\x81rforpl\xff",  # magic of 64 bits, little-endian
        quads(4 | 1 << 56),  # raw version, instrumented by the IR pass
        quads(1, 2, 3),  # records, counters, bytes of names
        quads(0x602000, 0x601000, 1),  # CountersDelta, NamesDelta, ValueKindLast
        Function("f", 0, []).ref.to_bytes(8, "little"),  # NameRef
        quads(77),  # FuncHash
        quads(0x602000),  # CounterPtr: an address
        quads(0x400000, 0),  # FunctionPointer, Values
        quads(2),  # two counters, no value sites
        quads(3, 4),  # the counters
        b"\1\0f",  # the names
        bytes(5),  # padding to 8
    )
)


def test_raw_version_4_is_read_and_nobody_says_what_merges_it(tmp_path: Path) -> None:
    path = tmp_path / "x.profraw"
    path.write_bytes(RAW4)
    raw = profraw.read(path)
    assert (raw.valid, raw.raw_version, raw.variants) == (True, 4, ("ir",))
    assert list(raw.rows()) == [(b"f", 77, [3, 4])]
    assert training.merge(raw).startswith("not known") and "LLVM 4 to 10" in training.merge(raw)


def test_profiles_of_two_runtimes_in_one_file_are_all_read(maker: Maker, tmp_path: Path) -> None:
    path = tmp_path / "x.profraw"
    path.write_bytes(
        maker.profile("19", "ir").read_bytes() + maker.profile("17", "ir").read_bytes()
    )
    raw = profraw.read(path)
    sizes = [profile.header.record_size for profile in raw.profiles]
    assert (sizes, raw.raw_version, raw.valid) == ([64, 48], 10, False)
    first, second = (
        len(maker.counts(version, maker.profile(version, "ir"))) for version in ("19", "17")
    )
    assert raw.functions == first + second
    [problem] = raw.problems
    assert "expected 10 as before, found 8: two runtimes wrote to one file" in problem.what
    assert "several raw versions (10, 8)" in training.merge(raw)
    for version in ("17", "19", "23"):
        assert not maker.merge(version, path).ok


UNIFORM = {
    "those of each": ((0, 16), 3, True),
    "at an odd byte": ((1, 8), 3, True),
    "before all": ((-8, 16), 3, False),
    "behind all": ((24, 16), 3, False),
    "more than there are": ((16, 16), 3, False),
    "without any": ((-8, 24), 0, True),  # nobody looks
}


@pytest.mark.parametrize("case", UNIFORM)
def test_uniform_counters_are_checked_as_llvm_profdata_23_does(
    case: str, maker: Maker, tmp_path: Path
) -> None:
    """Of raw version 11: of programs for GPUs, whose threads counted alike."""
    places, number, sound = UNIFORM[case]
    known, delta = layout.LAYOUTS[11], 1 << 20
    numbers = {"NumUniformCounters": number, "UniformCountersDelta": delta}
    data = bytearray(synthetic.profile(TWO_PLAIN, 11 | 1 << 56, change=numbers))
    for i, place in enumerate(places):
        field = known.header_size + i * known.record_size() + known.offsets()["UniformCounterPtr"]
        struct.pack_into("<Q", data, field, delta + place - i * known.record_size())
    end = known.header_size + 2 * known.record_size() + 24  # of the counters
    path = tmp_path / "x.profraw"
    path.write_bytes(data[:end] + U64(9) * number + data[end:])
    raw = profraw.read(path)
    assert raw.valid == sound, raw.problems
    assert maker.merge("23", path).ok == sound
    if not sound:
        assert "uniform counters, found no such" in raw.problems[0].what


def test_a_profile_without_value_kinds_is_fine(maker: Maker, tmp_path: Path) -> None:
    path = tmp_path / "x.profraw"
    path.write_bytes(changed(ValueKindLast=0))
    assert profraw.read(path).valid and maker.merge("19", path).ok


def test_what_is_said_of_failure_modes_is_so(maker: Maker, tmp_path: Path) -> None:
    """A count that cannot be, in LLVM 18's, 19's and 23's raw version: all fails, warn takes it."""
    path, good = tmp_path / "x.profraw", tmp_path / "good.profraw"
    for version, raw_version in (("18", 9), ("19", 10), ("23", 11)):
        path.write_bytes(synthetic.profile([Function("f", 1, [2**57])], raw_version | 1 << 56))
        good.write_bytes(synthetic.profile([Function("g", 1, [2])], raw_version | 1 << 56))
        text = training.merge(profraw.read(path))
        assert "drops all of it, warns, and exits with 0 where another input is good" in text
        assert "with --failure-mode=warn (LLVM 18 and newer) it takes that count, too" in text
        assert maker.merge(version, "--failure-mode=all", path).exit_code == 1
        assert maker.merge(version, "--failure-mode=all", path, good).ok
        assert maker.merge(version, "--failure-mode=warn", path).ok
        assert maker.content(version, good).keys() == {("g", 1)}
        assert maker.merge(version, "--failure-mode=warn", path).ok
        assert "144115188075855872" in (maker.folder / "merged").read_text()
    path.write_bytes(changed() + b"garbage!")
    assert "--failure-mode=warn" not in training.merge(profraw.read(path))


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
    "zeros for records": synthetic.profile([], IR10, names=b"", records=bytes(64 * 300_000)),
    "a name of one letter, a million times": synthetic.profile(
        TWO, IR10, names=names_blob(["f"] * 6_000_000, compress=False)
    ),
    "an empty name, a million times": synthetic.profile(TWO, IR10, names=b"\2\0\1\1" * 1_000_000),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_memory_is_bounded_by_the_size_of_the_file(case: str, tmp_path: Path) -> None:
    (tmp_path / "x.profraw").write_bytes(HOSTILE[case])
    tracemalloc.start()
    try:
        raw = profraw.read(tmp_path / "x.profraw")
        training.to_json(raw)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000 + 1.5 * len(HOSTILE[case])
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


def test_a_file_may_become_shorter_after_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "large.profraw"
    synthetic.large(path, 20_000)
    raw = profraw.read(path)
    os.truncate(path, 0)
    assert (raw.functions, raw.valid) == (20_000, True)


def test_a_file_that_becomes_shorter_while_it_is_read_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, readv = tmp_path / "large.profraw", os.readv
    size = synthetic.large(path, 20_000)

    def cut(handle: int, buffers: list[memoryview]) -> int:
        count = readv(handle, buffers)
        os.truncate(path, size // 2)  # as a program does that begins to write its profile anew
        return count

    monkeypatch.setattr(os, "readv", cut)
    with pytest.raises(LabError, match="it became shorter .* while it was read") as caught:
        profraw.read(path)
    assert not isinstance(caught.value, profraw.OtherFileError)


def test_a_larger_file_than_is_asked_for_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.profraw"
    path.write_bytes(WHOLE)
    assert profraw.read(path, most=len(WHOLE)).valid
    with pytest.raises(LabError, match="more than 50 are not read; give more with --most"):
        profraw.read(path, most=50)
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # sparse: nothing of it is there
    with pytest.raises(LabError, match="1,099,511,627,776 bytes"):
        profraw.read(path)


def test_a_large_profile_is_as_llvm_profdata_shows_it(maker: Maker, tmp_path: Path) -> None:
    path = tmp_path / "large.profraw"
    synthetic.large(path, 5000)
    assert read_counts(path) == maker.counts("19", path)
