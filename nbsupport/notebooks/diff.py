"""What changed between two runs, by what they claimed and recorded; never a byte diff.

A row is known by what it is about (data/diff.toml), so that order, places, times and the provider
of a compiler (19@wheel, 19@debian) do not count. Tables become text; an outer merge on what their
rows are about tells what is new, gone, or answers otherwise.
"""

from __future__ import annotations  # pd.Series[str] is for mypy alone

import json
import re
import statistics
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError, first_line, visible
from nbsupport.notebooks import results
from nbsupport.notebooks.results import Run

#: From which factor and which difference (seconds) on a notebook's time is beyond noise.
_FACTOR, _SECONDS = 3.0, 10.0
#: Measured, so never compared.
_MEASURED = ("seconds", "build", "run")
#: Columns that name a compiler; people say its major version.
_COMPILERS = ("main", "foreign", "llvm")
_PROVIDER = re.compile(r"(?<=\d)@[^\s,;\"]+")
#: How a table says that something was not tried.
_UNTRIED = ("", "untried")
#: What a claim is about, and what it answers: never its sentence, which may be put better.
_CLAIM, _CLAIMED = ["name", "at"], ["holds", "observed"]


@dataclass(frozen=True)
class _Table:
    """What is compared of a table; data/diff.toml says what the fields mean."""

    kind: str
    what: str
    key: tuple[str, ...] = ()
    value: tuple[str, ...] = ()
    between: str = " "
    prose: tuple[str, ...] = ()
    whole: tuple[Mapping[str, str], ...] = ()
    whole_values: tuple[str, ...] = ()


_DATA = files.read_toml(settings.data_dir() / "diff.toml")
_TABLES = {name: files.load(_Table, entry, name) for name, entry in _DATA["tables"].items()}
#: What may change, most important first, and how its line begins.
KINDS: dict[str, str] = _DATA["kinds"]
#: What may explain a difference, and is none.
SURROUNDINGS = ("platform", "toolchain")
#: Many at a time, and with values that say little: people see how many.
_LOOSE = ("runtime", "toolchain")
#: Lines that people see of changes, surroundings, timings and notes.
_MOST = (23, 5, 4, 3)


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
        names = ("changes", "surroundings", "timings")
        parts = {name: [change.to_json() for change in getattr(self, name)] for name in names}
        return {"same": self.same, **parts, "notes": self.notes, "a": self.a, "b": self.b}

    def lines(self) -> list[str]:
        """Return at most 40 lines for people: the verdict, and the most important changes."""
        sections = [*map(_grouped, (self.changes, self.surroundings, self.timings))]
        sections.append([(f"not compared {_clean(note)}", 1) for note in self.notes])
        verdict = f"{len(self.changes)} changed" if self.changes else "same"
        runs = [f"{run['run']} ({run['finished'] or 'not finished'})" for run in (self.a, self.b)]
        lines = [_clean(f"{verdict}: {' -> '.join(runs)}")]
        for rows, most in zip(sections, _MOST, strict=True):
            lines += [f"  {line}" for line, _ in rows[:most]]
            if rest := sum(count for _, count in rows[most:]):
                lines.append(f"  and {rest} more; --json has all")
        return lines


def _grouped(changes: Iterable[RunChange]) -> list[tuple[str, int]]:
    """Return a line for like changes, and how many they are."""
    groups: dict[tuple[object, ...], list[RunChange]] = {}
    for change in changes:
        values: tuple[object, ...] = (change.before, change.after)
        if change.kind in _LOOSE or (None in values and change.kind != "outcome"):
            values = (change.before is None, change.after is None)
        groups.setdefault((change.kind, *values), []).append(change)
    ordered = sorted(groups.values(), key=lambda g: (g[0].importance, -len(g), g[0].what))
    return [(_line(group), len(group)) for group in ordered]


