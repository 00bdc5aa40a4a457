"""Objects and images of real compilers and linkers: ELF, Mach-O, COFF, PE."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nbsupport.audit.judge import audit
from nbsupport.profile import infer, layout
from tests.support.compiled import (
    FOO,
    LLVMS,
    MAIN,
    TRIPLES,
    Bench,
    mach_o,
    only,
    pair,
    pe,
    raw,
    runs,
    texts,
)


@pytest.mark.parametrize("triple", TRIPLES)
@pytest.mark.parametrize("llvm", LLVMS)
def test_an_object_says_its_format_version_records_and_names(
    bench: Bench, llvm: str, triple: str
) -> None:
    part = only(bench.object(llvm, FOO, "-O0", "-fprofile-generate", triple=triple))
    version = raw(bench, llvm)
    assert (part.format, part.target, part.bits, part.order) == (*TRIPLES[triple], "<")
    assert (part.kind, part.instrumented, part.runtime_raw_version) == ("object", True, None)
    assert part.raw_version is not None
    assert layout.split(part.raw_version) == (version, ("ir",))
    assert runs(part) == [(layout.LAYOUTS[version].record_size(part.bits), 2)]
    assert b"foo" in texts(part)
    assert all(section.counters is None for section in part.sections)


@pytest.mark.parametrize("llvm", LLVMS)
def test_a_front_end_object_has_records_but_no_version(bench: Bench, llvm: str) -> None:
    part = only(bench.object(llvm, FOO, "-fprofile-instr-generate"))
    assert part.raw_version is None
    assert part.instrumented
    assert runs(part) == [(layout.LAYOUTS[raw(bench, llvm)].record_size(), 2)]


def test_a_plain_object_is_not_instrumented(bench: Bench) -> None:
    part = only(bench.object("19", FOO, "-O1"))
    assert (part.instrumented, part.sections, part.raw_version, part.note) == (False, (), None, "")


def test_an_object_without_functions_may_still_bring_the_version(bench: Bench) -> None:
    part = only(bench.object("19", "int x;", "-fprofile-generate"))
    assert (part.instrumented, part.raw_version) == (False, 1 << 56 | 10)
    assert part.runtime_raw_version is None


@pytest.mark.parametrize(
    "triple", ["x86_64-linux-gnu", "x86_64-apple-macos11", "x86_64-pc-windows-msvc"]
)
def test_an_object_that_only_calls_the_runtime_does_not_carry_it(bench: Bench, triple: str) -> None:
    calls = (
        "int __llvm_profile_write_file(void); int f(void) { return __llvm_profile_write_file(); }"
    )
    assert only(bench.object("19", calls, "-g0", triple=triple)).runtime_raw_version is None


@pytest.mark.parametrize("triple", ["x86_64-linux-gnu", "x86_64-pc-windows-msvc"])
def test_an_object_of_more_sections_than_sixteen_bits_count_is_read(
    bench: Bench, triple: str
) -> None:
    assembly = bench.folder / f"many-{triple}.s"
    bench.run("19", "clang", f"--target={triple}", "-O1", "-fprofile-generate", "-S",
              bench.object("19", FOO).with_suffix(".c"), "-o", assembly)  # fmt: skip
    flags = '"a"' if "linux" in triple else '"dr"'
    before = "".join(f".section s{i},{flags}\n.byte 0\n" for i in range(66_000))
    assembly.write_text(before + assembly.read_text())
    bench.run("19", "clang", f"--target={triple}", "-c", assembly, "-o", assembly.with_suffix(".o"))
    part = only(assembly.with_suffix(".o"))
    assert (runs(part), part.raw_version, part.note) == ([(64, 1)], 1 << 56 | 10, "")


def test_relocatable_output_holds_both_layouts_in_order(bench: Bench) -> None:
    old, new = bench.object("17", FOO), bench.object("19", MAIN)
    for linker in ("ld.lld", "ld"):
        tool = bench.tool("19", linker) if linker == "ld.lld" else linker
        out = bench.folder / f"r-{linker}.o"
        subprocess.run([tool, "-r", old, new, "-o", out], check=True, cwd=bench.folder)
        part = only(out)
        assert (part.kind, runs(part)) == ("object", [(48, 1), (64, 1)])
        assert part.sections[0].counters is None
        assert part.raw_version == 1 << 56 | 8


LINKS = {
    "pie": (["-pie"], "executable"),
    "no-pie": (["-no-pie"], "executable"),
    "static": (["-static", "--unwindlib=libgcc"], "executable"),
    "static-pie": (["-static-pie", "--unwindlib=libgcc"], "executable"),
    "shared": (["-shared", "-Wl,--build-id"], "library"),
    "collected": (["-Wl,--gc-sections"], "executable"),
}


@pytest.mark.parametrize("how", LINKS)
def test_a_linked_image_has_counters_and_a_runtime(bench: Bench, how: str) -> None:
    flags, kind = LINKS[how]
    sources = [bench.object("17", FOO, "-O1", "-fPIC", "-fprofile-generate"),
               bench.object("19", MAIN, "-O1", "-fPIC", "-fprofile-generate")]  # fmt: skip
    image = bench.linked("19", f"image-{how}", *flags, *sources)
    stripped = bench.folder / f"{image.name}-stripped"
    bench.run("19", "llvm-strip", image, "-o", stripped)
    for path in (image, stripped):
        part = only(path)
        assert (part.kind, part.stripped) == (kind, path is stripped)
        assert [infer.find(section).by for section in part.sections] == ["both"]
        assert runs(part) == [(48, 1), (64, 1)]
        # The first object's version, not the runtime's.
        assert part.raw_version == (None if part.stripped else 1 << 56 | 8)
        assert part.runtime_raw_version == 10


def test_a_plain_image_carries_no_runtime(bench: Bench) -> None:
    bench.run("19", "clang", bench.object("19", FOO + MAIN, "-O1"), "-o", "plain")
    part = only(bench.folder / "plain")
    assert (part.instrumented, part.runtime_raw_version) == (False, None)


def test_a_mach_o_library_is_read_like_an_elf_one(bench: Bench) -> None:
    part = only(mach_o(bench, *pair(bench, "x86_64-apple-macos11")))
    assert (part.format, part.kind, part.raw_version) == ("mach-o", "library", 1 << 56 | 8)
    assert [infer.find(section).by for section in part.sections] == ["both"]
    assert runs(part) == [(48, 1), (72, 1)]
    assert part.runtime_raw_version == 10


def test_a_pe_image_is_read_by_its_names(bench: Bench) -> None:
    sources = pair(bench, "x86_64-pc-windows-msvc")
    part = only(pe(bench, "x.dll", *sources))
    assert (part.format, part.kind, part.stripped) == ("pe", "library", True)
    assert runs(part) == [(48, 1), (72, 1)]
    assert part.runtime_raw_version == 10
    assert [section.counters for section in part.sections] == [None]  # they would not land
    assert [len(section.data) for section in part.sections] == [48 + 72]  # no padding, no .data
    narrow = only(pe(bench, "i686.dll", "/safeseh:no", *pair(bench, "i686-pc-windows-msvc")))
    assert [infer.find(section).by for section in narrow.sections] == ["both"]
    assert runs(narrow) == [(40, 1), (56, 1)]
    # As the runtime's directives have the linker do it.
    merged = only(pe(bench, "merged.dll", "/merge:.lprfd=.data", "/merge:.lprfc=.data", *sources))
    assert runs(merged) == [(48, 1), (72, 1)]


def test_images_without_what_is_needed_say_so(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path
    image = bench.linked(
        "19", "whole", "-g", bench.object("19", FOO + MAIN, "-g", "-fprofile-generate")
    )
    bench.run("19", "llvm-objcopy", "--only-keep-debug", image, "whole.debug")
    part = only(bench.folder / "whole.debug")
    assert (part.instrumented, part.sections) == (True, ())
    assert "debug information of another file" in part.note
    # What runs is judged; debug information beside it is not.
    shutil.copy(image, folder / "whole")
    shutil.copy(bench.folder / "whole.debug", folder)
    assert audit([folder]).verdict == "consistent"
    assert audit([folder / "whole.debug"]).verdict == "unknown"

    data = bytearray(image.read_bytes())
    data[0x28:0x30] = bytes(8)  # e_shoff
    data[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
    image.write_bytes(data)
    part = only(image)
    assert (part.note, part.kind) == (
        "no section headers: its records cannot be found",
        "executable",
    )
    assert (part.runtime_raw_version, part.stripped) == (10, True)

    data[0x10] = 4  # ET_CORE
    image.write_bytes(data)
    assert "core file" in only(image).note


def test_an_image_says_which_libraries_it_needs(bench: Bench) -> None:
    object_ = bench.object("19", FOO, "-O1", "-fPIC")
    bench.linked("19", "libneeded.so", "-shared", object_)
    needing = bench.linked("19", "needing", bench.object("19", MAIN), "-L.", "-l:libneeded.so")
    assert only(needing).needed[0] == "libneeded.so"
    triple = "x86_64-apple-macos11"
    library = mach_o(bench, *pair(bench, triple)[:1])
    needing = mach_o(bench, bench.object("19", MAIN, triple=triple), library)
    assert only(needing).needed == (str(library),)
    assert only(object_).needed == ()


def test_a_dsym_file_beside_a_library_is_not_judged_as_one(bench: Bench, tmp_path: Path) -> None:
    """What dsymutil makes has headers of all sections, and bytes of those of __DWARF only."""
    library = mach_o(bench, *pair(bench, "x86_64-apple-macos11")[1:])
    data = bytearray(library.read_bytes())
    data[12] = 10  # filetype: MH_DSYM
    (tmp_path / "x.dSYM").write_bytes(data)
    part = only(tmp_path / "x.dSYM")
    assert (part.kind, part.sections, part.instrumented) == ("object", (), True)
    assert "debug information of another file" in part.note
