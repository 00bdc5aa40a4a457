"""Malformed raw profiles: each way, the smallest bytes that show it, where these are, what is said."""

from __future__ import annotations

import struct

from tests.support import synthetic
from tests.support.synthetic import Function, names_blob

TWO_PLAIN = [Function("f", 1, [5, 6]), Function("g", 2, [7])]
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
    "newer version": (changed(Version=99), 8, "expected 4 to 11, found 99 (an LLVM newer"),
    "older version": (changed(Version=3), 8, "found 3 (an old LLVM)"),
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
        "expected counts up to 2^56, found a larger one in f",
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
    "kinds of values": (changed(ValueKindLast=7), 0, "expected up to 3 kinds of values, found 8"),
    "debug information": (changed(Version=IR10 | 1 << 59), 8, "debug information"),
    "unknown variant": (changed(Version=IR10 | 1 << 40), 8, "no such variant"),
    "records elsewhere": (
        synthetic.profile([], IR10, names=b"", change={"NumCounters": 1}) + bytes(8),
        0,
        "counters without records",
    ),
}
