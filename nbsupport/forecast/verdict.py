"""What a build will come to: which compilers instrument what, and what becomes of their link."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nbsupport.audit.advice import LEAVE_OUT, fitting, keep_in
from nbsupport.audit.fate import LinkPiece, predict
from nbsupport.base import files, process
from nbsupport.base.errors import LabError, MissingError
from nbsupport.forecast import cargo_config, cc_crate, compilers, lines, project, rust
from nbsupport.forecast.cc_crate import Era, Tool
from nbsupport.forecast.compilers import Emitted, Language
from nbsupport.forecast.lines import GUARD, Lines
from nbsupport.forecast.project import Package
from nbsupport.profile import layout
from nbsupport.toolchains import discovery

Answer = Literal["consistent", "mixed", "unknown", "not-instrumented"]

#: What rustc is asked where the flags do not instrument yet: with a folder, which cc needs.
ASSUMED = "-Cprofile-generate=pgo-data"
#: The variables that name a compiler and its flags, by language; cc's default, and GNU's name.
_NAMES: dict[Language, tuple[str, str, str, str]] = {
    "C": ("CC", "CFLAGS", "cc", "gcc"),
    "C++": ("CXX", "CXXFLAGS", "c++", "g++"),
}


@dataclass(frozen=True)
class Call:
    """A compiler that a build calls, and what its objects add to the link.

    `because` says what chose it, `effect` what becomes of rustc's flag, `trouble` why the build
    fails with it; `era` is how the cc behaves that calls it (None: no cc does).
    """

    language: Language
    command: tuple[str, ...]
    because: str
    emitted: Emitted
    effect: str = ""
    trouble: str = ""
    packages: tuple[str, ...] = ()
    era: Era | None = None

    @property
    def pieces(self) -> tuple[LinkPiece, ...]:
        """What its objects add to the link."""
        return self.emitted.pieces

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
class Forecast:
    """What a build will come to: `outcomes` are those that `fate` predicts, or `build-failed`.

    `undecided` are the packages of which it is not known what they call, each with the reason.
    """

    verdict: Answer
    why: str
    outcomes: tuple[str, ...] = ()
    rustc: str = ""
    calls: tuple[Call, ...] = ()
    undecided: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    advice: str = ""
    lines: Lines | None = None
    llvm_profdata: str = ""
    profdata_reads: bool | None = None
    target: str = ""

    @property
    def exit_code(self) -> int:
        """0 fine, 1 will mix, 2 not known."""
        return {"mixed": 1, "unknown": 2}.get(self.verdict, 0)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `pgo-lab check --json`."""
        return {
            "verdict": self.verdict,
            "why": self.why,
            "outcomes": list(self.outcomes),
            "rustc": self.rustc,
            "compilers": [call.to_json() for call in self.calls],
            "not_known": dict(self.undecided),
            "llvm_profdata": {"path": self.llvm_profdata, "reads": self.profdata_reads},
            "notes": list(self.notes),
            "advice": self.advice,
            "lines": self.lines.to_json() if self.lines else None,
        }


@dataclass(frozen=True)
class _Build:
    """A cargo build: what its compilers and build scripts are given."""

    rust: rust.Rust
    target: str
    env: Mapping[str, str]
    rustflags: tuple[str, ...]
    instead: Mapping[str, str]

    @property
    def host(self) -> str:
        return self.rust.host


def check(folder: Path | None, commands: Sequence[str]) -> Forecast:
    """Say what the command line asks: of a project, of what is in a folder, of compilers alone.

    `commands` are compilers; with a folder there is at most one, which stands in for its CC.
    """
    if folder is None and commands:
        return check_compilers(commands)
    folder = _readable(folder or Path())
    database = folder / "compile_commands.json"
    if project.manifest(folder) is None and database.is_file():
        return check_commands(folder, files.read_json(database))
    if len(commands) > 1:
        raise LabError("check --with", "a project has one CC", "give --with once, or no folder")
    return check_project(folder, "".join(commands))


