"""A linker that refuses mixed records: it looks at what is to be linked, then becomes the linker.

`RUSTFLAGS="-Cprofile-generate=DIR -Clinker=pgo-lab-guard" cargo build` puts it before each
link; so does `pgo-lab guard -- clang -fprofile-generate main.o lib.o`. No build that worked may
break: what it does not understand is the linker's business. All members of an archive count,
pulled in or not; sources that the same command compiles, and the system's folders, do not.

The audit and NumPy take longer to import than many a link: only where a first look finds several
version symbols, or what it does not read (front-end instrumentation, bitcode, thin archives, all
but 64-bit little-endian ELF), it asks the audit.
"""

import contextlib
import dataclasses
import functools
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nbsupport.base.errors import LabError, visible_lines

#: Names the linker that `pgo-lab-guard` becomes.
LINKER = "PGO_LAB_LINKER"
#: In all that is instrumented, and in the runtime. Source: InstrProfData.inc.
_MARK, _RECORDS = b"__llvm_pr", b"__llvm_prf_data\0"
_VERSION = re.compile(b"__llvm_profile_raw_version\0")
#: Inside an object bitcode does not matter, only as a member of an archive.
_ELF, _BITCODE = re.compile(b"\x7fELF\2\1"), b"`\nBC\xc0\xde"
#: Where the type is, 1 for an object: e_type (elf.h), filetype (mach-o/loader.h).
_TYPES = {b"\x7fELF": 16, b"\xcf\xfa\xed\xfe": 12}
#: Source: ToolChain::getCompilerRT, Darwin::addProfileRTLibs (clang/lib/Driver).
_RUNTIMES = ("profile.a", f"profile-{os.uname().machine}.a", "profile_osx.a")
_WORD = re.compile(r"""(?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|[^\s"'\\]++)+""", re.DOTALL)
_MOST_BYTES = 1 << 30


def entry() -> None:
    """Run as `pgo-lab-guard`: the linker is that of `PGO_LAB_LINKER`, else cc, else clang."""
    linker = os.environ.get(LINKER) or next(filter(shutil.which, ("cc", "clang")), "cc")
    sys.exit(guard([linker, *sys.argv[1:]]))


def guard(argv: list[str]) -> int:
    """Become the linker `argv`, and never return; or say why not, and return 1 (2: no linker)."""
    if "-c" not in argv and (refusal := refused(argv)):
        return _say(refusal, 1)
    try:
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and then by the linker
            signal.signal(ignored, signal.SIG_DFL)
        os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted
    except (OSError, ValueError, IndexError):
        name = "".join(argv[:1]) or "no linker"
        return _say(f"guard: {name}: it cannot be started; set {LINKER}", 2)


def refused(argv: Sequence[str]) -> str:
    """Return why this must not be linked, and what to do, or "".

    `argv` is the command of a link: the linker, or a compiler, and its words. What cannot be
    told is said, and linked. So are raw versions 9 and 10 where the first object is known to be
    of the runtime's: then counts survive.
    """
    words = list(_words(argv[1:], set()))
    values = {path: _versions(path) for path in dict.fromkeys(_inputs(words))}
    profiled = any(word.startswith(("-fprofile", "-fcs-profile")) for word in words)
    if profiled and any(values.values()):
        values |= {path: _versions(path) for path in _runtime(argv[0])}
    symbols = set[int | None]().union(*values.values())
    certain = {value for value in symbols if value is not None}
    versions = {value & 0xFFFFFFFF for value in certain}
    variants = {value >> 32 for value in certain} - {0}  # the runtime's own has none
    if None not in symbols and len(versions) <= 1 and len(variants) <= 1:
        return ""
    from nbsupport.audit.judge import audit  # noqa: PLC0415 - see above

    try:
        inputs = [path for path, inside in values.items() if inside]
        report = audit(inputs, functools.partial(_assembly, argv[0]), image=_output(words))
    except LabError:  # nothing there to judge
        return ""
    judgement = report.judgement
    if judgement.verdict == "mixed":
        pieces = ((f, p) for f in report.files for s in f.parts for p in s.pieces if p.has_symbol)
        file, first = next(pieces, (None, None))
        links = [link for link in judgement.links if link.first == first]
        # Of an archive nobody knows which member will be first.
        if not links or not file or file.container or not all(link.fate.fine for link in links):
            what = "guard: not linked, for it would be a mix. Do this:"
            foreign = (f"foreign: {origin}" for origin in report.origins)
            return "\n".join([what, judgement.advice, f"why: {judgement.why}", *foreign])
        _say(f"guard: linked in this order: {judgement.advice}")
    elif judgement.verdict == "unknown":
        _say(f"guard: not judged, so left to the linker: {judgement.why}")
    return ""


