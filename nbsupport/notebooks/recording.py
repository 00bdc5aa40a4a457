"""What comes with the project, made anew: the recorded run, and the committed notebooks."""

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nbsupport.base import files, progress, settings
from nbsupport.base.errors import LabError, from_os
from nbsupport.notebooks import batch, diff, document, results
from nbsupport.notebooks.batch import Done
from nbsupport.notebooks.results import Run
from nbsupport.trace import trace


def record(run: Path) -> None:
    """Make a run the one that comes with the project: its tables, manifest and picture.

    A run of several LLVMs becomes the recording of all of them (data/recorded/versions). One of
    some notebooks alone takes their place in the recording, and leaves the rest as it is.
    """
    whole = results.read(run)
    entries = whole.manifest["notebooks"]
    if failed := [name for name, entry in entries.items() if entry["status"] == "failed"]:
        raise LabError(
            f"recording {run}", f"{', '.join(failed)} failed", "mend it and run it again"
        )
    several = any(name != entry["notebook"] for name, entry in entries.items())
    recorded = settings.data_dir() / "recorded" / ("versions" if several else "")
    books = {path.stem for path in settings.notebooks_dir().glob("*.ipynb")}
    earlier = whole
    if not several and (recorded / "manifest.json").is_file():
        earlier = results.load(recorded)
    part = (earlier.manifest["notebooks"].keys() & books) - entries.keys()
    if part:
        whole = _joined(earlier, whole)
        entries = whole.manifest["notebooks"]
    results.save(whole, recorded)
    manifest = {key: value for key, value in whole.manifest.items() if key != "arguments"}
    keep = ("notebook", "parameters", "status", "seconds")  # and no place on this machine
    manifest["notebooks"] = {name: {k: entry[k] for k in keep} for name, entry in entries.items()}
    files.write(recorded / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    if not several and not part:
        trace.keep(settings.cache_dir())  # the traces that notebook 02 shows


def _joined(earlier: Run, part: Run) -> Run:
    """Return an earlier run with some of its notebooks, and their tables, out of a later one."""
    entries = part.manifest["notebooks"]
    manifest = {**earlier.manifest}
    manifest["notebooks"] = dict(sorted({**manifest["notebooks"], **entries}.items()))
    kept = earlier.claims[~earlier.claims["notebook"].isin(entries.keys())]
    claims = pd.concat([kept, part.claims]).sort_values("notebook", kind="stable")
    return Run(manifest, claims.reset_index(drop=True), {**earlier.tables, **part.tables})


def refresh(paths: Sequence[Path], *, jobs: int | None = None) -> tuple[Done, ...]:
    """Execute committed notebooks with their default parameters, and normalize them in place.

    `paths` are notebooks, or folders of them. Says what changed of what they claim and record
    before anything is written; what fails, or did not change, is not. Raises `LabError` where an
    output shows a place on this machine.
    """
    folders = [sorted(path.glob("*.ipynb")) if path.is_dir() else [path] for path in paths]
    paths = [path for folder in folders for path in folder]
    try:
        with tempfile.TemporaryDirectory(prefix="pgo-lab-refresh-") as folder:
            before, after = Path(folder, "before"), Path(folder, "after")
            done = batch.execute(paths, after, {}, jobs=jobs, tell_folder=False)
            (before / "notebooks").mkdir(parents=True)
            for path in paths:
                shutil.copy(path, before / "notebooks")
            _tell(before, after)
            for path, cell in zip(paths, done, strict=True):
                if cell.status == "executed":
                    _commit(cell.path, path)
    except OSError as error:
        raise from_os("refreshing notebooks", error) from error
    return done


def _tell(before: Path, after: Path) -> None:
    with contextlib.suppress(LabError):  # nothing was committed that claims anything
        found = dataclasses.replace(diff.diff(str(before), str(after)), surroundings=())
        for line in found.lines():
            progress.say(line.replace(str(before), "committed").replace(str(after), "now"))


def _commit(executed: Path, path: Path) -> None:
    normal = document.normalize(document.read(executed))
    if shown := document.machine_paths(normal):
        why = f"cell {shown[0][0]} shows the path {shown[0][1]}"
        raise LabError(str(path), why, "print names, not places")
    text = document.dump(normal)
    if text != path.read_text():
        files.write(path, text)
        progress.say(f"{path}: changed")
