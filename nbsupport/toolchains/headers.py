"""The raw-profile ABI as one LLVM itself states it: read from its header, by its own compiler.

A small C program includes InstrProfData.inc once for each of its lists, and hands what the
compiler knows of every field (name, offset, sizes) to inline assembly, whose text then
stands in the LLVM IR. Nothing is assembled, linked or run, so any target will do.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from nbsupport.base import process, settings
from nbsupport.base.errors import LabError, MissingError, first_line, from_os
from nbsupport.profile import layout
from nbsupport.profile.layout import Bits, Field, Layout
from nbsupport.toolchains.probe import Toolchain, ask

#: Where the header is below clang's resource directory. Source: compiler-rt/include/CMakeLists.txt.
_HEADER = Path("include", "profile", "InstrProfData.inc")

#: How the profile runtime itself turns the lists into types. The name of an array's field comes
#: with its brackets: its offset is that of the place after it. A class of 5 is a pointer.
#: Source: __llvm_profile_data, __llvm_profile_header, ValueKind (InstrProfiling.h).
_PROGRAM = """
#include <stdint.h>
#include INC
typedef void *IntPtrT;
enum {
#define VALUE_PROF_KIND(name, value, text) name = value,
#include INC
};
struct __attribute__((aligned(INSTR_PROF_DATA_ALIGNMENT))) record {
#define INSTR_PROF_DATA(type, llvm, name, value) type name;
#include INC
};
struct header {
#define INSTR_PROF_RAW_HEADER(type, name, value) type name;
#include INC
};
#define SAY(text, a, b, c, d) __asm__ volatile(text :: \
    "i"((int64_t)(a)), "i"((int64_t)(b)), "i"((int64_t)(c)), "i"((int64_t)(d)))
#define PART(in, type, name, value) SAY(#in " " #name " " #value, \
    __builtin_offsetof(struct in, name), sizeof(((struct in *)0)->name), \
    sizeof(struct { type name; }), __builtin_classify_type(((struct in *)0)->name))
void say(void) {
#define INSTR_PROF_DATA(type, llvm, name, value) PART(record, type, name, value);
#include INC
#define INSTR_PROF_RAW_HEADER(type, name, value) PART(header, type, name, value);
#include INC
#define VALUE_PROF_KIND(name, value, text) SAY("constant " #name " ", name, 0, 0, 0);
#include INC
"""

_SAID = re.compile(r'asm sideeffect "(\w+) (\w+)(\[?)\S* (.*?)",.*?\((i64 [^)]*)\)')

#: No code is generated for them: every clang, whatever its targets, has these types. Of 32 bits
#: ARM's, which align to the size: i386 would let 64-bit fields after pointers start at 4.
_TARGETS: dict[Bits, str] = {32: "armv7-linux-gnueabihf", 64: "x86_64-linux-gnu"}


@dataclass(frozen=True)
class _Entry:
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
        raw_version=constants["INSTR_PROF_RAW_VERSION"],
        llvm=(int(toolchain.major), int(toolchain.major)),
        record=tuple(fields),
        header=tuple(words),
        relative="CounterPtr" in places and "Relative" in lists["record"]["CounterPtr"].value,
    )
    regular = list(words.values()) == list(range(0, stated.header_size, 8))
    sizes = stated.offsets(bits), stated.record_size(bits)
    if not regular or (places, constants["sizeof"]) != sizes:
        raise LabError(
            f"the header of {toolchain.name}",
            f"raw version {stated.raw_version} is laid out by rules that are new",
            "read that header, and teach nbsupport.profile.layout",
        )
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


def news(toolchain: Toolchain) -> tuple[layout.FieldChange, ...]:
    """Return what is new in a toolchain's layout since the nearest known; raises as `learned`."""
    return layout.changes(layout.nearest(learned(toolchain).raw_version), learned(toolchain))


def _contradictions(toolchain: Toolchain, stated: Layout) -> tuple[str, ...]:
    """Return what the compiler emits otherwise than its header states, of 64 bits.

    Source: the type of __profd_*, in InstrLowerer::createDataVariable (InstrProfiling.cpp).
    """
    if stated.raw_version != toolchain.raw_version:
        return (f"raw version {stated.raw_version}, its compiler emits {toolchain.raw_version}",)
    flags = ("-fprofile-generate", f"--target={_TARGETS[64]}", "-S", "-emit-llvm", "-o", "-")
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as folder:
        source = Path(folder, "record.c")
        source.write_text("void f(void) {}\n")
        emitted = ask([toolchain.compiler, *flags, source])
    fields = re.findall(r"@__profd_f = .*? global \{ (.*?) \}", emitted) or [""]
    types = [re.fullmatch(r"(?:\[(\d+) x )?i(\d+)\]?", kind) for kind in fields[0].split(", ")]
    sizes = [int(kind[1] or 1) * int(kind[2]) // 8 if kind else 8 for kind in types]
    if sizes != [(field.size or 8) * field.count for field in stated.record]:
        return (f"its compiler's records have fields of {', '.join(map(str, sizes))} bytes",)
    return ()


def differences(toolchain: Toolchain) -> tuple[str, ...]:
    """Return what the header states otherwise than `LAYOUTS` (64, 32 bits), or its compiler."""
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


def constants(toolchain: Toolchain, header: Path | None = None) -> dict[str, int]:
    """Return what the header names: INSTR_PROF_RAW_*, VARIANT_MASK_* and the value kinds.

    All as unsigned 64-bit numbers. Raises as `read` does.
    """
    entries = _compile(toolchain, 64, header)["constant"]
    return {name: entry.numbers[0] % (1 << 64) for name, entry in entries.items()}


def _compile(toolchain: Toolchain, bits: Bits, header: Path | None) -> _Lists:
    header = header or _header(toolchain)
    try:
        text = header.read_text(errors="replace")
    except OSError as error:
        raise from_os(str(header), error) from error
    names = re.findall(
        r"^#define (VARIANT_MASK_\w+|INSTR_PROF_RAW_(?:MAGIC_\d+|VERSION)) ", text, re.MULTILINE
    )
    says = [f'SAY("constant {name} ", {name}, 0, 0, 0);' for name in names]
    says.append('SAY("constant sizeof ", sizeof(struct record), 0, 0, 0);')
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as folder:
        Path(folder, "abi.c").write_text("\n".join([_PROGRAM, *says, "}\n"]))
        flags = ("-S", "-emit-llvm", "-O0", "-w", "-ffreestanding", f"--target={_TARGETS[bits]}")
        include = f'-DINC="{header.absolute()}"'
        done = process.run(
            [toolchain.compiler, *flags, include, "abi.c", "-o", "-"],
            cwd=Path(folder),
            limits=settings.COMPILER,
        )
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
        header = Path(ask([toolchain.compiler, "-print-resource-dir"]).strip()) / _HEADER
        if header.is_file():
            return header
    raise MissingError(
        f"InstrProfData.inc of {toolchain.name}",
        "not installed with it",
        f"install libclang-rt-{toolchain.major}-dev (or compiler-rt), or take LLVM's wheel",
    )
