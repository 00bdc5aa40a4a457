"""The cc crate itself, in several versions, does what data/cc-crate.toml says of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError
from nbsupport.forecast import cc_crate
from nbsupport.toolchains.probe import Toolchain
from tests.forecast.conftest import Write
from tests.support import cargo_projects
from tests.support.cargo_projects import CargoProject

GENERATE = "-fprofile-generate=pgo"
#: In each place that flags may come from, one that tells where it came from.
PLACES = {"CFLAGS": "-DPLAIN", "HOST_CFLAGS": "-DHOST", "CFLAGS_{}": "-DTARGET"}


def versions(*quick: str) -> list[object]:
    table = files.read_toml(settings.data_dir() / "cc-crate.toml")
    slow = pytest.mark.slow
    return [v if v in quick else pytest.param(v, marks=slow) for v in table["built"]]


def compiled(project: CargoProject, compiler: Path, rustflags: str) -> tuple[list[str], str]:
    """Build with a compiler that says how it is called; return that, and why the build failed."""
    log = project.folder / "calls"
    log.unlink(missing_ok=True)
    line = f'case "$*" in *part.c*) echo "$*" >> {shlex.quote(str(log))};; esac'
    stand_in = cargo_projects.script(
        project.folder / f"{compiler.name}.sh", line, f'exec {shlex.quote(str(compiler))} "$@"'
    )
    triple = project.triple.replace("-", "_")
    flags = {name.format(triple): flag for name, flag in PLACES.items()}
    # One folder for each version of cc, which is compiled once: --target keeps flags from it.
    shared = str(project.folder.parent.parent / f"target-{project.cc}")
    env = project.environment(
        CC=str(stand_in), RUSTFLAGS=rustflags, CARGO_TARGET_DIR=shared, **flags
    )
    done = project.build(env, "--target", project.triple)
    return log.read_text().split() if log.exists() else [], "" if done.ok else done.stderr


@pytest.mark.parametrize("version", versions("1.2.1", "1.2.17"))
def test_a_version_hands_on_what_the_data_says_where_it_says(
    version: str, write: Write, toolchain: Callable[[str], Toolchain]
) -> None:
    era = cc_crate.era_of(version)
    project = write(version)
    names = cc_crate.variables("CFLAGS", project.triple, project.triple)
    env = {name.format(project.triple.replace("-", "_")): flag for name, flag in PLACES.items()}
    cflags = cc_crate.flags(env, names, era)
    for family, compiler in {"clang": toolchain("19"), "gnu": toolchain("gcc")}.items():
        words, why = compiled(project, compiler.compiler, "-Cprofile-generate=pgo")
        handed = [GENERATE] if family in era.families else []
        assert [word for word in words if word in (*cflags, GENERATE)] == (
            cc_crate.command_line(era, handed, cflags)
        )
        assert {word for word in words if word in PLACES.values()} == set(cflags)
        # gcc's own profile runtime is in no link of rustc's.
        assert bool(why) == (family == "gnu" and bool(handed))
        assert not why or "__gcov_init" in why


@pytest.mark.parametrize("version", versions("1.2.17"))
def test_a_flag_without_a_folder_is_refused_by_what_hands_it_on(
    version: str, write: Write, toolchain: Callable[[str], Toolchain]
) -> None:
    project = write(version)
    for compiler in ("19", "gcc"):
        words, why = compiled(project, toolchain(compiler).compiler, "-Cprofile-generate")
        assert bool(words) != cc_crate.era_of(version).folder
        assert bool(why) == cc_crate.era_of(version).folder
        assert not why or "-Cprofile-generate must have a value" in why


@pytest.mark.parametrize("version", versions("1.2.17"))
def test_a_clang_without_runtime_gets_the_flag_unless_it_is_tried_by_linking(
    version: str, write: Write, toolchain: Callable[[str], Toolchain]
) -> None:
    era = cc_crate.era_of(version)
    project = write(version)
    bare = cargo_projects.script(
        project.folder / "bare.sh",
        'case "$*" in *" -c"*) ;; *profile-generate*) echo no runtime >&2; exit 1;; esac',
        f'exec {shlex.quote(str(toolchain("19").compiler))} "$@"',
    )
    words, why = compiled(project, bare, "-Cprofile-generate=pgo")
    assert not why
    assert (GENERATE in words) == (bool(era.families) and not era.links)


def test_eras_are_in_order_and_each_says_where_it_is_known_from() -> None:
    eras = cc_crate.eras()
    assert [cc_crate.numbers(era.since) for era in eras] == sorted(
        cc_crate.numbers(era.since) for era in eras
    )
    assert all(re.search(r"pull request \d+", era.source) for era in eras[1:])
    table = files.read_toml(settings.data_dir() / "cc-crate.toml")
    assert len(table["built"]) >= 5 and set(table["built"]) <= set(table["looked_at"])


@pytest.mark.parametrize(
    ("text", "program", "arguments", "wrapper"),
    [
        ("clang-16", "clang-16", (), ""),
        (" clang-16 -m64 ", "clang-16", ("-m64",), ""),
        ("sccache clang", "clang", (), "sccache"),
        ("/opt/bin/ccache gcc -g", "gcc", ("-g",), "/opt/bin/ccache"),
        ("ccache", "ccache", (), ""),
        ("zig cc", "zig", ("cc",), ""),
        ("mine clang", "clang", (), "mine"),
    ],
)
def test_a_setting_is_a_compiler_its_arguments_and_what_stands_before_it(
    text: str, program: str, arguments: tuple[str, ...], wrapper: str
) -> None:
    env = {"CC": text, "CC_KNOWN_WRAPPER_CUSTOM": "mine"}
    tool = cc_crate.tool(env, "CC", "x", "x")
    assert tool == cc_crate.Tool("CC", program, arguments, wrapper)


def test_a_path_with_a_space_is_one_program(tmp_path: Path) -> None:
    path = cargo_projects.script(tmp_path / "a compiler")
    tool = cc_crate.tool({"CC": str(path)}, "CC", "x", "x")
    assert tool and tool.program == str(path)


def test_the_most_specific_setting_decides_even_an_empty_one() -> None:
    env = {"CC": "plain", "HOST_CC": "host", "TARGET_CC": "cross", "CC_a_b": "own"}
    for target, program in (("a-b", "own"), ("c-d", "cross"), ("e", "host")):
        tool = cc_crate.tool(env, "CC", target, "e")
        assert tool and tool.program == program
    assert cc_crate.tool({**env, "CC_a-b": ""}, "CC", "a-b", "e") is None


def test_flags_are_words_or_those_of_a_shell_where_that_is_said() -> None:
    era = cc_crate.era_of("1.6.0")
    env = {"CFLAGS": "-DA='b c'"}
    assert cc_crate.flags(env, ["CFLAGS"], era) == ["-DA='b", "c'"]
    env["CC_SHELL_ESCAPED_FLAGS"] = "1"
    assert cc_crate.flags(env, ["CFLAGS"], era) == ["-DA=b c"]
    with pytest.raises(LabError, match="no words of a shell"):
        cc_crate.flags({**env, "CFLAGS": "'"}, ["CFLAGS"], era)
