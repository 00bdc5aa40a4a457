"""Two threads at a profile: both write it, or one still counts. How often a program dies of it."""

import re
import tempfile
from collections import Counter
from pathlib import Path

import lief
import pandas as pd

from nbsupport.base import process, progress
from nbsupport.lab import Lab
from nbsupport.lab.lab import environment
from nbsupport.show import Shown, shown
from nbsupport.studies.build_change import BuildChange

#: What data/hypotheses/mechanism.h makes happen, by its macro.
WHAT = {
    "TWO_WRITERS": "two threads write at once",
    "COUNTING": "one thread writes, another still counts",
}
_TOLD = re.compile(r"instruction (0x[0-9a-f]+), address (\S+), code (\d+)")
_PAGE = 4096
#: How often the runs are made again while no writer dies: a busy machine has fewer races.
_BATCHES = 10


def measure(lab: Lab, llvm: str, runs: int) -> pd.DataFrame:
    """Run a program by one LLVM so many times with each race; return a row for each.

    Two writers are run again, `runs` times, while none died. Columns: `what`, `runs`, how many
    `died`, in which `functions`, at which `addresses`. The numbers differ from time to time.
    """
    rows = []
    for macro, what in WHAT.items():
        main = ("-include", "../hypotheses/mechanism.h", f"-D{macro}")
        change = BuildChange(macro, "rival", what, foreign="main", main=main, link=("-no-pie",))
        program = lab.linked(change.changed(lab, "rich", llvm, llvm))
        places = _places(program)

        def run(_: int, program: Path = program) -> process.Finished:
            with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
                env = environment(Path(name))
                return process.run([program], cwd=Path(name), env=env, limits=lab.limits)

        done = list[process.Finished]()
        for _ in range(_BATCHES):
            # One after the other: both threads need a processor.
            done += progress.each(range(runs), run, what, jobs=1)
            if macro == "COUNTING" or any(ended.signal for ended in done):
                break
        reports = (_TOLD.search(ended.stderr) for ended in done if ended.signal)
        deaths = [report for report in reports if report]
        functions = Counter(_at(int(death[1], 16), places) for death in deaths)
        addresses = Counter(_short(death[2]) for death in deaths)
        died = sum(ended.signal is not None for ended in done)
        rows.append((what, len(done), died, _list(functions), _list(addresses)))
    return pd.DataFrame(rows, columns=["what", "runs", "died", "functions", "addresses"])


def table(measured: pd.DataFrame) -> Shown:
    """Show what was measured."""
    return shown.table(
        ("race", "runs", "died", "in function", "at address"), measured.to_numpy().tolist()
    )


def often(measured: pd.DataFrame) -> tuple[str, ...]:
    """Return in words how many runs of each race died: "each run", "some runs" or "none"."""
    return tuple(
        "none" if died == 0 else "each run" if died == runs else "some runs"
        for died, runs in measured[["died", "runs"]].to_numpy().tolist()
    )


def _places(program: Path) -> list[tuple[int, int, str]]:
    binary = lief.parse(program)
    symbols = [(s.value, s.value + s.size, str(s.name)) for s in binary.symbols] if binary else []
    return [symbol for symbol in symbols if symbol[0] < symbol[1]]


def _at(address: int, places: list[tuple[int, int, str]]) -> str:
    names = (name for start, end, name in places if start <= address < end)
    return next(names, "elsewhere")


def _short(address: str) -> str:
    number = 0 if address == "(nil)" else int(address, 16)
    return f"{number:#x}" if number < _PAGE else "elsewhere"


def _list(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {times}" for name, times in counter.most_common()) or "-"
