"""Objects, images, archives and bitcode of real compilers and linkers: what the profile is made of."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbsupport.audit import objects
from nbsupport.base.errors import LabError, MissingError
from nbsupport.profile import infer
from nbsupport.toolchains import discovery
from tests.support import hostile
from tests.support.compiled import (
    FOO,
    LLVMS,
    MAIN,
    TRIPLES,
    Bench,
    only,
    pair,
    raw,
    read,
    runs,
)


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


def test_an_archive_in_an_archive_is_followed_and_named_where_it_is_too_deep(
    tmp_path: Path, bench: Bench
) -> None:
    def archive(name: bytes, content: bytes) -> bytes:
        head = b"!<arch>\n" + b"%-48s%-10d`\n" % (name, len(content))
        return head + content + b"\n" * (len(content) % 2)

    content, path = archive(b"a.o/", bench.object("19", MAIN).read_bytes()), tmp_path / "x.a"
    for depth in range(7):
        path.write_bytes(content)
        found = read(path)
        if depth < 5:
            assert [(part.name, runs(part)) for part in found.parts] == [
                ("i.a/" * depth + "a.o", [(64, 1)])
            ]
            assert found.problems == ()
        else:
            why = "i.a: " * 4 + "i.a: an archive in an archive that is not read"
            assert (found.parts, found.problems) == ((), (why,))
        content = archive(b"i.a/", content)
    path.write_bytes(archive(b"aix.a/", b"<bigaf>\n" + bytes(120)))
    assert read(path).problems == ("aix.a: an archive of AIX: not read",)
    cut = archive(b"i.a/", archive(b"a.o/", b"\x7fELF" + bytes(60))[:-10])
    path.write_bytes(cut)
    assert read(path).problems == ("i.a: archive: expected 64 bytes at offset 68, found 54",)


@pytest.mark.parametrize("llvm", LLVMS)
def test_the_runtimes_own_archive_tells_its_version(bench: Bench, llvm: str) -> None:
    archive = bench.find(llvm).runtime
    assert archive is not None
    parts = read(archive).parts
    assert [part.runtime_raw_version for part in parts] == [raw(bench, llvm)]
    assert [part.raw_version for part in parts] == [raw(bench, llvm)]
    assert not any(part.instrumented for part in parts)


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


@pytest.mark.parametrize("flag", ["-emit-llvm", "-flto", "-flto=thin"])
@pytest.mark.parametrize("llvm", ["17", "23"])
def test_bitcode_is_read_by_llvm_dis(
    bench: Bench, disassemble: objects.Disassemble, llvm: str, flag: str
) -> None:
    path = bench.object(llvm, FOO, "-O1", "-fprofile-generate", flag)
    bench.run(llvm, "llvm-ar", "rcs", f"{path.name}.a", path.name)
    for file in (path, bench.folder / f"{path.name}.a"):
        found = objects.read(file, disassemble)
        assert found is not None
        (part,) = found.parts
        assert (part.format, part.target, part.instrumented) == ("bitcode", "x86_64-linux", True)
        assert part.raw_version == 1 << 56 | raw(bench, llvm)
    without = only(path)
    assert (without.instrumented, without.raw_version) == (True, None)
    assert "llvm-dis" in without.note


@pytest.mark.parametrize("triple", TRIPLES)
@pytest.mark.parametrize("llvm", LLVMS)
def test_the_target_of_bitcode_is_that_of_the_object(
    bench: Bench, disassemble: objects.Disassemble, llvm: str, triple: str
) -> None:
    path = bench.object(llvm, FOO, "-fprofile-instr-generate", "-emit-llvm", triple=triple)
    found = objects.read(path, disassemble)
    assert found is not None
    (part,) = found.parts
    assert (part.target, part.bits, part.raw_version) == (*TRIPLES[triple][1:], None)


def test_plain_bitcode_needs_no_tool(bench: Bench) -> None:
    part = only(bench.object("19", FOO, "-O1", "-emit-llvm"))
    assert (part.instrumented, part.note) == (False, "")


def test_an_object_with_bitcode_beside_its_code_is_an_object(bench: Bench) -> None:
    part = only(bench.object("19", FOO, "-O1", "-fprofile-generate", "-flto", "-ffat-lto-objects"))
    assert (part.format, runs(part)) == ("elf", [(64, 1)])


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
    unread: dict[Path, str] = {}
    found = objects.find([tmp_path], unread)
    assert [path.name for path in found] == ["a", "c"]
    assert unread == {tmp_path / "nowhere": "No such file or directory"}
    assert list(objects.find([tmp_path / "c"], unread)) == [tmp_path / "c"]


def test_a_file_that_vanishes_while_searched_is_a_problem(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_text("")
    unread: dict[Path, str] = {}
    found = objects.find([tmp_path], unread)
    assert next(found).name == "a"
    (tmp_path / "b").unlink()
    assert [path.name for path in found] == ["c"]
    assert list(unread) == [tmp_path / "b"]


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
    for n in range(4):
        (tmp_path / f"m{n}").write_bytes(bench.object("19", MAIN).read_bytes())
    members = (b"%-48s%-10d`\n" % (b"m%d/" % n, 9) for n in range(4))
    path.write_bytes(b"!<thin>\n" + b"".join(members))
    found = read(path)
    assert (len(found.parts), found.problems) == (2, ("archive: members of more than 0 GiB",))


def test_tables_that_would_take_forever_are_not_believed(bench: Bench, tmp_path: Path) -> None:
    """Each is looked through for each other: a small file must not take minutes."""
    data = bytearray(bench.object("19", FOO).read_bytes())
    table, count = struct.unpack_from("<Q", data, 0x28)[0], struct.unpack_from("<H", data, 0x3C)[0]
    for at in range(table, table + 64 * count, 64):
        struct.pack_into("<I", data, at + 4, 2)  # sh_type: SHT_SYMTAB
    path = tmp_path / "x.o"
    path.write_bytes(data)
    (problem,) = read(path).problems
    assert f"{count} tables of symbols: more than any tool makes" in problem

    data = bytearray(bench.object("19", FOO, triple="x86_64-apple-macos11").read_bytes())
    struct.pack_into("<I", data, 32 + 64, 60_000)  # nsects of the first command, LC_SEGMENT_64
    path.write_bytes(data)
    (problem,) = read(path).problems
    assert "expected 60000 sections in the command at byte 32" in problem

    names = "".join(f".globl x{n}__llvm_profile_raw_version\n" for n in range(70))
    (tmp_path / "names.s").write_text(names)
    bench.run("19", "clang", "-c", tmp_path / "names.s", "-o", path)
    (problem,) = read(path).problems
    assert "more than 64 names __llvm_profile_raw_version" in problem


def test_what_a_thin_archive_names_often_is_read_once(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(bench.object("19", MAIN).read_bytes())
    os.link(tmp_path / "m", tmp_path / "n")
    names = (b"m", b"./m", b"n")
    members = (b"%-48s%-10d`\n" % (name + b"/", 9) for name in names * 20_000)
    (tmp_path / "thin.a").write_bytes(b"!<thin>\n" + b"".join(members))
    found = read(tmp_path / "thin.a")
    assert ([part.name for part in found.parts], found.problems) == (["m"], ())


def survives(path: Path) -> None:
    """Only an error of ours, or a file whose records can be looked for."""
    try:
        found = objects.read(path, lambda path: None)
    except LabError:
        return
    for part in found.parts if found else ():
        for section in part.sections:
            infer.find(section)


def test_truncation_at_every_place(tmp_path: Path, samples: list[bytes]) -> None:
    path = tmp_path / "cut"
    for sample in samples:
        path.write_bytes(sample)
        for data in reversed([*hostile.cuts(sample, step=3)]):
            os.truncate(path, len(data))  # files written anew take longer
            survives(path)


@given(st.data())
@settings(
    max_examples=400,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_bytes_changed(tmp_path: Path, samples: list[bytes], data: st.DataObject) -> None:
    path = tmp_path / "changed"
    path.unlink(missing_ok=True)
    path.write_bytes(data.draw(hostile.spoiled(samples)))
    survives(path)
