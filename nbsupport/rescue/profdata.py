"""From records and counters to profiles that llvm-profdata merges: one for each layout, one of all.

Text profiles carry no version, so each llvm-profdata reads them; an indexed profile is read by
the LLVM that made it and by newer ones. Source: TextInstrProfReader, IndexedInstrProfReader
(InstrProfReader.cpp), ProfVersion (InstrProf.h).
"""

import itertools
import struct
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nbsupport.base import files
from nbsupport.base.errors import LabError, first_line
from nbsupport.profile import header, layout
from nbsupport.profile.layout import MAGIC, Bits, Layout, Order
from nbsupport.profile.profraw import Profile
from nbsupport.rescue.rescued import VALUES, RescuedPart
from nbsupport.rescue.value_sites import Nodes
from nbsupport.toolchains import profdata as llvm_profdata

#: Variants that a text profile can say, and how. Source: readHeader (TextInstrProfReader).
_VARIANTS = {
    "context-sensitive": b":csir",
    "ir": b":ir",
    "entry-first": b":entry_first",
    "byte-coverage": b":single_byte_coverage",
}
#: Kinds of value sites that each llvm-profdata knows; vtables came with LLVM 19.
_KINDS = 2
#: A target that no record is of. Source: getExternalSymbol (InstrProf.h).
_EXTERNAL = "** External Symbol **"


@dataclass(frozen=True)
class Recovered:
    """The functions of one image, by record size, each as text of a profile; and what is lost."""

    variants: tuple[str, ...]
    texts: Mapping[int, Sequence[bytes]]
    lost: tuple[str, ...]

    @property
    def header(self) -> bytes:
        """What a text profile of it begins with."""
        lines = [line for name, line in _VARIANTS.items() if name in self.variants]
        if "ir" not in self.variants:
            lines.insert(0, b":fe")
        elif "context-sensitive" in self.variants:
            lines.remove(b":ir")
        return b"".join(line + b"\n" for line in lines)


def recover(
    profile: Profile, nodes: Nodes | None = None, *, without: Collection[str] = ()
) -> Recovered:
    """Return what is in a profile, whether or not its records are of one layout.

    Functions of the names in `without` are left out, and those of which it is not certain which
    counters are theirs.

    Without nodes, value sites are there without values: without sites a compiler takes the
    profile for stale. Source: annotateValueSites (PGOInstrumentation.cpp).
    """
    functions, records = profile.functions, profile.records
    kinds = [block.rows["NumValueSites"] for block in records.blocks]
    sites = np.concatenate([np.zeros((0, _KINDS), np.uint16), *(k[:, :_KINDS] for k in kinds)])
    targets = records.column("FunctionPointer")[records.sound].tolist()
    named = {at: name.decode("latin-1") for at, name in zip(targets, functions.names, strict=True)}
    named[0] = ""
    texts: dict[int, list[bytes]] = {}
    left_out = over = 0
    columns = [sites, records.column("Values"), records.uncertain]
    columns = [functions.record_sizes, *(column[records.sound] for column in columns)]
    rows = zip(functions.rows(), *(column.tolist() for column in columns), strict=True)
    for (name, number, counts), size, numbers, pointer, uncertain in rows:
        if name.decode("latin-1") in without:
            left_out += 1
        elif name and uncertain:
            over += 1
        elif name:
            values = nodes.values(pointer, numbers) if nodes else itertools.repeat([])
            lines = [name.decode("latin-1"), *map(str, (number, len(counts), *counts))]
            lines += [*_sites(numbers, values, named), "\n"]
            texts.setdefault(size, []).append("\n".join(lines).encode("latin-1"))
    nameless = len(functions.names) - sum(map(len, texts.values())) - left_out - over
    lost = {
        VALUES: not nodes and any(block.any() for block in kinds),
        f"{nameless} functions whose names are not there": nameless,
        f"{over} functions whose counts are not certain, for records were written over": over,
        "its MC/DC bitmaps": len(profile.header.part("bitmaps")),
        "when functions were first executed (temporal profile)": profile.header.timed,
        "its vtable values": any(block[:, _KINDS:].any() for block in kinds),
    }
    return Recovered(profile.header.variants, texts, tuple(what for what in lost if lost[what]))


def _sites(
    numbers: Sequence[int], sites: Iterator[Sequence[tuple[int, int]]], named: Mapping[int, str]
) -> Iterator[str]:
    """Yield value sites and what they saw. Source: readValueProfileData (TextInstrProfReader)."""
    if any(numbers):
        yield str(sum(n > 0 for n in numbers))
    for kind, number in enumerate(numbers):
        if number:
            yield from (str(kind), str(number))
        for values in itertools.islice(sites, number):
            yield str(len(values))
            for value, count in values:
                yield f"{value if kind else named.get(value) or _EXTERNAL}:{count}"


