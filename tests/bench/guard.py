"""What the guard costs a link, on top of the linker; part of `make bench`."""

from __future__ import annotations

import functools
import json
import shlex
import subprocess
import sys
from pathlib import Path

from nbsupport.audit import guard
from nbsupport.lab import build
from nbsupport.toolchains import discovery
from tests.bench.row import Place, Row, Sample, timed

RUST = 'fn main() { println!("{}", std::env::args().count()); }\n'
#: C files of the larger link, and functions in each.
FILES, FUNCTIONS = 200, 100


def links(folder: Path) -> None:
    """Build what is to be linked; write each command, by its row."""
    clang, old = discovery.find("19"), discovery.find("17")
    (folder / "main.c").write_text("int main(void) { return 0; }\n")
    (folder / "main.rs").write_text(RUST)
    (folder / "foreign.c").write_text("int foreign(int x) { return x; }\n")
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
    compiled(old.compiler, generate, "-c", "foreign.c")
    flags = ["-Cprofile-generate", "-Csave-temps", "--print=link-args", "main.rs"]
    # All but a list of symbols, which is gone by now.
    said = shlex.split(compiled(discovery.find_rustc("19").compiler, *flags))
    link = [str(clang.compiler), *build.linker_flags(clang), "-o", "out"]
    objects = [generate, "main.o", *(f"{unit}.o" for unit in units)]
    commands = {
        "plain": [*link, "plain.o"],
        "records": [*link, *objects],
        "rust": [word for word in said[said.index("cc") :] if not word.endswith("symbols.o")],
        "mix": [*link, *objects, "foreign.o"],
    }
    (folder / "links.json").write_text(json.dumps(commands))


def prepare(name: str, place: Place) -> tuple[Sample, Sample]:
    folder = place.once("guard", links)
    linker, *arguments = json.loads((folder / "links.json").read_text())[name]
    ours = ["env", f"{guard.LINKER}={linker}", Path(sys.executable).with_name("pgo-lab-guard")]
    codes = [1 if name == "mix" else 0]  # it is refused
    return timed(*ours, *arguments, cwd=folder, codes=codes), timed(linker, *arguments, cwd=folder)


def row(name: str, what: str, asked: str = "0.3 s more") -> Row:
    what = f"a guarded link: {what}"
    return Row(f"guard.{name}", what, "the link", asked, functools.partial(prepare, name))


ROWS = (
    row("plain", "clang, not instrumented"),
    row("records", f"clang, {FILES} objects with {FILES * FUNCTIONS} records"),
    row("rust", "rustc, with its libraries"),
    row("mix", "clang, a mix that is refused", "0.8 s"),
)