def _assembly(compiler: str, bitcode: Path) -> str | None:
    """Return bitcode as LLVM assembly, by the llvm-dis beside the compiler, or that of PATH."""
    from nbsupport.base import process, settings  # noqa: PLC0415

    beside = Path(shutil.which(compiler) or compiler).resolve().with_name("llvm-dis")
    limits = dataclasses.replace(settings.COMPILER, output=256 * settings.MIB)
    for tool in filter(None, map(shutil.which, (str(beside), "llvm-dis"))):
        command = (tool, "-o", "-", bitcode.absolute())
        done = process.run(command, cwd=Path("/"), limits=limits)
        if done.ok:
            return done.stdout
    return None


def _say(text: str, code: int = 0) -> int:
    print(f"pgo-lab: {visible_lines(text)}", file=sys.stderr)  # noqa: T201
    return code


def _words(words: Iterable[str], before: set[str]) -> Iterator[str]:
    """Yield a command's words, with those of response files (each once) and -Wl lists."""
    for word in words:
        if word.startswith("-Wl,"):
            yield from _words(word[4:].split(","), before)
        elif word[:1] == "@" and word not in before and len(before) < 99:
            before.add(word)
            text = os.fsdecode(_read(Path(word[1:])))
            inside = (re.sub(r"\\(.)|[\"']", r"\1", match[0]) for match in _WORD.finditer(text))
            yield from _words(inside, before)
        else:
            yield word


def _inputs(words: Iterable[str]) -> Iterator[Path]:
    """Yield what a command links: files that it names, libraries as found along its folders."""
    rest = iter(words)
    joined = [word + next(rest, "") if word in ("-l", "-L", "-o") else word for word in rest]
    folders = [Path(word[2:]) for word in joined if word[:2] == "-L"]
    static = "-static" in joined
    for word in joined:
        static = (static or word == "-Bstatic") and word != "-Bdynamic"
        if word[:1] != "-":
            yield Path(word)
        elif word[:2] == "-l":
            endings = (".a",) if static else (".so", ".dylib", ".tbd", ".a")
            names = [word[3:]] if word[2:3] == ":" else [f"lib{word[2:]}{end}" for end in endings]
            paths = (folder / name for folder in folders for name in names)
            with contextlib.suppress(OSError):  # a name that is too long
                yield from [path for path in paths if path.is_file()][:1]


def _output(words: Sequence[str]) -> Path:
    """Return what is linked: by where it is, an audit knows how to build it anew."""
    names = [word[2:] or after for word, after in zip(words, [*words[1:], ""], strict=True)
             if word[:2] == "-o"]  # fmt: skip
    return Path(names[-1] if names else "a.out")


def _runtime(linker: str) -> list[Path]:
    """Return the profile runtime that a compiler brings to a link, if it says so."""
    for name in _RUNTIMES:
        ask = [linker, f"-print-file-name=libclang_rt.{name}"]
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            answer = subprocess.run(ask, capture_output=True, check=False, timeout=5).stdout
            if answer.startswith(b"/"):
                return [Path(os.fsdecode(answer.strip()))]
    return []


def _read(path: Path) -> bytes:
    """Return a regular file's bytes; none of a linked image, or of what cannot be read."""
    with contextlib.suppress(OSError, ValueError, MemoryError):
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= _MOST_BYTES:
            with path.open("rb") as file:
                start = file.read(18)
                kind = _TYPES.get(start[:4])
                if kind is None or start[kind : kind + 1] == b"\1":
                    return start + file.read()
    return b""


def _versions(path: Path) -> set[int | None]:
    """Return the values of a file's version symbols, with None for what takes an audit to tell."""
    data = _read(path)
    if b"\0" not in data or (_MARK not in data and data[:8] != b"!<thin>\n"):
        return set()
    starts = [match.start() for match in _ELF.finditer(data)]  # itself, or an archive's members
    if not starts or _BITCODE in data:
        return {None}
    places = zip(starts, [*starts[1:], len(data)], strict=True)
    values = (_version(data[low:high]) for low, high in places if data.find(_MARK, low, high) > 0)
    return set[int | None]().union(*values)


def _version(data: bytes) -> set[int | None]:
    """Return the value of an object's version symbol. Source: Elf64_Ehdr, _Shdr, _Sym in elf.h."""
    try:
        table, count, names = struct.unpack_from("<Q12x2H", data, 40)
        sections = list(struct.iter_unpack("<2I4Q2I2Q", data[table : table + 64 * count]))
        for start, size, link in (s[4:7] for s in sections if s[1] == 2):  # SHT_SYMTAB
            low, length = sections[link][4:6]
            named = {match.start() - low for match in _VERSION.finditer(data, low, low + length)}
            for symbol in struct.iter_unpack("<I2BH2Q", data[start : start + size]):
                if symbol[0] in named and symbol[3]:
                    place = sections[symbol[3]][4] + symbol[4]
                    return set(struct.unpack_from("<Q", data, place))
        low = sections[names][4]
        records = any(data.startswith(_RECORDS, low + section[0]) for section in sections)
    except (struct.error, IndexError, OverflowError):  # it is malformed: the audit says how
        return {None}
    return {None} if records else set()
