"""Real projects: built for profiling by cargo, with a C compiler of choice, and run.

What there is, is data (`data/cases`; orjson.toml explains the keys). cargo is given what people
give it: rustc's -Cprofile-generate, CC, CFLAGS. The cc crate mirrors that flag to a clang
(rust-lang/cc-rs, pull requests 1279 and 1363), as the compiler's command lines show.

As cargo-pgo does, each build names its --target, so that flags do not reach build scripts. What
only these need is then the same for all builds of a project, and is compiled once.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from nbsupport.audit import evidence
from nbsupport.base import files, process, progress, settings
from nbsupport.base.errors import BuildError, LabError, MissingError, first_line, from_os
from nbsupport.lab import counts, programs
from nbsupport.lab.lab import Invocation, Lab
from nbsupport.lab.outcome import Outcome
from nbsupport.profile.layout import same_stride
from nbsupport.show import shown
from nbsupport.show.shown import Shown
from nbsupport.toolchains import checkout, discovery, download
from nbsupport.toolchains.probe import Toolchain

#: The first cargo that reads packages of the 2024 edition, as orjson is.
_CARGO = (1, 85)

#: A relative folder: no symbol's hash follows from where the lab builds.
INSTRUMENT = ("-Cprofile-generate=profiles",)

#: Of an archive, or of a repository.
_ADDRESS = r"(https?://[\w.-]+/|file:///)\S+|"

#: What a build sees of this process's environment: a reader's own CFLAGS are not the case's.
_INHERITED = ("PATH", "HOME", "TMPDIR", "SDKROOT", "DEVELOPER_DIR")


@dataclass(frozen=True)
class Case:
    """A project: where it comes from, how to build and run it. orjson.toml explains each key."""

    path: Path
    what: str = ""
    package: str = ""
    url: str = ""
    git: str = ""
    commit: str = ""
    file: str = ""
    sha256: str = ""
    size: int = 0
    folder: str = ""
    program: str = ""
    vendor: str = ""
    vendored: str = ""
    network: bool = False
    cargo: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    made: tuple[str, ...] = ()
    run_as: str = ""
    command: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its file's name without the suffix."""
        return self.path.stem


@dataclass(frozen=True)
class Built:
    """A case as built, in `seconds`: `folder` holds what cargo made, `objects` in it the C part's.

    `commands` compiled those, as cargo ran them; `warnings` are first lines, rustc's and cc's.
    """

    case: Case
    rustc: Toolchain
    folder: Path
    commands: tuple[str, ...]
    seconds: float
    warnings: tuple[str, ...] = ()

    def c_functions(self) -> set[str]:
        """Return the instrumented functions of the C part, named as a profile names them."""
        found = set[str]()
        for path in (self.folder / "objects").iterdir():
            seen = evidence.read(path)
            parts = seen.parts if isinstance(seen, evidence.Evidence) else ()
            for run in (run for part in parts for run in part.records):
                resolved = filter(None, run.names.resolve(run.references))
                found |= {name.decode(errors="replace") for name in resolved}
        return found


def names() -> tuple[str, ...]:
    """Return the names of the cases that come with the package."""
    return tuple(sorted(path.stem for path in (settings.data_dir() / "cases").glob("*.toml")))


def get(name: str, vendored: str = "") -> Case:
    """Return a case by its name, or by the path of its file (`….toml`).

    `vendored` is a folder with the project's crates (`cargo vendor`), which then needs no network:
    cargo compares their files with the hashes in them, and those with Cargo.lock's. Raises
    `LabError` for an unknown name, or a file that does not say what it has to.
    """
    path = Path(name).absolute()
    if path.suffix != ".toml":
        if name not in names():
            raise LabError(f"case {name}", "there is none", f"choose from {', '.join(names())}")
        path = settings.data_dir() / "cases" / f"{name}.toml"
    table = files.read_toml(path)
    case = files.load(Case, {**table, "path": path}, f"case {path.name}")
    origins = [case.package, case.url, case.folder, case.git]
    needed = (case.folder or case.git or case.file, case.made, case.run_as, case.command)
    whole = all(needed) and "/" not in case.file + case.run_as
    clean = "\\x00" not in repr(table) and all("=" not in key and key for key in case.env)
    for holds, why in (
        ("path" not in table, "path is no key"),
        (origins.count("") == 3, "it needs one of package, url, folder, git"),
        (whole, "it needs made, command, run_as and (to fetch) file, without a folder"),
        (clean, "it has a NUL, or a variable's name that is none"),
        (all(re.fullmatch(_ADDRESS, a) for a in (case.url, case.git)), "url or git is no address"),
        (
            re.fullmatch(r"[0-9a-f]{40}" if case.git else "", case.commit),
            "with git it needs commit, the whole id: 40 hexadecimal digits",
        ),
    ):
        if not holds:
            raise LabError(f"case {path.name}", why, "data/cases/orjson.toml explains it")
    if not vendored:
        return case
    crates = Path(vendored).absolute()
    if not crates.is_dir():
        raise MissingError(f"case {case.name}", f"no folder {crates}", "make it by cargo vendor")
    return replace(case, vendored=str(crates), vendor="", network=False)


