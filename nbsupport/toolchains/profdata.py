"""llvm-profdata: which one reads a profile, and what it makes of profiles.

A raw profile is read by the llvm-profdata of its raw version, an indexed one by that of the LLVM
that made it and by newer ones, a text profile by each. Source: RawInstrProfReader::readHeader,
IndexedInstrProfReader, TextInstrProfReader (InstrProfReader.cpp), ProfVersion (InstrProf.h).
"""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbsupport.base import files, process, settings
from nbsupport.base.errors import MissingError
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain

#: A function of a profile: its name and structural hash, as llvm-profdata prints them.
Key = tuple[str, int]


@dataclass(frozen=True)
class TextRecord:
    """A function of a text profile: its counters, and its value sites and bitmaps as lines."""

    counters: tuple[int, ...]
    rest: tuple[str, ...]

    @property
    def values(self) -> int:
        """How many values its value sites saw: each is a line `VALUE:COUNT`.

        Source: InstrProfWriter::writeRecordInText (InstrProfWriter.cpp).
        """
        return sum(re.search(r":\d+$", line) is not None for line in self.rest)

    @property
    def sites(self) -> list[tuple[int, list[int]]]:
        """Each kind of its value sites, with how many values each site of it saw.

        Source: IPVK_* (InstrProfData.inc) for the kinds, writeRecordInText for the lines. It has
        none where it has bitmaps: only front-end instrumentation writes these.
        """
        lines = iter(() if self.rest and self.rest[0].startswith("$") else self.rest)
        kinds = []
        for _ in range(int(next(lines, 0))):
            kind, number = int(next(lines)), int(next(lines))
            values = []
            for _ in range(number):
                values.append(int(next(lines)))
                for _ in range(values[-1]):
                    next(lines)
            kinds.append((kind, values))
        return kinds


def tool(toolchain: Toolchain) -> Path:
    """Return an llvm-profdata that reads what `toolchain` writes: its own, or one of its LLVM.

    Raises `MissingError` where there is none.
    """
    if toolchain.llvm_profdata:
        return toolchain.llvm_profdata
    for other in sorted(discovery.discover(), key=discovery.rank):
        if other.llvm_profdata and other.major == toolchain.major and other.provider != "apple":
            return other.llvm_profdata
    how = discovery.how_to_get(toolchain.major)
    raise MissingError(f"llvm-profdata for {toolchain.name}", "not found", how)


def owners(raw_version: int | None = None) -> list[Toolchain]:
    """Return the toolchains with an llvm-profdata, oldest LLVM first; those of one raw version."""
    toolchains = [toolchain for toolchain in discovery.discover() if toolchain.llvm_profdata]
    return [t for t in toolchains if raw_version in (None, t.raw_version)]


def as_text(profdata: Path, profile: Path) -> process.Finished:
    """Run `profdata`, an llvm-profdata, on one profile: what it prints is the profile as text."""
    merge = (profdata, "merge", "-text", "-o", "-", profile)
    # The text of a whole project is larger than what a compiler says.
    return process.run(merge, cwd=profile.parent, limits=settings.TRACED)


def merge(profdata: Path, profiles: Sequence[Path], out: Path) -> process.Finished:
    """Merge profiles by `profdata`, an llvm-profdata, into the file `out`, and return how it ended.

    A text profile where `out` ends with `.proftext`, else an indexed one. Nothing is written where
    it fails; a full disk is an OSError.
    """
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        merged = Path(name, "merged")
        form = ["-text"] if out.suffix == ".proftext" else []
        inputs = [path.absolute() for path in profiles]
        done = files.run_tool([profdata, "merge", *form, "-o", merged, *inputs], Path(name))
        if done.ok:
            files.write(out, merged.read_bytes())
    return done


def parse(text: str) -> dict[Key, TextRecord]:
    """Read llvm-profdata's text format (`merge -text`): every function, by name and hash.

    Source: TextInstrProfReader::readNextRecord (InstrProfReader.cpp): a block is name, hash,
    number of counters, counters, value sites, bitmaps; `#` starts a comment, `:` a header line.
    """
    records = {}
    for block in text.split("\n\n"):
        if ":temporal_prof_traces" in block:  # traces stand where functions do
            continue
        lines = [line for line in block.splitlines() if line and line[0] not in "#:"]
        if len(lines) >= 3:
            end = 3 + int(lines[2])
            counters = tuple(int(number) for number in lines[3:end])
            records[lines[0], int(lines[1], 0)] = TextRecord(counters, tuple(lines[end:]))
    return records
