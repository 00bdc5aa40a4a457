"""The raw-profile ABI as one LLVM itself states it: read from its header, by its own compiler.

A small C program (`data/record_abi.c`) includes InstrProfData.inc once for each of its lists, and
hands what the compiler knows of every field (name, offset, sizes) to inline assembly, whose text
then stands in the LLVM IR. Nothing is assembled, linked or run, so any target will do.
"""

import re
from pathlib import Path
from typing import NamedTuple, get_args

from nbsupport.base import process, settings
from nbsupport.base.errors import LabError, MissingError, first_line
from nbsupport.profile import layout
from nbsupport.profile.layout import Bits, Field, Layout
from nbsupport.toolchains.probe import INSTRUMENT, Toolchain, ask, emitted

_SAID = re.compile(r'asm sideeffect "(\w+) (\w+)(\[?)\S* (.*?)",.*?\((i64 [^)]*)\)')

#: No code is generated for them: every clang, whatever its targets, has these types. Of 32 bits
#: ARM's, which align to the size: i386 would let 64-bit fields after pointers start at 4.
_TARGETS: dict[Bits, str] = {32: "armv7-linux-gnueabihf", 64: "x86_64-linux-gnu"}


class _Entry(NamedTuple):
    """What SAY tells of a name: whether it is an array's, its initializer, its numbers."""

    is_array: bool
    value: str
    numbers: tuple[int, ...]


#: The entries of each list (`constant`, `record`, `header`), by name, in their order.
_Lists = dict[str, dict[str, _Entry]]


def read(toolchain: Toolchain, bits: Bits = 64, header: Path | None = None) -> Layout:
    """Return how a clang's own header lays out records and raw profiles, known version or not.

    `header` is another InstrProfData.inc than the toolchain's. Raises `MissingError` where
    there is none, and `LabError` for one that does not compile, or is laid out by other rules.
    """
    lists = _compile(toolchain, bits, header)
    constants = {name: entry.numbers[0] for name, entry in lists["constant"].items()}
    words = {name: entry.numbers[0] for name, entry in lists["header"].items()}
    places, fields = {}, []
    for name, entry in lists["record"].items():
        place, size, whole, type_class = entry.numbers
        places[name] = place - whole if entry.is_array else place
        fields.append(Field(name, 0 if type_class == 5 else size, whole // size))
    stated = Layout(
        raw_version=constants["version"],
        llvm=(int(toolchain.major), int(toolchain.major)),
        record=tuple(fields),
        header=tuple(words),
        relative="CounterPtr" in places and "Relative" in lists["record"]["CounterPtr"].value,
    )
    regular = list(words.values()) == list(range(0, stated.header_size, 8))
    sizes = stated.offsets(bits), stated.record_size(bits)
    if not regular or (places, constants["sizeof"]) != sizes:
        why = f"raw version {stated.raw_version} is laid out by rules that are new"
        do = "read that header, and teach nbsupport.profile.layout"
        raise LabError(f"the header of {toolchain.name}", why, do)
    return stated


def learned(toolchain: Toolchain) -> Layout:
    """Return the layout of what a toolchain writes.

    One that is not known is learned (`layout.learn`) from its header. Raises as `read` and
    `learn` do, and `LabError` where that header states something else than its compiler emits.
    """
    version = toolchain.raw_version or 0
    if version not in layout.LAYOUTS:
        stated = read(toolchain)
        for wrong in _contradictions(toolchain, stated):
            what = f"the header of {toolchain.name}"
            raise LabError(what, wrong, "install compiler and header of one LLVM")
        layout.learn(stated)
    return layout.LAYOUTS[version]


def _contradictions(toolchain: Toolchain, stated: Layout) -> tuple[str, ...]:
    """Return where the compiler does not emit what its header states, of 64 bits.

    Source: the type of __profd_*, in InstrLowerer::createDataVariable (InstrProfiling.cpp).
    """
    if stated.raw_version != toolchain.raw_version:
        return (f"raw version {stated.raw_version}, its compiler emits {toolchain.raw_version}",)
    text = emitted([toolchain.compiler, f"--target={_TARGETS[64]}", *INSTRUMENT])
    fields = re.findall(r"@__profd_f = .*? global \{ (.*?) \}", text) or [""]
    types = [re.fullmatch(r"(?:\[(\d+) x )?i(\d+)\]?", kind) for kind in fields[0].split(", ")]
    sizes = [int(kind[1] or 1) * int(kind[2]) // 8 if kind else 8 for kind in types]
    if sizes != [(field.size or 8) * field.count for field in stated.record]:
        return (f"its compiler's records have fields of {', '.join(map(str, sizes))} bytes",)
    return ()


def differences(toolchain: Toolchain) -> tuple[str, ...]:
    """Return where the header differs from `LAYOUTS` (64, 32 bits), or from its compiler."""
    differing: list[str] = []
    for bits in get_args(Bits):
        stated = read(toolchain, bits)
        ours = layout.LAYOUTS.get(stated.raw_version)
        if ours is None:
            return (f"raw version {stated.raw_version} is not known",)
        differing += _contradictions(toolchain, stated) if bits == 64 else ()
        parts = ("record", "header", "relative")
        differing += [f"{p} ({bits} bits)" for p in parts if getattr(ours, p) != getattr(stated, p)]
    return tuple(differing)


def _compile(toolchain: Toolchain, bits: Bits, header: Path | None) -> _Lists:
    header = header or _header(toolchain)
    if not header.is_file():
        raise LabError(str(header), "No such file or directory", "check that path")
    program = settings.data_dir() / "record_abi.c"
    include = f'-DINC="{header.absolute()}"'
    flags = ("-S", "-emit-llvm", "-O0", "-w", "-ffreestanding", f"--target={_TARGETS[bits]}")
    command = (toolchain.compiler, *flags, include, program, "-o", "-")
    done = process.run(command, cwd=Path("/"), limits=settings.COMPILER)
    lists: _Lists = {}
    for kind, name, array, value, words in _SAID.findall(done.stdout):
        numbers = tuple(int(word) for word in re.findall(r"i64 (-?\d+)", words))
        lists.setdefault(kind, {})[name] = _Entry(bool(array), value, numbers)
    if not done.ok or not {"record", "header"} <= lists.keys():
        why = first_line(done.stderr) if done.stderr else "no record is listed there"
        raise LabError(str(header), why, "give the InstrProfData.inc of an LLVM from 11 on")
    return lists


def _header(toolchain: Toolchain) -> Path:
    """Return the header that a clang brings; raises `MissingError` that says how to get it.

    gcc has none to get: that is a `LabError`.
    """
    if toolchain.kind == "gcc":
        raise LabError("gcc", "has no records of LLVM's", "choose a clang")
    if toolchain.kind == "clang":
        resources = Path(ask([toolchain.compiler, "-print-resource-dir"]).strip())
        # Source: compiler-rt/include/CMakeLists.txt.
        header = resources / "include" / "profile" / "InstrProfData.inc"
        if header.is_file():
            return header
    do = f"install libclang-rt-{toolchain.major}-dev (or compiler-rt), or take LLVM's wheel"
    raise MissingError(f"InstrProfData.inc of {toolchain.name}", "not installed with it", do)
