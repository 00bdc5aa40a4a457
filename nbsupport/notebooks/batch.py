"""Notebooks x parameters, executed into a run's folder, side by side, each only when it must be.

A run's folder has ``notebooks/CELL.ipynb`` (executed), ``notebooks/CELL.json`` beside it
(what it was executed from) and ``manifest.json`` (what, when, with which toolchains). A *cell*
is a notebook with one combination of the parameters that it declares: its name is that of the
notebook, with the values of those parameters that have several (``01-reproduction--19-17``).
"""

import contextlib
import datetime
import functools
import importlib.metadata
import json
import platform
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import filelock

from nbsupport import __version__
from nbsupport.base import files, progress, settings
from nbsupport.base.errors import LabError, from_os
from nbsupport.notebooks import cells, document, results
from nbsupport.notebooks.cells import Cell
from nbsupport.notebooks.worker import NotebookJob, Workers
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain

Status = Literal["executed", "reused", "failed"]

#: They tell of what the others recorded.
LAST = ("00-start-here", "10-upstream-report")
#: It comes first; then the first of `LAST` tells of it, as it does of all in the end.
FIRST = "01-reproduction"
#: They measure time: nothing else runs beside them.
ALONE = ("08-pgo-benefit",)
#: Seconds that a notebook takes beside another one, from nothing, on two cores. The short ones come
#: beside the first, which is waited for; all tell how long a run takes, at the machine's own pace.
USUAL = {
    "00-start-here": 4.0,
    "01-reproduction": 50.0,
    "02-lldb-trace": 20.0,
    "03-record-layout": 8.0,
    "04-source-writer": 12.0,
    "05-source-file": 25.0,
    "06-hypotheses": 60.0,
    "07-workarounds": 70.0,
    "08-pgo-benefit": 60.0,
    "09-llvm-versions": 15.0,
    "10-upstream-report": 12.0,
    "11-macos-on-linux": 6.0,
}
#: Seconds that a cell may take.
TIMEOUT = 600.0

#: Packages whose version shows in outputs.
_SHOWN = ("ipykernel", "ipywidgets", "matplotlib", "pandas", "papermill")


class Filling(Protocol):
    """Something that is made of a run while it goes on, as notebooks end: its site."""

    def fill(self) -> object:
        """Make it anew: there is more to show."""

    def settle(self) -> object:
        """Wait until nothing is being made: what measures comes next."""


@dataclass(frozen=True)
class Done:
    """How one cell fared; `error` is one line, `path` the executed notebook."""

    cell: str
    path: Path
    notebook: str
    parameters: Mapping[str, object]
    status: Status
    seconds: float
    when: str
    error: str | None
    fingerprint: str

    def entry(self) -> dict[str, object]:
        """Return what the manifest, and the file beside the notebook, say of it."""
        return {key: value for key, value in vars(self).items() if key not in ("cell", "path")}


def execute(
    notebooks: Sequence[Path],
    out: Path,
    parameters: Mapping[str, object],
    *,
    jobs: int | None = None,
    executor: Workers | None = None,
    tell_folder: bool = True,
    filling: Filling | None = None,
) -> tuple[Done, ...]:
    """Execute notebooks into the run's folder `out` and return how each cell fared, in order.

    A parameter's value may be a list: each combination of those that a notebook declares is a
    cell of its own (and gets `run_folder`, where it declares that, if we `tell_folder`). What did
    not change since it was executed there is reused. A cell that fails is kept as it is; the others
    go on. `executor` executes, if not processes here; `jobs` at once. `filling` is filled whenever
    there is more to show, from the first notebook on. Raises `LabError` for bad input, a full disk,
    a folder that is no run's, or another run in it. An interrupt ends all.
    """
    books = [document.read(path) for path in notebooks]
    if len({path.stem for path in notebooks}) < len(books):
        raise LabError("notebooks", "two have the same name", "rename one, or run them apart")
    values = cells.typed(books, parameters)
    out = out.absolute()
    paths = [path.absolute() for path in notebooks]
    arguments = {"notebooks": paths, "parameters": dict(values)}
    if tell_folder:
        values["run_folder"] = [str(out)]
    pairs = zip(paths, books, strict=True)
    expanded = [cell for path, book in pairs for cell in cells.expand(path, book, values)]
    try:
        with _alone(out), tempfile.TemporaryDirectory(prefix=".work-", dir=out) as work:
            workers = executor or Workers()
            count = jobs or settings.cores()
            return _Run(out, Path(work), arguments, expanded, workers, count, filling).all()
    except OSError as error:
        raise from_os(f"running notebooks into {out}", error) from error


