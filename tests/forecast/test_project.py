"""What a project says of itself: its rustc, cargo's configuration, packages; and bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base.errors import LabError
from nbsupport.forecast import cargo_config, project, rust, verdict
from nbsupport.toolchains import profdata
from nbsupport.toolchains.probe import Toolchain
from tests.forecast.conftest import Check, Write
from tests.support import cargo_projects, hostile
from tests.support.cargo_projects import script

#: A rustc's own word for itself, for a toolchain that is only looked for.
FACTS = "printf 'release: 1.0\\nhost: x86_64-unknown-linux-gnu\\nLLVM version: 19.1.7\\n'"
TRIPLE = "x86_64-unknown-linux-gnu"


def refused(why: str) -> pytest.RaisesExc[LabError]:
    """Expect one line that says so."""
    return pytest.raises(LabError, match=rf"\A[^\n]*{why}[^\n]*\Z")


# -- which rustc


@pytest.fixture
def rustup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a RUSTUP_HOME with two toolchains, whose proxies, on the PATH, must not run."""
    home, proxies = tmp_path / "rustup", tmp_path / "bin"
    for name in ("1.85", "stable"):
        for tool in ("rustc", "cargo"):
            script(home / "toolchains" / f"{name}-{TRIPLE}" / "bin" / tool, FACTS)
    (home / "settings.toml").write_text(f'default_toolchain = "stable-{TRIPLE}"\n')
    proxy = script(proxies / "rustup", f"touch {tmp_path}/ran; exit 1")
    for tool in ("rustc", "cargo"):
        os.link(proxy, proxies / tool)
    for name in ("RUSTC", "CARGO", "RUSTUP_TOOLCHAIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RUSTUP_HOME", str(home))
    monkeypatch.setenv("PATH", f"{proxies}:/usr/bin:/bin")
    return home


def toolchain_of(folder: Path) -> tuple[str, str]:
    folder.mkdir(exist_ok=True)
    found = rust.find(folder, cargo_config.read(folder, dict(os.environ)))
    assert found.cargo.parent == found.rustc.parent
    return found.sysroot.name.removesuffix(f"-{TRIPLE}"), found.why


