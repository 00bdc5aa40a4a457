"""What Sphinx does besides: terms lead to the glossary, each page says of when it is."""

from __future__ import annotations

import html
import json
import re
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

from nbsupport.report.front import GLOSSARY, term_id

#: Where a term is not looked for: it is a name there, or leads elsewhere already.
_LEFT = (
    nodes.reference,
    nodes.literal,
    nodes.literal_block,
    nodes.raw,
    nodes.title,
    nodes.table,
    nodes.rubric,
)


class Terms(SphinxPostTransform):
    """Links the first mention of each term of the glossary on a page, with its meaning to hover."""

    default_priority = 900  # when all references are resolved
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Rewrite the text of the page; the glossary itself is left as it is."""
        if self.env.docname == "glossary":
            return
        known: dict[str, dict[str, Any]] = {}
        for term in tomllib.loads(Path(self.env.srcdir, GLOSSARY).read_text())["term"]:
            words = () if term.get("quiet") else (term["name"], *term.get("also", ()))
            known |= dict.fromkeys(words, term)
            known |= {word.capitalize(): term for word in words if word.islower()}
        either = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
        pattern = re.compile(rf"(?<![\w-])({either})(s?)(?![\w-])")
        done: set[str] = set()
        for text in list(self.document.findall(nodes.Text)):
            if not _in_html_link(text) and not any(isinstance(a, _LEFT) for a in _above(text)):
                self._link(text, pattern, known, done)

    def _link(
        self,
        text: nodes.Text,
        pattern: re.Pattern[str],
        known: dict[str, dict[str, Any]],
        done: set[str],
    ) -> None:
        made: list[nodes.Node] = []
        at, said = 0, text.astext()
        for match in pattern.finditer(said):
            term = known[match[1]]
            if term["name"] in done:
                continue
            done.add(term["name"])
            tip = html.escape(re.sub(r"[`*]", "", term["says"]), quote=True)
            link = f'<a class="term" href="glossary.html#{term_id(term["name"])}" data-tip="{tip}">'
            made += [nodes.Text(said[at : match.start()])]
            made += [nodes.raw("", f"{link}{html.escape(match[0])}</a>", format="html")]
            at = match.end()
        if made:
            text.parent.replace(text, [*made, nodes.Text(said[at:])])


def _above(node: nodes.Node) -> list[nodes.Node]:
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found


def _in_html_link(text: nodes.Text) -> bool:
    """Return whether a link that was written as HTML is open at a text."""
    before = text.parent.children[: text.parent.index(text)]
    raw = "".join(node.astext() for node in before if isinstance(node, nodes.raw))
    return raw.count("<a ") > raw.count("</a>")


def _said_of_page(
    app: Sphinx, name: str, template: str, context: dict[str, Any], _: nodes.document
) -> None:
    """Hand the page's template what its run was, and whether it was here and now."""
    site = json.loads(Path(app.srcdir, "site.json").read_text(encoding="utf-8"))
    recorded = name in site["recorded"] or not site["live"]
    context |= {"kind": "recorded" if recorded else "live", "when": site["when"]}
    # What a screen reader would stumble over: a heading without a level, a label unlike its words.
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )
    body = context.get("body", "")
    context["body"] = body.replace(' aria-label="Toggle hidden content"', "")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_post_transform(Terms)
    app.connect("html-page-context", _said_of_page, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
