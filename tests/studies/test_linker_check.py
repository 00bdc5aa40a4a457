"""The prototype: every mix is an error of the linker, every uniform link is as it was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from nbsupport.base import process, settings
from nbsupport.base.errors import BuildError, LabError
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.studies import linker_check
from nbsupport.toolchains.probe import Toolchain

MAJORS = ("17", "18", "19", "22", "23")
Find = Callable[[str], Toolchain]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab that asks no debugger where a program crashed."""
    with Lab(debugger=False) as made:
        yield made


@pytest.fixture(scope="module")
def table(lab: Lab, toolchain: Find) -> pd.DataFrame:
    return linker_check.try_all(lab, [toolchain(name).major for name in MAJORS])


def test_every_mix_is_a_link_error_and_nothing_else_is(table: pd.DataFrame) -> None:
    assert len(table) == 25
    uniform = table.main_raw_version == table.foreign_raw_version
    assert uniform.sum() == 7
    assert set(table[uniform].guarded) == set(table[uniform].today) == {"ok"}
    assert set(table[~uniform].guarded) == {"refused"}
    assert set(table[~uniform].today) == {"crash", "ok"}
    lost = table[~uniform & (table.today == "ok")]  # what it takes away
    assert {
        frozenset(row) for row in zip(lost.main_raw_version, lost.foreign_raw_version, strict=True)
    } == {frozenset({9, 10})}


def test_the_linker_names_the_raw_version_that_has_no_runtime(table: pd.DataFrame) -> None:
    for row in table.to_dict("records"):
        expected = f"undefined hidden symbol: __llvm_profile_runtime_v{row['foreign_raw_version']}"
        assert row["message"] == (expected if row["guarded"] == "refused" else "")


def test_foreign_first_is_refused_too(lab: Lab) -> None:
    row = linker_check.link(lab, "19", "17", order="foreign-first")
    assert (row["today"], row["guarded"]) == ("version-mismatch", "refused")
    assert linker_check.link(lab, "19", "22", order="foreign-first")["guarded"] == "ok"


@pytest.mark.parametrize("linker", ["lld", "bfd", "gold"])
@pytest.mark.parametrize("flag", ["-pie", "-no-pie", "-shared", "-Wl,--gc-sections", "-Wl,-s"])
def test_any_linker_refuses_in_any_shape(
    lab: Lab, toolchain: Find, tmp_path: Path, linker: str, flag: str
) -> None:
    trial, tool = lab.trial("cold", "19", "17"), toolchain("19")
    linker_check.provide(tool, tmp_path / "give.o")
    main, foreign = (build.compiled(job, lab.cache) for job in build.jobs(trial))
    own = build.compiled(build.jobs(lab.trial("cold", "19", "22"))[1], lab.cache)
    for name, made in (("main", main), ("foreign", foreign), ("own", own)):
        linker_check.require(made, tmp_path / f"{name}.o", tool)
    for name in ("own", "foreign"):
        objects = ["main.o", f"{name}.o", "give.o", "-o", "out"]
        command: process.Command = [
            tool.compiler,
            f"-fuse-ld={linker}",
            flag,
            "-fprofile-generate",
            *objects,
        ]
        done = process.run(command, cwd=tmp_path, limits=settings.COMPILER)
        assert done.ok == (name == "own"), done.stderr
        said = re.search(
            r"undefined.*__llvm_profile_runtime_v8|__llvm_profile_runtime_v8.*undefined|hidden symbol .__llvm_profile_runtime_v8. isn't defined",
            done.stderr,
        )
        assert bool(said) == (name == "foreign"), done.stderr


def test_only_an_instrumented_object_can_refer_to_its_runtime(
    lab: Lab, toolchain: Find, tmp_path: Path
) -> None:
    plain = build.compiled(build.jobs(lab.trial("cold", "19", "gcc"))[1], lab.cache)
    (tmp_path / "text").write_text("text")
    for made in (plain, tmp_path / "text", tmp_path / "absent"):
        with pytest.raises(LabError, match="not of one raw version; give an instrumented"):
            linker_check.require(made, tmp_path / "out.o", toolchain("19"))
    with pytest.raises(BuildError, match=r"rewriting out\.o"):
        linker_check.provide(toolchain("19"), tmp_path / "absent" / "out.o")
    assert not (tmp_path / "out.o").exists()


@pytest.mark.parametrize(("main", "foreign"), [("19", "17"), ("18", "19")])
def test_the_test_for_llvm_fails_today_and_passes_with_the_guard(
    toolchain: Find, main: str, foreign: str
) -> None:
    tools = toolchain(main), toolchain(foreign)
    passed, output = linker_check.run_lit(*tools, guarded=False)
    assert not passed and re.search(r"error: command failed|Failed: 1", output)
    failed = re.findall(r"^# RUN: at line \d+\n(\S+)", output, re.MULTILINE)
    assert failed[-1] == "not" and failed.count("not") == 1  # the control before it passed
    passed, output = linker_check.run_lit(*tools, guarded=True)
    assert passed and "PASS: mixed records :: mixed-records.c (1 of 1)" in output
    assert "/pgo-lab-" not in output


def test_the_test_for_llvm_does_not_pass_where_nothing_is_mixed(toolchain: Find) -> None:
    passed, output = linker_check.run_lit(toolchain("19"), toolchain("22"), guarded=True)
    assert not passed and output.count("\nnot ") == 1
