"""What is read of an ELF image, against llvm-nm, and of what is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.crash.elf import Elf
from nbsupport.toolchains.probe import Toolchain

NAMES = ("main", "__llvm_profile_write_file", "__llvm_profile_raw_version", "library_step")


@pytest.fixture
def stripped(mixed_crash: Path, toolchain: Callable[[str], Toolchain], tmp_path: Path) -> Path:
    tool = toolchain("19").compiler.with_name("llvm-strip")
    subprocess.run([tool, "--strip-all", mixed_crash, "-o", tmp_path / "stripped"], check=True)
    return tmp_path / "stripped"


def test_symbols_are_where_llvm_nm_says(
    mixed_crash: Path, stripped: Path, toolchain: Callable[[str], Toolchain]
) -> None:
    tool = toolchain("19").compiler.with_name("llvm-nm")
    text = subprocess.run([tool, mixed_crash], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in text.splitlines())
    symbols = {row[2]: int(row[0], 16) for row in rows if len(row) == 3}
    image = Elf(mixed_crash)
    assert image.addresses((*NAMES, "nowhere")) == {
        **{name: symbols[name] for name in NAMES},
        "nowhere": 0,
    }
    assert image.function(symbols["main"] + 1) == "main" and image.function(1) == ""
    # Without symbols, the unwind table tells where a function begins.
    bare = Elf(stripped)
    assert set(bare.addresses(NAMES).values()) == {0} and bare.function(symbols["main"]) == ""
    for name in ("main", "library_step", "__llvm_profile_write_file"):
        assert bare.start(symbols[name] + 3) == image.start(symbols[name]) == symbols[name]
    assert bare.start(1) == 0


def test_only_what_has_records_is_instrumented(mixed_crash: Path, stripped: Path) -> None:
    assert Elf(mixed_crash).instrumented and Elf(stripped).instrumented
    assert not Elf(Path(sys.executable).resolve()).instrumented


@pytest.mark.parametrize(
    ("place", "content"),
    [
        (0, b"\x7fELG"),
        (4, b"\1"),  # EI_CLASS: 32 bits
        (5, b"\2"),  # EI_DATA: the other order of bytes
        (18, b"\0\0"),  # e_machine: none
    ],
)
def test_what_is_no_image_of_this_machine(
    mixed_crash: Path, tmp_path: Path, place: int, content: bytes
) -> None:
    data = bytearray(mixed_crash.read_bytes())
    data[place : place + len(content)] = content
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match=r"no 64-bit ELF|another machine"):
        Elf(tmp_path / "x")
    with pytest.raises(ValueError, match="no file"):
        Elf(tmp_path)


def test_what_is_cut_or_lies_is_read_as_far_as_it_goes(mixed_crash: Path, tmp_path: Path) -> None:
    """A training replaces its programs; a header may say anything."""
    whole, path = mixed_crash.read_bytes(), tmp_path / "x"
    variants = [whole[: len(whole) * n // 40] for n in range(1, 40)]
    for place in (32, 40, 56, 60, 62):  # e_phoff, e_shoff, e_phnum, e_shnum, e_shstrndx
        lie = bytearray(whole)
        lie[place : place + 2] = b"\xff\xff"
        variants.append(bytes(lie))
    table = int.from_bytes(whole[40:48], "little")
    for place in range(table, len(whole) - 64, 64):  # sh_size of each section
        variants.append(whole[: place + 32] + b"\xff" * 7 + whole[place + 39 :])
    for content in variants:
        path.write_bytes(content)
        image = Elf(path)
        assert image.addresses(NAMES).keys() == set(NAMES)
        assert isinstance(image.function(image.base + 5000) + str(image.start(5000)), str)
