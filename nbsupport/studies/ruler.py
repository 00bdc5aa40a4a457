"""The record ruler: the bytes of a mixed section, as written and as the runtime reads them.

What is read from the image decides everything that is said: nothing here knows an answer.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbsupport.base.errors import LabError
from nbsupport.profile import infer
from nbsupport.profile.layout import LAYOUTS, Layout

if TYPE_CHECKING:
    from nbsupport.lab.build import Trial
    from nbsupport.lab.lab import Lab

#: Where Linux puts a position-independent program that it does not move about, as under a
#: debugger. Source: ELF_ET_DYN_BASE (arch/x86/include/asm/elf.h) and the page above it.
_BASE = 0x555555554000
#: From a node's start to its pointer to the next. Source: ValueProfNode in InstrProfData.inc.
_NEXT = 16
#: Source: INSTR_PROF_MAX_NUM_VAL_PER_SITE in InstrProfData.inc.
_MOST_NODES = 255
_WORD = 8


@dataclass(frozen=True)
class Record:
    """A record as somebody takes it: where it starts, whose it is ("" unknown), which layout."""

    offset: int
    name: str
    layout: Layout

    @property
    def end(self) -> int:
        """Where the next record starts."""
        return self.offset + self.layout.record_size()

    def fields(self) -> tuple[tuple[str, int, int], ...]:
        """Return (name, offset in the section, bytes) of each field."""
        starts = self.layout.offsets()
        return tuple(
            (f.name, self.offset + starts[f.name], (f.size or _WORD) * f.count)
            for f in self.layout.record
        )


@dataclass(frozen=True)
class Misread:
    """The field that kills: what the runtime takes for the pointer `Values` of a record.

    `at` is its offset in the section, `value` what is there, `written` the fields of `record`
    that these bytes are, with their values. `node` is what stands where `value` points, if
    anything does (code, then); the runtime takes it for a node's address.
    """

    slot: Record
    at: int
    value: int
    record: Record
    written: Mapping[str, list[int]]
    node: int | None
    fault_address: int


@dataclass(frozen=True)
class Ruler:
    """A section: its bytes (pointers relocated), its records, and the runtime's."""

    data: bytes
    records: tuple[Record, ...]
    slots: tuple[Record, ...]
    misread: Misread | None

    @property
    def fault_address(self) -> str | None:
        """Where the runtime will die, as a trial's outcome says it; None: nowhere."""
        return f"{self.misread.fault_address:#x}" if self.misread else None


def of(lab: Lab, trial: Trial) -> Ruler:
    """Read the program of a trial; an LLVM that is not in the table is asked for its layout."""
    from nbsupport.lab import build  # noqa: PLC0415 - only here, and a trace needs the rest
    from nbsupport.toolchains import headers  # noqa: PLC0415 - only here, and a trace needs the rest

    mine, other = (
        LAYOUTS.get(part.raw_version or 0) or headers.read(part)
        for part in (trial.runtime, trial.foreign)
    )
    return read(build.linked(trial, lab.cache), mine, other)


def read(image: Path, runtime: Layout, foreign: Layout) -> Ruler:
    """Read the section of a linked 64-bit ELF image, whose records are of these two layouts.

    Raises `LabError` for any other file.
    """
    from nbsupport.audit import objects  # noqa: PLC0415 - it imports LIEF: a third of a second

    file = objects.read(image)
    sections = [section for part in file.parts for section in part.sections] if file else []
    layouts = {known.record_size(): known for known in (foreign, runtime)}
    found = infer.find(sections[0]) if sections else None
    if not found or sections[0].bits != 64 or not set(found.sizes.tolist()) <= layouts.keys():
        raise LabError(image.name, "not a 64-bit image of these layouts", "link one of the lab's")
    data, word = _loaded(image)
    records, slots = lay(dataclasses.replace(sections[0], data=data), runtime, layouts)
    wrong = (_misread(data, slot, records, word) for slot in slots)
    return Ruler(data, records, slots, next((one for one in wrong if one), None))


