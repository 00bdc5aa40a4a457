"""An LLVM 24 that nobody has seen: an installed one, altered until it writes raw version 12.

Its header has one more field in the record and one in the raw header. Its clang emits such
records (altered LLVM IR of the real one), its profile runtime is built from LLVM's sources by
that header, its llvm-profdata takes the new fields out before the real one reads.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from nbsupport.base import process, settings
from nbsupport.toolchains import headers
from nbsupport.toolchains.probe import Toolchain
from nbsupport.toolchains.tree import Tree

RAW_VERSION, FIELD, WORD = 12, "NumCallSites", "NumThreads"
TARGET = "x86_64-unknown-linux-gnu"
HEADER = Path("lib", "clang", "24", "include", "profile", "InstrProfData.inc")

#: Where something goes into the header, and what; {} is left where it goes.
_VERSION = ("INSTR_PROF_RAW_VERSION 11\n", f"INSTR_PROF_RAW_VERSION {RAW_VERSION}\n")
_FIELD = (
    "INSTR_PROF_DATA(const uint32_t, llvm::Type::getInt32Ty(Ctx), NumCounters,",
    f"INSTR_PROF_DATA(const uint64_t, x, {FIELD}, x)\n{{}}",
)
_WORD = (
    "INSTR_PROF_RAW_HEADER(uint64_t, NumVTables,",
    f"INSTR_PROF_RAW_HEADER(uint64_t, {WORD}, 0)\n{{}}",
)

_START = """#!{python} -IS
import os, re, struct, subprocess, sys, tempfile
REAL, WIDER, VERSION = {real!r}, {wider}, {raw_version}
given = sys.argv[1:]
"""
#: LLVM IR by the real compiler, with other records in it; then an object of that.
_CLANG = """
resources = "-resource-dir={resources}"
def run(args, text=None):
    done = subprocess.run([REAL, resources, *args], input=text, stdout=-1, text=True)
    return sys.exit(done.returncode) if done.returncode else done.stdout
def rewritten(match):
    line = match[0].replace("i32, [3 x i16], i16, i32 }}", "i64, i32, [3 x i16], i16, i32 }}", 1)
    return re.sub(r", i32 \\d+, \\[3 x i16\\]", r", i64 7\\g<0>", line, count=1)
if "--version" in given:
    print(re.sub(r"version [\\d.]+", "version 24.1.0", run(given)), end="")
    sys.exit()
if not [arg for arg in given if re.match("-fprofile-(instr-)?generate", arg)] or "-o" not in given:
    os.execv(REAL, [REAL, resources, *given])
if not {{"-c", "-S"}} & set(given):
    if [arg for arg in given if arg.endswith(".c")]:
        sys.exit("this clang instruments one file at a time: use -c")
    os.execv(REAL, [REAL, resources, *given])
at = given.index("-o")
target, rest = given[at + 1], given[:at] + given[at + 2 :]
ir = run([arg for arg in rest if arg not in ("-c", "-S")] + ["-S", "-emit-llvm", "-o", "-"])
ir = re.sub(r"(@__llvm_profile_raw_version = .* i64 )(\\d+)", lambda m: m[1] + str(int(m[2]) + 1), ir)
if WIDER:
    ir = re.sub(r"^@__profd_.*", rewritten, ir, flags=re.M)
if "-emit-llvm" in rest:
    sys.exit(open(1 if target == "-" else target, "w").write(ir) * 0)
keep = [arg for arg in rest if re.match("-(O|fPIC|-target=|[cS]$)", arg)]
run([*keep, "-Xclang", "-disable-llvm-passes", "-x", "ir", "-", "-o", target], ir)
"""
#: Each record loses its new field; what is relative to the record moves along.
_PROFDATA = """
def older(data):
    head = list(struct.unpack_from("<{words}Q", data))
    head[1] -= 1
    start, end = 8 * {words}, 8 * {words} + head[3] * {size}
    del head[{word}]
    records = []
    for n in range(head[3]):
        record = bytearray(data[start + n * {size} : start + (n + 1) * {size}])
        for place in {relative} if WIDER else ():
            value = struct.unpack_from("<q", record, place)[0]
            struct.pack_into("<q", record, place, value and value + 8 * n)
        records.append(record[:{field}] + record[{field} + 8 * WIDER :])
    return struct.pack("<%dQ" % len(head), *head) + b"".join(records) + data[end:]
