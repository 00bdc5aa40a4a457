"""What `llvm-profdata merge` makes of raw profiles: of one, and of a folder as one training run.

Observed with LLVM 17 to 23, and so tested; source: loadInput, mergeInstrProfile
(llvm-profdata.cpp), InstrProfWriter::addRecord, InstrProfRecord::merge (InstrProf.cpp).
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nbsupport.base import progress
from nbsupport.base.errors import LabError
from nbsupport.profile import layout, profraw
from nbsupport.profile.infer import Array
from nbsupport.profile.names import Doubt, Problem
from nbsupport.profile.profraw import RawProfile

State = Literal[
    "ok", "empty", "truncated", "malformed", "other-version", "not-a-profile", "unreadable"
]
#: Raw versions whose llvm-profdata the tests run: those of LLVM 17 to 23.
TRIED = (8, 9, 10, 11)
_KEY = np.dtype([("ref", "u8"), ("hash", "u8"), ("counters", "u8"), ("bitmap", "u8")])


@dataclass(frozen=True)
class TrainingFile:
    """One file of a training run; the numbers of one that is no profile are 0."""

    path: Path
    state: State
    bytes: int = 0
    raw_version: int | None = None
    variants: tuple[str, ...] = ()
    functions: int = 0
    counters: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def merges(self) -> bool:
        """Whether the llvm-profdata of its raw version takes it, be it right or not."""
        return self.raw_version is not None and all(isinstance(p, Doubt) for p in self.problems)


@dataclass(frozen=True)
class TrainingRun:
    """A folder of profiles that are to be merged.

    `functions` are those that a merge keeps, each once, `counters` theirs; `raw_version` is
    that of most files, `problems` those between files (each file has its own).
    """

    files: tuple[TrainingFile, ...]
    raw_version: int | None
    functions: int
    counters: int
    problems: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0: merges as it is, nothing lost; 1: not so; 2: a file cannot be read."""
        states = {file.state for file in self.files}
        return 2 if "unreadable" in states else int(states != {"ok"} or bool(self.problems))

    def rows(self) -> Iterator[tuple[bytes, int, list[int]]]:
        """Yield name, hash and counts of the functions that a merge keeps, added up."""
        totals: dict[tuple[bytes, int], list[int]] = {}
        for file in self.files:
            if file.raw_version == self.raw_version and file.merges:
                for name, number, counts in profraw.read(file.path).rows():
                    total = totals.setdefault((name, number), counts)
                    if total is not counts and len(total) == len(counts):
                        total[:] = map(sum, zip(total, counts, strict=True))
        for (name, number), counts in totals.items():
            yield name, number, counts


def state(raw: RawProfile) -> State:
    """Return how a profile is."""
    if not raw.data:
        return "empty"
    if raw.raw_version is not None and raw.raw_version not in layout.LAYOUTS:
        return "other-version"
    if any(p.what.startswith("truncated") for p in raw.problems):
        return "truncated"
    return "ok" if raw.valid else "malformed"


def merge(raw: RawProfile) -> str:
    """Say what `llvm-profdata merge` does with it: of the LLVMs that it was tried with."""
    if not raw.data:
        return "llvm-profdata merge skips it silently, with exit code 0, even as the only input"
    if raw.raw_version is None:
        return "llvm-profdata merge fails: it cannot tell what this is"
    llvm = layout.llvm_of(raw.raw_version)
    tool = f"llvm-profdata merge of {llvm}"
    if raw.raw_version not in TRIED:
        return f"not known: it is for {tool}, which was not tried; one of LLVM 17 to 23 fails"
    versions = dict.fromkeys(profile.header.layout.raw_version for profile in raw.profiles)
    if len(versions) > 1:
        listed = ", ".join(map(str, versions))
        return f"any llvm-profdata merge fails: it is of several raw versions ({listed})"
    if all(isinstance(p, Doubt) for p in raw.problems):
        how = "merges it as it is" if raw.problems else "merges it"
        return f"{tool} {how}; any other fails (raw profile version mismatch)"
    large = any(profile.records.large.any() for profile in raw.profiles)
    warn = "; with --failure-mode=warn (LLVM 18 and newer) it takes that count, too"
    return (
        f"{tool} fails; with --failure-mode=all it drops all of it, warns, and exits with 0 where "
        f"another input is good, else with 1{warn if large else ''}"
    )


