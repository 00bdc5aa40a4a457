"""`pgo-lab check`: the contract for scripts, and what people see."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain
from tests.support import cargo_projects
from tests.support.cargo_projects import CargoProject

PGO_LAB = [sys.executable, "-c", "from nbsupport.cli.commands import entry; entry()"]
FLAGS = {"RUSTFLAGS": "-Cprofile-generate=pgo"}


def pgo_lab(project: CargoProject, *args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PGO_LAB, "check", *args],
        capture_output=True,
        text=True,
        check=False,
        cwd=project.folder,
        env=project.environment(),
    )


@pytest.fixture
def mixing(toolchain: Callable[[str], Toolchain], tmp_path: Path) -> CargoProject:
    return cargo_projects.write(
        tmp_path / "project",
        discovery.find_rustc("19"),
        env={"CC": str(toolchain("17").compiler), **FLAGS},
    )


def test_json_is_one_document_and_the_exit_code_the_verdict(mixing: CargoProject) -> None:
    for args in ((), (mixing.folder,)):
        done = pgo_lab(mixing, *args, "--json")
        assert (done.returncode, done.stderr) == (1, "")
        document = json.loads(done.stdout)
        assert list(document) == [
            *("verdict", "why", "outcomes", "rustc", "compilers", "not_known", "llvm_profdata"),
            *("notes", "advice", "lines"),
        ]
        assert (document["verdict"], document["outcomes"]) == ("mixed", ["crash", "malformed"])
        (compiler,) = document["compilers"]
        assert (compiler["family"], compiler["raw_versions"]) == ("clang", [8])
        assert compiler["packages"] == ["tiny 0.1.0"]
        environment = document["lines"]["environment"]
        assert "-fno-profile-generate" in environment["CFLAGS_x86_64_unknown_linux_gnu"]
        assert document["lines"]["shell"].endswith("cargo build --release")
    done = pgo_lab(mixing, mixing.folder, "--with", "gcc", "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "consistent")
    (mixing.folder / "build.rs").write_text('fn main() { cc::Build::new().compiler("x"); }\n')
    done = pgo_lab(mixing, "--json")
    assert (done.returncode, done.stderr, json.loads(done.stdout)["verdict"]) == (2, "", "unknown")


def test_people_read_the_verdict_first_and_can_paste(mixing: CargoProject) -> None:
    done = pgo_lab(mixing)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("mixed: the runtime of raw version 10 (LLVM 19 to 22) walks ")
    assert lines[1] == "what will happen: crash or malformed"
    assert any(": clang 17.0.6, raw version 8" in line for line in lines)
    assert "cargo clean --release -p tiny@0.1.0" in lines
    assert "[env]" in lines and any(line.endswith("cargo pgo build") for line in lines)
    assert "\x1b" not in done.stdout


def test_what_cannot_be_read_is_one_line_on_standard_error(mixing: CargoProject) -> None:
    (mixing.folder / "Cargo.lock").unlink()
    two = (mixing.folder, "--with", "a", "--with", "b")
    for args in ((), ("--json",), ("nowhere",), ("--with", "no-such-compiler"), two):
        done = pgo_lab(mixing, *args)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("pgo-lab: ") and done.stderr.count("\n") == 1


def test_names_in_files_do_not_control_the_terminal(mixing: CargoProject, tmp_path: Path) -> None:
    folder = tmp_path / "commands"
    folder.mkdir()
    entry = {"file": "a.c", "command": "no-\x1b[31m-compiler -c a.c"}
    (folder / "compile_commands.json").write_text(json.dumps([entry]))
    done = pgo_lab(mixing, folder)
    assert done.returncode == 2 and r"no-\x1b[31m-compiler" in done.stderr
