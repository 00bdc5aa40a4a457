"""The rescue's figures: a large image after its end, and a run beside the instrumented one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from nbsupport.base import settings
from nbsupport.toolchains import discovery
from tests.bench.profile import Row, assembly, run, timed

PROGRAMS = settings.data_dir() / "programs"
FLAGS = ("-O1", "-fPIC", "-fprofile-generate")

#: No value site: what takes time is counting.
BUSY = """
#include <stdio.h>
#include <stdlib.h>
static unsigned step(unsigned sum) { return sum & 1 ? 3 * sum + 1 : sum / 2; }
int main(int argc, char **argv) {
    unsigned sum = 27;
    for (long n = atol(argv[1]); n; n--) sum = step(sum) + (sum == 1);
    printf("done %u\\n", sum);
    fflush(stdout);
    return 0;
}
"""


def mixed(folder: Path, functions: int, size: int, other: str = "17") -> Path:
    """Link a program with so many more functions and bytes, as assembly; the library by `other`."""
    large = assembly(folder, functions, size)
    main, foreign = (discovery.find(v).compiler for v in ("19", other))
    (folder / "busy.c").write_text(BUSY)
    parts = [(main, folder / "busy.c"), (main, large)]
    parts += [(foreign, PROGRAMS / "library_hot.c")]
    objects = []
    for compiler, source in parts:
        objects.append(folder / f"{source.stem}.o")
        run(compiler, *(FLAGS if source.suffix == ".c" else ()), "-c", source, "-o", objects[-1])
    out = folder / f"program-{functions}-{other}"
    run(main, "-fuse-ld=lld", *FLAGS, *objects, "-o", out)
    return out


def tail(*command: object) -> float:
    """Return the seconds from a command's first line of output to its end."""
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        start = time.monotonic()
        child.stdout.read()
    return time.monotonic() - start


def rows(folder: Path) -> list[Row]:
    """Measure both; the rival is the instrumented program itself, and llvm-profdata."""
    lab = (Path(sys.executable).with_name("pgo-lab"), "rescue", "-o", folder / "out.profdata", "--")
    program = mixed(folder, 200_000, 100_000_000)
    seconds = min(tail(*lab, program, 1) for _ in range(3))
    what = (
        f"rescue: image of {program.stat().st_size / 1e6:.0f} MB, 200000 functions, after its end"
    )
    made = [(what, f"{seconds:.2f} s", "", "3 s")]
    loops = 600_000_000
    small, uniform = mixed(folder, 1, 1000), mixed(folder, 1, 1000, "19")
    theirs = timed(lambda: run(uniform, loops))
    ours = timed(lambda: run(*lab, small, loops))
    what = f"rescued run of {theirs:.1f} s, no hot value sites"
    return [*made, (what, f"{ours / theirs:.2f}", "the instrumented run: 1", "3")]


if __name__ == "__main__":
    print(*rows(Path(sys.argv[1])), sep="\n")  # noqa: T201