def read(folder: Path, *, most: int = profraw.MOST_BYTES) -> TrainingRun:
    """Read all files below a folder; raises `LabError` where there are none.

    `llvm-profdata merge FOLDER` takes all files, too, whatever their names. Of what does not begin
    as a raw profile, eight bytes are read. A profile of more bytes than `most` is unreadable.
    """
    files: list[TrainingFile] = []
    merged: dict[int | None, tuple[Array, list[str]]] = {}
    unread = list[OSError]()
    for path in progress.over(list(_files(folder, unread)), "reading profiles"):
        file, keys = _file(path, most)
        files.append(file)
        if len(keys):
            before, problems = merged.get(file.raw_version, (np.zeros(0, _KEY), []))
            functions, number = _together(before, keys)
            if number:
                what = f"{path}: {number} functions with other numbers of counters than before"
                problems.append(f"{what}: a merge drops them")
            merged[file.raw_version] = functions, problems
    for error in unread:  # a folder that may not be read
        problem = Problem(0, str(error.strerror))
        files.append(TrainingFile(Path(error.filename), "unreadable", problems=(problem,)))
    if not files:
        raise LabError(str(folder), "no files in it", "give a folder of .profraw files")
    versions = Counter(f.raw_version for f in files if f.raw_version is not None)
    main = max(versions, key=lambda v: (versions[v], v), default=None)
    functions, problems = merged.get(main, (np.zeros(0, _KEY), []))
    # Clang's manual merges IR and context-sensitive profiles: bit 60 of a hash tells them apart.
    kinds = {
        tuple(variant for variant in f.variants if variant != "context-sensitive")
        for f in files
        if f.raw_version == main
    }
    if len(kinds) > 1:
        words = "; ".join(sorted(" ".join(kind) or "front-end" for kind in kinds))
        problems.append(f"several variants ({words}): most merges take them as one, silently")
    for n, file in enumerate(files):
        if file.raw_version not in (None, main):
            what = f"raw version: expected {main} as most files here, found {file.raw_version}"
            inside = (Problem(8, what), *file.problems)
            files[n] = replace(file, state="other-version", problems=inside)
    counters = int(functions["counters"].sum())
    return TrainingRun(tuple(files), main, len(functions), counters, tuple(problems))


def _files(folder: Path, unread: list[OSError]) -> Iterator[Path]:
    for top, folders, names in os.walk(folder, onerror=unread.append):
        folders.sort()
        yield from (Path(top) / name for name in sorted(names))


def _file(path: Path, most: int) -> tuple[TrainingFile, Array]:
    """Return a file, and a key for each of the functions that a merge would take."""
    try:
        raw = profraw.read(path, most=most)
    except profraw.OtherFileError as error:
        other = (Problem(0, error.why),)
        return TrainingFile(path, "not-a-profile", problems=other), np.zeros(0, _KEY)
    except LabError as error:
        kind: State = "unreadable"
        return TrainingFile(path, kind, problems=(Problem(0, error.why),)), np.zeros(0, _KEY)
    content = raw.raw_version, raw.variants, raw.functions, raw.counters, raw.problems
    file = TrainingFile(path, state(raw), len(raw.data), *content)
    tables = [np.zeros(0, _KEY)]
    for records in (profile.records for profile in raw.profiles if file.merges):
        keys = np.zeros(len(records.numbers), _KEY)
        keys["ref"] = records.column("NameRef")[records.sound]
        keys["hash"] = records.column("FuncHash")[records.sound]
        keys["counters"], keys["bitmap"] = records.numbers, records.bitmaps[1][records.sound]
        tables.append(keys)
    return file, np.concatenate(tables)


def _together(before: Array, new: Array) -> tuple[Array, int]:
    """Return the functions of both, each once, and how many of the new ones a merge drops.

    A merge drops a function whose name and hash it knows with other numbers of counters or
    bytes of bitmap.
    """
    both = np.concatenate([before, new])
    order = np.lexsort((both["hash"], both["ref"]))  # stable: those before come first
    both = both[order]
    first = np.ones(len(both), bool)
    first[1:] = (both["ref"][1:] != both["ref"][:-1]) | (both["hash"][1:] != both["hash"][:-1])
    functions = both[first]
    same = functions[np.cumsum(first) - 1]
    differs = (both["counters"] != same["counters"]) | (both["bitmap"] != same["bitmap"])
    return functions, int(np.count_nonzero(differs))


def to_json(profile: RawProfile | TrainingRun) -> dict[str, Any]:
    """Return a file or a run as the command line's document."""
    if isinstance(profile, TrainingRun):
        return {
            "raw_version": profile.raw_version,
            "functions": profile.functions,
            "counters": profile.counters,
            "valid": profile.exit_code == 0,
            "problems": [{"offset": None, "what": what} for what in profile.problems],
            "files": [
                {**vars(f), "path": str(f.path), "problems": [vars(p) for p in f.problems]}
                for f in profile.files
            ],
        }
    first = profile.profiles[0].header if profile.profiles else None
    return {
        "raw_version": profile.raw_version,
        "variants": profile.variants,
        "bits": first and first.bits,
        "byte_order": first and layout.BYTE_ORDERS[first.order],
        "profiles": len(profile.profiles),
        "functions": profile.functions,
        "counters": profile.counters,
        "bytes": len(profile.data),
        "binary_ids": sorted({i for p in profile.profiles for i in p.header.binary_ids()[0]}),
        "valid": profile.valid,
        "problems": [vars(p) for p in profile.problems],
        "merge": merge(profile),
    }
