"""A check before a build, an audit after it, and the program's run say the same, or: not known."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbsupport.audit import judge
from nbsupport.forecast.verdict import Forecast
from nbsupport.lab import cases
from nbsupport.lab.lab import Lab
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain
from tests.forecast.conftest import Check, Write
from tests.support import cargo_projects
from tests.support.cargo_projects import CargoProject

Find = Callable[[str], Toolchain]
UNDO = "-fno-profile-generate"
FLAGS = {"RUSTFLAGS": "-Cprofile-generate=pgo"}


def agree(project: CargoProject, forecast: Forecast, lab: Lab) -> None:
    """Build and run what was checked, and compare."""
    done = project.build()
    if "build-failed" in forecast.outcomes:
        assert not done.ok
        return
    assert done.ok, done.stderr
    assert judge.audit([project.program]).verdict == forecast.verdict
    outcome = project.run(lab)
    assert outcome.kind in forecast.outcomes, outcome.detail


@pytest.mark.parametrize(("cc", "verdict"), [("17", "mixed"), ("gcc", "consistent")])
def test_what_is_checked_comes_true(
    cc: str, verdict: str, write: Write, check: Check, toolchain: Find, lab: Lab
) -> None:
    project = write(env={"CC": str(toolchain(cc).compiler), **FLAGS})
    forecast = check(project)
    assert forecast.verdict == verdict
    agree(project, forecast, lab)


def test_the_lines_to_paste_end_a_mix(
    write: Write, check: Check, toolchain: Find, lab: Lab
) -> None:
    """Over the build that mixed: without `cargo clean`, cargo would keep its objects."""
    clang = str(toolchain("17").compiler)
    project = write(env={"CC": clang, "CFLAGS": "-O1 -DKEPT", **FLAGS})
    forecast = check(project)
    agree(project, forecast, lab)
    assert forecast.lines
    assert forecast.lines.env["CFLAGS"] == f"-O1 -DKEPT {UNDO}"
    paste(project, forecast.lines.shell())
    assert judge.audit([project.program]).verdict == "consistent"
    assert project.run(lab).kind == "ok"


def paste(project: CargoProject, text: str) -> None:
    """Run lines in a shell, in the project's folder, with its cargo."""
    place = shlex.quote(str(project.cargo.parent))
    path = cargo_projects.script(project.folder / "paste.sh", f"PATH={place}:$PATH", "set -e", text)
    done = cargo_projects.run([path], project.folder, project.environment())
    assert done.ok, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("form", ["config", "cargo_pgo", "env"])
@pytest.mark.parametrize("major", ["19", "22"])
def test_each_form_of_the_lines_ends_a_mix(
    form: str, major: str, write: Write, check: Check, toolchain: Find, lab: Lab
) -> None:
    rustc = discovery.find_rustc(major)
    project = write(rustc=rustc, env={"CC": str(toolchain("17").compiler)})
    mixing = {**project.environment(), **FLAGS}
    assert project.build(mixing).ok
    assert judge.audit([project.program]).verdict == "mixed"
    lines = check(project, **FLAGS).lines
    assert lines
    env = project.environment()
    if form == "config":
        path = project.folder / ".cargo" / "config.toml"
        path.write_text(f"{path.read_text()}\n{lines.config()}\n")
    elif form == "cargo_pgo":  # as cargo-pgo calls cargo; it is no package of ours
        text = lines.cargo_pgo().replace("cargo pgo build", "cargo build --release")
        paste(project, f"export RUSTFLAGS={FLAGS['RUSTFLAGS']}\n{text}")
    else:
        env |= lines.build_env()
    if form != "cargo_pgo":
        words = shlex.split(lines.clean[0])[1:]
        assert cargo_projects.run([project.cargo, *words], project.folder, env).ok
        assert project.build(env).ok
    assert judge.audit([project.program]).verdict == "consistent"
    assert project.run(lab).kind == "ok"


# -- versions of cc, compilers, flags


def cells() -> list[Any]:
    rows = [
        (cc, compiler, cflags)
        for cc in ("1.1.31", "1.2.6", "1.2.17", "1.6.0")
        for compiler in ("17", "22", "gcc", "23")
        for cflags in ("", UNDO)
    ]
    return [pytest.param(*row, marks=pytest.mark.slow) for row in rows]


