"""What the project promises to be fast at, measured: `make bench`.

Each figure is a ratio to a named rival, taken in the same run, since machines are noisy
and differ. Nothing here is a test. `--report` adds `make report` itself, in a new clone.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nbsupport.base import progress, settings
from nbsupport.lab import build
from nbsupport.lab.grid import sweep
from nbsupport.lab.lab import ORDERS, Lab
from nbsupport.toolchains import discovery
from tests.bench import batch, diff, guard, profile, rescue, sources, trace, widgets

VERSIONS = ("17", "18", "19", "20", "21", "22", "23")
PROGRAMS = settings.data_dir() / "programs"

#: The same grid as a plain shell loop: what one would write without this package.
LOOP = r"""
export LC_ALL=C; unset DEBUGINFOD_URLS
n=0
for main in $CLANGS; do for foreign in $CLANGS; do
for library in cold hot; do for order in main foreign; do
  work=$(mktemp -d "$WORK/XXXXXX")
  "$main" -O1 -fPIC -fprofile-generate -c "$SRC/main.c" -o "$work/main.o"
  "$foreign" -O1 -fPIC -fprofile-generate -c "$SRC/library_$library.c" -o "$work/library.o"
  objects="$work/main.o $work/library.o"
  [ $order = main ] || objects="$work/library.o $work/main.o"
  "$main" -fuse-ld=lld -fprofile-generate $objects -o "$work/program"
  export LLVM_PROFILE_FILE="$work/run.profraw"
  "$work/program" >"$work/out" 2>&1
  [ $? -lt 128 ] || "$LLDB" -b -o run -k bt -k quit "$work/program" >"$work/frames" 2>&1
  n=$((n + 1)); [ $n -lt $CELLS ] || exit 0
done; done; done; done
"""


def timed(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def fresh(folder: Path) -> Path:
    """Return a cache with the toolchains of the user's, and nothing built."""
    cache = Path(tempfile.mkdtemp(dir=folder))
    for name in ("toolchains", "probes", "sources", "archives"):
        if (settings.cache_dir() / name).exists():
            (cache / name).symlink_to(settings.cache_dir() / name)
    return cache


def grid(cache: Path, **options: object) -> tuple[float, int]:
    """Return the seconds of a sweep in a cache, and its number of trials."""
    arguments = {"programs": ("cold", "hot"), "orders": ORDERS, **options}
    with Lab(cache) as lab:
        start = time.monotonic()
        cells = sweep(mains=VERSIONS, foreigns=VERSIONS, lab=lab, **arguments)  # type: ignore[arg-type]
        return time.monotonic() - start, len(cells)


def builds_alone(cache: Path) -> float:
    """Return the seconds of all that the grid compiles and links, on the same cores."""
    with Lab(cache) as lab:
        trials = [
            lab.trial(program, main, foreign, order=order)
            for program in ("cold", "hot")
            for main in VERSIONS
            for foreign in VERSIONS
            for order in ORDERS
        ]
    wanted = (one for trial in trials for one in (trial, *trial.references))
    programs = list(dict.fromkeys(wanted))
    jobs = list(dict.fromkeys(job for one in programs for job in build.jobs(one)))
    start = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: build.compiled(job, cache), jobs))
        list(pool.map(lambda one: build.linked(one, cache), programs))
    return time.monotonic() - start


def shell_loop(folder: Path, cells: int) -> float:
    """Return the seconds of the plain loop over as many cells."""
    clangs = " ".join(str(discovery.find(version).compiler) for version in VERSIONS)
    env = {
        **os.environ,
        "CLANGS": clangs,
        "LLDB": str(discovery.find_lldb()),
        "SRC": str(PROGRAMS),
        "WORK": tempfile.mkdtemp(dir=folder),
        "CELLS": str(cells),
    }
    command = ["bash", "-c", f"exec 2>/dev/null\n{LOOP}"]  # bash tells of each crash
    return timed(lambda: subprocess.run(command, env=env, check=False))


