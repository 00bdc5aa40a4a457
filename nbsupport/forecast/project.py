"""A cargo project, read and not run: which of its packages compile C, and by which cc."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbsupport.base import files, process, settings
from nbsupport.base.errors import LabError, first_line
from nbsupport.forecast.compilers import Language
from nbsupport.forecast.rust import Rust

#: What `cargo metadata` says: packages by id, and what each depends on.
Packages = Mapping[str, Mapping[str, Any]]
Nodes = Mapping[str, Sequence[Mapping[str, Any]]]

#: Crates that build scripts compile C with; each but the first calls cc, or a tool of its own.
_COMPILING = ("cc", "cmake", "cxx-build", "autotools")
#: Crates that run the programs that a build script names, or meson, without cc.
_RUNNING = ("meson", "meson-next", "duct", "xshell", "subprocess")
#: How a build script's text shows that it chooses by itself. A comment is taken out before.
_CHOICES = (
    (r"\.compiler\s*\(", "it names a compiler (.compiler)"),
    (r"inherit_rustflags\s*\(", "it says whether flags of rustc are taken over"),
    (r"profile-(generate|instr|use)", "it has profile flags of its own"),
    (r"set_var\s*\(\s*\"\w*(CC|CXX|CFLAGS|CXXFLAGS|RUSTFLAGS)\w*\"", "it sets CC or flags"),
    (r"var(_os)?\s*\(\s*\"\w*(CC|CXX)\"", "it reads CC itself"),
)
#: What runs a program otherwise than by Command::new, and what hides the text of a script.
_RUNS = (
    r"\bCommand\s+as\b|\bcmd!\s*[({\[]|\b(system|execvp?|posix_spawnp?)\s*\("
    r"|\binclude!\s*\(\s*[^\s\"]"
)
#: Programs that add nothing to a link here (emcc: its objects are WebAssembly), and the variables
#: of cargo's that name rustc, or what stands before it.
_HARMLESS = {"rustc", "rustfmt", "git", "pkg-config", "date", "uname", "hostname", "sw_vers"}
_HARMLESS |= {"freebsd-version", "emcc", "emcc.bat"}
_HARMLESS |= {"RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"}
#: Names in an expression that choose no program; `expect` and `cfg!` have texts that are none.
_WORDS = {"std", "env", "ffi", "path", "var", "var_os", "into", "unwrap", "to_string", "to_owned"}
_WORDS |= {"if", "else", "let", "mut", "as_ref", "unwrap_or", "clone", "next", "from", "new", "ok"}
_NO_CHOICE = re.compile(r"\.expect\([^)]*\)|\bcfg!\([^)]*\)|\.filter\(\|\w+\| !\w+\.is_empty\(\)\)")
#: How many names in a row are followed to what they are set to.
_DEPTH = 4
_COMMENT = re.compile(r"(?<!:)//[^\n]*|/\*.*?\*/", re.DOTALL)
#: What cargo says where a package's sources are not on this machine.
_ABSENT = r"--offline|no matching package|failed to (download|get|query)|Unable to update"
#: cargo resolves a lock file in a second, offline; what it prints is long.
_LIMITS = settings.Limits(seconds=60.0, memory=4096 * settings.MIB, output=64 * settings.MIB)
_NOT_HERE = "its sources are not here to read (cargo fetch)"


@dataclass(frozen=True)
class Package:
    """A package that compiles C when it is built: `cc` is the version of cc that it does it with.

    `chooses` says why it is not known what it calls; "" where it is what cc calls. `host`: it is
    a part of build scripts and macros only.
    """

    name: str
    version: str
    cc: str
    languages: tuple[Language, ...] = ("C",)
    chooses: str = ""
    host: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Project:
    """A project: `packages` are those that compile C, `others` the names of those not built now.

    Those are in Cargo.lock for other features or platforms. `note` is what cargo says where it
    could not resolve the packages, and Cargo.lock alone was read.
    """

    packages: tuple[Package, ...]
    others: tuple[str, ...] = ()
    note: str = ""


def manifest(folder: Path) -> Path | None:
    """Return the Cargo.toml that cargo takes in a folder: its own, or one further up."""
    paths = (above / "Cargo.toml" for above in (folder, *folder.parents))
    return next((path for path in paths if path.is_file()), None)


def read(folder: Path, rust: Rust, target: str, env: Mapping[str, str]) -> Project:
    """Read the project in a folder. Runs cargo, offline, and none of the project's code.

    Raises `LabError` without manifest or lock file, and for what cargo cannot read.
    """
    path = manifest(folder)
    if path is None:
        do = "give a cargo project's folder, one with compile_commands.json, or --with CC"
        raise LabError(f"check of {folder}", "no Cargo.toml there", do)
    above = (place / "Cargo.lock" for place in path.parents)
    lock = next((place for place in above if place.is_file()), None)
    if lock is None:
        why = f"no Cargo.lock beside {path}"
        raise LabError(f"check of {folder}", why, "run cargo generate-lockfile")
    locked = _locked(lock)
    command: list[str | Path] = [
        rust.cargo,
        "metadata",
        "--format-version=1",
        "--offline",
        "--locked",
    ]
    command += ["--filter-platform", target, "--manifest-path", path]
    done = process.run(
        command, cwd=folder, env={**env, "LC_ALL": "C", "RUSTC": str(rust.rustc)}, limits=_LIMITS
    )
    if done.ok:
        return _resolved(json.loads(done.stdout), locked)
    text = " ".join(done.stderr.split())
    if re.search(r"lock file .*--locked was passed", text):
        raise LabError(str(lock), "it does not fit Cargo.toml", "run cargo update --workspace")
    if done.limit or not re.search(_ABSENT, text):
        why = f"stopped at the {done.limit} limit" if done.limit else _cause(done.stderr)
        do = "mend it, as cargo metadata --locked --offline says"
        raise LabError(f"cargo on {path}", why, do)
    return Project(tuple(_from_lock(locked)), note=f"cargo: {_cause(done.stderr)}")


def _cause(stderr: str) -> str:
    """Return the error of cargo's that says most: the last cause, or the first line."""
    text = re.sub(r"^error: ", "", stderr.strip())
    causes = text.partition("Caused by:")[2].strip()
    head = first_line(text, limit=120)
    return f"{head}: {first_line(causes)}" if causes else head


