"""The profile runtime as data: its functions, who calls whom, what each reads of a record.

Of its text only digests are kept, so that a structure can be recorded and committed.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tree_sitter import Node

from nbsupport.base.errors import LabError
from nbsupport.studies.sources.parse import TranslationUnit, name_of, parsed
from nbsupport.studies.sources.tree import Tree

#: The type of a record. Source: InstrProfiling.h.
_RECORD = "__llvm_profile_data"
_LIST = "InstrProfData.inc"
_DEFINED, _ELSEWHERE = "the runtime", "outside the runtime"
_FUNCTIONS = "(function_definition) @it"
_GLOBALS = " ".join(
    f"({outer} (declaration) @it)"
    for outer in ("translation_unit", "preproc_ifdef", "preproc_if", "preproc_else", "preproc_elif")
)
_TYPES = "(struct_specifier body: (field_declaration_list)) @it"
_INSIDE = """
(call_expression function: (identifier) @call)
(call_expression function: (field_expression field: (field_identifier) @through))
(field_expression) @field
(identifier) @name
(parameter_declaration) @typed
(declaration) @typed
(comment) @comment
(assignment_expression left: [(field_expression) (identifier)]) @assigned
"""


@dataclass(frozen=True)
class Function:
    """One function, of `lines` lines from `line` of its file on.

    `calls` by name, `through` by pointer (a field's or a global's name), `hands_on` as a
    value. `reads` and `writes` are fields of a record; a field whose address is taken is
    written. `globals` are the variables with static storage that it uses.
    """

    name: str
    file: str
    line: int
    lines: int
    digest: str
    calls: tuple[str, ...] = ()
    through: tuple[str, ...] = ()
    hands_on: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    globals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Global:
    """A variable with static storage, and where what it stands for comes from."""

    name: str
    file: str
    comes_from: str


@dataclass(frozen=True)
class Structure:
    """A version of the profile runtime as data.

    `tables` says which functions a pointer (a field or a global) may hold; `record` and
    `header` are the fields of a record and of a raw profile's header, in order.
    """

    version: str
    raw_version: int
    record: tuple[str, ...]
    header: tuple[str, ...]
    functions: tuple[Function, ...]
    globals: tuple[Global, ...]
    tables: Mapping[str, tuple[str, ...]]

    def function(self, name: str) -> Function:
        """Return a function; the first, where platforms have their own. Raises `LabError`."""
        for one in self.functions:
            if one.name == name:
                return one
        raise LabError(
            f"{name} in LLVM {self.version}",
            "the profile runtime has no such function",
            "see what changed (sources.compare), and name what took its place",
        )

    def leads_to(self, name: str) -> tuple[tuple[str, str], ...]:
        """Return the functions that a function calls or hands on: name, by what ("": directly)."""
        found: dict[str, str] = {}
        for one in self.functions:
            if one.name == name:
                found |= {by: "as a value" for by in one.hands_on if by not in found}
                for pointer in one.through:
                    found |= dict.fromkeys(self.tables.get(pointer, ()), pointer)
                found |= dict.fromkeys(one.calls, "")
        known = {one.name for one in self.functions}
        return tuple((target, by) for target, by in found.items() if target in known)

    def callers(self, name: str) -> tuple[str, ...]:
        """Return the functions that call a function, by name or by pointer."""
        names = dict.fromkeys(one.name for one in self.functions)
        return tuple(one for one in names if name in dict(self.leads_to(one)))

    def path(self, start: str, goal: str) -> tuple[str, ...]:
        """Return the shortest way of calls from one function to another; () where there is none."""
        came: dict[str, str] = {start: ""}
        queue = [start]
        for name in queue:
            for target, _ in self.leads_to(name) if goal not in came else ():
                if target not in came:
                    came[target] = name
                    queue.append(target)
        way = []
        while goal in came and goal:
            way.append(goal)
            goal = came[goal]
        return tuple(reversed(way))

    def to_json(self) -> str:
        """Return the structure as one JSON document; see `load`."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":")) + "\n"


