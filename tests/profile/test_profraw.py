"""The raw profile reader against llvm-profdata, real profiles, and bytes that are wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import struct
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nbsupport.base import process, settings
from nbsupport.base.errors import LabError
from nbsupport.cli import commands
from nbsupport.profile import layout, profraw, training, values
from nbsupport.profile.layout import Bits, Order
from nbsupport.profile.names import Doubt
from nbsupport.profile.profraw import RawProfile
from nbsupport.toolchains import profdata
from nbsupport.toolchains.probe import Toolchain
from tests.support import synthetic
from tests.support.synthetic import Function, names_blob

VERSIONS = ("17", "18", "19", "22", "23")
MAIN = """
int lib_calls(int), lib_branch(int); char from[99], to[99];
static int one(int x) { return x + 1; }
static int two(int x) { return x & 1 ? 2 * x : x; }
int (*volatile called[2])(int) = {one, two};
int both(int a, int b) { return a && b; }
int main(int argc, char **argv) {
  int sum = 0;
  for (int i = 0; i < 10; i++) {
    sum += called[i % 3 == 0](i) + both(i % 2, i % 3) + lib_calls(i) + lib_branch(i);
    __builtin_memcpy(to, from, (unsigned long)(sum % 17 + argc));
  }
  return sum == 12345;
}
"""
LIBRARY = """
static int helper(int x) { return x > 2 ? x * 3 : x; }
int lib_calls(int x) { int s = 0; for (int i = 0; i < x; i++) s += helper(i); return s; }
int lib_branch(int x) { return x & 1 ? lib_calls(x) : 7; }
int lib_cold(int x) { return x + 1; }
"""
IR, FRONT_END = ("-fprofile-generate",), ("-fprofile-instr-generate",)
COVERAGE = (*FRONT_END, "-fcoverage-mapping")
KINDS = {
    "ir": IR,
    "front-end": FRONT_END,
    "coverage": COVERAGE,
    "mcdc": (*COVERAGE, "-fcoverage-mcdc"),  # LLVM 18 and later
    "block-coverage": (*IR, "-mllvm", "-pgo-block-coverage"),
    "entry-coverage": (*IR, "-mllvm", "-pgo-function-entry-coverage"),
    "entry-first": (*IR, "-mllvm", "-pgo-instrument-entry"),
    "temporal": (*IR, "-mllvm", "-pgo-temporal-instrumentation"),
    "context-sensitive": ("-fcs-profile-generate",),
    "build-id": (*IR, "-Wl,--build-id"),
    "merge-pool": IR,
    "continuous": (*COVERAGE, "-mllvm", "-runtime-counter-relocation"),
}
VARIANTS = {
    "ir": ("ir",),
    "block-coverage": ("ir", "byte-coverage"),
    "entry-coverage": ("ir", "byte-coverage", "entry-only"),
    "entry-first": ("ir", "entry-first"),
    "temporal": ("ir", "temporal"),
    "context-sensitive": ("ir", "context-sensitive"),
    "front-end": (),
}
CASES = [(v, kind) for v in VERSIONS for kind in KINDS if (v, kind) != ("17", "mcdc")]

Find = Callable[[str], Toolchain]
#: Counts, bitmap, and for each kind of values and each site what it saw, by name and hash.
Content = dict[tuple[str, int], tuple[list[int], list[int], dict[int, list[dict[str, int]]]]]


def run(*argv: str | Path, cwd: Path, **env: str) -> process.Finished:
    return process.run(argv, cwd=cwd, env=process.environment(env), limits=settings.COMPILER)


class Maker:
    """Builds and runs the program, once for each way."""

    def __init__(self, find: Find, folder: Path) -> None:
        self.find, self.folder = find, folder
        (folder / "main.c").write_text(MAIN)
        (folder / "lib.c").write_text(LIBRARY)

    def link(self, main: str, foreign: str, flags: tuple[str, ...], *, first: str = "main") -> Path:
        image = self.folder / f"{main}-{foreign}-{first}{''.join(flags)}".replace("/", "")
        objects = {}
        for name, version in (("main", main), ("lib", foreign)):
            objects[name] = self.folder / f"{name}.o"
            tool = self.find(version).compiler
            done = run(tool, "-O1", *flags, "-c", f"{name}.c", "-o", objects[name], cwd=self.folder)
            assert done.ok, done.stderr
        order = objects.values() if first == "main" else reversed(objects.values())
        tool = self.find(main).compiler
        done = run(tool, *flags, *order, "-o", image, cwd=self.folder)
        assert done.ok, done.stderr
        return image

    def profile(self, version: str, kind: str) -> Path:
        found = self.folder / f"{version}-{kind}.profraw"
        if not found.exists():
            pattern = {"merge-pool": "%2m", "continuous": "%c"}.get(kind, "")
            image = self.link(version, version, KINDS[kind])
            made = self.folder / f"made-{version}-{kind}"
            for _ in range(2 if kind == "merge-pool" else 1):
                done = run(image, cwd=self.folder, LLVM_PROFILE_FILE=f"{made}/{pattern}.profraw")
                assert done.ok and not done.stderr, done
            next(made.iterdir()).rename(found)
        return found

    def mixed(self, main: str, foreign: str, first: str) -> Path:
        found = self.folder / f"mixed-{main}-{foreign}-{first}.profraw"
        image = self.link(main, foreign, FRONT_END, first=first)
        run(image, cwd=self.folder, LLVM_PROFILE_FILE=str(found))
        return found

    def merge(self, version: str, *arguments: str | Path) -> process.Finished:
        tool = profdata.tool(self.find(version))
        return run(tool, "merge", *arguments, "-text", "-o", "merged", cwd=self.folder)

    def content(self, version: str, *paths: Path) -> Content:
        done = self.merge(version, *paths)
        assert done.ok, done.stderr
        return parse((self.folder / "merged").read_text())


@pytest.fixture(scope="module")
def maker(toolchain: Find, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(toolchain, tmp_path_factory.mktemp("profraw"))


def parse(text: str) -> Content:
    """Read llvm-profdata's text: source: TextInstrProfReader (InstrProfReader.cpp)."""
    lines = [line for line in text.splitlines() if line and line[0] not in "#:"]
    if ":temporal_prof_traces" in text:
        del lines[:4]  # number of traces, of all there were, weight, names
    left = deque(lines)
    take = left.popleft
    found: Content = {}
    while left:
        key = take(), int(take())
        counts = [int(take()) for _ in range(int(take()))]
        bitmap: list[int] = []
        sites: dict[int, list[dict[str, int]]] = {}
        if left and left[0].startswith("$"):
            bitmap = [int(take(), 16) for _ in range(int(take()[1:]))]
        if left and left[0].isdigit():
            for _ in range(int(take())):
                kind, number = int(take()), int(take())
                each = [[take() for _ in range(int(take()))] for _ in range(number)]
                sites[kind] = [{} for _ in each]
                for saw, site in zip(sites[kind], each, strict=True):
                    for what, _, count in (line.rpartition(":") for line in site):
                        # Two runs in one pool: the first one's addresses mean nothing now.
                        saw[what] = saw.get(what, 0) + int(count)
        found[key] = counts, bitmap, sites
    return found


