"""An executed notebook as a page: its claims can be linked to, its errors are advice."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import nbformat
from nbformat import NotebookNode

from nbsupport.base import errors
from nbsupport.notebooks import document, results
from nbsupport.show.shown import Html, element

#: A link of Markdown, or of HTML, to a notebook: what is before it, its stem, and an anchor.
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_HREF = re.compile(r'<a href="([\w.@-]+)\.ipynb((?:#[^"]*)?)">(.*?)</a>')
#: Cells that set a notebook up; the latter two in runs of before there was `start`.
_SET_UP = re.compile(r"^(start|parameters\.form|replay\.start)\(", re.MULTILINE)


def anchor(claim: str) -> str:
    """Return the id of the cell's output that shows a claim."""
    return f"claim-{claim}"


def title(book: NotebookNode, name: str) -> str:
    """Return what a page is called: its heading, and what of a grid it is (`01-x--19-17`)."""
    heads = (re.match("# (.*)", cell.source) for cell in book.cells)
    head = next((match[1] for match in heads if match), name)
    _, _, variant = name.partition("--")
    return f"{head} ({variant})" if variant else head


def page(book: NotebookNode, names: Collection[str], *, error: str | None = None) -> NotebookNode:
    """Return an executed notebook as a page of the site that has notebooks of these `names`.

    Outputs that only a live notebook can show are left out; links to what is not in the
    site become text; what went wrong (`error`) is said below the title.
    """
    cells = [cell for cell in book.cells if document.PAPERMILL_ERROR not in document.tags(cell)]
    claimed: set[str] = set()
    formed = any(_SET_UP.search(cell.source) for cell in cells)
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source, names)
        elif cell.cell_type == "code":
            cell.metadata["tags"] = [*document.tags(cell), *_folded(cell, formed=formed)]
            cell.outputs = list(_outputs(cell.outputs, names, claimed))
    if error:
        # Markdown does not read code, which ends at a fence that it does not hold.
        fence = "`" * (max(map(len, re.findall("`+", error)), default=0) + 1)
        words = f":::{{error}}\nThis notebook failed: {fence} {error} {fence}\n:::"
        cells.insert(1, nbformat.v4.new_markdown_cell(words))  # type: ignore[no-untyped-call]
    book.cells = cells
    return book


def _folded(cell: NotebookNode, *, formed: bool) -> list[str]:
    """Return how MyST-NB shows the code of a cell, where a reader wants what it shows, not how.

    `formed`: the notebook has a form, whose static twin shows the parameters.
    """
    set_up = {document.PARAMETERS, document.INJECTED} & set(document.tags(cell))
    if formed and (set_up or _SET_UP.search(cell.source)):
        return ["remove-input"]
    claims = any(document.CLAIM in output.get("data", {}) for output in cell.outputs)
    return ["hide-input"] if claims else []


def linked(text: str, names: Collection[str]) -> str:
    """Return Markdown whose links lead to notebooks of these `names`, or elsewhere, or are text.

    Of a grid's notebooks (`01-x--19`) a link to `01-x` leads to the first.
    """

    def link(match: re.Match[str]) -> str:
        words, target, at = match.groups(default="")
        if re.match(r"[a-z]+:", target) or target.endswith(".md"):
            return match[0]
        name = find(target.removesuffix(".ipynb"), names) if target.endswith(".ipynb") else None
        return f"[{words}]({name}.ipynb{at})" if name else words

    return _LINK.sub(link, text)


def find(stem: str, names: Collection[str]) -> str | None:
    """Return the page of a notebook; of a grid's (`01-x--19`) the first. None: there is none."""
    return next((name for name in sorted(names) if name.partition("--")[0] == stem), None)


def link_to(inside: str, stem: str, names: Collection[str], at: str = "") -> str:
    """Return what is `inside` as a link to a notebook's page; as it is where there is none."""
    page = find(stem, names)
    return element("a", inside, href=f"{page}.html{at}") if page else inside


def _outputs(
    outputs: list[NotebookNode], names: Collection[str], claimed: set[str]
) -> Iterator[NotebookNode]:
    for output in outputs:
        data = output.get("data", {})
        if results.TABLE in data or (document.WIDGET in data and "text/html" not in data):
            continue  # for programs; a widget's static twin is another output
        if claim := data.pop(document.CLAIM, None):
            data["text/html"] = _claim(claim, first=claim["name"] not in claimed)
            claimed.add(claim["name"])
        if html := data.get("text/html"):
            data["text/html"] = _HREF.sub(lambda m: link_to(Html(m[3]), m[1], names, m[2]), html)
        if output.output_type == "error" and hasattr(errors, output.ename):
            box = element("div", element("p", output.evalue), class_="admonition error advice")
            data = {"text/html": box, "text/plain": output.evalue}
            yield nbformat.v4.new_output("display_data", data=data)  # type: ignore[no-untyped-call]
            continue
        yield output


def _claim(claim: Mapping[str, Any], *, first: bool) -> Html:
    word, kind = ("✓ holds", "holds") if claim["holds"] else ("✗ does not hold", "fails")
    values = f"predicted: {claim['predicted']}; observed: {claim['observed']}"
    parts = (element("strong", word), claim["sentence"], element("small", values))
    name = anchor(claim["name"]) if first else None
    return element("p", *parts, class_=f"claim {kind}", id=name)
