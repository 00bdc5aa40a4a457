"""Raw profiles written byte by byte, of any raw version, for either reader."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nbsupport.profile import layout
from nbsupport.profile.layout import MAGIC, Bits, Order

#: Where the writer pretends that counters (and bitmaps) were, from the data's start.
APART = 1 << 20


@dataclass
class Function:
    """What a record says: `sites` for each kind (value, count) pairs of each of its sites."""

    name: str
    hash: int
    counts: Sequence[int]
    bitmap: bytes = b""
    sites: dict[int, list[list[tuple[int, int]]]] = field(default_factory=dict)
    address: int = 0

    @property
    def ref(self) -> int:
        return int.from_bytes(hashlib.md5(self.name.encode()).digest()[:8], "little")  # noqa: S324


def uleb(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def names_blob(names: Iterable[str], *, compress: bool = True) -> bytes:
    text = "\x01".join(names).encode()
    packed = zlib.compress(text) if compress else b""
    return uleb(len(text)) + uleb(len(packed)) + (packed or text)


def padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 8)


def value_data(function: Function, order: Order = "<") -> bytes:
    """Return the block of a function with value sites, b"" for others."""
    body = b""
    for kind, sites in function.sites.items():
        body += struct.pack(f"{order}II", kind, len(sites))
        body += padded(bytes(len(site) for site in sites))
        body += b"".join(struct.pack(f"{order}QQ", *pair) for site in sites for pair in site)
    return struct.pack(f"{order}II", len(body) + 8, len(function.sites)) + body if body else b""


def profile(
    functions: Sequence[Function],
    version: int,
    *,
    bits: Bits = 64,
    order: Order = "<",
    names: bytes | None = None,
    binary_ids: bytes = b"",
    change: dict[str, int] | None = None,
    records: bytes | None = None,
    late: int = 0,
) -> bytes:
    """Return a raw profile; `version` has the variants' bits too.

    `names` and `records` replace what would be there, `change` numbers of the header. Counters
    begin `late` bytes into their part.
    """
    raw_version, variants = layout.split(version)
    known = layout.LAYOUTS[raw_version]
    width = 1 if "byte-coverage" in variants else 8
    stamp = bytes(8) if "temporal" in variants else b""
    base = 0 if known.relative else 1 << 30
    data = np.zeros(len(functions), known.record_dtype(bits, order))
    counters, bitmaps, values = bytes(late), b"", b""
    for i, (row, one) in enumerate(zip(data, functions, strict=True)):
        here = i * data.itemsize if known.relative else 0
        row["NameRef"], row["FuncHash"] = one.ref, one.hash
        row["CounterPtr"] = (base + APART + len(counters) - here) % (1 << bits)
        row["FunctionPointer"] = one.address
        row["NumCounters"] = len(one.counts) + len(stamp) // width
        for kind, sites in one.sites.items():
            row["NumValueSites"][kind] = len(sites)
        if "BitmapPtr" in known.offsets():
            row["BitmapPtr"] = (2 * APART + len(bitmaps) - here) % (1 << bits)
            row["NumBitmapBytes"] = len(one.bitmap)
        counters += stamp + np.array(one.counts, f"{order}u{width}").tobytes()
        bitmaps += one.bitmap
        values += value_data(one, order)
    data_bytes = data.tobytes() if records is None else records
    counters += bytes(-late % 8)
    text = names_blob(one.name for one in functions) if names is None else names
    number = -(-len(data_bytes) // known.record_size(bits))
    data_bytes += bytes(number * known.record_size(bits) - len(data_bytes))
    head = {
        "Version": version,
        "BinaryIdsSize": len(binary_ids),
        "NumData": number,
        "DataSize": number,
        "NumCounters": len(counters) // width,
        "CountersSize": len(counters) // width,
        "PaddingBytesAfterCounters": -len(counters) % 8,
        "NumBitmapBytes": len(bitmaps),
        "PaddingBytesAfterBitmapBytes": -len(bitmaps) % 8,
        "NamesSize": len(text),
        "CountersDelta": base + APART,
        "BitmapDelta": 2 * APART,
        "ValueKindLast": known.value_kinds - 1,
    } | (change or {})
    magic = MAGIC[bits] if order == ">" else MAGIC[bits][::-1]
    header = magic + b"".join(
        struct.pack(f"{order}Q", head.get(name, 0)) for name in known.header[1:]
    )
    parts = (binary_ids, data_bytes, padded(counters))
    after = (padded(bitmaps) if "NumBitmapBytes" in known.header else b"", padded(text), values)
    return header + b"".join(parts) + b"".join(after)


def large(path: Path, functions: int = 700_000, sites: bool = True) -> int:
    """Write a valid raw profile of LLVM 19 (raw version 10) like a big C++ program's.

    Objects of 1000 functions with long names (and 50 that another names too), 1 to 9 counters
    each, every tenth function with a value site; 100 MB with 700,000 functions. Returns its size in bytes.
    """
    random = np.random.default_rng(0)
    known = layout.LAYOUTS[10]
    words = ["render", "parse", "node", "Visitor", "Context", "std", "vector", "emplace", "impl"]
    picked = random.integers(0, len(words), (functions, 4)).tolist()
    tags = random.integers(0, 1 << 60, functions).tolist()
    names = [
        f"_ZN{len(words[a])}{words[a]}{len(words[b])}{words[b]}I{words[c]}{i}E{words[d]}{tag:x}Ev"
        for i, ((a, b, c, d), tag) in enumerate(zip(picked, tags, strict=True))
    ]
    numbers = random.integers(1, 10, functions)
    starts = np.concatenate([[0], np.cumsum(numbers)])
    data = np.zeros(functions, known.record_dtype())
    md5 = hashlib.md5
    data["NameRef"] = np.frombuffer(b"".join(md5(n.encode()).digest()[:8] for n in names), "<u8")
    data["FuncHash"] = random.integers(0, 1 << 60, functions)
    data["CounterPtr"] = 8 * starts[:-1] - np.arange(functions) * data.itemsize - 8 * starts[-1]
    data["NumCounters"] = numbers
    data["FunctionPointer"] = 0x1000 + 16 * np.arange(functions)
    counters = random.integers(0, 1 << 20, int(starts[-1]))
    block = b""
    if sites:
        data["NumValueSites"][::10, 0] = 1
        one = Function("", 0, (), sites={0: [[(0x1000, 7), (0x1010, 3)]]})
        block = value_data(one) * len(data[::10])
    # An object's names are one blob; inline functions are named by each object that has them.
    objects = range(0, functions, 1000)
    text = b"".join(names_blob(names[max(0, i - 50) : i + 1000]) for i in objects)
    delta = (-8 * int(starts[-1])) % (1 << 64)
    head = dict.fromkeys(known.header, 0) | {
        "Version": 10 | 1 << layout.VARIANTS["ir"],
        "NumData": functions,
        "NumCounters": len(counters),
        "NamesSize": len(text),
        "CountersDelta": delta,
        "BitmapDelta": delta,
        "ValueKindLast": known.value_kinds - 1,
    }
    with path.open("wb") as file:
        file.write(MAGIC[64][::-1])
        file.write(np.array([head[n] for n in known.header[1:]], "<u8").tobytes())
        for part in (data.tobytes(), counters.tobytes(), padded(text), block):
            file.write(part)
    return path.stat().st_size
