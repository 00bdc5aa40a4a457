"""Real projects are built by a real cargo and crash, or do not, by what compiled their C part."""

from __future__ import annotations

import dataclasses
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport import cases, files, toolchains
from nbsupport.errors import BuildError, LabError, MissingError
from nbsupport.probe import Toolchain

#: A project without C: `extra` goes to its Cargo.toml.
OWN = """\
folder = "project"
made = ["tiny"]
run_as = "tiny"
command = ["{made}"]
"""
Make = Callable[..., str]


@pytest.fixture(scope="module")
def rustc() -> Toolchain:
    return toolchains.find_rustc("19")


@pytest.fixture
def own(tmp_path: Path) -> Make:
    """Return a function that writes a case of a reader's own, and gives its path."""
    source = tmp_path / "project" / "src" / "target"  # a folder called `target`, and not cargo's
    source.mkdir(parents=True)
    (source / "mod.rs").write_text("pub fn run() {}\n")
    (source.parent / "main.rs").write_text("mod target;\nfn main() { target::run() }\n")

    def make(text: str = OWN, *, extra: str = "") -> str:
        package = '[package]\nname = "tiny"\nversion = "0.1.0"\nedition = "2021"\n'
        (tmp_path / "project" / "Cargo.toml").write_text(package + extra)
        (tmp_path / "own.toml").write_text(text)
        return str(tmp_path / "own.toml")

    return make


# -- the real projects


@pytest.mark.parametrize(("name", "rustc"), [("rust-cc-mimalloc", "19"), ("orjson", "22")])
def test_a_clang_of_another_raw_version_makes_it_crash(name: str, rustc: str) -> None:
    found = cases.trial(name, rustc, "17")
    assert found["outcome"] == "crash", found["detail"]
    assert found["frames"].startswith("__llvm_profile_instrument_target < ")
    assert found["mirrored"] and " -fprofile-generate=profiles " in found["command"]
    assert found["c_instrumented"] > 30
    assert (found["profile_valid"], found["c_functions"]) == (False, 0)


@pytest.mark.parametrize(("name", "rustc"), [("rust-cc-mimalloc", "19"), ("orjson", "22")])
def test_the_same_clang_told_not_to_instrument_is_healthy(name: str, rustc: str) -> None:
    found = cases.trial(name, rustc, "17", "-fno-profile-generate")
    assert found["outcome"] == "ok", found["detail"]
    # The flag is still mirrored, and then taken back.
    words = found["command"].split()
    assert words.index("-fprofile-generate=profiles") < words.index("-fno-profile-generate")
    assert found["profile_functions"] > 10
    assert found["c_instrumented"] == found["c_functions"] == 0


def test_a_clang_of_rustcs_raw_version_is_healthy_and_its_functions_are_in_the_profile() -> None:
    found = cases.trial("rust-cc-mimalloc", "19", "19")
    assert (found["outcome"], found["mirrored"]) == ("ok", True), found["detail"]
    assert found["c_functions"] == found["c_instrumented"] > 50
    assert found["profile_functions"] > found["c_functions"]


def test_the_flag_is_not_mirrored_to_gcc_whose_functions_are_missing() -> None:
    found, whole = (
        cases.trial("rust-cc-mimalloc", "19", "gcc"),
        cases.trial("rust-cc-mimalloc", "19", "19"),
    )
    assert (found["outcome"], found["mirrored"]) == ("ok", False), found["detail"]
    assert "profile-generate" not in found["command"]
    assert found["profile_functions"] + whole["c_functions"] == whole["profile_functions"]


def test_what_rustc_is_too_old_for_is_a_row_that_says_so() -> None:
    found = cases.trial("orjson", "19", "17")
    assert found["outcome"] == "build-failed"
    assert "requires rustc 1.95" in found["detail"]


# -- a reader's own


