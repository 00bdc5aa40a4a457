"""Why a program executes more with PGO: builds of it that differ in one thing each.

valgrind counts the instructions, and emulates a processor without AVX-512. A program that chooses
its functions by the processor, as orjson does, is trained on some functions and counted on others.
All builds here have PGO of the Rust part alone; the same clang compiles C, without a profile.
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from nbsupport.base import files, progress
from nbsupport.lab import Lab, cases
from nbsupport.show import shown
from nbsupport.studies import benefit
from nbsupport.studies.benefit import Maker, Variant
from nbsupport.toolchains import profdata


@dataclass(frozen=True)
class Way:
    """One build: `flags` for rustc, also where it instruments if `both`, and its training.

    That is `here` (on this processor), `counter` (on valgrind's), `input` (here, with the input
    that is counted), `nothing` (a profile of no function of the program), or "": no PGO.
    """

    what: str
    training: str = "here"
    flags: tuple[str, ...] = ()
    both: bool = False


#: Sources: PGSO (SizeOpts.cpp), DisableICP (IndirectCallPromotion.cpp), DisableMemOPOPT
#: (PGOMemOPSizeOpt.cpp), DisablePreInliner (PassBuilderPipelines.cpp).
_LLVM = "-Cllvm-args=-"
WAYS = {
    "none": Way("no PGO", ""),
    "here": Way("PGO, trained on this processor"),
    "input": Way("the same, trained with the input that is counted", "input"),
    "values": Way(
        "the same, no call promoted, no memory operation sized",
        flags=(f"{_LLVM}disable-icp", f"{_LLVM}disable-memop-opt"),
    ),
    "size": Way("the same, no code made small", flags=(f"{_LLVM}pgso=false",)),
    "counter": Way("PGO, trained on valgrind's processor", "counter"),
    "nothing": Way("PGO by an empty profile", "nothing"),
    "inlining": Way(
        "trained on valgrind's processor, no early inlining",
        "counter",
        (f"{_LLVM}disable-preinline",),
        both=True,
    ),
}


#: Builds by the names of their ways, each with the profile of its training as text.
Builds = Mapping[str, tuple[Variant, Path | None]]


def emulation_lacks() -> bool:
    """Return whether this processor has AVX-512, which orjson asks for, and valgrind's has not."""
    path = Path("/proc/cpuinfo")
    return path.is_file() and " avx512vl" in path.read_text(errors="replace")


def build_all(lab: Lab, name: str, llvm: str, ways: Sequence[str] = tuple(WAYS)) -> Builds:
    """Return builds of a case by the names of `ways`; the first has to be the one without PGO.

    Raises what `benefit.build_variants` does, and `MissingError` without valgrind.
    """
    maker = Maker(lab, name, llvm, llvm)

    def build(key: str) -> tuple[Variant, Path | None]:
        way = WAYS[key]
        profile = _profile(maker, way) if way.training else None
        warns = benefit.RUST_WARNS if way.training not in ("", "nothing") else ()
        flags = (*warns, *way.flags)
        cflags = "-fno-profile-use" if profile else ""
        indexed = maker.indexed(profile) if profile else None
        built = maker.build(cflags, rustflags=flags, profile=indexed)
        return Variant(name, "rust" if profile else "none", built), profile

    # The first alone: the others share with it what it makes.
    first, *others = ways
    return {
        first: build(first),
        **dict(zip(others, progress.each(others, build, "builds"), strict=True)),
    }


def count(lab: Lab, builds: Builds) -> pd.DataFrame:
    """Return a row for each of the `builds` (of `build_all`); the index is the way's name.

    Columns: `what` it is; `instructions` of one round; `ratio` of those to no PGO; `untrained`: of
    the instructions in functions that the profile knows, the share of those in functions that the
    training never entered (NaN without PGO); one that was inlined wherever it is called, before
    counters were placed, is such a one, too.
    """
    costs = _executed(lab, builds)
    numbers = progress.each(
        list(builds.values()), lambda build: benefit.instructions(lab, build[0]), "instructions"
    )
    first = next(iter(builds))
    rows = [
        {
            "what": WAYS[way].what,
            "instructions": number,
            "ratio": number / numbers[0],
            "untrained": _untrained(costs[first], profile) if profile else np.nan,
        }
        for (way, (_, profile)), number in zip(builds.items(), numbers, strict=True)
    ]
    return pd.DataFrame(rows, index=list(builds))


def by_function(lab: Lab, builds: Builds) -> pd.DataFrame:
    """Return the instructions of one round in each Rust function, in each of the `builds`.

    The index is the function's name, without its path. Those whose numbers differ most come first.
    """
    frame = pd.DataFrame(_executed(lab, builds)).fillna(0).astype(int)
    frame = frame[frame.index.str.startswith("_ZN")]
    frame = frame.groupby(frame.index.map(_plain)).sum()
    differing = frame.max(axis=1) - frame.min(axis=1)
    return frame.loc[differing.sort_values(ascending=False, kind="stable").index]


