"""The sections and symbols of ELF, Mach-O, COFF and PE files that the profile is made of.

Only headers and tables are read, whatever the file's size. Of WebAssembly and XCOFF is only told
whether they seem instrumented.
"""

import struct

from nbsupport.audit import coff, elf, mach_o
from nbsupport.audit.image import DEBUG, MOST_SECTIONS, Image
from nbsupport.profile.layout import Bits

_WASM, _XCOFF = b"\0asm", (b"\x01\xdf", b"\x01\xf7")


def recognize(start: bytes) -> bool:
    """Return whether a file's first eight bytes may be an object's or image's."""
    if start[:4] in (b"\x7fELF", *mach_o.MAGICS, coff.BIG, _WASM):
        return True
    if start[:2] == b"MZ" or start[:2] in _XCOFF:
        return True
    return int.from_bytes(start[:2], "little") in coff.MACHINES


def parse(data: bytes) -> Image | None:
    """Read an object or image; None when it is neither, whatever its first bytes.

    Raises `ValueError` for what makes no sense.
    """
    reader = coff.parse_image if data[:2] == b"MZ" else coff.parse_object
    if data[:4] == b"\x7fELF":
        reader = elf.parse
    elif data[:4] in mach_o.MAGICS:
        reader = mach_o.parse
    elif data[:4] == _WASM:
        reader = _wasm
    elif data[:2] in _XCOFF:
        reader = _xcoff
    try:
        image = reader(data)
    except struct.error as error:
        raise ValueError(f"cut off: its headers end beyond byte {len(data)}") from error
    if image and image.note == DEBUG:
        image.kind = "object"  # it is not what runs
    if image:  # a thousand sections that are all the whole file would take a thousand times as long
        parts = [place[2] for role in ("data", "names") for place in image.places.get(role, ())]
        if sum(parts) > len(data) or sum(size for _, _, size, _ in image.loaded) > 2 * len(data):
            raise ValueError("expected sections apart, found that they overlap")
    return image


def _wasm(data: bytes) -> Image:
    """Say of WebAssembly whether it seems instrumented: no more is read of it."""
    image = Image("wasm", "object" if b"\x07linking" in data else "executable", "wasm32", 32, "<")
    here = 8  # behind the version; a section is a number, its length as ULEB128, and so many bytes
    for _ in range(MOST_SECTIONS):
        if here >= len(data):
            break
        length, place = 0, here + 1
        for shift in range(0, 35, 7):
            byte = data[place] if place < len(data) else 0
            length |= (byte & 127) << shift
            place += 1
            if byte < 128:
                break
        image.inside(data, "a section", here, place - here + length)
        here = place + length
    return _unread(image, data, "WebAssembly")


def _xcoff(data: bytes) -> Image | None:
    """Say of XCOFF the same. Source: "XCOFF Object File Format" of IBM, the file header."""
    bits: Bits = 64 if data[:2] == b"\1\xf7" else 32
    form = ">8xQ2HI" if bits == 64 else ">8x2IH"
    if bits == 64:
        symbols, optional, _, number = struct.unpack_from(form, data)
    else:
        symbols, number, optional = struct.unpack_from(form, data)
    if optional not in (0, 28, 72, 110, 120):
        return None  # two bytes are no proof
    image = Image("xcoff", "object", f"powerpc{'64' if bits == 64 else ''}-aix", bits, ">")
    text = symbols + 18 * number  # behind them their names, whose first word is their length
    if number and image.inside(data, "its table of symbols", symbols, 18 * number + 4):
        image.inside(data, "names of its symbols", text, int.from_bytes(data[text : text + 4]))
    return _unread(image, data, "XCOFF (AIX)")


def _unread(image: Image, data: bytes, what: str) -> Image:
    if b"__llvm_pr" in data or b"LLVM Profile Error" in data:
        image.note = f"{what}: instrumented; its records and its version are not read"
    return image
