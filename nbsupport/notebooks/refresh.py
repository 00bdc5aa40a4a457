"""The committed notebooks: executed with their default parameters, normalized, told what changed.

``python -m nbsupport.notebooks.refresh PATH…``, each a notebook or a folder of them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nbsupport.base import files, progress
from nbsupport.base.errors import LabError, from_os
from nbsupport.notebooks import batch, diff, document
from nbsupport.notebooks.batch import Done


def refresh(paths: Sequence[Path], *, jobs: int | None = None) -> tuple[Done, ...]:
    """Execute committed notebooks with their default parameters, and normalize them in place.

    Says what changed of what they claim and record before anything is written; a file is
    written only when it changed. Raises `LabError` where an output shows a place on this
    machine; a notebook that fails stays as it was.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="pgo-lab-refresh-") as folder:
            before, after = Path(folder, "before"), Path(folder, "after")
            after.mkdir()
            done = batch.by_default(paths, after, jobs=jobs)
            (before / "notebooks").mkdir(parents=True)
            for path in paths:
                shutil.copy(path, before / "notebooks")
            _tell(before, after)
            for path in paths:
                if done[path.stem].status == "executed":
                    _commit(done[path.stem].path, path)
    except OSError as error:
        raise from_os("refreshing notebooks", error) from error
    return tuple(done[path.stem] for path in paths)


def _tell(before: Path, after: Path) -> None:
    """Say what changed from the committed notebooks to those just executed."""
    with contextlib.suppress(LabError):  # nothing was committed that claims anything
        found = dataclasses.replace(diff.diff(str(before), str(after)), surroundings=())
        for line in found.lines():
            progress.say(line.replace(str(before), "committed").replace(str(after), "now"))


def _commit(executed: Path, path: Path) -> None:
    normal = document.normalize(document.read(executed))
    if shown := document.machine_paths(normal):
        number, place = shown[0]
        raise LabError(
            str(path), f"cell {number} shows the path {place}", "print names, not places"
        )
    text = document.dump(normal)
    if text != path.read_text():
        files.write(path, text)
        progress.say(f"{path}: changed")


def main(arguments: Sequence[str]) -> int:
    """Refresh committed notebooks; return an exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m nbsupport.notebooks.refresh", description=__doc__
    )
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
