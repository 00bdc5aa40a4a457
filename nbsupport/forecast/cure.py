"""What to do about a build that will mix: the settings that end it, and why these."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from nbsupport.audit.advice import LEAVE_OUT, fitting, keep_in
from nbsupport.audit.fate import LinkPiece, predict
from nbsupport.forecast import cc_crate, lines
from nbsupport.forecast.calls import Build, CompilerCall
from nbsupport.forecast.lines import GUARD, Lines
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain

#: What rustc is asked where the flags do not instrument yet: with a folder, which cc needs.
ASSUMED = "-Cprofile-generate=pgo-data"
_FIRST = "puts CFLAGS first, where they cure nothing"


def foreign(call: CompilerCall, main: LinkPiece) -> bool:
    """Return whether a call's objects do not go with rustc's."""
    if call.gcov:
        return True
    return bool(call.pieces) and not predict(main.raw_version, [main, *call.pieces]).fine


def plain(build: Build) -> Lines:
    """Return the lines of a build that needs no cure: its flags, and the profile's."""
    flags = build.rustflags
    if cc_crate.profile_folder(flags) == "":
        flags = (*_without_folder(flags), ASSUMED)
    return Lines(build.instead, flags, (), build.target)


def cure(build: Build, main: LinkPiece, bad: Sequence[CompilerCall]) -> tuple[str, Lines]:
    """Return what to do about calls that end badly, in words, and the lines to paste.

    CFLAGS end a mix where cc puts them last. Where they come first, gcc does, to which no flag is
    handed since cc 1.2.9, or a clang of rustc's raw version that is here, or a newer cc.
    """
    stale = dict.fromkeys(name.replace(" ", "@") for call in bad for name in call.packages)
    before = list[str]()
    settings: Mapping[str, str] = {}
    alien = [call for call in bad if foreign(call, main)]
    # What gcc's own flags ask for, its own flags take back, wherever cc puts them.
    mirrored = [
        call for call in alien if not call.gcov or (call.era and "gnu" in call.era.families)
    ]
    early = [call for call in mirrored if call.era and not call.era.curable]
    clang = next((t for t in _clangs() if t.raw_version == main.raw_version), None)
    has_gcc = shutil.which("gcc", path=build.env.get("PATH")) and build.target == build.host
    if not alien:
        advice = f"{bad[0].trouble}: name one."
    elif not early:
        clean = lines.without_gcov(build.env) if any(call.gcov for call in alien) else {}
        undone = lines.undone({**build.env, **clean}, build.target, build.host)
        settings = {**clean, **undone}
        advice = f"{LEAVE_OUT}. {keep_in(main.raw_version)}"
    else:
        advice = f"{early[0].cc} {_FIRST}: take a newer cc (cargo update -p cc)"
        if has_gcc and not any("gnu" in call.era.families for call in early if call.era):
            settings = _compilers(build, "gcc", "g++")
            advice += ", or gcc, to which it hands nothing"
        elif clang:
            name = clang.compiler.name.replace("clang", "clang++")
            settings = _compilers(build, clang.compiler, clang.compiler.with_name(name))
        else:
            settings = lines.undone(build.env, build.target, build.host)
            before.append("cargo update -p cc")
        advice += f", or {fitting(main.raw_version)}."
    if clang and alien:
        advice += f" One is here: {clang.compiler}"
    flags = list(plain(build).rustflags)
    if not any("linker" in word for word in flags) and shutil.which("pgo-lab-guard"):
        flags.append(GUARD)
    env = {**build.instead, **settings}
    advice += "".join(
        f" {path} forces {name}: change it there."
        for name, path in build.forced.items()
        if name in env
    )
    hiding = "RUSTFLAGS" if "RUSTFLAGS" in build.env else ""
    own = Lines(env, tuple(flags), tuple(stale), build.target, tuple(before), hiding)
    return advice, own


def _compilers(build: Build, c: str | Path, cpp: str | Path) -> dict[str, str]:
    """Return the variables in use of CC and CXX, set to other compilers."""
    places = build.env, build.target, build.host
    return lines.chosen("CC", c, *places) | lines.chosen("CXX", cpp, *places)


def _clangs() -> list[Toolchain]:
    clangs = [toolchain for toolchain in discovery.discover() if toolchain.kind == "clang"]
    return sorted(clangs, key=discovery.rank)


def _without_folder(rustflags: Sequence[str]) -> list[str]:
    """Return flags of rustc without a -Cprofile-generate that has no folder.

    >>> _without_folder(["-Cdebuginfo=1", "-C", "profile-generate", "--codegen=profile-generate"])
    ['-Cdebuginfo=1']
    """
    text = "\x1f".join(rustflags)
    text = re.sub(r"(^|\x1f)(-C\x1f?|--codegen[=\x1f])profile-generate(?=\x1f|$)", "", text)
    return [word for word in text.split("\x1f") if word]
