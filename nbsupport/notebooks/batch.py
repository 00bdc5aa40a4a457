"""Notebooks x parameters, executed into a run's folder, side by side, each only when it must be.

A run's folder has ``notebooks/CELL.ipynb`` (executed), ``notebooks/CELL.json`` beside it
(what it was executed from) and ``manifest.json`` (what, when, with which toolchains). A *cell*
is a notebook with one combination of the parameters that it declares: its name is that of the
notebook, with the values of those parameters that have several (``01-reproduction--19-17``).
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock
from nbformat import NotebookNode

from nbsupport import __version__
from nbsupport.base import files, progress, settings
from nbsupport.base.errors import LabError, from_os
from nbsupport.notebooks import document
from nbsupport.notebooks.worker import Executor, NotebookJob, Workers
from nbsupport.toolchains import discovery

Status = Literal["executed", "reused", "failed"]

#: They tell of what the others recorded.
LAST = ("00-start-here", "10-upstream-report")
#: They measure time: nothing else runs beside them.
ALONE = ("08-pgo-benefit",)
#: Seconds that a cell may take.
TIMEOUT = 600.0

#: Packages whose version shows in outputs.
_SHOWN = ("ipykernel", "ipywidgets", "matplotlib", "pandas", "papermill")


@dataclass(frozen=True)
class Source:
    """A notebook to execute."""

    name: str
    folder: Path
    content: NotebookNode

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read it; raises `LabError` for what is no notebook."""
        return cls(path.stem, path.absolute().parent, document.read(path))


@dataclass(frozen=True)
class Cell:
    """A notebook with one combination of its parameters."""

    name: str
    source: Source
    given: Mapping[str, object]


def combine(source: Source, parameters: Mapping[str, object]) -> list[Cell]:
    """Return a notebook's cells, in the order of the values that were given."""
    takes = document.declared(source.content)
    mine = {name: value for name, value in parameters.items() if name in takes}
    several = [name for name, value in mine.items() if isinstance(value, list) and value[1:]]
    values = [listed(value) for value in mine.values()]
    found: dict[str, Cell] = {}
    for combination in itertools.product(*values):
        given = dict(zip(mine, combination, strict=True))
        words = [re.sub(r"[^\w.@]+", "_", str(given[name])).strip("_") for name in several]
        name = "--".join([source.name, *(["-".join(words)] if words else [])])
        found.setdefault(name, Cell(name, source, given))
    return list(found.values())


def tags(given: Mapping[str, object]) -> dict[str, int]:
    """Return what a machine must have for a cell: its LLVMs, by major version."""
    names = (str(given[name]) for name in ("llvm", "foreign") if name in given)
    majors = (re.match(r"\d+", name) for name in names)
    return {f"llvm={major[0]}": 1 for major in majors if major}


def checked(sources: Sequence[Source], parameters: Mapping[str, object]) -> dict[str, object]:
    """Return parameters, of the types that the notebooks declare; refuse one that none has.

    Each command gives `llvm` and `foreign`, which not every notebook needs.
    """
    defaults: dict[str, object] = {}
    for source in sources:
        defaults |= document.defaults(source.content)
    for name, value in parameters.items():
        if name not in {*defaults, "llvm", "foreign"}:
            there = ", ".join(sorted(defaults.keys() - {"run_folder"})) or "none"
            raise LabError(f"parameter {name}", "no notebook has it", f"choose from: {there}")
        if value == []:
            raise LabError(f"parameter {name}", "it has no value", "give one, or leave it out")
    return {
        name: [_typed(name, each, defaults.get(name)) for each in value]
        if isinstance(value, list)
        else _typed(name, value, defaults.get(name))
        for name, value in parameters.items()
    }


def _typed(name: str, value: object, default: object) -> object:
    """Return the value of a parameter; text as what its default in the notebook is."""
    if not isinstance(value, str) or not isinstance(default, bool | int | float):
        return value
    with contextlib.suppress(ValueError):
        if not isinstance(default, bool):
            return type(default)(value)
        return {"true": True, "false": False}.get(value.lower(), "") or bool(int(value))
    kind = type(default).__name__
    raise LabError(f"parameter {name}", f"{value!r} is no {kind}", f"give a {kind}")


def listed(value: object) -> list[object]:
    """Return a value that may be a list as one."""
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Done:
    """How one cell fared; `error` is one line, `path` the executed notebook."""

    cell: str
    notebook: str
    parameters: Mapping[str, object]
    status: Status
    seconds: float
    error: str | None
    path: Path
    fingerprint: str
    when: str


