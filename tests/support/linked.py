"""Objects of five LLVMs, linked at random; a cargo project: what came to each link is known."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from nbsupport.audit.fate import How
from nbsupport.audit.judge import Audited, AuditReport
from nbsupport.lab.lab import Lab
from nbsupport.profile import layout
from nbsupport.toolchains.probe import Toolchain

MAJORS = ("17", "18", "19", "22", "23")
HOW: dict[How, str] = {"ir": "-fprofile-generate", "front-end": "-fprofile-instr-generate"}
LINKS = 320
SEED = 20241129


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@dataclasses.dataclass(frozen=True)
class Object:
    """An object of the pool: of which compiler, how instrumented, for which place of a link."""

    path: Path
    major: str
    raw_version: int
    how: How
    slot: int

    @property
    def record_size(self) -> int:
        return layout.LAYOUTS[self.raw_version].record_size()


SLOTS = 3


def source(slot: int, chance: random.Random) -> str:
    """Return C++ with functions that are static, inline (shared by objects) or external."""
    kinds = [chance.choice(("static", "inline", "external")) for _ in range(chance.randint(1, 8))]
    text, calls = "", []
    for n, kind in enumerate(kinds):
        body = f"(int x) {{ return x > {n} ? x * {n + 2} : x - 1; }}\n"
        name = f"shared_{n}" if kind == "inline" else f"own_{slot}_{chance.randrange(10**6)}"
        before = "" if kind == "external" else kind
        text += f"__attribute__((noinline)) {before} int {name}{body}"
        if kind != "external" or chance.random() < 0.5:
            calls.append(f"{name}(x)")
    total = " + ".join(calls or ["x"])
    text += f'extern "C" int entry_{slot}(int x) {{ return {total}; }}\n'
    return text


MAIN = "".join(f'extern "C" __attribute__((weak)) int entry_{n}(int);\n' for n in range(SLOTS))
MAIN += "int main(int argc, char **) {\n    int sum = 0;\n"
MAIN += "".join(f"    if (entry_{n})\n        sum += entry_{n}(argc);\n" for n in range(SLOTS))
MAIN += "    return sum == 1;\n}\n"


@dataclasses.dataclass(frozen=True)
class Linked:
    image: Path
    objects: tuple[Object, ...]
    runtime: int
    stripped: bool
    records: tuple[tuple[Object, int], ...]
    """What of each object survived, in order: the truth."""

    @property
    def layouts(self) -> tuple[tuple[int, int], ...]:
        by_size = itertools.groupby(self.records, lambda item: item[0].record_size)
        return tuple((size, sum(count for _, count in group)) for size, group in by_size)


def surviving(text: str, objects: Sequence[Object]) -> list[tuple[Object, int]]:
    """Read a linker's map: the bytes that each object has in `__llvm_prf_data`, in order."""
    by_name = {one.path.name: one for one in objects}
    _, _, used = text.rpartition("emory map\n")  # bfd, gold: what was discarded stands before
    lld = r"^ +\S+ +\S+ +(?P<size>[0-9a-f]+) +\d+ +(?P<file>\S+):\(__llvm_prf_data\)$"
    gnu = r"^ __llvm_prf_data\s+0x[0-9a-f]+\s+0x(?P<size>[0-9a-f]+) (?P<file>\S+)$"
    found: list[tuple[Object, int]] = []
    for match in re.finditer(lld if ":(__llvm_prf_data)" in used else gnu, used, re.MULTILINE):
        one = by_name[Path(match["file"]).name]
        found.append((one, int(match["size"], 16) // one.record_size))
    return [item for item in found if item[1]]


#: Without libunwind, which libc.a asks for; nobody runs these.
STATIC = ["-static", "-unwindlib=none", "-Wl,--unresolved-symbols=ignore-all"]


def link(number: int, pool: Sequence[Object], folder: Path, tools: dict[str, Toolchain]) -> Linked:
    """Link some objects of the pool at random (the number is the seed)."""
    chance = random.Random(f"{SEED} {number}")  # noqa: S311
    linker = chance.choice([name for name in ("lld", "bfd", "gold") if linker_there(name)])
    hows: list[How] = chance.choice([["ir"], ["ir"], ["front-end"], ["ir", "front-end"]])
    hows = hows[:1] if linker == "gold" else hows  # gold refuses inline functions of both ways
    majors = chance.sample(MAJORS, chance.choice((1, 2, 3, 3)))
    fitting = [one for one in pool if one.how in hows and one.major in majors]
    slots = chance.sample(range(SLOTS), chance.randint(1, SLOTS))
    main = chance.choice([one for one in fitting if one.slot < 0])
    objects = [main, *(chance.choice([o for o in fitting if o.slot == slot]) for slot in slots)]
    chance.shuffle(objects)
    shapes = [["-pie"], ["-no-pie"], ["-shared"], STATIC]
    # gold's map of a -r link does not say what came from where.
    shape = chance.choice([*shapes, *([["-r", "-nostdlib"]] if linker != "gold" else [])])
    stripped = shape[0] != "-r" and chance.random() < 0.4
    flags = [f"-fuse-ld={linker}", *shape, *(["-s"] if stripped else [])]
    flags += ["-fprofile-generate"] if shape[0] != "-r" else []
    if shape[0] != "-r" and chance.random() < 0.4:
        flags += ["-Wl,--gc-sections"]
    folder = folder / str(number)  # alone: an audit of the image looks beside it
    folder.mkdir()
    image = folder / ("linked.o" if shape[0] == "-r" else "linked")
    names = [one.path for one in objects]
    flags += [f"-Wl,-Map={image}.map", "-Wno-unused-command-line-argument"]
    run(tools[main.major].compiler, *flags, *names, "-o", image, cwd=folder)
    found = surviving(Path(f"{image}.map").read_text(errors="replace"), objects)
    return Linked(image, tuple(objects), main.raw_version, stripped, tuple(found))


@functools.cache
def linker_there(name: str) -> bool:
    return name == "lld" or shutil.which(f"ld.{name}") is not None


def only(report: AuditReport, path: Path) -> Audited:
    (found,) = [one for one in report.files if one.path == path]
    return found


TRIPLE = "x86_64-unknown-linux-gnu"
RUST = 'extern "C" { fn step(x: i32) -> i32; }\nfn main() { std::process::exit(unsafe { step(-1) }); }\n'


def cargo_target(lab: Lab, toolchain: Callable[[str], Toolchain], folder: Path) -> Path:
    """Make a target folder as cargo leaves it: rustc of LLVM 19, the C part by LLVM 17."""
    rustc, clang = lab.trial("rust-cold", "19", "17").main, toolchain("17").compiler
    release = folder / "release"
    out, script = release / "build" / "tiny-2" / "out", release / "build" / "tiny-1"
    for made in (out, script, release / "deps"):
        made.mkdir(parents=True)
    note = {"outputs": {"1": {"stdout": f"rustc 1.85.0\nhost: {TRIPLE}\nLLVM version: 19.1.7\n"}}}
    (folder / ".rustc_info.json").write_text(json.dumps(note))
    (out / "step.c").write_text("int step(int x) { return x > 0 ? x : 0; }\n")
    run(clang, "-O1", "-fPIC", HOW["ir"], "-c", "step.c", "-o", "step.o", cwd=out)
    run(toolchain("19").prefix / "bin" / "llvm-ar", "crs", "libstep.a", "step.o", cwd=out)
    (script / "main.rs").write_text("fn main() {}\n")
    (release / "main.rs").write_text(RUST)
    (release / "part.rs").write_text("pub fn part() {}\n")
    linker = [f"-Clinker={toolchain('19').compiler}", "-Clink-arg=-fuse-ld=lld"]
    image = release / "deps" / "tiny-0123456789abcdef"
    library = "deps/libpart-0.rlib"
    profiled: list[str | Path] = [rustc.compiler, "-Cprofile-generate"]
    run(*profiled, "--crate-type=lib", "part.rs", "-o", library, cwd=release)
    run(rustc.compiler, *linker, "main.rs", "-o", "build-script-build", cwd=script)
    link = [f"-Lnative={out}", "-lstatic=step", "main.rs"]
    run(*profiled, *linker, *link, "-o", image, cwd=release)
    os.link(image, release / "tiny")
    return folder