def _line(group: Sequence[RunChange]) -> str:
    first, names = group[0], list(dict.fromkeys(change.what for change in group))
    line = f"{KINDS[first.kind]} {_list(names, 6)}"
    if len(names) < len(group):
        line += f" ({len(group)} times)"
    alike = len({(change.before, change.after) for change in group}) == 1
    before, after = (_clean(value or "nothing") for value in (first.before, first.after))
    if None in (first.before, first.after):
        word, value = ("new", after) if first.before is None else ("gone", before)
        line += f": {word}, {value}" if alike and value != "nothing" else f": {word}"
    else:
        line += f": {before} -> {after}" if alike and first.kind != "runtime" else ": changed"
    for key in dict.fromkeys(key for change in group for key in change.at):
        values = {change.at[key] for change in group if key in change.at}
        line += f"; {_clean(key)} {_list(sorted(values, key=lambda v: (len(v), v)), 5)}"
    return line


def _list(names: Sequence[str], most: int) -> str:
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join([_clean(name or "none") for name in names[:most]] + more)


def _clean(text: str) -> str:
    """Return text for one line of a terminal: short, and without control characters."""
    return visible(first_line(text, limit=160))


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
    changes = list(_claims(before, after))
    for name in sorted(before.tables.keys() | after.tables.keys()):
        if name in before.tables and name in after.tables:
            changes += _compared(name, before, after, notes)
        else:
            notes.append(f"table {name}: only in {b if name in after.tables else a}")
    changes.sort(key=lambda change: (change.importance, change.what, sorted(change.at.items())))
    around = [change for change in changes if change.kind in SURROUNDINGS]
    others = [change for change in changes if change.kind not in SURROUNDINGS]
    timings = list(_timings(before.seconds, after.seconds))
    return Difference(before.about, after.about, others, around, timings, notes)


@dataclass(frozen=True)
class _Text:
    """A run as text; `given`: the values of each parameter; our own tables begin with a space."""

    about: Mapping[str, Any]
    notebooks: set[str]
    claims: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
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


def _as_text(name: str, run: Run) -> _Text:
    claims = _texts("", run.claims)
    machine = {key: str(run.manifest.get(key) or "") for key in ("what", "platform", "python")}
    status = dict.fromkeys(claims["notebook"], "executed")
    notebooks, seconds = {*status}, {}
    values_of: dict[str, set[str]] = {}
    for cell, entry in run.manifest.get("notebooks", {}).items():
        title = entry.get("notebook", cell)
        notebooks.add(title)
        if entry["status"] == "failed":
            status[title] = f"failed: {entry['error']}"
        elif 0 < entry["seconds"] < float("inf"):
            seconds[cell] = float(entry["seconds"])
        for key, value in entry.get("parameters", {}).items():
            values_of.setdefault(key, set()).add(_text(value))
    toolchains = run.manifest.get("toolchains", ())
    columns = ("name", "version", "raw_version")
    tables = {title: _texts(title, table) for title, table in run.tables.items()}
    tables[" notebooks"] = pd.DataFrame(status.items(), columns=["notebook", "status"])
    tables[" made"] = pd.DataFrame(machine.items(), columns=["what", "value"])
    tables[" toolchains"] = pd.DataFrame({c: [str(t[c]) for t in toolchains] for c in columns})
    claims = _places(claims, _CLAIM, _CLAIMED)
    finished = str(run.manifest.get("finished") or "")
    about = {"run": name, **machine, "finished": finished, "claims": len(claims)}
    return _Text(about, notebooks, claims, tables, values_of, seconds)


def _with_versions(recorded: _Text, other: _Text) -> _Text:
    """Return the recorded run with those claims of the recording of all LLVMs that `other` has."""
    versions = _places(_texts("", results.baseline().claims), _CLAIM, _CLAIMED)
    claims = pd.concat([recorded.claims, versions.merge(other.claims[_CLAIM], on=_CLAIM)])
    return replace(recorded, claims=claims.drop_duplicates(_CLAIM))


