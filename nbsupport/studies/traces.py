"""What happens in time: the traces of the lab's own trials, made now or recorded."""

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Self

from nbsupport.base import LabError
from nbsupport.lab import Lab, Trial
from nbsupport.lab.lab import environment
from nbsupport.trace import Trace, Tracer, open_trace
from nbsupport.trace.trace import copy_trace, recorded


class Traces:
    """The traces of a lab's trials. As a context it ends the debugger that it started.

    `source` is "live" (each program that `lab` builds runs, under LLDB and once more under a tracer
    of system calls), or "recorded": the traces that came with the project, which need neither
    compiler nor debugger. Raises `LabError` for another source.
    """

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

    def available(self, *programs: str, llvm: str, foreign: str = "*") -> tuple[str, ...]:
        """Return those of the `programs` that can be traced with main built by `llvm`.

        Of a live source it says what is left out, and why; of a recorded one, what was recorded
        with that `foreign`, by default with any.
        """
        if self._source == "recorded":
            return tuple(p for p in programs if any(recorded().glob(f"{p}-{llvm}-{foreign}-*")))
        return self._lab.available(programs=programs, llvm=llvm)

    def trace(self, program: str, llvm: str, foreign: str, order: str = "main-first") -> Trace:
        """Return the trace of a trial: `program`, its main by `llvm`, its library by `foreign`.

        `order` is that on the link line. Raises `LabError` for a trial that cannot be made, and
        `MissingError` without LLDB, or where it was not recorded.
        """
        name = f"{program}-{llvm}-{foreign}-{order}"
        if self._source == "recorded":
            return open_trace(recorded() / name)
        trace = self.trace_trial(self._lab.trial(program, llvm, foreign, order=order))
        # For `trace.keep`; another process may trace the same trial just now.
        copy_trace(trace.folder, self._lab.cache / "traces" / name)
        return trace

    def trace_trial(self, trial: Trial) -> Trace:
        """Return the trace of a `trial`, run now; raises `MissingError` without LLDB."""
        self._tracer = self._tracer or Tracer()
        folder = Path(tempfile.mkdtemp(prefix="pgo-lab-"))
        # Tables are read late, and by the notebook to its end.
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return self._tracer.run(
            [self._lab.linked(trial)],
            folder / "trace",
            env=environment(folder),
            cwd=folder,
            seconds=10,
            about={"raw_versions": [trial.runtime.raw_version, trial.foreign.raw_version]},
        )
