"""A notebook on a machine without compilers: its cells show what was recorded, and say so.

The recording is the committed notebook, executed with its default parameters. A cell that is
there as it was written shows its outputs; any other is executed.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nbformat import NotebookNode

from nbsupport.base import settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.notebooks import document, results
from nbsupport.show import look, shown

#: What to do about a stale recording, and how it looks in JupyterLab.
_RENEW = (
    'Take source = "live", or restore what was recorded (git restore notebooks data); '
    "its authors renew it with make refresh and make record."
)
_BOX = f"border-left: 4px solid {look.ORANGE}; padding-left: 1em"

_recorded: dict[str, Sequence[Mapping[str, Any]]] = {}


def start(name: str, source: str, given: Mapping[str, object]) -> shown.Shown | None:
    """Show recorded outputs from the next cell on, if `source` is `recorded` (not `live`).

    `given` are the parameters; `name` is that of the notebook. Returns what says so on the
    page. Raises `LabError` for another source, or parameters that were not recorded.
    """
    if source not in ("live", "recorded"):
        raise LabError(f"source {source!r}", "not known", "choose live or recorded")
    _recorded.clear()
    if source == "live":
        return None
    path = settings.notebooks_dir() / f"{name}.ipynb"
    if not path.is_file():
        raise MissingError(f"the recording of {name}", "notebooks come with a checkout", "clone it")
    recorded = document.read(path)
    defaults = document.defaults(recorded)
    for key in defaults.keys() - {"source"}:
        if given.get(key) != defaults[key]:
            why = f"recorded with {defaults[key]!r} only"
            raise LabError(
                f"{key} {given.get(key)!r}", why, 'leave it out, or take source = "live"'
            )
    from IPython.core.getipython import get_ipython  # noqa: PLC0415 - only a kernel has it

    cells = document.code(recorded)
    begin = next((n for n, cell in enumerate(cells, 1) if "replay.start(" in cell.source), 0)
    _recorded.update({cell.source: cell.outputs for cell in cells[begin:]})  # what is above, runs
    shell = get_ipython()
    if shell is None:
        raise LabError("a recording", "only a notebook can show it", "open it in JupyterLab")
    if _replayed not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.append(_replayed)
    shell.set_custom_exc((NameError,), _unmade)  # type: ignore[no-untyped-call]
    run = results.recorded()
    made = results.provenance(run)
    told = "Nothing below was run here, unless you change a cell."
    page = f"{made.html}<p><strong>{told}</strong></p>"
    text = f"{made.text}. {told}"
    if why := stale(recorded, run, name):
        line = f"Stale recording: {why}. {_RENEW}"
        text += f"\n{line}"
        page += f'<div class="admonition warning" style="{_BOX}"><p>{html.escape(line)}</p></div>'
    return shown.Shown(text, page)


def stale(book: NotebookNode, run: results.Run, name: str) -> str:
    """Return why a notebook is not the one that was recorded in a run, or ""."""
    if run.outdated:
        return f"the recorded run was made by {run.outdated}"
    cells = document.code(book)
    changed = sum(bool(cell.source.strip()) and not cell.execution_count for cell in cells)
    if changed:
        return f"{changed} of its cells were not executed since they were written"
    here = {
        (said["name"], json.dumps(said["at"], sort_keys=True), said["observed"])
        for cell in cells
        for output in cell.outputs
        if (said := output.get("data", {}).get(results.CLAIM))
    }
    claims = run.claims[run.claims["notebook"] == name]
    others = here ^ set(claims[["name", "at", "observed"]].itertuples(index=False, name=None))
    names = ", ".join(sorted({claim[0] for claim in others}))
    return (
        f"the notebook here and the recorded run claim different things ({names})" if names else ""
    )


def _unmade(shell: Any, kind: type[Exception], error: Any, trace: Any, **_: Any) -> None:
    """Show as advice that a cell needs what those above it, only shown, have not made."""
    if any(re.search(rf"\b{error.name}\b", text) for text in _recorded):
        why = "the cells above show what was recorded, and have made nothing"
        error = LabError(error.name, why, 'set source = "live" and run all cells, from the top')
    shell.showtraceback((type(error), error, trace))


def _replayed(lines: list[str]) -> list[str]:
    """Return the lines of a cell, or what shows its outputs in their place."""
    text = "".join(lines).strip("\n")
    if not _recorded.get(text):
        return [] if text in _recorded else lines
    return [f"__import__('nbsupport.notebooks.replay').notebooks.replay.show({text!r})\n"]


def show(text: str) -> None:
    """Show the recorded outputs of a cell."""
    from IPython.display import display  # noqa: PLC0415

    for output in _recorded[text]:
        if output["output_type"] == "stream":
            print(output["text"], end="")  # noqa: T201 - as it was
        else:
            display(dict(output["data"]), raw=True)  # type: ignore[no-untyped-call]