def source(case: Case) -> Path:
    """Return the folder of a case's sources, not to be changed; fetched and checked once.

    An archive without `sha256` has to stay as it is at first. Raises as `download.unpacked` and
    `checkout.get` do.
    """
    if case.folder:
        folder = case.path.parent / case.folder
        if not folder.is_dir():
            raise MissingError(f"case {case.name}", f"no folder {folder}", "check `folder`")
        return folder
    if case.git:
        return checkout.get(f"{case.name}-{case.commit[:12]}", case.git, case.commit)
    key = files.digest(case.sha256 or f"{case.package}{case.url}")[:8]
    archive = download.Archive(
        case.file, case.sha256, case.size, url=case.url, package=case.package
    )
    return download.unpacked(f"{case.name}-{key}", [archive])


def build(
    case: Case,
    rustc: Toolchain,
    cc: Toolchain,
    cflags: str = "",
    *,
    rustflags: tuple[str, ...] = INSTRUMENT,
    profile: Path | None = None,
) -> Built:
    """Build a case, for profiling unless `rustflags` say otherwise; once for all that makes it.

    `profile` is an indexed one to optimize by; the cc crate mirrors that to a clang, too. Raises
    `BuildError`, `MissingError` without a new enough cargo, what `source` and `programs.get` raise.
    """
    folder = source(case)
    if profile:
        rustflags += (f"-Cprofile-use={profile}",)
    flags = "\x1f".join(rustflags)
    program = None
    if case.program:
        program = programs.get(case.program, cc=discovery.companion(rustc).compiler)
    env = _environment(case, program)
    env |= {"CC": str(cc.compiler), "CFLAGS": cflags, "RUSTC": str(rustc.compiler)}
    command = _command(case, rustc, folder)

    def make(staging: Path) -> None:
        work = staging / "work"
        shutil.copytree(folder, work, symlinks=True, ignore=lambda top, _: _not_source(top, folder))
        if program:
            shutil.copy(program.main.folder / program.main.source, work / "main.rs")
        progress.say(f"{case.name}: cargo builds it with {rustc.name}, CC={cc.name}; 15 s or so")
        inherited = {key: os.environ[key] for key in _INHERITED if key in os.environ}
        own = {"CARGO_ENCODED_RUSTFLAGS": flags, "CARGO_TARGET_DIR": str(work / "target")}
        for_scripts, first = work / "target" / "release", list[process.Finished]()

        def run() -> process.Finished:
            done = files.run_tool(command, work, {**inherited, **env, **own})
            if not done.ok:
                raise _failure(case, done)
            return done

        def begin(folder: Path) -> None:
            first.append(run())
            if for_scripts.is_dir():
                shutil.copytree(for_scripts, folder, dirs_exist_ok=True)

        shared = files.once(common, begin)
        if not first:
            shutil.copytree(shared, for_scripts)
        _keep(case, work, staging, first[0] if first else run())
        shutil.rmtree(work)

    parts = [files.sha256(Path(__file__)), rustc.identity, *command, *_contents(case, folder)]
    common = settings.cache_dir() / "cases" / f"scripts-{files.digest(case.sha256, *parts)}"
    parts += [repr({**vars(case), "path": "", "command": ""}), *map(str, env.items()), flags]
    parts += [sys.version, cc.identity, program.main.inputs_digest if program else ""]
    parts += [_digest(case, profile)]
    target = settings.cache_dir() / "cases" / f"{case.name}-{files.digest(*parts)}"
    files.once(target, make)
    note = {**files.read_json(target / "built.json"), "case": case, "rustc": rustc}
    return files.load(Built, {**note, "folder": target}, f"case {case.name}")


