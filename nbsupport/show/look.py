"""One look for all figures: palette, type and width, and the SVG that a page shows.

Colours are Okabe and Ito's (Color Universal Design), which survive colour-blindness. No colour
tells anything alone: words do, too. What stands on the page itself has the page's own colour of
text (`INK`), so that it can be read in the dark; words on a fill are black.
"""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
VERMILION, PURPLE, GREY, PALE = "#D55E00", "#CC79A7", "#999999", "#DDDDDD"
GOOD, BAD = GREEN, VERMILION
#: Stands for the page's colour of text, which only the page knows.
INK = "#010101"
#: A frame's colour, in a widget: JupyterLab's own around what is chosen, and a pale one.
CHOSEN, FRAME = "var(--jp-brand-color1, #1976d2)", "#777777"
#: Colour and label of each outcome; a label must fit a cell.
OUTCOMES: dict[str, tuple[str, str]] = {
    "ok": (GOOD, "ok"),
    "crash": (BAD, "crash"),
    "version-mismatch": (ORANGE, "mismatch"),
    "no-profile": (SKY, "none"),
    "malformed": (PURPLE, "broken"),
    "wrong-counts": (YELLOW, "wrong"),
    "failed": (GREY, "failed"),
    "limit": (GREY, "limit"),
    "build-failed": (GREY, "no build"),
}
#: Width of every figure: that of a text column (736 px), so that type has one size. In points.
WIDTH = 552
_POINTS = 72  # of an inch
_FONTS = "DejaVu Sans, Verdana, sans-serif"  # alike in width; matplotlib brings the first
#: Styles of words: a heading, a label, and one that explains.
LABEL: dict[str, Any] = {"fontsize": 9, "color": INK, "va": "center", "parse_math": False}
HEAD: dict[str, Any] = {**LABEL, "fontweight": "bold"}
SMALL: dict[str, Any] = {**LABEL, "fontsize": 8}
MUTED: dict[str, Any] = {**SMALL, "alpha": 0.75}


def sheet(height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many points, and axes in points from its top left, to draw freely."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, only here

    figure = Figure((WIDTH / _POINTS, height / _POINTS), facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def charts(height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """Return a figure of so many points, and its axes (rows x columns), without lines or ticks."""
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    size = WIDTH / _POINTS, height / _POINTS
    figure = Figure(size, facecolor="none", layout=ConstrainedLayoutEngine(h_pad=0.08))
    every = figure.subplots(rows, columns, squeeze=False)
    for axes in every.flat:
        axes.set_facecolor("none")
        axes.spines[:].set(visible=False, color=INK)
        axes.tick_params(length=0, labelsize=SMALL["fontsize"], labelcolor=INK)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(fontsize=SMALL["fontsize"], color=INK)
    return figure, every


def cell(
    axes: Axes,
    at: tuple[float, float],
    size: tuple[float, float],
    fill: str,
    words: str,
    **how: Any,
) -> None:
    """Draw a box around a place, with words in it; `fill` may be "none", `how` is of its edge.

    Where it has neither fill nor edge, the words are muted.
    """
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    corner = at[0] - size[0] / 2, at[1] - size[1] / 2
    axes.add_patch(Rectangle(corner, *size, facecolor=fill, clip_on=False, **how))
    style = MUTED if not how else SMALL
    style = style if fill == "none" else {**SMALL, "color": "black"}
    axes.text(*at, words, ha="center", **style)


def tint(colour: str) -> str:
    """Return a colour mixed with white: opaque, so that black words on it are read in the dark."""
    parts = (int(colour[n : n + 2], 16) for n in (1, 3, 5))
    return "#" + "".join(f"{255 - (255 - part) * 2 // 5:02x}" for part in parts)


def svg(figure: Figure, name: str, description: str) -> str:
    """Return a figure as SVG for a page, the same bytes each time, with its text alternatives."""
    import matplotlib as mpl  # noqa: PLC0415

    content = io.StringIO()
    none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": "pgo-lab", "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", metadata=none)
    drawn = content.getvalue()
    # What no browser shows; ids of groups would not be alone on a page.
    unseen = r"\s*<!--.*?-->|(?<=<g) id=\"[^\"]+\"| (?=\n)"
    drawn = re.sub(unseen, "", drawn[drawn.index("<svg") :])
    drawn = re.sub(r"; font-family: [^;\"]*sans-serif", "", drawn)
    drawn = re.sub(r"font-family: [^;\"]*monospace", "font-family: monospace", drawn)
    attributes = f'role="img" aria-label="{html.escape(name)}" style="font-family: {_FONTS}"'
    drawn = drawn.replace("<svg", f"<svg {attributes}", 1).replace(INK, "currentColor")
    return drawn.replace(">", f">\n<desc>{html.escape(description)}</desc>", 1)
