"""Reports to send: what a finished run lets one tell LLVM, cc-rs, cargo-pgo, or the user.

Templates (Markdown, for Jinja2) and the reproducer are in `data/upstream`. Numbers, versions and
outcomes in a report come from the run, or (records, of 64-bit programs) from `profile.layout`.
"""

from __future__ import annotations

import atexit
import gzip
import io
import json
import math
import re
import shutil
import signal
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbsupport.base import files, process, settings
from nbsupport.base.errors import LabError, MissingError, from_os
from nbsupport.crash.crash import Crash
from nbsupport.lab.lab import Invocation, Lab
from nbsupport.notebooks import results
from nbsupport.notebooks.results import Run
from nbsupport.profile.layout import LAYOUTS, Layout, changes, llvm_of
from nbsupport.studies import hypotheses
from nbsupport.toolchains.probe import Toolchain

if TYPE_CHECKING:
    import pandas as pd

#: What goes beside a report, and in that, for LLVM's lit.
ARCHIVE, _TEST = "pgo-mix-reproducer.tar.gz", "mixed-records.c"
#: The claims that a report rests on, with the notebooks that make them.
_SHOWN, _PROJECTS = "mixed-layouts-decide", "real-projects-crash-and-are-cured"
_GRID = {"grid-as-predicted": "01-reproduction", "fate-as-predicted": "03-record-layout"}
_CARGO = {"the-flag-is-mirrored": "07-workarounds", _PROJECTS: "07-workarounds"}
_RESTS: dict[str, dict[str, str]] = {
    "llvm": _GRID,
    **dict.fromkeys(("cc-rs", "cargo-pgo"), _GRID | _CARGO),
    "analysis": {"one-explanation-fits": "06-hypotheses", "one-layout-cures": "07-workarounds"},
}
#: From the best to the worst, by how a verdict on a workaround begins.
_RANKS = ("cures", "survives, loses [0-9]", "survives", "not needed", "does not help", "")
#: What the writer reads of a record, the last as a pointer. Source: writeOneValueProfData
#: (InstrProfilingWriter.c), initializeValueProfRuntimeRecord (InstrProfilingValue.c).
_READ = ("NumValueSites", "Values")


def write(run: Path | Run, to: str, out: Path) -> Path:
    """Write a report of a finished run, and the reproducer `ARCHIVE` beside it; return `out`.

    `to` is llvm, cc-rs, cargo-pgo or analysis; `run` may be a run's folder (or `recorded`). Raises
    `LabError` where the run has nothing to report, or does not show what the report rests on.
    """
    text = render(run if isinstance(run, Run) else results.open_run(str(run)), to)
    try:
        files.write(out, text)
        files.write(out.with_name(ARCHIVE), reproducer())
    except OSError as error:
        raise from_os(f"writing {out}", error) from error
    return out


def render(run: Run, to: str) -> str:
    """Return a report from a run as Markdown; raises `LabError` as `write` does."""
    import jinja2  # noqa: PLC0415 - only reports need it

    if to not in _RESTS:
        raise LabError(f"a report to {to!r}", "not known", f"choose one of {', '.join(_RESTS)}")
    what = f"report --to {to}"
    _check(run, to, what)
    loader = jinja2.FileSystemLoader(settings.data_dir() / "upstream")
    strict = jinja2.StrictUndefined
    templates = jinja2.Environment(loader=loader, undefined=strict, trim_blocks=True)  # noqa: S701
    templates.keep_trailing_newline = True
    try:
        facts = _facts(run)
        if to != "analysis" and facts["crash"] is None:
            why = f"no link of two LLVMs crashed in this run ({facts['outcomes']})"
            raise LabError(what, why, "run it again with LLVMs of different raw versions")
        return templates.get_template(f"{to}.md").render(facts)
    except (LookupError, TypeError, ValueError, jinja2.TemplateError) as error:
        raise LabError(what, f"not a run of this version ({error!r})", "run it again") from error


def render_all(run: Run) -> dict[str, str]:
    """Return every report from a run, or why there is none; says how long each is."""
    reports = {}
    for to in _RESTS:
        try:
            reports[to] = render(run, to)
            print(f"{to}: {len(reports[to].splitlines())} lines")  # noqa: T201 - a notebook shows it
        except LabError as error:
            reports[to] = str(error)
            print(f"{to}: no report: {error}")  # noqa: T201
    return reports


