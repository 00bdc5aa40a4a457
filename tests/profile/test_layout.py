"""The one table of layouts agrees with the header of every LLVM that is installed here."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base.errors import LabError, MissingError
from nbsupport.profile import layout
from nbsupport.profile.layout import LAYOUTS, VARIANTS, Bits, Field, changes
from nbsupport.toolchains import discovery, headers, probe
from nbsupport.toolchains.probe import Toolchain

#: What VARIANTS calls the masks.
MASKS = {
    "VARIANT_MASK_INSTR_LOOP_ENTRIES": "loop-entries",
    "VARIANT_MASK_IR_PROF": "ir",
    "VARIANT_MASK_CSIR_PROF": "context-sensitive",
    "VARIANT_MASK_INSTR_ENTRY": "entry-first",
    "VARIANT_MASK_DBG_CORRELATE": "debug-correlate",
    "VARIANT_MASK_BYTE_COVERAGE": "byte-coverage",
    "VARIANT_MASK_FUNCTION_ENTRY_ONLY": "entry-only",
    "VARIANT_MASK_MEMPROF": "memory-profile",
    "VARIANT_MASK_TEMPORAL_PROF": "temporal",
}


def header_of(toolchain: Toolchain) -> Path | None:
    resources = Path(probe.ask([toolchain.compiler, "-print-resource-dir"]).strip())
    found = resources / "include" / "profile" / "InstrProfData.inc"
    return found if found.is_file() else None


CLANGS = [t for t in discovery.discover() if t.kind == "clang" and header_of(t)]


def test_every_released_layout_that_installs_is_checked_below() -> None:
    """Raw versions 5 to 7 are of LLVMs that no longer install: from their public sources."""
    assert {8, 9, 10, 11} <= {t.raw_version for t in CLANGS}


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("toolchain", CLANGS, ids=lambda t: t.name)
def test_table_and_header_agree(toolchain: Toolchain, bits: Bits) -> None:
    found = headers.read(toolchain, bits)
    assert found.raw_version == toolchain.raw_version  # what the compiler emits
    known = LAYOUTS[found.raw_version]
    assert headers.differences(toolchain) == ()
    assert found.record == known.record
    assert found.header == known.header
    assert found.relative == known.relative
    assert known.llvm
    assert int(toolchain.major) in range(known.llvm[0], known.llvm[1] + 1)


def constants(toolchain: Toolchain, folder: Path) -> dict[str, int]:
    """Return what the header names, as unsigned numbers: INSTR_PROF_RAW_*, masks, value kinds."""
    header = header_of(toolchain)
    assert header
    macros = r"^#define (VARIANT_MASK_\w+|INSTR_PROF_RAW_(?:MAGIC_\d+|VERSION)) "
    names = [*re.findall(macros, header.read_text(), re.M), "IPVK_Last"]
    lines = ["#include <stdint.h>", f'#include "{header}"', "enum {"]
    lines += ["#define VALUE_PROF_KIND(name, value, text) name = value,"]
    lines += [f'#include "{header}"', "};", *(f"const uint64_t {n}_ = {n};" for n in names)]
    source = folder / "constants.c"
    source.write_text("\n".join(lines))
    text = probe.ask([toolchain.compiler, "-S", "-emit-llvm", "-w", source, "-o", "-"])
    pairs = re.findall(r"@(\w+)_ = .* i64 (-?\d+)", text)
    return {name: int(value) % (1 << 64) for name, value in pairs}


@pytest.mark.parametrize("toolchain", CLANGS, ids=lambda t: t.name)
def test_variants_magic_and_value_kinds_are_the_headers(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    said = constants(toolchain, tmp_path)
    masks = {name: value for name, value in said.items() if name.startswith("VARIANT_MASK_")}
    assert masks == {name: 1 << VARIANTS[MASKS[name]] for name in masks}
    assert said["INSTR_PROF_RAW_MAGIC_64"].to_bytes(8) == layout.MAGIC[64]
    assert said["INSTR_PROF_RAW_MAGIC_32"].to_bytes(8) == layout.MAGIC[32]
    assert said["IPVK_Last"] + 1 == LAYOUTS[said["INSTR_PROF_RAW_VERSION"]].value_kinds


def test_the_newest_header_has_every_variant(tmp_path: Path) -> None:
    assert {MASKS[n] for n in constants(CLANGS[-1], tmp_path) if n in MASKS} == VARIANTS.keys()


@pytest.fixture
def altered(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies the newest header with some of its text replaced."""

    def copy(*changes: tuple[str, str]) -> Path:
        header = header_of(CLANGS[-1])
        assert header
        text = header.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        target = tmp_path / "a folder" / "InstrProfData.inc"
        target.parent.mkdir()
        target.write_text(text)
        return target

    return copy


