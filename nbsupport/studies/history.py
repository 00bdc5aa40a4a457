"""What happened on Macs, as the public record has it: in the user's repository, and to others.

It is data (`data/seed/history.toml`), from commits and threads that it names. Nothing is run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nbsupport.base import files, settings
from nbsupport.show import shown


@dataclass(frozen=True)
class RepositoryStep:
    """A state of the user's repository; the fields are those that `history.toml` explains."""

    when: str
    commit: str
    cc: str
    mirrored: str
    rustc: str
    allocator: str
    pgo: str


@dataclass(frozen=True)
class MacReport:
    """What others met on Macs; the fields are those that `history.toml` explains."""

    source: str
    saw: str
    where: str
    supports: str
    lacks: str


def load() -> tuple[tuple[RepositoryStep, ...], tuple[MacReport, ...]]:
    """Return the steps of the user's repository, oldest first, and the reports of others."""
    path = settings.data_dir() / "seed" / "history.toml"
    entries = files.read_toml(path)
    steps = tuple(files.load(RepositoryStep, entry, path.name) for entry in entries["step"])
    return steps, tuple(files.load(MacReport, entry, path.name) for entry in entries["report"])


def table(steps: Sequence[RepositoryStep]) -> shown.Shown:
    """Show the states of the user's repository, what changed with each beside the others."""
    heads = ("in 2025", "commit", "cc", "hands on flags", "rustc", "allocator", "PGO on macOS")
    rows = []
    for step in steps:
        versions = (step.cc, step.mirrored, step.rustc)
        rows.append((step.when, step.commit, *versions, step.allocator, step.pgo))
    return shown.table(heads, rows)


def show_reports(reports: Sequence[MacReport]) -> shown.Shown:
    """Show what others met on Macs, and what of it supports our explanation, and what does not."""
    heads = ("report", "what they saw", "where", "what it supports", "what it does not show")
    rows = [(one.source, one.saw, one.where, one.supports, one.lacks) for one in reports]
    return shown.table(heads, rows)
