"""What an audit of folders and archives costs, as cargo and hostile hands fill them; `make bench`."""

from __future__ import annotations

import functools
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

from nbsupport.toolchains import discovery
from tests.bench.row import PGO_LAB, Place, Row, Sample, run, timed

#: A target folder: archives, objects in each, and of how many functions; one of TENTH is profiled.
ARCHIVES, OBJECTS, FUNCTIONS, TENTH = 60, 30, 366, 10
#: Files in one folder; how often a thin archive names one member.
FILES, TIMES = 10_000, 20_000


def source(path: Path, functions: int, name: str) -> Path:
    bodies = (
        f"int {name}_{n}(int x) {{ return x > {n} ? x * {n} : x; }}\n" for n in range(functions)
    )
    path.write_text("".join(bodies))
    return path


def fill_target(folder: Path) -> None:
    """Make 276 MB as cargo does: archives of objects with debug information, and a program."""
    clang = discovery.find("19")
    deps = folder / "release" / "deps"
    deps.mkdir(parents=True)
    work = folder / "work"
    work.mkdir()
    (work / "main.c").write_text("int main(void) { return 0; }\n")
    flags = ["-O1", "-g", "-ffunction-sections"]
    for n in range(OBJECTS):
        profiled = ["-fprofile-generate"] if n % TENTH == 0 else []
        unit = source(work / f"unit{n}.c", FUNCTIONS, f"unit{n}")
        run(clang.compiler, *flags, *profiled, "-c", unit, "-o", work / f"unit{n}.o")
    objects = sorted(work.glob("unit*.o"))
    for n in range(ARCHIVES):
        run(clang.prefix / "bin" / "llvm-ar", "rcs", deps / f"libcrate{n}-0.rlib", *objects)
    program = ["-fuse-ld=lld", "-fprofile-generate", work / "main.c", *objects]
    run(clang.compiler, *program, "-o", deps / "program")
    shutil.rmtree(work)


def fill_files(folder: Path) -> None:
    """Make a folder of many small instrumented objects."""
    unit = source(folder / "unit.c", 3, "unit")
    run(
        discovery.find("19").compiler, "-O1", "-fprofile-generate", "-c", unit, "-o", folder / "0.o"
    )
    for n in range(1, FILES):
        shutil.copy(folder / "0.o", folder / f"{n}.o")


def fill_thin(folder: Path) -> None:
    """Make a thin archive that names one object again and again."""
    unit = source(folder / "unit.c", 3, "unit")
    run(discovery.find("19").compiler, "-O1", "-fprofile-generate", "-c", unit, "-o", folder / "m")
    (folder / "thin.a").write_bytes(b"!<thin>\n" + (b"%-48s%-10d`\n" % (b"m/", 9)) * TIMES)


FILLS: dict[str, Callable[[Path], None]] = {
    "target": fill_target,
    "files": fill_files,
    "thin": fill_thin,
}
#: What is audited in each.
NAMES = {"target": ".", "files": ".", "thin": "thin.a", "program": "release/deps/program"}


def processor(sample: Sample) -> Sample:
    """Return a sample of the seconds that processors work, not those that pass."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def taken() -> float:
        before = spent()
        sample()
        return spent() - before

    return taken


def prepare(name: str, place: Place) -> tuple[Sample, Sample]:
    fill = "target" if name == "program" else name
    folder = place.once(f"audit-{fill}", FILLS[fill])
    path = folder / NAMES[name]
    ours = timed(PGO_LAB, "audit", "--json", path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    rival = timed("sha256sum", *files)
    return (processor(ours), processor(rival)) if name == "target" else (ours, rival)


def row(name: str, what: str, asked: str, unit: str = "s") -> Row:
    prepared = functools.partial(prepare, name)
    return Row(f"audit.{name}", f"audit of {what}", "sha256sum of it", asked, prepared, unit=unit)


ROWS = (
    row("target", f"a target folder, {ARCHIVES} archives of {OBJECTS} objects", "3 s of processors",
        "CPU s"),
    row("program", "a consistent program in it", "0.5 s"),
    row("files", f"a folder of {FILES} objects", "8 s"),
    row("thin", f"a thin archive that names one member {TIMES} times", "8 s"),
)  # fmt: skip
