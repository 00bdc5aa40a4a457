"""Object files and images of any format, reduced to what the profile is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nbsupport.profile.infer import Section
from nbsupport.profile.layout import Bits, Order

Format = Literal["elf", "mach-o", "coff", "pe", "bitcode"]
Kind = Literal["object", "executable", "library", "bundle"]
#: Turns bitcode (its path) into LLVM assembly; None where no llvm-dis can.
Disassemble = Callable[[Path], str | None]


@dataclass(frozen=True)
class Part:
    """One object or image: a file's only one, a member of an archive, a slice of a fat file.

    `name` is the member's or slice's, "" for the file itself. `target` is the start of a
    target triple (`x86_64-linux`, `aarch64-apple-darwin`, `x86_64-windows`; "" unknown).
    `sections` are its data sections (a linked image has one), `raw_version` the whole value
    of `__llvm_profile_raw_version` (None: no such symbol, or stripped). `instrumented` is
    True also where only symbols say so (bitcode without a tool). `carries_runtime` says that
    the profile runtime is in it, `runtime_raw_version` which (None: cannot be told).
    `note` says what could not be read, and why.
    """

    name: str
    format: Format
    kind: Kind
    target: str
    bits: Bits
    order: Order
    sections: tuple[Section, ...] = ()
    raw_version: int | None = None
    instrumented: bool = False
    carries_runtime: bool = False
    runtime_raw_version: int | None = None
    stripped: bool = False
    note: str = ""


@dataclass(frozen=True)
class File:
    """One file on disk, read: its parts, in order, and what was wrong with it.

    `container` is "" (a plain object or image), `archive`, `rlib`, `thin-archive` or `fat`.
    """

    path: Path
    container: str
    parts: tuple[Part, ...]
    problems: tuple[str, ...] = ()


def read(path: Path, disassemble: Disassemble | None = None) -> File | None:
    """Read one file; None when it is none of the formats (text, a build script, .rmeta)."""
    raise NotImplementedError


def find(path: Path) -> Iterator[Path]:
    """Yield the regular files at or below a path, each once, loops of links or not."""
    raise NotImplementedError
