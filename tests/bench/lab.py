"""What trials cost, one and a grid of them, beside a plain shell loop; part of `make bench`."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nbsupport.base import settings
from nbsupport.lab import build
from nbsupport.lab.grid import sweep
from nbsupport.lab.lab import ORDERS, Lab
from nbsupport.toolchains import discovery
from tests.bench.row import Place, Row, Sample, seconds, timed

VERSIONS = ("17", "18", "19", "20", "21", "22", "23")
PROGRAMS = ("cold", "hot")
#: The grids over all pairs of versions, by their number of trials.
GRIDS: dict[int, dict[str, Any]] = {49: {}, 196: {"programs": PROGRAMS, "orders": ORDERS}}
BOTH = ("ir", "front-end")
GRIDS[784] = {**GRIDS[196], "instruments": BOTH, "main_instruments": BOTH}

#: The same as a plain shell loop, over every STEPth trial: what one would write without us.
LOOP = r"""
export LC_ALL=C; unset DEBUGINFOD_URLS
n=0
for main in $MAINS; do for foreign in $FOREIGNS; do
for library in $LIBRARIES; do for order in $ORDERS; do
  n=$((n + 1)); [ $((n % STEP)) = 0 ] || continue
  work=$(mktemp -d "$WORK/XXXXXX")
  "$main" -O1 -fPIC -fprofile-generate -c "$SRC/main.c" -o "$work/main.o" || exit
  "$foreign" -O1 -fPIC -fprofile-generate -c "$SRC/library_$library.c" -o "$work/library.o" || exit
  objects="$work/main.o $work/library.o"
  [ $order = main-first ] || objects="$work/library.o $work/main.o"
  "$main" -fuse-ld=lld -fprofile-generate $objects -o "$work/program" || exit
  export LLVM_PROFILE_FILE="$work/run.profraw"
  "$work/program" >"$work/out" 2>&1
  [ $? -lt 128 ] || "$LLDB" -b -o run -k bt -k quit "$work/program" >"$work/frames" 2>&1
done; done; done; done
exit 0
"""
#: Has no divisor in common with 196, so that what is left out is of no one kind.
STEP = 9


def shell(
    place: Place,
    mains: Collection[str] = VERSIONS,
    foreigns: Collection[str] = VERSIONS,
    libraries: Collection[str] = PROGRAMS,
    orders: Collection[str] = ORDERS,
    step: int = 1,
) -> float:
    """Return the seconds that the plain loop takes for a trial."""

    def clangs(versions: Collection[str]) -> str:
        return " ".join(str(discovery.find(version).compiler) for version in versions)

    env = {
        **os.environ,
        "MAINS": clangs(mains),
        "FOREIGNS": clangs(foreigns),
        "LIBRARIES": " ".join(libraries),
        "ORDERS": " ".join(orders),
        "STEP": str(step),
        "LLDB": str(discovery.find_lldb()),
        "SRC": str(settings.data_dir() / "programs"),
        "WORK": str(place.fresh()),
    }
    command = ["bash", "-c", f"exec 2>/dev/null\n{LOOP}"]  # bash tells of each crash
    taken = seconds(lambda: subprocess.run(command, env=env, check=True))
    return taken / (len(mains) * len(foreigns) * len(libraries) * len(orders) // step)


def fresh(place: Place) -> Path:
    """Return a cache with the toolchains of the user's, and nothing built."""
    cache = place.fresh()
    for name in ("toolchains", "probes", "sources", "archives"):
        if (settings.cache_dir() / name).exists():
            (cache / name).symlink_to(settings.cache_dir() / name)
    return cache


def imports(_: Place) -> tuple[Sample, Sample]:
    return timed(sys.executable, "-c", "import nbsupport"), timed(sys.executable, "-c", "pass")


