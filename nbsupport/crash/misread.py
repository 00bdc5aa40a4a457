"""Which record of a program a runtime took for another, by the program and its registers."""

import bisect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nbsupport.audit import images, objects
from nbsupport.audit.image import Image
from nbsupport.crash.crash import Crash
from nbsupport.profile import infer, layout
from nbsupport.profile.layout import Layout


def record(crash: Crash, near: Iterable[int], binary: Path, runtime: Layout) -> dict[str, Any]:
    """Return the record that gave the runtime a word for Values, and that a register points at.

    `near` are the words that it may have been: the address, and registers that the instruction
    names. `runtime` is the layout that the runtime walks by. The register says by how much the
    image was moved, and the crash must then be in its code. Raises `LookupError` where no record
    is such, or two.
    """
    image, file = images.parse(binary.read_bytes()), objects.read(binary)
    assert image and file and image.bits == 64  # not a fat file
    words, pointers = {*near} - {0}, {*crash.registers.values()} - {0}
    place = crash.registers.get("rip", crash.registers.get("pc"))
    inside, stride = runtime.offsets()["Values"], runtime.record_size()

    def points(record: int) -> bool:
        moves = (pointer - record for pointer in pointers)
        return any(move % 4096 == 0 and _in_code(image, place, move) for move in moves)

    records = {}
    for (start, _, size), section in zip(image.places["data"], file.parts[0].sections, strict=True):
        table = infer.find(section)
        offsets = table.offsets.tolist()
        for slot in sorted({*range(0, size, stride), *offsets}):
            word = int.from_bytes(section.data[slot + inside : slot + inside + 8], "little")
            if word in words and points(start + slot):
                n = bisect.bisect_right(offsets, slot + inside) - 1
                length = int(table.sizes[n])
                (name,) = section.names.resolve(section.column("NameRef", table.offsets[[n]]))
                records[start, offsets[n]] = {
                    "function": name.decode(errors="replace"),
                    "offset": offsets[n],
                    "record_size": length,
                    "raw_versions": list(layout.sizes().get(length, ())),
                    "values": f"{word:#x}",
                }
    if len(records) != 1:
        raise LookupError
    return next(iter(records.values()))


def _in_code(image: Image, place: int | None, move: int) -> bool:
    """Return whether a place is in an image's code, moved by so much; yes if it is not told."""
    return place is None or any(
        code and start <= place - move < start + size for start, _, size, code in image.loaded
    )
