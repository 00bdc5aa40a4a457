"""What a rescue came to."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Lost from a file, and where value counters are on the heap.
VALUES = "what its value sites saw (indirect calls are not promoted, memory operations not sized)"


@dataclass(frozen=True)
class RescuedPart:
    """What records of one size (bytes) hold: how many functions, and the profile of these alone.

    `raw_versions` are those with such records; `indexed` says which LLVM made the profile, and
    so which are too old for it (None: a text profile, for any llvm-profdata).
    """

    record_size: int
    raw_versions: tuple[int, ...]
    functions: int
    path: Path
    indexed: int | None


@dataclass(frozen=True)
class RescuedProcess:
    """A process that was followed: its number, what ran in it and how that ended.

    `profile` says where its counts are from: its `own` file, its `memory`, or `none`.
    """

    pid: int
    program: str
    ending: str
    profile: str


@dataclass(frozen=True)
class Rescued:
    """A rescued profile: `path` holds all functions, each of `parts` those of one layout.

    `healthy` says that nothing had to be rescued, and value profiles are in it, too. `lost` is
    what is not in it, `notes` is what else there is to say, in sentences. `processes` are those
    instrumented that a command has started (none under LLDB, which follows one alone); `distinct`
    is how many functions there are where those of two layouts may be the same (0: they are not).
    `code` is the exit code of what ran, or minus its signal; `stopped`: a signal to us ended it.
    """

    path: Path
    parts: tuple[RescuedPart, ...]
    healthy: bool
    lost: tuple[str, ...]
    notes: tuple[str, ...]
    processes: tuple[RescuedProcess, ...] = ()
    distinct: int = 0
    code: int = 0
    stopped: bool = False

    @property
    def functions(self) -> int:
        """How many functions there are."""
        return self.distinct or sum(part.functions for part in self.parts)

    def __str__(self) -> str:
        return self.lines()[0]

    def lines(self) -> list[str]:
        """Return what `pgo-lab rescue` says."""
        lines = [f"{self.path}: {self.functions} functions"]
        several = len(self.parts) > 1
        if several:
            lines[0] += ", for the whole build; a compiler may also be given its own part alone:"
        for part in self.parts if several else ():
            raw = " or ".join(map(str, part.raw_versions)) or "unknown"
            readers = f"for LLVM {part.indexed} and newer" if part.indexed else "a text profile"
            lines.append(f"{part.path}: {part.functions} functions of raw version {raw}, {readers}")
        lines += _programs(self.processes) if len(self.processes) > 1 else []
        lines += [f"note: {note}" for note in self.notes]
        return lines + [f"lost: {what}" for what in self.lost]

    def to_json(self) -> dict[str, Any]:
        """Return the document of `pgo-lab rescue --json`."""
        return {
            "path": str(self.path),
            "functions": self.functions,
            "healthy": self.healthy,
            "parts": [{**vars(part), "path": str(part.path)} for part in self.parts],
            "lost": list(self.lost),
            "notes": list(self.notes),
            "processes": [vars(process) for process in self.processes],
        }


def _programs(processes: tuple[RescuedProcess, ...]) -> list[str]:
    """Say of each program how often it ran, whose profiles are whose, and how it ended."""
    words = {"own": "wrote it themselves", "memory": "saved from memory", "none": "lost"}
    lines = []
    for program in dict.fromkeys(process.program for process in processes):
        runs = [process for process in processes if process.program == program]
        counts = Counter(words[process.profile] for process in runs)
        counts += Counter(f"ended by {p.ending}" for p in runs if p.ending != "exit code 0")
        parts = [f"processes: {len(runs)}", *(f"{what}: {n}" for what, n in counts.items())]
        lines.append(f"{program}: {', '.join(parts)}")
    return lines
