"""Which addresses the function that dies can touch, wherever in a record a walk meets it.

A walk of one stride through records of another size meets them in a few phases. For each, what
stands where the runtime looks for `Values` and `NumValueSites` follows from the two layouts, and so
do the addresses. The runtime's own function is handed such records, and the kernel says where it
faults.

Source of what it touches: initializeValueProfRuntimeRecord (InstrProfilingValue.c), and
writeOneValueProfData (InstrProfilingWriter.c) for the arrays that it is given.
"""

import dataclasses
import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nbsupport.base import files, process, settings
from nbsupport.base.errors import BuildError, LabError, first_line
from nbsupport.lab import build
from nbsupport.profile import Layout
from nbsupport.profile.layout import places
from nbsupport.show import Shown, shown
from nbsupport.toolchains import Toolchain, headers

#: Where the program puts a page: high, as programs of macOS are, so that half of such an address
#: is no 0. Bytes.
_PAGE, _PAGE_SIZE, _WORD = 0x2_0000_0000, 4096, 8
#: An address that is mapped nowhere: below mmap_min_addr.
_NOWHERE = 0x1000
#: From a node's start to its pointer to the next. Source: ValueProfNode in InstrProfData.inc.
_NEXT = 16
#: si_code of a fault whose address the kernel does not know: SI_KERNEL (asm-generic/siginfo.h).
_UNKNOWN = 128
_SPACE = 1 << 64


@dataclass(frozen=True)
class Phase:
    """Where in a foreign record the runtime's begins (`at`, bytes), and what it reads there.

    `values` and `sites` are the foreign fields in the place of `Values` and `NumValueSites`.
    """

    at: int
    values: tuple[str, ...]
    sites: tuple[str, ...]


def enumerate_phases(runtime: Layout, foreign: Layout) -> tuple[Phase, ...]:
    """Return the phases of a walk by the stride of `runtime` through records of `foreign`.

    >>> from nbsupport.profile import LAYOUTS
    >>> [(phase.at, *phase.values) for phase in enumerate_phases(LAYOUTS[10], LAYOUTS[8])]
    [(0, 'NumCounters', 'NumValueSites'), (16, "next record's FuncHash"), \
(32, "next record's FunctionPointer")]
    """
    fields = places(runtime, "record")
    step = math.gcd(runtime.record_size(), foreign.record_size())
    starts = range(0, foreign.record_size(), step)
    names = ("Values", "NumValueSites")
    return tuple(
        Phase(at, *(_written(foreign, at + fields[name][0], fields[name][1]) for name in names))
        for at in starts
    )


