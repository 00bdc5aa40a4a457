"""A notebook on a machine without compilers: its cells show what was recorded, and say so.

The recording is the committed notebook, executed with its default parameters. A cell that is
there as it was written shows its outputs; any other is executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nbsupport import notebook, results, settings, views
from nbsupport.errors import LabError, MissingError

_recorded: dict[str, Sequence[Mapping[str, Any]]] = {}


def start(name: str, source: str, given: Mapping[str, object]) -> views.Shown | None:
    """Show recorded outputs from the next cell on, if `source` is `recorded` (not `live`).

    `given` are the parameters; `name` is that of the notebook. Returns what says so on the
    page. Raises `LabError` for another source, or parameters that were not recorded.
    """
    if source not in ("live", "recorded"):
        raise LabError(f"source {source!r}", "not known", "choose live or recorded")
    if source == "live":
        return None
    path = settings.notebooks_dir() / f"{name}.ipynb"
    if not path.is_file():
        raise MissingError(f"the recording of {name}", "notebooks come with a checkout", "clone it")
    recorded = notebook.read(path)
    defaults = notebook.defaults(recorded)
    for key in defaults.keys() - {"source"}:
        if given.get(key) != defaults[key]:
            why = f"recorded with {defaults[key]!r} only"
            raise LabError(
                f"{key} {given.get(key)!r}", why, 'leave it out, or take source = "live"'
            )
    from IPython.core.getipython import get_ipython  # noqa: PLC0415 - only a kernel has it

    _recorded.clear()
    _recorded.update({cell.source: cell.outputs for cell in notebook.code(recorded)})
    shell = get_ipython()
    if shell is None:
        raise LabError("a recording", "only a notebook can show it", "open it in JupyterLab")
    if _replayed not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.append(_replayed)
    made = views.provenance(results.recorded())
    told = "Nothing below was run here, unless you change a cell."
    return views.Shown(f"{made.text}. {told}", f"{made.html}<p><strong>{told}</strong></p>")


def _replayed(lines: list[str]) -> list[str]:
    """Return the lines of a cell, or what shows its outputs in their place."""
    text = "".join(lines).strip("\n")
    if not _recorded.get(text):
        return [] if text in _recorded else lines
    return [f"__import__('nbsupport.replay').replay.show({text!r})\n"]


def show(text: str) -> None:
    """Show the recorded outputs of a cell."""
    from IPython.display import display  # noqa: PLC0415

    for output in _recorded[text]:
        if output["output_type"] == "stream":
            print(output["text"], end="")  # noqa: T201 - as it was
        else:
            display(dict(output["data"]), raw=True)  # type: ignore[no-untyped-call]
