"""What code says of the runtime in an image, on code written by hand."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from nbsupport.audit import machine_code
from nbsupport.audit.image import Image
from nbsupport.audit.judge import audit
from tests.support.compiled import (
    FOO,
    LLVMS,
    MAIN,
    Bench,
    only,
    raw,
)


def arm(
    compared: int, passed: int, *more: int, pages: int = 2, low: int = 0x10
) -> tuple[Image, bytes]:
    """Return an image whose code, at 0x5000, uses an address, as AArch64 does, so many pages on.

    The message is at 0x7010, or before the code, at 0x3010.
    """
    code = [
        0xF100001F | compared << 10,  # cmp x0, #compared
        0x90000002 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5,  # adrp x2, pages
        0xAA0003E4,  # mov x4, x0
        0x91000042 | low << 10,  # add x2, x2, #low
        0x52800021,  # mov w1, #1
        0x52800003 | passed << 5,  # mov w3, #passed
        *more,
    ]
    data = (
        struct.pack(f"<{len(code)}I", *code).ljust(0x2010, b"\0") + machine_code._MISMATCH + b"\0"
    )
    image = Image("elf", "executable", "aarch64-linux", 64, "<")
    text = 0x7000 if pages > 0 else 0x3000
    image.loaded = [(0x5000, 0, 4 * len(code), True), (text, 0x2000, len(data) - 0x2000, False)]
    return image, data


@pytest.mark.parametrize(
    ("compared", "passed", "more", "expected"),
    [
        (10, 10, (), 10),
        (10, 11, (), None),  # two that differ: not what we know
        (10, 3, (), None),
        (1, 1, (), None),  # fprintf's flag, no version
        (10, 10, (0x7100003F | 11 << 10, 0x52800003 | 11 << 5), None),  # two candidates
    ],
)
def test_an_aarch64_runtime_is_named_only_when_certain(
    compared: int, passed: int, more: tuple[int, ...], expected: int | None
) -> None:
    assert machine_code.raw_version(*arm(compared, passed, *more)) == expected
    assert machine_code.raw_version(*arm(compared, passed, *more, pages=-2)) == expected
    assert machine_code.raw_version(*arm(compared, passed, *more, pages=3)) is None
    assert machine_code.raw_version(*arm(compared, passed, *more, low=0x20)) is None


@pytest.mark.parametrize("distance", [0x2000, -0x2000])
def test_an_address_may_be_one_short_instruction(distance: int) -> None:
    """What a linker for macOS makes of adrp and add: adr, and nothing."""
    image, data = arm(10, 10, pages=2 if distance > 0 else -2)
    at = 0x7010 if distance > 0 else 0x3010
    offset = at - 0x5004
    words = list(struct.unpack("<6I", data[:24]))
    words[1] = 0x10000002 | (offset & 3) << 29 | (offset >> 2 & 0x7FFFF) << 5
    words[3] = 0xD503201F  # nop
    assert machine_code.raw_version(image, struct.pack("<6I", *words) + data[24:]) == 10


@pytest.mark.parametrize(
    ("others", "distance", "found"),
    [(0, 0, True), (4, 0, True), (20, 0, False), (0, 80, False)],
    ids=["alone", "few", "mostly-without-a-record", "far"],
)
def test_value_sites_are_told_from_chance(others: int, distance: int, found: bool) -> None:
    """lea rsi, record; call: once; and calls without, or too far away to be about it."""
    base, records, target = 0x1000, 0x9000, 0x1000 + 600
    code = b"\x48\x8d\x35" + (records - base - 7).to_bytes(4, "little") + b"\x90" * distance
    for _ in range(1 + others):
        code += b"\xe8" + (target - base - len(code) - 5).to_bytes(4, "little", signed=True)
        code += b"\x90" * 8
    data = code.ljust(700, b"\x90")
    image = Image("elf", "executable", "x86_64-linux", 64, "<")
    image.places["data"] = [(records, 0, 64)]
    image.loaded = [(base, 0, len(data), True)]
    assert machine_code.value_functions(image, data) == ([target] if found else [])


def test_value_sites_are_found_in_code_of_aarch64() -> None:
    """adrp x1, add x1, ...; bl: of two functions, the one that records are passed to."""
    base, records = 0x10000, 0x20010
    words = [0xD503201F] * 64

    def call(at: int, register: int, target: int) -> None:
        page = (records >> 12) - (base + 4 * at >> 12)
        words[at] = 0x90000000 | (page & 3) << 29 | page >> 2 << 5 | register
        words[at + 1] = 0x91000000 | (records & 0xFFF) << 10 | register << 5 | register
        words[at + 2] = 0x94000000 | (target - at - 2) & 0x3FFFFFF

    call(0, 1, 40)
    call(8, 1, 40)
    call(16, 2, 50)  # a third argument is none of ours
    data = np.array(words, "<u4").tobytes()
    image = Image("elf", "executable", "aarch64-linux", 64, "<")
    image.places["data"] = [(records, 0, 64)]
    image.loaded = [(base, 0, len(data), True)]
    assert machine_code.value_functions(image, data) == [base + 160]


@pytest.mark.parametrize("lld", [True, False], ids=["lld", "bfd"])
@pytest.mark.parametrize("llvm", LLVMS)
def test_the_runtimes_version_is_read_from_its_code(bench: Bench, llvm: str, lld: bool) -> None:
    other = "17" if llvm != "17" else "19"
    image = bench.linked(llvm, f"runtime-{llvm}-{lld}", bench.object(other, FOO + MAIN), lld=lld)
    bench.run(llvm, "llvm-strip", image, "-o", f"{image.name}-s")
    for path in (image, bench.folder / f"{image.name}-s"):
        part = only(path)
        assert part.runtime_raw_version == raw(bench, llvm)


def test_a_kernels_addresses_are_read_too() -> None:
    """They are in the upper half, which is negative to whoever adds them up with a sign."""
    image, data = arm(10, 10)
    high = 0xFFFFFFFF80000000
    image.loaded = [(high + base, start, size, code) for base, start, size, code in image.loaded]
    assert machine_code.raw_version(image, data) == 10


def test_a_program_at_a_kernels_addresses_has_its_verdict(bench: Bench) -> None:
    flags = ("-O1", "-fprofile-generate", "-mcmodel=kernel", "-fno-pic")
    for major, verdict in (("17", "mixed"), ("19", "consistent")):
        objects = [bench.object("19", MAIN, *flags), bench.object(major, FOO, *flags)]
        bench.run("19", "ld.lld", "--image-base=0xffffffff80000000", "--noinhibit-exec", *objects,
                  "-o", f"kernel-{major}")  # fmt: skip
        assert audit([bench.folder / f"kernel-{major}"]).verdict == verdict