def read_content(path: Path) -> Content:
    """Return the same as our reader has it, functions of several profiles added up."""
    raw = profraw.read(path)
    assert raw.problems == ()
    found: Content = {}
    for profile in raw.profiles:
        functions = profile.functions
        for i, (name, number, counts) in enumerate(functions.rows()):
            cut = slice(functions.bitmap_first[i], functions.bitmap_first[i + 1])
            key = name.decode(), number
            there = found.get(key, ([0] * len(counts), [], {}))
            total = [a + b for a, b in zip(there[0], counts, strict=True)]
            found[key] = total, functions.bitmaps[cut].tolist(), there[2]
        for owner, number, kind, site, value, target, count in profile.value_rows():
            kind_number = values.KINDS.index(kind)
            sites = found[owner, number][2].setdefault(kind_number, [])
            sites += [{} for _ in range(site + 1 - len(sites))]
            what = target or ("** External Symbol **" if kind_number == 0 else str(value))
            sites[site][what] = sites[site].get(what, 0) + count
    return found


# Truth: the same as llvm-profdata, on all that the toolchains make.


@pytest.mark.parametrize(("version", "kind"), CASES)
def test_names_hashes_counts_bitmaps_and_values_are_those_of_llvm_profdata(
    version: str, kind: str, maker: Maker
) -> None:
    path = maker.profile(version, kind)
    raw = profraw.read(path)
    expected = maker.content(version, path)
    assert read_content(path) == expected
    assert raw.raw_version == maker.find(version).raw_version
    assert raw.variants == VARIANTS.get(kind, raw.variants)
    assert raw.functions == len(expected) >= 7  # IR has one inlined
    assert raw.counters == sum(len(counts) for counts, _, _ in expected.values())
    assert training.state(raw) == "ok" and "merges it" in training.merge(raw)


