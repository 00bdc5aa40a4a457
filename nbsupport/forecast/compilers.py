"""What a compiler makes of a small file, with the flags that a build gives it: read, not assumed.

One compilation says all: the compiler's family and version stand in the object as text, and its
records say who instrumented it. The answer is kept by the compiler's identity; that of a script
is not, for a script stands for another program, which may change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nbsupport.audit.fate import LinkPiece
from nbsupport.base import files, process, settings
from nbsupport.base.errors import LabError, MissingError, first_line
from nbsupport.forecast.cc_crate import Family
from nbsupport.toolchains import probe

Language = Literal["C", "C++", "Rust"]

#: A small file is compiled at once, or not at all.
_LIMITS = settings.Limits(seconds=20.0, memory=4096 * settings.MIB)
_SUFFIXES: dict[Language, str] = {"C": ".c", "C++": ".cc", "Rust": ".rs"}
#: Its text is that of an object, too: what stands between the marks is the compiler's own word.
#: A function that others may call outlives every optimization, and so do its records.
_C = """\
#if defined(__clang__)
#define FAMILY "clang"
#elif defined(__GNUC__)
#define FAMILY "gnu"
#else
#define FAMILY "other"
#define __VERSION__ ""
#endif
char pgo_lab_probe[] = "<<pgo-lab " FAMILY ":" __VERSION__ ">>";
#if defined(__cplusplus)
extern "C"
#endif
int pgo_lab_part(int n) { while (n % 7) n = n * 3 + 1; return n; }
int main(int argc, char **argv) { return pgo_lab_part(argc) + !argv; }
"""
_RUST = """\
#[inline(never)]
pub fn probe(n: usize) -> usize { if n > 7 { n * 3 } else { 1 } }
"""
#: How cc compiles for a release build, unless CFLAGS say otherwise: cargo's OPT_LEVEL.
RELEASE = "-O3"
_MARK = re.compile(rb"<<pgo-lab (\w+):([^>]*)>>")
#: Flags of rustc that a library on its own has no use for, or cannot be built with.
_NO_LIBRARY = re.compile(r"(-C|--codegen=)?(lto|linker|link-|incremental|profile-use|save-temps)")
#: What else decides what a clang does. Source: clang/tools/driver/driver.cpp.
_VARIABLES = ("CCC_OVERRIDE_OPTIONS", "SDKROOT", "MACOSX_DEPLOYMENT_TARGET", "GCC_EXEC_PREFIX")


@dataclass(frozen=True)
class Emitted:
    """The result of a compilation: `pieces` are what its object adds to a link.

    `version` is the compiler's own word for itself; `message` is the first line that it said
    ("" for none), `made` whether there is an object all the same. `gcov`: it has records of GNU's
    kind, for gcc's own runtime.
    """

    made: bool
    message: str = ""
    family: Family = "other"
    version: str = ""
    pieces: tuple[LinkPiece, ...] = ()
    gcov: bool = False

    @property
    def quiet(self) -> bool:
        """Whether all was well, without a word: so cc tries a flag."""
        return self.made and not self.message


def find(program: str, env: Mapping[str, str], what: str) -> Path:
    """Return the file of a program; `what` says who names it. Raises `MissingError`."""
    place = shutil.which(program, path=env.get("PATH"))
    if place is None:
        raise MissingError(what, f"no such program: {program}", "install it, or name another")
    return Path(place).absolute()


def emit(
    command: Sequence[str | Path],
    flags: Sequence[str],
    language: Language,
    env: Mapping[str, str],
    *,
    link: bool = False,
) -> Emitted:
    """Compile the small file by a command with flags; `link` makes a program of it.

    The command's first word is the path of the compiler. Raises `LabError` where it does not end,
    or cannot be started.
    """
    compiler = Path(command[0])
    context = [f"{name}={env[name]}" for name in _VARIABLES if name in env]
    parts = [probe.identity(compiler), *map(str, command[1:]), *flags, language, str(link)]
    digest = files.digest(*parts, *context, files.sha256(Path(__file__)))
    note = settings.cache_dir() / "forecast" / f"{digest}.json"
    lasting = language == "Rust" or not _stands_for_another(compiler)
    if lasting:
        with contextlib.suppress(LabError, TypeError, KeyError):
            table = files.read_json(note)
            pieces = (_piece(piece) for piece in table.pop("pieces"))
            return Emitted(pieces=tuple(pieces), **table)
    emitted = _compile(command, flags, language, env, link)
    if any(not piece.has_symbol for piece in emitted.pieces):
        emitted = _versioned(emitted, command, language, env)
    if lasting:
        with contextlib.suppress(OSError):  # a read-only cache costs time, nothing else
            files.write(note, json.dumps(dataclasses.asdict(emitted)))
    return emitted


def _versioned(
    emitted: Emitted, command: Sequence[str | Path], language: Language, env: Mapping[str, str]
) -> Emitted:
    """Return what was emitted with the raw version of the compiler's other records.

    Those of its front end have no version symbol, and are alike in raw versions 9 and 10.
    """
    words = [word for word in command if not str(word).startswith("-f")]
    other = emit(words, ["-fprofile-generate"], language, env).pieces
    if not other:
        return emitted
    pieces = (
        piece if piece.has_symbol else dataclasses.replace(piece, raw_version=other[0].raw_version)
        for piece in emitted.pieces
    )
    return dataclasses.replace(emitted, pieces=tuple(pieces))


def _piece(table: Mapping[str, Any]) -> LinkPiece:
    return LinkPiece(**{**table, "variants": tuple(table["variants"])})


def _stands_for_another(compiler: Path) -> bool:
    """Return whether a program is a script, or a compiler's cache under the compiler's name."""
    try:
        with compiler.open("rb") as file:
            script = file.read(2) == b"#!"
    except OSError:
        return True
    return script or compiler.resolve().stem in ("ccache", "sccache", "distcc", "icecc")


def _compile(
    command: Sequence[str | Path],
    flags: Sequence[str],
    language: Language,
    env: Mapping[str, str],
    link: bool,
) -> Emitted:
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as folder:
        source, output = Path(folder, f"probe{_SUFFIXES[language]}"), Path(folder, "probe.o")
        source.write_text(_RUST if language == "Rust" else _C)
        words = list(flags)
        if language == "Rust":
            words += ["--crate-type=lib", "--crate-name=probe", "--emit=obj"]
        else:
            # An object, not bitcode: the profile's part of it is the same.
            words += [] if link else ["-c", "-fno-lto"]
        done = process.run(
            [*command, *words, "-o", output, source],
            cwd=Path(folder),
            env={**env, "LC_ALL": "C", "CCACHE_DISABLE": "1"},
            limits=_LIMITS,
        )
        name = " ".join(map(str, command))
        if done.limit:
            why = f"stopped at the {done.limit} limit, compiling three lines"
            raise LabError(name, why, "see what it waits for, or name another compiler")
        text = done.stderr.strip() or (done.stdout.strip() if not done.ok else "")
        message = first_line(text).replace(f"{folder}/", "") if text else ""
        if not done.ok or not output.is_file():
            return Emitted(False, message or f"it ended with {done.exit_code}")
        return Emitted(True, message, *_read(output, language, name))


def _read(
    output: Path, language: Language, name: str
) -> tuple[Family, str, tuple[LinkPiece, ...], bool]:
    """Read an object: the compiler's family and version, what it adds to a link, GNU's records."""
    from nbsupport.audit import evidence  # noqa: PLC0415 - NumPy, where there is something to read

    file = evidence.read(output)
    if isinstance(file, str) or file is None or file.problems:
        why = "what it makes is no object that we read"
        raise LabError(name, why, "name the compiler itself, without what stands before it")
    pieces = tuple(dict.fromkeys(piece for part in file.parts for piece in part.pieces))
    if language == "Rust":
        return "other", "", pieces, False
    content = output.read_bytes()
    mark = _MARK.search(content)
    family: Family = "other"
    if mark and mark[1] in (b"clang", b"gnu"):
        family = "clang" if mark[1] == b"clang" else "gnu"
    version = mark[2].decode(errors="replace") if mark else ""
    return family, version, pieces, b"__gcov_init" in content


def rust_flags(rustflags: Sequence[str]) -> list[str]:
    """Return what of RUSTFLAGS decides how a library is instrumented.

    >>> rust_flags(["-Clto=fat", "-C", "linker=lld", "-Cprofile-generate=p", "--cfg", "x"])
    ['-Cprofile-generate=p', '--cfg', 'x']
    """
    flags = list[str]()
    words = iter(rustflags)
    for word in words:
        if word in ("-C", "--codegen"):
            value = next(words, "")
            if not _NO_LIBRARY.match(value):
                flags += [word, value]
        elif not (word.startswith(("-C", "--codegen=")) and _NO_LIBRARY.match(word)):
            flags.append(word)
    return flags


def asks(flags: Sequence[str]) -> bool:
    """Return whether flags of clang or gcc ask for records, and none later takes that back.

    >>> asks(["-fcs-profile-generate"]), asks(["-fprofile-generate", "-fno-profile-generate"])
    (True, False)
    """
    wants = False
    for flag in flags:
        if re.match(r"-f(cs-)?profile-(instr-)?generate|-fcoverage-mapping|-+pgo-instr-gen", flag):
            wants = True
        elif re.match(r"-fno-(cs-)?profile-(instr-)?generate", flag):
            wants = False
    return wants


def family(command: Sequence[str | Path], language: Language, env: Mapping[str, str]) -> Family:
    """Return the family that cc takes a compiler for: it asks the program, without arguments.

    A program that does not answer alone (`env clang`) is judged by its name, and is gcc's kind if
    that tells nothing. Source: Tool::with_features (cc's src/tool.rs).
    """
    alone = emit(command[:1], (), language, env)
    if alone.made:
        return alone.family
    return "clang" if re.search("clang|zig", Path(command[0]).name) else "gnu"


def described(emitted: Emitted) -> str:
    """Return a compiler's name for people: `clang 16.0.6`, `gcc 12.2.0`.

    >>> described(Emitted(True, "", "clang", "Clang 16.0.6 (15~deb12u1)"))
    'clang 16.0.6'
    """
    number = re.search(r"\d+(\.\d+)*", emitted.version)
    name = {"clang": "clang", "gnu": "gcc"}.get(emitted.family, "a compiler")
    if "Apple" in emitted.version:
        name = "Apple clang"
    return f"{name} {number[0]}" if number else name
