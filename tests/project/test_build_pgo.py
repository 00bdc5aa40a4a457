"""data/build_pgo.sh on a cargo project with a C part, by the real cargo and compilers."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base import process
from nbsupport.toolchains import discovery, profdata
from nbsupport.toolchains.probe import Toolchain
from tests.support import pgo_project
from tests.support.pgo_project import PgoProject

SCRIPT = Path(__file__).parents[2] / "data" / "build_pgo.sh"
IN_RAW = '"$PGO_BIN" && cd "${LLVM_PROFILE_FILE%/*}" && raw=$(echo *) && '
Find = Callable[[str], Toolchain]


class Project(PgoProject):
    def build_pgo(self, *args: str | Path, **env: str) -> process.Finished:
        tool = profdata.tool(self.rustc)
        options = ("--cargo-arg", "--offline", "--profdata", tool)
        return self.run("bash", SCRIPT, *options, *args, **env)

    def profile(self) -> str:
        merged = self.folder / "target/pgo/merged.profdata"
        return self.run(profdata.tool(self.rustc), "show", "-all-functions", merged).stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    if not (shutil.which("cargo") and (rustc := shutil.which("rustc"))):
        pytest.skip("no cargo; install Rust by rustup, or apt-get install cargo-web rustc-web")
    folder, toolchain = tmp_path / "my project", discovery.find_rustc(rustc)
    pgo_project.write(folder, toolchain)
    return Project(folder, toolchain)


def test_without_the_script_the_training_crashes(project: Project, toolchain: Find) -> None:
    env = {"CC": str(toolchain("17").compiler), "RUSTFLAGS": "-Cprofile-generate=raw"}
    assert project.run("cargo", "build", "--offline", **env).ok
    assert project.run(project.folder / "target/debug/app").signal_name == "SIGSEGV"


@pytest.mark.parametrize("how", ["script", "bash"])
def test_a_training_that_crashes_is_rescued_script_and_all(
    project: Project, toolchain: Find, how: str
) -> None:
    """The training command that the script's help tells to write: one that runs "$PGO_BIN"."""
    env = {"CC": str(toolchain("17").compiler), "RUSTFLAGS": "-Cprofile-generate=raw"}
    assert project.run("cargo", "build", "--offline", **env).ok
    (project.folder / "train.sh").write_text('#!/bin/sh\n"$PGO_BIN" && "$PGO_BIN"\n')
    (project.folder / "train.sh").chmod(0o755)
    words = ["./train.sh"] if how == "script" else ["bash", "train.sh"]
    out = project.folder / "target/pgo/merged.profdata"
    rescue = Path(sys.executable).with_name("pgo-lab"), "rescue", "-o", out, "--"
    binary = str(project.folder / "target/debug/app")
    done = project.run(*rescue, *words, PGO_BIN=binary)
    assert done.ok and done.stdout == 2 * "2000 false\n", done.stderr
    assert "app: processes: 2, saved from memory: 2" in done.stderr
    assert "  part:" in project.profile() and "  main:" in project.profile()


def test_guards_c_and_keeps_the_flags_of_its_caller(project: Project, toolchain: Find) -> None:
    target = re.findall("host: (.*)", project.run("rustc", "-vV").stdout)[0].replace("-", "_")
    env = {"RUSTFLAGS": " --cfg  kept ", f"CFLAGS_{target}": "-DSTEP=3"}
    done = project.build_pgo("--cc", toolchain("17").compiler, "--", "{}", **env)
    assert done.ok and project.run(done.stdout.strip()).stdout == "3000 true\n", done.stderr
    assert "  main:" in project.profile()
    assert not re.search("  (part|plus):", project.profile())