def execute(
    notebooks: Sequence[Path],
    out: Path,
    parameters: Mapping[str, object],
    *,
    jobs: int | None = None,
    last: Collection[str] = LAST,
    timeout: float = TIMEOUT,
    crew: Executor | None = None,
) -> tuple[Done, ...]:
    """Execute notebooks into the run's folder `out` and return how each cell fared, in order.

    A parameter's value may be a list: each combination of those that a notebook declares is a
    cell of its own (and gets `run_folder`, where it declares that). What did not change since it
    was executed there is reused. A cell that fails is kept as it is; the others go on. `crew`
    executes, if not processes here. Raises `LabError` for bad input, a full disk, a folder that
    is no run's, or another run in it; an interrupt ends all kernels, keeps what is done.
    """
    sources = [Source.read(path) for path in notebooks]
    if len({source.name for source in sources}) < len(sources):
        raise LabError("notebooks", "two have the same name", "rename one, or run them apart")
    parameters = checked(sources, parameters)
    out = out.absolute()
    arguments = {
        "notebooks": [str(path.absolute()) for path in notebooks],
        "parameters": parameters,
    }
    try:
        with _alone(out), tempfile.TemporaryDirectory(prefix=".work-", dir=out) as work:
            given = {**parameters, "run_folder": str(out)}
            run = _Run(out, Path(work), arguments, timeout, crew or Workers())
            cells = [cell for source in sources for cell in combine(source, given)]
            first = [cell for cell in cells if cell.source.name not in last]
            rest = [cell for cell in cells if cell.source.name in last]
            what = "1 notebook" if len(cells) == 1 else f"{len(cells)} notebooks"
            progress.say(f"executing {what}, {_jobs(jobs)} at once, into {out}")
            with progress.board(len(cells), _jobs(jobs)) as run.board:
                run.all([cell for cell in first if cell.source.name not in ALONE], jobs)
                run.all([cell for cell in first if cell.source.name in ALONE], 1)
                run.all(rest, jobs, after=[run.done[cell.name] for cell in first])
            run.write_manifest(finished=True)
            run.crew.stop()
            return tuple(run.done[cell.name] for cell in cells)
    except OSError as error:
        raise from_os(f"running notebooks into {out}", error) from error


def resume(out: Path, *, jobs: int | None = None, crew: Executor | None = None) -> tuple[Done, ...]:
    """Go on with the run in a folder, as it was begun; only what is not whole is done again.

    Raises `LabError` where there is no run, or its manifest cannot be read.
    """
    path = out / "manifest.json"
    try:
        said = json.loads(path.read_text())["arguments"]
        notebooks, parameters = [Path(each) for each in said["notebooks"]], dict(said["parameters"])
    except FileNotFoundError:
        raise LabError(str(out), "no run there", f"begin one: pgo-lab run -o {out}") from None
    except OSError as error:
        raise from_os(f"resuming {out}", error) from error
    except (ValueError, LookupError, TypeError) as error:
        do = "run it again with its arguments: what is finished is kept"
        raise LabError(str(path), f"not a readable manifest ({error})", do) from error
    return execute(notebooks, out, parameters, jobs=jobs, crew=crew)


def by_default(notebooks: Sequence[Path], out: Path, *, jobs: int | None = None) -> dict[str, Done]:
    """Execute notebooks as they are, into the new folder `out`; return how each fared, by name."""
    run = _Run(out, out, {}, TIMEOUT, Workers())
    cells = [cell for path in notebooks for cell in combine(Source.read(path), {})]
    run.all([cell for cell in cells if cell.source.name not in ALONE], jobs)
    run.all([cell for cell in cells if cell.source.name in ALONE], 1)
    run.write_manifest(finished=True)
    return run.done


