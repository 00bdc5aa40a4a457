"""The profile readers' figures, each beside a rival in the same run; a part of `make bench`."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from synthetic import large, names_blob

from nbsupport import toolchains

Row = tuple[str, str, str, str]
ROOT = Path(__file__).resolve().parent.parent


def timed(work: Callable[[], object], runs: int = 3) -> float:
    """Return the median of some runs, in seconds."""

    def once() -> float:
        start = time.monotonic()
        work()
        return time.monotonic() - start

    return statistics.median(once() for _ in range(runs))


def image(folder: Path, functions: int, size: int) -> Path:
    """Link an image with so many instrumented functions and bytes, as a large program's.

    Records, counters and names are given as assembly, for compiling them takes minutes.
    """
    names = [
        f"_ZN4some9namespace6module{i // 500:04d}8functionILi{i}EEvv" for i in range(functions)
    ]
    (folder / "names").write_bytes(names_blob(names))
    lines = [".text"]
    lines += [f".globl {n}\n.type {n},@function\n{n}: ret" for n in names]
    lines += [".globl _start\n_start: ret", f".zero {size - 150 * functions}, 0x90"]
    lines += ['.section __llvm_prf_cnts,"aw"', "counters:", f".zero {8 * functions}"]
    lines += ['.section __llvm_prf_data,"aw"', ".p2align 3"]
    for i, name in enumerate(names):
        reference = hashlib.md5(name.encode(), usedforsecurity=False).digest()[:8]
        lines.append(
            f".quad {int.from_bytes(reference, 'little')}, {zlib.crc32(reference)}\n"
            f".quad counters + {8 * i} - (. - 16), 0, {name}, 0\n.long 1, 0, 0, 0"
        )
    lines += ['.section __llvm_prf_names,"a"', f'.incbin "{folder / "names"}"']
    (folder / "image.s").write_text("\n".join(lines) + "\n")
    clang = toolchains.find("19").compiler
    out = folder / f"image-{functions}"
    command = [clang, "-fuse-ld=lld", "-nostdlib", "-no-pie", folder / "image.s", "-o", out]
    subprocess.run(command, check=True)
    return out


def audits(folder: Path) -> list[Row]:
    """Measure the audit of images that grow, and of a target folder of 1 GB."""
    pgo_lab = str(Path(sys.executable).with_name("pgo-lab"))
    nm = toolchains.find("19").prefix / "bin" / "llvm-nm"
    rows: list[Row] = []
    for functions in (2_000, 20_000, 200_000):
        path = image(folder, functions, 500 * functions)
        ours = timed(
            lambda p=path: subprocess.run(
                [pgo_lab, "audit", "--json", p], stdout=subprocess.DEVNULL, check=True
            )
        )  # type: ignore[misc]
        theirs = timed(
            lambda p=path: subprocess.run([nm, p], stdout=subprocess.DEVNULL, check=True)
        )  # type: ignore[misc]
        what = f"audit: image of {path.stat().st_size / 1e6:.0f} MB, {functions} functions"
        limit = "1.5 s" if functions == 200_000 else ""
        rows.append((what, f"{ours:.2f} s", f"llvm-nm: {theirs:.2f} s", limit))
    target = folder / "target" / "release" / "deps"
    target.mkdir(parents=True)
    for n in range(10):
        shutil.copy(path, target / f"program-{n}")
    total = sum(p.stat().st_size for p in target.iterdir())
    ours = timed(
        lambda: subprocess.run(
            [pgo_lab, "audit", folder / "target"], stdout=subprocess.DEVNULL, check=True
        ),
        1,
    )
    cat = timed(
        lambda: subprocess.run(
            ["/bin/sh", "-c", f"cat {target}/* | wc -c"], stdout=subprocess.DEVNULL, check=True
        ),
        1,
    )
    digest = timed(
        lambda: subprocess.run(
            ["sha256sum", *target.iterdir()], stdout=subprocess.DEVNULL, check=True
        ),
        1,
    )
    beside = f"cat: {cat:.1f} s, sha256sum: {digest:.1f} s"
    rows.append(
        (f"audit: target folder of {total / 1e9:.1f} GB, 10 images", f"{ours:.1f} s", beside, "")
    )
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
    profdata = toolchains.profdata(toolchains.find("19"))
    rows: list[Row] = []
    for functions in (7_000, 70_000, 700_000):
        path = folder / f"{functions}.profraw"
        size = large(path, functions)

        def show(*options: str, path: Path = path) -> float:
            command = [profdata, "show", *options, path]
            return timed(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))

        command = [sys.executable, "-c", READER, str(path)]
        runs = [
            [
                float(n)
                for n in subprocess.run(
                    command, capture_output=True, text=True, check=True
                ).stdout.split()
            ]
            for _ in range(3)
        ]
        totals, table, memory = (statistics.median(column) for column in zip(*runs, strict=True))
        brief, full = show(), show("--all-functions", "--counts")
        last = functions == 700_000
        what = f"profraw of {size / 1e6:.1f} MB, {functions} functions"
        rows += [
            (
                f"{what}: totals",
                f"{totals * 1000:.1f} ms",
                f"{totals / brief:.3f} of show",
                "0.1" if last else "",
            ),
            (
                f"{what}: table",
                f"{table:.3f} s",
                f"{table / full:.2f} of show --all-functions --counts",
                "0.5" if last else "",
            ),
            (
                f"{what}: peak memory",
                f"{memory / 1e6:.0f} MB",
                f"{memory / size:.1f} of the file",
                "3" if last else "",
            ),
        ]
    return rows


def first_use(folder: Path) -> list[Row]:
    """Measure the wheel's audit through uvx, from an empty cache."""
    uv = [sys.executable, "-m", "uv"]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    env = {**os.environ, "UV_CACHE_DIR": str(folder / "uv-cache")}
    command = [
        *uv,
        "tool",
        "run",
        "--from",
        wheel,
        "pgo-lab",
        "audit",
        folder / "7000.profraw",
        sys.executable,
    ]
    seconds = [
        timed(lambda: subprocess.run(command, env=env, capture_output=True, check=False), 1)
        for _ in range(2)
    ]
    size = wheel.stat().st_size / 1e6
    return [
        (
            "uvx pgo-lab audit, empty cache",
            f"{seconds[0]:.1f} s",
            f"again: {seconds[1]:.1f} s; wheel {size:.1f} MB",
            "10 s",
        )
    ]


def rows(folder: Path) -> list[Row]:
    """Return every figure."""
    return [*profiles(folder), *audits(folder), *first_use(folder)]
