"""Notebooks on a Dask cluster: a real scheduler and real workers, on loopback."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import nbformat
import psutil
import pytest

from nbsupport.base import progress, settings
from nbsupport.base.errors import LabError
from nbsupport.notebooks import cluster, document
from nbsupport.notebooks.worker import NotebookJob, StoppedError

ROOT = Path(__file__).parents[2]

#: The first time it waits, to be lost meanwhile; then it ends at once.
ONCE = """
import pathlib, time
seen = pathlib.Path(mark, "seen")
if not seen.exists():
    seen.touch()
    time.sleep(50)
print("done")
"""

Start = Callable[..., subprocess.Popen[bytes]]


def until(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def dask(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            cwd=folder,
            env={**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1", **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("scheduler")
    where = folder / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show")
    child = dask(folder, "scheduler", *options, "--scheduler-file", str(where))
    try:
        until(where.is_file)
        (address,) = re.findall(r"tcp://127.0.0.1:\d+", where.read_text())
        yield address
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def start(scheduler: str, tmp_path: Path) -> Iterator[Start]:
    """Starts workers, each of one process and one thread."""
    there: list[subprocess.Popen[bytes]] = []

    def worker(resources: str = "", **environment: str) -> subprocess.Popen[bytes]:
        name = f"worker{len(there)}"
        options = ["--no-nanny", "--no-dashboard", "--host", "127.0.0.1", "--nthreads", "1"]
        options += ["--name", name, "--local-directory", str(tmp_path / "space")]
        options += ["--resources", resources] if resources else []
        there.append(dask(tmp_path, "worker", scheduler, *options, **environment))
        return there[-1]

    yield worker
    for child in there:
        child.terminate()
    for child in there:
        child.wait(30)


@pytest.fixture
def crew(scheduler: str) -> Iterator[cluster.DaskWorkers]:
    with closing(Stopped(cluster.DaskWorkers(scheduler))) as made:
        yield made.crew


class Stopped:
    def __init__(self, crew: cluster.DaskWorkers) -> None:
        self.crew = crew

    def close(self) -> None:
        self.crew.stop()


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., NotebookJob]:
    """Makes a job whose notebook has one cell."""

    def make(
        name: str, source: str, tags: Mapping[str, int] | None = None, **given: object
    ) -> NotebookJob:
        folder = tmp_path / name
        folder.mkdir()
        cells = [
            nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]}),  # type: ignore[no-untyped-call]
            nbformat.v4.new_code_cell(source),  # type: ignore[no-untyped-call]
        ]
        book = nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
        (folder / "input.ipynb").write_text(document.dump(book))
        return NotebookJob(folder, folder, given, 60.0, 2, tags or {})

    return make


def printed(job: NotebookJob) -> str:
    cells = document.code(document.read(job.folder / "output.ipynb"))
    return "".join(out.get("text", "") for cell in cells for out in cell.outputs)


def kernels(under: Path) -> list[int]:
    """Kernels and the processes that drive them, of notebooks executed somewhere below."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        environment = process.info["environ"] or {}
        if environment.get("IPYTHONDIR", "").startswith(str(under)):
            found.append(process.pid)
    return found


def waiting(seconds: float = 60) -> str:
    return f"import os, pathlib, time\npathlib.Path(mark, str(os.getppid())).touch()\ntime.sleep({seconds})"


def test_a_notebook_goes_to_a_worker_and_comes_back(
    start: Start, crew: cluster.DaskWorkers, job: Callable[..., NotebookJob]
) -> None:
    start()
    good = job("good", "import os; print(x, os.getcwd())", x=3)
    bad = job("bad", "print('so far'); raise ValueError('no good')")
    assert crew.execute(good) is None
    assert printed(good) == f"3 {settings.notebooks_dir()}\n"
    assert crew.execute(bad) == "cell 2: ValueError: no good"
    assert printed(bad) == "so far\n"


