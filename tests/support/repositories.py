"""A git repository that stands in for evtx's, which is on the network: made here, by real tools."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

from nbsupport.base import files, process
from nbsupport.lab import cases
from nbsupport.toolchains.probe import Toolchain

#: A project with a C part, if its feature is on, which reads the file that it is given.
WITH_C = {
    "Cargo.toml": """\
[package]
name = "evtx_dump"
version = "0.1.0"
edition = "2021"
[features]
fast-alloc-mimalloc-secure = []
[build-dependencies]
cc = "1"
""",
    "build.rs": """\
fn main() {
    if std::env::var_os("CARGO_FEATURE_FAST_ALLOC_MIMALLOC_SECURE").is_some() {
        cc::Build::new().file("part.c").compile("part");
    }
}
""",
    "part.c": "int part(int n) { return n + 1; }\n",
    "src/main.rs": """\
extern "C" { fn part(n: i32) -> i32; }
fn main() {
    let file = std::env::args().last().unwrap();
    let text = std::fs::read(file).unwrap();
    print!("{}", " ".repeat(2 << 20)); // more than a small program may say
    assert_eq!(unsafe { part(text.len() as i32) }, 7);
}
""",
    "samples/Security_short_selected.evtx": "ElfFil",
}


@dataclasses.dataclass(frozen=True)
class Repository:
    """A git repository that stands in for evtx's: its case, folder of crates, and commits."""

    case: str
    folder: Path
    crates: Path
    commits: list[str]

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
        done = process.run(("git", *who, *words), cwd=self.folder)
        assert done.ok, done.stderr
        return done.stdout.strip()

    def commit(self, text: str) -> str:
        """Commit a main with a text in it, and return the commit's id."""
        files.write(self.folder / "src" / "main.rs", WITH_C["src/main.rs"] + f"// {text}\n")
        self.git("add", "-A")
        self.git("commit", "-qm", text)
        self.commits.append(self.git("rev-parse", "HEAD"))
        return self.commits[-1]

    def pin(self, commit: str, address: str = "") -> None:
        """Write the case: evtx's, but for the repository and the commit."""
        text = cases.get("evtx").path.read_text()
        text = re.sub("(?m)^git = .*", f'git = "{address or self.folder.as_uri()}"', text)
        Path(self.case).write_text(re.sub("(?m)^commit = .*", f'commit = "{commit}"', text))


def make(folder: Path, rustc: Toolchain) -> Repository:
    """Return it, with a Cargo.lock, and what `cargo vendor` would make, in a folder."""
    crates = folder / "vendor"
    vendored = cases.source(cases.get("orjson")) / "include" / "cargo"
    for name in ("cc", "shlex", "find-msvc-tools"):
        shutil.copytree(next(vendored.glob(f"{name}*")), crates / name)
    where = folder / "repository"
    for name, text in WITH_C.items():
        files.write(where / name, text)
    made = Repository(str(folder / "evtx.toml"), where, crates, [])
    made.git("init", "-q")
    case = dataclasses.replace(cases.get("evtx"), vendored=str(crates), network=False)
    config = cases._command(case, rustc, where)
    config = config[config.index("--config") :]
    done = process.run((cases._cargo(rustc), "generate-lockfile", "--offline", *config), cwd=where)
    assert done.ok, done.stderr
    made.commit("first")
    made.pin(made.commits[0])
    return made
