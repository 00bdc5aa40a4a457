"""The sections and symbols of a 64-bit ELF image of this machine, as far as ptrace needs them.

It reads little: each program that a script starts is looked at. Source: elf.h (Elf64_Ehdr,
Elf64_Phdr, Elf64_Shdr, Elf64_Sym); of .eh_frame, the Linux Standard Base.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

#: e_machine of the machines that a `Family` is followed on.
MACHINES = {"x86_64": 62, "aarch64": 183}
_LOAD, _NOTHING, _SYMBOLS = 1, 0, (2, 11)  # PT_LOAD; SHT_NULL; SHT_SYMTAB, SHT_DYNSYM
_SECTION = np.dtype("<u4, <u4, <u8, <u8, <u8, <u8, <u4, <u4, <u8, <u8")
_SEGMENT = np.dtype("<u4, <u4, <u8, <u8, <u8, <u8, <u8, <u8")
_SYMBOL = np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"),
                    ("value", "<u8"), ("size", "<u8")])  # fmt: skip
_COMMON = 0  # CIE_id: what several functions of .eh_frame share


class Elf:
    """An image; all addresses are as linked.

    `sections` are address and size of what is loaded, by name; `base` is where the first byte of
    the file belongs. Raises `ValueError` for what is no such image, `OSError` where it cannot be
    read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ValueError("no file")
        head = self._read(0, 64)
        if len(head) < 64 or head[:6] != b"\x7fELF\2\1":
            raise ValueError("no 64-bit ELF image")
        if int.from_bytes(head[18:20], "little") != MACHINES.get(platform.machine()):
            raise ValueError("of another machine")
        segments_at, sections_at = struct.unpack_from("<2Q", head, 32)
        segments, _, sections, names = struct.unpack_from("<4H", head, 56)
        loads = self._table(segments_at, segments * _SEGMENT.itemsize, _SEGMENT)
        first = [row for row in loads.tolist() if row[0] == _LOAD and row[2] == 0]
        self.base = int(first[0][3]) if first else 0
        self._rows = self._table(sections_at, sections * _SECTION.itemsize, _SECTION).tolist()
        text = self._content(self._rows[names]) if names < len(self._rows) else b""
        self.sections: dict[str, tuple[int, int]] = {}
        for name, kind, _, address, _, size, *_ in self._rows:
            if kind != _NOTHING and address and size:
                self.sections[_string(text, name)] = address, size

    @property
    def instrumented(self) -> bool:
        """Whether there are profile records in it."""
        return "__llvm_prf_data" in self.sections

    def addresses(self, names: Iterable[str]) -> dict[str, int]:
        """Return where symbols of these names are (0: not there, or not in the image)."""
        places = dict.fromkeys(names, 0)
        for symbols, text in self._symbols:
            for name in places:
                # A name may be the end of a longer one.
                starts = [match.start() for match in re.finditer(f"{name}\0".encode(), text)]
                rows = symbols[np.isin(symbols["name"], starts) & (symbols["section"] != 0)]
                if len(rows):
                    places[name] = int(rows["value"][0])
        return places

    def function(self, address: int) -> str:
        """Return the name of the function that an address is in; "" if no symbol tells."""
        for symbols, text in self._symbols:
            before = symbols[(symbols["info"] & 15 == 2) & (symbols["value"] <= address)]
            inside = before[before["value"] + before["size"] > address]
            if len(inside):
                return _string(text, int(inside["name"][0]))
        return ""

    def start(self, address: int) -> int:
        """Return where the function of an address begins, by its unwinding (0: not known)."""
        home, _ = self.sections.get(".eh_frame", (0, 0))
        content = next((self._content(row) for row in self._rows if home and row[3] == home), b"")
        here, length = 0, 1
        while here + 16 <= len(content) and length:
            # Both addresses are of 32 bits, from where they stand (DW_EH_PE_pcrel | sdata4).
            length, kind, distance, size = struct.unpack_from("<IIiI", content, here)
            start: int = home + here + 8 + distance
            if kind != _COMMON and start <= address < start + size:
                return start
            here += 4 + length
        return 0

    @functools.cached_property
    def _symbols(self) -> list[tuple[np.ndarray, bytes]]:
        tables = [row for row in self._rows if row[1] in _SYMBOLS and row[6] < len(self._rows)]
        return [
            (self._table(row[4], row[5], _SYMBOL), self._content(self._rows[row[6]]))
            for row in tables
        ]

    def _content(self, row: tuple[int, ...]) -> bytes:
        return self._read(row[4], row[5])

    def _table(self, start: int, size: int, kind: np.dtype) -> np.ndarray:
        content = self._read(start, size)
        return np.frombuffer(content[: len(content) // kind.itemsize * kind.itemsize], kind)

    def _read(self, start: int, size: int) -> bytes:
        with self.path.open("rb") as file:
            there = os.fstat(file.fileno()).st_size - start
            return os.pread(file.fileno(), min(size, there), start) if there > 0 else b""


def _string(text: bytes, start: int) -> str:
    return text[start : text.find(b"\0", start)].decode("latin-1")
