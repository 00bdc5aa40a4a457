"""The profile readers' figures, each beside a rival in the same run; a part of `make bench`."""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from nbsupport.toolchains import discovery, profdata
from tests.support.synthetic import large, names_blob

Row = tuple[str, str, str, str]
ROOT = Path(__file__).resolve().parents[2]


def timed(work: Callable[[], object], runs: int = 3) -> float:
    """Return the median of some runs, in seconds."""

    def once() -> float:
        start = time.monotonic()
        work()
        return time.monotonic() - start

    return statistics.median(once() for _ in range(runs))


def assembly(folder: Path, functions: int, size: int) -> Path:
    """Write an assembly file of so many instrumented functions and bytes, as a large program's.

    Records, counters and names are given, for compiling them takes minutes.
    """
    names = [
        f"_ZN4some9namespace6module{i // 500:04d}8functionILi{i}EEvv" for i in range(functions)
    ]
    (folder / "names").write_bytes(names_blob(names))
    lines = [".text"]
    lines += [f".globl {n}\n.type {n},@function\n{n}: ret" for n in names]
    lines += [f".zero {size - 150 * functions}, 0x90"]
    lines += ['.section __llvm_prf_cnts,"aw"', "counters:", f".zero {8 * functions}"]
    lines += ['.section __llvm_prf_data,"aw"', ".p2align 3"]
    for i, name in enumerate(names):
        reference = hashlib.md5(name.encode(), usedforsecurity=False).digest()[:8]
        lines.append(
            f".quad {int.from_bytes(reference, 'little')}, {zlib.crc32(reference)}\n"
            f".quad counters + {8 * i} - (. - 16), 0, 0, 0\n.long 1, 0, 0, 0"
        )
    lines += ['.section __llvm_prf_names,"a"', f'.incbin "{folder / "names"}"']
    out = folder / f"assembly-{functions}.s"
    out.write_text("\n".join(lines) + "\n")
    return out


def image(folder: Path, functions: int, size: int) -> Path:
    """Link that to an image."""
    source = assembly(folder, functions, size)
    with source.open("a") as file:
        file.write(".text\n.globl _start\n_start: ret\n")
    clang = discovery.find("19").compiler
    out = folder / f"image-{functions}"
    run(clang, "-fuse-ld=lld", "-nostdlib", "-no-pie", source, "-o", out)
    return out


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, check=True)


def audits(folder: Path) -> list[Row]:
    """Measure the audit of images that grow, and of a target folder of 1 GB."""
    audit = (Path(sys.executable).with_name("pgo-lab"), "audit", "--json")
    nm = discovery.find("19").prefix / "bin" / "llvm-nm"
    rows: list[Row] = []
    for functions in (2_000, 20_000, 200_000):
        path = image(folder, functions, 500 * functions)
        ours, theirs = timed(partial(run, *audit, path)), timed(partial(run, nm, path))
        what = f"audit: image of {path.stat().st_size / 1e6:.0f} MB, {functions} functions"
        limit = "1.5 s" if functions == 200_000 else ""
        rows.append((what, f"{ours:.2f} s", f"llvm-nm: {theirs:.2f} s", limit))
    target = folder / "target" / "release" / "deps"
    target.mkdir(parents=True)
    for n in range(10):
        shutil.copy(path, target / f"program-{n}")
    files = sorted(target.iterdir())
    total = sum(file.stat().st_size for file in files)
    ours = timed(partial(run, *audit, folder / "target"), 1)
    digest = timed(partial(run, "sha256sum", *files), 1)
    what = f"audit: target folder of {total / 1e9:.1f} GB, 10 images"
    rows.append((what, f"{ours:.1f} s", f"sha256sum of it: {digest:.1f} s", ""))
    return rows


#: Run in a process of its own, so that its peak of memory is known; imports are not timed.
READER = """
import re, sys, time
from pathlib import Path
from nbsupport.profile import profraw
def peak(): return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
path, before, start = Path(sys.argv[1]), peak(), time.monotonic()
found = profraw.read(path)
totals = found.functions, found.counters
middle = time.monotonic()
for profile in found.profiles:
    functions = profile.functions
    len(functions.names), functions.hashes.sum(), functions.counts.sum(), functions.first
print(middle - start, time.monotonic() - start, peak() - before)
"""


def profiles(folder: Path) -> list[Row]:
    """Measure reading raw profiles that grow, beside llvm-profdata."""
    tool = profdata.tool(discovery.find("19"))
    rows: list[Row] = []
    for functions in (7_000, 70_000, 700_000):
        path = folder / f"{functions}.profraw"
        size = large(path, functions)

        def show(*options: str, path: Path = path) -> float:
            return timed(partial(run, tool, "show", *options, path))

        command = [sys.executable, "-c", READER, str(path)]
        runs = [list(map(float, subprocess.check_output(command).split())) for _ in range(3)]
        totals, table, memory = (statistics.median(column) for column in zip(*runs, strict=True))
        brief, full = show(), show("--all-functions", "--counts")
        what = f"profraw of {size / 1e6:.1f} MB, {functions} functions"
        limits = ("0.1", "0.5", "3") if functions == 700_000 else ("", "", "")
        everything = "show --all-functions --counts"
        found = (
            ("totals", f"{1000 * totals:.1f} ms", f"{totals / brief:.3f} of show"),
            ("table", f"{table:.3f} s", f"{table / full:.2f} of {everything}"),
            ("peak memory", f"{memory / 1e6:.0f} MB", f"{memory / size:.1f} of the file"),
        )
        rows += [
            (f"{what}: {n}", ours, theirs, limits[i]) for i, (n, ours, theirs) in enumerate(found)
        ]
    return rows


def first_use(folder: Path) -> list[Row]:
    """Measure the wheel's audit through uvx, from an empty cache."""
    module = (sys.executable, "-m")
    os.environ["UV_CACHE_DIR"] = str(folder / "uv-cache")
    run(*module, "hatchling", "build", "-t", "wheel", "-d", folder)
    (wheel,) = folder.glob("*.whl")
    tool = (*module, "uv", "-q", "tool", "run", "--from", wheel, "pgo-lab", "audit")
    first, again = (timed(partial(run, *tool, sys.executable), 1) for _ in range(2))
    beside = f"again: {again:.1f} s; wheel of {wheel.stat().st_size / 1e6:.1f} MB"
    return [("uvx pgo-lab audit, empty cache", f"{first:.1f} s", beside, "10 s")]


def rows(folder: Path) -> list[Row]:
    """Return every figure."""
    return [*profiles(folder), *audits(folder), *first_use(folder)]