def test_an_llvm_that_nobody_knows_is_read_all_the_same(altered: Callable[..., Path]) -> None:
    newer = altered(
        ("INSTR_PROF_RAW_VERSION 11", "INSTR_PROF_RAW_VERSION 12"),
        (
            "INSTR_PROF_DATA(const uint32_t, llvm::Type::getInt32Ty(Ctx), NumCounters,",
            "INSTR_PROF_DATA(const IntPtrT, Ty, Later, x)\n"
            "INSTR_PROF_DATA(const uint8_t, Ty, Bytes[3], x)\n"
            "INSTR_PROF_DATA(const uint32_t, llvm::Type::getInt32Ty(Ctx), NumCounters,",
        ),
        ("INSTR_PROF_RAW_HEADER(uint64_t, NumData,", "INSTR_PROF_RAW_HEADER(uint64_t, New, x)\nINSTR_PROF_RAW_HEADER(uint64_t, NumData,"),
    )  # fmt: skip
    found = headers.read(CLANGS[-1], 64, newer)
    before = LAYOUTS[11]
    values = [field.name for field in before.record].index("Values")
    added = (Field("Later", 0), Field("Bytes", 1, 3))
    assert found.raw_version == 12
    assert found.record == (*before.record[: values + 1], *added, *before.record[values + 1 :])
    assert found.header == (*before.header[:3], "New", *before.header[3:])
    assert (found.offsets()["Later"], found.offsets()["NumCounters"]) == (56, 68)
    assert found.record_size() == 88


def test_differences_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = CLANGS[-1]
    assert newest.raw_version
    other = dataclasses.replace(LAYOUTS[newest.raw_version], header=(), relative=False)
    monkeypatch.setitem(LAYOUTS, newest.raw_version, other)
    parts = ["header (32 bits)", "relative (32 bits)", "header (64 bits)", "relative (64 bits)"]
    assert sorted(headers.differences(newest)) == sorted(parts)
    monkeypatch.delitem(LAYOUTS, newest.raw_version)
    assert headers.differences(newest) == (f"raw version {newest.raw_version} is not known",)


def test_other_rules_of_layout_are_an_error_not_a_guess(altered: Callable[..., Path]) -> None:
    wider = altered(("INSTR_PROF_DATA_ALIGNMENT 8", "INSTR_PROF_DATA_ALIGNMENT 32"))
    with pytest.raises(LabError, match="raw version 11 is laid out by rules that are new"):
        headers.read(CLANGS[-1], 64, wider)


def test_absolute_counter_pointers_are_told_by_the_initializer(
    altered: Callable[..., Path],
) -> None:
    older = altered(("CounterPtr, RelativeCounterPtr)", "CounterPtr, Bitcast)"))
    assert not headers.read(CLANGS[-1], 64, older).relative


@pytest.mark.parametrize("text", ["", "#error no", "int x;\n#include <stdio.h>"])
def test_what_is_no_such_header_says_so(text: str, tmp_path: Path) -> None:
    other = tmp_path / "InstrProfData.inc"
    other.write_text(text)
    with pytest.raises(LabError, match="give the InstrProfData.inc of an LLVM"):
        headers.read(CLANGS[-1], 64, other)
    with pytest.raises(LabError, match="No such file"):
        headers.read(CLANGS[-1], 64, tmp_path / "nowhere.inc")


def test_gcc_has_no_header_to_install() -> None:
    gcc = Toolchain("gcc", "gcc", "12.2.0", None, "system", Path("/"), Path("/usr/bin/gcc"))
    with pytest.raises(LabError, match="gcc: has no records of LLVM's; choose a clang"):
        headers.read(gcc)


