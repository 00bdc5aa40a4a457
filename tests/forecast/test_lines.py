"""The lines to paste: as a shell, cargo and cargo-pgo take them, for what is set already."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.forecast import lines
from nbsupport.forecast.lines import Lines
from nbsupport.toolchains.probe import Toolchain
from tests.forecast.conftest import Check, Write

UNDO = "-fno-profile-generate"
TARGET = "x86_64-unknown-linux-gnu"
FLAGS = ("-Cprofile-generate=p",)
NASTY = ("-Cprofile-generate=a b", '--cfg=x="$HOME\'s\\"')


@pytest.mark.parametrize(
    ("env", "flags"),
    [
        ({}, {f"CFLAGS_{TARGET.replace('-', '_')}": UNDO}),
        ({"CFLAGS": "-O2 -g"}, {"CFLAGS": f"-O2 -g {UNDO}"}),
        ({"CFLAGS": "-g", "HOST_CFLAGS": "-O2"}, {"HOST_CFLAGS": f"-O2 {UNDO}"}),
        ({"CFLAGS": "-g", f"CFLAGS_{TARGET}": ""}, {f"CFLAGS_{TARGET}": UNDO}),
    ],
)
def test_flags_are_appended_to_the_most_specific_variable_in_use(
    env: dict[str, str], flags: dict[str, str]
) -> None:
    undone = lines.undone(env, TARGET, TARGET)
    assert {
        name: value for name, value in undone.items() if name.startswith(("CFLAGS", "HOST"))
    } == flags
    assert UNDO in undone[f"CXXFLAGS_{TARGET.replace('-', '_')}"]


@pytest.mark.parametrize("rustflags", [FLAGS, NASTY])
@pytest.mark.parametrize("name", ["CFLAGS", f"CFLAGS_{TARGET}"])
def test_a_shell_reads_them_as_they_are_meant(
    rustflags: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    """bash runs the line, with a cargo that says what it was given."""
    own = Lines({name: f"-DX='$y' -I\"a b\" {UNDO}"}, rustflags, ("a@1.0.0", "b"), TARGET)
    first, build = own.shell().splitlines()
    assert first == "cargo clean --release -p a@1.0.0 -p b"
    cargo = tmp_path / "cargo"
    # Not in sh, which would drop a variable whose name has a dash.
    cargo.write_text(
        f"#!{sys.executable}\nimport os\nprint(*map('='.join, os.environ.items()), sep='\\0')\n"
    )
    cargo.chmod(0o755)
    command = ["/bin/bash", "-c", f"PATH={shlex.quote(str(tmp_path))}:$PATH\n{build}"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout[:-1]
    env = dict(line.split("=", 1) for line in out.split("\0") if "=" in line)
    assert env[name] == own.env[name]
    encoded = env.get("CARGO_ENCODED_RUSTFLAGS", "\x1f".join(env.get("RUSTFLAGS", "").split()))
    assert (
        tuple(encoded.split("\x1f"))
        == rustflags
        == tuple(own.build_env()["CARGO_ENCODED_RUSTFLAGS"].split("\x1f"))
    )


@pytest.mark.parametrize("rustflags", [FLAGS, NASTY])
def test_cargo_reads_them_as_they_are_meant(rustflags: tuple[str, ...]) -> None:
    env = {"CFLAGS": 'a "b"', f"CXXFLAGS_{TARGET}": UNDO}
    own = Lines(env, rustflags, (), TARGET, hiding="RUSTFLAGS")
    table = tomllib.loads(own.config())
    assert table["env"]["CFLAGS"] == {"value": 'a "b"', "force": True}
    assert table["env"][f"CXXFLAGS_{TARGET}"]["value"] == UNDO
    assert tuple(table["target"][TARGET]["rustflags"]) == rustflags


def test_cargo_pgo_brings_its_own_flag() -> None:
    own = Lines({"CFLAGS": UNDO}, ("-Ctarget-cpu=native", *FLAGS), ("a",), TARGET)
    clean, build = own.cargo_pgo().splitlines()
    assert clean == "cargo clean --release -p a"
    assert build == f'RUSTFLAGS="-Ctarget-cpu=native" CFLAGS="{UNDO}" cargo pgo build'


# -- what is chosen, for whom

GENERATE = {"RUSTFLAGS": "-Ctarget-cpu=x86-64 -Cprofile-generate=pgo"}
Find = Callable[[str], Toolchain]
OWN_CC = """\
[package]
name = "tiny"
version = "0.1.0"
edition = "2021"
[build-dependencies]
cc = { path = "cc" }
"""


@pytest.mark.parametrize(
    ("version", "env", "cure"),
    [
        (1, {}, {}),
        (6, {}, {"CC": "19"}),
        (9, {}, {"CC": "gcc", "CXX_x86_64_unknown_linux_gnu": "g++"}),
        (12, {"HOST_CC": "17"}, {"HOST_CC": "gcc"}),
        (16, {}, {"CFLAGS_x86_64_unknown_linux_gnu": UNDO}),
    ],
)
def test_where_cflags_come_first_another_compiler_is_the_cure(
    version: int,
    env: dict[str, str],
    cure: dict[str, str],
    write: Write,
    check: Check,
    toolchain: Find,
) -> None:
    """What a cc does is judged by its number: an empty crate of that number is enough."""
    manifest = f'[package]\nname = "cc"\nversion = "1.2.{version}"\nedition = "2021"\n'
    project = write(
        more={"cc/Cargo.toml": manifest, "cc/src/lib.rs": "", "Cargo.toml": OWN_CC},
        env={"CC": str(toolchain("17").compiler), **GENERATE},
    )
    forecast = check(project, **{name: str(toolchain(v).compiler) for name, v in env.items()})
    assert forecast.verdict == ("mixed" if cure else "consistent")
    assert forecast.lines
    for name, value in cure.items():
        compiler = str(toolchain(value).compiler) if value.isdecimal() else value
        assert forecast.lines.env[name] == compiler
    first = f"cc 1.2.{version} puts CFLAGS first" in forecast.advice
    assert first == ("cargo update -p cc" in forecast.advice) == (version in (6, 9, 12))


def test_gcc_gets_a_flag_of_an_old_cc_and_the_link_fails(
    write: Write, check: Check, toolchain: Find
) -> None:
    forecast = check(write("1.2.17", env={"CC": "gcc", "RUSTFLAGS": "-Cprofile-generate"}))
    assert (forecast.verdict, forecast.outcomes) == ("mixed", ("build-failed",))
    assert forecast.why == "cc 1.2.17 refuses -Cprofile-generate without a folder"
    assert forecast.lines
    assert forecast.lines.env == {}
    assert forecast.lines.rustflags[0] == "-Cprofile-generate=pgo-data"


@pytest.mark.parametrize("flags", ["-fprofile-generate", "-fprofile-arcs", "--coverage -O1"])
def test_flags_of_gcc_for_its_own_records_break_the_link_until_they_are_gone(
    flags: str, write: Write, check: Check
) -> None:
    project = write(env={"CC": "gcc", "CFLAGS": f"-g {flags}", **GENERATE})
    forecast = check(project)
    assert (forecast.verdict, forecast.outcomes) == ("mixed", ("build-failed",))
    assert "has no __gcov_init" in forecast.why
    assert forecast.lines
    assert check(project, **forecast.lines.env).verdict == "consistent"
    assert check(project, CFLAGS=f"{flags} -g").verdict == "mixed"


def test_the_flags_of_the_project_are_in_the_lines(
    write: Write, check: Check, toolchain: Find
) -> None:
    config = '[build]\nrustflags = ["-Ctarget-cpu=x86-64"]\n[env]\n'
    config += 'CFLAGS = { value = "-O1", force = true }\n'
    forecast = check(write(config=config, env={"CC": str(toolchain("17").compiler)}))
    assert "config.toml forces CFLAGS: change it there" in forecast.advice
    assert forecast.lines
    assert forecast.lines.rustflags[:2] == ("-Ctarget-cpu=x86-64", "-Cprofile-generate=pgo-data")
    assert forecast.lines.env["CFLAGS"] == f"-O1 {UNDO}"
    assert any("do not instrument yet" in note for note in forecast.notes)


def test_cpp_is_compiled_by_another_compiler(write: Write, check: Check, toolchain: Find) -> None:
    build = 'fn main() { cc::Build::new().cpp(true).file("part.cc").compile("part"); }\n'
    clang = toolchain("17").compiler
    own = write(build=build, env={"CC": str(clang), "CXX": "g++", **GENERATE})
    assert check(own).verdict == "consistent"
    forecast = check(own, CXX=str(clang.with_name("clang++")))
    assert (forecast.verdict, [call.language for call in forecast.calls]) == ("mixed", ["C++"])
