"""What changed in the profile runtime between two versions: a summary first, details folded."""

import difflib
from dataclasses import dataclass

import pandas as pd

from nbsupport.show.shown import Html, Shown, element
from nbsupport.studies.sources.parse import excerpt
from nbsupport.studies.sources.structure import Structure
from nbsupport.toolchains.tree import Tree

#: From where to where the crash goes: registration, writing, and the value sites of main.
#: Source: InstrProfilingRuntime.cpp, InstrProfilingFile.c, InstrProfilingValue.c.
WAYS = (
    ("RegisterRuntime", "__llvm_profile_write_file"),
    ("__llvm_profile_write_file", "initializeValueProfRuntimeRecord"),
    ("__llvm_profile_instrument_target", "instrumentTargetValueImpl"),
)


def crash_path(structure: Structure) -> tuple[str, ...]:
    """Return the functions on the crash's path, from registration on; each once."""
    return tuple(dict.fromkeys(name for way in WAYS for name in structure.path(*way)))


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
        changes = []
        for what in ("record", "header"):
            old, new = getattr(self.old, what), getattr(self.new, what)
            changes += [f"{what}: {name} is new" for name in new if name not in old]
            changes += [f"{what}: {name} is gone" for name in old if name not in new]
            if [name for name in old if name in new] != [name for name in new if name in old]:
                changes.append(f"{what}: another order")
        return tuple(changes)

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
    code = [_by_name(structure, "digest") for structure in (old, new)]
    files = [_by_name(structure, "file") for structure in (old, new)]
    added = tuple(name for name in code[1] if name not in code[0])
    removed = tuple(name for name in code[0] if name not in code[1])
    both = [name for name in code[1] if name in code[0]]
    changed = tuple(name for name in both if code[0][name] != code[1][name])
    moved = tuple(name for name in both if files[0][name] != files[1][name])
    return RuntimeChange(old, new, added, removed, changed, moved)


def _by_name(structure: Structure, what: str) -> dict[str, set[str]]:
    """Return digests or files of functions; one of each platform may have the same name."""
    values: dict[str, set[str]] = {}
    for function in structure.functions:
        values.setdefault(function.name, set()).add(getattr(function, what))
    return values


def digests(llvm: str, runtime: Structure) -> pd.DataFrame:
    """Return a row for each function of a runtime: what two of the same text have in common."""
    rows = [(llvm, one.name, one.file, one.digest) for one in runtime.functions]
    return pd.DataFrame(rows, columns=["llvm", "function", "file", "digest"])


def table(change: RuntimeChange) -> Shown:
    """Show what `compare` returned: the summary, the crash's path, all others folded."""
    lists = {
        "changed on the crash's path": change.path,
        "changed elsewhere": tuple(n for n in change.changed if n not in change.path),
        "new": change.added,
        "gone": change.removed,
        "moved": change.moved,
    }
    text, page = [change.summary], [element("p", change.summary)]
    for what, names in lists.items():
        if names:
            text.append(f"{what}: {', '.join(names)}")
            head = element("summary", f"{what}: {len(names)}")
            functions = Html(", ".join(element("code", name) for name in names))
            page.append(element("details", head, element("p", functions)))
    return Shown("\n".join(text), "".join(page).replace("<details>", "<details open>", 1))


def difference(name: str, old: Tree, new: Tree) -> Shown:
    """Show how a function differs between two versions: LLVM's own lines, never committed.

    Raises `LabError` where one of them has no such function.
    """
    before, after = (excerpt(tree, name) for tree in (old, new))
    texts = before.text.splitlines(), after.text.splitlines()
    lines = list(difflib.unified_diff(texts[0], texts[1], lineterm="", n=2))[2:]
    minus, plus = (sum(line.startswith(sign) for line in lines) for sign in "-+")
    head = f"{name}: LLVM {old.version} -> {new.version}, {minus} lines gone, {plus} new"
    kinds = {"-": "gone", "+": "new"}
    spans = (element("span", line, class_=kinds.get(line[:1], "")) for line in lines)
    summary = element("summary", f"{head} · {after.licence}")
    body = element("pre", Html("\n".join(spans)))
    return Shown(head, element("details", summary, body, class_="source"))