@pytest.mark.parametrize("version", ["1.1.31", "1.2.2", "1.2.15", "1.2.16", "1.6.0"])
def test_says_where_the_flags_would_cure_nothing(
    project: Project, toolchain: Find, version: str
) -> None:
    """A cc crate that puts CFLAGS first; `pgo-lab build` takes another compiler there."""
    lock = f'[[package]]\nname = "cc"\nversion = "{version}"\n'
    (project.folder / "Cargo.lock").write_text(f'[[package]]\nname = "cc-x"\n\n{lock}')
    done = project.build_pgo("--dry-run", "--cc", toolchain("17").compiler, "--", "{}")
    assert done.exit_code == (1 if version in ("1.2.2", "1.2.15") else 0), done.stderr
    assert (f"cc {version} puts CFLAGS first" in done.stderr) == (done.exit_code == 1)
    assert project.build_pgo("--dry-run", "--", "{}").ok  # by gcc, to which it hands nothing


def test_instruments_c_by_a_clang_of_the_same_raw_version(project: Project) -> None:
    clang = discovery.companion(project.rustc).compiler
    done = project.build_pgo("--instrument-c", "--cc", clang, "--", "{}")
    assert done.ok and "  part:" in project.profile(), done.stderr
    assert "  plus:" not in project.profile()  # its compiler was not asked


def test_does_not_instrument_c_by_another(project: Project, toolchain: Find) -> None:
    for cc, message in ((toolchain("17").compiler, "raw profile version 8"), ("gcc", "no clang")):
        done = project.build_pgo("--instrument-c", "--cc", cc, "--", "{}")
        assert done.exit_code == 1 and message in done.stderr
    assert not (project.folder / "target").exists()


@pytest.mark.parametrize(
    ("training", "code", "message"),
    [
        ("true", 4, "wrote no profile"),
        ('"$PGO_BIN"; exit 3', 4, "exit code 3"),
        ("kill -SEGV $$", 4, "SIGSEGV"),
        ("kill -INT $PPID; sleep 0.1", 130, ""),
        (IN_RAW + ": >another", 5, "empty"),
        (IN_RAW + 'head -c 600 "$raw" >another', 5, "corrupt"),
        (IN_RAW + 'head -c $(($(wc -c <"$raw") - 8)) "$raw" >t; mv t "$raw"', 5, "profile data"),
    ],
)
def test_refuses_a_training_without_whole_profiles(
    project: Project, training: str, code: int, message: str
) -> None:
    done = project.build_pgo("--", "bash", "-c", training)
    assert (done.exit_code, done.stdout) == (code, "") and message in done.stderr
    kept = {path.name for path in (project.folder / "target/pgo").iterdir()}
    assert kept == {".build_pgo", "instrumented", "raw"}


def test_refuses_an_llvm_profdata_that_does_not_fit(project: Project, toolchain: Find) -> None:
    for tool in (toolchain(name).llvm_profdata for name in ("17", "23")):  # other raw versions
        done = project.build_pgo("--profdata", str(tool), "--", "{}")
        assert done.exit_code == 1 and f"{tool} does not fit" in done.stderr
    # Of a merged profile that is too new for it, rustc 1.85 only warns.
    done = project.build_pgo("--", "{}", RUSTC=str(discovery.find_rustc("19").compiler))
    assert "does not fit: warning: " in done.stderr and done.exit_code == 1
    missing = project.build_pgo("--profdata", "/nowhere/llvm-profdata", "--", "{}").stderr
    assert "none found" in missing and "rustup component add llvm-tools" in missing


def test_a_dry_run_writes_nothing(project: Project) -> None:
    before = sorted(project.folder.parent.rglob("*"))
    done = project.build_pgo("--dry-run", "--", "touch", "file")
    steps = re.findall(" build | touch file| merge |-Cprofile-use", done.stdout)
    assert steps == [" build ", " touch file", " merge ", "-Cprofile-use", " build "] and done.ok
    assert before == sorted(project.folder.parent.rglob("*"))


def test_refuses_what_it_would_lose(project: Project) -> None:
    assert project.build_pgo("--out", "src", "--", "{}").exit_code == 2
    assert project.build_pgo("--", "{}", RUSTFLAGS="-Cprofile-generate").exit_code == 2
    (project.folder / ".cargo").mkdir()
    (project.folder / ".cargo/config.toml").write_text("[build]\nrustflags = ['--cfg=kept']\n")
    assert project.build_pgo("--", "{}").exit_code == 2
    assert project.build_pgo("--dry-run", "--", "{}", RUSTFLAGS="").exit_code == 0
