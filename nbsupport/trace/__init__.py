"""What happens in time: one run under LLDB, one under a tracer of system calls, as tables.

The notes' LLDB and system-call scripts asked what the allocator does while the profile is
written. A `Trace` answers for any program: events, pointers and whose they are, the record
at the crash, the raw profile's story.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nbsupport import files
from nbsupport.errors import LabError
from nbsupport.trace import tables
from nbsupport.trace.kept import Trace, open_trace, recorded
from nbsupport.trace.tracer import Tracer

if TYPE_CHECKING:
    from nbsupport.trials import Lab

__all__ = ["Trace", "Tracer", "Traces", "keep", "open_trace"]


class Traces:
    """The traces of the lab's own trials: `live`, or `recorded` ones, which need no debugger."""

    def __init__(self, lab: Lab, source: str = "live") -> None:
        if source not in ("live", "recorded"):
            raise LabError(f"source {source!r}", "not known", "choose live or recorded")
        self._lab, self._source = lab, source
        self._tracer: Tracer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tracer:
            self._tracer.__exit__()

    def available(self, *programs: str, llvm: str) -> tuple[str, ...]:
        """Return those of the programs that can be had; says what is left out, and why."""
        if self._source == "recorded":
            return tuple(p for p in programs if any(recorded().glob(f"{p}-{llvm}-*")))
        return self._lab.available(programs=programs, llvm=llvm)

    def of(self, program: str, llvm: str, foreign: str, order: str = "main-first") -> Trace:
        """Return the trace of a trial."""
        name = f"{program}-{llvm}-{foreign}-{order}"
        if self._source == "recorded":
            return open_trace(recorded() / name)
        from nbsupport import build, lab  # noqa: PLC0415 - `pgo-lab trace` builds nothing

        trial = self._lab.trial(program, llvm, foreign, order=order)
        self._tracer = self._tracer or Tracer(cache=self._lab.cache)
        kept = self._lab.cache / "traces" / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".staging-") as staging:
            linked, folder = build.linked(trial, self._lab.cache), Path(staging) / "trace"
            versions = [trial.runtime.raw_version, trial.foreign.raw_version]
            made = self._tracer.run(
                [linked],
                folder,
                env=lab.environment(Path(staging)),
                cwd=Path(staging),
                seconds=10,
                about={"raw_versions": versions},
            )
            if kept.exists():
                files.remove(kept)
            folder.rename(kept)
        return Trace(kept, made.manifest)


def keep(cache: Path) -> None:
    """Make the live traces in a cache the recorded ones, without what only this machine needs."""
    for folder in sorted((cache / "traces").glob("[!.]*/")):
        for name in (
            tables.MANIFEST,
            tables.OUTPUT,
            *(f"{table}.parquet" for table in tables.TABLES),
        ):
            files.write(recorded() / folder.name / name, (folder / name).read_bytes())