def test_tags_choose_the_machine_and_an_unknown_one_is_said(
    scheduler: str,
    start: Start,
    job: Callable[..., NotebookJob],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(cluster, "_LOOK", 1.0)
    monkeypatch.setattr(progress, "say", said.append)
    start("os:linux=1 llvm:19=1", WHICH="linux")
    start("os:macos=1 llvm:23=1", WHICH="macos")
    show = "import os; print(os.environ['WHICH'])"
    with closing(Stopped(cluster.DaskWorkers(scheduler, patience=4.0))) as made:
        until(lambda: len(made.crew._client.scheduler_info(n_workers=-1)["workers"]) == 2)
        for tags, which in (({"os=macos": 1}, "macos"), ({"llvm=19": 1}, "linux")):
            one = job(which, show, tags)
            assert (made.crew.execute(one), printed(one)) == (None, f"{which}\n")
        none = made.crew.execute(job("none", show, {"llvm=24": 1, "os=linux": 1}))
        assert none == f"no worker with llvm:24 on {scheduler} in 4 s"
        assert said == [f"no worker with llvm:24 on {scheduler} yet; waiting for one"]
        apart = made.crew.execute(job("apart", show, {"llvm=23": 1, "os=linux": 1}))
        assert apart == f"no worker with llvm:23, os:linux on {scheduler} in 4 s"


def test_a_lost_worker_costs_its_own_task_only(
    start: Start, crew: cluster.DaskWorkers, job: Callable[..., NotebookJob], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    mark.mkdir()
    victim = start("here=1")
    lost = job("lost", ONCE, {"here": 1}, mark=str(mark))
    other = job("other", "print('other')", x=2)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(crew.execute, lost)
        until((mark / "seen").exists)
        start("here=1")
        second = pool.submit(crew.execute, other)
        victim.send_signal(signal.SIGKILL)
        assert (first.result(), second.result()) == (None, None)
    assert (printed(lost), printed(other)) == ("done\n", "other\n")
    until(lambda: not kernels(tmp_path), 15)  # that of the lost worker, too


def test_a_task_that_is_lost_again_and_again_fails(
    start: Start, crew: cluster.DaskWorkers, job: Callable[..., NotebookJob], tmp_path: Path
) -> None:
    # A notebook that ends the worker itself: the parent of the process that drives its kernel.
    kills = (
        "import os, psutil, signal\nos.kill(psutil.Process(os.getppid()).ppid(), signal.SIGKILL)"
    )
    for _ in range(2):  # one loss is allowed here
        start()
    error = crew.execute(job("kills", kills))
    assert error == "2 workers were lost while they executed it"


def test_another_version_of_the_project_is_refused(
    start: Start,
    crew: cluster.DaskWorkers,
    job: Callable[..., NotebookJob],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start()
    theirs = cluster.identity()
    monkeypatch.setattr(cluster, "identity", lambda: "9.9 (other)")
    error = crew.execute(job("other", "print(1)"))
    assert error is not None
    assert re.fullmatch(
        rf"the project here is 9\.9 \(other\), on the worker tcp://\S+ {re.escape(theirs)}; check out .*",
        error,
    )


def test_stop_ends_kernels_on_the_workers(
    start: Start, crew: cluster.DaskWorkers, job: Callable[..., NotebookJob], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    mark.mkdir()
    start()
    one, two = (job(name, waiting(), mark=str(mark)) for name in ("one", "two"))
    with ThreadPoolExecutor(2) as pool:
        running: list[Future[str | None]] = [pool.submit(crew.execute, each) for each in (one, two)]
        until(lambda: list(mark.iterdir()))
        assert kernels(tmp_path)
        crew.stop()
        for each in running:
            with pytest.raises(StoppedError):
                each.result(10)
    until(lambda: not kernels(tmp_path), 15)
    assert len(list(mark.iterdir())) == 1  # the other was never begun
    with pytest.raises(StoppedError):
        crew.execute(one)


def test_a_worker_that_is_ended_ends_its_kernels_and_another_does_the_task(
    start: Start, crew: cluster.DaskWorkers, job: Callable[..., NotebookJob], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    mark.mkdir()
    worker = start()
    one = job("one", ONCE, mark=str(mark))
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(crew.execute, one)
        until((mark / "seen").exists)
        worker.terminate()
        until(lambda: not kernels(tmp_path), 20)
        start()
        assert (done.result(), printed(one)) == (None, "done\n")


def test_a_notebook_that_reads_the_run_is_executed_here(
    crew: cluster.DaskWorkers, job: Callable[..., NotebookJob], tmp_path: Path
) -> None:
    one = job("one", "print(run_folder)", run_folder=str(tmp_path))
    assert crew.execute(one) is None  # there is no worker
    assert printed(one) == f"{tmp_path}\n"


def test_a_scheduler_that_is_lost_is_the_jobs_error(
    tmp_path: Path, job: Callable[..., NotebookJob]
) -> None:
    where = tmp_path / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show")
    child = dask(tmp_path, "scheduler", *options, "--scheduler-file", str(where))
    until(where.is_file)
    (address,) = re.findall(r"tcp://127.0.0.1:\d+", where.read_text())
    with closing(Stopped(cluster.DaskWorkers(address))) as made, ThreadPoolExecutor(1) as pool:
        waits = pool.submit(made.crew.execute, job("one", "1"))
        until(lambda: made.crew._client.futures)
        child.kill()
        child.wait()
        assert waits.result(60) == f"the Dask scheduler at {address} was lost"


def test_a_machine_says_what_it_has() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("pgo-lab"), "dev", "offer"],
        capture_output=True,
        text=True,
        check=True,
    )
    system = "macos" if sys.platform == "darwin" else "linux"
    pair = rf"=({os.cpu_count()})"
    assert re.fullmatch(rf"os:{system}{pair}( llvm:\d+{pair})*\n", done.stdout)


def test_without_a_cluster_nothing_of_dask_is_imported() -> None:
    code = "import sys, nbsupport.cli.commands, nbsupport.notebooks.batch; print({'dask', 'distributed', 'nbsupport.notebooks.cluster'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# Last: a client of Dask's that found no scheduler may hold up the next one of its process.


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "x://y", ""])
def test_no_scheduler_is_said_in_one_line(address: str) -> None:
    before = time.monotonic()
    with pytest.raises(LabError, match=rf"^--dask {address}: no Dask scheduler answers there; "):
        cluster.DaskWorkers(address)
    assert time.monotonic() - before < 10


def test_one_who_listens_and_says_nothing_is_no_scheduler() -> None:
    code = "import sys; from nbsupport.notebooks import cluster; cluster.DaskWorkers(sys.argv[1])"
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", code, address], capture_output=True, check=False, timeout=60
        )
    assert b"LabError: --dask " + address.encode() in done.stderr
