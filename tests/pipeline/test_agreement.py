"""`pgo-lab build` on real versions of the cc crate, and on real allocators, beside build_pgo.sh."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base import process, settings
from nbsupport.toolchains import discovery, profdata
from nbsupport.toolchains.probe import Toolchain
from tests.pipeline.conftest import PGO_LAB, SCRIPT
from tests.support import cargo_projects
from tests.support.cargo_projects import CargoProject

Find = Callable[[str], Toolchain]
SLOW = pytest.mark.slow


def run(project: CargoProject, *command: str | Path) -> process.Finished:
    env = project.environment()
    return process.run(command, cwd=project.folder, env=env, limits=settings.INSTALL)


def counts(project: CargoProject, out: str) -> dict[profdata.Key, profdata.TextRecord]:
    """Return each function of a merged profile, with its counts and values."""
    merged = project.folder / out / "merged.profdata"
    return profdata.parse(profdata.as_text(profdata.tool(project.rustc), merged).stdout)


@pytest.mark.parametrize(
    ("version", "rustc", "cc", "part"),
    [
        ("1.6.0", "19", "17", "C left out"),
        # CFLAGS come first there, and cure nothing: another compiler stands in.
        pytest.param("1.2.6", "19", "17", "with C", marks=SLOW),
        pytest.param("1.2.6", "22", "gcc", "with C", marks=SLOW),
        pytest.param("1.2.1", "19", "23", "C left out", marks=SLOW),
        pytest.param("1.1.31", "22", "17", "C left out", marks=SLOW),
        pytest.param("1.2.17", "22", "17", "C left out", marks=SLOW),
        pytest.param("1.2.29", "19", "gcc", "C left out", marks=SLOW),
        pytest.param("1.6.0", "22", "23", "C left out", marks=SLOW),
        pytest.param("1.6.0", "22", "22", "C left out", marks=SLOW),
    ],
)
def test_a_build_by_each_cc_is_whole(
    version: str, rustc: str, cc: str, part: str, tmp_path: Path, toolchain: Find
) -> None:
    env = {"CC": str(toolchain(cc).compiler), "CFLAGS": "-O1"}
    project = cargo_projects.write(tmp_path / "p", discovery.find_rustc(rustc), version, env=env)
    done = run(project, PGO_LAB, "build", "--train", "{}", "--", "--offline")
    assert done.ok, done.stderr
    line, program = done.stdout.splitlines()
    assert re.fullmatch(rf"whole: \d+ functions, {part}", line)
    assert run(project, program).ok
    assert ("part" in {name for name, _ in counts(project, "target/pgo")}) == (part == "with C")


@SLOW
@pytest.mark.parametrize("name", ["rust-cc-mimalloc", "rust-cc-jemalloc"])
@pytest.mark.parametrize(("cc", "c"), [("17", ""), ("gcc", ""), ("19", "in")])
def test_real_allocators_agree_with_the_script(
    name: str, cc: str, c: str, tmp_path: Path, toolchain: Find
) -> None:
    rustc = discovery.find_rustc("19")
    vendored = f'[source.v]\ndirectory = "{cargo_projects.crates("1.6.0")}"\n'
    source = f'[source.crates-io]\nreplace-with = "v"\n{vendored}'
    cargo_projects.copy_case(name, tmp_path / "p", source)
    env = cargo_projects.case_environment(name, rustc, CC=str(toolchain(cc).compiler))
    project = CargoProject(tmp_path / "p", rustc, env)
    cargo_projects.lock(project)
    keep = ["--instrument-c"] if c else []
    bins = ("--bin", "rust-cc")
    done = run(project, PGO_LAB, "build", *keep, "--train", "{}", "--", "--offline", *bins)
    assert done.ok, done.stderr
    tool = profdata.tool(rustc)
    options = ("--out", "target/script", "--cargo-arg", "--offline", "--profdata", tool, *bins)
    assert run(project, "bash", SCRIPT, *keep, *options, "--", "{}").ok
    ours, theirs = counts(project, "target/pgo"), counts(project, "target/script")
    assert ours.keys() == theirs.keys()
    number = re.match(r"whole: (\d+) functions, (.*)", done.stdout)
    assert number and number[2] == ("with C" if c else "C left out")
    assert int(number[1]) == len(ours)
