"""evtx itself on trial: the user's program at the user's commit, run on its own sample files.

It needs its repository and its crates (`data/cases/evtx.toml`). Without them there are figures
that we measured outside the notebooks (`data/seed/evtx.toml`); each says so.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nbsupport.base import LabError, files, process, progress, settings
from nbsupport.lab import Lab, cases, counts
from nbsupport.rescue import rescue
from nbsupport.show import shown
from nbsupport.studies import benefit
from nbsupport.toolchains import find, find_rustc

#: evtx's features by the allocator that each brings. Source: its Cargo.toml at that commit.
FEATURES = {"mimalloc": "fast-alloc-mimalloc-secure", "jemalloc": "fast-alloc-jemalloc"}
#: The rustc of the notes, by its LLVM.
_RUSTC = "19"
_OFF = "-fno-profile-generate"
_RUN = ("allocator", "cc", "cflags", "died", "where", "functions", "of_c", "measured")
_WORTH = ("what", "without", "with", "measured")
_HERE = "by the lab, here"


def measure(
    lab: Lab,
    foreign: str,
    *,
    case: str = "evtx",
    vendored: str = "",
    allocators: Sequence[str] = tuple(FEATURES),
) -> pd.DataFrame:
    """Build evtx for profiling in each way, and run it on every sample; return a row for a way.

    The ways are those of `measured_outside`: C by gcc, by the clang `foreign`, by one of rustc's
    LLVM, and by `foreign` without instrumentation. `case` and `vendored` are as `cases.get` takes
    them. A build that fails is a row that says why.
    """
    ways = (("gcc", ""), (foreign, ""), (_RUSTC, ""), (foreign, _OFF))
    rows = []
    for allocator, (cc, cflags) in progress.over([*itertools.product(allocators, ways)], "evtx"):
        row: dict[str, object] = {"allocator": allocator, "cc": cc, "cflags": cflags}
        row["measured"] = _HERE
        try:
            row |= _fare(lab, _with(cases.get(case, vendored), allocator), cc, cflags)
        except LabError as error:
            row |= {"died": "not built", "where": str(error)}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(_RUN))


def worth(lab: Lab, foreign: str, *, case: str = "evtx", vendored: str = "") -> pd.DataFrame:
    """Count what evtx with mimalloc executes on each sample, without PGO and with it.

    C is by the clang `foreign`, so the instrumented program crashes: its profile is rescued, of
    the case's own sample. Raises `LabError` where a build fails or valgrind is missing.
    """
    evtx = _with(cases.get(case, vendored), "mimalloc")
    rustc, cc = find_rustc(_RUSTC), find(foreign)
    instrumented = cases.build(evtx, rustc, cc)
    argv = cases.invocation(instrumented).argv

    def save(staging: Path) -> None:
        rescue.run(argv, staging / "evtx.profdata", cwd=staging)

    key = files.digest("evtx", instrumented.folder.name, *map(str, argv))
    profile = files.once(lab.cache / "trained" / key, save) / "evtx.profdata"
    plain = cases.build(evtx, rustc, cc, rustflags=())
    warm = cases.build(evtx, rustc, cc, "-fno-profile-use", rustflags=(), profile=profile)
    rows = []
    for sample in progress.over(_samples(evtx), "instructions of evtx"):
        without, by_it = (_instructions(built, sample) / 1e6 for built in (plain, warm))
        what = f"instructions, JSON, {sample.name} (million)"
        rows.append((what, round(without, 1), round(by_it, 1), _HERE))
    return pd.DataFrame(rows, columns=list(_WORTH))


def measured_outside() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of `measure` and `worth`, as we measured them outside the notebooks."""
    seed = files.read_toml(settings.data_dir() / "seed" / "evtx.toml")
    tables = [[{**row, "measured": seed["measured"]} for row in seed[k]] for k in ("run", "worth")]
    runs, gains = (pd.DataFrame(rows) for rows in tables)
    return runs.reindex(columns=list(_RUN)), gains.reindex(columns=list(_WORTH))


def table(frame: pd.DataFrame) -> shown.Shown:
    """Show either table; each row says who measured it."""
    cells = frame.astype(object).where(frame.notna(), "-").replace("", "-")
    if "functions" in frame:
        numbers = ["functions", "of_c"]
        cells[numbers] = cells[numbers].map(lambda n: n if n == "-" else f"{int(n):,}")
    rows = cells.astype(str).to_numpy().tolist()
    return shown.table([name.replace("_", " ") for name in frame.columns], rows)


def _with(case: cases.Case, allocator: str) -> cases.Case:
    """Return the case with the feature of an allocator."""
    words = [FEATURES[allocator] if word in FEATURES.values() else word for word in case.cargo]
    return dataclasses.replace(case, cargo=tuple(words))


def _samples(case: cases.Case) -> list[Path]:
    samples = sorted((cases.source(case) / "samples").glob("*.evtx"))
    if not samples:
        raise LabError(case.name, "no file samples/*.evtx in its sources", "check the commit")
    return samples


def _on(built: cases.Built, sample: Path) -> list[str]:
    """Return the command of a case with another sample in place of its own."""
    *start, _ = map(str, cases.invocation(built).argv)
    return [*start, str(sample)]


def _fare(lab: Lab, case: cases.Case, cc: str, cflags: str) -> dict[str, object]:
    """Build a way and run it on each sample; functions are those of all profiles together."""
    built = cases.build(case, find_rustc(_RUSTC), find(cc), cflags)
    run, samples = cases.invocation(built), _samples(case)
    outcomes = []
    functions: counts.Counts = {}
    for sample in samples:
        outcome, text = lab.judge_command(dataclasses.replace(run, argv=_on(built, sample)))
        outcomes.append(outcome)
        functions |= counts.parse(text)
    dead = [outcome for outcome in outcomes if outcome.crash]
    frames = dead[0].crash.frames[:5] if dead and dead[0].crash else ()
    theirs = built.c_functions()
    return {
        "died": f"{len(dead)} of {len(samples)}",
        "where": " < ".join(frame.function or "?" for frame in frames),
        "functions": len(functions) or None,
        "of_c": sum(name in theirs for name, _ in functions) if functions else None,
    }


def _instructions(built: cases.Built, sample: Path) -> int:
    """Return how many instructions a build executes on a sample, by valgrind's callgrind."""
    counter = (benefit.valgrind(), "--tool=callgrind", "--callgrind-out-file=/dev/null")
    done = process.run((*counter, *_on(built, sample)), cwd=built.folder, limits=settings.TRACED)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if not collected:
        raise LabError(f"callgrind on {sample.name}", "it counted nothing", "run that command")
    return int(collected[1])
