"""A trace on disk: its manifest, its tables, and what they come to."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.profile import layout
from nbsupport.trace import tables
from nbsupport.trace.memory import HOLDS, MemoryMap

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Trace:
    """A trace in its `folder`: what one run did, in tables that are read when they are asked for.

    `manifest` says of what the trace is, when it was made and how the run ended.
    `tables.TABLES` has the columns: `n` is an event's number, `time` is in seconds since the
    launch, the debugger's own included; places, pointers, calls and story are as `memory.Place`,
    `memory.Pointer`, `syscalls.Call` and `syscalls.ProfileStep`.
    """

    folder: Path
    manifest: Mapping[str, Any]
    _rows: dict[str, Sequence[Any]] = field(init=False, compare=False, default_factory=dict)

    def table(self, name: str) -> pd.DataFrame:
        """Return a table; raises `LabError` when it is not there, or not whole."""
        import pandas as pd  # noqa: PLC0415 - a quarter of a second, only here

        try:
            return pd.read_parquet(self.folder / f"{name}.parquet")
        except (OSError, ValueError) as error:
            raise LabError(str(self.folder), f"no table {name} ({error})", "trace again") from error

    def rows(self, name: str) -> Sequence[Any]:
        """Return the rows of a table as named tuples; each table is read once."""
        if name not in self._rows:
            self._rows[name] = list(self.table(name).itertuples(index=False))
        return self._rows[name]

    @functools.cached_property
    def memory_map(self) -> MemoryMap:
        """Whose memory was where, in bands."""
        return MemoryMap(self.rows("places"), self.rows("pointers"))

    @functools.cached_property
    def events(self) -> pd.DataFrame:
        """What was seen, in order."""
        return self.table("events")

    @property
    def lost(self) -> int:
        """How many calls free, unmap or protect memory that holds profile data."""
        return sum(HOLDS in event.what for event in self.rows("events"))

    @property
    def elsewhere(self) -> int:
        """How many pointers of the profile, as passed and as written, lead out of its sections."""
        followed = (pointer for pointer in self.rows("pointers") if pointer.how != "read")
        return sum("__llvm_prf" not in pointer.owner for pointer in followed)

    @property
    def misread(self) -> str:
        """The field, as it was written, that was taken for `Values` at the crash; "" for none."""
        fields = self.manifest.get("record", {}).get("fields", ())
        return next((written for _, read, written in fields if read.startswith("Values")), "")

    @property
    def mixed(self) -> bool:
        """Whether main and library of a lab's trial have records of different sizes."""
        main, library = (version or 0 for version in self.manifest["raw_versions"])
        return bool(library) and not layout.same_stride(main, library)

    @property
    def last_call(self) -> str:
        """The kind of the last call before a crash, "none" without one."""
        *_, before, last = ["none", "none", *(event.kind for event in self.rows("events"))]
        return before if last == "crash" else "none"

    @property
    def where(self) -> str:
        """Function, offset and record of a crash, in words that are the same in each run."""
        if "crash" not in self.manifest:
            return "nowhere"
        frame = self.manifest["crash"]["frames"][0]
        record = self.manifest.get("record")
        read = f", record at byte {record['offset']}" if record else ""
        return f"{frame['function'] or '?'}+{frame['offset']}{read}"

    @property
    def exits(self) -> tuple[str, str]:
        """Exit handlers in the reverse order of their registration, and in that of their calls."""
        events = self.rows("events")
        registered = [event.what for event in reversed(events) if event.kind == "registered"]
        called = [event.function for event in events if event.kind == "handler"]
        return (
            ", ".join(name for name in registered if name in called),
            ", ".join(name for name in called if name in registered),
        )

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
        about = self.manifest
        tools = " and ".join(filter(None, (about["debugger"], about.get("tracer"))))
        return f"a RECORDING of {about['started'][:10]}, {about['platform']}, by {tools}"

    def summary(self) -> tuple[str, ...]:
        """Return what came of it, in lines for a terminal."""
        manifest = self.manifest
        lines = [f"{manifest['program']}: {manifest['ended']}"]
        start = manifest.get("started_by")
        if crash := manifest.get("crash"):
            lines[0] += f" in {' < '.join(f['function'] or '?' for f in crash['frames'][:5])}"
            if crash["fault_address"] is not None:
                how, instruction = crash["fault_address_from"], crash["instruction"]
                lines.append(f"at {crash['fault_address']:#x} (from the {how}): {instruction}")
        if record := manifest.get("record"):
            lines.append(f"reading the record of {record['function'] or 'no function'}:")
            lines += [f"  {byte:>6}  {value:40} {what}" for byte, value, what in record["fields"]]
        if manifest.get("empty"):
            lines.append(f"the raw profile is empty: {manifest['empty']}")
        first = [f"the first instrumented program that is started by: {start}"] if start else []
        notes = (f"note: {note}" for note in (*first, *manifest["notes"]))
        return (*lines, *notes, f"tables: {self.folder}")

    @property
    def recorded(self) -> bool:
        """Whether it came with the project, and was not made on this machine now."""
        return self.folder.parent == recorded()


def open_trace(folder: Path) -> Trace:
    """Read the trace in a folder; one that was killed is put together from what it had seen.

    Raises `LabError` where there is none, or its manifest is not whole.
    """
    path = folder / tables.MANIFEST
    if not path.is_file():
        raise MissingError(str(folder), "no trace there", f"pgo-lab trace -o {folder} -- PROGRAM")
    manifest = files.read_json(path, "trace again")
    if "ended" not in manifest:
        tables.assemble(folder, manifest)
        manifest = files.read_json(path)
    return Trace(folder, manifest)


def recorded() -> Path:
    """Return the folder of the traces that came with the project."""
    return settings.data_dir() / "recorded" / "traces"


def keep(cache: Path) -> None:
    """Make the live traces in a cache the recorded ones."""
    for folder in sorted((cache / "traces").glob("[!.]*/")):
        copy_trace(folder, recorded() / folder.name)


def copy_trace(folder: Path, target: Path) -> None:
    """Copy a trace, without what only this machine needs."""
    for name in (tables.MANIFEST, tables.OUTPUT, *(f"{table}.parquet" for table in tables.TABLES)):
        files.write(target / name, (folder / name).read_bytes())