def test_rustups_files_say_which_rustc_and_nothing_of_rustup_runs(
    rustup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    folder = tmp_path / "here"
    assert toolchain_of(folder) == ("stable", "rustup's default")
    (folder / "rust-toolchain.toml").write_text('[toolchain]\nchannel = "1.85"\n')
    assert toolchain_of(folder) == ("1.85", "rust-toolchain.toml")
    assert toolchain_of(folder / "inner") == ("1.85", "rust-toolchain.toml")
    (folder / "inner" / "rust-toolchain").write_text("stable\n")
    assert toolchain_of(folder / "inner") == ("stable", "rust-toolchain")
    override = f'[overrides]\n"{folder}" = "stable-{TRIPLE}"\n'
    with (rustup / "settings.toml").open("a") as file:
        file.write(override)
    assert toolchain_of(folder)[1] == f"rustup override of {folder}"
    monkeypatch.setenv("RUSTUP_TOOLCHAIN", "1.85")
    assert toolchain_of(folder) == ("1.85", "RUSTUP_TOOLCHAIN")
    assert not (tmp_path / "ran").exists()


def test_a_toolchain_that_is_pinned_and_not_there_is_not_downloaded(
    rustup: Path, tmp_path: Path, cache: Path
) -> None:
    pin = tmp_path / "rust-toolchain.toml"
    pin.write_text('[toolchain]\nchannel = "1.99"\n')
    with refused("1.99: rust-toolchain.toml pins it, and it is not installed .*rustup toolchain"):
        toolchain_of(tmp_path)
    pin.write_text("[toolchain]\n")
    with refused("names no channel"):
        toolchain_of(tmp_path)
    pin.write_text("[toolchain")
    with refused("not TOML"):
        toolchain_of(tmp_path)
    pin.unlink()
    (rustup / "settings.toml").write_text("")
    with refused("rustup has no default toolchain"):
        toolchain_of(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_target_or_flags_that_rustc_does_not_take_are_one_line(
    write: Write, check: Check
) -> None:
    own = write()
    with refused("find crate for .*; rustup target add aarch64-apple-darwin"):
        check(own, CARGO_BUILD_TARGET="aarch64-apple-darwin")
    with refused("-Cno-such-option.*: error.*"):
        check(own, RUSTFLAGS="-Cno-such-option")


@pytest.mark.parametrize("major", ["17", "18", "19", "22", "23"])
def test_an_llvm_profdata_reads_its_own_raw_version_alone(
    major: str, toolchain: Callable[[str], Toolchain]
) -> None:
    own = toolchain(major)
    assert own.llvm_profdata
    readable = [version for version in (8, 9, 10, 11) if rust.reads(own.llvm_profdata, version)]
    assert readable == [own.raw_version]
    assert rust.reads(own.llvm_profdata, 99) is None


def test_it_is_said_where_the_llvm_profdata_at_hand_does_not_read_what_rustc_writes(
    write: Write,
    check: Check,
    toolchain: Callable[[str], Toolchain],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """rustc-web has none of its own; what `pgo-lab build` takes is one of the toolchains here."""
    own = write()
    others = profdata.owners(10)
    for major, reads in (("17", False), ("19", True)):
        prefix = toolchain(major).prefix
        path = f"{prefix / 'bin'}:{own.environment()['PATH']}"
        forecast = check(own, "gcc", PATH=path)
        assert forecast.llvm_profdata == str(prefix / "bin" / "llvm-profdata")
        assert forecast.profdata_reads == reads
        note = f"for raw version 10, which pgo-lab build takes: {others[0].llvm_profdata}"
        assert any(note in text for text in forecast.notes) != reads
        assert "not at hand" not in str(forecast.notes)
    with monkeypatch.context() as patch:
        patch.setattr(profdata, "owners", lambda raw_version: [])
        path = f"{toolchain('17').prefix / 'bin'}:{own.environment()['PATH']}"
        notes = check(own, "gcc", PATH=path).notes
        assert any("for raw version 10 is not at hand" in text for text in notes)


def test_a_profile_that_programs_overwrite_is_said(write: Write, check: Check) -> None:
    own = write()
    for name, note in (
        ("a.profraw", "LLVM_PROFILE_FILE=a.profraw: each program overwrites it"),
        ("a-%4m.profraw", "all runs are merged into one profile"),
        ("a-%p.profraw", ""),
    ):
        notes = check(own, "gcc", LLVM_PROFILE_FILE=name).notes
        assert note in " ".join(notes)
        assert bool(note) == any("overwrites" in n or "merged" in n for n in notes)


# -- cargo's configuration


def test_configuration_files_count_from_the_closest_on(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    texts = {
        tmp_path / "home": 'build.rustflags = ["-Chome"]\n[env]\nCC = "home"\nONE = "1"\n',
        tmp_path / "a" / ".cargo": (
            '[build]\ntarget = "t"\nrustflags = "-Ca -Cb"\n'
            '[env]\nCC = { value = "tool/cc", relative = true, force = true }\nTWO = "2"\n'
        ),
        inner / ".cargo": "[build]\nrustflags = ['-Cinner']\n",
    }
    for folder, text in texts.items():
        folder.mkdir()
        (folder / "config.toml").write_text(text)
    env = {"CARGO_HOME": str(tmp_path / "home"), "CC": "ours", "TWO": "ours"}
    config = cargo_config.read(inner, env)
    assert config.rustflags("t") == ("-Chome", "-Ca", "-Cb", "-Cinner")
    assert config.value("build", "target") == "t"
    own = config.env()
    assert (own["CC"], own["TWO"], own["ONE"]) == (str(tmp_path / "a" / "tool" / "cc"), "ours", "1")
    assert cargo_config.read(inner, {**env, "RUSTFLAGS": "-Cx"}).rustflags("t") == ("-Cx",)
    encoded = {**env, "RUSTFLAGS": "-Cx", "CARGO_ENCODED_RUSTFLAGS": "-Cy\x1f-Cz a"}
    assert cargo_config.read(inner, encoded).rustflags("t") == ("-Cy", "-Cz a")


@pytest.mark.parametrize(
    ("key", "holds"),
    [
        ("t", True),
        ("u", False),
        ("cfg(unix)", True),
        ("cfg(not(unix))", False),
        ('cfg(all(unix, target_os = "linux", not(any(windows, foo))))', True),
        ('cfg(any(windows, all(target_os="macos")))', False),
    ],
)
def test_flags_of_a_target_hide_those_of_the_build(key: str, holds: bool, tmp_path: Path) -> None:
    (tmp_path / ".cargo").mkdir()
    text = f"[build]\nrustflags = ['-Cb']\n[target.{json.dumps(key)}]\nrustflags = ['-Ct']\n"
    (tmp_path / ".cargo" / "config.toml").write_text(text)
    config = cargo_config.read(tmp_path, {"CARGO_HOME": str(tmp_path / "none")})
    flags = config.rustflags("t", 'unix\ntarget_os="linux"')
    assert flags == (("-Ct",) if holds else ("-Cb",))
    assert config.cfgs() == key.startswith("cfg(")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[build", "config.toml: not TOML"),
        ("[env]\nCC = 1\n", "CC = 1 has no text"),
        ("[build]\nrustflags = [1]\n", "rustflags are no strings"),
        ("[build]\ntarget = ['a', 'b']\n", "not one target"),
        ("[target.'cfg(unix']\nrustflags = ['-Ct']\n", "is no cfg"),
    ],
)
def test_a_configuration_that_is_none_is_one_line(
    text: str, why: str, write: Write, check: Check
) -> None:
    own = write()
    path = own.folder / ".cargo" / "config.toml"
    path.write_text(text)
    with refused(re.escape(why)):
        check(own)


@pytest.mark.parametrize("name", hostile.JUNK)
def test_junk_is_answered_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    data = hostile.JUNK[name]
    for place in (
        ".cargo/config.toml",
        "rust-toolchain.toml",
        "Cargo.lock",
        "compile_commands.json",
    ):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    env = {"CARGO_HOME": str(tmp_path / "none")}
    readers: list[Callable[[], object]] = [
        lambda: cargo_config.read(tmp_path, env).env(),
        lambda: cargo_config.read(tmp_path, env).rustflags("t"),
        lambda: rust._channel(tmp_path / "rust-toolchain.toml"),
        lambda: list(project._from_lock(project._locked(tmp_path / "Cargo.lock"))),
        lambda: verdict.check(tmp_path, []),
    ]
    for reader in readers:
        try:
            assert reader() is not None
        except LabError as error:
            assert "\n" not in str(error)


# -- the project


def test_a_folder_that_is_no_project_is_one_line(
    tmp_path: Path, write: Write, check: Check
) -> None:
    own = write()
    with refused("no such folder"):
        verdict.check(tmp_path / "none", [])
    (own.folder / "Cargo.lock").unlink()
    with refused("no Cargo.lock beside .*cargo generate-lockfile"):
        check(own)
    cargo_projects.lock(own)
    (own.folder / "Cargo.lock").write_text("[[package]]\nname = 1\n")
    with refused("not a lock file"):
        check(own)
    cargo_projects.lock(own)
    manifest = own.folder / "Cargo.toml"
    text = manifest.read_text()
    manifest.write_text("[package")
    with refused("cargo on .*Cargo.toml: .*mend it"):
        check(own)
    manifest.write_text(text.replace('cc = "1"', 'cc = "1"\nserde = "1"'))
    assert "serde" in str(check(own).notes)
    manifest.write_text(text)
    with refused("no such program"):
        check(own, RUSTC="no-rustc-of-this-name")
    with refused("no such program"):
        check(own, CARGO="no-cargo-of-this-name")
    manifest.write_text(text.replace("0.1.0", "0.2.0"))
    lock = (own.folder / "Cargo.lock").read_bytes()
    with refused("Cargo.lock: it does not fit Cargo.toml"):
        check(own)
    assert (own.folder / "Cargo.lock").read_bytes() == lock
    manifest.unlink()
    with refused("no Cargo.toml there"):
        check(own)


def test_what_is_above_a_folder_is_above_the_one_that_its_path_leads_to(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write().folder)
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "empty" / "inner")
    for path in ("../empty", "../empty/inner", "src/../../empty", "../link"):
        with refused("no Cargo.toml there"):
            verdict.check(Path(path), [])


def test_without_the_sources_of_its_packages_it_is_not_known(write: Write, check: Check) -> None:
    own = write()
    (own.folder / ".cargo" / "config.toml").unlink()
    lock = own.folder / "Cargo.lock"
    source = 'source = "registry+https://github.com/rust-lang/crates.io-index"\n'
    lock.write_text(
        re.sub(
            r'(name = "(cc|shlex|find-msvc-tools)"\nversion = .*\n)(?!source)',
            rf"\1{source}",
            lock.read_text(),
        )
    )
    forecast = check(own)
    assert (forecast.verdict, forecast.exit_code) == ("unknown", 2)
    assert "its sources are not here to read (cargo fetch)" in forecast.why


def test_only_what_is_built_counts(write: Write, check: Check) -> None:
    """A workspace, an optional package, one for tests, and one for build scripts."""

    def member(name: str, needs: str, build: str = cargo_projects.BUILD) -> dict[str, str]:
        manifest = f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n{needs}'
        return {f"{name}/Cargo.toml": manifest, f"{name}/src/lib.rs": "", f"{name}/build.rs": build}

    cc = "[build-dependencies]\ncc = '1'\n"
    more = {
        "Cargo.toml": '[workspace]\nmembers = ["app", "own", "rare", "tests", "helper"]\n'
        'default-members = ["app"]\nresolver = "2"\n',
        **member(
            "app",
            "[features]\nrare = ['dep:rare']\n[dependencies]\nown = { path = '../own' }\n"
            "rare = { path = '../rare', optional = true }\n[dev-dependencies]\n"
            "tests = { path = '../tests' }\n[build-dependencies]\nhelper = { path = '../helper' }\n",
            "fn main() {}\n",
        ),
        **{
            name: text
            for own in ("own", "rare", "tests", "helper")
            for name, text in member(own, cc).items()
        },
    }
    own = write(more=more)
    assert {p for call in check(own).calls for p in call.packages} == {"helper 0.1.0", "own 0.1.0"}
    forecast = check(own, CARGO_BUILD_TARGET=own.triple)  # then build scripts are not instrumented
    assert {p for call in forecast.calls for p in call.packages} == {"own 0.1.0"}
    assert any("rare" in note and "tests" in note for note in forecast.notes)


def test_what_compiles_through_another_crate_is_not_known(write: Write, check: Check) -> None:
    manifest = '[package]\nname = "{}"\nversion = "0.1.0"\nedition = "2021"\n'
    more = {
        "Cargo.toml": manifest.format("tiny")
        + "[build-dependencies]\nhelper = { path = 'helper' }\n",
        "helper/Cargo.toml": manifest.format("helper") + "[dependencies]\ncc = '1'\n",
        "helper/src/lib.rs": 'pub fn go() { cc::Build::new().file("part.c").compile("part"); }\n',
    }
    forecast = check(write(build="fn main() { helper::go() }\n", more=more))
    assert forecast.undecided == {"tiny 0.1.0": "it compiles through the crate helper"}


def test_a_path_with_spaces_is_a_path(write: Write, check: Check) -> None:
    assert check(write(name="a b")).verdict == "consistent"


def test_a_comment_does_not_choose(write: Write, check: Check, tmp_path: Path) -> None:
    text = '// cc::Build::new().compiler(x)\n/* set_var("CC") */\n' + cargo_projects.BUILD
    assert check(write(build=text)).verdict == "consistent"


#: Build scripts without cc: how each runs a program, and whether that can be a compiler.
RUNS = {
    'Command::new("make")': True,
    'Command::new("/usr/lib/llvm-17/bin/clang").arg("-c")': True,
    'Command::new("aarch64-linux-gnu-gcc-13")': True,
    'Command::new("sh").arg("mk.sh")': True,
    "Command::new(tool)": True,
    'Command::new(std::env::var_os("TOOL").unwrap())': True,
    'Command::new(format!("{}/git", std::env::var("OUT_DIR").unwrap()))': True,
    '["clang"].map(Command::new)': True,
    'let mut tool = "git"; tool = "clang"; Command::new(tool)': True,
    'use std::process::Command as C; C::new("clang")': True,
    'cmd!("clang", "-c").run()': True,
    'Command::new("git")': False,
    'let tool = if cfg!(windows) { "git" } else { "date" }; Command::new(tool)': False,
    'Command::new(std::env::var("RUSTC").expect("no RUSTC"))': False,
    'if let Some(w) = std::env::var_os("RUSTC_WRAPPER") { Command::new(w).arg(rustc)': False,
    'match var_os("RUSTC_WRAPPER") { Some(w) if x => {} Some(w) => Command::new(w), }': False,
    'match var_os("RUSTC") { Some(_) => {} } match a() { Some(w) => Command::new(w), }': True,
    "println!()": False,
}


@pytest.mark.parametrize("text", RUNS)
def test_a_program_that_is_not_known_to_be_harmless_may_compile(text: str) -> None:
    assert project._runs(text) == RUNS[text]


def test_what_compiles_without_cc_is_not_known(write: Write, check: Check) -> None:
    build = 'fn main() {{ std::process::Command::new("{}").status().unwrap(); {} }}\n'
    manifest = '[package]\nname = "tiny"\nversion = "0.1.0"\nedition = "2021"\n'
    link = 'println!("cargo:rustc-link-lib=static=part");'
    for number, (tool, more) in enumerate((("make", ""), ("/opt/bin/clang", link), ("sh", link))):
        own = write(build=build.format(tool, more), name=str(number), more={"Cargo.toml": manifest})
        forecast = check(own)
        assert (forecast.verdict, forecast.exit_code) == ("unknown", 2)
        assert forecast.why == "build.rs of tiny 0.1.0: it runs other programs"
    include = write(
        build='include!("more/script.rs");\n',
        name="include",
        more={"Cargo.toml": manifest, "more/script.rs": build.format("make", "")},
    )
    assert check(include).verdict == "unknown"
    own = write(build=build.format("git", ""), name="other", more={"Cargo.toml": manifest})
    forecast = check(own)
    assert (forecast.verdict, forecast.calls) == ("consistent", ())


def test_nothing_of_the_project_runs(write: Write, check: Check, rustc: Toolchain) -> None:
    text = 'fn main() { std::fs::write("ran", "").unwrap(); cc::Build::new().file("part.c").compile("part"); }\n'
    own = write(build=text)
    before = sorted(path.relative_to(own.folder) for path in own.folder.rglob("*"))
    assert check(own).verdict == "consistent"
    assert sorted(path.relative_to(own.folder) for path in own.folder.rglob("*")) == before
    assert shutil.which("cargo") or rustc