def load(text: str) -> Structure:
    """Return a structure that `to_json` wrote."""
    found: dict[str, Any] = json.loads(text)

    def rows(kind: Any, name: str) -> tuple[Any, ...]:
        return tuple(kind(**{key: _frozen(v) for key, v in row.items()}) for row in found[name])

    plain = {key: _frozen(value) for key, value in found.items()}
    tables = {key: tuple(value) for key, value in found["tables"].items()}
    parts = {"functions": rows(Function, "functions"), "globals": rows(Global, "globals")}
    return Structure(**{**plain, **parts, "tables": tables})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def from_tree(tree: Tree) -> Structure:
    """Return the structure of a version, from its sources: a tenth of a second."""
    units = {path: parsed(tree.content(path)) for path in tree.files if not path.endswith(".txt")}
    listed = next(unit for path, unit in units.items() if path.endswith(_LIST))
    version = re.search(rb"#define INSTR_PROF_RAW_VERSION (\d+)", listed.text)
    record = _listed(listed.text, "INSTR_PROF_DATA")
    bodies = {path: _Bodies(unit) for path, unit in units.items()}
    types = {name: fields for body in bodies.values() for name, fields in body.types.items()}
    holders = {
        field for fields in types.values() for field, kind in fields.items() if kind == _RECORD
    }
    names = {name for body in bodies.values() for name in body.names}
    declared = [one for path, body in bodies.items() for one in _globals(path, body)]
    known = {one.name for one in declared}
    tables: dict[str, dict[str, None]] = defaultdict(dict)
    functions: list[Function] = []
    for path, body in bodies.items():
        for slot, given in body.slots(types):
            if given in names:
                tables[slot][given] = None
        functions += body.functions(path.rpartition("/")[2], set(record), holders, names, known)
    return Structure(
        version=tree.version,
        raw_version=int(version[1]) if version else 0,
        record=record,
        header=_listed(listed.text, "INSTR_PROF_RAW_HEADER"),
        functions=tuple(functions),
        globals=_once(declared),
        tables={slot: tuple(sorted(given)) for slot, given in sorted(tables.items())},
    )


def _listed(text: bytes, macro: str) -> tuple[str, ...]:
    """Return the names in a list of InstrProfData.inc: the last argument but one of each entry."""
    found = []
    for entry in re.finditer(rf"^{macro}\(".encode(), text, re.M):
        depth, arguments, word = 1, [], ""
        for character in text[entry.end() : entry.end() + 1000].decode(errors="replace"):
            depth += (character == "(") - (character == ")")
            if depth == 0 or (depth == 1 and character == ","):
                arguments.append(word.strip())
                word = ""
            else:
                word += character
            if depth == 0:
                break
        found += re.findall(r"\w+", arguments[-2])[:1]
    return tuple(dict.fromkeys(found))