def _environment(case: Case, program: programs.Program | None) -> dict[str, str]:
    """Return what a case's build finds in its environment, without the compilers."""
    env = {key: value.replace("{python}", sys.executable) for key, value in case.env.items()}
    if program:
        below = program.library[0]
        env |= {"C_FOLDER": str(below.folder), "C_SOURCE": below.source}
        env["C_FLAGS"] = "\n".join(below.flags)
    env |= {"CARGO_HOME": str(settings.cache_dir() / "cargo"), "LC_ALL": "C"}
    return env | {"CC_ENABLE_DEBUG_OUTPUT": "1"}


def _command(case: Case, rustc: Toolchain, folder: Path) -> list[str]:
    """Return what builds a case whose sources are in `folder`."""
    command = [str(_cargo(rustc)), "build", "--release", *case.cargo]
    if "--target" not in case.cargo:
        command += ["--target", _host(rustc)]
    if not case.network:
        command.append("--offline")
    if case.vendored:
        crates = (source(get(case.vendor)) if case.vendor else folder) / case.vendored
        command += ["--config", 'source.crates-io.replace-with="vendored"', "--config"]
        command += [f"source.vendored.directory={json.dumps(str(crates))}"]  # TOML's string, too
    return command


def _cargo(rustc: Toolchain) -> Path:
    """Return a cargo that is new enough: the rustc's own, else another's."""
    rustcs = [rustc, *(other for other in discovery.discover() if other.kind == "rustc")]
    why = "not found"
    for name in [*(str(other.compiler.with_name("cargo")) for other in rustcs), "cargo"]:
        if path := shutil.which(name):
            answer = process.run((path, "--version"), cwd=Path("/")).stdout
            version = re.search(r"(\d+)\.(\d+)", answer)
            if version and (int(version[1]), int(version[2])) >= _CARGO:
                return Path(path)
            why = f"too old ({first_line(answer)})"
    how = "install Rust with rustup, or Debian's package cargo-web"
    raise MissingError(f"cargo {_CARGO[0]}.{_CARGO[1]} or newer", why, how)


def _host(rustc: Toolchain) -> str:
    """Return what a rustc calls the machine that it runs on."""
    answer = process.run((rustc.compiler, "-vV"), cwd=Path("/")).stdout
    return answer.partition("host: ")[2].partition("\n")[0]


def _not_source(top: str, folder: Path) -> set[str]:
    """Return what is not a project's source in its folder; further below, it may be."""
    return {"target", ".git"} if Path(top) == folder else set()


def _contents(case: Case, folder: Path) -> Iterator[str]:
    """Yield what tells one state of sources that no hash pins from another."""
    pinned = case.sha256 or case.commit
    try:
        for top, folders, inside in os.walk(folder) if case.folder or not pinned else ():
            folders[:] = sorted(set(folders) - _not_source(top, folder))
            for path in sorted(Path(top, name) for name in inside):
                if path.is_file():
                    yield f"{path.relative_to(folder)} {files.sha256(path)}"
    except OSError as error:
        raise from_os(f"case {case.name}", error) from error


def _digest(case: Case, profile: Path | None) -> str:
    try:
        return files.sha256(profile) if profile else ""
    except OSError as error:
        raise from_os(f"case {case.name}", error) from error


def _keep(case: Case, work: Path, target: Path, done: process.Finished) -> None:
    """Keep of a build what was made, the C objects, the commands that made those, and warnings."""
    paths = (path for name in case.made for path in (work / "target").glob(f"*/release/{name}"))
    binary = next((path for path in paths if path.is_file()), None)
    if binary is None:
        raise BuildError(f"case {case.name}", f"cargo made no {case.made[0]}", "check `made`")
    binary.rename(target / case.run_as)
    (target / "objects").mkdir()
    commands = []
    for number, (words, path) in enumerate(_commands(work / "target")):
        path.rename(target / "objects" / f"{number}-{path.name}")
        commands.append(words.replace(f"{work}/", ""))
    warnings = re.findall(r"^warning: (?!`.* generated )(.*)", done.stderr, re.MULTILINE)
    note = {"commands": commands, "seconds": done.seconds, "warnings": warnings}
    files.write(target / "built.json", json.dumps(note))


def _commands(target: Path) -> Iterator[tuple[str, Path]]:
    """Yield each command that compiled C, as the cc crate prints it, and its object."""
    for output in sorted(target.glob("*/release/build/*/output")):
        for line in output.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):  # not a command, or not one with -o
                words = shlex.split(line.removeprefix("running: "))
                made = Path(words[words.index("-o", 0, -1) + 1])
                if "-c" in words and made.suffix == ".o" and made.is_file():
                    yield shlex.join(words), made


