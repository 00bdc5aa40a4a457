"""What PGO is worth: builds with and without it, measured in turns, and how sure that is.

What is measured is a case (`nbsupport.lab.cases`) that takes SEED RECORDS ROUNDS as arguments, and
prints a checksum and the seconds of its fastest round; data/benefit/documents.py drives orjson to.
What a program is trained with, it is not measured with.
"""

import dataclasses
import functools
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
    "clean": ("the same, C by another LLVM", look.SKY),
    "rescued": ("that, from the crash", look.VERMILION),
}
#: SEED RECORDS ROUNDS: of the training, of a measured run, and of one whose instructions count.
_TRAINING, _MEASURED, _COUNTED = ("1", "2000", "2"), ("2", "3000", "5"), ("3", "300")
#: Warns of a function whose profile has another shape and, in Rust, of one without a profile:
#: warned of that, the cc crate would take the mirrored flag for one that clang does not know.
#: Source: PGOUseFunc::handleInstrProfError (PGOInstrumentation.cpp).
_RUST_WARNS = ("-Cllvm-args=-pgo-warn-missing-function",)
_C_WARNS = "-Wno-everything -Wbackend-plugin"
_SAMPLES = 2000  # of a bootstrap
_SEED = 8  # of the order of runs, and of the bootstrap

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
    maker = _Maker(lab, name, llvm, llvm)
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
    maker = _Maker(lab, name, llvm, foreign)
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
    maker = _Maker(lab, name, llvm, foreign)
    built = maker.build()
    argv = (*cases.invocation(built).argv, *_TRAINING)

    def save(staging: Path) -> None:
        rescue.run(argv, staging / "profile.profdata", env=environment(staging), cwd=built.folder)

    package = Path(rescue.__file__).parent
    sources = [*package.glob("*.py"), package.parent / "crash" / "inside_lldb" / "rescuing.py"]
    parts = ("rescued", built.folder.name, *maker.case.command, *_TRAINING)
    profile = maker.kept("profile.profdata", save, *parts, *sorted(sources))
    return (Variant(name, "rescued", maker.using(profile)),)


class _Maker:
    """Makes builds and profiles of one case with two compilers; what was made once is kept."""

    def __init__(self, lab: Lab, name: str, llvm: str, cc: str) -> None:
        self.lab, self.case = lab, cases.get(name)
        self.main, self.cc = find_rustc(llvm), find(cc)
        if name == "orjson":
            driver = (settings.data_dir() / "benefit" / "documents.py").read_text()
            self.case = dataclasses.replace(self.case, command=("{python}", "-c", driver))

    def build(self, cflags: str = "", **how: Any) -> cases.Built:
        return cases.build(self.case, self.main, self.cc, cflags, **how)

    def using(self, profile: Path, cflags: str = _C_WARNS) -> cases.Built:
        return self.build(cflags, rustflags=_RUST_WARNS, profile=profile)

    def kept(self, name: str, make: Callable[[Path], None], *parts: str | Path) -> Path:
        """Return the file that `make` writes into a folder, once for these `parts`."""
        return files.once(self.lab.cache / "trained" / files.digest(*parts), make) / name

    def trained(self, built: cases.Built, runtime: Toolchain) -> Path:
        """Return the profile of a training, as text by the toolchain that brought the runtime."""
        run = cases.invocation(built)
        training = dataclasses.replace(run, argv=(*run.argv, *_TRAINING), toolchain=runtime)

        def train(staging: Path) -> None:
            outcome, text = self.lab.judge_command(training)
            if outcome.kind != "ok":
                why = f"{outcome.kind}: {outcome.detail}"
                raise LabError(f"training {self.case.name}", why, "choose compilers that agree")
            files.write(staging / "profile.proftext", text)

        parts = (built.folder.name, *self.case.command, *_TRAINING, runtime.identity)
        return self.kept("profile.proftext", train, *parts)

    def indexed(self, *texts: Path) -> Path:
        """Return profiles merged to one that both compilers can read: by the older one's LLVM."""
        older = min(self.main, self.cc, key=lambda toolchain: int(toolchain.major))
        tool = profdata.tool(older)

        def merge(staging: Path) -> None:
            done = profdata.merge(tool, texts, staging / "profile.profdata")
            if not done.ok:
                raise LabError(str(tool), first_line(done.stderr), "train it again")

        return self.kept("profile.profdata", merge, older.identity, *texts)


def measure(lab: Lab, builds: Sequence[Variant], *, repetitions: int = 5) -> pd.DataFrame:
    """Run each build once a block, in an order that chance chooses anew; return a row for a run.

    `repetitions` is the number of blocks; one before them only warms up. Columns: program, build,
    block, checksum, seconds (of that run's fastest round). Raises `LabError` for a run that fails.
    """
    chance = np.random.default_rng(_SEED)
    blocks = range(repetitions + 1)
    turns = [(block, builds[n]) for block in blocks for n in chance.permutation(len(builds))]
    rows = []
    for block, variant in progress.over(turns, "runs"):
        output = _run(lab, variant, _MEASURED).stdout
        printed = dict(re.findall(r"^(\w+) (\S+)$", output, re.MULTILINE))
        row = {"program": variant.program, "build": variant.build, "block": block}
        rows.append({**row, "checksum": printed["checksum"], "seconds": float(printed["seconds"])})
    columns = ["program", "build", "block", "checksum", "seconds"]
    return pd.DataFrame([row for row in rows if row["block"]], columns=columns)


