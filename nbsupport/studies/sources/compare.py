"""What changed in the profile runtime between two versions: a summary first, details folded."""

from __future__ import annotations

import difflib
import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbsupport.show.shown import Shown
from nbsupport.studies.sources.parse import excerpt
from nbsupport.studies.sources.structure import Structure
from nbsupport.studies.sources.tree import Tree

if TYPE_CHECKING:
    import pandas as pd

#: From where to where the crash goes: registration, writing, and the value sites of main.
#: Source: InstrProfilingRuntime.cpp, InstrProfilingFile.c, InstrProfilingValue.c.
WAYS = (
    ("RegisterRuntime", "__llvm_profile_write_file"),
    ("__llvm_profile_write_file", "initializeValueProfRuntimeRecord"),
    ("__llvm_profile_instrument_target", "instrumentTargetValueImpl"),
)


def crash_path(found: Structure) -> tuple[str, ...]:
    """Return the functions on the crash's path, from registration on; each once."""
    return tuple(dict.fromkeys(name for way in WAYS for name in found.path(*way)))


@dataclass(frozen=True)
class RuntimeChange:
    """What changed from one version to another. Functions by name, in the files' order."""

    old: Structure
    new: Structure
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    moved: tuple[str, ...]

    @property
    def path(self) -> tuple[str, ...]:
        """The functions on the crash's path, of either version, that changed, came or went."""
        names = dict.fromkeys((*crash_path(self.old), *crash_path(self.new)))
        return tuple(n for n in names if n in (*self.added, *self.removed, *self.changed))

    @property
    def fields(self) -> tuple[str, ...]:
        """What changed in the record and in the header, in words."""
        said = []
        for what in ("record", "header"):
            old, new = getattr(self.old, what), getattr(self.new, what)
            said += [f"{what}: {name} is new" for name in new if name not in old]
            said += [f"{what}: {name} is gone" for name in old if name not in new]
            common = [
                [name for name in one if name in two] for one, two in ((old, new), (new, old))
            ]
            said += [f"{what}: another order"] if common[0] != common[1] else []
        return tuple(said)

    @property
    def summary(self) -> str:
        """What the reader of a rerun reads first, in a sentence or three."""
        old, new = self.old, self.new
        path = f"{len(self.path)} of them on the crash's path" if self.path else "none on its path"
        counts = f"functions: {len(self.changed)} changed, {len(self.added)} new, "
        counts += f"{len(self.removed)} gone, {len(self.moved)} moved to another file; {path}"
        raw = f"raw version {old.raw_version}"
        raw += f" -> {new.raw_version}" if new.raw_version != old.raw_version else " in both"
        fields = "; ".join(self.fields) or "record and header have the same fields"
        return f"LLVM {old.version} -> {new.version}: {counts}. {raw}; {fields}."


def compare(old: Structure, new: Structure) -> RuntimeChange:
    """Return what changed from `old` to `new`: code, not comments or layout."""

    def by_name(one: Structure) -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        for function in one.functions:
            found.setdefault(function.name, []).append((function.digest, function.file))
        return found

    first, second = by_name(old), by_name(new)
    both = [name for name in second if name in first]

    def differ(name: str, part: int) -> bool:
        one, two = ({each[part] for each in found[name]} for found in (first, second))
        return one != two

    return RuntimeChange(
        old,
        new,
        added=tuple(name for name in second if name not in first),
        removed=tuple(name for name in first if name not in second),
        changed=tuple(name for name in both if differ(name, 0)),
        moved=tuple(name for name in both if differ(name, 1)),
    )


def digests(llvm: str, runtime: Structure) -> pd.DataFrame:
    """Return a row for each function of a runtime: what two of the same text have in common."""
    import pandas as pd  # noqa: PLC0415 - not part of the base installation

    rows = [(llvm, one.name, one.file, one.digest) for one in runtime.functions]
    return pd.DataFrame(rows, columns=["llvm", "function", "file", "digest"])


def table(found: RuntimeChange) -> Shown:
    """Show the changes: the summary, those on the crash's path, all others folded."""
    lists = {
        "changed on the crash's path": found.path,
        "changed elsewhere": tuple(n for n in found.changed if n not in found.path),
        "new": found.added,
        "gone": found.removed,
        "moved": found.moved,
    }
    text, page = [found.summary], [f"<p>{html.escape(found.summary)}</p>"]
    for what, names in lists.items():
        if names:
            text.append(f"{what}: {', '.join(names)}")
            said = ", ".join(f"<code>{html.escape(name)}</code>" for name in names)
            head = f"<summary>{html.escape(what)}: {len(names)}</summary>"
            page.append(f"<details>{head}<p>{said}</p></details>")
    return Shown("\n".join(text), "".join(page).replace("<details>", "<details open>", 1))


def difference(name: str, old: Tree, new: Tree) -> Shown:
    """Show how a function differs between two versions: LLVM's own lines, never committed.

    Raises `LabError` where one of them has no such function.
    """
    before, after = (excerpt(tree, name) for tree in (old, new))
    lines = list(
        difflib.unified_diff(before.text.splitlines(), after.text.splitlines(), lineterm="", n=2)
    )[2:]
    minus, plus = (sum(line.startswith(sign) for line in lines) for sign in "-+")
    head = f"{name}: LLVM {old.version} -> {new.version}, {minus} lines gone, {plus} new"
    rows = []
    for line in lines:
        kind = {"-": "gone", "+": "new"}.get(line[:1], "")
        rows.append(f'<span class="{kind}">{html.escape(line)}</span>')
    licence = html.escape(after.licence)
    body = "\n".join(rows)
    return Shown(
        head,
        f'<details class="source"><summary>{html.escape(head)} · {licence}</summary>'
        f"<pre>{body}</pre></details>",
    )
