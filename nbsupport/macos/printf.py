"""What printf prints: a template of C's, filled with the arguments of a call or of a va_list."""

import re
import struct

from nbsupport.macos.executable import unsupported
from nbsupport.macos.machine import Machine

#: Flags, width, precision, size, conversion.
_CONVERSION = re.compile(r"%([-+ #0]*)(\*|\d*)(\.(?:\*|\d*))?(hh?|ll?|[zjtq])?(.)", re.DOTALL)
_BITS = {"hh": 8, "h": 16, None: 32}


def signed(value: int, bits: int = 64) -> int:
    """Return a number whose highest bit is its sign.

    >>> signed(0xFFFFFFFF, 32), signed(7, 32)
    (-1, 7)
    """
    value %= 1 << bits
    return value - (value >> bits - 1 << bits)


def formatted(machine: Machine, template: int, named: int, va_list: int = 0) -> bytes:
    """Return what printf makes of the template at an address; raises `LabError` for a double.

    Its values come after the `named` arguments of the call, or are at `va_list`.
    """
    place = va_list or machine.stacked  # of arm64: Apple has them all on the stack
    inside: list[int] = []
    if not machine.arm and va_list:
        offset, _, place, saved = struct.unpack("<2I2Q", machine.read(va_list, 24))
        inside = [machine.word(saved + n) for n in range(offset, 48, 8)]
    elif not machine.arm:
        inside = [machine.argument(n) for n in range(named, len(machine.cpu.arguments))]

    def value() -> int:
        nonlocal place
        if inside:
            return inside.pop(0)
        place += 8
        return machine.word(place - 8)

    def filled(match: re.Match[str]) -> str:
        flags, width, most, size, kind = match.groups()
        if kind == "%":
            return "%"
        width, most = (
            part.replace("*", str(signed(value(), 32)) if "*" in part else "")
            for part in (width, most or "")
        )
        form, number = f"%{flags}{width}{most}", value()
        if kind == "s":
            text = machine.text(number, int(most[1:])) if most[1:] else machine.text(number)
            return f"{form}s" % text.decode("latin-1")
        if kind == "p":
            return f"%{flags}{width}s" % f"{number:#x}"
        if kind == "c":
            return f"{form}c" % (number & 0xFF)
        if kind not in "diuoxX":
            raise unsupported("the program", f"it prints {match[0]}: not emulated", "use integers")
        bits = _BITS.get(size, 64)
        number = signed(number, bits) if kind in "di" else number % (1 << bits)
        return f"{form}{'d' if kind in 'iu' else kind}" % number

    text = machine.text(template).decode("latin-1")
    return _CONVERSION.sub(filled, text).encode("latin-1")
