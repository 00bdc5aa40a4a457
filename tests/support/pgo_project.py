"""A cargo project with a C part, for tests of PGO builds: written and built here, in seconds.

Its build script stands for the cc crate: it hands rustc's profile flags on to clang.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from nbsupport.base import process, settings
from nbsupport.toolchains.probe import Toolchain

FILES = {
    "Cargo.toml": '[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n',
    "src/main.rs": """
extern "C" { fn part(n: u32) -> u32; fn plus(n: u32) -> u32; }
fn main() { println!("{} {}", unsafe { plus(part(1000)) }, cfg!(kept)); }
""",
    "part.c": """
static unsigned add(unsigned sum, unsigned n) { return sum + n; }
static unsigned (*volatile operation)(unsigned, unsigned) = add; /* its call is a value site */
unsigned part(unsigned n) { return n ? operation(part(n - 1), STEP) : 0; }
""",
    # It stands for a C++ file, without the need of a C++ compiler.
    "plus.c": "unsigned plus(unsigned n) { return n; }\n",
    "build.rs": r"""
use std::{env::var, process::Command};
fn main() {
    build("part", "CFLAGS");
    build("plus", "CXXFLAGS"); // which cc reads, and no other, for a C++ file
}
fn build(name: &str, flags: &str) {
    let (out, target) = (var("OUT_DIR").unwrap(), var("TARGET").unwrap());
    let cc = var(format!("CC_{target}")).or(var("CC")).unwrap();
    let mut command = Command::new(&cc);
    command.args(["-O1", "-c", &format!("{name}.c"), "-o", &format!("{out}/{name}.o")]);
    for flag in var("CARGO_ENCODED_RUSTFLAGS").unwrap().split('\x1f') {
        if cc.contains("clang") && flag.contains("-Cprofile") { command.arg(flag.replace("-C", "-f")); }
    }
    let own = var(format!("{flags}_{}", target.replace('-', "_"))); // alone, as in older cc
    command.args(own.or(var(flags)).unwrap_or_default().split_whitespace());
    assert!(command.status().unwrap().success());
    println!("cargo:rustc-link-arg={out}/{name}.o");
}
""",
}


@dataclass(frozen=True)
class PgoProject:
    """The project in a folder, and a rustc."""

    folder: Path
    rustc: Toolchain

    def environment(self, **env: str) -> dict[str, str]:
        """Return what its commands are given: `env`, and none of the caller's flags."""
        ours = {"CARGO_HOME": str(self.folder / "../cargo"), "CC": "gcc", "CFLAGS": "-DSTEP=2"}
        theirs = {k: v for k, v in os.environ.items() if not re.search("RUSTFLAGS|CFLAGS|^CC", k)}
        return {**theirs, **ours, **env}

    def run(self, *command: str | Path, **env: str) -> process.Finished:
        """Run a command here, `env` in its environment, none of the caller's flags."""
        limits = settings.COMPILER
        return process.run(command, cwd=self.folder, env=self.environment(**env), limits=limits)


def write(folder: Path, rustc: Toolchain) -> PgoProject:
    """Write the project into a new folder, without a lock file."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return PgoProject(folder, rustc)