@pytest.mark.parametrize("version", VERSIONS)
def test_build_ids_and_value_sites_are_there_and_so_are_bitmaps(version: str, maker: Maker) -> None:
    """Guards the test above: it must have something to compare."""
    [profile] = profraw.read(maker.profile(version, "build-id")).profiles
    [build_id] = profile.header.binary_ids()[0]
    assert re.fullmatch(r"[0-9a-f]{16,}", build_id)
    kinds = {row[2] for row in profile.value_rows()}
    assert kinds == {"indirect-call-target", "memory-operation-size"}
    if version != "17":
        [profile] = profraw.read(maker.profile(version, "mcdc")).profiles
        assert profile.functions.bitmaps.any()


@pytest.mark.parametrize("version", VERSIONS)
def test_profiles_one_after_the_other_are_read_as_one_file(
    version: str, maker: Maker, tmp_path: Path
) -> None:
    path = tmp_path / "two.profraw"
    one = maker.profile(version, "ir").read_bytes()
    path.write_bytes(one + bytes(24) + maker.profile(version, "build-id").read_bytes() + bytes(8))
    assert len(profraw.read(path).profiles) == 2
    assert read_content(path) == maker.content(version, path)


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
    assert profile.functions.bitmaps.tobytes() == functions[2].bitmap
    assert [row[2:] for row in profile.value_rows()] == [
        ("indirect-call-target", 0, 0x4000, "main", 5),
        ("memory-operation-size", 0, 8, "", 6),
        ("memory-operation-size", 0, 9, "", 1),
    ]


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
    assert read_content(path) == maker.content(version, path)
    target = "f" if address else "** External Symbol **"
    assert maker.content(version, path)["f", 1] == ([5, 6], [], {0: [{target: 3}]})


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


# The signature of the crash: records of two sizes, written with the runtime's stride.


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
    whole = maker.content(main, uniform(maker, main))
    assert {name.decode(): counts for name, _, counts in raw.rows()} == {
        name: counts for (name, _), (counts, _, _) in whole.items()
    }
    [problem] = [p for p in raw.problems if "stride" in p.what]
    start = raw.profiles[0].header.places["data"][0]
    assert problem.offset == start
    number = raw.profiles[0].records.blocks[0].rows.size
    assert f"of {sizes[1]} bytes (raw version" in problem.what
    assert f"from byte {start + number * sizes[0]}" in problem.what
    assert training.state(raw) == "malformed" and not maker.merge(main, path).ok


def maker_layout(maker: Maker, version: str) -> layout.Layout:
    raw_version = maker.find(version).raw_version
    assert raw_version
    return layout.LAYOUTS[raw_version]


def uniform(maker: Maker, version: str) -> Path:
    path = maker.folder / f"uniform-{version}.profraw"
    image = maker.link(version, version, FRONT_END)
    assert run(image, cwd=maker.folder, LLVM_PROFILE_FILE=str(path)).ok
    return path


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


# Malformed: each way, the smallest bytes that show it, and where they are.