def resume(
    out: Path,
    notebooks: Sequence[Path] = (),
    parameters: Mapping[str, object] | None = None,
    *,
    jobs: int | None = None,
    executor: Workers | None = None,
    filling: Filling | None = None,
) -> tuple[Done, ...]:
    """Go on with the run in a folder, as it was begun; only what is not whole is done again.

    Of `notebooks` and `parameters`, what is given must be as the run has it. Raises `LabError`
    where something is not, where there is no run, or its manifest cannot be read.
    """
    path = out / "manifest.json"
    if not path.is_file():
        raise LabError(str(out), "no run there", f"begin one: pgo-lab run -o {out}")
    do = "run it again with its arguments: what is finished is kept"
    manifest = files.read_json(path, do)
    try:
        paths = [Path(name) for name in manifest["arguments"]["notebooks"]]
        values = dict(manifest["arguments"]["parameters"])
    except (ValueError, LookupError, TypeError) as error:
        raise LabError(str(path), f"not a readable manifest ({error})", do) from error
    books = [document.read(path) for path in paths]
    begun = cells.typed(books, values) | {"notebooks": [*paths]}
    again = cells.typed(books, parameters or {})
    if notebooks:
        again["notebooks"] = [path.absolute() for path in notebooks]
    differences = []
    for name, now in again.items():
        before = begun.get(name, [])
        for place, some, others in (("there", before, now), ("here", now, before)):
            if only := ", ".join(str(value) for value in some if value not in others):
                differences.append(f"{name} {only} only {place}")
    if differences:
        why = f"the run in {out} was begun otherwise ({'; '.join(differences)})"
        raise LabError("--resume", why, "give the same arguments, or -o alone")
    return execute(paths, out, values, jobs=jobs, executor=executor, filling=filling)


