"""Which files foreign records came from, and the crate or build folder that each is of."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nbsupport.audit.advice import cargo_target
from nbsupport.audit.evidence import Evidence, PartEvidence, RecordEvidence
from nbsupport.audit.fate import disagree
from nbsupport.profile.infer import Array
from nbsupport.profile.names import Names

#: Files beside an image that may have been linked into it, and how many are looked at.
_LINKABLE, _MOST_BESIDE = (".o", ".a", ".rlib", ".obj", ".lib", ".lo"), 2000
#: Function names shown of each file.
_SHOWN = 3
#: What cargo puts behind a crate's name in the name of a file or folder.
_HASH = re.compile(r"-[0-9a-f]{16}$")
#: The NameRef of a program's start.
MAIN = Names([b"main"]).hashes[0]
_NOTHING: Array = np.zeros(0, np.uint64)


@dataclass(frozen=True)
class Blame:
    """A file with foreign records: of how many functions, the first few names, and all keys.

    `members` are those of an archive that have them, where others of it have not. `certain` is
    False where other objects have all of them, too, so that only one was linked.
    """

    path: Path
    count: int = 0
    functions: tuple[str, ...] = ()
    keys: Array = field(default_factory=lambda: _NOTHING, repr=False, compare=False)
    members: tuple[str, ...] = ()
    certain: bool = True

    @classmethod
    def from_records(
        cls, path: Path, records: Iterable[RecordEvidence], among: Array | None = None
    ) -> Blame:
        """Count the functions that have records (with a key `among` these)."""
        count, names = 0, list[str]()
        keys = [_NOTHING]
        for run in records:
            chosen = slice(None) if among is None else np.isin(run.keys, among)
            references = run.references[chosen]
            keys.append(run.keys[chosen])
            count += len(references)
            if len(names) < _SHOWN:
                resolved = filter(None, run.names.resolve(references[:_SHOWN]))
                names += [name.decode(errors="replace") for name in resolved]
        return cls(path, count, tuple(names[:_SHOWN]), np.concatenate(keys))

    def to_json(self) -> dict[str, Any]:
        """Return one of `blame` of `pgo-lab audit --json`."""
        return {
            "path": str(self.path),
            "count": self.count,
            "functions": self.functions,
            "members": self.members,
            "certain": self.certain,
        }

    def __str__(self) -> str:
        """Return the file, with its members as linkers write them: `libx.a(a.o, b.o)`."""
        names = ", ".join(self.members[:_SHOWN]) + (", …" if len(self.members) > _SHOWN else "")
        return f"{self.path}({names})" if names else str(self.path)


@dataclass(frozen=True)
class Origin:
    """A crate, or a build folder, whose files have foreign records.

    `name` is the crate's or the folder's, `count` the number of different functions in all
    `files` together: an object, its archive and its crate's library are the same functions.
    """

    name: str
    files: tuple[Blame, ...]
    count: int
    functions: tuple[str, ...]

    def __str__(self) -> str:
        first = min(self.files, key=lambda file: (file.path.suffix == ".o", str(file)))
        what = str(first)
        if len(self.files) > 1:
            own = [str(file).removeprefix(f"{self.name}/") for file in self.files]
            name = "this folder" if self.name == "." else self.name
            what = f"{name}, {len(own)} files, such as {what.removeprefix(f'{self.name}/')}"
            if not any(file.certain for file in self.files):
                listed = ", ".join(own[:_SHOWN]) + (", …" if len(own) > _SHOWN else "")
                what = f"{name}, one of {len(own)} files that have them: {listed}"
            elif not all(file.certain for file in self.files):
                what += ", not all of which were linked"
        names = ", ".join(self.functions) + (", …" if self.count > len(self.functions) else "")
        some = "1 function" if self.count == 1 else f"{self.count} functions"
        return what + (f": {some}: {names}" if self.count else "")

    def to_json(self) -> dict[str, Any]:
        """Return one of `origins` of `pgo-lab audit --json`."""
        return {**vars(self), "files": [str(file.path) for file in self.files]}


def origins(blame: Sequence[Blame]) -> list[Origin]:
    """Return the crates and build folders of files, those with most functions first."""
    groups: dict[str, list[Blame]] = {}
    labels: dict[str, str] = {}
    for file in blame:
        label = _crate(file.path) or str(file.path.parent)
        key = label.replace("-", "_")
        groups.setdefault(key, []).append(file)
        labels[key] = min(labels.get(key, label), label)  # a package's name may have a hyphen
    answers = []
    for key, files in groups.items():
        names = itertools.chain.from_iterable(file.functions for file in files)
        # Of bitcode no keys are known.
        count = len(np.unique(np.concatenate([file.keys for file in files])))
        count = count or max(file.count for file in files)
        shown = tuple(dict.fromkeys(names))[:_SHOWN]
        answers.append(Origin(labels[key], tuple(files), count, shown))
    return sorted(answers, key=lambda origin: (-origin.count, origin.name))


def _crate(path: Path) -> str:
    """Return the crate that a file in a cargo target folder is of, or "".

    `build/NAME-HASH/out/…` is what a crate's build script made, `deps/libNAME-HASH.rlib` itself.
    """
    if not cargo_target(path):
        return ""
    names = path.parts
    if "build" in names[:-2]:
        place = len(names) - 1 - names[::-1].index("build")
        if _HASH.search(names[place + 1]):
            return _HASH.sub("", names[place + 1])
    return _HASH.sub("", path.stem).removeprefix("lib") if names[-2] == "deps" else ""


def beside(image: Path) -> list[Path]:
    """Return files near an image from which it may have been linked."""
    near = list(image.parent.glob("*"))
    if cargo_target(image):
        folder = image.parent.parent if image.parent.name == "deps" else image.parent
        near += [*folder.glob("deps/*"), *folder.glob("build/*/out/**/*")]
    return sorted({path for path in near if path.suffix in _LINKABLE})[:_MOST_BESIDE]


def of_image(
    path: Path, foreign: Sequence[RecordEvidence], objects: Iterable[Evidence]
) -> list[Blame]:
    """Return which of the objects an image's foreign records came from; else the image itself.

    A linker takes the names of an object whole, so one with a name that the image lacks was not
    linked. Of two objects that have the same function only one can have been.
    """
    blame, loose, parted = list[Blame](), list[Array](), set[Path]()
    for file in objects:
        for run in foreign:
            same = (
                (part, [own for own in part.records if own.record_size == run.record_size])
                for part in file.parts
            )
            fitting = [(part, runs) for part, runs in same if runs and _named(runs, run)]
            own = _blame(file, fitting, run.keys)
            if own.count:
                blame.append(own)
                loose += [] if file.container else [np.unique(own.keys)]
                if any(~np.isin(own.keys, run.keys).all() for _, runs in fitting for own in runs):
                    parted.add(file.path)
    keys, times = np.unique(np.concatenate([_NOTHING, *loose]), return_counts=True)
    shared = keys[times > 1]
    blame = [
        dataclasses.replace(file, certain=not len(shared) or not np.isin(file.keys, shared).all())
        for file in blame
    ]
    sure = np.concatenate([_NOTHING, *(file.keys for file in blame if file.certain)])
    # What has other functions than the image, and none that no other file has, was not linked.
    blame = [
        file
        for file in blame
        if file.certain or file.path not in parted or not np.isin(file.keys, sure).all()
    ]
    return blame or [Blame.from_records(path, foreign)]


def hidden(image: PartEvidence, objects: Iterable[Evidence]) -> list[tuple[Path, PartEvidence]]:
    """Return the objects in an image whose variants its one version symbol hides, with their paths.

    They are told by functions that no object of the image's own variants has. In a cargo target
    `main` is rustc's, not that of what a build script has tried a compiler with.
    """
    if not image.linked or not image.symbol[0]:
        return []
    parts = [(file.path, part) for file in objects for part in file.parts if part.symbol[0]]
    other = [(path, p) for path, p in parts if disagree(p.symbol[1], image.symbol[1])]
    if not other:
        return []
    usual = [p for _, p in parts if not disagree(p.symbol[1], image.symbol[1])]
    usual_keys = np.concatenate([_NOTHING, *(run.keys for p in usual for run in p.records)])

    def linked(path: Path, own: RecordEvidence) -> bool:
        certain = ~np.isin(own.keys, usual_keys)
        if cargo_target(path):
            certain &= own.references != MAIN
        keys = own.keys[certain]
        runs = [run for run in image.records if run.record_size == own.record_size]
        return any(np.isin(keys, run.keys).any() and _named([own], run) for run in runs)

    return [(path, p) for path, p in other if any(linked(path, own) for own in p.records)]


def _named(runs: Iterable[RecordEvidence], image: RecordEvidence) -> bool:
    """Return whether an image holds all names that records refer to, as far as it holds any."""
    held = any(image.names.resolve(image.references))
    return not held or all(all(image.names.resolve(run.references)) for run in runs)


def of_objects(files: Sequence[Evidence], usual: int) -> list[Blame]:
    """Return the objects that are not what most, or the runtime, are: of raw version `usual`."""
    pieces = [piece for file in files for part in file.parts for piece in part.pieces]
    main = next((p.variants for p in pieces if p.raw_version == usual and p.has_symbol), None)

    def strange(part: PartEvidence) -> bool:
        others = {piece.variants for piece in part.pieces if piece.has_symbol} - {main}
        wrong = usual not in part.raw_versions or (main is not None and bool(others))
        return bool(part.pieces) and wrong

    foreign = [(file, [(p, p.records) for p in file.parts if strange(p)]) for file in files]
    return [_blame(file, parts) for file, parts in foreign if parts]


def _blame(
    file: Evidence,
    foreign: Sequence[tuple[PartEvidence, Sequence[RecordEvidence]]],
    among: Array | None = None,
) -> Blame:
    """Blame a file for records of its `foreign` parts: by their names, where it has others, too."""
    runs = itertools.chain.from_iterable(runs for _, runs in foreign)
    blame = Blame.from_records(file.path, runs, among)
    if len(foreign) == sum(bool(part.pieces) for part in file.parts):
        return blame
    names = [part.binary.name for part, _ in foreign if part.binary.name]
    return dataclasses.replace(blame, members=tuple(names))
