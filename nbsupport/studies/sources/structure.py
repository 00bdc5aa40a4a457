"""The profile runtime as data: its functions, who calls whom, what each reads of a record.

Of its text only digests are kept, so that a structure can be recorded and committed.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tree_sitter import Node

from nbsupport.base import LabError
from nbsupport.studies.sources.parse import ADVICE, TranslationUnit, child, parsed
from nbsupport.toolchains.tree import Tree

#: The type of a record. Source: InstrProfiling.h.
_RECORD = "__llvm_profile_data"
_LIST = "InstrProfData.inc"
_DEFINED, _ELSEWHERE = "the runtime", "outside the runtime"
#: Where a declaration is outside of all functions.
_OUTSIDE = ("translation_unit", "preproc_ifdef", "preproc_if", "preproc_else", "preproc_elif")


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
        for function in self.functions:
            if function.name == name:
                return function
        why = "the profile runtime has no such function"
        raise LabError(f"{name} in LLVM {self.version}", why, ADVICE)

    @functools.cached_property
    def _by_name(self) -> Mapping[str, list[Function]]:
        """The functions of each name: platforms may have their own."""
        named: dict[str, list[Function]] = {}
        for function in self.functions:
            named.setdefault(function.name, []).append(function)
        return named

    def leads_to(self, name: str) -> dict[str, str]:
        """Return the functions that a function calls or hands on, and by what ("": directly)."""
        targets: dict[str, str] = {}
        for function in self._by_name.get(name, ()):
            targets |= {n: "as a value" for n in function.hands_on if n not in targets}
            for pointer in function.through:
                targets |= dict.fromkeys(self.tables.get(pointer, ()), pointer)
            targets |= dict.fromkeys(function.calls, "")
        return {target: by for target, by in targets.items() if target in self._by_name}

    def callers(self, name: str) -> tuple[str, ...]:
        """Return the functions that call a function, by name or by pointer."""
        return tuple(one for one in self._by_name if name in self.leads_to(one))

    def path(self, start: str, goal: str) -> tuple[str, ...]:
        """Return the shortest way of calls from one function to another; () where there is none."""
        ways: dict[str, tuple[str, ...]] = {start: (start,)}
        queue = [start]
        for name in queue:
            if goal in ways:
                break
            for target in self.leads_to(name):
                if target not in ways:
                    ways[target] = (*ways[name], target)
                    queue.append(target)
        return ways.get(goal, ())

    def to_json(self) -> str:
        """Return the structure as one JSON document; see `load`."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":")) + "\n"


def load(text: str) -> Structure:
    """Return a structure that `to_json` wrote."""
    content = json.loads(text, object_hook=_frozen)
    content["functions"] = tuple(Function(**row) for row in content["functions"])
    content["globals"] = tuple(Global(**row) for row in content["globals"])
    return Structure(**content)