@dataclass
class _Run:
    """One batch on its way into a folder."""

    out: Path
    work: Path
    arguments: Mapping[str, object]
    cells: Sequence[Cell]
    executor: Workers
    jobs: int
    filling: Filling | None = None
    toolchains: Sequence[Toolchain] = ()
    surroundings: Sequence[object] = ()  # what outputs depend on besides the notebook

    def __post_init__(self) -> None:
        self.started = _now()
        self.earlier = _earlier(self.out / "manifest.json", self.cells)
        self.lock = threading.Lock()
        self.done: dict[str, Done] = {}
        self.left = [*self.cells]
        self.running: dict[str, float] = {}  # since when
        self.previewed = False
        self.write_manifest()  # before anything takes its time: what is killed can be resumed

    def all(self) -> tuple[Done, ...]:
        """Bring every cell up to date, those of the notebooks `LAST` after all others."""
        self.toolchains = discovery.discover()
        packages = [(name, importlib.metadata.version(name)) for name in _SHOWN]
        compilers = sorted((t.name, t.identity) for t in self.toolchains)
        self.surroundings = [own_digest(), platform.python_version(), packages, compilers]
        count = len(self.cells)
        what = "1 notebook" if count == 1 else f"{count} notebooks"
        progress.say(f"executing {what}, {self.jobs} at once, into {self.out}")
        first = [cell for cell in self.cells if cell.path.stem not in LAST]
        first.sort(key=lambda cell: (cell.path.stem != FIRST, _usual(cell.path.stem)))
        with progress.bar("notebooks", count, self.now) as step:
            stop = self.executor.stop
            some = functools.partial(progress.each, work=self.bring, what="", step=step, stop=stop)
            some([cell for cell in first if cell.path.stem not in ALONE], jobs=self.jobs)
            if self.filling:
                self.filling.settle()
            some([cell for cell in first if cell.path.stem in ALONE], jobs=1)
            some([cell for cell in self.cells if cell.path.stem in LAST], jobs=self.jobs)
        self.write_manifest(finished=True)
        self.executor.stop()
        return tuple(self.done[cell.name] for cell in self.cells)

    def finished(self) -> list[tuple[str, str | None, str]]:
        """Return what a cell that comes last depends on: what the others tell by now."""
        cells = (self.done.get(cell.name) for cell in self.cells if cell.path.stem not in LAST)
        return [(done.cell, done.error, results.digest(done.path)) for done in cells if done]

    def bring(self, cell: Cell) -> None:
        """Bring one cell up to date (in a thread); keep how it fared, and say so."""
        done = self.one(cell, self.finished() if cell.path.stem in LAST else ())
        with self.lock:
            self.done[done.cell] = done
            self.left.remove(cell)
            self.write_manifest()
            line = f"  {done.cell}: {done.status}"
            if done.status == "executed":
                line += f" in {done.seconds:.1f} s"
            if done.error:
                line += f": {done.error}"
            if self.left:
                line += f" ({len(self.left)} left, about {self.seconds_left():.0f} s)"
            progress.say(line)
        if self.filling and cell.path.stem not in (*LAST, *ALONE):
            if done.status == "executed":
                self.preview()
            if self.previewed:
                self.filling.fill()

    def preview(self) -> None:
        """Execute the first of `LAST` once the notebook `FIRST` is there, and more is to come."""
        with self.lock:
            begun = any(done.notebook == FIRST for done in self.done.values())
            if self.previewed or not begun or all(cell.path.stem in LAST for cell in self.left):
                return
            self.previewed = True
            finished = self.finished()
        for cell in (cell for cell in self.cells if cell.path.stem == LAST[0]):
            done = self.one(cell, finished)
            with self.lock:
                self.done[done.cell] = done
                self.write_manifest()

    def one(self, cell: Cell, before: Sequence[object]) -> Done:
        """Reuse or execute one cell, which depends on what there is `before` it."""
        content, values = cell.content, cell.parameters
        fingerprint = document.digest(content, values, self.surroundings, before)
        path = self.out / "notebooks" / f"{cell.name}.ipynb"
        if reused := _reused(cell, path, fingerprint):
            return reused
        folder = self.work / cell.name
        folder.mkdir()
        (folder / "input.ipynb").write_text(document.dump(content))
        count = len(document.code(content))
        majors = (re.match(r"\d+", str(values.get(name, ""))) for name in ("llvm", "foreign"))
        tags = {f"llvm={major[0]}": 1 for major in majors if major}
        job = NotebookJob(folder, cell.path.parent, values, TIMEOUT, count, tags)
        self.running[cell.name] = start = time.monotonic()
        try:
            error = self.executor.execute(job)
        finally:
            del self.running[cell.name]
        done = Done(
            cell=cell.name,
            notebook=cell.path.stem,
            parameters={name: value for name, value in values.items() if name != "run_folder"},
            status="failed" if error else "executed",
            seconds=round(time.monotonic() - start, 3),
            error=error,
            path=path,
            fingerprint=fingerprint,
            when=_now(),
        )
        # Until the new one is there, the two do not belong together.
        path.with_suffix(".json").unlink(missing_ok=True)
        executed = content  # where the process was killed before it could write another
        with contextlib.suppress(LabError):
            executed = document.read(folder / "output.ipynb")
            if not error:
                executed = document.with_prose(executed, content)
        files.write(path, document.dump(executed))
        files.write(path.with_suffix(".json"), json.dumps(done.entry(), indent=1, default=str))
        shutil.rmtree(folder, ignore_errors=True)
        return done

    def seconds_left(self) -> float:
        """Return how long the rest takes, at the pace of what was executed so far."""
        executed = [done for done in [*self.done.values()] if done.status != "reused"]
        usual = sum(_usual(done.notebook) for done in executed)
        pace = sum(done.seconds for done in executed) / usual if executed else 1.0
        now, seconds = time.monotonic(), 0.0
        for cell in [*self.left]:
            rest = _usual(cell.path.stem) * pace - (now - self.running.get(cell.name, now))
            beside = 1 if cell.path.stem in ALONE else self.jobs
            seconds += max(rest, 1.0) / beside
        return seconds

    def now(self) -> str:
        """Say what is executed at this moment, and how long all takes from now on.

        Without our lock: a bar calls this under its own, which `say` waits for under ours.
        """
        return f"{', '.join([*self.running])}; about {self.seconds_left():.0f} s left"

    def write_manifest(self, *, finished: bool = False) -> None:
        """Write what is known so far, by which a killed run can be read, and resumed."""
        entries = {name: done.entry() for name, done in self.done.items()}
        manifest = {
            "what": f"PGO Crash Lab {__version__}",
            "started": self.started,
            "finished": _now() if finished else None,
            "platform": f"{platform.system()} {platform.machine()}",
            "processors": settings.cores(),
            "python": platform.python_version(),
            "arguments": self.arguments,
            "toolchains": [
                {key: getattr(t, key) for key in ("name", "kind", "version", "raw_version")}
                | {"digest": files.digest(t.identity)}
                for t in self.toolchains
            ],
            "notebooks": dict(sorted({**self.earlier, **entries}.items())),
        }
        files.write(self.out / "manifest.json", json.dumps(manifest, indent=1, default=str))


