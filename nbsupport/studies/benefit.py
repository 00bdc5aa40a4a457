"""What PGO is worth: builds with and without it, measured in turns, and how sure the result is.

A measured program is a case (`nbsupport.lab.cases`). It takes SEED RECORDS ROUNDS as arguments, and
prints a checksum and the seconds of its fastest round; data/benefit/documents.py does that with
orjson. The input of the training is never the input that is measured.

Instructions decide, because they are steady. They cannot say how long a program waits. So the time
stands beside them, with the machine's load, and a note says when the time is too noisy.
"""

import dataclasses
import functools
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nbsupport.base import files, process, progress, settings
from nbsupport.base.errors import LabError, MissingError, first_line
from nbsupport.lab import Lab, cases
from nbsupport.lab.lab import environment
from nbsupport.rescue import rescue
from nbsupport.show import look, shown
from nbsupport.toolchains import Toolchain, find, find_rustc, profdata

#: What each build is, in the order to show them, and its colour.
BUILDS = {
    "none": ("no PGO", look.GREY),
    "rust": ("PGO of Rust", look.ORANGE),
    "both": ("PGO of Rust and C", look.GREEN),
    "clean": ("PGO of both, C by another LLVM", look.SKY),
    "rescued": ("the same, by the rescued profile", look.VERMILION),
}
#: SEED RECORDS ROUNDS: of the training, of a measured run, and of one whose instructions count.
TRAINING, _MEASURED, COUNTED = ("1", "2000", "2"), ("2", "3000", "5"), ("3", "300")
#: Warns of a function whose profile has another shape and, in Rust, of one without a profile:
#: warned of that, the cc crate would take the mirrored flag for one that clang does not know.
#: Source: PGOUseFunc::handleInstrProfError (PGOInstrumentation.cpp).
RUST_WARNS = ("-Cllvm-args=-pgo-warn-missing-function",)
_C_WARNS = "-Wno-everything -Wbackend-plugin"
_SEED = 8  # of the order of runs
#: The middle half of the blocks' ratios lies within this: wider, and time is too noisy.
NOISY = 0.1
#: Builds whose numbers of instructions differ by less execute as many: callgrind's own noise.
SAME = 0.001

