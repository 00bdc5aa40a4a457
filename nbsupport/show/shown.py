"""What a notebook shows: tables and figures, each as text and as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    "cures": "holds",
    "does not help": "fails",
}


#: JupyterLab aligns cells to the right and in the middle, which is for numbers.
_STYLE = (
    "<style>table.lab :is(th,td){text-align:left;vertical-align:top}"
    "table.lab .outcome{font-weight:600}</style>"
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


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, marked: bool = True) -> Shown:
    """Show rows of text under headings.

    `marked`: a cell that is an outcome or a verdict has its colour. Long names may break in a line.
    """
    lines = [tuple(columns), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    cell = _cell if marked else _breaking
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(map(cell, line)) + "</tr>" for line in lines[1:])
    return Shown(
        text,
        f'{_STYLE}<table class="lab"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>',
    )


def _breaking(text: str) -> str:
    def parted(word: re.Match[str]) -> str:
        return re.sub(r"(_+|::|[$]|[a-z](?=[A-Z]))(?=\S)", r"\1<wbr>", word[0])

    long = r"\S{16,}"
    return f"<td>{re.sub(long, parted, html.escape(text))}</td>"


def _cell(text: str) -> str:
    """Return a cell; one that holds a kind of outcome, or a verdict, is marked for the style."""
    word = "open" if text.startswith("survives, ") else re.sub(r" (at exit|in .*)$", "", text)
    kind = _MARKS.get(word, word if word in look.OUTCOMES else "")
    return f'<td class="outcome {kind}">{html.escape(text)}</td>' if kind else _breaking(text)


def svg(figure: Shown) -> str:
    """Return the picture of a figure alone, on white, for a page that is not ours."""
    drawn = figure.html[figure.html.index("<svg") : figure.html.index("</svg>")] + "</svg>\n"
    return drawn.replace('style="', 'style="background: white; ', 1)


def framed(figure: Figure, caption: str, alternative: str) -> Shown:
    """Show a figure (of `look`) above its caption, which states the finding.

    `alternative` says in words what else there is to see.
    """
    drawn = look.svg(figure, caption, alternative)
    shown = f'<figure class="lab">{drawn}<figcaption>{html.escape(caption)}</figcaption></figure>'
    return Shown(f"figure: {caption} ({alternative})", shown)
