"""One object of another LLVM's profile runtime before main's own: which does what, and in Rust.

All records are then of one layout, and each is written by functions of two LLVMs.
"""

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import lief
import pandas as pd

from nbsupport.base import process, progress, settings
from nbsupport.lab import Lab, Outcome, build
from nbsupport.lab.lab import Invocation
from nbsupport.show import Shown, shown
from nbsupport.studies import mechanisms, phases, runtime_objects
from nbsupport.toolchains import Toolchain, headers

#: The function that the user saw.
FUNCTION = "initializeValueProfRuntimeRecord"
#: The mechanism whose program each object is tried with, and the object that it names.
_CHANGE, _OBJECT = "stray-object-local", "InstrProfilingValue.c"


def foretell(llvm: Toolchain, foreign: Toolchain) -> tuple[str, str]:
    """Return how a program by `llvm` ends with that object of `foreign`'s runtime, by layouts.

    First one whose value sites run in functions that other objects can call, then one where they
    run in local functions alone: of these FunctionPointer is null (shouldRecordFunctionAddr in
    InstrProfiling.cpp), as BitmapPtr is without MC/DC. A null is taken for "no values yet".
    """
    reader, records = headers.learned(foreign), headers.learned(llvm)
    (phase, *_) = phases.enumerate_phases(reader, records)
    if phase.values == ("Values",):
        return "ok", "ok"
    may_be_null = phase.values in (("FunctionPointer",), ("BitmapPtr",))
    return "crash in main", "crash at exit" if may_be_null else "crash in main"


def try_objects(lab: Lab, llvm: str, foreign: str) -> pd.DataFrame:
    """Link each object of `foreign`'s runtime, alone, before that of `llvm`; return what follows.

    A row has the `object`, whether it defines the function that the user saw (`defines`, of its
    symbols), how the program `ends`, in which `function`, at which `address` (as computed), and
    what the linker or the runtime says (`detail`). The program is that of one mechanism, with
    values enough to be written in part. Raises `LabError` where it cannot be made here.
    """
    change = next(change for change in mechanisms.load() if change.id == _CHANGE)
    objects = runtime_objects.extract(lab.trial("rich", llvm, foreign).foreign)

    def run(name: str) -> dict[str, Any]:
        link = tuple(word.replace(_OBJECT, name) for word in change.link)
        outcome = lab.run(replace(change, link=link).changed(lab, "rich", llvm, foreign))
        defines = FUNCTION in _functions(objects[name])
        return {"object": name, "defines": defines, **_told(outcome)}

    return pd.DataFrame(progress.each(list(objects), run, "objects of a runtime"))


def try_rust(lab: Lab, llvm: str, foreign: str) -> pd.DataFrame:
    """Return what comes of a Rust program with a foreign C library, and with a foreign object.

    The library's value sites never run. A row has `what`, and the rest as in `try_objects`. The
    object is linked before rustc's own runtime, and behind it. Raises `MissingError` where there
    is no rustc with LLVM `llvm`.
    """
    mixed = lab.trial("rust-cold", llvm, foreign)
    rows = [{"what": f"C by LLVM {foreign}", **_told(lab.run(mixed))}]
    plain = lab.trial("rust-cold", llvm, foreign, instrument="none")
    path = runtime_objects.extract(plain.foreign)[_OBJECT]
    objects = [build.compiled(job, lab.cache) for job in build.jobs(plain)]
    words = [str(word) for word in build.link_line(replace(plain, link=(str(path),)), objects)]
    env = process.environment({"RUSTC_BOOTSTRAP": "1"})
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        program = Path(name, "program")
        for where, flag in (("before", "-Zpre-link-args="), ("behind", "-Clink-arg=")):
            line = [word.replace(f"-Clink-arg={path}", f"{flag}{path}") for word in words]
            folder = plain.program.main.folder
            done = process.run([*line, program], cwd=folder, env=env, limits=settings.COMPILER)
            run = Invocation([program], plain.runtime, lab.limits)
            refused = Outcome("build-failed", done.stdout + done.stderr)
            outcome = lab.judge_command(run)[0] if done.ok else refused
            what = f"{_OBJECT} of LLVM {foreign}, {where} rustc's runtime"
            rows.append({"what": what, **_told(outcome)})
    return pd.DataFrame(rows)


def table(ends: pd.DataFrame) -> Shown:
    """Show what `try_rust` returned, or `try_objects`: of that, what changes something."""
    first = ends.columns[0]
    rows = ends[ends["ends"] != "ok"]
    healthy = ends[ends["ends"] == "ok"]
    columns = [first, "ends", "function", "address", "detail"]
    lines = [*rows[columns].to_numpy().tolist()]
    if len(healthy):
        lines.append([f"each of the {len(healthy)} others", "ok", "-", "-", "-"])
    heads = (first, "how it ends", "in function", "at address", "the linker says")
    return shown.table(heads, [[cell or "-" for cell in line] for line in lines])


def _functions(path: Path) -> set[str]:
    binary = lief.parse(path)
    return {str(symbol.name) for symbol in binary.symbols} if binary else set()


def _told(outcome: Outcome) -> dict[str, str]:
    crash, ends, detail = outcome.crash, mechanisms.ends(outcome), ""
    if outcome.kind == "build-failed":
        ends, why = "refused", re.search(r"(duplicate|undefined) symbol", outcome.detail)
        detail = why[0] if why else outcome.detail[:60]
    function = crash.function if crash else ""
    address = mechanisms.printed(crash) if crash else ""
    if crash and crash.fault_address == 0:
        address = "exactly 0"
    return {"ends": ends, "function": function, "address": address, "detail": detail}
