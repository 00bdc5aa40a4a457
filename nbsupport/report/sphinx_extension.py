"""What Sphinx does besides: terms lead to the glossary, each page says of when it is."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

from nbsupport.base import files
from nbsupport.report.front import GLOSSARY, term_id
from nbsupport.show.shown import element

#: Where a term is not looked for: it is a name there, or leads elsewhere already.
_NAMES = (nodes.reference, nodes.literal, nodes.literal_block, nodes.raw, nodes.title)
_APART = (*_NAMES, nodes.table, nodes.rubric)


class Terms(SphinxPostTransform):
    """Links the first mention of each term of the glossary on a page, with its meaning to hover."""

    default_priority = 900  # when all references are resolved
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Rewrite the text of the page; the glossary itself is left as it is."""
        if self.env.docname == "glossary":
            return
        self.terms: dict[str, dict[str, Any]] = {}  # by each way to write it
        for term in files.read_toml(Path(self.env.srcdir, GLOSSARY))["term"]:
            words = () if term.get("quiet") else (term["name"], *term.get("also", ()))
            self.terms |= dict.fromkeys(words, term)
            self.terms |= {word.capitalize(): term for word in words if word.islower()}
        either = "|".join(sorted(map(re.escape, self.terms), key=len, reverse=True))
        self.pattern = re.compile(rf"(?<![\w-])({either})(s?)(?![\w-])")
        self.linked: set[str] = set()
        apart = self.document.findall(lambda node: isinstance(node, _APART))
        left_out = {id(text) for node in apart for text in node.findall(nodes.Text)}
        for text in list(self.document.findall(nodes.Text)):
            if id(text) not in left_out and not _in_html_link(text):
                self._link(text)

    def _link(self, text: nodes.Text) -> None:
        parts: list[nodes.Node] = []
        at, words = 0, text.astext()
        for match in self.pattern.finditer(words):
            term = self.terms[match[1]]
            name, says = term["name"], re.sub(r"[`*]", "", term["says"])
            if name in self.linked:
                continue
            self.linked.add(name)
            href = f"glossary.html#{term_id(name)}"
            link = element("a", match[0], class_="term", href=href, data_tip=says)
            parts += [nodes.Text(words[at : match.start()]), nodes.raw("", link, format="html")]
            at = match.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(words[at:])])


def _in_html_link(text: nodes.Text) -> bool:
    """Return whether a link that was written as HTML is open at a text."""
    before = text.parent.children[: text.parent.index(text)]
    raw = "".join(node.astext() for node in before if isinstance(node, nodes.raw))
    return raw.count("<a ") > raw.count("</a>")


def _tell_of_page(app: Sphinx, name: str, template: str, context: dict[str, Any], _: Any) -> None:
    """Hand the page's template what its run was, and whether it was here and now."""
    site = files.read_json(Path(app.srcdir, "site.json"))
    recorded = name in site["recorded"] or not site["live"]
    context |= {"kind": "recorded" if recorded else "live", "when": site["when"]}
    # What a screen reader would stumble over: a heading without a level, a label unlike its words.
    for part, old, new in (
        ("furo_navigation_tree", 'role="heading"', 'role="heading" aria-level="2"'),
        ("body", ' aria-label="Toggle hidden content"', ""),
    ):
        context[part] = context.get(part, "").replace(old, new)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_post_transform(Terms)
    app.connect("html-page-context", _tell_of_page, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
