"""A program and a library that each bring a profile runtime: no mix, but two profiles in one file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.audit.judge import audit
from nbsupport.cli.commands import main
from nbsupport.toolchains.probe import Toolchain

Find = Callable[[str], Toolchain]
LIBRARY = (
    "int sdk(int n) { int s = 0; for (int i = 0; i < n; i++) s += i % 3 ? i : 2; return s; }\n"
)
MIDDLE = "int sdk(int); int middle(int n) { return sdk(n); }\n"
#: With an argument it dies before anything is written.
PROGRAM = """
#include <signal.h>
int sdk(int);
int main(int count, char **words) { if (count > 1) raise(SIGSEGV); return sdk(count + 4) == 99; }
"""
ADVICE = (
    "each image has its own runtime (8, 10): write with LLVM_PROFILE_FILE=%p-%m.profraw and merge"
    " each with its own LLVM (LLVM 14 to 17, LLVM 19 to 22)"
)


def build(folder: Path, compiler: Toolchain, source: str, *flags: str, out: str) -> Path:
    (folder / f"{out}.c").write_text(source)
    command = [str(compiler.compiler), "-O1", "-fuse-ld=lld", f"{out}.c", *flags, "-o", out]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / out


@pytest.fixture(params=["-fprofile-instr-generate", "-fprofile-generate"])
def folder(tmp_path: Path, toolchain: Find, request: pytest.FixtureRequest) -> Path:
    """A folder with a program of LLVM 19 and the library of LLVM 17 that it needs."""
    how = str(request.param)
    build(tmp_path, toolchain("17"), LIBRARY, how, "-fPIC", "-shared", out="libsdk.so")
    link = [how, "-L.", "-l:libsdk.so", "-Wl,-rpath,$ORIGIN"]
    build(tmp_path, toolchain("19"), PROGRAM, *link, out="app")
    return tmp_path


def test_both_named_or_both_in_one_folder_are_warned_of(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [str(folder / "app"), str(folder / "libsdk.so")]
    for paths in (both, both[::-1], [str(folder)]):
        assert main(["audit", "--json", *paths]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["verdict"] == "consistent"
        assert "as its own runtime expects" in document["why"]
        (warning,) = document["warnings"]
        assert (warning["kind"], warning["what"]) == ("runtimes", ADVICE)
        images = {image["path"]: image["runtime_raw_version"] for image in warning["images"]}
        assert images == {str(folder / "app"): 10, str(folder / "libsdk.so"): 8}
    assert main(["audit", "--strict", *both]) == 1
    shown = capsys.readouterr().out
    assert f"warning: {ADVICE}" in shown
    assert f"runtime of raw version 8: {folder / 'libsdk.so'}" in shown


def test_what_is_no_one_process_is_not_warned_of(folder: Path, toolchain: Find) -> None:
    alone = folder / "alone"
    alone.mkdir()
    for name in ("app", "libsdk.so"):
        assert audit([folder / name]).warnings == ()
    # Two programs, and a library that none of them needs.
    build(alone, toolchain("17"), LIBRARY, "-fprofile-generate", "-fPIC", "-shared", out="other.so")
    plain = "int main(void) { return 0; }\n"
    for major in ("17", "19"):
        build(alone, toolchain(major), plain, "-fprofile-generate", out=f"program{major}")
    assert audit([alone]).warnings == ()
    assert audit([alone / "program17", alone / "program19"]).warnings == ()
    assert main(["audit", "--strict", str(alone)]) == 0
    # A library of the same raw version.
    same = build(alone, toolchain("22"), LIBRARY, "-fprofile-generate", "-fPIC", "-shared",
                 out="libsdk.so")  # fmt: skip
    assert audit([folder / "app", same]).warnings == ()


def test_what_a_library_needs_is_of_the_process_too(folder: Path, toolchain: Find) -> None:
    far = folder / "far"
    far.mkdir()
    shutil.move(folder / "libsdk.so", far)
    build(
        far, toolchain("19"), MIDDLE, "-fPIC", "-shared", "-L.", "-l:libsdk.so", out="libmiddle.so"
    )
    program = PROGRAM.replace("sdk", "middle")
    flags = ["-fprofile-generate", "-L.", "-l:libmiddle.so", "-Wl,-rpath-link,."]
    build(far, toolchain("19"), program, *flags, out="app")
    (warning,) = audit([far]).warnings
    assert warning.runtimes == {far / "app": 10, far / "libsdk.so": 8}


def test_the_advice_works_also_after_a_crash(folder: Path, toolchain: Find) -> None:
    def start(name: str, *words: str) -> int:
        env = {**os.environ, "LLVM_PROFILE_FILE": name}
        return subprocess.run([folder / "app", *words], cwd=folder, env=env, check=False).returncode

    def functions(major: str, *profiles: Path) -> set[str]:
        tool = toolchain(major).llvm_profdata
        assert tool
        merged = subprocess.run([tool, "merge", "-text", *profiles, "-o", "-"], cwd=folder,
                                capture_output=True, text=True, check=False)  # fmt: skip
        lines = merged.stdout.splitlines()
        named = {line for line in lines if line in ("main", "sdk")}
        return named if merged.returncode == 0 else {"refused"}

    # One file for both is read by neither.
    assert start("both.profraw") == 0
    for major in ("17", "19"):
        assert functions(major, folder / "both.profraw") != {"main", "sdk"}
    assert start("%p-%m.profraw", "crash") == -signal.SIGSEGV
    left = set(folder.glob("*-*.profraw"))
    assert start("%p-%m.profraw") == 0
    written = set(folder.glob("*-*.profraw")) - left
    by_version = {path.read_bytes()[8]: path for path in written}
    assert sorted(by_version) == [8, 10]
    assert functions("17", by_version[8]) == {"sdk"}
    assert functions("19", by_version[10]) == {"main"}
