"""A notebook set up: its parameters checked and, where there are no compilers, what was recorded.

The recording is the committed notebook, executed with its default parameters. A cell that is
there as it was written shows its outputs; any other is executed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import display
from nbformat import NotebookNode

from nbsupport.base import settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.notebooks import document, parameters, results
from nbsupport.show import look
from nbsupport.show.shown import Shown, element

#: The cell below which a recording is shown.
SET_UP = re.compile(r"^start\(", re.MULTILINE)
#: What to do about a stale recording, and how it looks in JupyterLab.
_RENEW = (
    'Take source = "live", or restore what was recorded (git restore notebooks data); '
    "its authors renew it with make refresh and make record."
)
_BOX = f"border-left: 4px solid {look.ORANGE}; padding-left: 1em"

_recorded: dict[str, Sequence[Mapping[str, Any]]] = {}


def start(name: str, namespace: dict[str, Any], *, replayed: bool = True) -> Any:
    """Set up the notebook `name`: check its parameters, and show a form that changes them.

    `namespace` is the notebook's globals. Where its `source` is `recorded`, recorded outputs are
    shown from the next cell on, unless the cells themselves read a recording (not `replayed`).
    Raises `LabError` for a wrong parameter, or one that was not recorded.
    """
    form = parameters.form(name, namespace)
    _recorded.clear()
    if namespace.get("source", "live") == "live" or not replayed:
        return form
    note = _replay(name, namespace)
    display(form)  # type: ignore[no-untyped-call]
    return note


def _replay(name: str, values: Mapping[str, object]) -> Shown:
    """Show recorded outputs from the next cell on; return what says so on the page."""
    path = settings.notebooks_dir() / f"{name}.ipynb"
    if not path.is_file():
        raise MissingError(f"the recording of {name}", "notebooks come with a checkout", "clone it")
    book = document.read(path)
    defaults = document.defaults(book)
    for key in defaults.keys() - {"source", "run_folder"}:
        if values.get(key) != defaults[key]:
            what, why = f"{key} {values.get(key)!r}", f"recorded with {defaults[key]!r} only"
            raise LabError(what, why, 'leave it out, or take source = "live"')
    shell = get_ipython()
    if shell is None:
        raise LabError("a recording", "only a notebook can show it", "open it in JupyterLab")
    cells = document.code(book)
    begin = next((n for n, cell in enumerate(cells, 1) if SET_UP.search(cell.source)), 0)
    _recorded.update({cell.source: cell.outputs for cell in cells[begin:]})  # what is above, runs
    if _replayed not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.append(_replayed)
    shell.set_custom_exc((NameError,), _unmade)  # type: ignore[no-untyped-call]
    run = results.recorded()
    origin = results.provenance(run)
    note = "Nothing below was run here, unless you change a cell."
    text = f"{origin.text}. {note}"
    page = origin.html + element("p", element("strong", note))
    if why := stale(book, run, name):
        line = f"Stale recording: {why}. {_RENEW}"
        text += f"\n{line}"
        page += element("div", element("p", line), class_="admonition warning", style=_BOX)
    return Shown(text, page)


def stale(book: NotebookNode, run: results.Run, name: str) -> str:
    """Return why a notebook is not the one that was recorded in a run, or ""."""
    if run.outdated:
        return f"the recorded run was made by {run.outdated}"
    cells = document.code(book)
    changed = sum(bool(cell.source.strip()) and not cell.execution_count for cell in cells)
    if changed:
        return f"{changed} of its cells were not executed since they were written"
    outputs = [output.get("data", {}) for cell in cells for output in cell.outputs]
    records = [data[document.CLAIM] for data in outputs if document.CLAIM in data]
    # Counts differ: the whole run tries more programs. What counts is whether a claim holds.
    here = {(r["name"], json.dumps(r["at"], sort_keys=True), r["holds"]) for r in records}
    claims = run.claims[run.claims["notebook"] == name]
    recorded = set(claims[["name", "at", "holds"]].itertuples(index=False, name=None))
    # The recorded run is of the whole: it claims more than a notebook with its default scope.
    more = {claim for claim in recorded - here if "scope" in json.loads(claim[1])}
    others = here ^ (recorded - more)
    if not others:
        return ""
    names = ", ".join(sorted({claim[0] for claim in others}))
    return f"the notebook here and the recorded run claim different things ({names})"


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
    called = "from nbsupport.notebooks.replay import show as _show_recorded\n"
    return [called, f"_show_recorded({text!r})\n"]


def show(text: str) -> None:
    """Show the recorded outputs of a cell."""
    for output in _recorded[text]:
        if output["output_type"] == "stream":
            print(output["text"], end="")  # noqa: T201 - as it was
        else:
            display(dict(output["data"]), raw=True)  # type: ignore[no-untyped-call]
