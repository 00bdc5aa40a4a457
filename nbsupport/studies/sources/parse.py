"""The profile runtime's C as syntax trees, and excerpts of it by symbol."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import tree_sitter_c
from tree_sitter import Language, Node, Parser, Query, QueryCursor

from nbsupport.base.errors import LabError
from nbsupport.show import look
from nbsupport.studies.sources.tree import Tree

ExcerptPart = Literal["", "loop", "condition", "statement"]

_C = Language(tree_sitter_c.language())

#: What a definition is, for each kind of symbol: a node, and the name in it.
_DEFINITIONS = (
    "(function_definition) @it",
    "(type_definition declarator: (_) @name) @it",
    "(struct_specifier name: (_) @name body: (_)) @it",
    "(enum_specifier name: (_) @name body: (_)) @it",
    "(preproc_def name: (_) @name) @it",
    "(preproc_function_def name: (_) @name) @it",
    "(declaration declarator: (init_declarator)) @it",
    "(declaration) @it",
)
_PARTS: dict[ExcerptPart, tuple[str, ...]] = {
    "loop": ("for_statement", "while_statement", "do_statement"),
    "condition": ("if_statement", "switch_statement"),
    "statement": ("expression_statement", "declaration", "return_statement"),
}

#: Macros that say how a symbol is seen, not what it is: C's grammar does not know them.
#: Source: InstrProfilingPort.h, InstrProfData.inc.
_ATTRIBUTES = re.compile(
    rb"(?P<directive>^[ \t]*#(?:.*\\\n)*.*$)"
    rb"|\b(?:COMPILER_RT_(?:VISIBILITY|WEAK|UNUSED|ALWAYS_INLINE)|INSTR_PROF_(?:VISIBILITY|INLINE))\b"
    rb"|\bCOMPILER_RT_(?:SECTION|ALIGNAS)\([^()]*(?:\([^()]*\))*[^()]*\)",
    re.M,
)
_CPLUSPLUS = re.compile(rb"^#ifdef __cplusplus$.*?^#endif", re.M | re.S)
_LICENCE = re.compile(rb"SPDX-License-Identifier: (.+)")


@dataclass(frozen=True)
class TranslationUnit:
    """One parsed file: its text as it is, the text as it was parsed, and the tree's root."""

    text: bytes
    clean: bytes
    root: Node

    def captures(self, query: str, node: Node | None = None) -> dict[str, list[Node]]:
        """Return what a query of tree-sitter captures, by the captures' names."""
        return QueryCursor(_query(query)).captures(node or self.root)

    def words(self, node: Node) -> str:
        """Return the text of a node."""
        return self.clean[node.start_byte : node.end_byte].decode(errors="replace")


@dataclass(frozen=True)
class Excerpt:
    """Lines of one file: those of a symbol, or of a part of it. Its text is LLVM's own.

    `line` is the number of the first; `marked` those that the reader's finger should be on.
    """

    symbol: str
    file: str
    version: str
    licence: str
    line: int
    text: str
    marked: tuple[int, ...] = ()
    note: str = ""

    @property
    def summary(self) -> str:
        """What of it is committed: file, symbol, version and how many lines."""
        lines = len(self.text.splitlines())
        note = f" ({self.note})" if self.note else ""
        return f"{self.file}: {self.symbol}, LLVM {self.version}, {lines} lines{note}"

    def __repr__(self) -> str:
        return self.summary

    def _repr_html_(self) -> str:
        """Return the source itself, which `notebook.normalize` takes out of what is committed."""
        rows = []
        for number, text in enumerate(self.text.splitlines(), self.line):
            line = f"{number:>5}  {html.escape(text)}"
            marked = f'<b style="background:{look.YELLOW};color:black">{line}</b>'
            rows.append(marked if number in self.marked else line)
        head = html.escape(f"{self.summary} · {self.licence}")
        body = "\n".join(rows)
        return f'<figure class="source"><figcaption>{head}</figcaption><pre>{body}</pre></figure>'