def check_project(
    folder: Path, cc: str = "", *, environment: Mapping[str, str] | None = None
) -> Forecast:
    """Say what a build of the cargo project in a folder will come to; `cc` stands in for its CC.

    `environment` is what cargo would be started with (None: this process's).

    Where the flags of rustc do not instrument yet, the profile's are added: `ASSUMED`. Nothing of
    the project runs. Raises `LabError` for what cannot be read, and compilers that do not work.
    """
    folder = _readable(folder)
    config = cargo_config.read(folder, os.environ if environment is None else environment)
    installed = rust.find(folder, config)
    target = _target(config) or installed.host
    env = config.env()
    instead = lines.chosen("CC", cc, env, target, installed.host) if cc else {}
    env |= instead
    facts = rust.cfg(installed, target) if config.cfgs() else ""
    rustflags = config.rustflags(target, facts)
    notes = []
    if cc_crate.profile_folder(rustflags) is None and "instrument-coverage" not in str(rustflags):
        rustflags += (ASSUMED,)
        notes.append(f"RUSTFLAGS do not instrument yet: taken with {ASSUMED}")
    build = _Build(installed, target, env, rustflags, instead)
    read = project.read(folder, installed, target, env)
    packages = [p for p in read.packages if not (p.host and _target(config))]
    main = _rustc_piece(build)
    calls = [call for group in _groups(packages) for call in [_call(build, *group)]]
    if read.others:
        notes.append(f"not built with these features, or here: {', '.join(read.others)}")
    return _judged(build, main, packages, calls, notes)


def check_compilers(commands: Sequence[str]) -> Forecast:
    """Say what a link of objects by these compilers comes to; each is a command with its flags.

    One that is not told how to instrument is told -fprofile-generate. Any of them may link, and
    each may come first. Raises `LabError` for what does not work.
    """
    calls = []
    for text in commands:
        words = _words(text)
        own = [] if "-fprofile" in text or "-fcs-profile" in text else ["-fprofile-generate"]
        path = compilers.find(words[0], os.environ, f"--with {text}")
        language: Language = "C++" if re.search(r"\+\+(-[\d.]+)?$", path.name) else "C"
        emitted = compilers.emit([path, *words[1:]], own, language, os.environ)
        if not emitted.made:
            raise LabError(f"--with {text}", emitted.message, "name a compiler that works")
        calls.append(Call(language, (str(path), *words[1:]), "--with", emitted))
    return _linked(calls)


