"""What printf prints: a template of C's, filled with the arguments of a call or of a va_list."""

import re
import struct

from nbsupport.macos.executable import unsupported
from nbsupport.macos.machine import Machine

_CONVERSION = re.compile(
    r"%(?P<flags>[-+ #0]*)(?P<width>\*|\d*)(?P<most>\.(?:\*|\d*))?(?P<size>hh?|ll?|[zjtqL])?(?P<kind>.)",
    re.DOTALL,
)
_BITS = {"hh": 8, "h": 16, None: 32}


def signed(value: int, bits: int = 64) -> int:
    """Return a number whose highest bit is its sign.

    >>> signed(0xFFFFFFFF, 32), signed(7, 32)
    (-1, 7)
    """
    value %= 1 << bits
    return value - (value >> bits - 1 << bits)


class Variadic:
    """Arguments without a name: in registers first (x86-64), then one after another in memory."""

    def __init__(self, machine: Machine, named: int = 0, va_list: int = 0) -> None:
        """Begin after the `named` arguments of a call, or at a `va_list`."""
        self._machine = machine
        self._integers: list[int] = []
        self._reals: list[bytes] = []
        self._place = va_list or machine.stacked  # of arm64: Apple has them all there
        if machine.arm:
            return
        if va_list:
            general, real, self._place, saved = struct.unpack("<2I2Q", machine.read(va_list, 24))
            self._integers = [machine.word(saved + n) for n in range(general, 48, 8)]
            self._reals = [machine.read(saved + n, 8) for n in range(real, 176, 16)]
        else:
            self._integers = [machine.argument(n) for n in range(named, 6)]
            self._reals = [struct.pack("<Q", machine.get(f"xmm{n}") % (1 << 64)) for n in range(8)]

    def integer(self) -> int:
        """Return the next argument, an integer or a pointer, as 64 bits."""
        return self._integers.pop(0) if self._integers else struct.unpack("<Q", self._next())[0]

    def real(self) -> float:
        """Return the next argument, a double."""
        (value,) = struct.unpack("<d", self._reals.pop(0) if self._reals else self._next())
        return float(value)

    def _next(self) -> bytes:
        self._place += 8
        return self._machine.read(self._place - 8, 8)


def formatted(machine: Machine, template: int, values: Variadic) -> bytes:
    """Return the bytes that printf makes of the template at an address; may raise `Fault`."""

    def filled(match: re.Match[str]) -> str:
        kind, form = match["kind"], f"%{match['flags']}"
        if kind == "%":
            return "%"
        for part in (match["width"], match["most"] or ""):
            form += part.replace("*", str(signed(values.integer(), 32)) if "*" in part else "")
        if kind in "eEfFgG":
            return f"{form}{kind}" % values.real()
        if kind not in "diuoxXpcs":
            raise unsupported("the program", f"it prints {match[0]}, which is not emulated", "use %d")
        value = values.integer()
        if kind == "s":
            most = int(match["most"][1:] or 0) if (match["most"] or "")[1:].isdigit() else 1 << 20
            return f"{form}s" % machine.text(value, most).decode("latin-1")
        if kind == "p":
            return f"%{match['flags']}{match['width']}s" % f"{value:#x}"
        if kind == "c":
            return f"{form}c" % (value & 0xFF)
        bits = _BITS.get(match["size"], 64)
        number = signed(value, bits) if kind in "di" else value % (1 << bits)
        return f"{form}{'d' if kind in 'iu' else kind}" % number

    text = machine.text(template).decode("latin-1")
    return _CONVERSION.sub(filled, text).encode("latin-1")
