"""Reports to send: what a finished run lets one tell LLVM, cc-rs, cargo-pgo, or the user.

Templates (Markdown, for Jinja2) are in `data/upstream`. Numbers, versions and outcomes in a report
come from the run, or (records, of 64-bit programs) from `profile.layout`.
"""

import json
import math
import re
import signal
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError, MissingError, from_os
from nbsupport.notebooks import results
from nbsupport.notebooks.results import Run
from nbsupport.profile.layout import LAYOUTS, Layout, changes, llvm_of
from nbsupport.report import front, reproducer
from nbsupport.studies import hypotheses

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
_RANKS = ("whole profile", "no crash, lacks", "no crash", "not needed", "does not help", "")
#: What the writer reads of a record, the last as a pointer. Source: writeOneValueProfData
#: (InstrProfilingWriter.c), initializeValueProfRuntimeRecord (InstrProfilingValue.c).
_READ = ("NumValueSites", "Values")


def write(run: Run, to: str, out: Path) -> Path:
    """Write a report of a finished run, and the reproducer's archive beside it; return `out`.

    `to` is llvm, cc-rs, cargo-pgo or analysis. Raises `LabError` where the run has nothing to
    report, or does not show what the report rests on.
    """
    text = render(run, to)
    try:
        files.write(out, text)
        files.write(out.with_name(reproducer.ARCHIVE), reproducer.archive())
    except OSError as error:
        raise from_os(f"writing {out}", error) from error
    return out


def render(run: Run, to: str) -> str:
    """Return a report from a run as Markdown; raises `LabError` as `write` does."""
    if to not in _RESTS:
        raise LabError(f"a report to {to!r}", "not known", f"choose one of {', '.join(_RESTS)}")
    what = f"report --to {to}"
    _check(run, to, what)
    try:
        facts = _facts(run)
        if to != "analysis" and facts["crash"] is None:
            why = f"no link of two LLVMs crashed in this run ({facts['outcomes']})"
            raise LabError(what, why, "run it again with LLVMs of different raw versions")
        template = front.templates(settings.data_dir() / "upstream").get_template(f"{to}.md")
        return template.render(facts)
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


def pairs(run: Run) -> pd.DataFrame:
    """Return the trials of a run in which two LLVMs, or one twice, instrument by IR.

    Rows are as `lab.sweep` has them, one for each pair, order and program. Of the recorded run
    they are those of all LLVMs (data/recorded/versions). Raises `MissingError` where it has none.
    """
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
            why = f"{name} does not hold ({observed})"
            raise LabError(what, why, f"see {notebook} of that run")
        if name == _PROJECTS and "crash" not in observed:
            why = f"no cargo project crashed in this run ({observed})"
            raise LabError(what, why, f"run {notebook} with a clang of another raw version")


def _facts(run: Run) -> dict[str, Any]:
    """Return what the templates name; where no two LLVMs crash, `crash` is None, the rest less."""
    table, manifest = pairs(run), run.manifest
    cold = table[table["program"] == "cold"]
    versions = {tool["name"]: tool["version"] for tool in manifest.get("toolchains", ())}
    names = (*cold["main"], *cold["foreign"])
    releases = {name: versions.get(name, _major(name)) for name in names}
    none = pd.DataFrame(columns=["case", "rustc", "verdict"])
    projects = run.tables.get("cases", none)
    cases = ", ".join(projects["case"].unique())
    cases = cases.replace("rust-cc-", "a Rust program with ")  # our own, by their C part
    cases = cases.replace("workload-", "a decoder of events in Rust with ")
    workarounds = run.tables.get("workarounds", none).to_dict("records")
    # A project that crashed with the other clang stands before one that did not.
    claims = run.claims.sort_values("observed", kind="stable").set_index("name")
    facts: dict[str, Any] = {
        "run": run,
        "at": lambda name: json.loads(claims.loc[[name], "at"].iloc[0]),
        "platform": str(manifest.get("platform", "an unknown system")),
        "day": str(manifest.get("started", "an unknown day")).partition("T")[0],
        "releases": ", ".join(dict.fromkeys(releases.values())),
        "outcomes": ", ".join(f"{n} {kind}" for kind, n in table["outcome"].value_counts().items()),
        "layouts": _described(set(cold["main_raw_version"])),
        "matrix": _matrix(cold),
        "projects": cases,
        "rustcs": " and of LLVM ".join(projects["rustc"].unique()),
        "archive": reproducer.ARCHIVE,
        "test": reproducer.TEST,
        "ledger": hypotheses.ledger(run).to_dict("records"),
        "workarounds": sorted(workarounds, key=_rank),
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
            "misread": [(f, mine.offsets()[f], _in_place(mine, theirs, f)) for f in _READ],
            "unseen": math.lcm(mine.record_size(), theirs.record_size()) // theirs.record_size(),
            "hot": (sum(hot == "crash"), len(hot)),
            "refused": sum(first == "ok"),
        }
    return facts


