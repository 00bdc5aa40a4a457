"""Objects of other systems and processors: Windows by both ABIs, big-endian, WebAssembly, AIX."""

from __future__ import annotations

import itertools
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.audit.judge import audit
from nbsupport.base.errors import MissingError
from nbsupport.toolchains import discovery
from tests.support.compiled import FOO, MAIN, Bench, only, pair, pe, raw, runs

MSVC, GNU = "pc-windows-msvc", "w64-windows-gnu"
HOW = ("-fprofile-generate", "-fprofile-instr-generate")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("machine", ["x86_64", "i686"])
def test_verdicts_on_windows_do_not_depend_on_the_abi(bench: Bench, machine: str, how: str) -> None:
    for first, second in itertools.product(("17", "18", "19", "23"), repeat=2):
        verdicts = []
        for abi in (MSVC, GNU):
            triple = f"{machine}-{abi}"
            objects = [bench.object(first, FOO, "-O1", how, triple=triple),
                       bench.object(second, MAIN, "-O1", how, triple=triple)]  # fmt: skip
            report = audit(objects)
            verdicts.append((report.verdict, [file.raw_versions for file in report.files]))
            if how == HOW[0]:
                mixed = raw(bench, first) != raw(bench, second)
                assert (report.verdict == "mixed") == mixed
        assert verdicts[0] == verdicts[1]


@pytest.mark.parametrize("machine", ["x86_64", "i686"])
def test_an_image_by_mingws_abi_is_read_as_by_the_other(bench: Bench, machine: str) -> None:
    objects = pair(bench, f"{machine}-{GNU}")
    flags = ["/lldmingw", *(["/safeseh:no"] if machine == "i686" else [])]
    image = pe(bench, f"{machine}-gnu.dll", *flags, *objects)
    part = only(image)
    assert runs(part) == ([(48, 1), (72, 1)] if machine == "x86_64" else [(40, 1), (56, 1)])
    assert audit([image]).verdict == "mixed"


#: A crate without a standard library: any target that the compiler knows.
RUST = """
#![feature(no_core, lang_items)]
#![no_core]
#![crate_type = "lib"]
#[lang = "sized"] trait Sized {}
#[lang = "copy"] trait Copy {}
impl Copy for i32 {}
#[no_mangle] pub extern "C" fn rusty(x: i32) -> i32 { x }
"""


