"""The profile runtime's C as syntax trees, and excerpts of it by symbol."""

import bisect
import functools
import itertools
import operator
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import tree_sitter_c
from tree_sitter import Language, Node, Parser, Query, QueryCursor

from nbsupport.base import LabError
from nbsupport.show import look
from nbsupport.show.shown import Html, element, escape
from nbsupport.toolchains.tree import Tree

Part = Literal["", "loop", "condition", "statement"]
#: What to do about a name that a version does not have.
ADVICE = "see what changed (sources.compare), and name what took its place"

_C = Language(tree_sitter_c.language())

#: What defines a symbol, by the kind of node: functions before all else.
_DEFINITIONS = ["function_definition", "type_definition", "struct_specifier", "enum_specifier"]
_DEFINITIONS += ["preproc_def", "preproc_function_def", "declaration"]
_PARTS: dict[Part, tuple[str, ...]] = {
    "loop": ("for_statement", "while_statement", "do_statement"),
    "condition": ("if_statement", "switch_statement"),
    "statement": ("expression_statement", "declaration", "return_statement"),
}
_USES = ("call_expression", "field_expression", "assignment_expression", "identifier")
#: One query for every kind of node that is looked for: a capture has the name of its kind.
_KINDS = {*_DEFINITIONS, *itertools.chain(*_PARTS.values()), *_USES}
_KINDS |= {"parameter_declaration", "comment"}
_QUERY = Query(_C, " ".join(f"({kind}) @{kind}" for kind in sorted(_KINDS)))
_NAMES = ("identifier", "type_identifier", "field_identifier")

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

    file: str
    text: bytes
    clean: bytes
    root: Node

    @functools.cached_property
    def nodes(self) -> Mapping[str, list[Node]]:
        """The nodes of each kind that is looked for, in order."""
        captures = QueryCursor(_QUERY).captures(self.root)  # in no order
        by_start = {kind: sorted(nodes, key=_start) for kind, nodes in captures.items()}
        return defaultdict(list, by_start)

    @functools.cached_property
    def functions(self) -> list[tuple[Node, int]]:
        """The functions with a name, and where each ends: by the next, if C++ is read as nested."""
        nodes = [node for node in self.nodes["function_definition"] if self.name(node)]
        starts = [node.start_byte for node in nodes[1:]] + [len(self.clean)]
        pairs = zip(nodes, starts, strict=False)  # a file may have none
        return [(node, min(node.end_byte, start)) for node, start in pairs]

    def between(self, start: int, end: int, *kinds: str) -> Iterator[Node]:
        """Yield the nodes that begin between two bytes: kind by kind, in order."""
        for kind in kinds:
            nodes = self.nodes[kind]
            first, last = (bisect.bisect_left(nodes, byte, key=_start) for byte in (start, end))
            yield from nodes[first:last]

    def words(self, node: Node | None) -> str:
        """Return the text of a node; "" for none."""
        return self.clean[node.start_byte : node.end_byte].decode(errors="replace") if node else ""

    def field(self, node: Node | None, name: str) -> str:
        """Return the text of a field of a node, as the grammar names it; "" for none."""
        return self.words(child(node, name))

    def name(self, node: Node) -> str:
        """Return the name that a definition or a declarator introduces; "" for none."""
        inner = child(node, "name") or node
        while inner.type not in _NAMES:
            kinds = ("declarator", "identifier")
            inside = (node for node in inner.named_children if node.type.endswith(kinds))
            deeper = child(inner, "declarator") or next(inside, None)
            if deeper is None:
                return ""
            inner = deeper
        return self.words(inner)


_start = operator.attrgetter("start_byte")


def child(node: Node | None, *fields: str) -> Node | None:
    """Return what is in a field of a node, or in a field of that, and so on; None for none."""
    for name in fields:
        node = node.child_by_field_name(name) if node else None
    return node