def one_trial(folder: Path) -> list[tuple[str, str, str, str]]:
    """Measure a crashing trial, cold and warm, beside the shell's way."""
    loop = shell_loop(folder, 10) / 10  # the first cells: a third of them crash
    cold = []
    with Lab(fresh(folder)) as lab:
        trial = lab.trial("cold", "19", "17")
        cold.append(timed(lambda: lab.run(trial)))
        warm = statistics.median(timed(lambda: lab.run(trial)) for _ in range(10))
    return [
        ("one cold trial (LLDB's start too)", f"{cold[0]:.2f} s", f"shell: {loop:.2f} s", "1.5 s"),
        ("one warm trial", f"{warm:.3f} s", f"shell: {loop:.2f} s", "0.4 s"),
    ]


def imports() -> tuple[str, str, str, str]:
    """Measure what importing the package costs beside starting Python."""

    def start(code: str) -> float:
        command = [sys.executable, "-c", code]
        runs = [timed(lambda: subprocess.run(command, check=True)) for _ in range(9)]
        return statistics.median(runs)

    ours, bare = start("import nbsupport"), start("pass")
    return ("import nbsupport", f"{ours:.3f} s", f"python alone: {bare:.3f} s", "0.15 s")


def grids(folder: Path) -> list[tuple[str, str, str, str]]:
    """Measure the grid beside the shell loop and beside its builds; and how it grows."""
    import pandas as pd  # noqa: F401 - once a process, in whatever it does

    rows = []
    cache = fresh(folder)
    ours, cells = grid(cache)
    again, _ = grid(cache)
    builds = builds_alone(fresh(folder))
    loop = shell_loop(folder, cells)
    what = f"grid of {cells}, cold"
    rows.append((what, f"{ours:.1f} s", f"shell loop: {loop / ours:.1f} times", "6 times"))
    rows.append((what, f"{ours:.1f} s", f"{ours / builds:.2f} of its builds", "2"))
    rows.append((f"grid of {cells}, warm", f"{again:.1f} s", f"{again / ours:.2f} of cold", ""))
    small, few = grid(fresh(folder), programs=("cold",), orders=("main-first",))
    both = ("ir", "front-end")
    large, many = grid(fresh(folder), instruments=both, main_instruments=both)
    for seconds, count in ((small, few), (ours, cells), (large, many)):
        each = f"{1000 * seconds / count:.0f} ms each"
        rows.append((f"growth: {count} cells", f"{seconds:.1f} s", each, ""))
    return rows


def reports(folder: Path) -> list[tuple[str, str, str, str]]:
    """Measure `make report` from nothing in a new clone, and again with nothing changed."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "-q", str(Path.cwd()), str(clone)], check=True)
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    command = ["make", "-C", str(clone), "report"]
    first = timed(lambda: subprocess.run(command, env=env, check=True))
    second = timed(lambda: subprocess.run(command, env=env, check=True))
    return [
        ("make report, from nothing", f"{first:.0f} s", "", "240 s"),
        ("make report, nothing changed", f"{second:.1f} s", f"{second / first:.2f} of it", "60 s"),
    ]


def main() -> None:
    table = Table(
        "what", "measured", "beside", "at most / at least", title=f"{os.cpu_count()} cores"
    )
    with tempfile.TemporaryDirectory(prefix="pgo-lab-bench-") as name:
        folder = Path(name)
        rows = [imports()]
        progress.say("one trial…")
        rows += one_trial(folder)
        progress.say("the grid, and the shell loop beside it: about three minutes…")
        rows += grids(folder)
        progress.say("raw profiles and the audit, up to 100 MB: about two minutes…")
        rows += profile.rows(folder)
        progress.say("traces…")
        rows += trace.rows(folder)
        progress.say("rescue and guard…")
        rows += rescue.rows(folder)
        rows += guard.rows()
        progress.say("LLVM's sources…")
        rows += sources.rows()
        rows += diff.rows()
        rows += batch.rows()
        progress.say("the site and a widget, in a browser…")
        rows += widgets.rows()
        if "--report" in sys.argv:
            progress.say("make report, from nothing and again…")
            rows += reports(folder)
        shutil.rmtree(folder / "cache", ignore_errors=True)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
