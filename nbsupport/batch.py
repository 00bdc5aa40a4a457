"""Notebooks executed into a run's folder, side by side, each only when something changed.

A run's folder has ``notebooks/NAME.ipynb`` (executed), ``notebooks/NAME.json`` beside it
(what it was executed from) and ``manifest.json`` (what, when, with which toolchains).
``python -m nbsupport.batch refresh notebooks`` executes and normalizes the committed ones.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import filelock
from nbformat import NotebookNode

from nbsupport import __version__, files, notebook, progress, settings, toolchains
from nbsupport.errors import LabError, from_os
from nbsupport.execution import Crew, Job

Status = Literal["executed", "reused", "failed"]

#: They tell of what the others recorded.
LAST = ("00-start-here", "10-upstream-report")
#: Seconds that a cell may take.
TIMEOUT = 600.0

#: Packages whose version shows in outputs.
_SHOWN = ("ipykernel", "ipywidgets", "matplotlib", "pandas", "papermill")


@dataclass(frozen=True)
class Done:
    """How one notebook fared; `error` is one line, `path` the executed notebook."""

    notebook: str
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
) -> tuple[Done, ...]:
    """Execute notebooks into the run's folder `out` and return how each fared.

    A notebook gets those `parameters` that it declares (and `run_folder`, where it
    declares that). What did not change since it was executed there is reused. A notebook that fails
    is kept as it is; the others go on. Raises `LabError` for bad input, a full
    disk, or another run in that folder; an interrupt ends all kernels, keeps what is done.
    """
    sources = {path.stem: _Source.of(path) for path in notebooks}
    if len(sources) < len(notebooks):
        raise LabError("notebooks", "two have the same name", "rename one, or run them apart")
    out = out.absolute()
    try:
        with _alone(out), tempfile.TemporaryDirectory(prefix=".work-", dir=out) as work:
            run = _Run(out, Path(work), {**parameters, "run_folder": str(out)}, timeout)
            first = [source for name, source in sources.items() if name not in last]
            rest = [source for name, source in sources.items() if name in last]
            progress.say(f"executing {len(sources)} notebooks, {_jobs(jobs)} at once, into {out}")
            run.all(first, jobs)
            run.all(rest, jobs, after=[run.done[source.name] for source in first])
            run.write_manifest(finished=True)
            return tuple(run.done[name] for name in sources)
    except OSError as error:
        raise from_os(f"running notebooks into {out}", error) from error


def refresh(paths: Sequence[Path], *, jobs: int | None = None) -> tuple[Done, ...]:
    """Execute committed notebooks with their default parameters, and normalize them in place.

    A file is written only when it changed. Raises `LabError` where an output shows a
    place on this machine; a notebook that fails stays as it was.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="pgo-lab-refresh-") as folder:
            run = _Run(Path(folder), Path(folder), {}, TIMEOUT)
            run.all([_Source.of(path) for path in paths], jobs)
            for path in paths:
                if run.done[path.stem].status == "executed":
                    _commit(run.done[path.stem].path, path)
    except OSError as error:
        raise from_os("refreshing notebooks", error) from error
    return tuple(run.done[path.stem] for path in paths)


def _commit(executed: Path, path: Path) -> None:
    normal = notebook.normalize(notebook.read(executed))
    if shown := notebook.machine_paths(normal):
        number, place = shown[0]
        raise LabError(
            str(path), f"cell {number} shows the path {place}", "print names, not places"
        )
    text = notebook.dump(normal)
    if text != path.read_text():
        files.write(path, text)
        progress.say(f"{path}: changed")


@dataclass(frozen=True)
class _Source:
    """A notebook to execute."""

    name: str
    folder: Path
    content: NotebookNode

    @classmethod
    def of(cls, path: Path) -> _Source:
        return cls(path.stem, path.absolute().parent, notebook.read(path))


