"""Real projects are built by a real cargo and crash, or do not, by what compiled their C part."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
import tarfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbsupport.base import files, process, progress, settings
from nbsupport.base.errors import BuildError, LabError, MissingError
from nbsupport.crash.debugger import Debugger, open_debugger
from nbsupport.lab import cases
from nbsupport.lab.lab import Lab
from nbsupport.toolchains import discovery, download, profdata
from nbsupport.toolchains.probe import Toolchain
from tests.support import repositories
from tests.support.repositories import WITH_C, Repository

#: A project without C: `extra` goes to its Cargo.toml.
OWN = """\
folder = "project"
made = ["tiny"]
run_as = "tiny"
command = ["{made}"]
"""
Make = Callable[..., str]
#: orjson's sources have the cc crate.
VENDORED = """\
vendor = "orjson"
vendored = "include/cargo"
"""


@pytest.fixture(scope="module")
def rustc() -> Toolchain:
    return discovery.find_rustc("19")


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


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Return a lab that has built nothing yet."""
    sources, toolchains = cases.source(cases.get("orjson")), settings.cache_dir() / "toolchains"
    cache = tmp_path / "cache"
    monkeypatch.setattr(settings, "cache_dir", lambda: cache)
    (cache / "sources").mkdir(parents=True)
    (cache / "sources" / sources.name).symlink_to(sources)
    (cache / "toolchains").symlink_to(toolchains)
    with Lab() as made:
        yield made


@pytest.fixture
def stand_in(tmp_path: Path) -> tuple[str, Path]:
    """Return a case that is evtx but for its address, where an archive of `WITH_C` is; and that."""
    for name, text in WITH_C.items():
        files.write(tmp_path / "evtx-992cc28" / name, text)
    archive = tmp_path / "served.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "evtx-992cc28", "evtx-992cc28")
    text = cases.get("evtx").path.read_text().replace('"--locked", ', "")
    where = f'file = "evtx-992cc28.tar.gz"\nurl = "{archive.as_uri()}"'
    text = re.sub("^git = .*\ncommit = .*", where, text, flags=re.MULTILINE)
    (tmp_path / "stand-in.toml").write_text(text + VENDORED)
    return str(tmp_path / "stand-in.toml"), archive


@pytest.fixture
def repository(tmp_path: Path, fresh: Lab, rustc: Toolchain) -> Repository:
    return repositories.make(tmp_path, rustc)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # urllib looks at them once; what it has seen so far is for the other tests.
    monkeypatch.setattr(urllib.request, "_opener", None)


def good(archive: Path) -> str:
    return hashlib.sha256(archive.read_bytes()).hexdigest()


def failed(row: dict[str, Any], why: str) -> None:
    """Check that a row of a table says in one line why there was nothing to run."""
    assert row["outcome"] == "build-failed"
    assert re.search(why, row["detail"]), row["detail"]
    assert "\n" not in row["detail"] and len(row["detail"]) < 500


# -- the real projects


ORJSON = pytest.param("orjson", "22", marks=pytest.mark.whole)


@pytest.mark.parametrize(("name", "rustc"), [("rust-cc-mimalloc", "19"), ORJSON])
def test_a_clang_of_another_raw_version_makes_it_crash(name: str, rustc: str) -> None:
    caller = {"rust-cc-mimalloc": "_?mi_", "orjson": "yyjson_read_opts < "}[name]
    found = cases.trial(name, rustc, "17")
    assert found["outcome"] == "crash", found["detail"]
    assert re.match(f"__llvm_profile_instrument_target < {caller}", found["frames"])
    assert (found["function"], found["signal"]) == ("__llvm_profile_instrument_target", "SIGSEGV")
    assert found["mirrored"] and " -fprofile-generate=profiles " in found["command"]
    assert found["c_instrumented"] > 30
    assert (found["profile_valid"], found["c_functions"]) == (False, 0)


@pytest.mark.parametrize(("name", "rustc"), [("rust-cc-mimalloc", "19"), ORJSON])
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
    failed(cases.trial("orjson", "19", "17"), r"requires rustc 1\.95")


def test_the_debugger_of_one_crash_is_there_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def opening(*debuggers: Path | None) -> Debugger | None:
        opened.append(real(*debuggers))
        return opened[-1]

    real = open_debugger
    monkeypatch.setattr("nbsupport.lab.lab.open_debugger", opening)
    with Lab() as lab:
        rows = [cases.trial("rust-cc-mimalloc", "19", "17", lab=lab) for _ in range(2)]
    assert [row["outcome"] for row in rows] == ["crash"] * 2
    assert rows[0]["frames"] == rows[1]["frames"] != ""
    assert len(opened) == 1


