"""The compilers that a cargo build calls, and what the cc crate hands them of rustc's flags."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbsupport.audit.fate import LinkPiece
from nbsupport.base.errors import LabError, MissingError
from nbsupport.forecast import cc_crate, compilers
from nbsupport.forecast.cc_crate import Era, Tool
from nbsupport.forecast.compilers import Emitted, Language
from nbsupport.forecast.project import Package
from nbsupport.forecast.rust import Rust

#: The variables that name a compiler and its flags, by language; cc's default, and GNU's name.
_NAMES: dict[Language, tuple[str, str, str, str]] = {
    "C": ("CC", "CFLAGS", "cc", "gcc"),
    "C++": ("CXX", "CXXFLAGS", "c++", "g++"),
}


@dataclass(frozen=True)
class CompilerCall:
    """A compiler that a build calls, and what its objects add to the link.

    `because` says what chose it, `effect` what cc hands it of rustc's flags, `trouble` why the
    build fails with it, `doubt` why it is not known what it makes.
    `cc` is which cc calls it, `era` how that behaves (None: no cc does).
    `gcov`: it makes records of GNU's kind, whose runtime is in no link of rustc's.
    """

    language: Language
    command: tuple[str, ...]
    because: str
    emitted: Emitted
    effect: str = ""
    trouble: str = ""
    packages: tuple[str, ...] = ()
    era: Era | None = None
    cc: str = ""
    gcov: bool = False
    doubt: str = ""

    @property
    def pieces(self) -> tuple[LinkPiece, ...]:
        """What its objects add to the link."""
        return self.emitted.pieces

    @property
    def name(self) -> str:
        """The compiler's name for people, and its version."""
        return compilers.described(self.emitted)

    def to_json(self) -> dict[str, Any]:
        """Return one of `compilers` of `pgo-lab check --json`."""
        return {
            "language": self.language,
            "command": list(self.command),
            "because": self.because,
            "family": self.emitted.family,
            "version": self.emitted.version,
            "raw_versions": sorted({piece.raw_version for piece in self.pieces}),
            "instrumented": bool(self.pieces),
            "effect": self.effect,
            "trouble": self.trouble,
            "packages": list(self.packages),
        }


@dataclass(frozen=True)
class Build:
    """A cargo build: what its compilers and build scripts are given.

    `instead` are variables that were asked for, and are not in the environment yet; `forced` those
    that a file of cargo's sets, whatever the environment has.
    """

    rust: Rust
    target: str
    env: Mapping[str, str]
    rustflags: tuple[str, ...]
    instead: Mapping[str, str]
    forced: Mapping[str, Path]

    @property
    def host(self) -> str:
        """The triple that rustc is for, and runs on."""
        return self.rust.host


def rustc_piece(build: Build) -> LinkPiece:
    """Return what rustc's objects add to the link, the runtime being of the same raw version."""
    flags = compilers.rust_flags(build.rustflags)
    if build.target != build.host:
        flags += ["--target", build.target]
    emitted = compilers.emit([build.rust.rustc], flags, "Rust", build.env)
    if not emitted.pieces:
        why = emitted.message or "it instruments nothing with these flags"
        do = "use a rustc that instruments"
        if re.search("find crate for `(std|core)`", why):
            do = f"rustup target add {build.target}"
        elif "profiler_builtins" in why:
            do = "use rustup's rustc, which has the profile runtime"
        raise LabError(f"{build.rust.rustc} {' '.join(flags)}", why, do)
    return emitted.pieces[0]


def doubt(emitted: Emitted, flags: Sequence[str]) -> str:
    """Say why it is not known what a compiler makes: it is asked for records, and shows none."""
    if emitted.pieces or emitted.gcov or not compilers.asks(flags):
        return ""
    return f"flags of {compilers.described(emitted)} ask for records, and a small file gets none"


