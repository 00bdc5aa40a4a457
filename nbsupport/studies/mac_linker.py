"""What is publicly known of Apple's linkers, beside LLVM's, and which step on a Mac decides it.

It is data (`data/macos/linker.toml`), from sources that it names. Nothing is run.
"""

from dataclasses import dataclass

from nbsupport.base import files, settings
from nbsupport.show import shown


@dataclass(frozen=True)
class LinkerQuestion:
    """A question and what three linkers do; the fields are those that `linker.toml` explains."""

    question: str
    ld64: str
    ld_prime: str
    lld: str
    sources: tuple[str, ...]
    decided_by: str
    reads: str


def load() -> dict[str, LinkerQuestion]:
    """Return the questions by their names; raises `LabError` for an entry that is not whole."""
    path = settings.data_dir() / "macos" / "linker.toml"
    entries = files.read_toml(path).items()
    return {name: files.load(LinkerQuestion, entry, path.name) for name, entry in entries}


def table() -> shown.Shown:
    """Show what each linker does, who says so, and which step of `pgo-lab mac-check` decides it."""
    heads = ("question", "ld64", "ld-prime", "ld64.lld", "sources", "decided on a Mac by")
    rows = []
    for row in load().values():
        decided = f"mac-check, {row.decided_by}: {row.reads}"
        linkers = (row.ld64, row.ld_prime, row.lld)
        rows.append((row.question, *linkers, "; ".join(row.sources), decided))
    return shown.table(heads, rows)
