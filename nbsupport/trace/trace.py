"""A trace on disk: its manifest, its tables, and what they come to."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.profile import layout
from nbsupport.trace import memory, tables

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Trace:
    """A trace in its folder: `manifest` says of what, when and how it ended; tables are read late.

    Columns. events: n, time (seconds since the launch, the debugger's own included), thread,
    kind, function, module, caller, what, frames, arguments. pointers: name, of, how, value,
    owner. records: n (of the event), byte, function, field, read, written. places: start, end,
    name, owner, rights. calls: as `syscalls.Call`. story: as `syscalls.Step`.
    """

    folder: Path
    manifest: Mapping[str, Any]

    def table(self, name: str) -> pd.DataFrame:
        """Return a table; raises `LabError` when it is not there, or not whole."""
        import pandas as pd  # noqa: PLC0415 - a quarter of a second, only here

        try:
            return pd.read_parquet(self.folder / f"{name}.parquet")
        except (OSError, ValueError) as error:
            raise LabError(str(self.folder), f"no table {name} ({error})", "trace again") from error

    @functools.cached_property
    def events(self) -> pd.DataFrame:
        """What was seen, in order."""
        return self.table("events")

    @property
    def lost(self) -> int:
        """How many calls free, unmap or protect memory that holds profile data."""
        return int(self.events["what"].str.contains(memory.HOLDS).sum())

    @property
    def elsewhere(self) -> int:
        """How many pointers of the profile, as passed and as written, lead out of its sections."""
        found = self.table("pointers")
        own = found["owner"].str.contains("__llvm_prf")
        return int((~own & (found["how"] != "read")).sum())

    @property
    def misread(self) -> str:
        """The field, as it was written, that was taken for `Values` at the crash; "" for none."""
        fields = self.manifest.get("record", {}).get("fields", ())
        return next((written for _, read, written in fields if read.startswith("Values")), "")

    @property
    def mixed(self) -> bool:
        """Whether main and library of a lab's trial have records of different sizes."""
        one, other = (version or 0 for version in self.manifest["raw_versions"])
        return bool(other) and not layout.same_stride(one, other)

    @property
    def last_call(self) -> str:
        """The kind of the last call before a crash, "none" without one."""
        kinds = list(self.events["kind"])
        return kinds[-2] if kinds[-1:] == ["crash"] and len(kinds) > 1 else "none"

    @property
    def where(self) -> str:
        """Function, offset and record of a crash, in words that are the same in each run."""
        if "crash" not in self.manifest:
            return "nowhere"
        frame = self.manifest["crash"]["frames"][0]
        record = self.manifest.get("record", {})
        read = f", record at byte {record['offset']}" if record else ""
        return f"{frame['function'] or '?'}+{frame['offset']}{read}"

    @property
    def exits(self) -> tuple[str, str]:
        """Exit handlers in the reverse order of their registration, and in that of their calls."""
        events = self.events
        registered = list(events.loc[events["kind"] == "registered", "what"])[::-1]
        called = list(events.loc[events["kind"] == "handler", "function"])
        lists = ([n for n in registered if n in called], [n for n in called if n in registered])
        first, second = (", ".join(names) for names in lists)
        return first, second

    @property
    def output(self) -> str:
        """What the program printed, the first of it."""
        path = self.folder / tables.OUTPUT
        return path.read_text(errors="replace") if path.is_file() else ""

    @property
    def provenance(self) -> str:
        """Whether it is live; of a recording when, where and by which tools it was made."""
        if not self.recorded:
            return "traced on this machine just now"
        told = self.manifest
        when, tools = told["started"].partition("T")[0], (told["debugger"], told.get("tracer"))
        return f"a RECORDING of {when}, {told['platform']}, by {' and '.join(filter(None, tools))}"

    def summary(self) -> tuple[str, ...]:
        """Return what came of it, in lines for a terminal."""
        told = self.manifest
        lines = [f"{told['program']}: {told['ended']}"]
        if dead := told.get("crash"):
            where = " < ".join(frame["function"] or "?" for frame in dead["frames"][:5])
            lines[0] += f" in {where}"
            if dead["fault_address"] is not None:
                how = dead["fault_address_from"]
                lines.append(
                    f"at {dead['fault_address']:#x} (from the {how}): {dead['instruction']}"
                )
        if record := told.get("record"):
            lines.append(f"reading the record of {record['function'] or 'no function'}:")
            lines += [f"  {at:>6}  {read:40} {written}" for at, read, written in record["fields"]]
        if told.get("empty"):
            lines.append(f"the raw profile is empty: {told['empty']}")
        return (*lines, *(f"note: {note}" for note in told["notes"]), f"tables: {self.folder}")

    @property
    def recorded(self) -> bool:
        """Whether it came with the project, and was not made on this machine now."""
        return self.folder.parent == recorded()


def open_trace(folder: Path) -> Trace:
    """Read a trace; one that was killed is put together from what it had seen."""
    path = folder / tables.MANIFEST
    if not path.is_file():
        raise MissingError(str(folder), "no trace there", f"pgo-lab trace -o {folder} -- PROGRAM")
    try:
        manifest = json.loads(path.read_text())
        if "ended" not in manifest:
            tables.assemble(folder, manifest)
            manifest = json.loads(path.read_text())
        return Trace(folder, manifest)
    except ValueError as error:
        raise LabError(str(folder), f"trace.json is not JSON ({error})", "trace again") from error


def recorded() -> Path:
    """Return the folder of the traces that came with the project."""
    return settings.data_dir() / "recorded" / "traces"


def keep(cache: Path) -> None:
    """Make the live traces in a cache the recorded ones, without what only this machine needs."""
    for folder in sorted((cache / "traces").glob("[!.]*/")):
        copy_trace(folder, recorded() / folder.name)


def copy_trace(folder: Path, target: Path) -> None:
    """Copy a trace, without what only this machine needs."""
    for name in (tables.MANIFEST, tables.OUTPUT, *(f"{table}.parquet" for table in tables.TABLES)):
        files.write(target / name, (folder / name).read_bytes())
