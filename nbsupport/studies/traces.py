"""What happens in time: one run under LLDB, one under a tracer of system calls, as tables.

The notes' LLDB and system-call scripts asked what the allocator does while the profile is
written. A `Trace` answers for any program: events, pointers and whose they are, the record
at the crash, the raw profile's story.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nbsupport.base.errors import LabError
from nbsupport.trace.trace import Trace, _copy, keep, open_trace, recorded
from nbsupport.trace.tracer import Tracer

if TYPE_CHECKING:
    from nbsupport.lab.lab import Lab

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

    def trace(self, program: str, llvm: str, foreign: str, order: str = "main-first") -> Trace:
        """Return the trace of a trial."""
        name = f"{program}-{llvm}-{foreign}-{order}"
        if self._source == "recorded":
            return open_trace(recorded() / name)
        from nbsupport.lab import build, lab  # noqa: PLC0415 - `pgo-lab trace` builds nothing

        trial = self._lab.trial(program, llvm, foreign, order=order)
        self._tracer = self._tracer or Tracer(cache=self._lab.cache)
        folder = Path(tempfile.mkdtemp(prefix="pgo-lab-"))
        # Tables are read late, and by the notebook to its end.
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        made = self._tracer.run(
            [build.linked(trial, self._lab.cache)],
            folder / "trace",
            env=lab.environment(folder),
            cwd=folder,
            seconds=10,
            about={"raw_versions": [trial.runtime.raw_version, trial.foreign.raw_version]},
        )
        # For `keep`; another process may trace the same trial just now.
        _copy(folder / "trace", self._lab.cache / "traces" / name)
        return made
