"""Why a program executes more with PGO: builds of it that differ in one thing each.

valgrind, which counts, emulates a processor without AVX-512. What chooses its functions by the
processor, as orjson does, is trained on some of them, and counted on others. All builds here have
PGO of the Rust part alone; C has the same clang, and no profile.
"""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    "size": Way("the same, nothing made small", flags=(f"{_LLVM}pgso=false",)),
    "counter": Way("PGO, trained on the processor that is counted on", "counter"),
    "nothing": Way("PGO by a profile of nothing", "nothing"),
    "inlining": Way(
        "trained where it is counted, nothing inlined before",
        "counter",
        (f"{_LLVM}disable-preinline",),
        both=True,
    ),
}


def emulation_lacks() -> bool:
    """Return whether this processor has AVX-512, which orjson asks for, and valgrind's has not."""
    path = Path("/proc/cpuinfo")
    return path.is_file() and " avx512vl" in path.read_text(errors="replace")


def try_all(lab: Lab, name: str, llvm: str, ways: Sequence[str] = tuple(WAYS)) -> pd.DataFrame:
    """Return a row for each of the `ways`, whose names are the index, of building a case.

    Columns: `what` it is; `instructions` of one round; `ratio` of those to no PGO (the first way);
    `untrained`: of the instructions in functions that the profile knows, the share of those in
    functions that the training never entered (NaN without PGO); one that was inlined wherever it
    is called, before counters were placed, is such a one, too. Raises what
    `benefit.build_variants` does, and `MissingError` without valgrind.
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
    builds = [build(ways[0]), *progress.each(ways[1:], build, "builds")]
    counts = progress.each(builds, lambda row: benefit.instructions(lab, row[0]), "instructions")
    costs = executed(lab, builds[0][0])
    rows = [
        {
            "what": WAYS[key].what,
            "instructions": count,
            "ratio": count / counts[0],
            "untrained": _untrained(costs, profile) if profile else np.nan,
        }
        for key, count, (_, profile) in zip(ways, counts, builds, strict=True)
    ]
    return pd.DataFrame(rows, index=list(ways))


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


def executed(lab: Lab, variant: Variant) -> dict[str, int]:
    """Return the instructions that each function of a build executes itself, by its symbol.

    Source: the format of callgrind's files (valgrind's manual): after a `fn=` come its lines of
    position and cost; the line after a `calls=` has the cost of what is called.
    """
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as folder:
        out = Path(folder, "out")
        options = ("--demangle=no", "--compress-strings=no", f"--callgrind-out-file={out}")
        counter = (benefit.valgrind(), "--tool=callgrind", *options)
        benefit.run(lab, variant, (*benefit.COUNTED, "1"), counter)
        text = re.sub(r"^calls=.*\n.*\n", "", out.read_text(errors="replace"), flags=re.MULTILINE)
    costs: dict[str, int] = {}
    for block in re.split(r"^fn=", text, flags=re.MULTILINE)[1:]:
        name, _, lines = block.partition("\n")
        own = sum(map(int, re.findall(r"^[\d+*-]\S* (\d+)$", lines, re.MULTILINE)))
        symbol = name.partition("'")[0]  # 'N: the Nth of a recursion
        costs[symbol] = costs.get(symbol, 0) + own
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
    """Show what `try_all` returns."""
    heads = ("build", "instructions", "beside no PGO", "in functions never trained")
    rows = []
    for row in tried.to_dict("records"):
        never = "-" if np.isnan(row["untrained"]) else f"{100 * row['untrained']:.0f} %"
        more = f"{100 * (row['ratio'] - 1):+.1f} %"
        rows.append((row["what"], f"{row['instructions']:,}", more, never))
    return shown.table(heads, rows)