def check_commands(folder: Path, entries: Any) -> Forecast:
    """Say what a link of all that compile_commands.json compiles comes to, as `check_compilers`."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LabError(f"{folder}/compile_commands.json", "not a list of commands", "make it again")
    groups: dict[tuple[Language, str, tuple[str, ...]], int] = {}
    for entry in entries:
        words = entry.get("arguments") or _words(str(entry.get("command", "")))
        if not words or not all(isinstance(word, str) for word in words):
            what = f"{folder}/compile_commands.json"
            raise LabError(what, "an entry without command", "make it again")
        if Path(words[0]).stem in cc_crate.WRAPPERS and len(words) > 1:
            words = words[1:]
        suffix = Path(str(entry.get("file", ""))).suffix
        language: Language = "C++" if suffix in (".cc", ".cpp", ".cxx", ".C", ".mm") else "C"
        if suffix not in (".s", ".S", ".asm"):
            key = (language, words[0], tuple(_deciding(words[1:])))
            groups[key] = groups.get(key, 0) + 1
    calls = []
    for (language, program, flags), count in groups.items():
        path = compilers.find(program, os.environ, "compile_commands.json")
        emitted = compilers.emit([path], flags, language, os.environ)
        if not emitted.made:
            raise LabError(f"{path} {' '.join(flags)}", emitted.message, "compile one file by hand")
        number = f"{count} files" if count > 1 else "one file"
        because = f"compile_commands.json, {number}"
        calls.append(Call(language, (str(path), *flags), because, emitted))
    return _linked(calls)


def _deciding(words: Sequence[str]) -> list[str]:
    """Return the flags of a compilation that decide what is instrumented, and for what target."""
    flags, rest = list[str](), iter(words)
    for word in rest:
        if word in ("-target", "-mllvm", "-Xclang", "-arch"):
            flags += [word, next(rest, "")]
        elif re.match(r"-f(no-)?(cs-)?profile|-f(no-)?coverage|--target=|-m(32|64)$", word):
            flags.append(word)
    return flags


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise LabError(text, f"no words of a shell ({error})", "mend the quotes") from error
    if not words:
        raise LabError("check --with", "no compiler", "name one")
    return words


def _readable(folder: Path) -> Path:
    folder = folder.absolute()
    if not folder.is_dir():
        raise LabError(f"check of {folder}", "no such folder", "give a project's folder")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise LabError(f"check of {folder}", "permission denied", "check the permissions")
    return folder


def _target(config: cargo_config.CargoConfig) -> str:
    """Return the target that cargo is told; "" where it is the host."""
    value = config.value("build", "target")
    values = value if isinstance(value, list) else [value] if value else []
    if len(values) > 1 or not all(isinstance(name, str) for name in values):
        what = f"build.target = {value!r}"
        raise LabError(what, "not one target", "set CARGO_BUILD_TARGET to one")
    return Path(values[0]).stem if values and values[0].endswith(".json") else "".join(values)


def _rustc_piece(build: _Build) -> LinkPiece:
    """Return what rustc's objects add to the link, the runtime being of the same raw version."""
    flags = compilers.rust_flags(build.rustflags)
    if build.target != build.host:
        flags += ["--target", build.target]
    emitted = compilers.emit([build.rust.rustc], flags, "Rust", build.env)
    if not emitted.pieces:
        why = emitted.message or "it instruments nothing with these flags"
        raise LabError(f"{build.rust.rustc} {' '.join(flags)}", why, "use a rustc that instruments")
    return emitted.pieces[0]


def _groups(packages: Sequence[Package]) -> list[tuple[Language, str, list[Package]]]:
    """Return the packages that cc compiles alike: by language, and version of cc."""
    groups: dict[tuple[Language, str], list[Package]] = {}
    for package in packages:
        for language in package.languages:
            if package.cc:
                groups.setdefault((language, package.cc), []).append(package)
    return [(language, version, group) for (language, version), group in groups.items()]


def _call(build: _Build, language: Language, version: str, packages: Sequence[Package]) -> Call:
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
    emitted = compilers.emit(command, cc_crate.command_line(era, handed, cflags), language, env)
    supported = emitted.quiet
    if supported and era.links and handed:
        supported = compilers.emit(command, [*cflags, *handed], language, env, link=True).quiet
    if handed and not supported:
        emitted = compilers.emit(command, cflags, language, env)
    if not emitted.made:
        raise LabError(f"{because}: {shlex.join(map(str, command))}", emitted.message, "mend it")
    effect, trouble = _effect(era, version, emitted, bool(handed), supported)
    if handed and folder == "" and era.folder:
        trouble = f"cc {version} refuses -Cprofile-generate without a folder"
    made_by = tuple(map(str, packages))
    words = tuple(map(str, command))
    return Call(language, words, because, emitted, effect, trouble, made_by, era)


def _effect(
    era: Era, version: str, emitted: Emitted, handed: bool, supported: bool
) -> tuple[str, str]:
    """Say what becomes of rustc's flag at a compiler, and why the build fails with it, if so."""
    who = f"cc {version}"
    if not handed or emitted.family not in era.families:
        return f"{who} hands it nothing of rustc's profile flags", ""
    if not supported:
        return f"{who} hands it no profile flag, for it refuses one", ""
    if emitted.family == "gnu":
        why = f"{who} hands {compilers.described(emitted)} -fprofile-generate, which takes gcov"
        return f"{who} hands it -fprofile-generate", f"{why}: the link has no __gcov_init"
    if not emitted.pieces:
        return f"{who} hands it -fprofile-generate, which its flags take back", ""
    return f"{who} hands it -fprofile-generate", ""


def _default(language: Language, build: _Build) -> Tool:
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


