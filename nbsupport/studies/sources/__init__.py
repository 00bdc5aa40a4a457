"""The sources of LLVM's profile runtime: fetched, read by symbol, compared between versions.

Their structure (names, calls, fields, digests; no line of the text) of each version that the
project knows is recorded, so that it can be read where the sources cannot be had.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.show import Shown, shown
from nbsupport.studies.sources import compare, parse, structure
from nbsupport.studies.sources.structure import Structure
from nbsupport.toolchains import discovery, tree
from nbsupport.toolchains.tree import Tree

__all__ = ["Sources", "keep", "load", "recorded"]


@dataclass(frozen=True)
class Sources:
    """One version: its structure, and its text where that could be had (`tree`).

    `note` says what is not as it was asked for.
    """

    structure: Structure
    tree: Tree | None
    note: str = ""

    @property
    def provenance(self) -> str:
        """Where this comes from, for the reader."""
        origin = f"LLVM {self.structure.version}: a RECORDING"
        if self.tree:
            origin = self.tree.provenance
        return f"{origin} ({self.note})" if self.note else origin

    def excerpt(
        self,
        symbol: str,
        *,
        part: parse.Part = "",
        about: str = "",
        file: str = "",
        mark: str = "",
        margin: Mapping[str, str] | None = None,
    ) -> parse.Excerpt | Shown:
        """Return an excerpt (see `parse.excerpt`); without the text, one line that says so."""
        if not self.tree:
            text = f"{symbol}, LLVM {self.structure.version}: its text is not at hand"
            return Shown(text, shown.element("p", text))
        try:
            return parse.excerpt(
                self.tree, symbol, part=part, about=about, file=file, mark=mark, margin=margin
            )
        except LabError as error:
            places = [
                f"{runtime.version} ({function.file})"
                for runtime in recorded()
                for function in runtime.functions
                if function.name == symbol
            ]
            where = f"; it is in LLVM {', '.join(dict.fromkeys(places))}" if places else ""
            raise LabError(error.what, f"{error.why}{where}", error.do) from error

    def difference(self, other: Sources, name: str) -> Shown:
        """Show how a function of `self` differs from that of `other`, as `compare.difference`."""
        if self.tree and other.tree:
            return compare.difference(name, other.tree, self.tree)
        versions = f"{other.structure.version} -> {self.structure.version}"
        return Shown(f"{name}: LLVM {versions}, its text is not at hand", "")


def load(version: str) -> Sources:
    """Return a version of the profile runtime; where it cannot be had, as it was recorded.

    `version` as `tree.load` takes it, or a toolchain (`19@debian`, a path), whose version is meant.
    For a release that is neither known nor available stands the known one of its major version, and
    the note says so. Raises `MissingError` where nothing of that major is known.
    """
    if "@" in version or Path(version, "bin").is_dir():
        version = discovery.find(version).version
    try:
        sources = tree.load(version)
        return Sources(structure.from_tree(sources), sources)
    except MissingError as error:
        major = version.partition(".")[0]
        releases = [name for name in tree.known_versions() if name.partition(".")[0] == major]
        if not releases:
            raise
        why = f"{error.what}: {error.why}"
    if version not in (major, *releases):
        return dataclasses.replace(load(releases[-1]), note=f"in place of {version}; {why}")
    return Sources(_load(_path(version if version in releases else releases[-1])), None, why)


def recorded() -> tuple[Structure, ...]:
    """Return the recorded structures, oldest first."""
    return tuple(_load(path) for path in map(_path, tree.known_versions()) if path.is_file())


def keep() -> None:
    """Record the structure of each known version that is available."""
    for version in tree.known_versions():
        sources = tree.load(version)
        if sources.pinned:
            files.write(_path(version), structure.from_tree(sources).to_json())


def _path(version: str) -> Path:
    return settings.data_dir() / "recorded" / "sources" / f"{version}.json"


def _load(path: Path) -> Structure:
    try:
        return structure.load(path.read_text())
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LabError(str(path), f"not a structure ({error})", "restore it from git") from error