#: Instructions of a build, by (program, build).
Counted = Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Variant:
    """One build of a program (a case's name); `build` is a key of `BUILDS`."""

    program: str
    build: str
    built: cases.Built

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the compilers said of the profile."""
        lines = self.built.warnings
        return tuple(line for line in lines if re.search("profile|count discarded", line))


def build_all(lab: Lab, programs: Sequence[tuple[str, str]]) -> list[Variant]:
    """Return what `build_variants` does of each of the `programs`: (a case's name, an LLVM).

    One for which a compiler, or cargo, is missing is left out, which is said.
    """
    builds: list[Variant] = []
    for name, llvm in progress.over(programs, "programs"):
        try:
            builds += build_variants(lab, name, llvm)
        except MissingError as error:
            print(f"left out {name}: {error}")  # noqa: T201 - the notebook shows it
    return builds


def build_variants(lab: Lab, name: str, llvm: str) -> tuple[Variant, ...]:
    """Return a case without PGO, with PGO of its Rust part, and of both, by rustc and clang `llvm`.

    `name` is the case's. Both have one training: counts of Rust do not depend on whether C is
    instrumented. Raises `LabError` where a compiler is missing, or a build or the training fails.
    """
    maker = Maker(lab, name, llvm, llvm)
    ways = (cases.INSTRUMENT, ())
    instrumented, none = progress.each(ways, lambda how: maker.build(rustflags=how), "builds")
    profile = maker.indexed(maker.trained(instrumented, maker.main))
    flags = ("-fno-profile-use", _C_WARNS)
    rust, both = progress.each(flags, functools.partial(maker.using, profile), "builds")
    return Variant(name, "none", none), Variant(name, "rust", rust), Variant(name, "both", both)


def build_mixed(lab: Lab, name: str, llvm: str, foreign: str) -> tuple[Variant, ...]:
    """Return a case with PGO of both parts where clang `foreign` compiles C, by clean profiles.

    They come from two builds: only Rust is instrumented in one, only C in the other, which
    has the runtime of `foreign`. Raises `LabError` as `build_variants` does.
    """
    maker = Maker(lab, name, llvm, foreign)
    # No object of rustc's asks for the runtime where Rust is not instrumented: the linker does.
    words = ("-Wl,-u,__llvm_profile_runtime", str(maker.cc.runtime), "-lc")
    runtime = tuple(f"-Clink-arg={word}" for word in words)
    ways = (
        ("-fno-profile-generate", cases.INSTRUMENT, maker.main),
        ("-fprofile-generate", runtime, maker.cc),
    )

    def train(way: tuple[str, tuple[str, ...], Toolchain]) -> Path:
        flags, how, brings_runtime = way
        return maker.trained(maker.build(flags, rustflags=how), brings_runtime)

    profile = maker.indexed(*progress.each(ways, train, "builds"))
    return (Variant(name, "clean", maker.using(profile)),)


def build_rescued(lab: Lab, name: str, llvm: str, foreign: str) -> tuple[Variant, ...]:
    """Return the build of `build_mixed` by a profile that is saved from the mixed program.

    Its training crashes unless it is rescued. Raises `LabError` as that does, or without LLDB.
    """
    maker = Maker(lab, name, llvm, foreign)
    built = maker.build()
    argv = (*cases.invocation(built).argv, *TRAINING)

    def save(staging: Path) -> None:
        rescue.run(argv, staging / "profile.profdata", env=environment(staging), cwd=built.folder)

    package = Path(rescue.__file__).parent
    sources = [*package.glob("*.py"), package.parent / "crash" / "inside_lldb" / "rescuing.py"]
    parts = ("rescued", built.folder.name, *maker.case.command, *TRAINING)
    profile = maker.kept("profile.profdata", save, *parts, *sorted(sources))
    return (Variant(name, "rescued", maker.using(profile)),)


class Maker:
    """Makes builds and profiles of one case with two compilers; what was made once is kept."""

    def __init__(self, lab: Lab, name: str, llvm: str, cc: str) -> None:
        self.lab, self.case = lab, cases.get(name)
        self.main, self.cc = find_rustc(llvm), find(cc)
        if name == "orjson":
            driver = (settings.data_dir() / "benefit" / "documents.py").read_text()
            self.case = dataclasses.replace(self.case, command=("{python}", "-c", driver))

    def build(self, cflags: str = "", **how: Any) -> cases.Built:
        """Return what `cases.build` does of this case and these compilers."""
        return cases.build(self.case, self.main, self.cc, cflags, **how)

    def using(self, profile: Path, cflags: str = _C_WARNS) -> cases.Built:
        """Return the build by an indexed profile."""
        return self.build(cflags, rustflags=RUST_WARNS, profile=profile)

    def kept(self, name: str, make: Callable[[Path], None], *parts: str | Path) -> Path:
        """Return the file that `make` writes into a folder, once for these `parts`."""
        return files.once(self.lab.cache / "trained" / files.digest(*parts), make) / name

    def trained(
        self,
        built: cases.Built,
        runtime: Toolchain,
        before: Sequence[str] = (),
        arguments: Sequence[str] = TRAINING,
    ) -> Path:
        """Return the profile of a training, as text by the toolchain that brought the runtime.

        `before` is what runs the program, as valgrind does; `arguments` are SEED RECORDS ROUNDS.
        """
        run = cases.invocation(built)
        argv = (*before, *run.argv, *arguments)
        training = dataclasses.replace(run, argv=argv, toolchain=runtime)

        def train(staging: Path) -> None:
            outcome, text = self.lab.judge_command(training)
            if outcome.kind != "ok":
                why = f"{outcome.kind}: {outcome.detail}"
                raise LabError(f"training {self.case.name}", why, "choose compilers that agree")
            files.write(staging / "profile.proftext", text)

        how = (*before, *self.case.command, *arguments)
        return self.kept("profile.proftext", train, built.folder.name, *how, runtime.identity)

    def indexed(self, *texts: Path) -> Path:
        """Return profiles merged to one that both compilers can read: by the older one's LLVM."""
        older = min(self.main, self.cc, key=lambda toolchain: int(toolchain.major))
        tool = profdata.tool(older)

        def merge(staging: Path) -> None:
            done = profdata.merge(tool, texts, staging / "profile.profdata")
            if not done.ok:
                raise LabError(str(tool), first_line(done.stderr), "train it again")

        return self.kept("profile.profdata", merge, older.identity, *texts)


def measure(lab: Lab, builds: Sequence[Variant], *, repetitions: int = 12) -> pd.DataFrame:
    """Run each build once a block, in an order that chance chooses anew; return a row for a run.

    `repetitions` is the number of blocks; one before them only warms up. Columns: program, build,
    block, checksum, seconds (of that run's fastest round), load (the machine's average of the last
    minute; NaN where it has none). Raises `LabError` for a run that fails.
    """
    chance = np.random.default_rng(_SEED)
    blocks = range(repetitions + 1)
    turns = [(block, builds[n]) for block in blocks for n in chance.permutation(len(builds))]
    rows = []
    for block, variant in progress.over(turns, "runs"):
        output = run(lab, variant, _MEASURED).stdout
        printed = dict(re.findall(r"^(\w+) (\S+)$", output, re.MULTILINE))
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
        row = {"program": variant.program, "build": variant.build, "block": block, "load": load}
        rows.append({**row, "checksum": printed["checksum"], "seconds": float(printed["seconds"])})
    columns = ["program", "build", "block", "checksum", "seconds", "load"]
    return pd.DataFrame([row for row in rows if row["block"]], columns=columns)


def valgrind() -> str:
    """Return the path of valgrind; raises `MissingError` where it is not."""
    path = shutil.which("valgrind")
    if path is None:
        raise MissingError("instructions", "valgrind is not here", "apt-get install valgrind")
    return path


def instructions(lab: Lab, variant: Variant) -> int:
    """Return how many instructions a build executes in one round: once counted, it is kept.

    By valgrind's callgrind, as the difference between a run of one round and one of none. It
    emulates a processor without AVX-512: what asks for that takes another path than usual.
    Raises `MissingError` without valgrind.
    """
    counter = (valgrind(), "--tool=callgrind", "--callgrind-out-file=/dev/null")
    key = files.digest(*COUNTED, *variant.built.case.command, variant.built.folder.name)
    note = lab.cache / "instructions" / f"{key}.json"
    if not note.is_file():
        runs = [run(lab, variant, (*COUNTED, rounds), counter) for rounds in ("1", "0")]
        whole, start = (int(re.findall(r"Collected : (\d+)", done.stderr)[0]) for done in runs)
        files.write(note, str(whole - start))
    return int(note.read_text())


def count_instructions(lab: Lab, builds: Sequence[Variant]) -> Counted:
    """Return the `instructions` of each build, by program and build."""
    names = [(variant.program, variant.build) for variant in builds]
    count = functools.partial(instructions, lab)
    return dict(zip(names, progress.each(builds, count, "instructions"), strict=True))


def count_if_here(lab: Lab, builds: Sequence[Variant]) -> Counted:
    """Return what `count_instructions` does; without valgrind nothing, which is said."""
    try:
        return count_instructions(lab, builds)
    except MissingError as error:
        print(f"left out: {error}")  # noqa: T201 - the notebook shows it
        return {}


def run(
    lab: Lab, variant: Variant, arguments: Sequence[str], before: Sequence[str] = ()
) -> process.Finished:
    """Run a build, by the command `before` it; raises `LabError` if that fails."""
    call, folder = cases.invocation(variant.built), variant.built.folder
    env = {**environment(folder), "PYTHONHASHSEED": "0"}
    done = process.run((*before, *call.argv, *arguments), cwd=folder, env=env, limits=call.limits)
    if not done.ok:
        why = done.limit or done.signal_name or first_line(done.stderr)
        raise LabError(f"{variant.program}, {BUILDS[variant.build][0]}", why, "run that command")
    return done


def summarize(runs: pd.DataFrame, counted: Counted) -> pd.DataFrame:
    """Return a row for each build of each program, beside its build without PGO.

    `runs` is of `measure`, `counted` of `count_instructions` (or empty). Columns: `instructions` is
    a ratio (NaN: not counted). `seconds` is the median of the runs; `ratio`, `low`, `high` are what
    `interval` says of the blocks' ratios, `spread` is the width of their middle half; `load` is
    the machine's largest. `note` says in words what follows: instructions decide, and come first.
    """
    rows = []
    for program, part in runs.groupby("program"):
        table = part.pivot(index="block", columns="build", values="seconds")
        load = float(part["load"].max())
        for build in (name for name in BUILDS if name in table):
            ratios = (table[build] / table["none"]).to_numpy()
            ratio, low, high = interval(ratios)
            spread = float(np.subtract(*np.percentile(ratios, [75, 25])))
            executed = [counted.get((str(program), name), np.nan) for name in (build, "none")]
            row: dict[str, Any] = {"program": program, "build": build}
            row["seconds"] = float(table[build].median())
            row |= {"ratio": ratio, "low": low, "high": high, "spread": spread, "load": load}
            row |= {"instructions": executed[0] / executed[1]}
            rows.append({**row, "note": "" if build == "none" else _note(row)})
    return pd.DataFrame(rows)


def interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """Return what ratio the blocks' `ratios` come to, and its 95 % interval: `low` and `high`.

    Wilcoxon's signed ranks, exact: the estimate is Hodges and Lehmann's, the interval Tukey's, of
    the averages of any two logarithms. Nothing is assumed of how times are distributed: chance
    has ordered each block, so of builds that are as fast a ratio is as likely to be above 1 as
    to be below it by as much. Fewer than six blocks have no such interval (2 of 2^5 signs are
    6 %): NaN. A bootstrap of five would give one, and be too sure. Source: Hollander, Wolfe and
    Chicken, Nonparametric Statistical Methods, 3rd edition, sections 3.1 to 3.3.

    >>> [round(end, 2) for end in interval(np.array([0.8, 0.9, 0.9, 0.9, 1.0, 0.9]))]
    [0.9, 0.8, 1.0]
    """
    logs = np.log(ratios)
    first, second = np.triu_indices(len(logs))
    averages = np.sort((logs[first] + logs[second]) / 2)
    ways = np.ones(1)  # of signs, by the sum of the positive ones' ranks
    for rank in range(1, len(logs) + 1):
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    outside = int(np.sum(np.cumsum(ways) / 2 ** len(logs) <= 0.025))
    ends = averages[[outside - 1, -outside]] if outside else (np.nan, np.nan)
    ratio, low, high = (float(np.exp(end)) for end in (np.median(averages), *ends))
    return ratio, low, high


def _note(row: Mapping[str, Any]) -> str:
    """Return in words what a row says; an interval without 1 is told, however noisy it is."""
    share, low, high = row["instructions"], row["low"], row["high"]
    words = [] if math.isnan(share) else [f"instructions: {effect(share, share)}"]
    if math.isnan(low):
        words.append("time: too few blocks for an interval")
    else:
        words.append(f"time: {'no sure difference' if low <= 1 <= high else effect(low, high)}")
    if row["spread"] > NOISY:
        words[-1] += f" (too noisy: spread {_percent(row['spread'])} %)"
    return "; ".join(words)


def effect(low: float, high: float) -> str:
    """Return in words what a ratio between `low` and `high`, both on one side of 1, comes to.

    >>> effect(0.887, 0.887), effect(1.03, 1.364), effect(0.9, 0.994), effect(1.0004, 1.0004)
    ('saves 11 %', 'costs 3 to 36 %', 'saves 0.6 to 10 %', 'saves nothing')
    """
    if max(_distance(low), _distance(high)) < SAME:
        return "saves nothing"
    ends = dict.fromkeys(_percent(end) for end in sorted((_distance(low), _distance(high))))
    return f"{'saves' if high < 1 else 'costs'} {' to '.join(ends)} %"


def _distance(ratio: float) -> float:
    return abs(1 - ratio)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.0095 else f"{100 * share:.1f}"


def table(summary: pd.DataFrame) -> shown.Shown:
    """Show a summary (see `summarize`) as a table; ratios are to the build without PGO."""
    heads = ("program", "build", "instructions", "seconds", "time", "95 % interval")
    rows = []
    for row in summary.to_dict("records"):
        executed = "-" if np.isnan(row["instructions"]) else f"{row['instructions']:.3f}"
        times = [f"{row[key]:.3f}" for key in ("seconds", "ratio", "low", "high")]
        between, spread = "-", "-"
        if row["build"] != "none":
            between, spread = f"{times[2]} to {times[3]}", f"{_percent(row['spread'])} %"
        words = (row["program"], BUILDS[row["build"]][0], executed, *times[:2], between, spread)
        rows.append((*words, f"{row['load']:.1f}", row["note"]))
    return shown.table((*heads, "spread", "load", "what it says"), rows)


def figure(summary: pd.DataFrame) -> shown.Shown:
    """Show the instructions of each build of a summary as bars, beside the build without PGO."""
    rows = summary.to_dict("records")
    drawn, ((axes,),) = look.charts(50 + 26 * len(rows))
    for y, row in enumerate(rows):
        share, (_, colour) = row["instructions"], BUILDS[row["build"]]
        if np.isnan(share):
            continue
        axes.barh(y, share, height=0.6, color=colour)
        if row["build"] != "none":
            axes.text(max(share, 1) + 0.02, y, _more(share), **look.LABEL)
    axes.axvline(1, color=look.INK, linewidth=1)
    names = [f"{row['program']}: {BUILDS[row['build']][0]}" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.35)
    axes.set_xlabel("executed instructions (1: as many as without PGO)")
    axes.spines["bottom"].set_visible(True)
    words = []
    for program, part in summary[summary["build"] != "none"].groupby("program", sort=False):
        shares = zip(part["build"], part["instructions"], strict=True)
        effects = [f"{_more(share)} with {BUILDS[name][0]}" for name, share in shares]
        words.append(f"{program}: {', '.join(effects)}")
    caption = f"Instructions beside the build without PGO. {'. '.join(words)}."
    return shown.framed(drawn, caption, "the table has the time")


def _more(share: float) -> str:
    """Return in words how many instructions a share of those without PGO is.

    >>> _more(0.887), _more(1.1), _more(1.0), _more(math.nan)
    ('11 % fewer', '10 % more', 'as many', 'not counted')
    """
    if math.isnan(share):
        return "not counted"
    if _distance(share) < SAME:
        return "as many"
    return f"{_percent(_distance(share))} % {'fewer' if share < 1 else 'more'}"