# -- evtx: a stand-in, for want of network


def test_evtx_is_built_and_run_as_its_notes_say_and_its_hash_is_the_first_one_seen(
    stand_in: tuple[str, Path], fresh: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, archive = stand_in
    lines: list[str] = []
    monkeypatch.setattr(progress, "say", lines.append)
    found = cases.trial(name, "19", "19", lab=fresh)
    assert found["outcome"] == "ok", found["detail"]
    assert found["c_instrumented"] == found["c_functions"] == 1
    said = f"evtx-992cc28.tar.gz: no SHA-256 is pinned; from now on it has to be {good(archive)}"
    assert lines.count(said) == 1
    kept = cases.source(cases.get(name))
    assert kept.is_relative_to(fresh.cache / "sources")

    shutil.rmtree(kept)
    assert cases.source(cases.get(name)).is_dir()
    shutil.rmtree(kept)
    changed = archive.with_name("evtx-992cc28")
    (changed / "part.c").write_text("int part(int n) { return n + 2; }\n")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(changed, changed.name)
    failed(cases.trial(name, "19", "19", lab=fresh), "its SHA-256 is .*, not the pinned ")
    assert not kept.exists()
    kept.with_name(f"{kept.name}.sha256").unlink()  # as a reader may, who trusts it
    assert cases.trial(name, "19", "19", lab=fresh)["outcome"] == "failed"


def test_what_cannot_be_unpacked_does_not_pin_its_hash(
    stand_in: tuple[str, Path], cache: Path
) -> None:
    name, archive = stand_in
    whole = archive.read_bytes()
    archive.write_text("<html>Please log in</html>")
    with pytest.raises(LabError, match=r"unpacking evtx-992cc28\.tar\.gz"):
        cases.source(cases.get(name))
    archive.write_bytes(whole)
    assert (cases.source(cases.get(name)) / "build.rs").is_file()


def test_another_address_is_another_source(stand_in: tuple[str, Path], cache: Path) -> None:
    name, archive = stand_in
    first = cases.get(name)
    other = dataclasses.replace(first, url=Path(shutil.copy(archive, cache / "2")).as_uri())
    assert cases.source(first) != cases.source(other)


@pytest.mark.usefixtures("offline")
def test_without_network_evtx_is_a_row_that_says_so(fresh: Lab) -> None:
    failed(cases.trial("evtx", "19", "17", lab=fresh), "^commit 992cc2844ed6 of https:.*network, ")


# -- evtx as a commit of a repository


def test_a_commit_is_built_with_a_folder_of_crates(repository: Repository, fresh: Lab) -> None:
    repository.commit("second")  # what is built is what is pinned, not the newest
    row = cases.trial(repository.case, "19", "19", lab=fresh, vendored=str(repository.crates))
    assert row["outcome"] == "ok", row["detail"]
    assert row["c_instrumented"] == row["c_functions"] == 1
    kept = cases.source(cases.get(repository.case))
    assert (kept / "src" / "main.rs").read_text().endswith("// first\n")
    assert not (kept / ".git").exists()
    crash = cases.trial(repository.case, "19", "17", lab=fresh, vendored=str(repository.crates))
    assert crash["outcome"] == "crash", crash["detail"]


def test_a_wrong_commit_is_one_line(
    repository: Repository, fresh: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = "1" * 40
    repository.pin(absent)
    failed(
        cases.trial(repository.case, "19", "19", lab=fresh), f"commit {absent[:12]} of .*fatal: "
    )
    assert not (fresh.cache / "sources" / f"evtx-{absent[:12]}").exists()
    repository.pin(repository.commits[0], (repository.folder / "none").as_uri())
    failed(cases.trial(repository.case, "19", "19", lab=fresh), "does not appear to be a git repo")
    tag = repository.git("tag", "-a", "-m", "a tag", "v1") or repository.git("rev-parse", "v1")
    repository.pin(tag)
    failed(cases.trial(repository.case, "19", "19", lab=fresh), "the repository gave [0-9a-f]{40}")
    for bad in ("main", repository.commits[0][:12], ""):
        repository.pin(bad)
        failed(cases.trial(repository.case, "19", "19", lab=fresh), "it needs commit, the whole id")
    monkeypatch.setenv("PATH", "/nowhere")
    repository.pin(repository.commits[0])
    with pytest.raises(MissingError, match="install git"):
        cases.source(cases.get(repository.case))


def test_a_damaged_repository_is_one_line(repository: Repository, fresh: Lab) -> None:
    """git computes the id of what comes; what was altered has another one."""
    blob = repository.git("rev-parse", "HEAD:part.c")
    path = repository.folder / ".git" / "objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    content = b"int part(int n) { return n + 3; }\n"
    path.write_bytes(zlib.compress(b"blob %d\0" % len(content) + content))
    failed(cases.trial(repository.case, "19", "19", lab=fresh), "commit .* of file:.*")


def test_crates_that_are_altered_or_missing_are_one_line(
    repository: Repository, fresh: Lab
) -> None:
    source = repository.crates / "cc" / "src" / "lib.rs"
    whole, crates = source.read_text(), str(repository.crates)
    source.write_text(whole + "// altered\n")
    failed(
        cases.trial(repository.case, "19", "19", lab=fresh, vendored=crates), "checksum .*change"
    )
    source.write_text(whole)
    note = repository.crates / "cc" / ".cargo-checksum.json"
    other = re.sub(r'("package":")[0-9a-f]{4}', r"\g<1>0000", note.read_text())
    note.write_text(other)  # another crate of that name and version than Cargo.lock has
    failed(cases.trial(repository.case, "19", "19", lab=fresh, vendored=crates), "checksum for `cc")
    shutil.rmtree(repository.crates / "cc")
    failed(cases.trial(repository.case, "19", "19", lab=fresh, vendored=crates), "`cc`")
    row = cases.trial(repository.case, "19", "19", lab=fresh, vendored=f"{crates}-none")
    failed(row, "no folder .*vendor-none; make it by cargo vendor")


# -- a reader's own


def test_what_a_reader_has_pinned_for_other_builds_does_not_reach_this_one(
    stand_in: tuple[str, Path], fresh: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUSTC_WRAPPER", "not-of-the-case")
    for who in ("x86_64_unknown_linux_gnu", "aarch64_apple_darwin"):
        monkeypatch.setenv(f"CC_{who}", "not-of-the-case")
        monkeypatch.setenv(f"CFLAGS_{who}", "-Dnot_of_the_case")
    monkeypatch.setenv("HOST_CC", "not-of-the-case")
    monkeypatch.setenv("HOST_CFLAGS", "-Dnot_of_the_case")
    found = cases.trial(stand_in[0], "19", "17", "-Dof_the_case", lab=fresh)
    words = found["command"].split()
    assert words[:1] == [str(discovery.find("17").compiler)], found["detail"]
    assert "-Dof_the_case" in words and "-Dnot_of_the_case" not in words


def test_a_project_without_a_c_part_has_no_command(own: Make) -> None:
    found = cases.trial(own(), "19", "17")
    assert found["outcome"] == "ok", found["detail"]
    assert (found["mirrored"], found["command"], found["c_instrumented"]) == (None, "", 0)
    assert re.fullmatch(r"the profile merges: \d+ functions, and no C part", found["detail"])


def test_a_build_is_reused_until_its_source_changes(
    own: Make, rustc: Toolchain, clang: Path, tmp_path: Path, lab: Lab
) -> None:
    case, cc = cases.get(own()), discovery.find("19")
    first = cases.build(case, rustc, cc)
    (tmp_path / "project" / "target").mkdir()
    (tmp_path / "project" / "target" / "made").touch()
    assert cases.build(case, rustc, cc) == first
    (tmp_path / "project" / "src" / "target" / "mod.rs").write_text("pub fn run() { panic!() }\n")
    assert cases.exercise(cases.build(case, rustc, cc), lab)[0].kind == "failed"
    assert sorted(path.name for path in first.folder.iterdir()) == ["built.json", "objects", "tiny"]


def test_what_build_scripts_need_is_compiled_once_for_all_builds(
    stand_in: tuple[str, Path], fresh: Lab, rustc: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, said, run = cases.get(stand_in[0]), list[str](), files.run_tool

    def listening(*arguments: Any) -> process.Finished:
        done = run(*arguments)
        said.append(done.stderr)
        return done

    monkeypatch.setattr(files, "run_tool", listening)
    for cc in ("19", "17"):
        cases.build(case, rustc, discovery.find(cc))
    first, second = said
    assert "Compiling cc v" in first and "Compiling evtx_dump" in first
    assert "Compiling cc v" not in second and "Compiling evtx_dump" in second


def test_a_build_by_a_profile_is_another_one_for_each_profile(
    own: Make, rustc: Toolchain, clang: Path, tmp_path: Path, lab: Lab
) -> None:
    case, cc, made = cases.get(own()), discovery.find("19"), []
    text, profile = tmp_path / "own.proftext", tmp_path / "own.profdata"
    tool = profdata.tool(cc)
    warn = ("-Cllvm-args=-pgo-warn-missing-function",)
    for count in (1, 2):
        text.write_text(f":ir\nmain\n1\n1\n{count}\n")
        assert files.run_tool((tool, "merge", "-o", profile, text), tmp_path).ok
        made.append(cases.build(case, rustc, cc, rustflags=warn, profile=profile))
    assert made[0].folder != made[1].folder
    assert any("no profile data available for function" in one for one in made[0].warnings)
    plain = cases.build(case, rustc, cc, rustflags=())
    assert plain.warnings == ()
    assert cases.exercise(plain, lab)[0].kind == "no-profile"
    profile.unlink()
    with pytest.raises(LabError, match=r"case own: .*own\.profdata"):
        cases.build(case, rustc, cc, profile=profile)


def test_what_cargo_would_have_to_download_is_said(own: Make) -> None:
    extra = '[dependencies]\nserde = "1"\n'
    why = "no matching package named `serde`.*it needs the network: say network = true"
    failed(cases.trial(own(extra=extra), "19", "17"), why)
    # As without one: cargo's own setting of a proxy, where nobody listens.
    env = 'env = { CARGO_HTTP_PROXY = "http://127.0.0.1:9", CARGO_NET_RETRY = "0" }\n'
    found = cases.trial(own(OWN + env + "network = true\n", extra=extra), "19", "17")
    failed(found, "failed to get `serde`.*it needs the network: check that")


def test_what_does_not_compile_says_why(
    own: Make, tmp_path: Path, rustc: Toolchain, clang: Path
) -> None:
    case = cases.get(own())
    (tmp_path / "project" / "src" / "main.rs").write_text("fn main() { nothing() }\n")
    with pytest.raises(BuildError, match="cannot find function `nothing`") as caught:
        cases.build(case, rustc, discovery.find("19"))
    assert "could not compile `tiny`" in caught.value.output
    failed(cases.trial(own(), "19", "19"), "cannot find function `nothing`")


def test_a_file_that_cargo_does_not_make_is_missed(own: Make) -> None:
    other = own(OWN.replace('made = ["tiny"]', 'made = ["other"]'))
    failed(cases.trial(other, "19", "17"), "cargo made no other")


def test_an_archive_with_another_hash_is_not_built(stand_in: tuple[str, Path], fresh: Lab) -> None:
    name, archive = stand_in
    text = Path(name).read_text()
    Path(name).write_text(f'sha256 = "{"0" * 64}"\n{text}')
    failed(cases.trial(name, "19", "17", lab=fresh), "its SHA-256 is .*, not the pinned 0")
    Path(name).write_text(f'sha256 = "{good(archive)}"\n{text}')
    assert (cases.source(cases.get(name)) / "src" / "main.rs").is_file()


def test_without_network_the_package_is_missing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    with pytest.raises(MissingError, match=r"orjson==3\.13\.0"):
        cases.source(cases.get("orjson"))
    assert not [*cache.glob("sources/orjson*")]


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
    here, cc = dataclasses.replace(rustc, compiler=tmp_path / "rustc"), discovery.find("19")
    monkeypatch.setattr(discovery, "discover", lambda: (here, cc))
    monkeypatch.setenv("PATH", str(tmp_path))
    failed(cases.trial(own(), "19", "19"), f"^cargo 1.85 or newer: {why}.*rustup")


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(LabError, match="evtx, orjson, rust-cc-jemalloc, rust-cc-mimalloc"):
        cases.get("ripgrep")
    failed(cases.trial("ripgrep", "19", "17"), "there is none")
    failed(cases.trial("orjson", "99", "17"), "a rustc with LLVM 99: not found")


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
        (OWN.replace("folder =", "url = 'https://host/file'\nwhat ="), "file"),
        ("url = 'https://[::1'\nfile = 'a'\n" + OWN.replace('folder = "project"', ""), "url"),
        (OWN.replace("command", "# "), "command"),
    ],
)
def test_a_file_that_is_not_a_case_is_refused_with_the_reason(
    text: str, why: str, own: Make
) -> None:
    with pytest.raises(LabError, match=why):
        cases.get(own(text))


def test_sources_are_found_where_tools_are_asked_for_colours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a Jupyter kernel does
    assert download._sdist("orjson==3.13.0").endswith("/orjson-3.13.0.tar.gz")