def _plain(symbol: str) -> str:
    """Return the last name of a symbol in Rust's legacy mangling: lengths and names, then a hash.

    >>> _plain("_ZN6orjson3ffi4read17h7341eac0bd54adb8E")
    'read'
    """
    names, rest = [symbol], symbol.removeprefix("_ZN")
    while length := re.match(r"\d+", rest):
        end = length.end() + int(length[0])
        names.append(rest[length.end() : end])
        rest = rest[end:]
    return names[-2] if len(names) > 2 else symbol


def _profile(maker: Maker, way: Way) -> Path:
    """Return the profile of a way's training, as text."""
    if way.training == "nothing":

        def write(staging: Path) -> None:
            files.write(staging / "profile.proftext", ":ir\nno_such_function\n1\n1\n1\n")

        return maker.kept("profile.proftext", write, "nothing")
    flags = (*cases.INSTRUMENT, *(way.flags if way.both else ()))
    before = (benefit.valgrind(), "--tool=none") if way.training == "counter" else ()
    arguments = (*benefit.COUNTED, "2") if way.training == "input" else benefit.TRAINING
    return maker.trained(maker.build(rustflags=flags), maker.main, before, arguments)


def _executed(lab: Lab, builds: Builds) -> dict[str, dict[str, int]]:
    variants = [variant for variant, _ in builds.values()]
    costs = progress.each(variants, lambda variant: executed(lab, variant), "functions")
    return dict(zip(builds, costs, strict=True))


def executed(lab: Lab, variant: Variant) -> dict[str, int]:
    """Return the instructions that each function executes itself in one round, by its symbol.

    Kept once counted, as the difference between a run of one round and one of none. Source: the
    format of callgrind's files (valgrind's manual): after a `fn=` come its lines of position and
    cost; the line after a `calls=` has the cost of what is called.
    """
    key = files.digest(*benefit.COUNTED, *variant.built.case.command, variant.built.folder.name)
    note = lab.cache / "instructions" / f"{key}-functions.json"
    if not note.is_file():
        costs = _costs(lab, variant, "1")
        costs.subtract(_costs(lab, variant, "0"))
        files.write(note, json.dumps(costs))
    return cast(dict[str, int], files.read_json(note))


def _costs(lab: Lab, variant: Variant, rounds: str) -> Counter[str]:
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as folder:
        out = Path(folder, "out")
        options = ("--demangle=no", "--compress-strings=no", f"--callgrind-out-file={out}")
        counter = (benefit.valgrind(), "--tool=callgrind", *options)
        benefit.run(lab, variant, (*benefit.COUNTED, rounds), counter)
        text = re.sub(r"^calls=.*\n.*\n", "", out.read_text(errors="replace"), flags=re.MULTILINE)
    costs = Counter[str]()
    for block in re.split(r"^fn=", text, flags=re.MULTILINE)[1:]:
        name, _, lines = block.partition("\n")
        symbol = name.partition("'")[0]  # 'N: the Nth of a recursion
        costs[symbol] += sum(map(int, re.findall(r"^[\d+*-]\S* (\d+)$", lines, re.MULTILINE)))
    return costs


def _untrained(costs: dict[str, int], profile: Path) -> float:
    known = {
        name.rpartition(";")[2]: any(record.counters)
        for (name, _), record in profdata.parse(profile.read_text()).items()
    }
    whole = sum(cost for name, cost in costs.items() if name in known)
    never = sum(cost for name, cost in costs.items() if known.get(name) is False)
    return never / whole if whole else 1.0


def table(tried: pd.DataFrame) -> shown.Shown:
    """Show what `count` returns."""
    heads = ("build", "instructions", "beside no PGO", "in functions never trained")
    rows = []
    for row in tried.to_dict("records"):
        never = "-" if np.isnan(row["untrained"]) else f"{100 * row['untrained']:.0f} %"
        more = f"{100 * (row['ratio'] - 1):+.1f} %"
        rows.append((row["what"], f"{row['instructions']:,}", more, never))
    return shown.table(heads, rows)


def function_table(functions: pd.DataFrame, most: int = 6) -> shown.Shown:
    """Show the first rows of what `by_function` returns, in thousands of instructions."""
    rows = [
        (str(name), *(f"{number / 1000:.0f}" for number in row))
        for name, row in zip(functions.index, functions.to_numpy().tolist(), strict=True)
    ]
    return shown.table(("function", *map(str, functions)), rows[:most])