with tempfile.TemporaryDirectory() as folder:
    for n, name in enumerate(given):
        data = open(name, "rb").read() if os.path.isfile(name) else b""
        if data[:9] == b"\\x81rforpl\\xff" + bytes([VERSION]):
            given[n] = os.path.join(folder, str(n))
            open(given[n], "wb").write(older(data))
    sys.exit(subprocess.call([REAL, *given]))
"""


def alter(header: Path, *changes: tuple[str, str]) -> None:
    """Replace texts in a header, each of which is there once."""
    text = header.read_text()
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new.format(old))
    header.write_text(text)


def make(base: Toolchain, sources: Tree, prefix: Path, *, wider: bool = True) -> Path:
    """Make it below `prefix` out of `base` (LLVM 23) and its runtime's sources; return that folder.

    Unless it is `wider`, only raw version and raw header are new, not the record.
    """
    whole = base.compiler.resolve().parent.parent
    (own,) = (whole / "lib" / "clang").iterdir()
    resources = prefix / "lib" / "clang" / "24"
    inc, library = prefix / HEADER, resources / "lib" / TARGET
    _link(whole / "bin", prefix / "bin", "clang", "clang++", "llvm-profdata", "lldb")
    _link(own / "include", resources / "include", "profile")
    _link(own / "include" / "profile", inc.parent, inc.name)
    _link(own / "lib" / TARGET, library, "libclang_rt.profile.a")
    inc.write_text((own / "include" / "profile" / inc.name).read_text())
    alter(inc, _VERSION, _WORD, *([_FIELD] if wider else []))
    found = headers.read(base, 64, inc)
    at = found.offsets()
    facts = {
        "python": sys.executable,
        "wider": wider,
        "raw_version": RAW_VERSION,
        "resources": resources,
        "words": len(found.header),
        "word": found.header.index(WORD),
        "size": found.record_size(),
        "field": at.get(FIELD, 0),
        "relative": [at["CounterPtr"], at["UniformCounterPtr"], at["BitmapPtr"]],
    }
    for name, text in (("clang", _CLANG), ("llvm-profdata", _PROFDATA)):
        script = prefix / "bin" / name
        script.write_text((_START + text).format(real=str(whole / "bin" / name), **facts))
        script.chmod(0o755)
    _build_runtime(prefix, sources, library)
    return prefix


def _link(source: Path, target: Path, *besides: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for each in source.iterdir():
        if each.name not in besides:
            (target / each.name).symlink_to(each)


def _build_runtime(prefix: Path, sources: Tree, folder: Path) -> None:
    units = [n for n in sources.files if re.search(r"/InstrProfiling(?!\w*ROCm)\w*\.c", n)]
    flags = ["-O2", "-fPIC", "-w", "-fno-exceptions", "-fno-rtti"]
    flags += [f"-DCOMPILER_RT_HAS_{name}=1" for name in ("ATOMICS", "FCNTL_LCK", "UNAME")]
    flags += [f"-I{prefix / HEADER.parent.parent}", "-c"]
    flags += [str(sources.folder / unit) for unit in units]
    done = process.run([prefix / "bin" / "clang", *flags], cwd=folder, limits=settings.COMPILER)
    assert done.ok, done.stderr
    objects = [folder / f"{Path(unit).stem}.o" for unit in units]
    command: list[str | Path] = [
        prefix / "bin" / "llvm-ar",
        "rcs",
        folder / "libclang_rt.profile.a",
        *objects,
    ]
    assert process.run(command, cwd=folder, limits=settings.COMPILER).ok
    for each in objects:
        each.unlink()