@pytest.fixture(scope="session")
def rust(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that compiles the crate for a target by rustc of LLVM 19."""
    try:
        rustc = discovery.find_rustc("19")
    except MissingError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("rust")
    (folder / "lib.rs").write_text(RUST)
    env = {**os.environ, "RUSTC_BOOTSTRAP": "1"}  # no_core is for nightly compilers

    def compiled(target: str, *flags: str) -> Path:
        out = folder / f"{target}{len(flags)}.o"
        command = [str(rustc.compiler), "--target", target, *flags, "-Zno-profiler-runtime"]
        done = subprocess.run([*command, "--emit=obj", "lib.rs", "-o", out], cwd=folder, env=env,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return out

    return compiled


Rust = Callable[..., Path]
PROFILED = "-Cprofile-generate"


def test_rust_by_mingws_abi_is_no_mix_with_its_own_llvm_only(bench: Bench, rust: Rust) -> None:
    for target, triple in (
        ("x86_64-pc-windows-gnu", f"x86_64-{GNU}"),
        ("x86_64-pc-windows-msvc", f"x86_64-{MSVC}"),
    ):
        part = only(rust(target, PROFILED))
        assert (runs(part), part.raw_version) == ([(64, 1)], 1 << 56 | 10)
        for major, verdict in (("17", "mixed"), ("19", "consistent"), ("23", "mixed")):
            objects = [rust(target, PROFILED), bench.object(major, FOO, triple=triple)]
            assert audit(objects).verdict == verdict


#: A target of rustc's: format, target as we say it, bits, byte order.
TARGETS = {
    "s390x-unknown-linux-gnu": ("elf", "s390x-linux", 64, ">"),
    "powerpc-unknown-linux-gnu": ("elf", "powerpc-linux", 32, ">"),
    "mips-unknown-linux-gnu": ("elf", "mips-linux", 32, ">"),
    "riscv64gc-unknown-linux-gnu": ("elf", "riscv-linux", 64, "<"),
    "aarch64-unknown-linux-gnu": ("elf", "aarch64-linux", 64, "<"),
    "aarch64-apple-darwin": ("mach-o", "aarch64-apple-darwin", 64, "<"),
    "aarch64-pc-windows-msvc": ("coff", "aarch64-windows", 64, "<"),
}


@pytest.mark.parametrize("target", TARGETS)
def test_an_object_of_another_processor_is_read(rust: Rust, tmp_path: Path, target: str) -> None:
    whole = rust(target, PROFILED)
    part = only(whole)
    assert (part.format, part.target, part.bits, part.order) == TARGETS[target]
    assert part.raw_version == 1 << 56 | 10
    assert runs(part) == [(64 if part.bits == 64 else 48, 1)]
    assert audit([whole]).verdict == "consistent"
    assert audit([rust(target)]).verdict == "not-instrumented"
    data = whole.read_bytes()
    for n in range(2, 40):  # the 1st cuts leave less than what says which format it is
        (tmp_path / "cut.o").write_bytes(data[: len(data) * n // 40])
        assert audit([tmp_path / "cut.o"]).verdict == "unknown"


@pytest.mark.parametrize(
    ("target", "name"),
    [("wasm32-unknown-unknown", "WebAssembly"), ("powerpc64-ibm-aix", "XCOFF (AIX)")],
)
def test_what_is_not_read_is_named(
    rust: Rust, bench: Bench, tmp_path: Path, target: str, name: str
) -> None:
    whole = rust(target, PROFILED)
    report = audit([whole])
    why = f"{name}: instrumented; its records and its version are not read"
    assert (report.verdict, report.judgement.why) == ("unknown", f"{whole}: {why}")
    assert report.files[0].to_json()["format"] == ("wasm" if "wasm" in target else "xcoff")
    assert audit([rust(target)]).verdict == "not-instrumented"
    bench.run("19", "llvm-ar", "--format=gnu", "rcs", tmp_path / "x.a", whole)
    assert audit([tmp_path / "x.a"]).files[0].problems == (f"{whole.name}: {why}",)
    bench.run("19", "llvm-ar", "--format=bigarchive", "rcs", tmp_path / "aix.a", whole)
    assert audit([tmp_path / "aix.a"]).files[0].problems == ("an archive of AIX: not read",)
    data = rust(target).read_bytes()
    for n in range(4, 40):  # before, WebAssembly is cut just behind a section: that is a whole file
        (tmp_path / "cut.o").write_bytes(data[: len(data) * n // 40])
        assert audit([tmp_path / "cut.o"]).verdict == "unknown"


def test_xcoff_of_32_bits_is_told_by_its_header(tmp_path: Path) -> None:
    """By hand: magic, 1 section, no time, symbols at 60, 1 of them, no optional header, no flags."""
    header = struct.pack(">2H3I2H", 0x1DF, 1, 0, 60, 1, 0, 0)
    rest = 40 + 18 + 4  # a section's header, a symbol, the length of no names
    (tmp_path / "x.o").write_bytes(header + b"__llvm_prf_data".ljust(rest, b"\0"))
    assert audit([tmp_path / "x.o"]).verdict == "unknown"
    (tmp_path / "x.o").write_bytes(header + bytes(rest))
    assert audit([tmp_path / "x.o"]).verdict == "not-instrumented"
    (tmp_path / "x.o").write_bytes(header + bytes(rest - 1))
    assert audit([tmp_path / "x.o"]).verdict == "unknown"