def _frozen(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def from_tree(tree: Tree) -> Structure:
    """Return the structure of a version, from its sources: a tenth of a second."""
    paths = [path for path in tree.files if not path.endswith(".txt")]
    units = [parsed(Path(path).name, tree.content(path)) for path in paths]
    listed = next(unit.text for unit in units if unit.file == _LIST)
    version = re.search(rb"#define INSTR_PROF_RAW_VERSION (\d+)", listed)
    record = _listed(listed, "INSTR_PROF_DATA")
    types = {name: fields for unit in units for name, fields in _types(unit)}
    members = [member for fields in types.values() for member in fields.items()]
    bodies = [(unit, *function) for unit in units for function in unit.functions]
    declared = [variable for unit in units for variable in _globals(unit)]
    # Each once: where it is defined, rather than where it is said to be.
    variables: dict[str, Global] = {}
    for variable in sorted(declared, key=lambda variable: variable.comes_from == _ELSEWHERE):
        variables.setdefault(variable.name, variable)
    names = _Names(
        record=frozenset(record),
        pointers=frozenset(field for field, kind in members if kind == _RECORD),
        functions=frozenset(unit.name(node) for unit, node, _ in bodies),
        variables=frozenset(variables),
    )
    tables: dict[str, set[str]] = defaultdict(set)
    for unit in units:
        for slot, value in _slots(unit, types):
            if value in names.functions:
                tables[slot].add(value)
    return Structure(
        version=tree.version,
        raw_version=int(version[1]) if version else 0,
        record=record,
        header=_listed(listed, "INSTR_PROF_RAW_HEADER"),
        functions=tuple(_function(names, *body) for body in bodies),
        globals=tuple(variables.values()),
        tables={slot: tuple(sorted(values)) for slot, values in sorted(tables.items())},
    )


def _listed(text: bytes, macro: str) -> tuple[str, ...]:
    """Return the names in a list of InstrProfData.inc: the last argument but one of each entry."""
    names = []
    for entry in re.finditer(rf"^{macro}\(".encode(), text, re.M):
        arguments, nested = text[entry.end() : entry.end() + 1000].decode(errors="replace"), 1
        while nested:
            arguments, nested = re.subn(r"\([^()]*\)", "", arguments)
        names += re.findall(r"\w+", arguments.partition(")")[0].split(",")[-2])[:1]
    return tuple(dict.fromkeys(names))


def _types(unit: TranslationUnit) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the structs by name, each with its fields, in order, and the names of their types."""
    for struct in unit.nodes["struct_specifier"]:
        if body := child(struct, "body"):
            members = [node for node in body.named_children if node.type == "field_declaration"]
            fields = {unit.name(member): unit.field(member, "type") for member in members}
            yield unit.field(struct, "name"), fields
            if struct.parent and struct.parent.type == "type_definition":
                yield unit.field(struct.parent, "declarator"), fields


def _slots(unit: TranslationUnit, types: dict[str, dict[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield what is put where: a field's or a global's name, and a name put there."""
    for assignment in unit.nodes["assignment_expression"]:
        target = child(assignment, "left")
        if target and target.type in ("field_expression", "identifier"):
            value = unit.field(assignment, "right").lstrip("&")
            yield unit.field(target, "field") or unit.words(target), value
    for declaration in (*unit.nodes["declaration"], *unit.nodes["parameter_declaration"]):
        initial = child(declaration, "declarator", "value")
        if initial and initial.type == "initializer_list":
            values = [unit.words(n) for n in initial.named_children if n.type != "comment"]
            yield from zip(types.get(unit.field(declaration, "type"), ()), values, strict=False)


@dataclass(frozen=True)
class _Names:
    """What a name may mean in any file: a record's field, a field that points at a record."""

    record: frozenset[str]
    pointers: frozenset[str]
    functions: frozenset[str]
    variables: frozenset[str]


def _function(names: _Names, unit: TranslationUnit, node: Node, end: int) -> Function:
    """Return what one function calls and uses; `names` are those of all files."""
    inside = functools.partial(unit.between, node.start_byte, end)
    name = unit.name(node)
    digest = _digest(unit, node, inside("comment"))
    uses: dict[str, dict[str, None]] = defaultdict(dict)
    local, records = set[str](), set[str]()
    for typed in inside("parameter_declaration", "declaration"):
        introduced = {unit.name(node) for node in typed.children_by_field_name("declarator")}
        local |= introduced
        if unit.field(typed, "type") == _RECORD:
            records |= introduced
    for call in inside("call_expression"):
        kind, word = _called(unit, call, names)
        if word:
            uses[kind][word] = None
    for field in inside("field_expression"):
        if _is_of_record(unit, field, names, records):
            kind = "writes" if _is_written(unit, field) else "reads"
            uses[kind][unit.field(field, "field")] = None
    for identifier in inside("identifier"):
        word = unit.words(identifier)
        if word in local:
            continue
        if word in names.functions and word != name:
            if identifier.parent is not None and identifier.parent.type != "call_expression":
                uses["hands_on"][word] = None
        elif word in names.variables:
            uses["globals"][word] = None
    first, last = node.start_point[0] + 1, node.end_point[0] + 1
    used = {kind: tuple(words) for kind, words in uses.items()}
    return Function(name, unit.file, first, last - first + 1, digest, **used)


def _called(unit: TranslationUnit, call: Node, names: _Names) -> tuple[str, str]:
    """Return what is called: by name ("calls") or pointer ("through"); "" for what has no name."""
    target = child(call, "function")
    if target and target.type == "field_expression":
        return "through", unit.field(target, "field")
    word = unit.words(target) if target and target.type == "identifier" else ""
    pointer = word in names.variables and word not in names.functions
    return "through" if pointer else "calls", word


def _is_of_record(unit: TranslationUnit, node: Node, names: _Names, records: set[str]) -> bool:
    """Return whether a field is one of a record, which a variable or a field points at."""
    if unit.field(node, "field") not in names.record:
        return False
    base = child(node, "argument")
    return unit.words(base) in records or unit.field(base, "field") in names.pointers


def _is_written(unit: TranslationUnit, node: Node) -> bool:
    """Return whether a field, or an element of it, is assigned, or its address is taken."""
    while node.parent and node.parent.type == "subscript_expression":
        node = node.parent
    parent = node.parent
    if parent and parent.type == "assignment_expression":
        return child(parent, "left") == node
    return unit.words(parent).startswith("&")


def _digest(unit: TranslationUnit, node: Node, comments: Iterable[Node]) -> str:
    """Return what changes with the code of a function, not with comments or layout."""
    text, place = b"", node.start_byte
    for comment in comments:
        text += unit.clean[place : comment.start_byte]
        place = comment.end_byte
    text += unit.clean[place : node.end_byte]
    return hashlib.sha256(re.sub(rb"\s+", b"", text)).hexdigest()[:16]


def _globals(unit: TranslationUnit) -> Iterator[Global]:
    """Yield the variables with static storage that a file defines, or says to be elsewhere."""
    within = [unit.between(node.start_byte, end, "declaration") for node, end in unit.functions]
    local = {node.id for node in itertools.chain(*within)}
    for node in unit.nodes["declaration"]:
        outside = node.parent and node.parent.type in _OUTSIDE and node.id not in local
        name = unit.name(node)
        if not outside or not child(node, "declarator") or not name or _is_prototype(node):
            continue
        text = unit.text[node.start_byte : node.end_byte]
        where = _DEFINED
        if text.startswith(b"extern"):
            bound = rf"#define {name} +INSTR_PROF_SECT_(START|STOP)".encode()
            section = b"section$" in text or re.search(bound, unit.text)
            where = "the linker: a section's bound" if section else _ELSEWHERE
        elif b"COMPILER_RT_WEAK" in unit.text[node.start_byte - 80 : node.end_byte]:
            where = "the runtime, unless an instrumented object has its own"
        yield Global(name, unit.file, where)


def _is_prototype(declaration: Node) -> bool:
    """Return whether a declaration is that of a function, not of a pointer to one."""
    node = child(declaration, "declarator")
    while node and node.type != "function_declarator":
        node = child(node, "declarator")
    inner = child(node, "declarator")
    return inner is not None and inner.type != "parenthesized_declarator"
