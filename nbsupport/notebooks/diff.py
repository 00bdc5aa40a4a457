"""What changed between two runs, by what they claimed and recorded; never a byte diff.

A row is known by what it is about (`_TABLES`), so that order, places, times and the provider of
a compiler (19@wheel, 19@debian) do not count. Runs become text first; the rest compares text.
"""

from __future__ import annotations

import html
import json
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbsupport.base import settings
from nbsupport.base.errors import LabError, first_line
from nbsupport.notebooks import results
from nbsupport.notebooks.results import Run
from nbsupport.show import shown

if TYPE_CHECKING:
    import pandas as pd

#: From which factor and which difference (seconds) on a notebook's time is beyond noise.
_FACTOR, _SECONDS = 3.0, 10.0
#: Measured, so never compared.
_MEASURED = ("seconds", "build", "run")
#: Columns that name a compiler; people say its major version.
_COMPILERS = {"main", "foreign", "llvm"}
_PROVIDER = re.compile(r"(?<=\d)@[^\s,;\"]+")

_Columns = dict[str, list[str]]
#: What each place answers.
_Cells = dict[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class _Table:
    """Which columns say what a row is about (`what`, at `key`), and which ones answer.

    Without `value`, each column answers for itself, `prose` aside.
    """

    kind: str
    what: str
    key: tuple[str, ...] = ()
    value: tuple[str, ...] = ()
    between: str = " "
    prose: tuple[str, ...] = ()


_AT = ("main", "foreign", "order", "instrument", "main_instrument")
_TRIALS = _Table("outcome", "program", _AT, ("outcome", "function"), " in ")
_TABLES = {
    "ledger": _Table("hypothesis", "hypothesis", value=("verdict",)),
    "trials": _TRIALS,
    "allocators": _TRIALS,
    "versions": _TRIALS,
    "mechanisms": _Table("mechanism", "mechanism", prose=("source", "what", "why")),
    "workarounds": _Table("workaround", "workaround", ("program",), ("verdict",)),
    "cases": _Table("project", "case", ("rustc", "cc", "cflags"), ("outcome",)),
    "benefit": _Table("build", "program", (), ("program",)),  # the rest is measured
    "layouts": _Table("layout", "field", ("raw_version", "bits"), ("offset", "size"), " + "),
    "runtime": _Table("runtime", "function", ("llvm", "file"), ("digest",)),
    " notebooks": _Table("notebook", "notebook", value=("status",)),
    " made": _Table("platform", "what", value=("value",)),
    " toolchains": _Table("toolchain", "name", (), ("version", "raw_version"), ", raw version "),
}


#: What may change, most important first, and how its line begins.
KINDS = {
    "claim-lost": "no longer holds",
    "claim-unheld": "new claim, does not hold",
    "claim-regained": "holds now",
    "claim-observed": "observed otherwise",
    "claim-gone": "claim",
    "claim-new": "claim that holds",
    "hypothesis": "verdict on",
    "outcome": "outcome of",
    "mechanism": "mechanism",
    "workaround": "workaround",
    "layout": "record layout",
    "runtime": "function of the runtime",
    "table": "rows of",
    "notebook": "notebook",
    "platform": "made with",
    "toolchain": "toolchain",
    "seconds": "seconds of",
}


#: What may explain a difference, and is none.
SURROUNDINGS = ("platform", "toolchain")


#: Many at a time, and with values that say little: people see how many.
_LOOSE = ("runtime", "toolchain")


@dataclass(frozen=True)
class RunChange:
    """A change of `kind` (one of `KINDS`) at the parameters `at`; None: it was not there."""

    kind: str
    what: str
    before: str | None
    after: str | None
    at: Mapping[str, str] = field(default_factory=dict)

    @property
    def importance(self) -> int:
        """Return its place among the kinds; 1 is the most important."""
        return list(KINDS).index(self.kind) + 1

    def to_json(self) -> dict[str, Any]:
        """Return the change as a JSON object."""
        return {**asdict(self), "importance": self.importance}


@dataclass(frozen=True)
class Difference:
    """What changed from run `a` to run `b` (what they are), most important first.

    `surroundings` (platform, toolchains) and `timings` (seconds of notebooks, beyond noise) alone
    do not make two runs different; `notes` say what could not be compared.
    """

    a: Mapping[str, Any]
    b: Mapping[str, Any]
    changes: Sequence[RunChange]
    surroundings: Sequence[RunChange]
    timings: Sequence[RunChange]
    notes: Sequence[str]

    @property
    def same(self) -> bool:
        """Return whether both runs found the same."""
        return not self.changes

    def to_json(self) -> dict[str, Any]:
        """Return all of it as a JSON object."""
        parts = {name: getattr(self, name) for name in ("changes", "surroundings", "timings")}
        lists = {name: [one.to_json() for one in part] for name, part in parts.items()}
        return {"same": self.same, **lists, "notes": self.notes, "a": self.a, "b": self.b}

    def lines(self, most: Sequence[int] = (23, 5, 4, 3)) -> list[str]:
        """Return at most 40 lines for people: the verdict, and `most` of each section."""
        sections = [*map(_grouped, (self.changes, self.surroundings, self.timings))]
        sections.append([("not compared", _clean(note), 1) for note in self.notes])
        said = f"{len(self.changes)} changed" if self.changes else "same"
        names = [f"{run['run']} ({run['finished'] or 'not finished'})" for run in (self.a, self.b)]
        found = [_clean(f"{said}: {' -> '.join(names)}")]
        for rows, limit in zip(sections, most, strict=True):
            found += [f"  {what} {text}" for what, text, _ in rows[:limit]]
            if rest := sum(count for *_, count in rows[limit:]):
                found.append(f"  and {rest} more; --json has all")
        return found

    def html(self) -> str:
        """Return one page that needs nothing else, with every line."""
        head, *lines = self.lines([len(self.changes) + 10_000] * 4)
        table = shown.table(("what changed",), [(line.strip(),) for line in lines], marked=False)
        css = (settings.data_dir() / "site" / "_static" / "lab.css").read_text()
        body = f"<h1>{html.escape(head)}</h1>{table.html if lines else ''}"
        return f"{_HEAD}{css}</style></head><body>{body}</body></html>\n"


_HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>What changed</title><style>
:root { color-scheme: light dark; font-family: system-ui, sans-serif }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
"""


def _grouped(changes: Iterable[RunChange]) -> list[tuple[str, str, int]]:
    """Put like changes into one row: kind in words, what changed how, how many that are."""
    groups: dict[tuple[object, ...], list[RunChange]] = {}
    for one in changes:
        same: tuple[object, ...] = (one.before, one.after)
        if one.kind in _LOOSE or (None in same and one.kind != "outcome"):
            same = (one.before is None, one.after is None)
        groups.setdefault((one.kind, *same), []).append(one)
    ordered = sorted(groups.values(), key=lambda g: (g[0].importance, -len(g), g[0].what))
    return [(KINDS[group[0].kind], _said(group), len(group)) for group in ordered]


def _said(group: Sequence[RunChange]) -> str:
    names = list(dict.fromkeys(one.what for one in group))
    text = _list(names, 6) + (f" ({len(group)} times)" if len(names) < len(group) else "")
    one, alike = group[0], len({(each.before, each.after) for each in group}) == 1
    before, after = (_clean(value or "nothing") for value in (one.before, one.after))
    if None in (one.before, one.after):
        word, value = ("new", after) if one.before is None else ("gone", before)
        text += f": {word}" + (f", {value}" if alike and value != "nothing" else "")
    else:
        text += f": {before} -> {after}" if alike and one.kind != "runtime" else ": changed"
    for key in dict.fromkeys(key for each in group for key in each.at):
        values = {each.at[key] for each in group if key in each.at}
        text += f"; {_clean(key)} {_list(sorted(values, key=lambda v: (len(v), v)), 5)}"
    return text


def _list(names: Sequence[str], most: int) -> str:
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join([_clean(name or "none") for name in names[:most]] + more)


def _clean(text: str) -> str:
    """Return text for one line of a terminal: short, and without control characters."""
    return "".join(c if c.isprintable() else "?" for c in first_line(text, limit=160))


def diff(a: str, b: str) -> Difference:
    """Compare two runs, each a folder (notebooks, or only their Parquet tables) or `recorded`.

    A notebook's time is beyond noise when it changed by 10 s and by a factor of 3, and by that
    factor too beside the median of all notebooks: a slower or busier machine is no news. Raises
    `LabError` where a run cannot be read, or where the two have no notebook in common.
    """
    before, after = _read(a), _read(b)
    if a == "recorded":
        before = _with_versions(before, after)
    if b == "recorded":
        after = _with_versions(after, before)
    if not before.notebooks & after.notebooks:
        raise LabError(f"{a} and {b}", "no notebook in common", "run the same notebooks")
    notes: list[str] = []
    # What the second run was not asked for is not gone.
    asked = {p: v for p, v in before.claims.items() if p in after.claims or _asked(p, after.given)}
    changes = list(_claims(asked, after.claims))
    for name in sorted(before.tables.keys() | after.tables.keys()):
        if name in before.tables and name in after.tables:
            changes += _compared(name, before, after, notes)
        else:
            notes.append(f"table {name}: only in {b if name in after.tables else a}")
    changes.sort(key=lambda one: (one.importance, one.what, sorted(one.at.items())))
    around = [one for one in changes if one.kind in SURROUNDINGS]
    found = [one for one in changes if one.kind not in SURROUNDINGS]
    timings = list(_timings(before.seconds, after.seconds))
    return Difference(before.about, after.about, found, around, timings, notes)


@dataclass(frozen=True)
class _Text:
    """A run as text; `given`: the values of each parameter; our own tables begin with a space."""

    about: Mapping[str, Any]
    notebooks: set[str]
    claims: _Cells
    tables: Mapping[str, _Columns]
    given: Mapping[str, set[str]]
    seconds: Mapping[str, float]


def _read(name: str) -> _Text:
    try:
        folder = Path(name)
        bare = (folder / "claims.parquet").is_file() and not (folder / "notebooks").exists()
        return _as_text(name, results.load(folder) if bare else results.open_run(name))
    except LabError:
        raise
    except Exception as error:  # whatever a damaged file makes its reader raise
        why = first_line(f"{type(error).__name__}: {error}")
        raise LabError(name, f"not a readable run ({why})", "run it again") from error


def _with_versions(recorded: _Text, other: _Text) -> _Text:
    """Return the recorded run with those claims of the recording of all LLVMs that `other` has."""
    columns = _columns("", results.baseline().claims)
    known = _cells(columns, ("name", "at"), [("holds",), ("observed",)])
    more = {place: said for place, said in known.items() if place in other.claims}
    return replace(recorded, claims={**more, **recorded.claims})


def _as_text(name: str, run: Run) -> _Text:
    claims = _columns("", run.claims)
    made = {key: str(run.manifest.get(key) or "") for key in ("what", "platform", "python")}
    status = dict.fromkeys(claims["notebook"], "executed")
    notebooks, seconds = {*status}, {}
    given: dict[str, set[str]] = {}
    for cell, entry in run.manifest.get("notebooks", {}).items():
        title = entry.get("notebook", cell)
        notebooks.add(title)
        if entry["status"] == "failed":
            status[title] = f"failed: {entry['error']}"
        elif 0 < entry["seconds"] < float("inf"):
            seconds[cell] = float(entry["seconds"])
        for key, value in entry.get("parameters", {}).items():
            given.setdefault(key, set()).add(_text(value))
    tables = {title: _columns(title, table) for title, table in run.tables.items()}
    tables[" notebooks"] = {"notebook": [*status], "status": [*status.values()]}
    tables[" made"] = {"what": [*made], "value": [*made.values()]}
    known = run.manifest.get("toolchains", ())
    columns = ("name", "version", "raw_version")
    tables[" toolchains"] = {key: [str(each[key]) for each in known] for key in columns}
    finished = str(run.manifest.get("finished") or "")
    claimed = _cells(claims, ("name", "at"), [("holds",), ("observed",)])
    about = {"run": name, **made, "finished": finished, "claims": len(claimed)}
    return _Text(about, notebooks, claimed, tables, given, seconds)


def _columns(name: str, table: pd.DataFrame) -> _Columns:
    spec = _TABLES.get(name)
    wanted = {spec.what, *spec.key, *spec.value, "at"} if spec and spec.value else table.columns
    columns = {
        str(column): [v if type(v) is str and "@" not in v else _text(v) for v in values.tolist()]
        for column, values in table.items()
        if column in wanted and column not in _MEASURED
    }
    for compiler in columns.keys() & _COMPILERS:
        texts = columns[compiler]
        columns[compiler] = [v.partition(".")[0] if v[:1].isdigit() else v for v in texts]
    return columns


def _text(value: Any) -> str:
    value = value.tolist() if hasattr(value, "tolist") else value
    if value is None or value != value:  # noqa: PLR0124 - NaN: an empty cell
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # beside an empty cell whole numbers become floats
    return _PROVIDER.sub("", str(value))


def _claims(old: _Cells, new: _Cells) -> Iterator[RunChange]:
    for place in {**old, **new}:
        (held, before), (holds, after) = (each.get(place, (None, None)) for each in (old, new))
        if held is None:
            kind = "claim-new" if holds == "True" else "claim-unheld"
        elif holds is None:
            kind = "claim-gone"
        elif held != holds and "True" in (held, holds):
            kind = "claim-lost" if held == "True" else "claim-regained"
        elif (held, before) != (holds, after):
            kind = "claim-observed"
        else:
            continue
        yield RunChange(kind, place[0], before, after, _parameters(place[1]))


def _asked(place: tuple[str, ...], given: Mapping[str, set[str]]) -> bool:
    """Return whether a claim's toolchains are among those that a run was given."""
    at = {"llvm" if key == "main" else key: v for key, v in _parameters(place[1]).items()}
    compilers = {key: at[key].rpartition(" ")[2] for key in ("llvm", "foreign") if key in at}
    return all(v in given.get(key, (v,)) for key, v in compilers.items())


def _compared(name: str, before: _Text, after: _Text, notes: list[str]) -> Iterator[RunChange]:
    a, b = before.tables[name], after.tables[name]
    if not (any(a.values()) and any(b.values())):  # a table without rows has no columns
        a, b = {**{c: [] for c in b}, **a}, {**{c: [] for c in a}, **b}
    if ("at" in a) != ("at" in b):
        a, b = _agreeing(a, after.given), _agreeing(b, before.given)
    both = [column for column in a if column in b]
    spec = _TABLES.get(name) or _Table("table", "", tuple(sorted(both)))
    asked = (spec.what, *spec.key, *spec.value) if spec.value else (*a, *b)
    lacking = ", ".join(sorted((a.keys() ^ b.keys()).intersection(asked)))
    if not both or (spec.what and spec.what not in both):
        notes.append(f"table {name}, for want of {lacking or spec.what}")
        return
    if lacking:
        notes.append(f"table {name}: {lacking}, which only one run has")
    key = [c for c in dict.fromkeys((spec.what, *spec.key, "at")) if c in both]
    answers = {c: [c] for c in both if c not in (*key, *spec.prose)}
    if spec.value:
        answers = {"": [c for c in spec.value if c in both]}
    old, new = (_cells(each, key, [*answers.values()], spec.between) for each in (a, b))
    for place in {**old, **new}:
        row = dict(zip(key, place, strict=True))
        what, cell = row.pop(spec.what, name), _parameters(row.pop("at", ""))
        x, y = old.get(place), new.get(place)
        if x is None or y is None:
            was, now = (None if s is None else ", ".join(filter(None, s)) for s in (x, y))
            yield RunChange(spec.kind, what, was, now, row | cell)
            continue
        for answer, was, now in zip(answers, x, y, strict=True):
            if was != now:
                title = f"{what}: {answer}" if answer else what
                yield RunChange(spec.kind, title, was, now, row | cell)


def _agreeing(table: _Columns, given: Mapping[str, set[str]]) -> _Columns:
    """Return the rows of cells with the other run's parameters, for it has but one cell."""
    cells = [_parameters(at) for at in table.get("at", ())]
    kept = [all(v in given.get(key, (v,)) for key, v in one.items()) for one in cells]
    return {c: [*compress(v, kept)] for c, v in table.items() if c != "at"} if cells else table


def _parameters(at: str) -> dict[str, str]:
    try:
        return {str(key): str(value) for key, value in json.loads(at).items()}
    except (ValueError, AttributeError, RecursionError):
        return {"at": at} if at else {}


def _cells(
    table: _Columns, key: Sequence[str], answers: Sequence[Sequence[str]], between: str = " "
) -> _Cells:
    """Return what each place (the texts of `key`) answers; all answers, if there are several."""
    columns = [
        [between.join(filter(None, row)) for row in zip(*(table[c] for c in one), strict=True)]
        for one in answers
    ]
    found: dict[tuple[str, ...], list[set[str]]] = {}
    places = zip(*(table[column] for column in key), strict=True)
    for place, *row in zip(places, *columns, strict=True):
        for seen, text in zip(found.setdefault(place, [set() for _ in row]), row, strict=True):
            seen.add(text)
    return {place: tuple(" | ".join(sorted(one)) for one in row) for place, row in found.items()}


def _timings(a: Mapping[str, float], b: Mapping[str, float]) -> Iterator[RunChange]:
    factors = {name: b[name] / a[name] for name in a if name in b}
    pace = statistics.median(factors.values()) if factors else 1.0
    for name, factor in factors.items():
        slower, faster = min(factor, factor / pace), max(factor, factor / pace)
        beyond = slower >= _FACTOR or faster <= 1 / _FACTOR
        if beyond and abs(a[name] - b[name]) >= _SECONDS:
            yield RunChange("seconds", name, f"{a[name]:.0f}", f"{b[name]:.0f}")
