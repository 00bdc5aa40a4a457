"""What cargo is given for a PGO build, so that nothing of another LLVM is in the profile.

All of it is set for the child alone: no file of the project changes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbsupport.audit.advice import UNDO, fitting
from nbsupport.base import files
from nbsupport.base.errors import LabError, MissingError
from nbsupport.forecast import cargo_config, cc_crate, lines, rust
from nbsupport.forecast.cure import ASSUMED
from nbsupport.forecast.verdict import Forecast, check_project
from nbsupport.toolchains import discovery, profdata
from nbsupport.toolchains.probe import Toolchain

#: What takes profile flags back that cc hands a compiler from rustc, in CFLAGS, which come last.
#: gcc takes these, too. Source: rust-lang/cc-rs, pull requests 1279 (both flags) and 1403.
LEFT_OUT = f"{UNDO['ir']} -fno-profile-use"


@dataclass(frozen=True)
class BuildPlan:
    """A PGO build: `env` is the whole environment of cargo, `set_for_child` what is new in it.

    `words` are the command of a build without target folder; `rustflags` are the project's own.
    `kind` is cargo's name of a folder: release; `profdata` an llvm-profdata of rustc's raw version.
    """

    folder: Path
    out: Path
    words: tuple[str, ...]
    target: str
    kind: str
    env: Mapping[str, str]
    set_for_child: Mapping[str, str]
    rustflags: tuple[str, ...]
    rustc: Toolchain
    profdata: Path
    forecast: Forecast

    @property
    def raw(self) -> Path:
        """The folder of raw profiles, where the instrumented program writes them by itself."""
        return self.out / "raw"

    @property
    def profile(self) -> Path:
        """The merged profile."""
        return self.out / "merged.profdata"

    def objects(self, folder: Path) -> Path:
        """Return where build scripts put what they compile for the target, in a target folder."""
        return folder / self.target / self.kind / "build"

    def digest(self, *more: str) -> str:
        """Return the name of what a build, with `more` of its own, is made of, sources aside."""
        settings = sorted(self.set_for_child.items())
        parts = [*self.words, *self.rustflags, *more, self.rustc.identity, *map(repr, settings)]
        calls = (call.command[0] for call in self.forecast.calls)
        return files.digest(*parts, *(f"{Path(path).resolve()}" for path in calls))


def make_plan(
    folder: Path, out: Path, arguments: Sequence[str], *, instrument_c: bool
) -> BuildPlan:
    """Check the cargo project in a folder, and return what its build is given.

    `arguments` are cargo's. Raises `LabError` for what `check_project` cannot read, for flags that
    would be lost, and where the C code can neither be left out nor be kept in.
    """
    if re.search('[%"\\\\]', str(out)):  # % has a meaning in LLVM's file names
        raise LabError(f"-o {out}", 'it has a %, " or \\', "choose another folder")
    own, kind = option(arguments, "--target"), option(arguments, "--profile")
    env = {**os.environ, **({"CARGO_BUILD_TARGET": own} if own else {})}
    config = cargo_config.read(folder, env)
    installed = rust.find(folder, config)
    flags = " ".join(config.rustflags(own or installed.host))
    if flag := re.search(r"profile-(generate|use)|instrument-coverage", flags):
        raise LabError(f"RUSTFLAGS {flag[0]}", "PGO flags are there already", "take them out")
    forecast = check_project(folder, environment=env)
    assert forecast.lines  # which those of a project have
    target, env = forecast.lines.target, config.env()
    rustc = discovery.find_rustc(str(installed.rustc))
    owners = profdata.owners(rustc.raw_version)  # what the oldest writes, each newer one reads
    if not owners:
        why = f"none is here for raw version {rustc.raw_version}, which {rustc.provider} writes"
        do = f"rustup component add llvm-tools, or {discovery.how_to_get(rustc.major)}"
        raise MissingError("llvm-profdata", why, do)
    new = compilers(forecast, target, installed.host)
    if instrument_c and (clang := _clang(forecast, rustc)):
        new |= lines.chosen("CC", clang, env, target, installed.host)
    for base in ("CXXFLAGS",) if instrument_c else ("CFLAGS", "CXXFLAGS"):
        new |= left_out(base, {**env, **new}, target, installed.host)
    added = (ASSUMED, *(() if lines.GUARD in flags else (lines.GUARD,)))
    words = [str(installed.cargo), "build", *([] if kind else ["--release"]), *arguments]
    if not own:  # even the host's: then build scripts and macros are not instrumented
        words += ["--target", target]
    return BuildPlan(
        folder=folder,
        out=out,
        words=tuple(words),
        target=target,
        kind={"": "release", "dev": "debug"}.get(kind, kind),
        env={**env, **new, "RUSTC": str(installed.rustc)},
        set_for_child=new,
        rustflags=tuple(f for f in forecast.lines.rustflags if f not in added),
        rustc=rustc,
        profdata=profdata.tool(owners[0]),
        forecast=forecast,
    )


def option(arguments: Sequence[str], name: str) -> str:
    """Return the value of an option among cargo's arguments; "" where it is not given.

    >>> option(["--bin", "a", "--target=b"], "--target"), option(["--bin", "a"], "--bin")
    ('b', 'a')
    """
    words = "\n".join([*arguments, ""])
    value = re.search(rf"(?:^|\n){name}[=\n](.*)\n", words)
    return value[1] if value else ""


def compilers(forecast: Forecast, target: str, host: str) -> dict[str, str]:
    """Return which compilers have to stand in, where flags cannot take back what cc hands on.

    Raises `LabError` where there is none: only another version of cc helps then.
    """
    eras = [call.era for call in forecast.calls if call.era]
    if forecast.verdict != "mixed" or not forecast.lines or all(era.curable for era in eras):
        return {}
    if forecast.lines.before:
        raise LabError("this build", forecast.advice, "; ".join(forecast.lines.before))
    names = {n for base in ("CC", "CXX") for n in cc_crate.variables(base, target, host)}
    return {name: value for name, value in forecast.lines.env.items() if name in names}


def left_out(base: str, env: Mapping[str, str], target: str, host: str) -> dict[str, str]:
    """Return CFLAGS (or CXXFLAGS: `base`) that leave the C code out of the profile.

    They are appended to each variable that is set, since it depends on cc, or on a build script
    without cc, which of them is read.

    >>> left_out("CFLAGS", {"CFLAGS": "-O3"}, "a-b-c", "a-b-c")
    {'CFLAGS': '-O3 -fno-profile-generate -fno-profile-use'}
    """
    names = cc_crate.variables(base, target, host)
    in_use = [name for name in names if name in env] or [names[1]]
    return {name: f"{env.get(name, '')} {LEFT_OUT}".strip() for name in in_use}


def _clang(forecast: Forecast, rustc: Toolchain) -> Path | None:
    """Return a clang of rustc's raw version to compile C; None where the build's own is such."""
    calls = [call for call in forecast.calls if call.language == "C"]
    versions = {piece.raw_version for call in calls for piece in call.pieces}
    if versions == {rustc.raw_version} and all(call.pieces for call in calls):
        return None
    clangs = [t for t in discovery.discover() if t.kind == "clang"]
    fit = [t for t in clangs if t.raw_version == rustc.raw_version]
    if not fit:
        why = f"no {fitting(rustc.raw_version or 0).removeprefix('a ')} is here"
        do = f"{discovery.how_to_get(rustc.major)}, or leave the option out"
        raise MissingError("--instrument-c", why, do)
    return min(fit, key=lambda t: (t.major != rustc.major, discovery.rank(t))).compiler