def _texts(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return what is compared of a table, each value as text."""
    spec = _TABLES.get(name)
    compared = {spec.what, *spec.key, *spec.value, "at"} if spec and spec.value else table.columns
    columns: dict[str, list[str]] = {}
    for column, values in table.items():
        if column in compared and column not in _MEASURED:
            texts = [v if type(v) is str and "@" not in v else _text(v) for v in values.tolist()]
            if column in _COMPILERS:
                texts = [text.partition(".")[0] if text[:1].isdigit() else text for text in texts]
            columns[str(column)] = texts
    return pd.DataFrame(columns, dtype=object)


def _text(value: Any) -> str:
    value = value.tolist() if hasattr(value, "tolist") else value
    if value is None or value != value:  # noqa: PLR0124 - NaN: an empty cell
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # beside an empty cell whole numbers become floats
    return _PROVIDER.sub("", str(value))


def _places(table: pd.DataFrame, key: Sequence[str], answers: Sequence[str]) -> pd.DataFrame:
    """Return what each place (the texts of `key`) answers; all answers, if there are several."""
    rows = table[[*key, *answers]].drop_duplicates()
    again = rows.duplicated(key, keep=False)
    if not again.any():
        return rows

    def join(texts: pd.Series[str]) -> str:
        return " | ".join(sorted({*texts}))

    joined = rows[again].groupby(list(key), as_index=False)[list(answers)].agg(join)
    return pd.concat([rows[~again], joined])


def _merged(
    before: pd.DataFrame, after: pd.DataFrame, key: Sequence[str], answers: Sequence[str]
) -> list[dict[Hashable, Any]]:
    """Merge two tables of text on `key`; return the places that are new, gone, or answer otherwise.

    Each has the columns of `key`, and of each answer one that ends with " before" and one with
    " after": None where the place is not in that table; `side` says in which it is.
    """
    if before.equals(after):
        return []
    old, new = (_places(table, key, answers) for table in (before, after))
    both = old.merge(new, "outer", list(key), suffixes=(" before", " after"), indicator="side")
    changed = both["side"] != "both"
    for answer in answers:
        changed |= both[f"{answer} before"] != both[f"{answer} after"]
    rows = both[changed].astype(object)
    return rows.where(rows.notna(), None).to_dict("records")


def _claims(before: _Text, after: _Text) -> Iterator[RunChange]:
    for row in _merged(before.claims, after.claims, _CLAIM, _CLAIMED):
        at = _parameters(row["at"])
        held, holds = row["holds before"], row["holds after"]
        if held is None:
            kind = "claim-new" if holds == "True" else "claim-unheld"
        elif holds is None:
            kind = "claim-gone"
        elif held != holds and "True" in (held, holds):
            kind = "claim-lost" if held == "True" else "claim-regained"
        else:
            kind = "claim-observed"
        # What the second run was not asked for is not gone; what is of the whole is not new to it.
        if held is None and not _in_scope(at, before.given):
            continue
        if kind != "claim-gone" or _asked(at, after.given):
            yield RunChange(kind, row["name"], row["observed before"], row["observed after"], at)


def _scopes(given: Mapping[str, set[str]]) -> set[str]:
    return given.get("scope", {results.SCOPES[0]})


def _in_scope(at: Mapping[str, str], given: Mapping[str, set[str]]) -> bool:
    return "scope" not in at or at["scope"] in _scopes(given)


def _asked(at: Mapping[str, str], given: Mapping[str, set[str]]) -> bool:
    """Return whether a claim's scope and toolchains are among those that a run was given."""
    if not _in_scope(at, given):
        return False
    at = {"llvm" if key == "main" else key: value for key, value in at.items()}
    compilers = {key: at[key].rpartition(" ")[2] for key in ("llvm", "foreign") if key in at}
    return all(value in given.get(key, (value,)) for key, value in compilers.items())


def _compared(name: str, before: _Text, after: _Text, notes: list[str]) -> Iterator[RunChange]:
    a, b = _aligned(name, before, after)
    both = [str(column) for column in a if column in b]
    spec = _TABLES.get(name) or _Table("table", "", tuple(sorted(both)))
    needs = (spec.what, *spec.key, *spec.value) if spec.value else (*a, *b)
    lacking = ", ".join(sorted(({*a} ^ {*b}).intersection(needs)))
    if not both or (spec.what and spec.what not in both):
        notes.append(f"table {name}, without {lacking or spec.what}")
        return
    if lacking:
        notes.append(f"table {name}: {lacking}, which only one run has")
    key = [c for c in dict.fromkeys((spec.what, *spec.key, "at")) if c in both]
    answers = [c for c in both if c not in (*key, *spec.prose)]
    if spec.value:
        values = [c for c in spec.value if c in both]
        a, b = (_joined(table, values, spec.between) for table in (a, b))
        answers = ["answer"]
    rows = _merged(a, b, key, answers)
    if spec.whole and _scopes(before.given) != _scopes(after.given):
        small = "after" if results.SCOPES[1] in _scopes(before.given) else "before"
        rows, left_out = _without_whole(rows, spec, small, answers)
        if left_out:
            notes.append(f"table {name}: {left_out} of its rows, with what the whole alone tries")
    for row in rows:
        what = row[spec.what] if spec.what else name
        at = {c: row[c] for c in key if c not in (spec.what, "at")} | _parameters(row.get("at", ""))
        texts = [(answer, row[f"{answer} before"], row[f"{answer} after"]) for answer in answers]
        if row["side"] == "both":
            for answer, was, now in texts:
                if was != now:
                    title = what if spec.value else f"{what}: {answer}"
                    yield RunChange(spec.kind, title, was, now, at)
        else:
            text = ", ".join(filter(None, (was or now for _, was, now in texts)))
            gone = row["side"] == "left_only"
            yield RunChange(spec.kind, what, text if gone else None, None if gone else text, at)


def _without_whole(
    rows: Sequence[dict[Hashable, Any]], spec: _Table, small: str, answers: Sequence[str]
) -> tuple[list[dict[Hashable, Any]], int]:
    """Return rows of `_merged` without what the whole alone tries; and how many that leaves out.

    `small` is the side of the run with the smaller scope: "before" or "after".
    """
    only_whole, large = ("right_only", "after") if small == "before" else ("left_only", "before")
    compared, count = [], 0
    for row in rows:
        matches = any(all(re.fullmatch(r, row[c]) for c, r in w.items()) for w in spec.whole)
        if matches and row["side"] == only_whole and not spec.whole_values:
            count += 1
            continue
        if matches and row["side"] == "both":
            for answer in spec.whole_values:
                if row[f"{answer} {small}"] in _UNTRIED:
                    row[f"{answer} {small}"] = row[f"{answer} {large}"]
        if row["side"] != "both" or any(row[f"{x} before"] != row[f"{x} after"] for x in answers):
            compared.append(row)
        else:
            count += 1
    return compared, count


def _joined(table: pd.DataFrame, columns: Sequence[str], between: str) -> pd.DataFrame:
    """Return a table whose column `answer` has the texts of several columns as one."""
    return table.assign(answer=[between.join(filter(None, v)) for v in table[columns].to_numpy()])


def _aligned(name: str, before: _Text, after: _Text) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a table of two runs; of a run of several cells, those that the other one has."""
    a, b = before.tables[name], after.tables[name]
    if a.empty or b.empty:  # a table without rows has no columns
        columns = b.columns.union(a.columns, sort=False)
        a, b = a.reindex(columns=columns, fill_value=""), b.reindex(columns=columns, fill_value="")
    if ("at" in a) != ("at" in b):
        a, b = _agreeing(a, after.given), _agreeing(b, before.given)
    return a, b


def _agreeing(table: pd.DataFrame, given: Mapping[str, set[str]]) -> pd.DataFrame:
    """Return the rows of cells with the other run's parameters, for it has but one cell."""
    if "at" not in table:
        return table
    cells = [_parameters(at) for at in table["at"]]
    agree = [all(v in given.get(key, (v,)) for key, v in cell.items()) for cell in cells]
    return table[agree].drop(columns="at")


def _parameters(at: str) -> dict[str, str]:
    try:
        return {str(key): str(value) for key, value in json.loads(at).items()}
    except (ValueError, AttributeError, RecursionError):
        return {"at": at} if at else {}


def _timings(a: Mapping[str, float], b: Mapping[str, float]) -> Iterator[RunChange]:
    factors = {name: b[name] / a[name] for name in a if name in b}
    pace = statistics.median(factors.values()) if factors else 1.0
    for name, factor in factors.items():
        slower, faster = min(factor, factor / pace), max(factor, factor / pace)
        beyond = slower >= _FACTOR or faster <= 1 / _FACTOR
        if beyond and abs(a[name] - b[name]) >= _SECONDS:
            yield RunChange("seconds", name, f"{a[name]:.0f}", f"{b[name]:.0f}")