def _failure(case: Case, done: process.Finished) -> BuildError:
    errors = re.findall(r"^error.*?(?=\n\n|\Z)", done.stderr, re.MULTILINE | re.DOTALL)
    why = first_line(" ".join((errors[0] if errors else done.stderr).split()))
    if done.limit:
        why = f"stopped at the {done.limit} limit"
    do = "mend it, or choose another compiler"
    if re.search("--offline|network error|failed to download", done.stderr):
        other = "check that" if case.network else "say network = true"
        do = f"it needs the network: {other}, or vendor its crates (cargo vendor)"
    return BuildError(f"cargo on {case.name}", why, do, done.stderr)


def invocation(built: Built) -> Invocation:
    """Return what runs a case as built, in its folder."""
    places = {"{python}": sys.executable, "{made}": str(built.folder / built.case.run_as)}
    places["{source}"] = str(source(built.case))
    argv = [re.sub("|".join(places), lambda m: places[m[0]], w) for w in built.case.command]
    return Invocation(argv, built.rustc, settings.TRACED, cwd=built.folder)


def exercise(built: Built, lab: Lab) -> tuple[Outcome, counts.Counts]:
    """Run a case once; return what came of it (`ok`: the profile merges), and its functions."""
    outcome, text = lab.judge_command(invocation(built))
    profile = counts.parse(text)
    if outcome.kind == "ok":
        note = "" if built.commands else ", and no C part"
        detail = f"the profile merges: {len(profile)} functions{note}"
        outcome = replace(outcome, detail=detail)
    return outcome, profile


def try_all(asked: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Return the `trial` of each case that is `asked` for by name, rustc, cc and, maybe, cflags."""
    with Lab() as lab:
        rows = progress.each(asked, lambda words: trial(*words, lab=lab), "real projects")
    return pd.DataFrame(rows)


def table(tried: pd.DataFrame) -> Shown:
    """Show how cases fared: functions in the profile of all, and of the C part."""
    columns = ["case", "rustc", "cc", "cflags", "mirrored", "outcome", "function"]
    heads = [*columns, "functions", "of C"]
    columns += ["profile_functions", "c_functions"]
    return shown.table(heads, tried[columns].fillna("-").astype(str).to_numpy().tolist())


def without_folders(command: str) -> str:
    """Return a command without the folders of this machine, and the hashes in names of objects."""
    return re.sub(r"[^ =]*/([0-9a-f]{16}-)?", "", command)


def trial(
    name: str,
    rustc: str,
    cc: str,
    cflags: str = "",
    *,
    lab: Lab | None = None,
    vendored: str = "",
) -> dict[str, Any]:
    """Build and run a case; return a row of a table. What fails is said there, never raised.

    `rustc` and `cc` are as `toolchains.find_rustc` and `find` take them, `name` and `vendored` as
    `get` does. After these come
    `alike` (have both compilers records of one size), `mirrored` (did rustc's flag reach the C
    compiler; None: nothing was compiled), the `command` that compiled the first C file,
    `c_instrumented` functions of the C part, `c_functions` of them in the profile, `built_in`
    seconds; then the columns of `Outcome.to_row`.
    """
    row: dict[str, Any] = {"case": name, "rustc": rustc, "cc": cc, "cflags": cflags}
    row |= {"alike": None, "mirrored": None, "command": ""}
    row |= {"c_instrumented": 0, "c_functions": 0, "built_in": 0.0}
    with contextlib.nullcontext(lab) if lab else Lab() as mine:
        try:
            main = discovery.find_rustc(rustc)
            foreign = discovery.find(cc)
            row["alike"] = same_stride(main.raw_version or 0, foreign.raw_version or 0)
            built = build(get(name, vendored), main, foreign, cflags)
            theirs = built.c_functions()
            row |= {"c_instrumented": len(theirs), "built_in": built.seconds}
            if built.commands:
                command = built.commands[0]
                row |= {"mirrored": "-fprofile-generate" in command, "command": command}
            outcome, profile = exercise(built, mine)
            row["c_functions"] = sum(function in theirs for function, _ in profile)
        except LabError as error:
            outcome = Outcome("build-failed", str(error))
    return {**row, **outcome.to_row()}
