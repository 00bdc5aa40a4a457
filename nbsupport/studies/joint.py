"""All that the user saw of the crash, at once: which one program shows it, and what decides that.

The programs are data (`data/hypotheses/joint.toml`), and so are the rules (`criteria.toml`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nbsupport.base import files, progress, settings
from nbsupport.base.errors import LabError
from nbsupport.lab import Lab, Outcome
from nbsupport.profile import LAYOUTS
from nbsupport.show import shown
from nbsupport.studies import mechanisms, profile_file
from nbsupport.studies.build_change import BuildChange
from nbsupport.studies.mechanisms import Signature
from nbsupport.studies.observations import Observation
from nbsupport.toolchains import profdata

#: In place of which program of `criteria.toml` a program is run, and how it is changed for that.
_ROLES: dict[str, dict[str, Any]] = {
    "cold": {},
    "explicit": {"main": ("-DEXPLICIT",), "rust": ("--cfg=explicit",)},
    "rich": {"main": ("-DRICH",), "rust": ("--cfg=rich",)},
    "gcc": {"foreign": "gcc"},
}
#: What value profiling counts. Source: INSTR_PROF_VALUE_KIND, IPVK_* (InstrProfData.inc).
_KINDS = {0: "calls", 1: "memory"}
_NUMBERS = ["calls", "calls_ran", "memory", "memory_ran"]
_HEADERS = {False: "unchecked, as on Linux", True: "checked, as on macOS"}
#: What the user saw of one program: the small ones were others.
_OF_ONE = ("allocators", "function", "moment", "merge", "systems", "address")


@dataclass(frozen=True)
class JointProgram:
    """A program held against everything; the fields are those that `joint.toml` explains."""

    id: str
    what: str
    program: str
    allocator: str = ""
    library: tuple[str, ...] = ()
    checked: bool = False
    mapped: bool = False
    costly: bool = False
    whole: bool = False

    def changed(self, role: str = "cold") -> BuildChange:
        """Return the change that makes it, in a role, of the program in `data/programs`."""
        how = dict(_ROLES[role])
        region = ("-include", "../hypotheses/shared_region.h") if self.mapped else ()
        main = (*region, *how.pop("main", ()))
        return BuildChange(self.id, "", self.what, main=main, library=self.library, **how)


def load(*, whole: bool = True) -> tuple[JointProgram, ...]:
    """Return the programs, in the order to show them; without the `whole`, those of the default."""
    path = settings.data_dir() / "hypotheses" / "joint.toml"
    entries = files.read_toml(path).items()
    rows = [files.load(JointProgram, {"id": n, **e}, f"{path.name}: {n}") for n, e in entries]
    return tuple(row for row in rows if whole or not row.whole)


def measure(
    lab: Lab, llvm: str, foreign: str, observations: Sequence[Observation], *, whole: bool
) -> pd.DataFrame:
    """Run each program in each way; return a row for each, as `mechanisms.compare` does.

    `llvm` builds main and brings the runtime, `foreign` compiles the C part; `observations` are
    the user's. Beside the columns of `mechanisms.compare`: `checked` and `mapped`, as `joint.toml`
    explains them; `spelled`: does the runtime look for `Values` where C's records count counters
    and sites; and how many value sites C has, and how many of them ran, in a healthy build by
    `foreign` alone: calls, calls_ran, memory, memory_ran. Raises `LabError` where a toolchain is
    missing.
    """
    plain = lab.trial("cold", llvm, foreign)
    chosen = load(whole=whole)
    facts = [observation for observation in observations if observation.id in _OF_ONE]

    def run(row: JointProgram) -> tuple[Signature, dict[str, int]]:
        roles = ["cold"] if row.costly and not whole else [*_ROLES]
        signature = _run(lab, row, llvm, foreign, roles)
        return signature, {} if signature.why else _sites(lab, row, llvm, foreign)

    results = progress.each(chosen, run, "programs")
    table = mechanisms.compare([signature for signature, _ in results], facts)
    numbers = pd.DataFrame([counted for _, counted in results], columns=_NUMBERS)
    table = pd.concat([table, numbers.fillna(0).astype(int)], axis="columns")
    for name in ("checked", "mapped"):
        table[name] = [getattr(row, name) for row in chosen]
    versions = (plain.main.raw_version or 0, plain.foreign.raw_version or 0)
    looked, written = (LAYOUTS[version].offsets() for version in versions)
    table["spelled"] = looked["Values"] == written["NumCounters"]
    # criteria.toml asks for two programs, one on each allocator; of one program, its own decides.
    pairs = zip(chosen, table["cold"], strict=True)
    agreed = ["yes" if row.allocator and kind == "crash" else "no" for row, kind in pairs]
    table["agrees_allocators"] = agreed
    table.loc[table["why"] != "", "agrees_allocators"] = "untried"
    return table


def _run(lab: Lab, row: JointProgram, llvm: str, foreign: str, roles: Iterable[str]) -> Signature:
    """Return what one program comes to in each role, as if it were those of `criteria.toml`."""
    outcomes, merge, errors = dict[str, Outcome](), "", dict[str, str]()
    for role in roles:
        try:
            trial = row.changed(role).changed(lab, row.program, llvm, foreign)
            outcomes[role] = lab.run(trial)
            if role == "rich":
                merge = profile_file.run(lab, [trial], "run.profraw").found
        except LabError as error:
            errors[role] = f"{error.what}: {error.why}"
    return Signature(row.changed(), outcomes, merge, errors)


def _sites(lab: Lab, row: JointProgram, llvm: str, foreign: str) -> dict[str, int]:
    """Return how many value sites a program's C part has, by kind, and how many of them ran.

    In a build where nothing else is instrumented, and the runtime is `foreign`'s own: there they
    do no harm, and leave what they saw in the profile.
    """
    trial = row.changed().changed(lab, row.program, llvm, foreign)
    text, _ = lab.run_once(trial.references[-1])  # C's own
    numbers = dict.fromkeys(_NUMBERS, 0)
    for record in profdata.parse(text).values():
        for kind, values in record.sites:
            numbers[_KINDS[kind]] += len(values)
            numbers[f"{_KINDS[kind]}_ran"] += sum(map(bool, values))
    return numbers


def predict_end(row: Mapping[Any, Any], *, crashes: bool) -> str:
    """Return how a program of a `row` of `measure` ends, by the value sites of C that ran.

    A site that runs is followed to where its record seems to lead, and nothing is there. But a
    record may spell a number: of its counters, of its calls from bit 32 on, of its memory
    operations from bit 48 on; and `mapped` says that there is memory where a site of two calls
    and no other leads. `crashes`: do the two raw versions make a crash?
    """
    if not crashes:
        return "ok"
    harmless = row["mapped"] and row["spelled"]
    fatal = row["memory_ran"] or (row["calls_ran"] and not harmless)
    return "crash in main" if fatal else "crash at exit"


def predict_missing(row: Mapping[Any, Any], *, crashes: bool) -> tuple[str, ...]:
    """Return what of the crash the program of a `row`, if it dies at exit, should not show.

    Where records spell numbers, and none has a site of a memory operation, the address is below
    2^48, and a debugger tells it as it is; all else is a hash, or a number that is no address.
    """
    if not crashes:
        return tuple(how.short for name, how in mechanisms.criteria().items() if name in _OF_ONE)
    return (mechanisms.criteria()["address"].short,) if row["spelled"] and not row["memory"] else ()


def surprises(measured: pd.DataFrame, *, crashes: bool) -> list[str]:
    """Return the programs of a table of `measure` that do not end as `predict_end` says."""
    rows = measured[measured["why"] == ""].to_dict("records")
    return [row["mechanism"] for row in rows if row["ends"] != predict_end(row, crashes=crashes)]


def table(measured: pd.DataFrame) -> shown.Shown:
    """Show a table of `measure`: how each program ends, and what of the crash it does not show."""
    heads = ("program", "memset in C", "how it ends", "in function", "a debugger prints")
    more = ("with an explicit write", "llvm-profdata says", "C by gcc", "does not show")
    rows = list[tuple[str, ...]]()
    for row in measured.to_dict("records"):
        name = (row["what"], _HEADERS[row["checked"]])
        if row["why"]:
            rows.append((*name, f"not run: {row['why']}", *[""] * 6))
            continue
        cells = [row[n] or "-" for n in ("ends", "function", "address", "ends_explicit", "merge")]
        rows.append(
            (*name, *cells, row["gcc"] or "-", ", ".join(mechanisms.missing(row)) or "nothing")
        )
    return shown.table((*heads, *more), rows)


def show_sites(measured: pd.DataFrame, *, crashes: bool) -> shown.Shown:
    """Show of a table of `measure` how many value sites C has, how many ran, and what followed."""
    heads = ["program", "memset in C", "sites of calls", "of these ran"]
    heads += ["sites of memory operations", "of these ran", "predicted end", "observed end"]
    rows = []
    for row in measured[measured["why"] == ""].to_dict("records"):
        counted = [row[name] for name in _NUMBERS]
        ends = predict_end(row, crashes=crashes), row["ends"]
        rows.append((row["what"], _HEADERS[row["checked"]], *counted, *ends))
    return shown.table(heads, rows)