TWO = [Function("f", 1, [5, 6], bitmap=b"\1"), Function("g", 2, [7])]
VALUED = [
    Function("f", 1, [5], sites={0: [[(1, 2)]]}),
    Function("g", 2, [7], sites={1: [[(3, 4)]]}),
]
HEADER, RECORD = 128, 64  # of raw version 10
REST = HEADER + 2 * RECORD  # counters (24 bytes), bitmaps (8), names
IR10 = 10 | 1 << 56


def edited(functions: list[Function], *changes: tuple[int, bytes]) -> bytes:
    data = bytearray(synthetic.profile(functions, IR10))
    for offset, new in changes:
        data[offset : offset + len(new)] = new
    return bytes(data)


def changed(**numbers: int) -> bytes:
    return synthetic.profile(TWO, IR10, change=numbers)


def values_at(offset: int) -> int:
    return len(synthetic.profile(VALUED, IR10)) - 2 * 40 + offset  # two blocks of 40 bytes


U32, U64 = struct.Struct("<I").pack, struct.Struct("<Q").pack
NAMES_OF_TWO = REST + 32
MALFORMED: dict[str, tuple[bytes, int, str]] = {
    "cut in the magic": (changed()[:5], 0, "expected a header, found 5 bytes"),
    "cut in the version": (changed()[:12], 0, "expected a header, found 12 bytes"),
    "cut in the header": (changed()[:100], 0, "expected a header of 128 bytes, found 100"),
    "cut behind it": (changed()[:-1], 0, "expected 304 bytes by its header, found 303"),
    "newer version": (changed(Version=99), 8, "expected 5 to 11, found 99 (an LLVM newer"),
    "older version": (changed(Version=4), 8, "found 4 (an old LLVM)"),
    "records near 2^64": (changed(NumData=2**64 - 1), 0, "truncated: expected 1180591620717"),
    "counters near 2^64": (changed(NumCounters=2**64 - 1), 0, "truncated"),
    "padding near 2^64": (changed(PaddingBytesAfterCounters=2**64 - 8), 0, "truncated"),
    "names near 2^64": (changed(NamesSize=2**64 - 8), 0, "truncated"),
    "binary ids cut": (
        synthetic.profile(TWO, IR10, binary_ids=U64(20) + bytes(16)),
        HEADER,
        "expected 1 to 16 bytes, found 20",
    ),
    "binary id of nothing": (
        synthetic.profile(TWO, IR10, binary_ids=U64(0)),
        HEADER,
        "expected 1 to 0 bytes, found 0",
    ),
    "no counters": (edited(TWO, (HEADER + 48, U32(0))), HEADER, "within 24 bytes, found 0 of 8"),
    "too many counters": (
        edited(TWO, (HEADER + RECORD + 48, U32(2))),
        HEADER + RECORD,
        "expected 1 or more counters within 24 bytes, found 2 of 8 from byte 16",
    ),
    "counters before all": (
        edited(TWO, (HEADER + 16, U64(synthetic.APART - 8))),
        HEADER,
        "found 2 of 8 from byte -8",
    ),
    "counters behind all": (edited(TWO, (HEADER + 16, U64(1 << 40))), HEADER, "found 2 of 8 from"),
    "a count that cannot be": (
        edited(TWO, (REST, U64(2**56 + 1))),
        HEADER,
        "expected counts up to 2^56",
    ),
    "bitmap behind all": (edited(TWO, (HEADER + 60, U32(9))), HEADER, "bitmap of 9 bytes"),
    "names not zlib": (
        synthetic.profile(TWO, IR10, names=b"\x03\x03abc"),
        NAMES_OF_TWO,
        "zlib says",
    ),
    "names cut": (
        synthetic.profile(TWO, IR10, names=b"\x7f\x00f\x01g"),
        NAMES_OF_TWO,
        "expected 127 bytes, found 3",
    ),
    "names without a size": (
        synthetic.profile(TWO, IR10, names=b"\xff" * 12),
        NAMES_OF_TWO,
        "no whole number",
    ),
    "names of terabytes": (
        synthetic.profile(TWO, IR10, names=synthetic.uleb(1 << 42) + b"\x08" + bytes(8)),
        NAMES_OF_TWO,
        "claim to inflate to 4398046511104",
    ),
    "names larger than they say": (
        synthetic.profile(TWO, IR10, names=b"\x02" + names_blob(["f", "g"])[1:]),
        NAMES_OF_TWO,
        "expected to inflate to 2 bytes, found 3",
    ),
    "names without an end": (
        synthetic.profile(TWO, IR10, names=b"\x03\x09" + names_blob(["f", "g"])[2:11]),
        NAMES_OF_TWO,
        "expected to inflate to 3 bytes",
    ),
    "an empty name": (
        synthetic.profile(TWO, IR10, names=names_blob(["f", "", "g"])),
        NAMES_OF_TWO,
        "found an empty one",
    ),
    "value data cut": (synthetic.profile(VALUED, IR10)[:-40], values_at(40), "found 0 of 0"),
    "value data too large": (
        edited(VALUED, (values_at(0), U32(1 << 30))),
        values_at(0),
        "within 80 bytes of up to 3 kinds, found 1073741824 of 1",
    ),
    "value data at an odd size": (
        edited(VALUED, (values_at(0), U32(41))),
        values_at(0),
        "found 41",
    ),
    "too many kinds": (edited(VALUED, (values_at(4), U32(4))), values_at(0), "found 40 of 4"),
    "unknown kind": (edited(VALUED, (values_at(8), U32(3))), values_at(0), "found 1 of kind 3"),
    "sites that do not fit": (
        edited(VALUED, (values_at(12), U32(1 << 31))),
        values_at(0),
        "within 40 bytes, found 2147483648 of kind 0",
    ),
    "values that do not fit": (edited(VALUED, (values_at(16), b"\2")), values_at(0), "found 1 of"),
    "garbage behind": (changed() + b"garbage!!", 304, "expected the end of the file, found 9"),
    "another profile misplaced": (changed() + b"\0\0" + changed(), 306, "at a multiple of 8"),
    "garbage between": (changed() + b"garbage!" + changed(), 304, "found 8 bytes of something"),
    "another of other version": (
        changed() + changed(Version=8),
        312,
        "expected 10 as before, found 8",
    ),
}
#: llvm-profdata takes these as they are.
DOUBTFUL: dict[str, tuple[bytes, int, str]] = {
    "no name": (
        synthetic.profile(TWO, IR10, names=names_blob(["f", "other"])),
        HEADER + RECORD,
        "expected a name for NameRef",
    ),
    "shared counters": (
        edited(TWO, (HEADER + RECORD + 16, U64(synthetic.APART + 8 - RECORD))),
        HEADER + RECORD,
        "another's among them",
    ),
    "kinds of values": (changed(ValueKindLast=7), 0, "expected 3 kinds of values, found 8"),
    "debug information": (changed(Version=IR10 | 1 << 59), 8, "debug information"),
    "unknown variant": (changed(Version=IR10 | 1 << 40), 8, "no such variant"),
    "records elsewhere": (
        synthetic.profile([], IR10, names=b"", change={"NumCounters": 1}) + bytes(8),
        0,
        "counters without records",
    ),
}


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