def _locked(lock: Path) -> list[dict[str, Any]]:
    packages = files.read_toml(lock).get("package", [])
    if not isinstance(packages, list) or not all(map(_package, packages)):
        raise LabError(str(lock), "not a lock file of cargo's", "run cargo generate-lockfile")
    return packages


def _package(entry: object) -> bool:
    """Return whether an entry of a lock file is a package, as far as it is read here."""
    if not isinstance(entry, dict):
        return False
    needs = entry.get("dependencies", [])
    texts = [entry.get("name"), entry.get("version"), *(needs if isinstance(needs, list) else [0])]
    return all(isinstance(text, str) and text.strip() for text in texts)


def _from_lock(locked: Sequence[Mapping[str, Any]]) -> Iterator[Package]:
    """Yield the packages that may compile C, by Cargo.lock alone: their sources are not here."""
    versions = {package["name"]: package["version"] for package in locked}
    for package in locked:
        needs = [need.split() for need in package.get("dependencies", ())]
        names = {need[0] for need in needs} & {*_COMPILING}
        if not names or package["name"] in _COMPILING:
            continue
        own = next((n[1] for n in needs if n[0] == "cc" and len(n) > 1), versions.get("cc", ""))
        yield Package(package["name"], package["version"], own, ("C", "C++"), _NOT_HERE)


