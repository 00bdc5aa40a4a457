"""What changed between two runs, as a value: in order of importance, as lines, JSON and HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nbsupport.base import settings
from nbsupport.base.errors import first_line
from nbsupport.show import shown

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
