"""What the guard costs a link, on top of the linker; part of `make bench`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nbsupport.audit import guard
from nbsupport.lab import build
from nbsupport.toolchains import discovery
from tests.bench.trace import median

RUST = 'fn main() { println!("{}", std::env::args().count()); }\n'
#: C files of the larger link, and functions in each.
FILES, FUNCTIONS = 200, 100


def seconds(argv: Sequence[str], folder: Path) -> tuple[float, float]:
    """Return what a link takes, and what the guard and the link take."""

    def run(*command: str) -> None:
        env = {**os.environ, guard.LINKER: argv[0]}
        subprocess.run(command, cwd=folder, env=env, check=False, capture_output=True)

    ours = [str(Path(sys.executable).with_name("pgo-lab-guard")), *argv[1:]]
    return median(lambda: run(*argv), 9), median(lambda: run(*ours), 9)


def links(folder: Path) -> dict[str, list[str]]:
    """Build what is to be linked; return each command by what it links."""
    clang, old = discovery.find("19"), discovery.find("17")
    (folder / "main.c").write_text("int main(void) { return 0; }\n")
    (folder / "main.rs").write_text(RUST)
    units = [f"part{number}" for number in range(FILES)]
    for unit in units:
        body = (
            f"int {unit}_{n}(int x) {{ return x > {n} ? x * {n} : x; }}\n" for n in range(FUNCTIONS)
        )
        (folder / f"{unit}.c").write_text("".join(body))

    def compiled(*command: str | Path) -> str:
        return subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True
        ).stdout

    generate = "-fprofile-generate"
    compiled(clang.compiler, generate, "-c", "main.c", *(f"{unit}.c" for unit in units))
    compiled(clang.compiler, "-c", "main.c", "-o", "plain.o")
    compiled(old.compiler, generate, "-c", "part0.c", "-o", "foreign.o")
    flags = ["-Cprofile-generate", "-Csave-temps", "--print=link-args", "main.rs"]
    # All but a list of symbols, which is gone by now.
    said = shlex.split(compiled(discovery.find_rustc("22").compiler, *flags))
    link = [str(clang.compiler), *build.linker_flags(clang), "-o", "out"]
    objects = [generate, "main.o", *(f"{unit}.o" for unit in units)]
    return {
        "clang, not instrumented": [*link, "plain.o"],
        f"clang, {FILES} objects with {FILES * FUNCTIONS} records": [*link, *objects],
        "rustc, with its 30 MB of libraries": [
            word for word in said[said.index("cc") :] if not word.endswith("symbols.o")
        ],
        "clang, a mix that is refused": [*link, *objects, "foreign.o"],
    }


def rows() -> list[tuple[str, str, str, str]]:
    """Return the figures: what, measured, beside what, and the goal."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        for what, argv in links(Path(name)).items():
            alone, ours = seconds(argv, Path(name))
            goal = "none" if "refused" in what else "0.3 s"
            cost = f"{ours - alone:.2f} s more"
            found.append((f"guard of a link: {what}", cost, f"the linker's {alone:.2f} s", goal))
    return found


if __name__ == "__main__":
    for row in rows():
        print(*row, sep=" | ")  # noqa: T201