def test_a_project_without_a_c_part_has_no_command(
    own: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUSTC_WRAPPER", "not-of-the-case")
    found = cases.trial(own(), "19", "17")
    assert found["outcome"] == "ok", found["detail"]
    assert (found["mirrored"], found["command"], found["c_instrumented"]) == (None, "", 0)
    assert re.fullmatch(r"the profile merges: \d+ functions, and no C part", found["detail"])


def test_a_build_is_reused_until_its_source_changes(
    own: Make, rustc: Toolchain, clang: Path, tmp_path: Path
) -> None:
    case, cc = cases.get(own()), toolchains.find("19")
    first = cases.build(case, rustc, cc)
    (tmp_path / "project" / "target").mkdir()
    (tmp_path / "project" / "target" / "made").touch()
    assert cases.build(case, rustc, cc) == first
    (tmp_path / "project" / "src" / "target" / "mod.rs").write_text("pub fn run() { panic!() }\n")
    assert cases.exercise(cases.build(case, rustc, cc))[0].kind == "failed"
    assert sorted(path.name for path in first.folder.iterdir()) == ["built.json", "objects", "tiny"]


def test_what_cargo_would_have_to_download_is_said(own: Make) -> None:
    found = cases.trial(own(extra='[dependencies]\nserde = "1"\n'), "19", "17")
    assert found["outcome"] == "build-failed"
    assert "no matching package named `serde`" in found["detail"]
    assert "it needs the network" in found["detail"]


def test_what_does_not_compile_says_why(
    own: Make, tmp_path: Path, rustc: Toolchain, clang: Path
) -> None:
    case = cases.get(own())
    (tmp_path / "project" / "src" / "main.rs").write_text("fn main() { nothing() }\n")
    with pytest.raises(BuildError, match="cannot find function `nothing`") as caught:
        cases.build(case, rustc, toolchains.find("19"))
    assert "could not compile `tiny`" in caught.value.output


def test_a_file_that_cargo_does_not_make_is_missed(own: Make) -> None:
    found = cases.trial(own(OWN.replace('made = ["tiny"]', 'made = ["other"]')), "19", "17")
    assert "cargo made no other" in found["detail"]


def test_an_archive_with_another_hash_is_not_built(own: Make, tmp_path: Path) -> None:
    archive = tmp_path / "own.tar.gz"
    own()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "project", "own-1.0")
    where = f'url = "{archive.as_uri()}"\nfile = "own.tar.gz"\nsha256 = "%s"'
    text = OWN.replace('folder = "project"', where)
    with pytest.raises(LabError, match="its SHA-256 is"):
        cases.source(cases.get(own(text % ("0" * 64))), tmp_path)
    good = files.digest(archive)
    assert (cases.source(cases.get(own(text % good)), tmp_path) / "src" / "main.rs").is_file()


def test_without_network_the_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    with pytest.raises(MissingError, match=r"orjson==3\.13\.0"):
        cases.source(cases.get("orjson"), tmp_path)
    assert not [*tmp_path.glob("sources/orjson*")]


@pytest.mark.parametrize(("says", "why"), [("cargo 1.63.0", "too old"), (None, "not found")])
def test_a_cargo_that_will_not_do_is_missing(
    says: str | None,
    why: str,
    own: Make,
    rustc: Toolchain,
    clang: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if says:
        (tmp_path / "cargo").write_text(f"#!/bin/sh\necho {says}\n")
        (tmp_path / "cargo").chmod(0o755)
    here = dataclasses.replace(rustc, compiler=tmp_path / "rustc")
    monkeypatch.setattr(toolchains, "discover", lambda _: (here,))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=f"{why}.*rustup"):
        cases.build(cases.get(own()), here, rustc)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(LabError, match="orjson, rust-cc-jemalloc, rust-cc-mimalloc"):
        cases.get("evtx")
    assert cases.trial("evtx", "19", "17")["outcome"] == "build-failed"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("what", "TOML|Expected"),
        ("deep = " + "[" * 5000, "recursion"),
        ("colour = 1", "colour"),
        ("path = 'x'", "path"),
        ("size = '1'", "size"),
        ("made = [1]", "made"),
        ("env = { A = 1 }", "env"),
        (OWN + "env = { 'A=' = '1' }", "name that is none"),
        (OWN + 'env = { A = "\\u0000" }', "NUL"),
        (OWN + "url = 'https://host/file'", "one of"),
        (OWN.replace('folder = "project"', ""), "one of"),
        (OWN.replace('run_as = "tiny"', "run_as = '../tiny'"), "without a folder"),
        ("url = 'https://[::1'\n" + OWN.replace('folder = "project"', ""), "url"),
        (OWN.replace("command", "# "), "command"),
    ],
)
def test_a_file_that_is_not_a_case_is_refused_with_the_reason(
    text: str, why: str, own: Make
) -> None:
    with pytest.raises(LabError, match=why):
        cases.get(own(text))


def test_sources_are_found_where_tools_are_asked_for_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a Jupyter kernel does
    assert cases._sdist("orjson==3.13.0", tmp_path).endswith("/orjson-3.13.0.tar.gz")
