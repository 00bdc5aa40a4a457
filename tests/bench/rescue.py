"""What a rescue costs, beside a run that does not crash; part of `make bench`."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from nbsupport.base import settings
from nbsupport.toolchains import discovery
from nbsupport.toolchains import profdata as llvm_profdata
from tests.bench.profile import assembly
from tests.bench.row import PGO_LAB, Place, Row, Sample, run, timed

FLAGS = ("-O1", "-fPIC", "-fprofile-generate")
#: Of the large image, and of the busy run.
FUNCTIONS, LOOPS = 200_000, 600_000_000

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


def program(place: Place, functions: int, size: int, other: str) -> Path:
    """Return a program with so many more functions and bytes, as assembly; the library by `other`."""

    def fill(folder: Path) -> None:
        (folder / "busy.c").write_text(BUSY)
        main, foreign = (discovery.find(version).compiler for version in ("19", other))
        library = settings.data_dir() / "programs" / "library_hot.c"
        run(main, "-c", assembly(folder, functions, size), "-o", "large.o", cwd=folder)
        run(main, *FLAGS, "-c", "busy.c", cwd=folder)
        run(foreign, *FLAGS, "-c", library, "-o", "library.o", cwd=folder)
        objects = ("busy.o", "large.o", "library.o")
        run(main, "-fuse-ld=lld", *FLAGS, *objects, "-o", "program", cwd=folder)

    return place.once(f"rescue-{functions}-{other}", fill) / "program"


def tail(*command: object, cwd: Path) -> float:
    """Return the seconds from a command's first line of output to its end."""
    argv = [str(part) for part in command]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=cwd) as child:
        assert child.stdout
        child.stdout.readline()
        start = time.monotonic()
        child.stdout.read()
        code = child.wait()
    if code:
        raise RuntimeError(f"{argv[0]} ended with {code}")
    return time.monotonic() - start


def image(place: Place) -> tuple[Sample, Sample]:
    crashes, healthy = (program(place, FUNCTIONS, 100_000_000, other) for other in ("17", "19"))
    profdata = llvm_profdata.tool(discovery.find("19"))

    def theirs() -> float:
        work = place.fresh()
        ran = tail("env", "LLVM_PROFILE_FILE=raw", healthy, 1, cwd=work)
        return ran + timed(profdata, "merge", "-o", "out.profdata", "raw", cwd=work)()

    rescue = (PGO_LAB, "rescue", "-o", "out.profdata", "--")
    return lambda: tail(*rescue, crashes, 1, cwd=place.work), theirs


def busy(place: Place) -> tuple[Sample, Sample]:
    crashes, healthy = (program(place, 1, 1000, other) for other in ("17", "19"))
    rescue = (PGO_LAB, "rescue", "-o", "out.profdata", "--")
    return (
        timed(*rescue, crashes, LOOPS, cwd=place.work),
        timed(healthy, LOOPS, cwd=place.work),
    )


ROWS = (
    Row("rescue.image", f"rescue, after the program's end: 100 MB, {FUNCTIONS} functions",
        "one that is healthy, and llvm-profdata merge", "3 s", image),
    Row("rescue.run", "a rescued run, no hot value sites", "the instrumented run", "3 times it",
        busy),
)  # fmt: skip