def _rank(row: dict[Any, Any]) -> int:
    return [bool(re.match(rank, row["verdict"])) for rank in _RANKS].index(True)


def _mixed(run: Run, cold: pd.DataFrame) -> dict[Any, Any] | None:
    """Return the trial of a pair that crashes, with what came of the other order (`_swapped`).

    Of several pairs it is that of notebook 01, or else the first; the layouts of both are known.
    """
    keys = ["main", "foreign"]
    first = cold[(cold["order"] == "main-first") & (cold["outcome"] == "crash")]
    last = cold[(cold["order"] == "foreign-first") & (cold["outcome"] == "version-mismatch")]
    both = first.merge(last[[*keys, "detail", "exit_code"]], on=keys, suffixes=("", "_swapped"))
    explained = both["main_raw_version"].isin(LAYOUTS) & both["foreign_raw_version"].isin(LAYOUTS)
    claimed = run.claims.loc[run.claims["name"] == _SHOWN, "at"].map(json.loads)
    shown = [[at[key].split()[-1] for key in keys] for at in claimed]
    rows = both[explained].to_dict("records")
    return min(rows, key=lambda row: [_major(row[key]) for key in keys] not in shown, default=None)


def _major(name: str) -> str:
    return Path(name.partition("@")[0]).name


def _described(versions: set[int]) -> list[tuple[Layout, str, str]]:
    """Return each known layout, with the LLVMs that write it, and what it moved in the record."""
    layouts = [LAYOUTS[version] for version in sorted(versions & LAYOUTS.keys())]
    rows = []
    for before, now in zip([*layouts[:1], *layouts], layouts, strict=False):
        changed = (change for change in changes(before, now) if change.part == "record")
        rows.append((now, llvm_of(now.raw_version), "; ".join(map(str, changed)) or "-"))
    return rows


def _in_place(mine: Layout, theirs: Layout, field: str) -> str:
    """Return what a record of `theirs`, or the next one, has where `mine` has a field."""
    start, end = _extents(mine)[field]
    names = []
    for shift, after in ((0, ""), (theirs.record_size(), " of the next record")):
        for name, (first, last) in _extents(theirs).items():
            if first + shift < end and start < last + shift:
                names.append(name + after)
    return ", ".join(names) or "padding"


def _extents(layout: Layout) -> dict[str, tuple[int, int]]:
    kinds = layout.record_dtype()
    return {name: (at, at + kinds[name].itemsize) for name, at in layout.offsets().items()}


def _matrix(cold: pd.DataFrame) -> str:
    """Return the outcomes as a Markdown table, main by foreign: `main first / foreign first`."""
    versions = dict(zip(cold["main"], cold["main_raw_version"], strict=True))
    kinds = cold["outcome"].replace("version-mismatch", "message")
    cells = kinds.groupby([cold["main"], cold["foreign"]]).agg(lambda k: " / ".join(k.unique()))
    names = {name: f"{_major(name)} (v{version})" for name, version in versions.items()}
    lines = [["", *names.values()], ["---"] * (len(names) + 1)]
    lines += [[names[main], *(cells.get((main, other), "-") for other in names)] for main in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
