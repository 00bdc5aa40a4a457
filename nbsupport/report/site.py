"""The site of a run: pages that need nothing from the web, built by Sphinx from executed notebooks.

Around the notebooks stand the pages of `front`; what all look like is in `data/site`.
"""

import datetime
import json
import shutil
import sys
import tempfile
from pathlib import Path

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
    opened = results.open_run(run)
    notebooks = _notebooks(run, opened)
    require(out)
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".site-", dir=out.absolute().parent) as folder:
            source, built = Path(folder, "source"), Path(folder, "built")
            _stage(notebooks, opened, source)
            _sphinx(source, built)
            (built / _MARK).touch()
            _swap(built, out, Path(folder, "old"))
    except OSError as error:
        raise from_os(f"building the site {out}", error) from error
    return out / "index.html"


def require(out: Path) -> None:
    """Raise `LabError` where a site cannot go: something else is there."""
    if out.exists() and not out.is_dir():
        raise LabError(str(out), "not a site of ours, but a file", "choose another folder")
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not (out / _MARK).is_file() and not empty:
        raise LabError(str(out), "not a site of ours, and not empty", "choose another folder")


def _notebooks(folder: str, run: Run) -> list[Path]:
    if not run.recorded:
        return results.executed(Path(folder), run.manifest)
    committed = sorted(settings.notebooks_dir().glob("*.ipynb"))
    if not committed:
        raise MissingError("the recorded notebooks", "they come with a checkout", "clone it")
    return committed


def _swap(built: Path, out: Path, old: Path) -> None:
    if out.exists():
        out.rename(old)
    try:
        built.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise


def _stage(notebooks: list[Path], run: Run, source: Path) -> None:
    """Lay out what Sphinx reads: configuration, looks, and a page for each notebook."""
    shutil.copytree(settings.data_dir() / "site", source)
    names = [path.stem for path in notebooks]
    entries = run.manifest.get("notebooks", {})
    titles = {}
    for path in notebooks:
        book, error = document.read(path), entries.get(path.stem, {}).get("error")
        titles[path.stem] = pages.title(book, path.stem)
        page = document.normalize(pages.page(book, names, error=error), excerpts=True)
        files.write(source / path.name, document.dump(page))
    for name, text in front.render(run, titles).items():
        files.write(source / name, pages.linked(text, names))
    values = {name: entry.get("parameters", {}) for name, entry in entries.items()}
    replayed = [name for name in values if values[name].get("source") == "recorded"]
    notes = {"when": when(run), "recorded": names if run.recorded else replayed}
    files.write(source / "site.json", json.dumps({**notes, "live": not run.recorded}))


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
    command += ["-d", str(source.with_name("doctrees")), str(source), str(built)]
    done = process.run(command, cwd=source, limits=settings.COMPILER)
    if not done.ok:
        why = first_line(done.stderr.replace(f"{source}/", ""))
        if done.signal:
            why = f"ended by {done.signal_name}"
        raise LabError("the site", f"Sphinx: {why}", "mend the notebook, and run it again")