def raw(
    runtime: Layout, version: int, bits: Bits, order: Order, parts: Mapping[str, tuple[int, bytes]]
) -> bytes:
    """Return a raw profile of sections in memory, as a runtime would write it without values.

    `parts` are where `data`, `names`, `counters` and `bitmaps` (if any) stand, and their bytes.
    """
    (home, records), (_, names) = parts["data"], parts["names"]
    stride = runtime.record_size(bits)
    content = [records + bytes(-len(records) % stride)]
    width = 1 if "byte-coverage" in layout.split(version)[1] else 8
    fields = dict.fromkeys(runtime.header, 0)
    fields |= {"Magic": int.from_bytes(MAGIC[bits], "big"), "Version": version}
    fields |= {"NamesSize": len(names), "ValueKindLast": runtime.value_kinds - 1}
    # Up to raw version 8 these had other names. Source: INSTR_PROF_RAW_HEADER (InstrProfData.inc).
    new = "NumData" in fields
    fields["NumData" if new else "DataSize"] = len(content[0]) // stride
    for name, size, unit, delta in (
        ("counters", "NumCounters" if new else "CountersSize", width, "CountersDelta"),
        ("bitmaps", "NumBitmapBytes", 1, "BitmapDelta"),
    ):
        if size in fields:
            address, part = parts.get(name, (home, b""))
            content.append(part + bytes(-len(part) % 8))
            fields[size] = len(content[-1]) // unit
            fields[delta] = (address - home) % (1 << bits)
    head = struct.pack(f"{order}{len(fields)}Q", *fields.values())
    return b"".join([head, *content, names, bytes(-len(names) % 8)])


def parse(content: bytes) -> Profile:
    """Return the profile that `raw` has made."""
    head = header.read(memoryview(content), 0)
    assert isinstance(head, header.Header)
    return Profile(head)


def write(images: Sequence[Recovered], out: Path) -> tuple[RescuedPart, ...]:
    """Write the profile of all functions to `out`, and of several layouts each beside it.

    The oldest llvm-profdata there is makes it: each newer compiler reads that. Without one, or
    where `out` ends with `.proftext`, it is a text profile. Returns what is in it, by layout.
    Raises `LabError` where nothing was found, or it cannot be written.
    """
    sizes = sorted({size for image in images for size in image.texts})
    if not sizes:
        raise LabError(str(out), "no function that can be rescued", "run it again under rescue")
    tool, major = None, 0
    if out.suffix != ".proftext" and (owners := llvm_profdata.owners()):
        tool, major = owners[0].llvm_profdata, int(owners[0].major)
    profiles = [(tuple(sizes), out, tool)]
    parts = []
    for size in sizes:
        versions = tuple(v for v in layout.sizes().get(size, ()) if layout.LAYOUTS[v].relative)
        llvms = [layout.LAYOUTS[version].llvm for version in versions]
        last = max((llvm[1] for llvm in llvms if llvm), default=major)
        able = tool if len(sizes) == 1 or major <= last else None
        path = out
        if len(sizes) > 1:
            path = out.with_name(f"{out.stem}.{size}{out.suffix if able else '.proftext'}")
            profiles.append(((size,), path, able))
        number = sum(len(image.texts.get(size, ())) for image in images)
        parts.append(RescuedPart(size, versions, number, path, major if able else None))
    with ThreadPoolExecutor() as pool:  # each waits for an llvm-profdata
        list(pool.map(lambda profile: _index(images, *profile), profiles))
    return tuple(parts)


def _index(images: Iterable[Recovered], sizes: Sequence[int], out: Path, tool: Path | None) -> None:
    """Merge the profiles of these sizes into one; raises `LabError` where that does not go."""
    texts: dict[bytes, bytes] = {}
    for image in images:
        body = b"".join(text for size in sizes for text in image.texts.get(size, ()))
        texts[image.header] = texts.get(image.header, b"") + body
    if tool is None and len(texts) == 1:
        files.write(out, b"".join([*texts, *texts.values()]))
        return
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder = Path(name)
        for n, (head, text) in enumerate(texts.items()):
            (folder / f"{n}.proftext").write_bytes(head + text)
        inputs = list(folder.glob("*.proftext"))
        done = llvm_profdata.merge(tool or Path("llvm-profdata"), inputs, out)
        if not done.ok:
            why = first_line(done.stderr).replace(f"{folder}/", "")
            raise LabError(
                str(out), f"llvm-profdata: {why}", "give -o OUT.proftext, and look at it"
            )
