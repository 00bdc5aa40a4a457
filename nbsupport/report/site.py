"""The site of a run: pages that need nothing from the web, built by Sphinx from executed notebooks.

A front page with the ledger, tours and a glossary stand around the notebooks (templates and
looks are in `data/site`).
"""

from __future__ import annotations

import datetime
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbsupport.base import files, process, settings
from nbsupport.base.errors import LabError, MissingError, first_line, from_os
from nbsupport.notebooks import document, results
from nbsupport.notebooks.results import Run
from nbsupport.report import front, pages

#: In the folder of a site, so that nothing but a site is ever replaced by one.
_MARK = ".pgo-lab-site"


def build(run: str, out: Path) -> Path:
    """Build the site of a run (its folder, or `recorded`) in `out`; return its front page.

    An earlier site there is replaced when the new one is whole. Raises `LabError` where
    `run` has no notebooks, `out` is something other than a site, or Sphinx objects.
    """
    found = results.open_run(run)
    notebooks = _notebooks(run, found)
    if out.exists() and not (out / _MARK).is_file() and not _empty(out):
        raise LabError(str(out), "not a site of ours, and not empty", "choose another folder (-o)")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".site-", dir=out.absolute().parent) as folder:
            source, built = Path(folder, "source"), Path(folder, "built")
            _stage(notebooks, found, source)
            _sphinx(source, built)
            (built / _MARK).touch()
            _swap(built, out, Path(folder, "old"))
    except OSError as error:
        raise from_os(f"building the site {out}", error) from error
    return out / "index.html"


def _notebooks(run: str, found: Run) -> list[Path]:
    if not found.recorded:
        return results.executed(Path(run), found.manifest)
    committed = sorted(settings.notebooks_dir().glob("*.ipynb"))
    if not committed:
        raise MissingError("the recorded notebooks", "they come with a checkout", "clone it")
    return committed


def _empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _swap(built: Path, out: Path, old: Path) -> None:
    if out.exists():
        out.rename(old)
    try:
        built.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise


def _stage(notebooks: list[Path], found: Run, source: Path) -> None:
    """Lay out what Sphinx reads: configuration, looks, and a page for each notebook."""
    shutil.copytree(settings.data_dir() / "site", source)
    names = [path.stem for path in notebooks]
    entries = found.manifest.get("notebooks", {})
    titles = {}
    for path in notebooks:
        entry = entries.get(path.stem, {})
        read = document.read(path)
        titles[path.stem] = pages.title(read, path.stem)
        made = pages.page(read, names, error=entry.get("error"))
        files.write(source / path.name, document.dump(document.normalize(made, excerpts=True)))
    for name, text in front.texts(found, titles).items():
        files.write(source / name, pages.linked(text, names))
    replayed = [n for n, entry in entries.items() if _replayed(entry)]
    notes = {"when": when(found), "recorded": names if found.recorded else replayed}
    files.write(source / "site.json", json.dumps({**notes, "live": not found.recorded}))


def _replayed(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("parameters", {}).get("source") == "recorded")


def when(run: Run) -> str:
    """Return what each page says of its run: when, where and with what it was executed."""
    moment = run.manifest.get("finished") or run.manifest.get("started")
    if not moment:
        return "executed at an unknown time"
    day = datetime.datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M UTC")
    compilers = [t for t in run.manifest.get("toolchains", ()) if t["kind"] == "clang"]
    versions = ", ".join(dict.fromkeys(t["version"] for t in compilers)) or "none"
    return f"executed {day} on {run.manifest['platform']}, with LLVM {versions}"


def _sphinx(source: Path, built: Path) -> None:
    """Run Sphinx; a warning is an error, since a page with a hole is not a report."""
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going"]
    doctrees = source.with_name("doctrees")
    done = process.run(
        [*command, "-d", doctrees, source, built], cwd=source, limits=settings.COMPILER
    )
    if not done.ok:
        said = done.stderr.replace(f"{source}/", "")
        why = f"ended by {done.signal_name}" if done.signal else first_line(said)
        raise LabError("the site", f"Sphinx: {why}", "mend the notebook, and run it again")