def reproducer() -> bytes:
    """Return the archive of the reproducer; the same files give the same bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        data = settings.data_dir()
        for path in (*sorted((data / "upstream" / "reproducer").iterdir()), data / "lit" / _TEST):
            entry = tarfile.TarInfo(f"{ARCHIVE.partition('.')[0]}/{path.name}")
            entry.size, entry.mode = path.stat().st_size, 0o644
            archive.addfile(entry, io.BytesIO(path.read_bytes()))
    return gzip.compress(content.getvalue(), mtime=0)


def unpack() -> Path:
    """Return the folder of the reproducer, unpacked; it is there as long as this process."""
    place = tempfile.mkdtemp(prefix="pgo-lab-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(reproducer())) as archive:
        archive.extractall(place, filter="data")
    return Path(place, ARCHIVE.partition(".")[0])


def make(folder: Path, main: Toolchain, other: Toolchain) -> str:
    """Make and run the programs of the reproducer in its folder; return what that prints.

    Nothing of this project, or of its reader, is in the environment but PATH.
    """
    compilers = [f"CC={main.compiler}", f"CC2={other.compiler}"]
    command = ["make", "mixed", "swapped", "uniform", *compilers]
    env = {"PATH": "/usr/bin:/bin"}
    return process.run(command, cwd=folder, env=env, limits=settings.COMPILER).stdout


def read_ends(printed: str) -> dict[str, str]:
    """Return how each program of the reproducer ended, out of what `make` prints."""
    lines = (line.split(": ", 1) for line in printed.splitlines() if line[:1].islower())
    return {name: re.split(r" \(|,", end)[0] for name, end in lines}


def predict_ends(lab: Lab, llvm: str, foreign: str) -> dict[str, frozenset[str]]:
    """Return what `read_ends` may say of the programs that two compilers make."""
    words = {"crash": "crash", "ok": "fine", "version-mismatch": "version mismatch"}
    trials = {
        "mixed": lab.trial("cold", llvm, foreign),
        "swapped": lab.trial("cold", llvm, foreign, order="foreign-first"),
    }
    return {
        name: frozenset(words[kind] for kind in hypotheses.predict(trial))
        for name, trial in trials.items()
    }


def find_crash(lab: Lab, program: Path, main: Toolchain) -> Crash | None:
    """Run a program, whose runtime is that of `main`; return its crash, if it does."""
    outcome, _ = lab.judge_command(Invocation([program], main, settings.PROGRAM))
    return outcome.crash


def pairs(run: Run) -> pd.DataFrame:
    """Return the trials of a run in which two LLVMs, or one twice, instrument by IR.

    Rows are as `trials.sweep` has them, one for each pair, order and program. Of the recorded run
    they are those of all LLVMs (data/recorded/versions). Raises `MissingError` where it has none.
    """
    import pandas as pd  # noqa: PLC0415 - a quarter of a second, only here

    if run.recorded:
        run = results.load(settings.data_dir() / "recorded" / "versions")
    tables = [run.tables[name] for name in ("versions", "trials") if name in run.tables]
    if not tables:
        raise MissingError("the pairs of LLVMs", "none in this run", "run 01-reproduction in it")
    table = pd.concat(tables, ignore_index=True)
    table = table[(table["instrument"] == "ir") & (table["main_instrument"] == "ir")]
    table = table.drop_duplicates(["main", "foreign", "order", "program"])
    keys = ["main_raw_version", "main", "foreign_raw_version", "foreign"]
    return table.sort_values(keys, kind="stable", ignore_index=True)


def _check(run: Run, to: str, what: str) -> None:
    """Raise `LabError` unless the run made the claims that a report rests on, and they hold."""
    for name, notebook in _RESTS[to].items():
        observed = ", ".join(run.observed(name))
        if not observed:
            raise MissingError(what, f"nothing is claimed of {name}", f"run {notebook} in it, too")
        if to != "analysis" and not run.holds(name):
            raise LabError(
                what, f"{name} does not hold ({observed})", f"see {notebook} of that run"
            )
        if name == _PROJECTS and "crash" not in observed:
            why = f"no cargo project crashed in this run ({observed})"
            raise LabError(what, why, f"run {notebook} with a clang of another raw version")


def _facts(run: Run) -> dict[str, Any]:
    """Return what the templates name; where no two LLVMs crash, `crash` is None, the rest less."""
    table, manifest = pairs(run), run.manifest
    cold = table[table["program"] == "cold"]
    known = {tool["name"]: tool["version"] for tool in manifest.get("toolchains", ())}
    releases = {name: known.get(name, _major(name)) for name in (*cold["main"], *cold["foreign"])}
    tried = run.tables["workarounds"].to_dict("records") if "workarounds" in run.tables else []
    made = run.claims.sort_values(
        "observed", kind="stable"
    )  # "crash, then ok" before "ok, then ok"
    facts: dict[str, Any] = {
        "run": run,
        "at": lambda name: json.loads(made.loc[made["name"] == name, "at"].iloc[0]),
        "platform": str(manifest.get("platform", "an unknown system")),
        "day": str(manifest.get("started", "an unknown day")).partition("T")[0],
        "releases": ", ".join(dict.fromkeys(releases.values())),
        "outcomes": ", ".join(f"{n} {kind}" for kind, n in table["outcome"].value_counts().items()),
        "layouts": _described(set(cold["main_raw_version"])),
        "matrix": _matrix(cold),
        "projects": ", ".join(_projects(run)),
        "archive": ARCHIVE,
        "test": _TEST,
        "ledger": hypotheses.ledger(run).to_dict("records"),
        "workarounds": sorted(
            tried, key=lambda row: [bool(re.match(r, row["verdict"])) for r in _RANKS].index(True)
        ),
        "crash": None,
    }
    if crash := _mixed(run, cold):
        mine, theirs = LAYOUTS[crash["main_raw_version"]], LAYOUTS[crash["foreign_raw_version"]]
        mixes = table[table["main_raw_version"] != table["foreign_raw_version"]]
        hot = mixes.query("program == 'hot' and order == 'foreign-first'")["outcome"]
        first = mixes.query("program == 'cold' and order == 'main-first'")["outcome"]
        facts |= {
            "crash": crash,
            "status": 128 + signal.Signals[crash["signal"]],
            "main": releases[crash["main"]],
            "other": releases[crash["foreign"]],
            "mine": mine,
            "theirs": theirs,
            "misread": [(f, mine.offsets()[f], _there(mine, theirs, f)) for f in _READ],
            "unseen": math.lcm(mine.record_size(), theirs.record_size()) // theirs.record_size(),
            "hot": (sum(hot == "crash"), len(hot)),
            "refused": sum(first == "ok"),
        }
    return facts


def _projects(run: Run) -> list[str]:
    """Return the projects that were built, the lab's own by what their C part is."""
    tried = run.tables["cases"]["case"] if "cases" in run.tables else ()
    return [name.replace("rust-cc-", "a Rust program with ") for name in dict.fromkeys(tried)]