def _usual(notebook: str) -> float:
    return USUAL.get(notebook, 30.0)


def _earlier(manifest: Path, cells: Sequence[Cell]) -> dict[str, Mapping[str, object]]:
    """Return what a manifest says of other notebooks, of an earlier batch: they stay in it."""
    names = {cell.path.stem for cell in cells}
    with contextlib.suppress(LabError, LookupError, TypeError, AttributeError):
        entries = files.read_json(manifest)["notebooks"]
        return {name: entry for name, entry in entries.items() if entry["notebook"] not in names}
    return {}


def _reused(cell: Cell, path: Path, fingerprint: str) -> Done | None:
    """Return an earlier execution that is still true, its prose brought up to date."""
    try:
        entry = files.read_json(path.with_suffix(".json"))
        if entry["fingerprint"] != fingerprint or entry["status"] == "failed":
            return None
        done = Done(cell=cell.name, path=path, **{**entry, "status": "reused"})
        executed = document.read(path)
    except (LabError, LookupError, TypeError):
        return None
    current = document.with_prose(executed, cell.content)
    if current != executed:
        files.write(path, document.dump(current))
    return done


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in out.iterdir()}
    if names and not names & {"manifest.json", ".lock"}:
        raise LabError(str(out), "not a run's folder, and not empty", "choose another (-o)")
    try:
        lock = filelock.FileLock(out / ".lock").acquire(timeout=0)
    except filelock.Timeout:
        do = "wait for it, or choose another folder (-o)"
        raise LabError(str(out), "another run is writing there", do) from None
    with lock:
        for folder in out.glob(".work-*"):  # by a run that was killed: we hold the lock
            shutil.rmtree(folder, ignore_errors=True)
        yield


def own_digest() -> str:
    """Return a digest of this package and its data; how the site looks is not in a notebook."""
    package, data = Path(__file__).parents[1], settings.data_dir()
    parts: list[str | Path] = []
    for path in sorted({*package.rglob("*.py"), *data.rglob("*")}):
        if path.is_file() and path.suffix != ".pyc" and data / "site" not in path.parents:
            parts += [path.name, path]
    return files.digest(*parts)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