def test_many_problems_are_counted_not_listed(tmp_path: Path) -> None:
    functions = [Function(f"f{i}", i, [1]) for i in range(500)]
    data = bytearray(synthetic.profile(functions, IR10))
    for i in range(500):
        data[HEADER + i * RECORD + 48 : HEADER + i * RECORD + 52] = U32(0)
    path = tmp_path / "x.profraw"
    path.write_bytes(data)
    problems = profraw.read(path).problems
    assert len(problems) == 101 and "400 more" in problems[-1].what


# Bad input: problems or one LabError, in bounded time and memory, never anything else.

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
        for profile in raw.profiles:
            list(profile.value_rows())
        json.dumps(training.to_json(raw))
    except LabError:
        return "reject"
    if not data:
        return "skip"
    return "take" if all(isinstance(p, Doubt) for p in raw.problems) else "reject"


def test_a_profile_cut_off_anywhere_is_not_valid(maker: Maker, tmp_path: Path) -> None:
    path = tmp_path / "x.profraw"
    assert outcome(WHOLE, path) == "take" and profraw.read(path).valid
    for length in range(1, len(WHOLE)):
        assert outcome(WHOLE[:length], path) == "reject", length
        if length % 12 == 0:
            assert not maker.merge("19", path).ok, length


@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 7)), min_size=1, max_size=6),
    st.integers(0, len(WHOLE)),
)
@hypothesis_settings(max_examples=300)
def test_bits_that_flip_raise_nothing(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(WHOLE)
    for place, bit in flips:
        data[place] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "flipped.profraw"
    outcome(bytes(data), path)
    outcome(bytes(data[:cut]) + WHOLE, path)


@given(st.binary(max_size=400), st.sampled_from([*layout.LAYOUTS, 99]), st.booleans())
@hypothesis_settings(max_examples=200)
def test_anything_behind_a_magic_raises_nothing(
    tmp_path_factory: pytest.TempPathFactory, rest: bytes, version: int, swapped: bool
) -> None:
    magic = layout.MAGIC[64][:: 1 if swapped else -1]
    start = magic + struct.pack(">Q" if swapped else "<Q", version)
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
    assert read_content(path) == maker.content("19", path)


# What a merge does, with every llvm-profdata, and a folder as one training run.


def skipped(version: str, maker: Maker, folder: Path) -> list[tuple[str, training.State, bool]]:
    """Fill a folder; return for each of its files the state, and whether merge takes it alone."""
    good = maker.profile(version, "ir").read_bytes()
    other = {"17": "19", "18": "19", "19": "17", "22": "23", "23": "22"}[version]
    (folder / "sub").mkdir()
    for name, data in {
        "a.profraw": good,
        "b.empty": b"",
        "c.truncated": good[:-60],
        "d.magic": good[:5],
        "e.malformed": good + b"garbage!",
        "f.other": maker.profile(other, "ir").read_bytes(),
        "g.txt": b"hello, world",
        "sub/h": good,
    }.items():
        (folder / name).write_bytes(data)
    return [
        ("a.profraw", "ok", True),
        ("b.empty", "empty", True),
        ("c.truncated", "truncated", False),
        ("d.magic", "truncated", False),
        ("e.malformed", "malformed", False),
        ("f.other", "other-version", False),
        ("g.txt", "not-a-profile", False),
        ("sub/h", "ok", True),
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_each_file_of_a_run_has_its_state_and_merge_does_as_we_say(
    version: str, maker: Maker, tmp_path: Path
) -> None:
    expected = skipped(version, maker, tmp_path)
    run_ = training.read(tmp_path)
    states = [(str(f.path.relative_to(tmp_path)), f.state) for f in run_.files]
    order = sorted(expected, key=lambda item: (item[0].count("/"), item[0]))
    assert states == [(name, state) for name, state, _ in order]
    assert (run_.exit_code, run_.raw_version) == (1, maker.find(version).raw_version)
    assert run_.functions == profraw.read(tmp_path / "a.profraw").functions
    assert not maker.merge(version, tmp_path).ok  # a folder is all of its files
    good = tmp_path / "a.profraw"
    for name, _, taken in expected:
        done = maker.merge(version, tmp_path / name, good)
        assert done.ok == taken, done
        if taken:
            assert not done.stderr
        done = maker.merge(version, "--failure-mode=all", tmp_path / name, good)
        assert done.ok and ("warning" in done.stderr) == (not taken)
    done = maker.merge(version, tmp_path / "b.empty")
    assert done.ok and not done.stderr and not done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_functions_that_a_merge_drops_are_counted(
    version: str, maker: Maker, tmp_path: Path
) -> None:
    raw_version = maker.find(version).raw_version
    assert raw_version
    for name, functions in {
        "1.profraw": [Function("f", 1, [1, 2]), Function("g", 2, [3])],
        "2.profraw": [Function("f", 1, [1]), Function("g", 2, [4]), Function("g", 5, [6, 7])],
    }.items():
        (tmp_path / name).write_bytes(synthetic.profile(functions, raw_version | 1 << 56))
    found = training.read(tmp_path)
    assert (found.functions, found.counters, found.exit_code) == (3, 5, 1)
    [problem] = found.problems
    assert "2.profraw: 1 functions with other numbers of counters" in problem
    done = maker.merge(version, tmp_path)
    assert done.ok and "f: function basic block count change detected" in done.stderr
    merged = maker.content(version, tmp_path)
    assert {(n.decode(), h): counts for n, h, counts in found.rows()} == {
        key: counts for key, (counts, _, _) in merged.items()
    }
    assert merged["f", 1][0] == [1, 2] and merged["g", 2][0] == [7]


def test_a_mix_of_kinds_is_merged_silently_and_so_is_said(maker: Maker, tmp_path: Path) -> None:
    for kind in ("ir", "front-end"):
        (tmp_path / kind).write_bytes(maker.profile("19", kind).read_bytes())
    found = training.read(tmp_path)
    assert found.exit_code == 1 and "several variants (front-end; ir)" in found.problems[0]
    done = maker.merge("19", tmp_path)
    assert done.ok and not done.stderr


# The command line.


@pytest.fixture
def pgo_lab(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*argv: str | Path) -> tuple[int, str, str]:
        code = commands.main([*map(str, argv)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_profile_on_the_command_line(
    pgo_lab: Callable[..., tuple[int, str, str]], maker: Maker, tmp_path: Path
) -> None:
    path = maker.profile("19", "ir")
    code, out, err = pgo_lab("profraw", path, "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["valid"] is True and document["problems"] == []
    assert (document["raw_version"], document["functions"]) == (10, profraw.read(path).functions)
    code, out, _ = pgo_lab("profraw", path, "--csv")
    rows = list(csv.reader(io.StringIO(out)))
    expected = [
        [name.decode(), hex(number), " ".join(map(str, counts))]
        for name, number, counts in profraw.read(path).rows()
    ]
    assert rows == [["name", "hash", "counts"], *expected]
    code, out, _ = pgo_lab("profraw", path)
    assert code == 0 and "raw version: 10" in out and "\x1b" not in out
    (tmp_path / "empty").touch()
    code, out, _ = pgo_lab("profraw", tmp_path / "empty", "--json")
    assert code == 1 and "skips it silently" in json.loads(out)["problems"][0]["what"]
    code, out, err = pgo_lab("profraw", tmp_path / "none")
    assert (code, out) == (2, "") and err.startswith("pgo-lab: ") and err.count("\n") == 1


def test_a_folder_on_the_command_line(
    pgo_lab: Callable[..., tuple[int, str, str]], maker: Maker, tmp_path: Path
) -> None:
    assert pgo_lab("profraw", tmp_path)[0] == 2  # nothing in it
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(maker.profile("19", "ir").read_bytes())
    code, out, _ = pgo_lab("profraw", tmp_path, "--json")
    document = json.loads(out)
    assert (code, document["valid"], len(document["files"])) == (0, True, 2)
    assert {file["state"] for file in document["files"]} == {"ok"}
    (tmp_path / "c").touch()
    code, out, _ = pgo_lab("profraw", tmp_path)
    assert code == 1 and f"{tmp_path / 'c'}: byte 0: empty" in out
    (tmp_path / "d").symlink_to("nowhere")
    assert pgo_lab("profraw", tmp_path)[0] == 2


def test_tables_are_pandas(maker: Maker) -> None:
    raw = profraw.read(maker.profile("19", "ir"))
    table = raw.table().set_index("name")
    assert table.loc["main", "counts"] == next(c for n, _, c in raw.rows() if n == b"main")
    assert set(table["record_size"]) == {64}
    called = raw.value_table().query("kind == 'indirect-call-target'")
    assert set(called["target"]) == {"main.c;one", "main.c;two"} and called["count"].sum() == 10
