"""Pictures to play with, in a live notebook; each has a static twin for a page without a kernel.

All are made alike: labelled controls, panes of HTML, and `observe`. What is shown is in the
widgets' own traits, so a saved notebook restores it. No handler builds or runs a program.
"""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

from nbsupport.show.shown import Shown

ALL = "all"
_STYLE = (
    ".lab-live{color:var(--jp-content-font-color1,inherit);overflow-x:auto}"
    ".jp-RenderedHTMLCommon.lab-live table{margin-left:0}"
)


class Live(ipywidgets.VBox):  # type: ignore[misc]
    """Widgets one below the other; a page without a kernel shows `static` instead."""

    def __init__(self, parts: Sequence[Any], static: Shown) -> None:
        super().__init__(list(parts))
        self._static = static

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**options)
        return {**bundle, "text/plain": self._static.text, "text/html": self._static.html}


def live(controls: Sequence[Any], draw: Callable[[], str], static: Shown, *above: Any) -> Live:
    """Return controls in a row (what is `above` before them), and below what `draw` returns.

    `draw` returns HTML; it is called now, and whenever the value of a control changes.
    """
    pane = ipywidgets.HTML()

    def redraw(_: object = None) -> None:
        pane.value = page(draw())

    for control in controls:
        control.observe(redraw, names="value")
    redraw()
    return Live([*above, control_row(controls), pane], static)


def control_row(controls: Sequence[Any]) -> Any:
    """Return controls beside each other, which break into lines where there is no room."""
    for control in controls:
        control.style.description_width = "initial"
    return ipywidgets.HBox(controls, layout={"flex_flow": "row wrap"})


def page(content: str) -> str:
    """Return HTML that looks as JupyterLab's own outputs do, in a light and in a dark theme."""
    return f'<style>{_STYLE}</style><div class="jp-RenderedHTMLCommon lab-live">{content}</div>'


def choice(what: str, options: Sequence[Any], value: Any = None) -> Any:
    """Return a labelled choice of `options`, each once, as wide as its words; else the first."""
    given = list(dict.fromkeys(options))
    chosen = {} if value is None else {"value": value}
    layout = {"width": "auto", "max_width": "100%"}
    return ipywidgets.Dropdown(options=given, description=f"{what}:", layout=layout, **chosen)