def _written(foreign: Layout, at: int, size: int) -> tuple[str, ...]:
    """Return which fields lie in `size` bytes from byte `at` of a row of records."""
    whole, names = foreign.record_size(), []
    for record in range(at // whole, (at + size - 1) // whole + 1):
        owner = "next record's " * bool(record)
        for name, (start, length) in places(foreign, "record").items():
            begin = record * whole + start
            if begin < at + size and at < begin + length:
                names.append(f"{owner}{name}")
    return tuple(names)


def touch(
    record: bytes, reader: Layout, arrays: Sequence[int], word: Callable[[int], int | None]
) -> Iterator[int]:
    """Yield the addresses that the function touches, in order, reading a record by its layout.

    `arrays` has the address of each kind's counts (0: the writer counted no sites of it), `word`
    reads memory. Of an array the first byte is told: the next ones are beside it.
    """
    row = reader.rows(record)[0]
    values, before = int(row["Values"]), 0
    for kind, sites in enumerate(map(int, row["NumValueSites"])):
        for site in range(sites if values else min(sites, 1)):
            place = values + _WORD * (before + site)
            while values and place:
                yield place % _SPACE
                node = word(place % _SPACE)
                place = node + _NEXT if node else 0
            if site == 0:
                yield arrays[kind]
        before += sites


def fault(record: bytes, reader: Layout, writer: Layout, memory: Mapping[int, int]) -> int | None:
    """Return the first address that is not there; None where the function gets by.

    The writer's arrays are where it counts sites, by its own layout.
    """
    counted = _counted(record, writer)
    arrays = [_PAGE if kind < len(counted) and counted[kind] else 0 for kind in range(3)]
    touched = touch(record, reader, arrays, memory.get)
    return next((address for address in touched if address not in memory), None)


def _counted(record: bytes, writer: Layout) -> list[int]:
    return [int(sites) for sites in writer.rows(record)[0]["NumValueSites"]]


def _records(layout: Layout) -> Iterator[bytes]:
    """Yield rows of three equal records with what a field may hold, and what could lead to 0."""
    hashes = (0, 1, 0x123456789ABCDEF, _SPACE - _WORD, _SPACE - _NEXT)
    numbers = {
        "NameRef": (0, 0x1122334455667788),
        "FuncHash": hashes,
        "FunctionPointer": (0, _NOWHERE, *range(_PAGE, _PAGE + 5 * _WORD, _WORD)),
        "Values": (0, _PAGE),
        "NumCounters": (1, 3),
        "NumValueSites": [(0,) * layout.value_kinds, *np.eye(layout.value_kinds, dtype=int), 2],
    }
    for chosen in itertools.product(*numbers.values()):
        rows = np.zeros(3, layout.record_dtype())
        for name, number in zip(numbers, chosen, strict=True):
            rows[name] = number
        yield rows.tobytes()


def _memory(first: int) -> dict[int, int]:
    """Return the page, by addresses: its `first` word, null, a number, a pointer into it, nulls."""
    words = [first, 0, 5, _PAGE + 80]
    words += [0] * (_PAGE_SIZE // _WORD - len(words))
    return {_PAGE + _WORD * n: number for n, number in enumerate(words)}


def try_all(main: Toolchain, foreign: Toolchain) -> pd.DataFrame:
    """Return what the function touches: by one runtime in each phase, and by two layouts.

    A row has `case`, `at`, `values`, `sites` (of the phase), how many `records` were tried, how
    many of them fault (`faults`), how many as `foretold`, and how many at exactly 0: `zero` as
    the kernel says, `zero_foretold` as the layouts do. Raises `LabError` where it cannot run.
    """
    mine, other = headers.learned(main), headers.learned(foreign)
    walk = enumerate_phases(mine, other)
    own = _Case(f"the runtime of LLVM {main.major}", main, mine, mine, other)
    held = dataclasses.replace(own, name="the same, with -16 in memory", first_word=_SPACE - _NEXT)
    two = f"InstrProfilingValue.c of LLVM {foreign.major}, the rest of LLVM {main.major}"
    cases = [(own, phase) for phase in walk]
    (start, *_) = enumerate_phases(other, mine)  # where a reader begins with a record, too
    cases += [(held, walk[-1]), (_Case(two, foreign, other, mine, mine), start)]
    return pd.DataFrame([case.try_phase(phase) for case, phase in cases])


def zeros(tried: pd.DataFrame, column: str) -> tuple[str, str]:
    """Return in words whether records touch 0: by one runtime, and by two layouts.

    `tried` is of `try_all`, `column` its `zero` or `zero_foretold`.
    """
    *one, _, two = tried[column]
    by_one, by_two = ("some" if number else "none" for number in (sum(one), two))
    return by_one, by_two


def table(tried: pd.DataFrame) -> Shown:
    """Show what `try_all` returned."""
    heads = ("reader", "starts at byte", "reads as Values", "reads as NumValueSites")
    numbers = ("records tried", "faults", "as predicted", "faults at exactly 0")
    columns = ["case", "at", "values", "sites", "records", "faults", "foretold", "zero"]
    return shown.table((*heads, *numbers), tried[columns].to_numpy().tolist())


@dataclass(frozen=True)
class _Case:
    """Records of one layout, read by the runtime of a toolchain, for a writer of a third.

    `first_word` is what the page holds first, where a pointer leads.
    """

    name: str
    toolchain: Toolchain
    reader: Layout
    writer: Layout
    records: Layout
    first_word: int = 0x8348535641574165  # x86-64: how many a function begins

    def try_phase(self, phase: Phase) -> dict[str, object]:
        """Hand the records of a phase to the runtime, and return a row of `try_all`."""
        size = max(self.reader.record_size(), self.writer.record_size())
        records = [row[phase.at : phase.at + size] for row in _records(self.records)]
        memory = _memory(self.first_word)
        foretold = [fault(record, self.reader, self.writer, memory) for record in records]
        faults = self._run(records, memory)
        alike = sum(map(_agree, foretold, faults))
        return {
            "case": self.name,
            "at": phase.at,
            "values": ", ".join(phase.values),
            "sites": ", ".join(phase.sites),
            "records": len(records),
            "faults": sum(code != 0 for _, code in faults),
            "foretold": alike,
            "zero": sum(address == 0 and code not in (0, _UNKNOWN) for address, code in faults),
            "zero_foretold": foretold.count(0),
        }

    def _run(self, records: Sequence[bytes], memory: Mapping[int, int]) -> list[tuple[int, int]]:
        """Return, for each record, the address and the code of the fault (0, 0: there is none)."""
        source = settings.data_dir() / "value_reader.c"
        runtime = self.toolchain.runtime
        assert runtime  # the notebook's trial has one
        clang = self.toolchain.compiler
        flags = [*build.linker_flags(self.toolchain), "-O1", "-w"]
        defined = (f"-DPAGE={_PAGE:#x}ul", f"-DRECORD={len(records[0])}")
        content = [word.to_bytes(_WORD, "little") for word in memory.values()]
        for record in records:
            counted = _counted(record, self.writer)
            content += [bytes([sum((sites > 0) << n for n, sites in enumerate(counted))]), record]
        with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
            folder = Path(name)
            command: process.Command = [clang, *flags, *defined, source, runtime, "-o"]
            done = process.run([*command, folder / "reader"], cwd=folder, limits=settings.COMPILER)
            if not done.ok:
                what, why = f"{source.name} by {self.toolchain.name}", first_line(done.stderr)
                raise BuildError(what, why, "choose another clang", done.stderr)
            files.write(folder / "records", b"".join(content))
            done = process.run([folder / "reader", folder / "records"], cwd=folder)
        lines = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
        if not done.ok or len(lines) != len(records):
            raise LabError(source.name, "it did not read all records", "run it on 64-bit Linux")
        return [(address, code) for address, code in lines]


def _agree(foretold: int | None, seen: tuple[int, int]) -> bool:
    """Return whether the kernel saw the fault that was foretold; of some it knows no address."""
    address, code = seen
    if foretold is None or code == 0:
        return foretold is None and code == 0
    return code == _UNKNOWN or address == foretold