def lay(
    section: infer.Section, runtime: Layout, layouts: Mapping[int, Layout]
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Return the records of a section, and what a runtime takes for them with its own stride.

    `layouts` are by size of a record, in bytes; records of other sizes are left out.
    """
    found = infer.find(section)
    words = np.frombuffer(section.data, "<u8", len(section.data) // _WORD)
    text = section.names.text
    index = section.names.index(words[found.offsets // _WORD])
    names = [text[n].decode(errors="replace") if n >= 0 else "" for n in index]
    records = tuple(
        Record(offset, name, layouts[size])
        for offset, name, size in zip(
            found.offsets.tolist(), names, found.sizes.tolist(), strict=True
        )
        if size in layouts
    )
    starts = {record.offset: record.name for record in records}
    stride = runtime.record_size()
    slots = tuple(
        Record(at, starts.get(at, ""), runtime)
        for at in range(0, len(section.data) - stride + 1, stride)
    )
    return records, slots


def _loaded(image: Path) -> tuple[bytes, Callable[[int], int | None]]:
    """Return the data section as the loader leaves it, and a reader of words at addresses."""
    import lief  # noqa: PLC0415 - a third of a second

    binary: Any = lief.parse(image)
    if not isinstance(binary, lief.ELF.Binary):
        raise LabError(image.name, "not an ELF image", "draw the ruler on Linux")
    base = _BASE if binary.is_pie else 0
    section: Any = binary.get_section("__llvm_prf_data")
    data = bytearray(section.content)
    for fix in binary.dynamic_relocations:
        at = fix.address - section.virtual_address
        if 0 <= at <= len(data) - _WORD:
            data[at : at + _WORD] = (base + fix.addend).to_bytes(_WORD, "little")

    def word(address: int) -> int | None:
        for segment in binary.segments:
            start = address - base - segment.virtual_address
            if segment.type == segment.TYPE.LOAD and 0 <= start <= segment.virtual_size - _WORD:
                content = bytes(segment.content[start : start + _WORD])
                return int.from_bytes(content, "little")
        return None

    return bytes(data), word


def _misread(
    data: bytes, slot: Record, records: Sequence[Record], word: Callable[[int], int | None]
) -> Misread | None:
    """Return where the runtime dies of what it takes for a record; None where it gets by.

    With sites, it reads a pointer to a node for each, then follows the nodes.
    Source: initializeValueProfRuntimeRecord (InstrProfilingValue.c).
    """
    fields = np.frombuffer(data, slot.layout.record_dtype(), 1, slot.offset)[0]
    value, sites = int(fields["Values"]), int(fields["NumValueSites"].sum())
    at = slot.offset + slot.layout.offsets()["Values"]
    for touched in range(value, value + _WORD * sites if value else 0, _WORD):
        node = first = word(touched)
        for _ in range(_MOST_NODES):
            if not node:
                break
            touched, node = node + _NEXT, word(node + _NEXT)  # noqa: PLW2901
        if node is None:
            record = next(record for record in records if record.offset <= at < record.end)
            return Misread(
                slot, at, value, record, _written(data, record, at), first, touched % (1 << 64)
            )
    return None


def _written(data: bytes, record: Record, at: int) -> dict[str, list[int]]:
    """Return the fields of a record that the eight bytes there are of."""
    values = np.frombuffer(data, record.layout.record_dtype(), 1, record.offset)[0]
    return {
        name: np.atleast_1d(values[name]).tolist()
        for name, start, size in record.fields()
        if start < at + _WORD and at < start + size
    }


def explain(found: Ruler) -> tuple[tuple[str, str], ...]:
    """Return the steps from bytes to fault address, as (who does what, what comes of it)."""
    wrong = found.misread
    if not wrong:
        return ()
    owner = short(wrong.record.name)
    if wrong.node is None:
        say: Callable[[int], str] = str if len(wrong.written) > 1 else hex
        numbers = (f"{n} {', '.join(map(say, values))}" for n, values in wrong.written.items())
        steps = [
            ("written", f"{_hex(wrong.value)}: {', '.join(numbers)}, of {owner}"),
            ("read as", f"Values = {wrong.value:#x}, a pointer to nodes"),
        ]
    else:  # an address, which differs from machine to machine
        steps = [
            ("written", f"{', '.join(wrong.written)} of {owner}"),
            ("read as", "Values, a pointer to nodes"),
            ("found there", f"{_hex(wrong.node)}, taken for the address of a node"),
            ("touched", f"that node's Next, {_NEXT} bytes on"),
        ]
    steps.append(("fault address", f"{found.fault_address}"))
    return tuple(steps)


def caption(found: Ruler) -> str:
    """Say in a sentence or two what the ruler shows."""
    mine = found.slots[0].layout
    steps = f"The runtime of raw version {mine.raw_version} steps {mine.record_size()} bytes"
    wrong = found.misread
    if not wrong:
        return f"{steps} from record to record, and so do the records: it reads what was written."
    return (
        f"{steps}, the library's records are {wrong.record.layout.record_size()} long: where it "
        f"looks for Values stands {' and '.join(wrong.written)} of {short(wrong.record.name)}, "
        f"and leads it to {found.fault_address}."
    )


def _hex(word: int) -> str:
    """Return a word's bytes as they lie in memory."""
    return word.to_bytes(_WORD, "little").hex(" ")


def short(name: str) -> str:
    """Return a function's name without its file's. Source: getIRPGOObjectName (InstrProf.cpp)."""
    return re.split("[;:]", name)[-1]
