"""What a notebook shows: tables and figures, each as text and as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbsupport.base.errors import visible_lines
from nbsupport.show import look

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Verdicts, by how a page marks them: well, badly, or undecided.
_MARKS = {
    "holds": "holds",
    "DOES NOT HOLD": "fails",
    "supported": "holds",
    "refuted": "refuted",
    "open": "open",
    "whole profile": "holds",
    "does not help": "fails",
}


#: JupyterLab aligns cells to the right and in the middle, which is for numbers. The colours of
#: outcomes are the site's (data/site/conf.py), in the light and in the dark.
_STYLE = (
    "<style>table.lab :is(th,td){text-align:left;vertical-align:top}"
    "table.lab .outcome{font-weight:600}"
    "table.lab .outcome:is(.ok,.holds){color:var(--lab-good,#00714f)}"
    "table.lab .outcome:not(.ok,.holds,.open){color:var(--lab-bad,#b34700)}"
    "[data-jp-theme-light=false]{--lab-good:#33c396;--lab-bad:#f2935b}</style>"
)


@dataclass(frozen=True)
class Shown:
    """Something to look at: HTML where there is a browser, else the text."""

    text: str
    html: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: object) -> Html:
    """Return an HTML element; of its children, all that is not `Html` is text, and escaped.

    Of `attributes`, `_` in a name stands for `-` (`class_` for `class`); None is left out.
    """
    names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    pairs = (f' {name}="{escape(value)}"' for name, value in names.items() if value is not None)
    inside = (child if isinstance(child, Html) else escape(child) for child in children)
    return Html(f"<{tag}{''.join(pairs)}>{''.join(inside)}</{tag}>")


def escape(content: object) -> Html:
    """Return text as HTML: escaped, for between tags and in attributes; controls are visible."""
    return Html(html.escape(visible_lines(str(content))))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, marked: bool = True) -> Shown:
    """Show rows under headings; a cell is text, or `Shown`, which may be a link.

    `marked`: a cell that is an outcome or a verdict has its colour. Long names may break in a line.
    """
    lines = [tuple(columns), *(tuple(visible_lines(str(cell)) for cell in row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in columns)))
    body = element("tbody", *(element("tr", *(_cell(c, marked) for c in row)) for row in rows))
    return Shown(text, _STYLE + element("table", head, body, class_="lab"))


def _cell(content: object, marked: bool) -> Html:
    """Return a cell; one that holds a kind of outcome, or a verdict, is marked for the style."""
    if isinstance(content, Shown):
        return element("td", Html(content.html))
    text = str(content)
    word = "open" if text.startswith("no crash, ") else re.sub(r" (at exit|in .*)$", "", text)
    kind = _MARKS.get(word, word if word in look.OUTCOMES else "")
    if marked and kind:
        return element("td", text, class_=f"outcome {kind}")
    return element("td", Html(re.sub(r"\S{16,}", _breaking, escape(text))))


def _breaking(word: re.Match[str]) -> str:
    """Return a long word with places where a browser may break it."""
    return re.sub(r"(_+|::|[$]|[a-z](?=[A-Z]))(?=\S)", r"\1<wbr>", word[0])


def svg(figure: Shown) -> str:
    """Return the picture of a figure alone, on white, for a page that is not ours."""
    drawn = figure.html[figure.html.index("<svg") : figure.html.index("</svg>")] + "</svg>\n"
    return drawn.replace('style="', 'style="background: white; ', 1)


def framed(figure: Figure, caption: str, alternative: str) -> Shown:
    """Show a figure (of `look`) above its caption, which states the finding.

    `alternative` says in words what else there is to see.
    """
    drawn = look.svg(figure, caption, alternative)
    page = element("figure", Html(drawn), element("figcaption", caption), class_="lab")
    return Shown(f"figure: {caption} ({alternative})", page)