class _Run:
    """One batch on its way into a folder."""

    def __init__(
        self, out: Path, work: Path, parameters: Mapping[str, object], timeout: float
    ) -> None:
        self.out, self.work, self.timeout = out, work, timeout
        self.parameters = parameters
        self.done: dict[str, Done] = {}
        self.started = _now()
        self.toolchains = toolchains.discover()
        self.surroundings = _surroundings(self.toolchains)
        self.crew = Crew()

    def all(self, sources: Sequence[_Source], jobs: int | None, after: Sequence[Done] = ()) -> None:
        """Bring every notebook up to date, `jobs` at once; `after` is what these depend on."""
        before = [(one.notebook, one.fingerprint, one.when) for one in after]
        with ThreadPoolExecutor(_jobs(jobs)) as pool:
            futures = [pool.submit(self.one, source, before) for source in sources]
            try:
                for future in as_completed(futures):
                    self._note(future.result())
            except BaseException:
                for future in futures:
                    future.cancel()
                self.crew.stop()
                raise

    def one(self, source: _Source, before: object) -> Done:
        """Reuse or execute one notebook (in a thread)."""
        takes = notebook.declared(source.content)
        given = {name: value for name, value in self.parameters.items() if name in takes}
        fingerprint = notebook.digest(source.content, given, self.surroundings, before)
        path = self.out / "notebooks" / f"{source.name}.ipynb"
        sidecar = path.with_suffix(".json")
        if reused := _reused(source, path, sidecar, fingerprint):
            return reused
        folder = self.work / source.name
        folder.mkdir()
        (folder / "input.ipynb").write_text(notebook.dump(source.content))
        cells = len(notebook.code(source.content))
        start = time.monotonic()
        error = self.crew.execute(Job(folder, source.folder, given, self.timeout, cells))
        seconds = round(time.monotonic() - start, 3)
        status: Status = "failed" if error else "executed"
        done = Done(source.name, status, seconds, error, path, fingerprint, _now())
        sidecar.unlink(
            missing_ok=True
        )  # until the new one is there, the two do not belong together
        files.write(path, notebook.dump(_result(folder, source, status)))
        files.write(sidecar, json.dumps(_entry(done), indent=1))
        return done

    def _note(self, done: Done) -> None:
        self.done[done.notebook] = done
        self.write_manifest()
        note = f" in {done.seconds:.1f} s" if done.status == "executed" else ""
        note += f": {done.error}" if done.error else ""
        progress.say(f"  {done.notebook}: {done.status}{note}")

    def write_manifest(self, *, finished: bool = False) -> None:
        """Write what is known so far; notebooks of earlier batches stay in it."""
        path = self.out / "manifest.json"
        known: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError, KeyError):
            known = json.loads(path.read_text())["notebooks"]
        known |= {name: _entry(done) for name, done in self.done.items()}
        manifest = {
            "what": f"PGO Crash Lab {__version__}",
            "started": self.started,
            "finished": _now() if finished else None,
            "platform": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "parameters": {k: v for k, v in self.parameters.items() if k != "run_folder"},
            "toolchains": [
                {"name": t.name, "kind": t.kind, "version": t.version, "raw_version": t.raw_version}
                for t in self.toolchains
            ],
            "notebooks": dict(sorted(known.items())),
        }
        files.write(path, json.dumps(manifest, indent=1, default=str))


def _result(folder: Path, source: _Source, status: Status) -> NotebookNode:
    """Return what came out; the input where the process was killed before it could write that."""
    try:
        made = notebook.read(folder / "output.ipynb")
    except LabError:
        return source.content
    return made if status == "failed" else notebook.with_prose(made, source.content)


def _reused(source: _Source, path: Path, sidecar: Path, fingerprint: str) -> Done | None:
    """Return an earlier execution that is still true, its prose brought up to date."""
    try:
        entry = json.loads(sidecar.read_text())
        if entry["fingerprint"] != fingerprint or entry["status"] == "failed":
            return None
        done = Done(source.name, "reused", entry["seconds"], None, path, fingerprint, entry["when"])
        executed = notebook.read(path)
    except (OSError, ValueError, KeyError, LabError):
        return None
    current = notebook.with_prose(executed, source.content)
    if current != executed:
        files.write(path, notebook.dump(current))
    return done


def _entry(done: Done) -> dict[str, object]:
    keys = ("status", "seconds", "when", "error", "fingerprint")
    return {key: getattr(done, key) for key in keys}


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
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


def _surroundings(there: Sequence[toolchains.Toolchain]) -> list[object]:
    """Return what the outputs depend on besides the notebook: code, data, compilers, packages."""
    packages = [(name, importlib.metadata.version(name)) for name in _SHOWN]
    compilers = sorted((t.name, t.identity) for t in there)
    return [_own_digest(), platform.python_version(), packages, compilers]


def _own_digest() -> str:
    """Return a digest of this package and its data; how the site looks is not in a notebook."""
    package, data = Path(__file__).parent, settings.data_dir()
    digest = hashlib.sha256()
    for path in sorted({*package.rglob("*.py"), *data.rglob("*")}):
        if path.is_file() and data / "site" not in path.parents:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _jobs(jobs: int | None) -> int:
    return jobs or os.cpu_count() or 1


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def main(arguments: Sequence[str]) -> int:
    """Refresh committed notebooks: ``refresh PATH…``, each a notebook or a folder of them."""
    parser = argparse.ArgumentParser(prog="python -m nbsupport.batch", description=main.__doc__)
    parser.add_argument("command", choices=["refresh"])
    parser.add_argument("path", nargs="+", type=Path)
    given = parser.parse_args(arguments)
    try:
        done = refresh([found for path in given.path for found in _notebooks(path)])
    except LabError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: no notebook was changed\n")
        return 130
    return 3 if any(one.status == "failed" for one in done) else 0


def _notebooks(path: Path) -> list[Path]:
    return sorted(path.glob("*.ipynb")) if path.is_dir() else [path]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
