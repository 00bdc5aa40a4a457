"""What will happen in a build: which compilers instrument what, and how their link ends."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nbsupport.audit.advice import fitting
from nbsupport.audit.fate import LinkPiece, predict
from nbsupport.base import files
from nbsupport.base.errors import LabError
from nbsupport.forecast import cargo_config, cc_crate, compilers, cure, lines, project, rust
from nbsupport.forecast.calls import Build, CompilerCall, all_calls, doubt, rustc_piece
from nbsupport.forecast.compilers import Language
from nbsupport.forecast.lines import Lines
from nbsupport.forecast.project import Package
from nbsupport.profile import layout
from nbsupport.toolchains import discovery
from nbsupport.toolchains import profdata as tools

Answer = Literal["consistent", "mixed", "unknown", "not-instrumented"]


@dataclass(frozen=True)
class Forecast:
    """What will happen in a build: `outcomes` are those that `fate` predicts, or `build-failed`.

    `undecided` are the packages of which it is not known what they call, each with the reason.
    """

    verdict: Answer
    why: str
    outcomes: tuple[str, ...] = ()
    rustc: str = ""
    calls: tuple[CompilerCall, ...] = ()
    undecided: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    advice: str = ""
    lines: Lines | None = None
    llvm_profdata: str = ""
    profdata_reads: bool | None = None

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


def check(folder: Path | None, commands: Sequence[str]) -> Forecast:
    """Say what the command line asks: of a project, of what is in a folder, of compilers alone.

    `commands` are compilers. One of them stands in for a project's CC; the project is that of the
    current folder where no folder is given. Several without a folder are judged alone.
    """
    alone = folder is None and bool(commands)
    folder = _readable(folder or Path())
    database = folder / "compile_commands.json"
    if database.is_file() and not (folder / "Cargo.toml").is_file():
        return check_commands(folder, files.read_json(database), commands)
    if alone and (len(commands) > 1 or project.manifest(folder) is None):
        return check_compilers(commands)
    if len(commands) > 1:
        raise LabError("check --with", "a project has one CC", "give --with once, or no folder")
    return check_project(folder, "".join(commands))


def check_project(
    folder: Path, cc: str = "", *, environment: Mapping[str, str] | None = None
) -> Forecast:
    """Say what will happen in a build of a cargo project; `cc` stands in for its CC.

    `environment` is what cargo would be started with (None: this process's).
    Where the flags of rustc do not instrument yet, `cure.ASSUMED` is added to them. Nothing of
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
        rustflags += (cure.ASSUMED,)
        notes.append(f"RUSTFLAGS do not instrument yet: taken with {cure.ASSUMED}")
    build = Build(installed, target, env, rustflags, instead, config.forced())
    main = rustc_piece(build)  # first: what is wrong with flags, rustc says best
    cargo_project = project.read(folder, installed, target, env)
    packages = [p for p in cargo_project.packages if not (p.host and _target(config))]
    if cargo_project.note:
        notes.append(cargo_project.note)
    if cargo_project.others:
        notes.append(f"not built with these features, or here: {', '.join(cargo_project.others)}")
    return _judged(build, main, packages, all_calls(build, packages), notes)


def check_compilers(commands: Sequence[str]) -> Forecast:
    """Say how a link of objects by these compilers ends; each is a command with its flags.

    One that is not told how to instrument is told -fprofile-generate. Any of them may link, and
    each may come first. Raises `LabError` for what does not work.
    """
    return _linked(_named(commands))


def _named(commands: Sequence[str]) -> list[CompilerCall]:
    """Return the calls of compilers that the command line names."""
    calls = list[CompilerCall]()
    for text in commands:
        words = _words(text)
        own = [] if "-fprofile" in text or "-fcs-profile" in text else ["-fprofile-generate"]
        path = compilers.find(words[0], os.environ, f"--with {text}")
        language: Language = "C++" if re.search(r"\+\+(-[\d.]+)?$", path.name) else "C"
        emitted = compilers.emit(
            [path], [compilers.RELEASE, *own, *words[1:]], language, os.environ
        )
        if not emitted.made:
            raise LabError(f"--with {text}", emitted.message, "name a compiler that works")
        calls.append(
            CompilerCall(
                language, (str(path), *words[1:]), "--with", emitted, doubt=doubt(emitted, words)
            )
        )
    return calls


def check_commands(folder: Path, entries: Any, commands: Sequence[str] = ()) -> Forecast:
    """Say how a link of all that compile_commands.json compiles ends, as `check_compilers`.

    `commands` are compilers of which there are objects in the link, too.
    """
    where, again = f"{folder}/compile_commands.json", "make it again"
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LabError(where, "not a list of commands", again)
    if re.search(r"\\x00|\\ud[89a-f]", repr(entries)):
        raise LabError(where, "it has a character that no command has", again)
    groups: dict[tuple[Language, str, tuple[str, ...]], int] = {}
    for entry in entries:
        text = entry.get("command") or ""
        words = entry.get("arguments") or (_words(text) if isinstance(text, str) and text else [])
        if not words or not isinstance(words, list) or not all(isinstance(w, str) for w in words):
            raise LabError(where, "an entry without command", again)
        if Path(words[0]).stem in cc_crate.WRAPPERS and len(words) > 1:
            words = words[1:]
        suffix = Path(str(entry.get("file", ""))).suffix
        language: Language = "C++" if suffix in (".cc", ".cpp", ".cxx", ".C", ".mm") else "C"
        if suffix not in (".s", ".S", ".asm"):
            key = (language, words[0], tuple(_deciding(words[1:])))
            groups[key] = groups.get(key, 0) + 1
    calls = _named(commands)
    for (language, program, flags), count in groups.items():
        path = compilers.find(program, os.environ, "compile_commands.json")
        emitted = compilers.emit([path], flags, language, os.environ)
        if not emitted.made:
            raise LabError(f"{path} {' '.join(flags)}", emitted.message, "compile one file by hand")
        number = f"{count} files" if count > 1 else "one file"
        because = f"compile_commands.json, {number}"
        calls.append(
            CompilerCall(
                language, (str(path), *flags), because, emitted, doubt=doubt(emitted, flags)
            )
        )
    return _linked(calls)


def _deciding(words: Sequence[str]) -> list[str]:
    """Return the flags of a compilation that decide what is instrumented, and for what target."""
    flags, rest = list[str](), iter(words)
    for word in rest:
        if word in ("-target", "-mllvm", "-Xclang", "-arch"):
            flags += [word, next(rest, "")]
        elif re.match(
            r"-f(no-)?(cs-)?profile|-f(no-)?coverage|-O(\d|s|z|g|fast)?$|--target=|-m(32|64)$", word
        ):
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
    """Return a folder as cargo sees it: what is above it is above where its path leads to."""
    folder = folder.resolve()
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


def _judged(
    build: Build,
    main: LinkPiece,
    packages: Sequence[Package],
    calls: Sequence[CompilerCall],
    notes: Sequence[str],
) -> Forecast:
    """Judge a build: rustc's objects stand first in the link, and bring the runtime."""
    pieces = tuple(dict.fromkeys([main, *(p for call in calls for p in call.pieces)]))
    layout.learn_unknown([piece.raw_version for piece in pieces], discovery.discover)
    fate = predict(main.raw_version, pieces)
    # A package that chooses by itself may call another compiler; then it is not this one's.
    decided = {str(package) for package in packages if not package.chooses}
    bad = [c for c in calls if (c.trouble or cure.foreign(c, main)) and decided & {*c.packages}]
    profdata = rust.llvm_profdata(build.rust, build.env.get("PATH"))
    reads = rust.reads(profdata, main.raw_version) if profdata else None
    forecast = Forecast(
        "consistent",
        "; ".join(filter(None, (fate.why, fate.loss))),
        tuple(sorted(fate.outcomes)),
        f"{build.rust}, raw version {main.raw_version}",
        tuple(calls),
        {str(package): package.chooses for package in packages if package.chooses},
        (*notes, *_notes(build, profdata, reads, main)),
        lines=cure.plain(build),
        llvm_profdata=str(profdata or ""),
        profdata_reads=reads,
    )
    if bad:
        advice, own = cure.cure(build, main, bad)
        forecast = replace(forecast, verdict="mixed", advice=advice, lines=own)
        if trouble := next((call.trouble for call in bad if call.trouble), ""):
            return replace(forecast, why=trouble, outcomes=("build-failed",))
        return forecast
    if forecast.undecided:
        name, reason = next(iter(forecast.undecided.items()))
        more = len(forecast.undecided) - 1
        why = f"build.rs of {name}: {reason}" + (f"; and {more} more" if more else "")
        return replace(forecast, verdict="unknown", why=why, outcomes=())
    if doubts := [f"{call.doubt}, for {call.packages[0]}" for call in calls if call.doubt]:
        return replace(forecast, verdict="unknown", why=doubts[0], outcomes=())
    if not any(call.pieces for call in calls):
        why = "nothing but rustc instruments" if calls else "no package compiles C"
        return replace(forecast, why=why)
    return forecast


def _notes(build: Build, profdata: Path | None, reads: bool | None, main: LinkPiece) -> list[str]:
    """Return what else to know before the build: the merge, and the files of the profile."""
    notes = []
    if profdata is None or reads is False:
        what = f"an llvm-profdata for raw version {main.raw_version}"
        if owners := tools.owners(main.raw_version):
            notes.append(f"{what}, which pgo-lab build takes: {owners[0].llvm_profdata}")
        else:
            notes.append(f"{what} is not at hand: rustup component add llvm-tools")
    pool = build.env.get("LLVM_PROFILE_FILE")
    if pool is not None and not re.search(r"%\d*m|%p", pool):
        notes.append(f"LLVM_PROFILE_FILE={pool}: each program overwrites it; use %m or %p")
    elif pool is None or "%p" not in pool:
        notes.append("all runs are merged into one profile (%m): train in an empty folder")
    return notes


def _linked(calls: Sequence[CompilerCall]) -> Forecast:
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
    if not bad and (reason := next((call.doubt for call in calls if call.doubt), "")):
        return Forecast("unknown", reason, calls=tuple(calls))
    if not pieces:
        return Forecast("not-instrumented", "nothing is instrumented", calls=tuple(calls))
    fate = (bad or fates)[0]
    why = "; ".join(filter(None, (fate.why, fate.loss)))
    if not bad:
        return Forecast("consistent", why, outcomes, calls=tuple(calls))
    versions = sorted({piece.raw_version for piece in pieces})
    advice = "Compile all by one LLVM: " + ", or all by ".join(map(fitting, versions)) + "."
    return Forecast("mixed", why, outcomes, calls=tuple(calls), advice=advice)