def _judged(
    build: _Build,
    main: LinkPiece,
    packages: Sequence[Package],
    calls: Sequence[Call],
    notes: Sequence[str],
) -> Forecast:
    """Judge a build: rustc's objects stand first in the link, and bring the runtime."""
    pieces = tuple(dict.fromkeys([main, *(p for call in calls for p in call.pieces)]))
    layout.learn_unknown([piece.raw_version for piece in pieces], discovery.discover)
    fate = predict(main.raw_version, pieces)
    troubles = [call.trouble for call in calls if call.trouble]
    # A package that chooses by itself may call another compiler; then it is not this one's.
    decided = {str(p) for p in packages if not p.chooses}
    bad = [c for c in calls if (c.trouble or _foreign(c, main)) and decided & {*c.packages}]
    undecided = {str(package): package.chooses for package in packages if package.chooses}
    outcomes: tuple[str, ...] = tuple(sorted(fate.outcomes))
    verdict: Answer = "consistent"
    why = "; ".join(filter(None, (fate.why, fate.loss)))
    if bad and troubles:
        verdict, why, outcomes = "mixed", troubles[0], ("build-failed",)
    elif bad:
        verdict = "mixed"
    elif undecided:
        name, reason = next(iter(undecided.items()))
        verdict, outcomes = "unknown", ()
        why = f"build.rs of {name} chooses: {reason}"
        why += f"; and {len(undecided) - 1} more" if len(undecided) > 1 else ""
    elif not any(call.pieces for call in calls):
        why = "nothing but rustc instruments" if calls else "no C is compiled, as far as cc does it"
    profdata = rust.llvm_profdata(build.rust, build.env.get("PATH"))
    reads = _reads(profdata, main.raw_version) if profdata else None
    forecast = Forecast(
        verdict,
        why,
        outcomes,
        f"{build.rust}, raw version {main.raw_version}",
        tuple(calls),
        undecided,
        (*notes, *_notes(build, profdata, reads, main)),
        llvm_profdata=str(profdata or ""),
        profdata_reads=reads,
        target=build.target,
    )
    return _advised(forecast, build, main, bad) if bad else forecast


def _foreign(call: Call, main: LinkPiece) -> bool:
    return bool(call.pieces) and not predict(main.raw_version, [main, *call.pieces]).fine


def _notes(build: _Build, profdata: Path | None, reads: bool | None, main: LinkPiece) -> list[str]:
    """Return what else to know before the build: the merge, and the files of the profile."""
    notes = []
    if profdata is None:
        notes.append("no llvm-profdata: rustup component add llvm-tools")
    elif reads is False:
        writes = f"raw version {main.raw_version}, which rustc writes"
        notes.append(f"{profdata} does not read {writes}: rustup component add llvm-tools")
    pool = build.env.get("LLVM_PROFILE_FILE")
    if pool is not None and not re.search(r"%\d*m|%p", pool):
        notes.append(f"LLVM_PROFILE_FILE={pool}: each program overwrites it; use %m or %p")
    elif pool is None or "%p" not in pool:
        notes.append("all runs are merged into one profile (%m): train in an empty folder")
    return notes


def _reads(profdata: Path, raw_version: int) -> bool | None:
    """Return whether an llvm-profdata reads raw profiles of a version; None: not known.

    Source: RawInstrProfReader::readHeader takes its own version alone.
    """
    done = process.run((profdata, "--version"), cwd=Path("/"))
    number = re.search(r"LLVM version (\d+)", done.stdout)
    known = layout.LAYOUTS.get(raw_version)
    if not number or not known or not known.llvm or "Apple" in done.stdout:
        return None
    first, last = known.llvm
    return first <= int(number[1]) <= last


