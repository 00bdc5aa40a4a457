"""What reading profiles and auditing images costs as they grow; part of `make bench`."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

from nbsupport.toolchains import discovery
from nbsupport.toolchains import profdata as llvm_profdata
from tests.bench.row import PGO_LAB, ROOT, Place, Row, Sample, run, timed
from tests.support.synthetic import large, names_blob

#: Of raw profiles, and of images with 500 bytes for each.
FUNCTIONS, IMAGES = (7_000, 70_000, 700_000), (2_000, 20_000, 200_000)
#: What was asked for of an image of 1, 10 and 100 MB.
ASKED = dict(zip(IMAGES, ("0.6 s", "0.8 s", "3 times it"), strict=True))


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


def image(functions: int, place: Place) -> Path:
    """Return an image that is linked of that."""

    def fill(folder: Path) -> None:
        source = assembly(folder, functions, 500 * functions)
        with source.open("a") as file:
            file.write(".text\n.globl _start\n_start: ret\n")
        clang = discovery.find("19").compiler
        run(clang, "-fuse-ld=lld", "-nostdlib", "-no-pie", source, "-o", folder / "image")

    return place.once(f"image-{functions}", fill) / "image"


AUDIT = functools.partial(timed, PGO_LAB, "audit", "--json")


def audit(functions: int, place: Place) -> tuple[Sample, Sample]:
    path = image(functions, place)
    return AUDIT(path), timed(discovery.find("19").prefix / "bin" / "llvm-nm", path)


def audit_folder(place: Place) -> tuple[Sample, Sample]:
    def fill(folder: Path) -> None:
        deps = folder / "release" / "deps"
        deps.mkdir(parents=True)
        for n in range(10):
            shutil.copy(image(IMAGES[-1], place), deps / f"program-{n}")

    target = place.once("target", fill)
    return AUDIT(target), timed("sha256sum", *(target / "release" / "deps").iterdir())


#: In a process of its own, so that its peak of memory is known; imports are not timed.
READER = """
import json, re, sys, time
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
taken = {"totals": middle - start, "table": time.monotonic() - start}
print(json.dumps({**taken, "memory": (peak() - before) / 1e6}))
"""
#: What llvm-profdata show is told for the same.
SHOW = {"totals": (), "table": ("--all-functions", "--counts")}


def profile(functions: int, figure: str, place: Place) -> tuple[Sample, Sample]:
    path = place.once(f"profraw-{functions}", lambda f: large(f / "profraw", functions)) / "profraw"

    def ours() -> float:
        said = subprocess.check_output([sys.executable, "-c", READER, str(path)])
        return float(json.loads(said)[figure])

    if figure == "memory":
        return ours, lambda: path.stat().st_size / 1e6
    profdata = llvm_profdata.tool(discovery.find("19"))
    return ours, timed(profdata, "show", *SHOW[figure], path)


def first_use(place: Place) -> tuple[Sample, Sample]:
    """Measure the wheel's audit through uvx, from an empty cache."""
    module = (sys.executable, "-m")
    out = place.fresh()
    run(*module, "hatchling", "build", "-t", "wheel", "-d", out, cwd=ROOT)
    (wheel,) = out.glob("*.whl")

    def audited(cache: Path) -> float:
        uvx = (*module, "uv", "-q", "--cache-dir", cache, "tool", "run", "--from", wheel)
        return timed(*uvx, "pgo-lab", "audit", sys.executable, codes=range(3))()

    used = place.fresh()
    return lambda: audited(used), lambda: audited(used)


def profile_row(functions: int, figure: str) -> Row:
    asked = {"totals": "0.1 of it", "table": "0.5 of it", "memory": "3 times it"}[figure]
    memory = figure == "memory"
    return Row(
        f"profile.{figure}-{functions}",
        f"a raw profile of {functions} functions: {'peak memory' if memory else figure}",
        "the file's size" if memory else " ".join(("llvm-profdata show", *SHOW[figure])),
        asked if functions == FUNCTIONS[-1] else "",
        functools.partial(profile, functions, figure),
        unit="MB" if memory else "s",
    )


ROWS = (
    *(profile_row(functions, figure) for functions in FUNCTIONS for figure in (*SHOW, "memory")),
    *(
        Row(f"profile.audit-{functions}", f"audit of an image of {functions} functions", "llvm-nm",
            ASKED[functions], functools.partial(audit, functions))
        for functions in IMAGES
    ),
    Row("profile.audit-folder", "audit of a target folder, 10 of the largest images",
        "sha256sum of them", "1.3 times it", audit_folder),
    Row("profile.uvx", "uvx pgo-lab audit, the first time", "the second time", "10 s", first_use, 1,
        once=False),
)  # fmt: skip