class _Run:
    """One batch on its way into a folder."""

    def __init__(
        self, out: Path, work: Path, arguments: Mapping[str, object], timeout: float, crew: Executor
    ) -> None:
        self.out, self.work, self.timeout = out, work, timeout
        self.arguments = arguments
        self.done: dict[str, Done] = {}
        self.board: progress.Board | None = None
        self.started = _now()
        self.earlier = _earlier(out / "manifest.json", arguments)
        self.toolchains = discovery.discover()
        self.surroundings = _surroundings(self.toolchains)
        self.crew = crew

    def all(self, cells: Sequence[Cell], jobs: int | None, after: Sequence[Done] = ()) -> None:
        """Bring every cell up to date, `jobs` at once; `after` is what these depend on."""
        before = [(one.cell, one.fingerprint, one.when) for one in after]
        with ThreadPoolExecutor(_jobs(jobs)) as pool:
            futures = [pool.submit(self.one, cell, before) for cell in cells]
            try:
                for future in as_completed(futures):
                    self._note(future.result())
            except BaseException:
                for future in futures:
                    future.cancel()
                self.crew.stop()
                raise

    def one(self, cell: Cell, before: object) -> Done:
        """Reuse or execute one cell (in a thread)."""
        source, given = cell.source, cell.given
        fingerprint = document.digest(source.content, given, self.surroundings, before)
        path = self.out / "notebooks" / f"{cell.name}.ipynb"
        sidecar = path.with_suffix(".json")
        if reused := _reused(cell, path, sidecar, fingerprint):
            return reused
        folder = self.work / cell.name
        folder.mkdir()
        (folder / "input.ipynb").write_text(document.dump(source.content))
        cells = len(document.code(source.content))
        job = NotebookJob(folder, source.folder, given, self.timeout, cells, tags(given))
        start = time.monotonic()
        with self.board.running(cell.name, job) if self.board else contextlib.nullcontext():
            error = self.crew.execute(job)
        seconds = round(time.monotonic() - start, 3)
        status: Status = "failed" if error else "executed"
        shown = {name: value for name, value in given.items() if name != "run_folder"}
        done = Done(
            cell.name, source.name, shown, status, seconds, error, path, fingerprint, _now()
        )
        # Until the new one is there, the two do not belong together.
        sidecar.unlink(missing_ok=True)
        files.write(path, document.dump(_result(folder, source, status)))
        files.write(sidecar, json.dumps(_entry(done), indent=1, default=str))
        return done

    def _note(self, done: Done) -> None:
        self.done[done.cell] = done
        self.write_manifest()
        note = f" in {done.seconds:.1f} s" if done.status == "executed" else ""
        note += f": {done.error}" if done.error else ""
        left = self.board.done(done.cell) if self.board else ""
        progress.say(f"  {done.cell}: {done.status}{note}{left}")

    def write_manifest(self, *, finished: bool = False) -> None:
        """Write what is known so far: a run that is killed can be read, and resumed.

        Other notebooks, of an earlier batch into this folder, stay in it.
        """
        now = {name: _entry(done) for name, done in self.done.items()}
        manifest = {
            "what": f"PGO Crash Lab {__version__}",
            "started": self.started,
            "finished": _now() if finished else None,
            "platform": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            "arguments": self.arguments,
            "toolchains": [
                {
                    "name": t.name,
                    "kind": t.kind,
                    "version": t.version,
                    "raw_version": t.raw_version,
                    "digest": hashlib.sha256(t.identity.encode()).hexdigest()[:16],
                }
                for t in self.toolchains
            ],
            "notebooks": dict(sorted({**self.earlier, **now}.items())),
        }
        files.write(self.out / "manifest.json", json.dumps(manifest, indent=1, default=str))


def _earlier(manifest: Path, arguments: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """Return what a manifest says of other notebooks than these."""
    these = {Path(str(each)).stem for each in listed(arguments.get("notebooks", []))}
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        known = json.loads(manifest.read_text())["notebooks"]
        return {name: entry for name, entry in known.items() if entry["notebook"] not in these}
    return {}


def _result(folder: Path, source: Source, status: Status) -> NotebookNode:
    """Return what came out; the input where the process was killed before it could write that."""
    try:
        made = document.read(folder / "output.ipynb")
    except LabError:
        return source.content
    return made if status == "failed" else document.with_prose(made, source.content)


def _reused(cell: Cell, path: Path, sidecar: Path, fingerprint: str) -> Done | None:
    """Return an earlier execution that is still true, its prose brought up to date."""
    try:
        entry = json.loads(sidecar.read_text())
        if entry["fingerprint"] != fingerprint or entry["status"] == "failed":
            return None
        done = Done(
            cell.name,
            cell.source.name,
            entry["parameters"],
            "reused",
            entry["seconds"],
            None,
            path,
            fingerprint,
            entry["when"],
        )
        executed = document.read(path)
    except (OSError, ValueError, KeyError, LabError):
        return None
    current = document.with_prose(executed, cell.source.content)
    if current != executed:
        files.write(path, document.dump(current))
    return done


def _entry(done: Done) -> dict[str, object]:
    keys = ("notebook", "parameters", "status", "seconds", "when", "error", "fingerprint")
    return {key: getattr(done, key) for key in keys}


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in out.iterdir()}
    if there and not there & {"manifest.json", ".lock"}:
        raise LabError(str(out), "not a run's folder, and not empty", "choose another (-o)")
    lock = filelock.FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        do = "wait for it, or choose another folder (-o)"
        raise LabError(str(out), "another run is writing there", do) from None
    try:
        for left in out.glob(".work-*"):  # by a run that was killed: we hold the lock
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()


def _surroundings(there: Sequence[discovery.Toolchain]) -> list[object]:
    """Return what the outputs depend on besides the notebook: code, data, compilers, packages."""
    packages = [(name, importlib.metadata.version(name)) for name in _SHOWN]
    compilers = sorted((t.name, t.identity) for t in there)
    return [own_digest(), platform.python_version(), packages, compilers]


def own_digest() -> str:
    """Return a digest of this package and its data; how the site looks is not in a notebook."""
    package, data = Path(__file__).parent.parent, settings.data_dir()
    digest = hashlib.sha256()
    for path in sorted({*package.rglob("*.py"), *data.rglob("*")}):
        compiled = path.suffix == ".pyc"
        if path.is_file() and not compiled and data / "site" not in path.parents:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _jobs(jobs: int | None) -> int:
    return jobs or os.cpu_count() or 1


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
