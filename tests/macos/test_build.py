"""Mach-O programs, by real compilers and a real linker; what they come to is read from the files."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import lief
import pytest

from nbsupport.audit import audit
from nbsupport.audit.judge import AuditReport
from nbsupport.base import settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.macos import runtime, target
from nbsupport.macos.build import MachOProgram, build_program
from nbsupport.toolchains import Toolchain, wheels

#: Processor, main's LLVM, the library's: records of 64 bytes, then of 48.
MIXED = [("arm64", "19", "16"), ("x86_64", "19", "17")]


def built(arch: Any, main: str, foreign: str, name: str = "cold", **how: Any) -> MachOProgram:
    return build_program(name, arch, main, foreign, **how)


def tool(name: str, *arguments: str | Path) -> str:
    """Run one of LLVM's tools and return what it prints."""
    command = [target.compiler("x86_64", "19").prefix / "bin" / name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def layouts(report: AuditReport) -> list[tuple[int, int]]:
    return [layout for file in report.files for layout in file.layouts]


@pytest.mark.parametrize(("arch", "main", "foreign"), MIXED)
@pytest.mark.parametrize("order", ["main-first", "foreign-first"])
def test_a_mixed_program_is_told_from_image_and_objects(
    arch: str, main: str, foreign: str, order: str
) -> None:
    program = built(arch, main, foreign, order=order)
    image, objects = audit([program.path]), audit(program.objects)
    records = [(64, 3), (48, 6)]
    assert layouts(image) == layouts(objects) == records[:: 1 if order == "main-first" else -1]
    (file,) = image.to_json()["files"]
    first = 10 if order == "main-first" else 8
    assert (file["format"], file["kind"]) == ("mach-o", "executable")
    assert (file["runtime_raw_version"], file["raw_versions"]) == (10, [8, 10])
    # The linker keeps the first version symbol, which decides.
    assert image.judgement.links[0].first.raw_version == first
    assert image.verdict == objects.verdict == "mixed"
    assert set(image.judgement.outcomes) == program.foretell().outcomes
    expected = "crash" if order == "main-first" else "version-mismatch"
    assert program.foretell("cold").outcomes == {expected}


@pytest.mark.parametrize(("arch", "library"), [("arm64", "19"), ("x86_64", "22")])
def test_of_one_raw_version_all_is_consistent(arch: str, library: str) -> None:
    program = built(arch, "19", library)
    report = audit([program.path])
    assert (report.verdict, report.judgement.outcomes) == ("consistent", ["ok"])
    assert program.foretell().fine
    assert layouts(report) == [(64, 9)]


def test_a_library_that_is_not_instrumented_adds_no_record() -> None:
    program = built("arm64", "19", "16", instrument="none")
    assert layouts(audit([program.path])) == [(64, 3)]
    assert program.foretell().fine


@pytest.mark.parametrize("fixups", [True, False], ids=["chained", "opcodes"])
@pytest.mark.parametrize(("arch", "main", "foreign"), MIXED)
def test_pointers_are_fixed_in_the_way_that_was_asked_for(
    arch: str, main: str, foreign: str, fixups: bool
) -> None:
    program = built(arch, main, foreign, fixups=fixups)
    universal = lief.MachO.parse(program.path)
    assert universal
    image = universal.at(0)
    assert image and image.has_dyld_chained_fixups is fixups and image.has_dyld_info is not fixups
    assert image.header.cpu_type.name.lower() == arch
    assert [library.name for library in image.libraries] == ["/usr/lib/libSystem.B.dylib"]
    assert layouts(audit([program.path])) == [(64, 3), (48, 6)]


@pytest.mark.parametrize(("arch", "main", "foreign"), MIXED)
def test_a_real_allocator_is_linked_and_dead_code_takes_its_records_along(
    arch: str, main: str, foreign: str
) -> None:
    whole = audit([built(arch, main, foreign, "mimalloc").path])
    rest = audit([built(arch, main, foreign, "mimalloc", dead_strip=True).path])
    ((main_size, mains), (size, records)), (kept_main, (kept_size, kept)) = map(
        layouts, (whole, rest)
    )
    assert kept_main == (main_size, mains) == (64, 3)
    assert size == kept_size == 48 and 100 < kept < records
    assert whole.verdict == rest.verdict == "mixed"
    assert whole.judgement.outcomes == rest.judgement.outcomes


@pytest.mark.parametrize("arch", ["arm64", "x86_64"])
def test_the_runtime_is_an_archive_for_macos_of_all_its_sources(arch: Any) -> None:
    compiler = target.compiler(arch, "19")
    archives = [runtime.archive(arch, compiler, optimize) for optimize in ("s", "2")]
    assert archives[0].read_bytes() != archives[1].read_bytes()
    for archive in archives:
        assert archive.read_bytes()[68:76] == b"__.SYMDE"[:8]
        members = tool("llvm-ar", "t", archive).split()
        assert len(members) == 14 and "InstrProfilingRuntime.cpp.o" in members
        defined = tool("llvm-nm", "--defined-only", archive)
        for name in ("write_file", "instrument_target", "runtime", "initialize_file"):
            assert f" ___llvm_profile_{name}\n" in defined
        kinds = {
            line.split()[-1]
            for line in tool("llvm-objdump", "-a", archive).splitlines()
            if "file format" in line
        }
        assert len(kinds) == 1 and kinds.pop() == ("arm64" if arch == "arm64" else "x86-64")


def test_what_is_built_is_kept_and_names_no_place_of_this_machine() -> None:
    program = built("arm64", "19", "16")
    before = program.path.stat()
    assert built("arm64", "19", "16") == program
    assert program.path.stat().st_mtime_ns == before.st_mtime_ns
    places = [str(settings.cache_dir()).encode(), str(settings.data_dir()).encode()]
    for path in (program.path, *program.objects, program.runtime):
        assert not [place for place in places if place in path.read_bytes()]


@pytest.mark.parametrize(
    ("arch", "main", "name", "kind", "says"),
    [
        ("arm64", "17", "cold", MissingError, "17@wheel generates no code for arm64; choose 16 or"),
        ("arm64", "gcc", "cold", MissingError, "gcc"),
        ("arm64", "19", "rust-cold", LabError, "rustc needs Apple's SDK"),
        ("arm64", "19", "jemalloc", LabError, "configured for this machine"),
        ("arm64", "19", "tepid", LabError, "choose from cold, hot"),
    ],
)
def test_what_cannot_be_built_is_one_line(
    arch: str, main: str, name: str, kind: type[LabError], says: str
) -> None:
    with pytest.raises(kind, match=says) as caught:
        built(arch, main, "16", name)
    assert "\n" not in str(caught.value)


def test_without_a_network_what_is_missing_is_said(
    compiler: Toolchain, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(
        LabError, match=r"installing macOS's headers, of Zig \S+: PyPI is not reach"
    ):
        target.compile_flags("arm64")
    monkeypatch.setattr(wheels, "supported", lambda: False)
    with pytest.raises(MissingError, match=r"macOS's headers, .*; use macOS's own"):
        runtime.archive("x86_64", compiler)
    with pytest.raises(MissingError, match=r"debian-clang-\S+: it is for Linux x86-64.*x86_64"):
        target.compiler("arm64", "19")
    assert [path.name for path in wheels.folder().iterdir() if path.suffix != ".lock"] == []


def test_sources_that_are_not_to_be_had_are_said(compiler: Toolchain) -> None:
    with pytest.raises(MissingError, match="sources of LLVM 98: no release known"):
        runtime.archive("x86_64", dataclasses.replace(compiler, version="98.1.2"))
