"""Small cargo projects with C, on real versions of the cc crate: written, built and run here."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nbsupport.base import files, process, settings
from nbsupport.lab import cases, programs
from nbsupport.lab.lab import Invocation, Lab
from nbsupport.lab.outcome import Outcome
from nbsupport.toolchains import discovery, download
from nbsupport.toolchains.download import Archive
from nbsupport.toolchains.probe import Toolchain

#: Source distributions of orjson that vendor a version of cc.
SDISTS = {
    "1.1.31": ("3.10.10", "37949383c4df7b4337ce82ee35b6d7471e55195efa7dcb45ab8226ceadb0fe3b"),
    "1.2.1": ("3.10.15", "05ca7fe452a2e9d8d9d706a2984c95b9c2ebc5db417ce0b7a49b91d50642a23e"),
    "1.2.17": ("3.10.16", "d2aaa5c495e11d17b9b93205f5fa196737ee3202f000aaebf028dc9a73750f10"),
    "1.2.29": ("3.11.0", "2e4c129da624f291bcc607016a99e7f04a353f6874f3bd8d9b47b88597d5f700"),
    "1.6.0": ("3.13.0", "d1de5eb04485110c5da4c657e49168995d55e076b1ce60f1a042e254f4186c4f"),
}
#: The sources of Debian's rustc have cc 1.2.6, sorted so that all has to come for it.
RUSTC = Archive(
    "rustc_1.85.0+dfsg3.orig.tar.xz",
    "8cfaf52ab168a12c3082b5956bcc16c8969d8791b2fe54ed5192672b25518af2",
    83_014_324,
    pool="rustc",
)
MAIN = """\
extern "C" { fn part(n: i32) -> i32; }
fn main() { std::process::exit(unsafe { part(std::env::args().count() as i32) } - 2) }
"""
#: An indirect call: a value site, which runs before the profile is written.
PART = """\
static int more(int n) { return n + 1; }
static int less(int n) { return n - 1; }
int (*volatile chosen)(int) = more;
int part(int n) { chosen = n > 5 ? less : more; return chosen(n); }
"""
BUILD = 'fn main() { cc::Build::new().file("part.c").compile("part"); }\n'
#: What a build finds in its environment besides.
INHERITED = ("PATH", "HOME", "TMPDIR", "RUSTUP_HOME", "XDG_CACHE_HOME")


def crates(version: str) -> Path:
    """Return a folder of vendored crates with a version of cc, downloaded once."""
    if version == "1.2.6":
        return files.once(settings.cache_dir() / "sources" / "cc-1.2.6", _from_rustc)
    release, sha256 = SDISTS[version]
    archive = Archive(f"orjson-{release}.tar.gz", sha256, 6_000_000, package=f"orjson=={release}")
    name = f"orjson-{sha256[:8]}"
    return download.unpacked(name, [archive]) / "include" / "cargo"


def _from_rustc(staging: Path) -> None:
    with tempfile.TemporaryDirectory(dir=staging) as work:
        archive = download.get(RUSTC, Path(work))
        with tarfile.open(archive) as tar:
            for member in tar:
                place = member.name.partition("/vendor/")[2]
                if member.isfile() and place.split("/")[0] in ("cc-1.2.6", "shlex-1.3.0"):
                    content = tar.extractfile(member)
                    assert content
                    files.write(staging / place, content.read())
    for folder in staging.iterdir():
        if folder.is_dir():  # Debian changed files; these sums are of the authors'
            files.write(folder / ".cargo-checksum.json", '{"files":{}}')


@dataclass(frozen=True)
class CargoProject:
    """A project in a folder: `env` are the variables that its builds and checks find, besides."""

    folder: Path
    rustc: Toolchain
    env: dict[str, str] = field(default_factory=dict)
    cc: str = ""

    @property
    def cargo(self) -> Path:
        return cases._cargo(self.rustc)

    @property
    def triple(self) -> str:
        return cases._host(self.rustc)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the whole environment of a build or a check."""
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        own = {"RUSTC": str(self.rustc.compiler), "CARGO": str(self.cargo), "LC_ALL": "C"}
        own["CARGO_HOME"] = str(settings.cache_dir() / "cargo")
        return {**inherited, **own, **self.env, **more}

    def build(self, env: Mapping[str, str] | None = None, *words: str) -> process.Finished:
        """Build it, by `cargo build --release`, in this environment (default: its own)."""
        command: list[str | Path] = [self.cargo, "build", "--release", "--offline", *words]
        return files.run_tool(command, self.folder, env or self.environment())

    @property
    def program(self) -> Path:
        return self.folder / "target" / "release" / "tiny"

    def run(self, lab: Lab) -> Outcome:
        return lab.judge_command(Invocation([self.program], self.rustc, settings.PROGRAM))[0]


def write(
    folder: Path,
    rustc: Toolchain,
    cc: str = "1.6.0",
    *,
    build: str = BUILD,
    config: str = "",
    more: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
) -> CargoProject:
    """Write a project whose build.rs is `build`, with a version of cc, and its lock file."""
    vendored = f'[source.vendored]\ndirectory = "{crates(cc)}"\n'
    manifest = '[package]\nname = "tiny"\nversion = "0.1.0"\nedition = "2021"\n'
    texts = {
        "Cargo.toml": f'{manifest}[build-dependencies]\ncc = "1"\n',
        ".cargo/config.toml": f'[source.crates-io]\nreplace-with = "vendored"\n{vendored}{config}',
        "src/main.rs": MAIN,
        "build.rs": build,
        "part.c": PART,
        **(more or {}),
    }
    for name, text in texts.items():
        files.write(folder / name, text)
    project = CargoProject(folder, rustc, dict(env or {}), cc)
    lock(project)
    return project


def lock(project: CargoProject) -> None:
    command: tuple[str | Path, ...] = (project.cargo, "generate-lockfile", "--offline")
    done = process.run(command, cwd=project.folder, env=project.environment())
    assert done.ok, done.stderr


def run(command: Sequence[str | Path], folder: Path, env: Mapping[str, str]) -> process.Finished:
    return files.run_tool(command, folder, env)


def script(path: Path, *lines: str) -> Path:
    """Write a shell script that can be executed."""
    files.write(path, "\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def copy_case(name: str, folder: Path, config: str) -> None:
    """Copy the sources of a case, as `cases.build` has them, with a configuration of cargo."""
    case = cases.get(name)
    source = cases.source(case)
    shutil.copytree(source, folder, ignore=lambda top, _: cases._not_source(top, source))
    if case.program:
        program = programs.get(case.program, cc=discovery.find("19").compiler)
        shutil.copy(program.main.folder / program.main.source, folder / "main.rs")
    path = folder / ".cargo" / "config.toml"
    files.write(path, (path.read_text() if path.is_file() else "") + config)


def case_environment(name: str, rustc: Toolchain, **more: str) -> dict[str, str]:
    """Return what a build of a case finds in its environment, besides, but for the compilers."""
    case = cases.get(name)
    program = programs.get(case.program, cc=discovery.companion(rustc).compiler)
    env = cases._environment(case, program)
    del env["CC_ENABLE_DEBUG_OUTPUT"]
    return {**env, **more}
