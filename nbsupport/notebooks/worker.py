"""One notebook in a process of its own: the job, its process, and how that is ended.

papermill works here only. A process, because a kernel may die and a notebook may hang; a session of
its own, so that Ctrl-C reaches us first and we end it in good order.
"""

import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from nbsupport.base import process, progress
from nbsupport.base.errors import first_line

#: How long an interrupted kernel has to end its children and remove its folders (seconds).
_GRACE = 5.0
#: How long a notebook may take besides its cells: kernel start, saving, kernel end (seconds).
_OVERHEAD = 120.0

#: A kernel takes ports that were free a moment ago; seldom, another one is faster, and it
#: dies before its first cell. Then it is started again.
_NOT_STARTED, _STARTS = "Kernel died before replying to kernel_info", 3


class StoppedError(Exception):
    """`Workers.stop` came before this notebook was done."""


@dataclass(frozen=True)
class NotebookJob:
    """A notebook to execute: `folder` holds input.ipynb and receives output.ipynb.

    The kernel runs in `cwd`; `timeout` (seconds) is for each cell, `cells` their number. `tags`
    say what machine can do it (for a cluster).
    """

    folder: Path
    cwd: Path
    parameters: Mapping[str, object]
    timeout: float
    cells: int
    tags: Mapping[str, int] = field(default_factory=dict)


class Workers:
    """The processes that execute notebooks, several at once; they end together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: set[process.Child] = set()
        self._stopped = False

    def execute(self, job: NotebookJob) -> str | None:
        """Execute a notebook to its end; return what went wrong, in one line, or None.

        Raises `StoppedError` when `stop` ended it.
        """
        (job.folder / "job.json").write_text(json.dumps(asdict(job), default=str))
        env = process.environment(_environment(job.folder))
        command = (sys.executable, "-m", __name__, str(job.folder))
        with (job.folder / "log").open("wb") as log:
            with self._lock:
                if self._stopped:
                    raise StoppedError
                child = process.Child(command, cwd=job.folder, env=env, output=log.fileno())
                self._live.add(child)
            try:
                code = child.wait(job.timeout * max(job.cells, 1) + _OVERHEAD)
            finally:
                child.end()
                with self._lock:
                    self._live.discard(child)
        if self._stopped:
            raise StoppedError
        if code is None:
            return "it hangs, though none of its cells does; it was ended"
        return _answer(job.folder, code)

    def stop(self) -> None:
        """End every process and its kernel, and start no more.

        As Jupyter interrupts: a kernel that hears of it ends its own children first.
        """
        with self._lock:
            self._stopped = True
            families = {child: child.family() for child in self._live}
        for member in itertools.chain(*families.values()):
            with contextlib.suppress(psutil.Error):
                if any("ipykernel_launcher" in word for word in member.cmdline()):
                    member.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _GRACE
        for child in families:
            child.wait(deadline - time.monotonic())
        for child, family in families.items():
            child.end(family)


def _environment(folder: Path) -> dict[str, str]:
    """Return what makes a kernel the same for everyone: no progress, no settings of the user."""
    return {
        progress.QUIET: "1",
        "JUPYTER_PREFER_ENV_PATH": "1",  # python3 is this environment's, not the user's
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a debugger's warning on standard error
    }


def _answer(folder: Path, code: int) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        error: str | None = json.loads((folder / "answer.json").read_text())["error"]
        return error
    if code < 0:
        return f"the process that executes it was ended by {signal.Signals(-code).name}"
    lines = (folder / "log").read_text(errors="replace").strip().splitlines() or ["no message"]
    return f"papermill failed: {first_line(lines[-1])}"


def _leave_with(parent: int) -> None:
    """End this process when its parent has ended, however that was; its kernel then ends, too."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _work(folder: Path) -> None:
    """Execute the job in a folder; what went wrong is in answer.json (in the child)."""
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    job = json.loads((folder / "job.json").read_text())
    for _ in range(_STARTS):
        error = _papermill(job)
        if error is None or _NOT_STARTED not in error:
            break
    (folder / "answer.json").write_text(json.dumps({"error": error}))


def _papermill(job: Mapping[str, Any]) -> str | None:
    import papermill  # noqa: PLC0415 - only the child needs it
    from nbclient import exceptions  # noqa: PLC0415

    number = 0  # of the cell that runs, as its label In [number] says

    def count(cell: Mapping[str, Any], **_: object) -> None:
        nonlocal number
        if cell["cell_type"] == "code" and cell["source"].strip():
            number += 1

    try:
        # Relative paths: papermill takes braces in a path for parameters.
        papermill.execute_notebook(
            "input.ipynb",
            "output.ipynb",
            job["parameters"],
            kernel_name="python3",
            language="python",
            cwd=job["cwd"],
            execution_timeout=job["timeout"],
            shutdown_kernel="immediate",  # the polite way stalls for seconds, now and then
            progress_bar=False,
            on_cell_start=count,
        )
    except papermill.PapermillExecutionError as error:
        message = first_line(papermill.exceptions.strip_color(f"{error.ename}: {error.evalue}"))
        return f"cell {error.exec_count}: {message}"
    except exceptions.DeadKernelError:
        return f"cell {number}: the kernel died"
    except exceptions.CellTimeoutError:
        return f"cell {number}: not done after {job['timeout']:g} s"
    except Exception as error:  # whatever it is, this notebook failed of it
        return first_line(f"{type(error).__name__}: {error}")
    return None


if __name__ == "__main__":
    process.heed_interrupts()
    _work(Path(sys.argv[1]))
