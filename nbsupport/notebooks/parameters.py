"""The parameters of a notebook: what each may be, and a form that sets them for the cells below."""

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import ipywidgets

from nbsupport.base import settings
from nbsupport.base.errors import LabError
from nbsupport.lab import programs
from nbsupport.lab.lab import INSTRUMENTS, ORDERS
from nbsupport.macos.target import Arch
from nbsupport.notebooks import document, results
from nbsupport.show import shown, widgets
from nbsupport.show.shown import Shown, element, escape
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
#: Fewer blocks have no interval (`benefit.interval`).
_LEAST = 6
#: What a parameter is, by its name; of some, all that it may be. A notebook cannot do without a
#: "needed" LLVM; another one that is not here it leaves out, or has it recorded.
KINDS: dict[str, str | Callable[[], Sequence[str]]] = {
    **dict.fromkeys(("llvm", "foreign", "twin"), "needed"),
    **dict.fromkeys(("alike", "compare_to", "rustc", "newest"), "LLVM"),
    **dict.fromkeys(("grid", "versions"), "LLVMs"),
    "source": lambda: ("live", "recorded"),
    "program": programs.names,
    "arch": lambda: ("both", *get_args(Arch)),
    "order": lambda: ORDERS,
    "instrument": lambda: INSTRUMENTS,
    "scope": lambda: results.SCOPES,
    "repetitions": "number",
    **dict.fromkeys(("run_folder", "vendor"), "text"),
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
    if callable(kind):
        if value not in kind():
            raise LabError(what, "not known", f"choose one of {', '.join(kind())}")
    elif kind in _LLVM:
        for llvm in value.split(",") if kind == "LLVMs" else [value]:
            if os.sep not in llvm and not _NAME.fullmatch(llvm):
                raise LabError(what, f"no LLVM is called {llvm!r}", f"give {_LLVM[kind]}")
    if kind == "needed" and source == "live":
        discovery.find(value)


def leave_out(scope: str, what: str) -> Shown:
    """Show in one line what the default scope leaves out, and the command that adds it."""
    line = f"This is a whole run, which adds: {what}."
    if scope != "whole":
        line = f"Left out, since it takes long: {what}. To add it: make report-all."
    return Shown(line, element("p", line))


def form(name: str, namespace: dict[str, Any]) -> widgets.Live:
    """Check the parameters of the notebook `name`, and return a form that changes them.

    They are read from `namespace` (the notebook's globals), and set there as a control changes;
    a wrong value is told below, and not set. Raises `LabError` for a wrong value. A page without a
    kernel shows the values, and what they are.
    """
    path = settings.notebooks_dir() / f"{name}.ipynb"
    if path.is_file():
        book = document.read(path)
        defaults, comments = document.defaults(book), document.comments(book)
    else:  # an installed wheel has none
        defaults, comments = {key: namespace[key] for key in KINDS if key in namespace}, {}
    source = namespace.get("source", "live")
    values = {key: namespace.get(key, default) for key, default in defaults.items()}
    for key, value in values.items():
        check(key, value, source)
    columns = ("parameter", "value", "what it is")
    rows = [(key, str(value), comments.get(key, "")) for key, value in values.items()]
    compilers = discovery.discover() if source == "live" else ()
    controls = {key: _control(key, value, compilers) for key, value in values.items()}
    lines = []
    for key, control in controls.items():
        parts = [control, ipywidgets.HTML(escape(comments.get(key, "")))]
        lines.append(ipywidgets.HBox(parts, layout={"flex_flow": "row wrap"}))
    status = _status(defaults, controls, namespace)
    return widgets.Live([*lines, status], shown.table(columns, rows, marked=False))


def _status(
    defaults: Mapping[str, object], controls: Mapping[str, Any], namespace: dict[str, Any]
) -> Any:
    """Let controls set parameters; return a line that says which are changed, or wrong."""
    pane, wrong = ipywidgets.HTML(), dict[str, str]()

    def tell() -> None:
        values = {key: namespace.get(key, default) for key, default in defaults.items()}
        changed = [f"{key} = {v!r}" for key, v in values.items() if v != defaults[key]]
        line = "All values are the defaults."
        if changed:
            line = f"Not the default: {', '.join(changed)}. {_RERUN}"
        paragraphs = (element("p", text) for text in (*wrong.values(), line))
        status = element("div", *paragraphs, class_="form-status", role="status")
        pane.value = widgets.page(status)

    def change(name: str, event: Mapping[str, Any]) -> None:
        new, old = event["new"], namespace.get(name, defaults[name])
        new = ",".join(new) if isinstance(new, tuple) else new
        if new == old:
            return  # what was refused is put back; the reason stays
        wrong.pop(name, None)
        try:
            check(name, new, namespace.get("source", "live"))
            namespace[name] = new
        except LabError as error:
            wrong[name] = f"{error}. (It stays {old!r}.)"
            several = isinstance(event["new"], tuple)
            controls[name].value = tuple(str(old).split(",")) if several else old
        tell()

    for name, control in controls.items():
        control.observe(functools.partial(change, name), names="value")
    tell()
    return pane


def _control(name: str, value: Any, compilers: Sequence[Toolchain]) -> Any:
    """Return the control of a parameter, labelled with its name; LLVMs are of these `compilers`."""
    kind = KINDS.get(name)
    look: dict[str, Any] = {"description": name, "value": value, "layout": {"width": "20em"}}
    look["style"] = {"description_width": "6em"}
    if callable(kind):
        return ipywidgets.Dropdown(options=kind(), **look)
    if kind == "number":
        return ipywidgets.BoundedIntText(min=_LEAST, max=10_000, **look)
    if kind not in _LLVM:
        return ipywidgets.Text(continuous_update=False, **look)
    compiler = "rustc" if name in ("rustc", "newest") else "clang"
    mine = [tool for tool in compilers if tool.kind == compiler]
    chosen = tuple(value.split(",")) if kind == "LLVMs" else (value,)
    names = (*(tool.major for tool in mine), *(tool.name for tool in mine), *chosen)
    look["options"] = tuple(dict.fromkeys(names))
    if kind == "LLVMs":  # several, in the order of the list
        return ipywidgets.SelectMultiple(rows=5, **{**look, "value": chosen})
    return ipywidgets.Dropdown(**look)
