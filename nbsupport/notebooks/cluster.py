r"""Notebooks executed by a Dask distributed cluster, in place of processes of this machine.

Start a scheduler, and on each machine, from a checkout of the same commit, a worker::

    dask scheduler --no-dashboard
    dask worker tcp://SCHEDULER:8786 --no-dashboard --nthreads 2 --memory-limit 0 \
        --resources "$(pgo-lab dev offer)"

A job's tag ``llvm=23`` is the resource ``llvm:23`` here: Dask's ``--resources`` splits at each
``=`` (distributed/cli/dask_worker.py, `main`). Whoever reaches the scheduler can run anything
on the workers: keep it on loopback or a private network, or use Dask's TLS.
"""

import contextlib
import json
import logging
import os
import platform
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import distributed
from distributed import CancelledError, Client, Future, Status

from nbsupport import __version__
from nbsupport.base import progress, settings
from nbsupport.base.errors import LabError, first_line
from nbsupport.notebooks import batch
from nbsupport.notebooks.worker import NotebookJob, StoppedError, Workers
from nbsupport.toolchains import discovery

#: Seconds: for a scheduler to answer, between looks at who suits a job, and at who still wants it.
_CONNECT, _LOOK, _TICK = 8.0, 5.0, 0.5


class DaskWorkers(Workers):
    """Workers of a Dask cluster that execute notebooks.

    Raises `LabError` where no scheduler answers. A job that no worker suits is said once, and
    fails after `patience` seconds of that. A lost worker's tasks are done elsewhere; one lost
    more than `distributed.scheduler.allowed-failures` (3) times fails. `stop` it in the end.
    """

    def __init__(self, address: str, *, patience: float = 600.0) -> None:
        super().__init__()
        self._client = _connected(address)
        self._address, self._patience = address, patience
        self._messages: set[str] = set()

    def execute(self, job: NotebookJob) -> str | None:
        """Execute a notebook on a worker (one that reads the run's folder: here, where that is)."""
        if "run_folder" in job.parameters:
            return super().execute(job)
        request = {
            "project": identity(),
            "notebook": (job.folder / "input.ipynb").read_bytes(),
            "job": json.dumps([dict(job.parameters), job.timeout, job.cells], default=str),
        }
        needs = {tag.replace("=", ":"): count for tag, count in job.tags.items()}
        try:
            task = self._client.submit(_perform, request, pure=False, resources=needs)
            if error := self._wait(task, needs):
                return error
            error, output = task.result()
        except (Exception, CancelledError) as failed:
            if self._stopped:
                raise StoppedError from None
            if isinstance(failed, CancelledError):
                return f"the Dask scheduler at {self._address} was lost"
            if isinstance(failed, distributed.KilledWorker):
                return f"{failed.allowed_failures + 1} workers were lost while they executed it"
            # Of a worker whose project or Dask cannot even take the task.
            return f"the Dask worker failed: {first_line(f'{type(failed).__name__}: {failed}')}"
        if output is not None:
            (job.folder / "output.ipynb").write_bytes(output)
        return error

    def _wait(self, task: Future[Any], needs: Mapping[str, int]) -> str | None:
        """Wait for a task's end; return why nobody does it, where that is so for too long."""
        suited = time.monotonic()
        while not self._stopped:
            with contextlib.suppress(distributed.TimeoutError):
                task.exception(timeout=min(_LOOK, self._patience))
                return None
            lacking = self._lacking(needs)
            if not lacking:
                suited = time.monotonic()
            elif time.monotonic() - suited > self._patience:
                task.cancel()
                return f"{lacking} on {self._address} in {self._patience:g} s"
            elif lacking not in self._messages:
                self._messages.add(lacking)
                progress.say(f"{lacking} on {self._address} yet; waiting for one")
        raise StoppedError

    def _lacking(self, needs: Mapping[str, int]) -> str:
        """Return what no worker offers, in words; nothing where one has it all."""
        with contextlib.suppress(OSError, distributed.TimeoutError):
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
            offers = [{n for n in needs if w["resources"].get(n, 0) >= needs[n]} for w in workers]
            if needs.keys() not in offers:
                names = needs.keys() - set().union(*offers) or needs
                return f"no worker with {', '.join(sorted(names))}" if needs else "no worker"
        return ""

    def stop(self) -> None:
        """End all that is executed, there and here, and start no more."""
        super().stop()
        with contextlib.suppress(Exception):  # a scheduler that is gone has ended it all
            self._client.close(timeout=_CONNECT)


def _connected(address: str) -> Client:
    for name in ("client", "core", "comm"):  # what happens to a job is said in its error
        logging.getLogger(f"distributed.{name}").setLevel(logging.CRITICAL)
    client = futures.Future[Client]()

    def connect() -> None:
        try:
            client.set_result(Client(address, timeout=_CONNECT, set_as_default=False))
        except Exception as error:  # whatever Dask makes of an address and of what answers there
            client.set_exception(error)

    # In a thread: Dask waits for ever for the greeting of one who listens, but says nothing.
    threading.Thread(target=connect, daemon=True).start()
    try:
        return client.result(_CONNECT + 1)
    except Exception as error:
        do = "start one (dask scheduler), or give its address: tcp://HOST:8786"
        raise LabError(f"--dask {address}", "no Dask scheduler answers there", do) from error


def identity() -> str:
    """Return the project's version, and a digest of its code and data."""
    return f"{__version__} ({batch.own_digest()[:12]})"


def _perform(request: Mapping[str, Any]) -> tuple[str | None, bytes | None]:
    """Execute a notebook on this worker, to its end or until nobody wants it.

    Returns what went wrong, and what there is of it; all of types that any version reads.
    """
    dask_worker = distributed.get_worker()
    key = dask_worker.get_current_task()
    if (mine := identity()) != request["project"]:
        why = f"the project here is {request['project']}, on the worker {dask_worker.address} "
        return f"{why}{mine}; check out the same commit there", None
    with (
        tempfile.TemporaryDirectory(prefix="pgo-lab-", dir=dask_worker.local_directory) as name,
        futures.ThreadPoolExecutor(1) as pool,
    ):
        folder, notebooks = Path(name), settings.notebooks_dir()
        (folder / "input.ipynb").write_bytes(request["notebook"])
        cwd = notebooks if notebooks.is_dir() else folder
        job = NotebookJob(folder, cwd, *json.loads(request["job"]))
        workers = Workers()
        running = pool.submit(workers.execute, job)
        while futures.wait([running], timeout=_TICK).not_done:
            task = dask_worker.state.tasks.get(key)
            ends = dask_worker.status in (Status.closing, Status.closed, Status.failed)
            if ends or task is None or task.state != "executing":
                workers.stop()
        output = folder / "output.ipynb"
        return running.result(), output.read_bytes() if output.is_file() else None


def offer() -> str:
    """Return this machine's system and LLVMs for ``--resources``, each once per processor."""
    system = {"Darwin": "macos"}.get(platform.system(), platform.system().lower())
    clangs = [t for t in discovery.discover() if t.kind == "clang" and t.provider != "apple"]
    names = dict.fromkeys((f"os:{system}", *(f"llvm:{t.major}" for t in clangs)))
    return " ".join(f"{name}={os.cpu_count() or 1}" for name in names)