def crash(place: Place) -> tuple[Sample, Sample]:
    """Measure a trial that crashes, with nothing built and no debugger."""

    def ours() -> float:
        with Lab(fresh(place)) as lab:
            made = lab.trial("cold", "19", "17")
            return seconds(lambda: lab.run(made))

    ours()  # modules are imported by now
    return ours, lambda: shell(place, ["19"], ["17"], ["cold"], ["main-first"])


def crash_warm(place: Place) -> tuple[Sample, Sample]:
    """Measure it once it has been run."""
    lab = place.stack.enter_context(Lab(fresh(place)))
    made = lab.trial("cold", "19", "17")
    lab.run(made)
    theirs = functools.partial(shell, place, ["19"], ["17"], ["cold"], ["main-first"])
    return lambda: seconds(lambda: lab.run(made)), theirs


def swept(cache: Path, trials: int) -> float:
    """Return the seconds of a grid in a cache."""
    import pandas as pd  # noqa: F401 - once a process, in whatever it does

    with Lab(cache) as lab:
        chosen = functools.partial(sweep, mains=VERSIONS, foreigns=VERSIONS, lab=lab)
        return seconds(lambda: chosen(**GRIDS[trials]))


taken: dict[int, float] = {}


def cold(place: Place, trials: int) -> float:
    """Return the seconds of a grid with nothing built; once a process, since rows share it."""
    if trials not in taken:
        cache = fresh(place)
        taken[trials] = swept(cache, trials)
        if not (kept := place.kept / f"grid-{trials}").exists():
            cache.rename(kept)
    return taken[trials]


def builds(place: Place) -> float:
    """Return the seconds of all that the grid compiles and links, on the same cores."""
    cache = fresh(place)
    with Lab(cache) as lab:
        trials = [
            lab.trial(program, main, foreign, order=order)
            for program in PROGRAMS
            for main in VERSIONS
            for foreign in VERSIONS
            for order in ORDERS
        ]
    programs = list(dict.fromkeys(one for t in trials for one in (t, *t.references)))
    jobs = list(dict.fromkeys(job for one in programs for job in build.jobs(one)))

    def work() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job: build.compiled(job, cache), jobs))
            list(pool.map(lambda one: build.linked(one, cache), programs))

    return seconds(work)


def grid(place: Place) -> tuple[Sample, Sample]:
    return lambda: cold(place, 196), lambda: 196 * shell(place, step=STEP)


def grid_builds(place: Place) -> tuple[Sample, Sample]:
    return lambda: cold(place, 196), lambda: builds(place)


def grid_warm(place: Place) -> tuple[Sample, Sample]:
    kept = place.kept / "grid-196"
    if not kept.exists():
        cold(place, 196)
    return lambda: swept(kept, 196), lambda: cold(place, 196)


def growth(trials: int, place: Place) -> tuple[Sample, Sample]:
    return lambda: cold(place, trials), lambda: cold(place, 196) * trials / 196


def grows(trials: int, once: bool) -> Row:
    what, beside = f"growth: a grid of {trials}, cold", f"{trials / 196:g} of a grid of 196"
    prepare = functools.partial(growth, trials)
    return Row(f"lab.grid-{trials}", what, beside, "", prepare, 1, once=once)


LOOPED = "the same in a shell loop"
ROWS = (
    Row("lab.import", "import nbsupport", "Python alone", "0.15 s", imports, 9),
    Row("lab.trial-cold", "a trial that crashes, LLDB's start too", LOOPED, "1.5 s", crash),
    Row("lab.trial-warm", "a trial that crashes, warm", LOOPED, "0.4 s", crash_warm),
    Row("lab.grid", "a grid of 196 trials, cold", f"a shell loop, every {STEP}th trial, times {STEP}",
        "1/6 of it", grid, 1),
    Row("lab.grid-builds", "a grid of 196 trials, cold", "its builds alone", "2 times it",
        grid_builds, 1, once=False),
    Row("lab.grid-warm", "a grid of 196 trials, warm", "the same, cold", "", grid_warm),
    grows(49, once=True),
    grows(784, once=False),
)  # fmt: skip
