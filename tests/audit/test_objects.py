"""Objects, images, archives and bitcode of real compilers and linkers: what the profile is made of."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbsupport.audit import objects
from nbsupport.base.errors import LabError, MissingError
from nbsupport.profile import infer, layout
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain

LLVMS = ("17", "18", "19", "22", "23")
FOO = "static int inner(int x) { return x + 1; }\nint foo(int x) { return x > 3 ? inner(x) : 2; }\n"
MAIN = "int foo(int);\nint main(int c, char **v) { return foo(c) > 100; }\nint some = 7;\n"
TRIPLES = {
    "x86_64-linux-gnu": ("elf", "x86_64-linux", 64),
    "i386-linux-gnu": ("elf", "i386-linux", 32),
    "x86_64-apple-macos11": ("mach-o", "x86_64-apple-darwin", 64),
    "x86_64-pc-windows-msvc": ("coff", "x86_64-windows", 64),
    "i686-pc-windows-msvc": ("coff", "i386-windows", 32),
}
#: A stand-in for the runtime's function, for formats whose runtime is not on this machine.
STAND_IN = """
__asm__(".text\\n.skip 300000");
extern unsigned get_version(void); int print(void *, const char *, int, int);
extern void *stream;
__attribute__((noinline)) int __llvm_profile_write_file(void) {
  if (get_version() != VERSION)
    return print(stream, "LLVM Profile Error: Runtime and instrumentation version mismatch : "
                 "expected %d, but get %d\\n", VERSION, get_version());
  return 0;
}
"""


class Bench:
    """Compiles and links in one folder, each thing once."""

    def __init__(self, folder: Path, find: Callable[[str], Toolchain]) -> None:
        self.folder, self.find = folder, find

    def tool(self, llvm: str, name: str) -> Path:
        return self.find(llvm).compiler.parent / name

    def run(self, llvm: str, tool: str, *args: str | Path) -> None:
        done = subprocess.run(
            [self.tool(llvm, tool), *args], cwd=self.folder, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    def object(self, llvm: str, source: str, *flags: str, triple: str = "x86_64-linux-gnu") -> Path:
        flags = flags or ("-O1", "-fprofile-generate")
        made = self.folder / f"{llvm}-{triple}-{hash((source, flags)) % (1 << 32)}.o"
        if not made.exists():
            text = made.with_suffix(".c")
            text.write_text(source)
            self.run(
                llvm,
                "clang",
                f"--target={triple}",
                "-ffreestanding",
                *flags,
                "-c",
                text.name,
                "-o",
                made,
            )
        return made

    def linked(self, llvm: str, out: str, *args: str | Path, lld: bool = True) -> Path:
        linker = ["-fuse-ld=lld"] if lld else []
        self.run(llvm, "clang", "-fprofile-generate", *linker, *args, "-o", out)
        return self.folder / out


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, toolchain: Callable[[str], Toolchain]) -> Bench:
    return Bench(tmp_path_factory.mktemp("objects"), toolchain)


@pytest.fixture(scope="module")
def disassemble(bench: Bench) -> objects.Disassemble:
    def run(path: Path) -> str | None:
        tool = bench.tool("23", "llvm-dis")
        done = subprocess.run([tool, "-o", "-", path], capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else None

    return run


def read(path: Path) -> objects.BinaryFile:
    found = objects.read(path)
    assert found is not None
    return found


def only(path: Path) -> objects.BinaryPart:
    found = read(path)
    assert (len(found.parts), found.problems) == (1, ())
    return found.parts[0]


def runs(part: objects.BinaryPart) -> list[tuple[int, int]]:
    return [(r.record_size, r.records) for s in part.sections for r in infer.find(s).runs]


def raw(bench: Bench, llvm: str) -> int:
    version = bench.find(llvm).raw_version
    assert version is not None
    return version


def texts(part: objects.BinaryPart) -> list[bytes]:
    return [name for section in part.sections for name in section.names.text]


# Objects


@pytest.mark.parametrize("triple", TRIPLES)
@pytest.mark.parametrize("llvm", LLVMS)
def test_an_object_says_its_format_version_records_and_names(
    bench: Bench, llvm: str, triple: str
) -> None:
    part = only(bench.object(llvm, FOO, "-O0", "-fprofile-generate", triple=triple))
    version = raw(bench, llvm)
    assert (part.format, part.target, part.bits, part.order) == (*TRIPLES[triple], "<")
    assert (part.kind, part.instrumented, part.carries_runtime) == ("object", True, False)
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
    assert (part.carries_runtime, part.runtime_raw_version) == (False, None)


@pytest.mark.parametrize(
    "triple", ["x86_64-linux-gnu", "x86_64-apple-macos11", "x86_64-pc-windows-msvc"]
)
def test_an_object_that_only_calls_the_runtime_does_not_carry_it(bench: Bench, triple: str) -> None:
    calls = (
        "int __llvm_profile_write_file(void); int f(void) { return __llvm_profile_write_file(); }"
    )
    assert not only(bench.object("19", calls, "-g0", triple=triple)).carries_runtime


@pytest.mark.parametrize("triple", ["x86_64-linux-gnu", "x86_64-pc-windows-msvc"])
def test_an_object_of_more_sections_than_can_be_read_says_so(bench: Bench, triple: str) -> None:
    assembly = bench.folder / f"many-{triple}.s"
    bench.run("19", "clang", f"--target={triple}", "-O1", "-fprofile-generate", "-S",
              bench.object("19", FOO).with_suffix(".c"), "-o", assembly)  # fmt: skip
    flags = '"a"' if "linux" in triple else '"dr"'
    before = "".join(f".section s{i},{flags}\n.byte 0\n" for i in range(66_000))
    assembly.write_text(before + assembly.read_text())
    bench.run("19", "clang", f"--target={triple}", "-c", assembly, "-o", assembly.with_suffix(".o"))
    part = only(assembly.with_suffix(".o"))
    assert (part.sections, part.raw_version) == ((), None)
    assert "too many for LIEF" in part.note


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


# Linked images

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
        assert (part.carries_runtime, part.runtime_raw_version) == (True, 10)


@pytest.mark.parametrize("lld", [True, False], ids=["lld", "bfd"])
@pytest.mark.parametrize("llvm", LLVMS)
def test_the_runtimes_version_is_read_from_its_code(bench: Bench, llvm: str, lld: bool) -> None:
    other = "17" if llvm != "17" else "19"
    image = bench.linked(llvm, f"runtime-{llvm}-{lld}", bench.object(other, FOO + MAIN), lld=lld)
    bench.run(llvm, "llvm-strip", image, "-o", f"{image.name}-s")
    for path in (image, bench.folder / f"{image.name}-s"):
        part = only(path)
        assert (part.carries_runtime, part.runtime_raw_version) == (True, raw(bench, llvm))


def test_a_plain_image_carries_no_runtime(bench: Bench) -> None:
    bench.run("19", "clang", bench.object("19", FOO + MAIN, "-O1"), "-o", "plain")
    part = only(bench.folder / "plain")
    assert (part.instrumented, part.carries_runtime, part.runtime_raw_version) == (
        False,
        False,
        None,
    )


def mach_o(bench: Bench, *sources: Path) -> Path:
    out = bench.folder / f"lib{len(sources)}.dylib"
    bench.run("19", "ld64.lld", "-arch", "x86_64", "-platform_version", "macos", "11.0", "11.0",
              "-dylib", "-undefined", "dynamic_lookup", *sources, "-o", out)  # fmt: skip
    return out


def pe(bench: Bench, name: str, *args: str | Path) -> Path:
    out = bench.folder / name
    bench.run("19", "lld-link", "/dll", "/noentry", "/nodefaultlib", "/force:unresolved",
              f"/out:{out}", *args)  # fmt: skip
    return out


def pair(bench: Bench, triple: str) -> tuple[Path, Path, Path]:
    standing = STAND_IN.replace("VERSION", "10")
    return (
        bench.object("17", FOO, triple=triple),
        bench.object("23", MAIN, triple=triple),
        bench.object("19", standing, "-O1", triple=triple),
    )


def test_a_mach_o_library_is_read_like_an_elf_one(bench: Bench) -> None:
    part = only(mach_o(bench, *pair(bench, "x86_64-apple-macos11")))
    assert (part.format, part.kind, part.raw_version) == ("mach-o", "library", 1 << 56 | 8)
    assert [infer.find(section).by for section in part.sections] == ["both"]
    assert runs(part) == [(48, 1), (72, 1)]
    assert (part.carries_runtime, part.runtime_raw_version) == (True, 10)


def test_a_fat_file_has_a_part_for_each_slice(bench: Bench) -> None:
    x86 = pair(bench, "x86_64-apple-macos11")[0].read_bytes()
    i386 = bench.object("19", FOO, triple="i386-apple-macos10.10").read_bytes()
    library = b"!<arch>\n" + b"%-48s%-10d`\n" % (b"x86.o/", len(x86)) + x86
    path = bench.folder / "fat"
    contents = ((0x1000007, x86), (7, i386), (0x100000C, library), (12, b"text"))
    for wide in (False, True):
        place, table, body = 4096, b"", b""
        for cpu, content in contents:
            entry = struct.pack(
                ">IIQQII" if wide else ">IIIII", cpu, 0, place, len(content), 0, *(0,) * wide
            )
            place, table, body = place + len(content), table + entry, body + content
        head = struct.pack(">II", 0xCAFEBABF if wide else 0xCAFEBABE, len(contents)) + table
        path.write_bytes(head.ljust(4096, b"\0") + body)
        found = read(path)
        assert (found.container, found.problems) == ("fat", ())
        assert [part.name for part in found.parts] == ["x86_64", "i386", "aarch64/x86.o"]
        assert [runs(part) for part in found.parts] == [[(48, 1)], [(48, 1)], [(48, 1)]]
    path.write_bytes(head)
    assert len(read(path).problems) == len(contents)
    path.write_bytes(b"\xca\xfe\xba\xbe\0\0\0\x3d" + bytes(100))  # a Java class
    assert objects.read(path) is None


def test_a_pe_image_is_read_by_its_names(bench: Bench) -> None:
    sources = pair(bench, "x86_64-pc-windows-msvc")
    part = only(pe(bench, "x.dll", *sources))
    assert (part.format, part.kind, part.stripped) == ("pe", "library", True)
    assert runs(part) == [(48, 1), (72, 1)]
    assert (part.carries_runtime, part.runtime_raw_version) == (True, 10)
    assert [section.counters for section in part.sections] == [None]  # they would not land
    assert [len(section.data) for section in part.sections] == [48 + 72]  # no padding, no .data
    narrow = only(pe(bench, "i686.dll", "/safeseh:no", *pair(bench, "i686-pc-windows-msvc")))
    assert [infer.find(section).by for section in narrow.sections] == ["both"]
    assert runs(narrow) == [(40, 1), (56, 1)]
    # As the runtime's directives have the linker do it.
    merged = only(pe(bench, "merged.dll", "/merge:.lprfd=.data", "/merge:.lprfc=.data", *sources))
    assert runs(merged) == [(48, 1), (72, 1)]


def test_images_without_what_is_needed_say_so(bench: Bench) -> None:
    image = bench.linked(
        "19", "whole", "-g", bench.object("19", FOO + MAIN, "-g", "-fprofile-generate")
    )
    bench.run("19", "llvm-objcopy", "--only-keep-debug", image, "whole.debug")
    part = only(bench.folder / "whole.debug")
    assert (part.instrumented, part.sections) == (True, ())
    assert "debug information of another file" in part.note

    data = bytearray(image.read_bytes())
    data[0x28:0x30] = bytes(8)  # e_shoff
    data[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
    image.write_bytes(data)
    part = only(image)
    assert (part.note, part.kind) == (
        "no section headers: its records cannot be found",
        "executable",
    )
    assert (part.carries_runtime, part.runtime_raw_version, part.stripped) == (True, 10, True)

    data[0x10] = 4  # ET_CORE
    image.write_bytes(data)
    assert "core file" in only(image).note


# Archives


def test_members_of_every_kind_of_archive(bench: Bench) -> None:
    long = bench.folder / "a-name-that-is-longer-than-sixteen-characters.o"
    content = bench.object("17", FOO).read_bytes()
    long.write_bytes(content + b"\0" * (len(content) % 2 == 0))  # an odd size: it is padded
    short = bench.folder / "b.o"
    short.write_bytes(bench.object("19", MAIN).read_bytes())
    plain = bench.object("19", FOO, "-O1")
    for kind in ("gnu", "bsd", "darwin", "coff", "thin"):
        path = bench.folder / f"lib{kind}.a"
        thin = kind == "thin"
        flags = ["--thin"] if thin else [f"--format={kind}"]
        bench.run("19", "llvm-ar", *flags, "rcs", path.name, long.name, plain.name, short.name)
        found = read(path)
        assert (found.container, found.problems) == ("thin-archive" if thin else "archive", ())
        assert [part.name for part in found.parts] == [long.name, short.name]
        assert [runs(part) for part in found.parts] == [[(48, 1)], [(64, 1)]]
    long.unlink()
    found = read(bench.folder / "libthin.a")
    assert [part.name for part in found.parts] == ["b.o"]
    assert found.problems == (f"member {long.name}: No such file or directory",)


def test_a_thin_archive_reads_regular_files_only(tmp_path: Path, bench: Bench) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "lib").mkdir()
    (tmp_path / "outside.o").write_bytes(bench.object("19", MAIN).read_bytes())
    names = b"../fifo/\n../outside.o/\n/dev/zero/\n"
    path = tmp_path / "lib" / "thin.a"
    data = b"!<thin>\n" + b"%-48s%-10d`\n" % (b"/SYM64/", 8) + bytes(8)
    data += b"%-48s%-10d`\n" % (b"//", len(names)) + names + b"\n" * (len(names) % 2)
    for place in (0, 9, 23):
        data += b"%-48s%-10d`\n" % (b"/%d" % place, 1 << 30)
    path.write_bytes(data)
    found = read(path)
    assert [part.name for part in found.parts] == ["../outside.o"]
    assert found.problems == tuple(
        f"member {n}: not a regular file" for n in ("../fifo", "/dev/zero")
    )


@pytest.mark.parametrize(
    "broken",
    [
        b"!<arch>\n" + b"%-48s%-10d`\n" % (b"a.o/", 9_999_999_999) + b"\x7fELF",
        b"!<arch>\n" + b"%-48s%-10s`\n" % (b"a.o/", b"-5"),
        b"!<arch>\n" + b"x" * 200,
        b"!<arch>\n" + b"y" * 20,
    ],
)
def test_a_broken_archive_is_a_problem(tmp_path: Path, broken: bytes) -> None:
    (tmp_path / "x.a").write_bytes(broken)
    found = read(tmp_path / "x.a")
    assert (found.parts, len(found.problems)) == ((), 1)
    assert "expected" in found.problems[0]


def test_an_archive_in_an_archive_is_not_followed(tmp_path: Path, bench: Bench) -> None:
    data = bench.object("19", MAIN).read_bytes()
    inner = b"!<arch>\n" + b"%-48s%-10d`\n" % (b"a.o/", len(data)) + data
    (tmp_path / "x.a").write_bytes(b"!<arch>\n" + b"%-48s%-10d`\n" % (b"i.a/", len(inner)) + inner)
    assert read(tmp_path / "x.a") == objects.BinaryFile(tmp_path / "x.a", "archive", ())


@pytest.mark.parametrize("llvm", LLVMS)
def test_the_runtimes_own_archive_tells_its_version(bench: Bench, llvm: str) -> None:
    archive = bench.find(llvm).runtime
    assert archive is not None
    parts = read(archive).parts
    assert {part.runtime_raw_version for part in parts} == {None, raw(bench, llvm)}
    assert not any(part.instrumented for part in parts)
    (version,) = (part for part in parts if part.runtime_raw_version)
    assert (version.raw_version, version.carries_runtime) == (raw(bench, llvm), True)


def test_a_rust_library_and_program(tmp_path: Path) -> None:
    try:
        rustc = discovery.find_rustc("19")
    except MissingError as error:
        pytest.skip(str(error))
    source = tmp_path / "lib.rs"
    source.write_text(
        "pub fn twice(x: u32) -> u32 { if x > 3 { x * 2 } else { x } }\nfn main() {}\n"
    )
    for kind, name in (("rlib", "libx.rlib"), ("bin", "x")):
        flags = ["-Cprofile-generate", "--crate-name=x", f"--crate-type={kind}"]
        subprocess.run([rustc.compiler, *flags, source, "-o", tmp_path / name], check=True)
    library = read(tmp_path / "libx.rlib")
    assert (library.container, library.problems) == ("rlib", ())
    assert all(part.name.endswith(".o") for part in library.parts)  # no lib.rmeta
    assert [size for part in library.parts for size, _ in runs(part)] == [64]
    program = only(tmp_path / "x")
    assert (program.runtime_raw_version, {size for size, _ in runs(program)}) == (10, {64})


# Bitcode


@pytest.mark.parametrize("flag", ["-emit-llvm", "-flto", "-flto=thin"])
@pytest.mark.parametrize("llvm", ["17", "23"])
def test_bitcode_is_read_by_llvm_dis(
    bench: Bench, disassemble: objects.Disassemble, llvm: str, flag: str
) -> None:
    size = layout.LAYOUTS[raw(bench, llvm)].record_size()
    path = bench.object(llvm, FOO, "-O1", "-fprofile-generate", flag)
    bench.run(llvm, "llvm-ar", "rcs", f"{path.name}.a", path.name)
    for file in (path, bench.folder / f"{path.name}.a"):
        found = objects.read(file, disassemble)
        assert found is not None
        (part,) = found.parts
        assert (part.format, part.target, part.instrumented) == ("bitcode", "x86_64-linux", True)
        assert (part.raw_version, part.bitcode_sizes) == (1 << 56 | raw(bench, llvm), (size,))
    without = only(path)
    assert (without.instrumented, without.raw_version) == (True, None)
    assert "llvm-dis" in without.note


@pytest.mark.parametrize("triple", TRIPLES)
@pytest.mark.parametrize("llvm", LLVMS)
def test_the_record_size_of_bitcode_is_that_of_the_object(
    bench: Bench, disassemble: objects.Disassemble, llvm: str, triple: str
) -> None:
    path = bench.object(llvm, FOO, "-fprofile-instr-generate", "-emit-llvm", triple=triple)
    found = objects.read(path, disassemble)
    assert found is not None
    (part,) = found.parts
    known = layout.LAYOUTS[raw(bench, llvm)]
    assert (part.target, part.bits, part.raw_version) == (*TRIPLES[triple][1:], None)
    assert part.bitcode_sizes == (known.record_size(part.bits),)


def test_plain_bitcode_needs_no_tool(bench: Bench) -> None:
    part = only(bench.object("19", FOO, "-O1", "-emit-llvm"))
    assert (part.instrumented, part.note) == (False, "")


def test_an_object_with_bitcode_beside_its_code_is_an_object(bench: Bench) -> None:
    part = only(bench.object("19", FOO, "-O1", "-fprofile-generate", "-flto", "-ffat-lto-objects"))
    assert (part.format, runs(part)) == ("elf", [(64, 1)])


# Files and folders


def test_what_is_none_of_the_formats(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\0\0\xff\xff\0\0\x64\x86" + bytes(99))
    assert objects.read(tmp_path / "file") is None  # a member of an import library
    (tmp_path / "file").write_bytes(b"\x7fELF")
    assert len(read(tmp_path / "file").problems) == 1  # it is one, and broken
    for content in (b"", b"\x7f", b"#!/bin/sh\n", b"MZ, said he", b"\x64\x86" + b"text" * 20):
        (tmp_path / "file").write_bytes(content)
        assert objects.read(tmp_path / "file") is None


def test_what_cannot_be_read_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "big").write_bytes(b"\x7fELF" + bytes(100))
    monkeypatch.setattr(objects, "MOST_BYTES", 64)
    expected = {
        "fifo": "not a regular file",
        "gone": "No such file",
        ".": "directory",
        "big": "larger",
    }
    for name, why in expected.items():
        with pytest.raises(LabError, match=why):
            objects.read(tmp_path / name)


def test_a_folder_is_searched_by_depth_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "b" / "deep" / "one").write_text("1")
    os.link(tmp_path / "b" / "deep" / "one", tmp_path / "b" / "same")
    (tmp_path / "a").symlink_to(tmp_path / "b" / "same")
    (tmp_path / "c").write_text("3")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    os.mkfifo(tmp_path / "fifo")
    problems: list[str] = []
    found = objects.find(tmp_path, problems)
    assert [path.name for path in found] == ["a", "c"]
    assert problems == [f"{tmp_path / 'nowhere'}: No such file or directory"]
    assert list(objects.find(tmp_path / "c")) == [tmp_path / "c"]


def test_a_file_that_vanishes_while_searched_is_a_problem(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_text("")
    problems: list[str] = []
    found = objects.find(tmp_path, problems)
    assert next(found).name == "a"
    (tmp_path / "b").unlink()
    assert [path.name for path in found] == ["c"]
    assert len(problems) == 1


# Bad input


def test_parts_that_are_all_the_whole_file_are_not_believed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hostile"
    data = bytearray(bench.object("19", FOO, "-fprofile-instr-generate").read_bytes())
    table, count = struct.unpack_from("<Q", data, 0x28)[0], struct.unpack_from("<H", data, 0x3C)[0]
    writable = [at for at in range(table, table + 64 * count, 64) if data[at + 8] & 1]
    for at in writable:  # counters and records of two functions
        struct.pack_into("<QQ", data, at + 24, 64, len(data) - 64)
    path.write_bytes(data)
    assert ["overlap" in problem for problem in read(path).problems] == [True]

    entries = b"".join(struct.pack(">5I", 7, 0, 0, 108, 0) for _ in range(5))
    path.write_bytes(struct.pack(">II", 0xCAFEBABE, 5) + entries)
    assert len(read(path).problems) == 4

    monkeypatch.setattr(objects, "MOST_BYTES", 5000)
    (tmp_path / "m").write_bytes(bench.object("19", MAIN).read_bytes())
    path.write_bytes(b"!<thin>\n" + (b"%-48s%-10d`\n" % (b"m/", 9)) * 40)
    found = read(path)
    assert (len(found.parts), found.problems) == (2, ("archive: members of more than 0 GiB",))


def test_a_structure_is_aligned_as_llvm_does() -> None:
    assert objects._size("i64, i16, i64, i8", 64) == 32
    assert objects._size("i64, i8*, i64*, [3 x i16]", 32) == 24


@pytest.fixture(scope="module")
def samples(bench: Bench) -> list[bytes]:
    paths = [bench.object("19", FOO, triple=triple) for triple in TRIPLES]
    paths.append(pe(bench, "sample.dll", *pair(bench, "x86_64-pc-windows-msvc")))
    paths.append(mach_o(bench, *pair(bench, "x86_64-apple-macos11")[:2]))
    bench.run("19", "llvm-ar", "rcs", "sample.a", *(path.name for path in paths[:5]))
    bench.run(
        "19",
        "ld.lld",
        "-shared",
        "--noinhibit-exec",
        *pair(bench, "x86_64-linux-gnu"),
        "-o",
        "sample.so",
    )
    x86 = (bench.folder / "sample.so").read_bytes()
    arm = x86[:18] + b"\xb7" + x86[19:]  # e_machine
    return [path.read_bytes() for path in (*paths, bench.folder / "sample.a")] + [x86, arm]


def survives(path: Path, data: bytes) -> None:
    """Only an error of ours, or a file whose records can be looked for."""
    path.write_bytes(data)
    try:
        found = objects.read(path, lambda path: None)
    except LabError:
        return
    for part in found.parts if found else ():
        for section in part.sections:
            infer.find(section)


def test_truncation_at_every_place(tmp_path: Path, samples: list[bytes]) -> None:
    for data in samples:
        for length in (*range(0, min(len(data), 600), 3), *range(600, len(data), 31)):
            survives(tmp_path / "cut", data[:length])


@given(st.data())
@settings(
    max_examples=400,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_bytes_changed(tmp_path: Path, samples: list[bytes], data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(samples)))
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, min(len(content), 2048) - 1))
        new = data.draw(
            st.sampled_from([b"\0", b"\x7f", b"\xff" * 4, b"\xff" * 8, b"\0\0\0\x80", b"99999999"])
        )
        content[place : place + len(new)] = new
    survives(tmp_path / "changed", bytes(content))