def all_calls(build: Build, packages: Sequence[Package]) -> list[CompilerCall]:
    """Return every compiler that cc calls for these packages: by language, and version of cc.

    Raises `LabError` for a compiler that is not there, or does not work.
    """
    return [_call(build, *group) for group in _groups(packages)]


def _groups(packages: Sequence[Package]) -> list[tuple[Language, str, list[Package]]]:
    """Return the packages that cc compiles alike: by language, and version of cc."""
    groups: dict[tuple[Language, str], list[Package]] = {}
    for package in packages:
        for language in package.languages:
            if package.cc:
                groups.setdefault((language, package.cc), []).append(package)
    return [(language, version, group) for (language, version), group in groups.items()]


def _call(
    build: Build, language: Language, version: str, packages: Sequence[Package]
) -> CompilerCall:
    """Return the compiler that a version of cc calls, and what it makes of rustc's flag."""
    era = cc_crate.era_of(version)
    tool_name, flags_name, _, _ = _NAMES[language]
    tool = cc_crate.tool(build.env, tool_name, build.target, build.host) or _default(
        language, build
    )
    because = tool.variable or "cc's default"
    command: list[str | Path] = [compilers.find(tool.program, build.env, because), *tool.arguments]
    names = cc_crate.variables(flags_name, build.target, build.host)
    cflags = cc_crate.flags(build.env, names, era)
    folder = cc_crate.profile_folder(build.rustflags)
    handed = [f"-fprofile-generate={folder}"] if folder is not None and era.families else []
    env = build.env
    family = compilers.family(command, language, env)
    if family not in era.families:
        handed = []
    own = [compilers.RELEASE, *handed]
    emitted = compilers.emit(command, cc_crate.command_line(era, own, cflags), language, env)
    supported = emitted.quiet
    if supported and era.links and handed:
        supported = compilers.emit(command, [*cflags, *handed], language, env, link=True).quiet
    if handed and not supported:
        words = cc_crate.command_line(era, own[:1], cflags)
        emitted = compilers.emit(command, words, language, env)
    if not emitted.made:
        raise LabError(f"{because}: {shlex.join(map(str, command))}", emitted.message, "mend it")
    trouble = ""
    if folder == "" and era.families and era.folder:
        trouble = f"cc {version} refuses -Cprofile-generate without a folder"
    elif emitted.gcov:
        what = "its flags give gcc records of GNU's kind"
        if handed and supported:
            what = f"cc {version} hands gcc -fprofile-generate"
        trouble = f"{what}, and the link has no __gcov_init"
    return CompilerCall(
        language,
        tuple(map(str, command)),
        because,
        emitted,
        _effect(emitted, bool(handed), supported),
        trouble,
        tuple(map(str, packages)),
        era,
        f"cc {version}",
        emitted.gcov,
        doubt(emitted, [*tool.arguments, *cflags]),
    )


def _effect(emitted: Emitted, handed: bool, supported: bool) -> str:
    """Say what cc hands a compiler of rustc's profile flags."""
    if not handed:
        return "nothing of rustc's profile flags"
    if not supported:
        return "no profile flag, for it refuses one"
    back = "" if emitted.pieces or emitted.gcov else ", which its flags take back"
    return f"-fprofile-generate{back}"


def _default(language: Language, build: Build) -> Tool:
    """Return what cc calls where no variable names a compiler. Source: get_base_compiler."""
    _, _, traditional, gnu = _NAMES[language]
    if build.target == build.host or ("apple" in build.target and "apple" in build.host):
        return Tool("", traditional)
    parts = build.target.split("-")
    if "linux" not in parts:
        do = f"set {_NAMES[language][0]}_{build.target.replace('-', '_')}"
        raise MissingError(f"a compiler for {build.target}", "cc's default is not known here", do)
    prefix = build.env.get("CROSS_COMPILE", "").rstrip("-")
    machine = re.sub("^(riscv64|riscv32|armv?7?).*", r"\1", parts[0]).replace("armv7", "arm")
    return Tool("", f"{prefix or f'{machine}-linux-{parts[-1]}'}-{gnu}")