class _Bodies:
    """The functions of one file, and what is inside each, by place."""

    def __init__(self, unit: TranslationUnit) -> None:
        self.unit = unit
        nodes = unit.captures(_FUNCTIONS).get("it", [])
        self.nodes = sorted((n for n in nodes if name_of(unit, n)), key=lambda n: n.start_byte)
        self.names = [name_of(unit, node) for node in self.nodes]
        self.inside = unit.captures(_INSIDE)
        self.types = self._types()
        self._starts = [node.start_byte for node in self.nodes]

    def home(self, node: Node) -> int | None:
        """Return the number of the function that a node is in."""
        n = bisect.bisect_right(self._starts, node.start_byte) - 1
        return n if n >= 0 and node.end_byte <= self.nodes[n].end_byte else None

    def _types(self) -> dict[str, dict[str, str]]:
        """Return the fields of each struct, in order, with the names of their types."""
        found: dict[str, dict[str, str]] = {}
        for struct in self.unit.captures(_TYPES).get("it", ()):
            body = struct.child_by_field_name("body")
            members = body.named_children if body else []
            fields = {
                name_of(self.unit, one): self._words(one, "type")
                for one in members
                if one.type == "field_declaration"
            }
            names = [self._words(struct, "name")]
            if struct.parent and struct.parent.type == "type_definition":
                names.append(self._words(struct.parent, "declarator"))
            found |= dict.fromkeys(filter(None, names), fields)
        return found

    def _words(self, node: Node, field: str) -> str:
        inner = node.child_by_field_name(field)
        return self.unit.words(inner) if inner else ""

    def slots(self, types: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str]]:
        """Yield what is put where: a field's or a global's name, and a name put there."""
        for assigned in self.inside.get("assigned", ()):
            left = assigned.child_by_field_name("left")
            slot = (self._words(left, "field") or self.unit.words(left)) if left else ""
            yield slot, self._words(assigned, "right").lstrip("&")
        for typed in self.inside.get("typed", ()):
            made = typed.child_by_field_name("declarator")
            value = made.child_by_field_name("value") if made else None
            if value is not None and value.type == "initializer_list":
                values = [self.unit.words(v) for v in value.named_children if v.type != "comment"]
                yield from zip(types.get(self._words(typed, "type"), ()), values, strict=False)

    def functions(
        self, file: str, record: set[str], holders: set[str], names: set[str], known: set[str]
    ) -> list[Function]:
        """Return the functions, in order.

        `record`: names of a record's fields; `holders`: fields that point at a record;
        `names` of all functions and `known` of all globals, in all files.
        """
        found: list[dict[str, dict[str, None]]] = [defaultdict(dict) for _ in self.nodes]
        kinds = "call", "through", "field", "name", "typed"
        local: list[set[str]] = [set() for _ in self.nodes]
        records: list[set[str]] = [set() for _ in self.nodes]
        placed = [(kind, node) for kind in kinds for node in self.inside.get(kind, ())]
        for kind, node in sorted(placed, key=lambda one: (one[0] != "typed", one[1].start_byte)):
            n = self.home(node)
            if n is None:
                continue
            words = self.unit.words(node)
            if kind == "typed":
                made = node.children_by_field_name("declarator")
                introduced = {name_of(self.unit, one) for one in made}
                local[n] |= introduced
                typed = node.child_by_field_name("type")
                if typed and self.unit.words(typed) == _RECORD:
                    records[n] |= introduced
            elif kind == "call":
                into = "through" if words in known and words not in names else "calls"
                found[n][into][words] = None
            elif kind == "through":
                found[n]["through"][words] = None
            elif kind == "field":
                self._field(node, record, holders, records[n], found[n])
            elif words in names and words != self.names[n]:
                called = node.parent is not None and node.parent.type == "call_expression"
                if not called and words not in local[n]:
                    found[n]["hands_on"][words] = None
            elif words in known and words not in local[n]:
                found[n]["globals"][words] = None
        comments = sorted(self.inside.get("comment", ()), key=lambda one: one.start_byte)
        return [
            Function(
                name=name,
                file=file,
                line=node.start_point[0] + 1,
                lines=node.end_point[0] - node.start_point[0] + 1,
                digest=self._digest(node, [c for c in comments if self.home(c) == n]),
                **{key: tuple(value) for key, value in found[n].items()},
            )
            for n, (name, node) in enumerate(zip(self.names, self.nodes, strict=True))
        ]

    def _field(
        self,
        node: Node,
        record: set[str],
        holders: set[str],
        records: set[str],
        found: dict[str, dict[str, None]],
    ) -> None:
        """Note a field of a record: read, or written (assigned, or its address taken)."""
        base, field = node.child_by_field_name("argument"), node.child_by_field_name("field")
        if base is None or field is None or self.unit.words(field) not in record:
            return
        own = base.type == "identifier" and self.unit.words(base) in records
        inner = base.child_by_field_name("field")
        held = inner is not None and self.unit.words(inner) in holders
        if not (own or held):
            return
        outer = node
        while outer.parent and outer.parent.type == "subscript_expression":
            outer = outer.parent
        parent = outer.parent
        left = parent.child_by_field_name("left") if parent else None
        given = parent is not None and self.unit.words(parent).startswith("&")
        assigned = parent is not None and parent.type == "assignment_expression" and left == outer
        kind = "writes" if given or assigned else "reads"
        found[kind][self.unit.words(field)] = None

    def _digest(self, node: Node, comments: list[Node]) -> str:
        """Return what changes with the code of a function, not with comments or layout."""
        text, at = b"", node.start_byte
        for comment in comments:
            text += self.unit.clean[at : comment.start_byte]
            at = comment.end_byte
        text += self.unit.clean[at : node.end_byte]
        return hashlib.sha256(re.sub(rb"\s+", b"", text)).hexdigest()[:16]


def _globals(path: str, body: _Bodies) -> Iterator[Global]:
    """Yield the variables with static storage that a file defines, or says to be elsewhere."""
    unit = body.unit
    for node in sorted(unit.captures(_GLOBALS).get("it", ()), key=lambda one: one.start_byte):
        made, name = node.child_by_field_name("declarator"), name_of(unit, node)
        if made is None or not name or body.home(node) is not None or _is_prototype(made):
            continue
        said = unit.text[node.start_byte : node.end_byte]
        where = _DEFINED
        if said.startswith(b"extern"):
            bound = rf"#define {name} +INSTR_PROF_SECT_(START|STOP)".encode()
            section = b"section$" in said or re.search(bound, unit.text)
            where = "the linker: a section's bound" if section else _ELSEWHERE
        elif b"COMPILER_RT_WEAK" in unit.text[node.start_byte - 80 : node.end_byte]:
            where = "the runtime, unless an instrumented object has its own"
        yield Global(name, path.rpartition("/")[2], where)


def _is_prototype(made: Node) -> bool:
    """Return whether a declarator is that of a function, not of a pointer to one."""
    node: Node | None = made
    while node is not None and node.type != "function_declarator":
        node = node.child_by_field_name("declarator")
    inner = node.child_by_field_name("declarator") if node else None
    return inner is not None and inner.type != "parenthesized_declarator"


def _once(declared: list[Global]) -> tuple[Global, ...]:
    """Return each variable once: where it is defined, rather than where it is said to be."""
    found: dict[str, Global] = {}
    for one in sorted(declared, key=lambda one: one.comes_from == _ELSEWHERE):
        found.setdefault(one.name, one)
    return tuple(found.values())
