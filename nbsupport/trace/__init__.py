"""What happens in time: one run under LLDB, one under a tracer of system calls, as tables.

The notes' LLDB and system-call scripts asked what the allocator does while the profile is
written. A `Trace` answers for any program: events, pointers and whose they are, the record
at the crash, the raw profile's story.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import os
import platform
import selectors
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nbsupport import build, files, settings, toolchains
from nbsupport.crash.with_lldb import Lldb
from nbsupport.errors import LabError, MissingError
from nbsupport.trace import syscalls, tables, watch

if TYPE_CHECKING:
    import pandas as pd

    from nbsupport.trials import Lab


@dataclass(frozen=True)
class Trace:
    """A trace in its folder: `manifest` says of what, when and how it ended; tables are read late.

    Columns. events: n, time (seconds since the launch, the debugger's own included), thread,
    kind, function, module, caller, what, frames, arguments. pointers: name, of, how, value,
    owner. places: start, end, name, owner, rights. calls: as `syscalls.Call`. story: as
    `syscalls.Step`.
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
        return self.folder.parent == _recorded()


def open_trace(folder: Path) -> Trace:
    """Read a trace; one that was killed is put together from what it had seen."""
    path = folder / tables.MANIFEST
    if not path.is_file():
        raise MissingError(str(folder), "no trace there", f"pgo-lab trace -o {folder} -- PROGRAM")
    try:
        manifest = json.loads(path.read_text())
        if "ended" not in manifest:
            tables.assemble(folder, manifest)
        return Trace(folder, manifest)
    except ValueError as error:
        raise LabError(str(folder), f"trace.json is not JSON ({error})", "trace again") from error


class Tracer:
    """Traces programs with one LLDB, kept alive between them; a context manager.

    Raises `MissingError` where there is no LLDB, and `LabError` where it does not work.
    """

    def __init__(self, lldb: Path | None = None, cache: Path | None = None) -> None:
        found = lldb or toolchains.find_lldb(cache)
        if found is None:
            do = "pgo-lab toolchains --install 23, or install lldb"
            raise MissingError("LLDB", "there is none on this machine", do)
        threading.Thread(target=tables.prepare).start()
        self._lldb = Lldb(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lldb.close()

    def run(
        self,
        argv: Sequence[str | Path],
        folder: Path,
        *,
        env: Mapping[str, str],
        cwd: Path,
        seconds: float = 60.0,
        stdin: Path = Path(os.devnull),
    ) -> Trace:
        """Run a program twice, under LLDB and under strace, and keep the trace in a new folder.

        Its raw profiles go below the folder, by the name that `LLVM_PROFILE_FILE` in `env` ends
        with. Raises `LabError` for a program that cannot be started, and a folder in use.
        """
        program, folder = _program(argv[0]), folder.absolute()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise LabError(str(folder), "it is there, and not empty", "give a new folder")
        if not stdin.exists():
            raise LabError(str(stdin), "no such file to read from", "check --stdin")
        command = [str(program), *map(str, argv[1:])]
        manifest = {
            "program": program.name,
            "arguments": command[1:],
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "platform": f"{platform.system()} {platform.machine()}",
            "debugger": self._lldb.name,
        }
        name = Path(env.get("LLVM_PROFILE_FILE", "run.profraw")).name
        files.write(folder / tables.MANIFEST, json.dumps(manifest))
        for part in ("lldb", "strace"):
            (folder / part).mkdir(parents=True)

        def variables(part: str) -> dict[str, str]:
            return {**env, "LLVM_PROFILE_FILE": str((folder / part / name).absolute())}

        limits = dataclasses.replace(settings.TRACED, seconds=seconds)
        try:
            self._debug(command, folder, variables("lldb"), cwd, limits, stdin)
        except BaseException:
            if (folder / tables.EVENTS).stat().st_size:
                tables.assemble(folder, manifest)
            else:
                shutil.rmtree(folder)
            raise
        calls = syscalls.trace(command, cwd=cwd, env=variables("strace"), limits=limits)
        tables.assemble(folder, manifest, calls, name)
        return Trace(folder, manifest)

    def _debug(
        self,
        command: list[str],
        folder: Path,
        env: Mapping[str, str],
        cwd: Path,
        limits: settings.Limits,
        stdin: Path,
    ) -> None:
        plan = watch.plan({name: folder / f"{name}.bin" for name in tables.COPIES})
        with (folder / tables.EVENTS).open("w") as stream, _output(folder / "output.txt") as fifo:

            def see(event: Mapping[str, Any]) -> None:
                stream.write(json.dumps(event) + "\n")
                stream.flush()

            more = {"memory": limits.memory, "trace": plan}
            more |= {"stdin": str(stdin.absolute()), "output": str(fifo)}
            try:
                self._lldb.stop(command, cwd, env, limits.seconds, more, see)
            except LabError as error:
                do = "check that it is built for this machine, and that ptrace is allowed"
                raise LabError(error.what, error.why, do) from error


class Traces:
    """The traces of the lab's own trials: `live`, or `recorded` ones, which need no debugger."""

    def __init__(self, lab: Lab, source: str = "live") -> None:
        if source not in ("live", "recorded"):
            raise LabError(f"source {source!r}", "not known", "choose live or recorded")
        self._lab, self._source = lab, source
        self._tracer: Tracer | None = None

    def of(self, program: str, llvm: str, foreign: str, order: str = "main-first") -> Trace:
        """Return the trace of a trial."""
        name = f"{program}-{llvm}-{foreign}-{order}"
        if self._source == "recorded":
            return open_trace(_recorded() / name)
        trial = self._lab.trial(program, llvm, foreign, order=order)
        self._tracer = self._tracer or Tracer(cache=self._lab.cache)
        folder = self._lab.cache / "traces" / name
        shutil.rmtree(folder, ignore_errors=True)
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "LLVM_PROFILE_FILE": "run.profraw"}
        with tempfile.TemporaryDirectory(prefix="pgo-lab-") as empty:
            linked = build.linked(trial, self._lab.cache)
            return self._tracer.run([linked], folder, env=env, cwd=Path(empty), seconds=10)


def keep(cache: Path) -> None:
    """Make the live traces in a cache the recorded ones, without what only this machine needs."""
    for folder in sorted((cache / "traces").glob("*/")):
        for name in (tables.MANIFEST, *(f"{table}.parquet" for table in tables.TABLES)):
            files.write(_recorded() / folder.name / name, (folder / name).read_bytes())


def _recorded() -> Path:
    return settings.data_dir() / "recorded" / "traces"


def _program(name: str | Path) -> Path:
    """Return the path of a program that LLDB can start."""
    found = shutil.which(name)
    if found is None:
        path = Path(name)
        why = "no such program" if not path.exists() else "not executable, or not a file"
        raise MissingError(str(name), why, "check the path and its permissions")
    with Path(found).open("rb") as file:
        if file.read(2) == b"#!":
            do = "trace its interpreter: pgo-lab trace -o DIR -- INTERPRETER SCRIPT"
            raise LabError(str(name), "it is a script, not a program", do)
    return Path(found).absolute()


@contextlib.contextmanager
def _output(kept: Path) -> Iterator[Path]:
    """Yield a pipe's path; of what a program writes there the first is kept, the rest dropped."""
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as folder, kept.open("wb") as out:
        fifo = Path(folder) / "output"
        os.mkfifo(fifo)
        # Opened for both, it never ends while the program has not opened it yet.
        descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        over = threading.Event()

        def drain() -> None:
            room = settings.PROGRAM.output
            with selectors.DefaultSelector() as selector:
                selector.register(descriptor, selectors.EVENT_READ)
                while selector.select(0.02) or not over.is_set():
                    with contextlib.suppress(BlockingIOError):
                        chunk = os.read(descriptor, 1 << 16)[:room]
                        room -= len(chunk)
                        out.write(chunk)

        reader = threading.Thread(target=drain, daemon=True)
        reader.start()
        try:
            yield fifo
        finally:
            over.set()
            reader.join()
            os.close(descriptor)