@pytest.mark.parametrize(("cc", "compiler", "cflags"), cells())
def test_versions_of_cc_with_compilers_and_flags(
    cc: str, compiler: str, cflags: str, write: Write, check: Check, toolchain: Find, lab: Lab
) -> None:
    env = {"CC": str(toolchain(compiler).compiler), "CFLAGS": cflags, **FLAGS}
    project = write(cc, env=env)
    forecast = check(project)
    agree(project, forecast, lab)
    if forecast.verdict != "mixed":
        return
    assert forecast.lines
    if forecast.lines.before:  # a newer cc is not to be had here
        assert forecast.lines.before == ("cargo update -p cc",)
        return
    paste(project, forecast.lines.shell())
    assert judge.audit([project.program]).verdict in ("consistent", "not-instrumented")
    assert project.run(lab).kind == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["17", "19", "22", "gcc"])
@pytest.mark.parametrize("cflags", ["", UNDO])
@pytest.mark.parametrize("name", ["rust-cc-mimalloc", "rust-cc-jemalloc"])
def test_the_real_cases(
    name: str, compiler: str, cflags: str, check: Check, tmp_path: Path, rustc: Toolchain
) -> None:
    row = cases.trial(name, "19", compiler, cflags)
    case, cc = cases.get(name), discovery.find(compiler)
    vendored = cargo_projects.crates("1.6.0")
    config = f'[source.crates-io]\nreplace-with="v"\n[source.v]\ndirectory="{vendored}"\n'
    cargo_projects.copy_case(name, tmp_path / "case", config)
    env = {"CC": str(cc.compiler), "CFLAGS": cflags, **case.env}
    env["RUSTFLAGS"] = " ".join(cases.INSTRUMENT)
    project = CargoProject(tmp_path / "case", rustc, env)
    cargo_projects.lock(project)
    forecast = check(project)
    built = cases.build(case, rustc, cc, cflags)
    assert judge.audit([built.folder / case.run_as]).verdict == forecast.verdict
    assert row["outcome"] in forecast.outcomes, row["detail"]


# -- build scripts that choose

CHOOSING = {
    "compiler": 'cc::Build::new().compiler(std::env::var("OTHER").unwrap()).file("part.c")',
    "inherit": 'cc::Build::new().inherit_rustflags(false).file("part.c")',
    "set-cc": 'std::env::set_var("CC", std::env::var("OTHER").unwrap()); cc::Build::new().file("part.c")',
    "set-cflags": f'std::env::set_var("CFLAGS", "{UNDO}"); cc::Build::new().file("part.c")',
    "flag": f'cc::Build::new().flag("{UNDO}").file("part.c")',
    "command": (
        'let out = std::env::var("OUT_DIR").unwrap();'
        'std::process::Command::new("sh").arg("-c").arg("true").status().unwrap();'
        'assert!(!out.is_empty()); cc::Build::new().file("part.c")'
    ),
    "own-compiler": (
        'let c = cc::Build::new().get_compiler(); let out = std::env::var("OUT_DIR").unwrap();'
        'std::process::Command::new(c.path()).args(["-c", "part.c", "-o"])'
        '.arg(format!("{out}/own.o")).status().unwrap(); cc::Build::new().file("part.c")'
    ),
    "module": 'helper::choose(cc::Build::new().file("part.c"))',
}
HELPER = """\
pub fn choose(build: &mut cc::Build) -> &mut cc::Build {
    build.compiler(std::env::var("OTHER").unwrap())
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", CHOOSING)
def test_a_build_script_that_chooses_is_not_known(
    how: str, write: Write, check: Check, toolchain: Find, lab: Lab
) -> None:
    body = f'fn main() {{ {CHOOSING[how]}.compile("part"); }}\n'
    text = f"mod helper;\n{body}" if how == "module" else body
    env = {"CC": str(toolchain("17").compiler), "OTHER": str(toolchain("19").compiler), **FLAGS}
    project = write(build=text, more={"helper.rs": HELPER}, env=env)
    forecast = check(project)
    assert (forecast.verdict, forecast.exit_code) == ("unknown", 2)
    assert forecast.why.startswith("build.rs of tiny 0.1.0: ")
    done = project.build()
    assert done.ok, done.stderr
    # Either may come of it, and so nothing is promised.
    assert judge.audit([project.program]).verdict in ("mixed", "consistent")
