"""The report of a run: an HTML site that needs nothing from the web."""

from __future__ import annotations

import datetime
import html
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from nbsupport import contain, files, notebook, results, settings, views
from nbsupport.errors import LabError, first_line, from_os

#: In the folder of a site, so that nothing but a site is ever replaced by one.
_MARK = ".pgo-lab-site"

#: A link of Markdown: text, target, and an anchor in it.
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def site(run: Path, out: Path) -> Path:
    """Build the site of a run in the folder `out` and return its front page.

    An earlier site there is replaced when the new one is whole. Raises `LabError` where
    `run` has no notebooks, `out` is something other than a site, or Sphinx objects.
    """
    manifest = results.read(run).manifest
    notebooks = results.executed(run, manifest)
    if out.exists() and not (out / _MARK).is_file() and not _empty(out):
        raise LabError(str(out), "not a site of ours, and not empty", "choose another folder (-o)")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".site-", dir=out.absolute().parent) as folder:
            source, built = Path(folder, "source"), Path(folder, "built")
            _stage(notebooks, manifest, source)
            _sphinx(source, built)
            shutil.copyfile(built / f"{notebooks[0].stem}.html", built / "index.html")
            (built / _MARK).touch()
            _swap(built, out, Path(folder, "old"))
    except OSError as error:
        raise from_os(f"building the site {out}", error) from error
    return out / "index.html"


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


def _stage(notebooks: list[Path], manifest: Mapping[str, Any], source: Path) -> None:
    """Lay out what Sphinx reads: configuration, looks, and a page for each notebook."""
    shutil.copytree(settings.data_dir() / "site", source)
    pages = [path.stem for path in notebooks]
    notes = {"root": pages[0], "run": run_line(manifest)}
    files.write(source / "site.json", json.dumps(notes))
    for path in notebooks:
        error = manifest.get("notebooks", {}).get(path.stem, {}).get("error")
        made = page(notebook.read(path), pages, error=error)
        if path.stem == pages[0]:
            made.cells.append(_markdown(_contents(pages)))
        files.write(source / path.name, notebook.dump(notebook.normalize(made, excerpts=True)))


def _contents(pages: list[str]) -> str:
    entries = "\n".join(["self", *pages[1:]])
    return f"```{{toctree}}\n:hidden:\n\n{entries}\n```"


def run_line(manifest: Mapping[str, Any]) -> str:
    """Return the line at the foot of each page: when, where and with what it was executed."""
    when = manifest.get("finished") or manifest.get("started")
    if not when:
        return "Executed at an unknown time."
    day = datetime.datetime.fromisoformat(when).strftime("%Y-%m-%d %H:%M UTC")
    compilers = [t for t in manifest.get("toolchains", ()) if t["kind"] == "clang"]
    versions = ", ".join(dict.fromkeys(t["version"] for t in compilers)) or "none"
    return f"Executed {day} on {manifest['platform']}, with LLVM {versions}."


def page(
    executed: NotebookNode, pages: Collection[str], *, error: str | None = None
) -> NotebookNode:
    """Return an executed notebook as a page of the site that has these `pages`.

    Outputs that only a live notebook can show are left out; links to what is not in the
    site become text; what went wrong (`error`) is said below the title.
    """
    cells = [cell for cell in executed.cells if notebook.PAPERMILL_ERROR not in notebook.tags(cell)]
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = _LINK.sub(lambda match: _link(match, pages), cell.source)
        elif cell.cell_type == "code":
            cell.outputs = [_shown(output) for output in cell.outputs if not _live(output)]
    if error:
        cells.insert(1, _markdown(f":::{{error}}\nThis notebook failed: {_literal(error)}\n:::"))
    executed.cells = cells
    return executed


def _link(match: re.Match[str], pages: Collection[str]) -> str:
    text, target = match[1], match[2]
    outside = re.match(r"[a-z]+:", target) is not None
    here = target.endswith(".ipynb") and target.removesuffix(".ipynb") in pages
    return match[0] if outside or here else text


def _literal(text: str) -> str:
    """Return text that Markdown does not read: as code, with a fence that it does not hold."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}"


def _live(output: NotebookNode) -> bool:
    """Return whether an output is a widget; its static twin is another output."""
    data = output.get("data", {})
    return notebook.WIDGET in data and "text/html" not in data


def _shown(output: NotebookNode) -> NotebookNode:
    data = output.get("data", {})
    if claim := data.pop(results.CLAIM, None):
        data["text/html"] = _claim(claim)
    data.pop(results.TABLE, None)
    return output


def _claim(claim: Mapping[str, Any]) -> str:
    word, kind = ("✓ holds", "holds") if claim["holds"] else ("✗ does not hold", "fails")
    line = f'<p class="claim {kind}"><strong>{word}</strong>{html.escape(claim["sentence"])}'
    if not claim["holds"]:
        seen = f"predicted {claim['predicted']}, observed {claim['observed']}"
        line += f"<small>{html.escape(seen)}</small>"
    return f"{line}</p>"


def _markdown(source: str) -> NotebookNode:
    cell: NotebookNode = nbformat.v4.new_markdown_cell(source)  # type: ignore[no-untyped-call]
    return cell


def _sphinx(source: Path, built: Path) -> None:
    """Run Sphinx; a warning is an error, since a page with a hole is not a report."""
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going"]
    doctrees = source.with_name("doctrees")
    done = contain.run(
        [*command, "-d", doctrees, source, built], cwd=source, limits=settings.COMPILER
    )
    if not done.ok:
        said = done.stderr.replace(f"{source}/", "")
        why = f"ended by {done.signal_name}" if done.signal else first_line(said)
        raise LabError("the site", f"Sphinx: {why}", "mend the notebook, and run it again")


def record(run: Path) -> None:
    """Make a run the one that comes with the project: its tables, manifest and picture.

    A run of several LLVMs becomes the recording of all of them (data/recorded/versions).
    """
    from nbsupport import trace  # noqa: PLC0415 - a fifth of a second, only here

    found = results.read(run)
    entries = found.manifest["notebooks"]
    several = any(name != entry["notebook"] for name, entry in entries.items())
    recorded = settings.data_dir() / "recorded" / ("versions" if several else "")
    results.save(found, recorded)
    manifest = {key: value for key, value in found.manifest.items() if key != "arguments"}
    keep = ("notebook", "parameters", "status", "seconds")  # and no place on this machine
    manifest["notebooks"] = {
        name: {key: entry[key] for key in keep} for name, entry in entries.items()
    }
    files.write(recorded / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    if not several:
        files.write(recorded / "grid.svg", views.svg(views.grid(found.tables["trials"])))
        trace.keep(settings.cache_dir())


if __name__ == "__main__":
    record(Path(sys.argv[1]))