@dataclass(frozen=True)
class Excerpt:
    """Lines of one file: those of a symbol, or of a part of it. Its text is LLVM's own.

    `line` is the number of the first; `marked` those that the reader's finger should be on;
    `margin` has words that stand beside a line, by its number.
    """

    symbol: str
    file: str
    version: str
    licence: str
    line: int
    text: str
    marked: tuple[int, ...] = ()
    note: str = ""
    margin: Mapping[int, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """What of it is committed: file, symbol, version and how many lines."""
        lines = len(self.text.splitlines())
        note = f" ({self.note})" if self.note else ""
        return f"{self.file}: {self.symbol}, LLVM {self.version}, {lines} lines{note}"

    def __repr__(self) -> str:
        return self.summary

    def _repr_html_(self) -> str:
        """Return the source itself, which `document.normalize` takes out of what is committed."""
        rows, style = [], f"background:{look.YELLOW};color:black"
        wide = max(map(len, self.margin.values()), default=0)
        for number, text in enumerate(self.text.splitlines(), self.line):
            words = self.margin.get(number, "")
            line = escape(f"{words:>{wide}} {number:>5}  {text}")
            rows.append(element("b", line, style=style) if number in self.marked else line)
        caption = element("figcaption", f"{self.summary} · {self.licence}")
        return element("figure", caption, element("pre", Html("\n".join(rows))), class_="source")


@functools.lru_cache(256)
def parsed(file: str, content: bytes) -> TranslationUnit:
    """Parse C. What the grammar cannot know is blanked; places stay the same."""

    def blank(found: re.Match[bytes]) -> bytes:
        return re.sub(rb"[^\n]", b" ", found[0])

    plain = _CPLUSPLUS.sub(blank, content).replace(b"::", b"__")
    clean = _ATTRIBUTES.sub(lambda found: found["directive"] or blank(found), plain)
    return TranslationUnit(file, content, clean, Parser(_C).parse(clean).root_node)


def excerpt(
    tree: Tree,
    symbol: str,
    *,
    part: Part = "",
    about: str = "",
    file: str = "",
    mark: str = "",
    margin: Mapping[str, str] | None = None,
) -> Excerpt:
    """Return the lines that define a function, type, macro or variable; or a part of a function.

    Of a function's loops, conditions or statements, the smallest `part` that has the word
    `about` in it. `mark`: lines with this word. `margin`: words to put beside the lines with a
    text, by that text; such lines are marked, too. `file`: where it is expected; the note says
    when it has moved. Raises `LabError` when this version has no such symbol, or no such part.
    """
    unit, node = _definition(tree, symbol, file)
    if part:
        word = re.compile(rf"\b{re.escape(about)}\b")
        inside = unit.between(node.start_byte, node.end_byte, *_PARTS[part])
        nodes = [inner for inner in inside if word.search(unit.words(inner))]
        if not nodes:
            why = f"it has no {part} with {about}" if about else f"it has no {part}"
            advice = "read the whole function, and name what took its place"
            raise LabError(f"{symbol} in LLVM {tree.version}", why, advice)
        node = min(nodes, key=lambda inner: (inner.end_byte - inner.start_byte, inner.start_byte))
    first, last = node.start_point[0], node.end_point[0]
    text = b"\n".join(unit.text.splitlines()[first : last + 1]).decode(errors="replace")
    finger = re.compile(rf"\b{re.escape(mark)}\b")
    lines = list(enumerate(text.splitlines(), first + 1))
    notes = (margin or {}).items()
    beside = {n: words for n, line in lines for what, words in notes if what in line}
    marked = tuple(n for n, line in lines if n in beside or (mark and finger.search(line)))
    licence = _LICENCE.search(unit.text)
    if part:
        symbol = f"the {part} with {about} in {symbol}" if about else f"the {part} in {symbol}"
    note = f"moved from {file}" if file not in ("", unit.file) else ""
    spdx = licence[1].decode().strip() if licence else "no licence line"
    return Excerpt(symbol, unit.file, tree.version, spdx, first + 1, text, marked, note, beside)


def _definition(tree: Tree, symbol: str, file: str) -> tuple[TranslationUnit, Node]:
    """Return the definition of a symbol: functions before all else, those in `file` first."""
    word = re.compile(rb"\b" + re.escape(symbol.encode()) + rb"\b")
    contents = [(path.rpartition("/")[2], tree.content(path)) for path in tree.files]
    units = [parsed(name, text) for name, text in contents if word.search(text)]
    units.sort(key=lambda unit: unit.file != file)
    for kind in _DEFINITIONS:
        places = [
            (unit, node)
            for unit in units
            for node in unit.nodes[kind]
            # A struct or an enum may be without its body.
            if unit.name(node) == symbol and (child(node, "body") or "_specifier" not in kind)
        ]
        if places:  # of a variable, where it has its value
            return min(places, key=lambda place: child(place[1], "declarator", "value") is None)
    why = "the profile runtime has no such symbol"
    raise LabError(f"{symbol} in LLVM {tree.version}", why, ADVICE)
