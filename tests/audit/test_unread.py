"""What was not read makes no verdict: cut files, tables past the end, names that are not usual."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbsupport.audit.judge import audit
from nbsupport.audit.objects import Disassemble
from nbsupport.base.errors import LabError
from nbsupport.cli.commands import main
from nbsupport.profile import layout
from tests.support.compiled import FOO, MAIN, Bench, mach_o, pair, pe

PLACES = 40


def elf_program(bench: Bench) -> Path:
    objects = [bench.object("19", MAIN), bench.object("17", FOO)]
    return bench.linked("19", "mixed-program", *objects)


def elf_object(bench: Bench) -> Path:
    objects = [bench.object("19", MAIN), bench.object("17", FOO)]
    bench.run("19", "ld.lld", "-r", *objects, "-o", "mixed-relinked.o")
    return bench.folder / "mixed-relinked.o"


def archive(bench: Bench) -> Path:
    objects = [bench.object("19", MAIN), bench.object("17", FOO)]
    bench.run("19", "llvm-ar", "rcs", "mixed-archive.a", *(path.name for path in objects))
    return bench.folder / "mixed-archive.a"


def bitcode(bench: Bench) -> Path:
    return bench.object("19", FOO, "-O1", "-fprofile-generate", "-emit-llvm")


#: Each is mixed, but for a COFF object and bitcode, which no tool here links to another such.
FORMATS: dict[str, Callable[[Bench], Path]] = {
    "ELF program": elf_program,
    "ELF object": elf_object,
    "archive": archive,
    "Mach-O library": lambda bench: mach_o(bench, *pair(bench, "x86_64-apple-macos11")),
    "Mach-O object": lambda bench: bench.object("19", FOO, triple="x86_64-apple-macos11"),
    "PE library": lambda bench: pe(bench, "mixed.dll", *pair(bench, "x86_64-pc-windows-msvc")),
    "COFF object": lambda bench: bench.object("19", FOO, triple="x86_64-pc-windows-msvc"),
    "COFF object of MinGW": lambda bench: bench.object("19", FOO, triple="x86_64-w64-windows-gnu"),
    "bitcode": bitcode,
}


def verdict(path: Path) -> str:
    try:
        return audit([path]).verdict
    except LabError:  # exit code 2, too
        return "error"


@pytest.mark.parametrize("form", FORMATS)
def test_a_cut_file_is_never_fine(bench: Bench, tmp_path: Path, form: str) -> None:
    whole = FORMATS[form](bench)
    data, path = whole.read_bytes(), tmp_path / whole.name
    lengths = [len(data) * n // PLACES for n in range(PLACES)]
    for length in (*lengths, len(data) * 99 // 100, len(data) - 1):
        path.write_bytes(data[:length])
        assert verdict(path) in ("mixed", "unknown", "error"), f"{length} of {len(data)}"


def test_what_is_whole_still_has_its_verdict(bench: Bench) -> None:
    for form in ("ELF program", "ELF object", "archive", "Mach-O library", "PE library"):
        assert verdict(FORMATS[form](bench)) == "mixed"
    for form in ("Mach-O object", "COFF object", "COFF object of MinGW"):
        assert verdict(FORMATS[form](bench)) == "consistent"


def test_an_archive_that_ends_between_two_members_is_not_whole(
    bench: Bench, tmp_path: Path
) -> None:
    """Its index names a member that is not there."""
    whole = archive(bench)
    data = whole.read_bytes()
    end = data.rindex(b"`\n\x7fELF") - 58
    (tmp_path / "cut.a").write_bytes(data[:end])
    report = audit([tmp_path / "cut.a"])
    assert report.verdict == "unknown"
    assert "archive: its index names a member beyond its end" in report.judgement.why


@pytest.fixture
def folder(bench: Bench, tmp_path: Path) -> Path:
    """A folder with an object, and half of another one."""
    shutil.copy(bench.object("19", MAIN), tmp_path / "whole.o")
    data = bench.object("19", FOO).read_bytes()
    (tmp_path / "cut.o").write_bytes(data[: len(data) // 2])
    return tmp_path


def test_an_object_that_is_not_read_counts_unless_an_image_was(bench: Bench, folder: Path) -> None:
    report = audit([folder])
    assert report.verdict == "unknown"
    assert f"{folder / 'cut.o'}: cut off: its table of sections" in report.judgement.why
    image = bench.linked("19", "whole-image", bench.object("19", FOO), bench.object("19", MAIN))
    shutil.copy(image, folder / "image")
    report = audit([folder])
    assert report.verdict == "consistent"
    (cut,) = (file for file in report.files if file.path.name == "cut.o")
    assert "cut off" in cut.problems[0] and cut.judgement.verdict == "unknown"
    (folder / "cut.a").write_bytes(archive(bench).read_bytes()[:200])
    report = audit([folder])
    assert report.verdict == "consistent"
    (cut,) = (file for file in report.files if file.path.name == "cut.a")
    assert cut.judgement.verdict == "unknown"
    # Who names a file wants to know of it.
    assert audit([folder / "image", folder / "cut.o"]).verdict == "unknown"
    assert audit([folder / "image", folder / "absent"]).verdict == "unknown"
    # A mix that was seen is one, whatever else there is; and an image that was not read counts.
    shutil.copy(elf_program(bench), folder / "mix")
    assert audit([folder]).verdict == "mixed"
    (folder / "mix").write_bytes(elf_program(bench).read_bytes()[:2000])
    assert audit([folder]).verdict == "unknown"


def test_files_that_may_not_be_read_are_listed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cut.o").rename(folder / "secret.o")
    (folder / "deep").mkdir()
    opened, listed = os.open, Path.iterdir

    def refuse(path: Any, *rest: Any, **more: Any) -> int:  # who runs the tests may read all
        if Path(path).name == "secret.o":
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *rest, **more)

    def closed(path: Path) -> Any:
        if path.name == "deep":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "iterdir", closed)
    assert main(["audit", str(folder)]) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith(f"unknown: {folder}")
    for name in ("secret.o", "deep"):
        assert f"pgo-lab: {folder / name}: Permission denied" in shown.err.splitlines()
    (folder / "whole.o").unlink()
    assert audit([folder]).verdict == "unknown"


def test_a_member_that_is_not_there_makes_no_verdict(bench: Bench, tmp_path: Path) -> None:
    for name, content in (("a.o", MAIN), ("b.o", FOO)):
        shutil.copy(bench.object("19", content), tmp_path / name)
    bench.run(
        "19", "llvm-ar", "--thin", "rcs", tmp_path / "thin.a", tmp_path / "a.o", tmp_path / "b.o"
    )
    assert verdict(tmp_path / "thin.a") == "consistent"
    (tmp_path / "b.o").unlink()
    report = audit([tmp_path / "thin.a"])
    assert report.verdict == "unknown"
    assert "b.o: No such file or directory" in report.judgement.why


def test_a_section_of_records_by_another_name_is_unknown(bench: Bench, tmp_path: Path) -> None:
    for name, whole in (("program", elf_program(bench)), ("x.o", bench.object("19", FOO))):
        path = tmp_path / name
        renamed = ["--rename-section", "__llvm_prf_data=.records"]
        bench.run("19", "llvm-objcopy", *renamed, whole, path)
        assert verdict(path) == "unknown"
        for other in ("cnts", "names"):
            renamed += ["--rename-section", f"__llvm_prf_{other}=.{other}"]
        bench.run("19", "llvm-objcopy", *renamed, whole, path)
        report = audit([path])
        assert report.verdict == "unknown"
        assert "no section of records by its usual name" in report.judgement.why


def test_records_that_are_none_we_know_are_unknown(bench: Bench, tmp_path: Path) -> None:
    """A name that is not there, and counters elsewhere: then nothing says that it is a record."""
    path = tmp_path / "x.o"
    data = bytearray(bench.object("19", FOO, "-fprofile-instr-generate").read_bytes())
    place = data.index(struct.pack("<Q", 0x5CF8C24CDB18BDAC))  # md5 of "foo", its low 64 bits
    data[place] ^= 1
    path.write_bytes(data)
    report = audit([path])
    assert report.verdict == "unknown"
    assert "bytes of its section of records are no record that we know" in report.judgement.why


#: Where a word of an ELF header or section is, and what is put there.
PAST = {
    "its table of sections": (0x28, "<Q", 1 << 40),  # e_shoff
    "more sections than there are": (0x3C, "<H", 0xFEFF),  # e_shnum
    "names of its sections": (0x3E, "<H", 0xFEFE),  # e_shstrndx
}


@pytest.mark.parametrize("what", PAST)
def test_tables_past_the_end_are_unknown(bench: Bench, tmp_path: Path, what: str) -> None:
    place, form, value = PAST[what]
    for whole in (elf_program(bench), bench.object("19", FOO)):
        data = bytearray(whole.read_bytes())
        struct.pack_into(form, data, place, value)
        (tmp_path / whole.name).write_bytes(data)
        assert verdict(tmp_path / whole.name) == "unknown"


def test_without_names_of_sections_nothing_is_known(bench: Bench, tmp_path: Path) -> None:
    """Stripped, and of the front end: there is no symbol that says that it is instrumented."""
    flags = ("-O1", "-fprofile-instr-generate")
    image = bench.linked(
        "19", "front-end", *(bench.object("19", text, *flags) for text in (FOO, MAIN))
    )
    bench.run("19", "llvm-strip", image, "-o", tmp_path / "stripped")
    assert verdict(tmp_path / "stripped") == "consistent"
    data = bytearray((tmp_path / "stripped").read_bytes())
    struct.pack_into("<H", data, 0x3E, 1)  # e_shstrndx: a section that holds no such names
    (tmp_path / "stripped").write_bytes(data)
    report = audit([tmp_path / "stripped"])
    assert report.verdict == "unknown"
    assert report.judgement.why.endswith("names of its sections are not in the file")


def test_bitcode_of_the_front_end_does_not_say_its_version(
    bench: Bench, disassemble: Disassemble
) -> None:
    path = bench.object("19", FOO, "-O1", "-fprofile-instr-generate", "-emit-llvm")
    report = audit([path], disassemble)
    assert report.verdict == "unknown"
    assert report.judgement.why.endswith("its records are not to be found")
    path = bench.object("19", FOO, "-O1", "-fprofile-generate", "-emit-llvm")
    assert audit([path], disassemble).verdict == "consistent"


def test_a_section_past_the_end_is_unknown(bench: Bench, tmp_path: Path) -> None:
    for whole in (elf_program(bench), bench.object("19", FOO)):
        data = whole.read_bytes()
        table, count = (
            struct.unpack_from("<Q", data, 0x28)[0],
            struct.unpack_from("<H", data, 0x3C)[0],
        )
        for index in range(1, count):
            at = table + 64 * index
            kind, size = (
                struct.unpack_from("<I", data, at + 4)[0],
                struct.unpack_from("<Q", data, at + 32)[0],
            )
            if kind == 8 or not size:  # SHT_NOBITS
                continue
            moved = bytearray(data)
            struct.pack_into(
                "<Q", moved, at + 24, len(data) - size + 1
            )  # sh_offset: a byte too far
            (tmp_path / "moved").write_bytes(moved)
            assert verdict(tmp_path / "moved") in ("unknown", "mixed"), index


def test_an_old_raw_version_is_not_known(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary program of LLVM 10: records of 48 bytes, and a version of which we have no table.

    Made by hand, for no compiler that old can be had: 2 counters, no value sites.
    """
    for version in range(5):
        monkeypatch.delitem(layout.LAYOUTS, version, raising=False)
    (tmp_path / "old.s").write_text(OLD)
    for flags in (["-shared"], ["-shared", "-s"]):
        clang = bench.tool("19", "clang")
        bench.run("19", str(clang), "-fuse-ld=lld", "-nostdlib", *flags, tmp_path / "old.s", "-o",
                  tmp_path / "old.so")  # fmt: skip
        assert verdict(tmp_path / "old.so") != "mixed"
    bench.run("19", "clang", "-fuse-ld=lld", "-nostdlib", "-shared", tmp_path / "old.s", "-o",
              tmp_path / "old.so")  # fmt: skip
    report = audit([tmp_path / "old.so"])
    assert (report.verdict, report.files[0].raw_versions) == ("unknown", {4})
    assert "how raw version 4 (" in report.judgement.why


#: A counter's section, one record of raw version 4 (CounterPtr is absolute), a name, a version.
OLD = """
  .section __llvm_prf_cnts,"aw",@progbits
  .p2align 3
counters: .zero 16
  .section __llvm_prf_data,"aw",@progbits
  .p2align 3
  .quad 0xcc914f75dd4ca18f, 24  # NameRef: md5 of "f"; FuncHash
  .quad counters, 0, 0          # CounterPtr, FunctionPointer, Values
  .long 2                       # NumCounters
  .short 0, 0                   # NumValueSites
  .section __llvm_prf_names,"a",@progbits
  .byte 1, 0                    # one byte, not compressed
  .ascii "f"
  .globl __llvm_profile_raw_version
  .hidden __llvm_profile_raw_version
  .section .rodata,"a",@progbits
  .p2align 3
__llvm_profile_raw_version: .quad 4
  .text
  .globl f
f: ret
"""