def _resolved(metadata: Mapping[str, Any], locked: Sequence[Mapping[str, Any]]) -> Project:
    """Read what `cargo metadata` says. Source: the chapter cargo metadata of the Cargo Book."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node["deps"] for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    defaults = metadata.get("workspace_default_members") or metadata["workspace_members"]
    starts = [root] if root else defaults
    # Macros run in the compiler, as build scripts do.
    macros = {i for i, p in packages.items() if _kinds(p) & {"proc-macro"}}
    program = _reached(starts, nodes, (None,), macros)
    everything = _reached(starts, nodes, (None, "build"), set())
    ordered = sorted(everything, key=lambda i: (packages[i]["name"], packages[i]["version"]))
    compiling = (_compiling(i, packages, nodes, i not in program) for i in ordered)
    built = {packages[i]["name"] for i in everything}
    others = sorted({p.name for p in _from_lock(locked) if p.name not in built})
    return Project(tuple(package for package in compiling if package), tuple(others))


def _compiling(name: str, packages: Packages, nodes: Nodes, host: bool) -> Package | None:
    """Return a package, by its id, as one that compiles C; None where it does not.

    Its build script compiles C by cc, or through a crate that uses cc, which then chooses. Whatever
    it runs besides may compile C, too, unless we know that it does not.
    """
    package = packages[name]
    script = next((t for t in package["targets"] if "custom-build" in t["kind"]), None)
    if script is None:
        return None
    tools, through = dict[str, str](), ""
    for need in nodes[name]:
        if any(kind["kind"] == "build" for kind in need["dep_kinds"]):
            used = [packages[i] for i in _reached([need["pkg"]], nodes, (None,), set())]
            versions = {other["name"]: other["version"] for other in used}
            tools |= versions
            direct = packages[need["pkg"]]["name"]
            if ("cc" in versions and direct not in ("cc", "cxx-build")) or direct in _RUNNING:
                through = f"it compiles through the crate {direct}"
    text = _text(Path(script["src_path"]))
    runs = through or ("it runs other programs" if _runs(text) else "")
    if not (runs or tools.keys() & {*_COMPILING}):
        return None
    chooses = next((why for pattern, why in _CHOICES if re.search(pattern, text)), runs)
    return Package(
        package["name"],
        package["version"],
        tools.get("cc", ""),
        _languages(text, tools),
        chooses,
        host,
    )


def _runs(text: str) -> bool:
    """Return whether a build script may run a program that is not known to be harmless."""
    if re.search(_RUNS, text):
        return True
    places = re.finditer(r"\bCommand\s*(?:::<[^>]*>)?\s*::\s*new\b\s*", text)
    return not all(_harmless(_argument(text[place.end() :]), text) for place in places)


def _argument(text: str) -> str:
    """Return what is in the parentheses at the start of a text; "" where there are none.

    >>> _argument("(a(b), c).d()"), _argument(".map()")
    ('a(b), c', '')
    """
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return text[1:place]
    return ""


def _harmless(expression: str, text: str, depth: int = 0) -> bool:
    """Return whether an expression of a script can only name programs that are harmless.

    All its texts have to be such, and all that its names are set to in the script.

    >>> _harmless("w", 'if let Some(w) = env::var_os("RUSTC_WRAPPER") {}'), _harmless('"git"', "")
    (True, True)
    >>> _harmless("tool", 'let tool = "git"; tool = "clang";'), _harmless("tool", "")
    (False, False)
    """
    expression = _NO_CHOICE.sub("", expression)
    texts = re.findall(r'"([^"]*)"', expression)
    names = set(re.findall(r"\b[a-z_]\w*", re.sub(r'"[^"]*"', "", expression))) - _WORDS
    names = {name for name in names if "rustc" not in name}
    sure = bool(texts) or "rustc" in expression or bool(names)
    return sure and {*texts} <= _HARMLESS and all(_set_to(n, text, depth + 1) for n in names)


def _set_to(name: str, text: str, depth: int) -> bool:
    """Return whether all that a name is set to is harmless; an argument may be anything."""
    text = _NO_CHOICE.sub("", text)
    # An argument, of a function or a closure; a loop's; what a call returns.
    other = (
        rf"\bfn\b[^{{;]*[(,]\s*(mut\s+)?{name}\s*:|\|\s*{name}\s*[|,:]"
        rf"|\bfor\s+{name}\b|\b{name}\s*[(!]"
    )
    if depth > _DEPTH or re.search(other, text):
        return False
    plain = re.findall(rf"\b{name}(?:\s*:[^=;]+)?\s*=(?![=>])\s*([^;]*);", text)
    unpacked = re.findall(rf"\b(?:Some|Ok)\(\s*{name}\s*\)\s*=(?!>)\s*([^{{;]*)", text)
    arms = re.finditer(rf"\b{name}\s*\)*(\s*if\b[^=]*)?\s*=>", text)
    values = plain + unpacked + [_matched(text[: arm.start()]) for arm in arms]
    return bool(values) and all(_harmless(value, text, depth) for value in values)


def _matched(before: str) -> str:
    """Return what `match` looks at, in whose block a text ends; "" where that is not clear."""
    for place in reversed([*re.finditer(r"\bmatch\s+([^{;]*)\{", before)]):
        inner = before[place.end() :]
        if inner.count("{") == inner.count("}"):
            return place[1]
    return ""


def _kinds(package: Mapping[str, Any]) -> set[str]:
    return {kind for target in package["targets"] for kind in target["kind"]}


def _reached(
    starts: Sequence[str],
    nodes: Nodes,
    kinds: Sequence[str | None],
    but: set[str],
) -> set[str]:
    """Return the packages that dependencies of these kinds lead to, those `but` aside."""
    reached, waiting = set[str](), [start for start in starts if start not in but]
    while waiting:
        name = waiting.pop()
        if name in reached or name not in nodes:
            continue
        reached.add(name)
        for dependency in nodes[name]:
            if any(kind["kind"] in kinds for kind in dependency["dep_kinds"]):
                waiting += [dependency["pkg"]] if dependency["pkg"] not in but else []
    return reached


def _text(script: Path) -> str:
    """Return the text of a build script and of the modules beside it, without comments."""
    paths = [script]
    if script.parent.name not in ("", "src") and script.name == "main.rs":
        paths = sorted(script.parent.glob("**/*.rs"))
    texts = []
    for path in paths:
        try:
            text = path.read_text(errors="replace")
        except OSError as error:
            raise LabError(str(path), error.strerror or "not read", "check it") from error
        texts.append(text)
        if path == script:
            names = re.findall(r"\bmod (\w+);", text)
            more = [f"{name}{end}" for name in names for end in (".rs", "/mod.rs")]
            more += re.findall(r'\binclude!\s*\(\s*"([^"]+)"', text)
            beside = (path.parent / name for name in more)
            paths += [module for module in beside if module.is_file() and module not in paths]
    return _COMMENT.sub("", "\n".join(texts))


def _languages(text: str, tools: Mapping[str, str]) -> tuple[Language, ...]:
    """Return what a build script compiles: one Build of C++ alone is no C."""
    if "cxx-build" in tools:
        return ("C++",)
    if not re.search(r"\.cpp\s*\(\s*true", text):
        return ("C",)
    return ("C++",) if text.count("Build::new") == 1 else ("C", "C++")