def test_a_clang_without_the_header_says_what_to_install(tmp_path: Path) -> None:
    bare = tmp_path / "clang"
    bare.write_text("#!/bin/sh\necho /no/such/folder\n")
    bare.chmod(0o755)
    clang = Toolchain("12@debian", "clang", "12.2.0", 5, "debian", tmp_path, bare)
    with pytest.raises(MissingError, match="install libclang-rt-12-dev"):
        headers.read(clang)


def test_record_and_header_sizes() -> None:
    sizes = {v: (it.record_size(), it.record_size(32), it.header_size) for v, it in LAYOUTS.items()}
    assert sizes == {
        4: (48, 40, 64),
        5: (48, 40, 80),
        6: (48, 40, 88),
        7: (48, 40, 88),
        8: (48, 40, 88),
        9: (64, 48, 112),
        10: (64, 48, 128),
        11: (72, 56, 152),
    }
    assert layout.sizes() == {48: (4, 5, 6, 7, 8), 64: (9, 10), 72: (11,)}


@pytest.mark.parametrize("order", ["<", ">"])
def test_numpy_reads_a_record_where_the_offsets_say(order: layout.Order) -> None:
    import numpy as np

    data = bytes(range(72))
    record = np.frombuffer(data, LAYOUTS[11].record_dtype(64, order), 1)[0]
    ends = {"<": "little", ">": "big"}
    for field in LAYOUTS[11].record:
        start = LAYOUTS[11].offsets()[field.name]
        size = field.size or 8
        words = [data[at : at + size] for at in range(start, start + size * field.count, size)]
        expected = [int.from_bytes(word, ends[order]) for word in words]  # type: ignore[arg-type]
        assert list(np.atleast_1d(record[field.name])) == expected


def test_rows_are_the_bytes_themselves_record_by_record_or_at_each_place() -> None:
    data = bytes(range(200))
    rows = LAYOUTS[10].rows(data)
    assert (len(rows), rows["NumCounters"].tolist()) == (3, [0x33323130, 0x73727170, 0xB3B2B1B0])
    places = LAYOUTS[10].rows(memoryview(data), step=layout.ALIGNMENT)
    assert len(places) == (200 - 64) // 8 + 1
    assert places[[1, 17]]["NameRef"].tolist() == [0x0F0E0D0C0B0A0908, 0x8F8E8D8C8B8A8988]
    assert not rows.flags.owndata and not places.flags.owndata
    assert len(LAYOUTS[10].rows(bytes(63))) == len(LAYOUTS[10].rows(b"", step=8)) == 0
    assert LAYOUTS[8].rows(data, 32, ">")["FuncHash"].tolist()[1] == 0x3031323334353637


def test_a_version_symbol_is_split_into_version_and_variants() -> None:
    assert layout.split(0x0100000000000008) == (8, ("ir",))
    assert layout.split(10 | 1 << 56 | 1 << 60 | 1 << 61) == (10, ("ir", "byte-coverage", "entry-only"))  # fmt: skip


def test_strides_and_names_of_versions() -> None:
    alike = {(a, b) for a in LAYOUTS for b in LAYOUTS if a < b and layout.same_stride(a, b)}
    assert alike == {*itertools.combinations((4, 5, 6, 7, 8), 2), (9, 10)}
    assert layout.same_stride(12, 12)
    assert not layout.same_stride(11, 12)
    # It is not asked how many bits a program has: the groups are the same.
    assert list(layout.sizes(32).values()) == list(layout.sizes(64).values())
    assert [layout.llvm_of(v) for v in (3, 6, 9, 10, 12)] == [
        "an old LLVM",
        "no released LLVM",
        "LLVM 18",
        "LLVM 19 to 22",
        "an LLVM newer than this tool knows",
    ]


def test_since_version_8_counters_are_relative_to_the_record() -> None:
    assert [v for v, known in LAYOUTS.items() if known.relative] == [8, 9, 10, 11]


def test_what_changed_is_said_in_words() -> None:
    record = [str(c) for c in changes(LAYOUTS[9], LAYOUTS[10]) if c.part == "record"]
    assert record == ["NumValueSites has 6 bytes, not 4", "NumBitmapBytes moves from 56 to 60"]
    newest = [str(c) for c in changes(LAYOUTS[10], LAYOUTS[11])]
    assert newest[:2] == ["UniformCounterPtr is new", "BitmapPtr moves from 24 to 32"]
    assert "UniformCounterPtr is gone" in [str(c) for c in changes(LAYOUTS[11], LAYOUTS[10])]