def _advised(forecast: Forecast, build: _Build, main: LinkPiece, bad: Sequence[Call]) -> Forecast:
    """Return the forecast with what to do, and the lines to paste."""
    target, host, env = build.target, build.host, build.env
    stale = dict.fromkeys(name.replace(" ", "@") for call in bad for name in call.packages)
    eras = [call.era for call in bad if call.era]
    clang = next((t for t in _clangs() if t.raw_version == main.raw_version), None)
    before: tuple[str, ...] = ()
    flags = [word for word in build.rustflags if word not in ("-Cprofile-generate",)]
    if cc_crate.profile_folder(build.rustflags) == "":
        flags = [*_without_folder(build.rustflags), ASSUMED]
    gcc = shutil.which("gcc", path=env.get("PATH"))
    if all(era.curable for era in eras):
        settings = lines.undone(env, target, host)
        advice = f"{LEAVE_OUT}. {keep_in(main.raw_version)}"
    elif gcc and not any("gnu" in era.families for era in eras) and target == host:
        settings = lines.chosen("CC", "gcc", env, target, host)
        settings |= lines.chosen("CXX", "g++", env, target, host)
        advice = f"{LEAVE_OUT} by gcc: {_first(bad)} puts CFLAGS first, where they cure nothing."
    elif clang:
        settings = lines.chosen("CC", clang.compiler, env, target, host)
        settings |= lines.chosen("CXX", _plus(clang.compiler), env, target, host)
        advice = f"Keep the C code in: {_first(bad)} puts CFLAGS first, where they cure nothing."
    else:
        settings, before = lines.undone(env, target, host), ("cargo update -p cc",)
        advice = f"{_first(bad)} puts CFLAGS first, where they cure nothing: take a newer cc."
    if before == () and not all(era.curable for era in eras):
        advice += f" Or cargo update -p cc, or {fitting(main.raw_version)}."
    if clang:
        advice += f" One is here: {clang.compiler}"
    if not any("linker" in word for word in flags) and shutil.which("pgo-lab-guard"):
        flags.append(GUARD)
    own = Lines({**build.instead, **settings}, tuple(flags), tuple(stale), target, before)
    return dataclasses.replace(forecast, advice=advice, lines=own)


def _clangs() -> list[Any]:
    clangs = [t for t in discovery.discover() if t.kind == "clang"]
    return sorted(clangs, key=discovery.rank)


def _plus(clang: Path) -> Path:
    """Return the C++ compiler of a clang: clang++ beside clang, clang++-16 beside clang-16."""
    return clang.with_name(clang.name.replace("clang", "clang++"))


def _first(bad: Sequence[Call]) -> str:
    """Name the cc of the first call that CFLAGS do not cure."""
    return next((call.effect.partition(" hands")[0] for call in bad), "cc")


def _without_folder(rustflags: Sequence[str]) -> list[str]:
    """Return flags of rustc without a -Cprofile-generate that has no folder."""
    text = "\x1f".join(rustflags)
    text = re.sub(r"(^|\x1f)(-C\x1f?|--codegen[=\x1f])profile-generate(?=\x1f|$)", "", text)
    return [word for word in text.split("\x1f") if word]


def _linked(calls: Sequence[Call]) -> Forecast:
    """Judge objects of several compilers: any may link, and bring the runtime; any may be first."""
    pieces = list(dict.fromkeys(piece for call in calls for piece in call.pieces))
    layout.learn_unknown([piece.raw_version for piece in pieces], discovery.discover)
    ways = [
        (runtime, [first, *(piece for piece in pieces if piece != first)])
        for runtime in sorted({piece.raw_version for piece in pieces})
        for first in pieces
    ]
    fates = [predict(runtime, way) for runtime, way in ways]
    outcomes = tuple(sorted({outcome for fate in fates for outcome in fate.outcomes}))
    bad = [fate for fate in fates if not fate.fine]
    if not pieces:
        return Forecast("not-instrumented", "nothing is instrumented", calls=tuple(calls))
    fate = (bad or fates)[0]
    why = "; ".join(filter(None, (fate.why, fate.loss)))
    if not bad:
        return Forecast("consistent", why, outcomes, calls=tuple(calls))
    versions = sorted({piece.raw_version for piece in pieces})
    advice = "Compile all by one LLVM: " + ", or all by ".join(map(fitting, versions)) + "."
    return Forecast("mixed", why, outcomes, calls=tuple(calls), advice=advice)
