"""Images of one process that each bring a profile runtime, of different raw versions.

Each runtime writes its own image's profile, so nothing crashes. But both append to one file, which
no llvm-profdata reads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbsupport.audit.evidence import Evidence
from nbsupport.profile import layout


@dataclass(frozen=True)
class RuntimesWarning:
    """Images that are loaded into one process, by path, with the raw versions of their runtimes."""

    runtimes: dict[Path, int]

    def __str__(self) -> str:
        versions = sorted(set(self.runtimes.values()))
        numbers = ", ".join(map(str, versions))
        tools = ", ".join(layout.llvm_of(version) for version in versions)
        return (
            f"each image has its own runtime ({numbers}): write with"
            f" LLVM_PROFILE_FILE=%p-%m.profraw and merge each with its own LLVM ({tools})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return one of `warnings` of `pgo-lab audit --json`."""
        images = [
            {"path": str(path), "runtime_raw_version": version}
            for path, version in self.runtimes.items()
        ]
        return {"kind": "runtimes", "what": str(self), "images": images}


def warn(files: Sequence[Evidence], named: Collection[Path]) -> list[RuntimesWarning]:
    """Return a warning for each set of images that are one process's and differ in their runtimes.

    Such are those that are `named` together and are not all programs; and a program or library
    with those that it needs, by their names, directly or not.
    """
    images = {file.path: file for file in files if file.linked}
    runtimes = {path: version for path, file in images.items() if (version := _runtime(file))}
    if len(set(runtimes.values())) < 2:
        return []
    by_name: dict[str, list[Path]] = {}
    for path in images:
        by_name.setdefault(path.name, []).append(path)
    together = [path for path in images if path in named]
    processes = [together] if sum(map(_program, (images[path] for path in together))) < 2 else []
    for root in images:
        loaded = {root: None}
        waiting = [root]
        while waiting:
            here = waiting.pop()
            names = (Path(name).name for part in images[here].parts for name in part.binary.needed)
            for path in (path for name in names for path in by_name.get(name, ())):
                if path not in loaded:
                    loaded[path] = None
                    waiting.append(path)
        processes.append(list(loaded))
    warnings: list[RuntimesWarning] = []
    for paths in sorted(processes, key=len, reverse=True):
        own = {path: runtimes[path] for path in paths if path in runtimes}
        covered = any(own.keys() <= warning.runtimes.keys() for warning in warnings)
        if len(set(own.values())) > 1 and not covered:
            warnings.append(RuntimesWarning(own))
    return warnings


def _runtime(file: Evidence) -> int | None:
    """Return the raw version of an image's runtime, or of its records where that is not known."""
    for part in file.parts:
        if part.linked and part.binary.instrumented:
            versions = part.raw_versions
            return part.runtime or (versions.pop() if len(versions) == 1 else None)
    return None


def _program(file: Evidence) -> bool:
    return any(part.binary.kind == "executable" for part in file.parts)
