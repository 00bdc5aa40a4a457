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
class _Said:
    """One line of SAY: of which list, which name (an array's?), its initializer, its numbers."""

    kind: str
    name: str
    is_array: bool
    value: str
    numbers: tuple[int, ...]


def read(toolchain: Toolchain, bits: Bits = 64, header: Path | None = None) -> Layout:
    """Return how a clang's own header lays out records and raw profiles, known version or not.

    `header` is another InstrProfData.inc than the toolchain's. Raises `MissingError` where
    there is none, and `LabError` for one that does not compile, or is laid out by other rules.
    """
    said = _compile(toolchain, bits, header)
    known = {one.name: one.numbers[0] for one in said if one.kind == "constant"}
    places, fields = {}, []
    for one in (one for one in said if one.kind == "record"):
        place, each, whole, type_class = one.numbers
        places[one.name] = place - whole if one.is_array else place
        fields.append(Field(one.name, 0 if type_class == 5 else each, whole // each))
    words = {one.name: one.numbers[0] for one in said if one.kind == "header"}
    found = Layout(
        raw_version=known["INSTR_PROF_RAW_VERSION"],
        llvm=(int(toolchain.major), int(toolchain.major)),
        record=tuple(fields),
        header=tuple(words),
        relative=any(one.name == "CounterPtr" and "Relative" in one.value for one in said),
    )
    regular = list(words.values()) == list(range(0, found.header_size, 8))
    if not regular or (places, known["sizeof"]) != (found.offsets(bits), found.record_size(bits)):
        raise LabError(
            f"the header of {toolchain.name}",
            f"raw version {found.raw_version} is laid out by rules that are new",
            "read that header, and teach nbsupport.profile.layout",
        )
    return found


def learned(toolchain: Toolchain) -> Layout:
    """Return the layout of what a toolchain writes.

    One that is not known is learned (`layout.learn`) from its header. Raises as `read` and
    `learn` do, and `LabError` where that header states something else than its compiler emits.
    """
    version = toolchain.raw_version or 0
    if version not in layout.LAYOUTS:
        found = read(toolchain)
        for wrong in _contradictions(toolchain, found):
            what = f"the header of {toolchain.name}"
            raise LabError(what, wrong, "install compiler and header of one LLVM")
        layout.learn(found)
    return layout.LAYOUTS[version]


def news(toolchain: Toolchain) -> tuple[layout.FieldChange, ...]:
    """Return what is new in a toolchain's layout since the nearest in the table; raises as `of`."""
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
    found = [re.fullmatch(r"(?:\[(\d+) x )?i(\d+)\]?", each) for each in fields[0].split(", ")]
    sizes = [int(each[1] or 1) * int(each[2]) // 8 if each else 8 for each in found]
    if sizes != [(field.size or 8) * field.count for field in stated.record]:
        return (f"its compiler's records have fields of {', '.join(map(str, sizes))} bytes",)
    return ()


def differences(toolchain: Toolchain) -> tuple[str, ...]:
    """Return what the header states otherwise than `LAYOUTS` (64, 32 bits), or its compiler."""
    found: list[str] = []
    for bits in get_args(Bits):
        stated = read(toolchain, bits)
        known = layout.LAYOUTS.get(stated.raw_version)
        if known is None:
            return (f"raw version {stated.raw_version} is not known",)
        found += _contradictions(toolchain, stated) if bits == 64 else ()
        parts = ("record", "header", "relative")
        found += [f"{p} ({bits} bits)" for p in parts if getattr(known, p) != getattr(stated, p)]
    return tuple(found)


def constants(toolchain: Toolchain, header: Path | None = None) -> dict[str, int]:
    """Return what the header names: INSTR_PROF_RAW_*, VARIANT_MASK_* and the value kinds.

    All as unsigned 64-bit numbers. Raises as `read` does.
    """
    said = _compile(toolchain, 64, header)
    return {one.name: one.numbers[0] % (1 << 64) for one in said if one.kind == "constant"}


def _compile(toolchain: Toolchain, bits: Bits, header: Path | None) -> list[_Said]:
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
    found = [
        _Said(kind, name, bool(array), value, tuple(map(int, re.findall(r"i64 (-?\d+)", numbers))))
        for kind, name, array, value, numbers in _SAID.findall(done.stdout)
    ]
    if not done.ok or not {"record", "header"} <= {one.kind for one in found}:
        why = first_line(done.stderr) if done.stderr else "no record is listed there"
        raise LabError(str(header), why, "give the InstrProfData.inc of an LLVM from 11 on")
    return found


def _header(toolchain: Toolchain) -> Path:
    """Return the header that a clang brings; raises `MissingError` that says how to get it.

    gcc has none to get: that is a `LabError`.
    """
    if toolchain.kind == "gcc":
        raise LabError("gcc", "has no records of LLVM's", "choose a clang")
    if toolchain.kind == "clang":
        found = Path(ask([toolchain.compiler, "-print-resource-dir"]).strip()) / _HEADER
        if found.is_file():
            return found
    raise MissingError(
        f"InstrProfData.inc of {toolchain.name}",
        "not installed with it",
        f"install libclang-rt-{toolchain.major}-dev (or compiler-rt), or take LLVM's wheel",
    )
