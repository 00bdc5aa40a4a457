"""The parameters of a notebook: what each may be, and a form that sets them for the cells below."""

from __future__ import annotations

import functools
import html
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets

from nbsupport.base import settings
from nbsupport.base.errors import LabError
from nbsupport.lab import programs
from nbsupport.lab.lab import INSTRUMENTS, ORDERS
from nbsupport.notebooks import document
from nbsupport.show import shown, widgets
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain

#: The name of an LLVM, as `toolchains.find` takes it, but for a path.
_NAME = re.compile(r"[\w.+-]+(@[\w.+-]+)?")
_ONE = "a version (19), a provider's (19@wheel) or the path of a clang"
_LLVM = {"needed": _ONE, "LLVM": _ONE, "LLVMs": "versions with commas between them (17,18,19)"}
_RERUN = (
    "Run the cells below again: select the next one, then Run > Run Selected Cell and All Below. "
    "(Run All Cells would set the defaults again.)"
)
#: Fewer runs give no interval (`benefit`).
_LEAST = 3
#: What a parameter is, by its name; of some, all that it may be. A notebook cannot do without a
#: "needed" LLVM; another one that is not here it leaves out, or has it recorded.
KINDS: dict[str, str | Callable[[], Sequence[str]]] = {
    **dict.fromkeys(("llvm", "foreign", "twin"), "needed"),
    **dict.fromkeys(("alike", "compare_to", "rustc", "newest"), "LLVM"),
    **dict.fromkeys(("grid", "versions"), "LLVMs"),
    "source": lambda: ("live", "recorded"),
    "program": programs.names,
    "order": lambda: ORDERS,
    "instrument": lambda: INSTRUMENTS,
    "repetitions": "number",
    "run_folder": "text",
}


def check(name: str, value: object, source: object = "live") -> None:
    """Raise `LabError` for a parameter that has a wrong value; it says which are allowed.

    With a `source` other than "live" no compiler is asked for.
    """
    kind, what = KINDS.get(name, "text"), f"{name} {value!r}"
    if kind == "number":
        if type(value) is not int or value < _LEAST:
            raise LabError(what, "no number, or too small", f"take {_LEAST} or more")
        return
    if not isinstance(value, str):
        do = f'write {name} = "{value}" (papermill: -r {name} {value})'
        raise LabError(what, "not a text", do)
    if callable(kind) and value not in kind():
        raise LabError(what, "not known", f"choose one of {', '.join(kind())}")
    if isinstance(kind, str) and kind in _LLVM:
        for each in value.split(",") if kind == "LLVMs" else [value]:
            if os.sep not in each and not _NAME.fullmatch(each):
                raise LabError(what, f"no LLVM is called {each!r}", f"give {_LLVM[kind]}")
    if kind == "needed" and source == "live":
        discovery.find(value)


def form(name: str, namespace: dict[str, Any]) -> widgets.Live:
    """Check the parameters of the notebook `name`, and return a form that changes them.

    They are read from `namespace` (the notebook's globals), and set there as a control changes;
    a wrong value is told below, and not set. Raises `LabError` for a wrong value. A page without a
    kernel shows the values, and what they are.
    """
    path = settings.notebooks_dir() / f"{name}.ipynb"
    if path.is_file():
        book = document.read(path)
        defaults, told = document.defaults(book), document.comments(book)
    else:  # an installed wheel has none
        defaults, told = {n: namespace[n] for n in KINDS if n in namespace}, {}
    values = {each: namespace.get(each, default) for each, default in defaults.items()}
    for each, value in values.items():
        check(each, value, values.get("source", "live"))
    columns = ("parameter", "value", "what it is")
    rows = [(each, str(value), told.get(each, "")) for each, value in values.items()]
    return widgets.Live(_rows(defaults, told, namespace), shown.table(columns, rows, marked=False))


def _rows(
    defaults: Mapping[str, object], told: Mapping[str, str], namespace: dict[str, Any]
) -> list[Any]:
    """Return a row of the form for each parameter, and a line that says how things stand."""
    status, wrong = ipywidgets.HTML(), dict[str, str]()

    def say() -> None:
        changed = [n for n, value in defaults.items() if namespace.get(n, value) != value]
        said = f"Not the default: {', '.join(f'{n} = {namespace[n]!r}' for n in changed)}. {_RERUN}"
        lines = [*wrong.values(), said if changed else "All values are the defaults."]
        paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
        status.value = widgets.page(f'<div class="form-status" role="status">{paragraphs}</div>')

    def change(name: str, event: Mapping[str, Any]) -> None:
        wrong.pop(name, None)
        try:
            check(name, event["new"], namespace.get("source", "live"))
            namespace[name] = event["new"]
        except LabError as error:
            wrong[name] = f"{error}. (It stays {namespace.get(name)!r}.)"
        say()

    rows, live = [], namespace.get("source", "live") == "live"
    there = discovery.discover() if live else ()
    for name, default in defaults.items():
        control = _control(name, namespace.get(name, default), there)
        control.observe(functools.partial(change, name), names="value")
        said = ipywidgets.HTML(html.escape(told.get(name, "")))
        rows.append(ipywidgets.HBox([control, said], layout={"flex_flow": "row wrap"}))
    say()
    return [*rows, status]


def _control(name: str, value: Any, there: Sequence[Toolchain]) -> Any:
    """Return the control of a parameter, labelled with its name; LLVMs are of those `there`."""
    kind = KINDS.get(name)
    look: dict[str, Any] = {"description": name, "value": value, "layout": {"width": "20em"}}
    look["style"] = {"description_width": "6em"}
    if callable(kind):
        return ipywidgets.Dropdown(options=kind(), **look)
    if kind == "number":
        return ipywidgets.BoundedIntText(min=_LEAST, max=10_000, **look)
    if kind not in ("needed", "LLVM"):
        return ipywidgets.Text(continuous_update=False, **look)
    compiler = "rustc" if name in ("rustc", "newest") else "clang"
    mine = [t for t in there if t.kind == compiler]
    options = [*dict.fromkeys([*(t.major for t in mine), *(t.name for t in mine)])]
    return ipywidgets.Combobox(options=options, continuous_update=False, **look)