@functools.lru_cache(256)
def parsed(content: bytes) -> TranslationUnit:
    """Parse C. What the grammar cannot know is blanked; places stay the same."""

    def blank(found: re.Match[bytes]) -> bytes:
        return re.sub(rb"[^\n]", b" ", found[0])

    plain = _CPLUSPLUS.sub(blank, content).replace(b"::", b"__")
    clean = _ATTRIBUTES.sub(lambda found: found["directive"] or blank(found), plain)
    return TranslationUnit(content, clean, Parser(_C).parse(clean).root_node)


def name_of(unit: TranslationUnit, node: Node) -> str:
    """Return the name that a definition or a declarator introduces; "" for none."""
    while node.type not in ("identifier", "type_identifier", "field_identifier"):
        inner = node.child_by_field_name("declarator")
        if inner is None:
            kinds = "declarator", "identifier"
            inner = next((c for c in node.named_children if c.type.endswith(kinds)), None)
        if inner is None:
            return ""
        node = inner
    return unit.words(node)


def excerpt(
    tree: Tree,
    symbol: str,
    *,
    part: ExcerptPart = "",
    about: str = "",
    file: str = "",
    mark: str = "",
) -> Excerpt:
    """Return the lines that define a function, type, macro or variable; or a part of a function.

    Of a function's loops, conditions or statements, the smallest `part` that has the word
    `about` in it. `mark`: lines with this word. `file`: where it is expected; the note says
    when it has moved. Raises `LabError` when this version has no such symbol, or no such part.
    """
    found = next(_definitions(tree, symbol, file), None)
    if found is None:
        raise LabError(
            f"{symbol} in LLVM {tree.version}",
            "the profile runtime has no such symbol",
            "see what changed (sources.compare), and name what took its place",
        )
    path, unit, node = found
    if part:
        node = _part(tree, unit, node, symbol, part, about)
    first, last = node.start_point[0], node.end_point[0]
    text = b"\n".join(unit.text.splitlines()[first : last + 1]).decode(errors="replace")
    finger = re.compile(rf"\b{re.escape(mark)}\b") if mark else None
    lines = enumerate(text.splitlines(), first + 1)
    marked = tuple(n for n, line in lines if finger and finger.search(line))
    licence = _LICENCE.search(unit.text)
    words = f"the {part} with {about} in {symbol}" if about else f"the {part} in {symbol}"
    here = path.rpartition("/")[2]
    return Excerpt(
        symbol=words if part else symbol,
        file=here,
        version=tree.version,
        licence=licence[1].decode().strip() if licence else "no licence line",
        line=first + 1,
        text=text,
        marked=marked,
        note=f"moved from {file}" if file not in ("", here) else "",
    )


def _definitions(tree: Tree, symbol: str, file: str) -> Iterator[tuple[str, TranslationUnit, Node]]:
    """Yield the definitions of a symbol: those in `file` first, functions before all else."""
    word = re.compile(rb"\b" + re.escape(symbol.encode()) + rb"\b")
    paths = sorted(tree.files, key=lambda path: not f"/{path}".endswith(f"/{file}"))
    units = [(path, parsed(text)) for path in paths if word.search(text := tree.content(path))]
    for query in _DEFINITIONS:
        for path, unit in units:
            found = unit.captures(query).get("it", [])  # in no order
            for node in sorted(found, key=lambda one: one.start_byte):
                names = [unit.words(name) for name in unit.captures(query, node).get("name", ())]
                if symbol in (names or [name_of(unit, node)]):
                    yield path, unit, node


def _part(
    tree: Tree, unit: TranslationUnit, node: Node, symbol: str, part: ExcerptPart, about: str
) -> Node:
    word = re.compile(rf"\b{re.escape(about)}\b")
    nodes = unit.captures(" ".join(f"({kind}) @it" for kind in _PARTS[part]), node).get("it", [])
    fitting = [one for one in nodes if word.search(unit.words(one))]
    if not fitting:
        about = f" with {about}" if about else ""
        raise LabError(
            f"{symbol} in LLVM {tree.version}",
            f"it has no {part}{about}",
            "read the whole function, and name what took its place",
        )
    return min(fitting, key=lambda one: (one.end_byte - one.start_byte, one.start_byte))


@functools.cache
def _query(text: str) -> Query:
    return Query(_C, text)