def count_instructions(lab: Lab, builds: Sequence[Variant]) -> Counted:
    """Return how many instructions each build executes in one round: once counted, it is kept.

    By valgrind's callgrind, as the difference between a run of one round and one of none.
    Raises `MissingError` without valgrind.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise MissingError("instructions", "valgrind is not here", "apt-get install valgrind")
    counter = (valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null")

    def count(variant: Variant) -> int:
        key = files.digest(*_COUNTED, *variant.built.case.command, variant.built.folder.name)
        note = lab.cache / "instructions" / f"{key}.json"
        if not note.is_file():
            runs = [_run(lab, variant, (*_COUNTED, rounds), counter) for rounds in ("1", "0")]
            whole, start = (int(re.findall(r"Collected : (\d+)", run.stderr)[0]) for run in runs)
            files.write(note, str(whole - start))
        return int(note.read_text())

    names = [(variant.program, variant.build) for variant in builds]
    return dict(zip(names, progress.each(builds, count, "instructions"), strict=True))


def count_if_here(lab: Lab, builds: Sequence[Variant]) -> Counted:
    """Return what `count_instructions` does; without valgrind nothing, which is said."""
    try:
        return count_instructions(lab, builds)
    except MissingError as error:
        print(f"left out: {error}")  # noqa: T201 - the notebook shows it
        return {}


def _run(
    lab: Lab, variant: Variant, arguments: Sequence[str], before: Sequence[str] = ()
) -> process.Finished:
    run, folder = cases.invocation(variant.built), variant.built.folder
    env = {**environment(folder), "PYTHONHASHSEED": "0"}
    done = process.run((*before, *run.argv, *arguments), cwd=folder, env=env, limits=run.limits)
    if not done.ok:
        why = done.limit or done.signal_name or first_line(done.stderr)
        raise LabError(f"{variant.program}, {BUILDS[variant.build][0]}", why, "run it by hand")
    return done


def summarize(runs: pd.DataFrame, counted: Counted) -> pd.DataFrame:
    """Return a row for each build of each program, beside its build without PGO.

    `runs` is of `measure`, `counted` of `count_instructions` (or empty). Columns: `seconds` is the
    median of the runs, `ratio` that of the medians, `low` to `high` its 95 % interval: a bootstrap
    of whole blocks, so that what slows a block does so on both sides. `instructions` is a ratio too
    (NaN: not counted). `note` says when noise wins.
    """
    chance = np.random.default_rng(_SEED)
    rows = []
    for program, part in runs.groupby("program"):
        table = part.pivot(index="block", columns="build", values="seconds")
        sample = chance.integers(len(table), size=(_SAMPLES, len(table)))
        medians = {b: np.median(table[b].to_numpy()[sample], axis=1) for b in table}
        for build in (name for name in BUILDS if name in medians):
            seconds, usual = (float(table[b].median()) for b in (build, "none"))
            low, high = np.percentile(medians[build] / medians["none"], [2.5, 97.5])
            executed = [counted.get((str(program), name), np.nan) for name in (build, "none")]
            noisy = low <= 1 <= high or high - low > abs(1 - seconds / usual)
            row = {"program": program, "build": build, "seconds": seconds, "ratio": seconds / usual}
            row |= {"low": low, "high": high, "instructions": executed[0] / executed[1]}
            note = "the noise is larger than the effect" if noisy and build != "none" else ""
            rows.append({**row, "note": note})
    return pd.DataFrame(rows)


def table(summary: pd.DataFrame) -> shown.Shown:
    """Show a summary (see `summarize`) as a table; ratios are to the build without PGO."""
    heads = ("program", "build", "seconds", "ratio", "95 % interval", "instructions", "note")
    rows = []
    for row in summary.to_dict("records"):
        numbers = [f"{row[key]:.3f}" for key in ("seconds", "ratio", "low", "high")]
        between = f"{numbers[2]} to {numbers[3]}" if row["build"] != "none" else "-"
        executed = "-" if np.isnan(row["instructions"]) else f"{row['instructions']:.3f}"
        name = BUILDS[row["build"]][0]
        rows.append((row["program"], name, *numbers[:2], between, executed, row["note"]))
    return shown.table(heads, rows)


def figure(summary: pd.DataFrame) -> shown.Shown:
    """Show a summary as a figure: times beside no PGO, with intervals; the finding as caption."""
    rows = summary[summary["build"] != "none"].to_dict("records")
    drawn, ((axes,),) = look.charts(50 + 26 * len(rows))
    axes.axvline(1, color=look.INK, linewidth=1)
    for y, row in enumerate(rows):
        colour = BUILDS[row["build"]][1]
        axes.plot([row["low"], row["high"]], [y, y], linewidth=3, color=colour)
        inside = "white" if row["note"] else colour
        axes.plot(row["ratio"], y, "o", markersize=9, color=colour, markerfacecolor=inside)
        axes.plot(row["instructions"], y, "|", markersize=16, color=look.INK)
    names = [f"{row['program']}: {BUILDS[row['build']][0]}" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.spines["bottom"].set_visible(True)
    axes.set_xlabel(
        "time beside no PGO (less is faster), with its 95 % interval\n"
        "hollow: the noise is larger than the effect; thin bar: instructions"
    )
    sure = [row for row in rows if row["build"] == "both" and not row["note"]]
    saved = [f"{100 * (1 - row['ratio']):.0f} % of {row['program']}" for row in sure]
    caption = f"Time that PGO of Rust and C saves beyond the noise: {', '.join(saved) or 'none'}."
    pairs = zip(names, rows, strict=True)
    words = [f"{name}: {row['low']:.2f} to {row['high']:.2f}" for name, row in pairs]
    return shown.framed(drawn, caption, f"time beside no PGO: {'; '.join(words)}")