def _mixed(run: Run, cold: pd.DataFrame) -> dict[Any, Any] | None:
    """Return the trial of a pair that crashes, with what came of the other order (`_swapped`).

    Of several pairs it is that of notebook 01, or else the first; the layouts of both are known.
    """
    keys = ["main", "foreign"]
    first = cold[(cold["order"] == "main-first") & (cold["outcome"] == "crash")]
    last = cold[(cold["order"] == "foreign-first") & (cold["outcome"] == "version-mismatch")]
    both = first.merge(last[[*keys, "detail", "exit_code"]], on=keys, suffixes=("", "_swapped"))
    known = both["main_raw_version"].isin(LAYOUTS) & both["foreign_raw_version"].isin(LAYOUTS)
    shown = [json.loads(text) for text in run.claims.loc[run.claims["name"] == _SHOWN, "at"]]
    asked = [[at[key].split()[-1] for key in keys] for at in shown]
    rows = both[known].to_dict("records")
    return min(rows, key=lambda r: [_major(r[key]) for key in keys] not in asked, default=None)


def _major(name: str) -> str:
    return Path(name.partition("@")[0]).name


def _described(versions: set[int]) -> list[tuple[Layout, str, str]]:
    """Return each known layout, with the LLVMs that write it, and what it moved in the record."""
    known = [LAYOUTS[version] for version in sorted(versions & LAYOUTS.keys())]
    rows = []
    for before, now in zip([*known[:1], *known], known, strict=False):
        news = "; ".join(str(one) for one in changes(before, now) if one.part == "record")
        rows.append((now, llvm_of(now.raw_version), news or "-"))
    return rows


def _there(mine: Layout, theirs: Layout, field: str) -> str:
    """Return what a record of `theirs`, or the next one, has where `mine` has a field."""
    start, end = _extents(mine)[field]
    found = []
    for shift, after in ((0, ""), (theirs.record_size(), " of the next record")):
        for name, (first, last) in _extents(theirs).items():
            found += [name + after] if first + shift < end and start < last + shift else []
    return ", ".join(found) or "padding"


def _extents(layout: Layout) -> dict[str, tuple[int, int]]:
    kinds = layout.record_dtype()
    return {name: (at, at + kinds[name].itemsize) for name, at in layout.offsets().items()}


def _matrix(cold: pd.DataFrame) -> str:
    """Return the outcomes as a Markdown table, main by foreign: `main first / foreign first`."""
    versions = dict(zip(cold["main"], cold["main_raw_version"], strict=True))
    cells: dict[tuple[str, str], dict[str, None]] = {}
    for main, foreign, kind in cold[["main", "foreign", "outcome"]].itertuples(index=False):
        cells.setdefault((main, foreign), {})[kind.replace("version-mismatch", "message")] = None
    names = {name: f"{_major(name)} (v{version})" for name, version in versions.items()}
    lines = [["", *names.values()], ["---"] * (len(names) + 1)]
    lines += [[names[m], *(" / ".join(cells.get((m, f), "-")) for f in names)] for m in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
