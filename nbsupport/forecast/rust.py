"""Which rustc and cargo a folder gets, as rustup's files say: its programs may download.

Source: the chapters Overrides and Environment variables of the rustup book; for rustc, those on
RUSTC and build.rustc of the Cargo Book.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import struct
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbsupport.base import files, process, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.forecast.cargo_config import CargoConfig
from nbsupport.profile import layout
from nbsupport.toolchains import probe


@dataclass(frozen=True)
class Rust:
    """A rustc: `release` and `llvm` are versions, `host` the triple of the machine it is for.

    `why` says what chose it; `cargo` is the cargo beside it, else the one on the PATH.
    """

    rustc: Path
    cargo: Path
    why: str
    release: str
    llvm: str
    host: str

    @property
    def sysroot(self) -> Path:
        """The folder that rustc's libraries are in."""
        return self.rustc.parent.parent

    def __str__(self) -> str:
        return f"rustc {self.release} (LLVM {self.llvm}; {self.why})"


def find(folder: Path, config: CargoConfig) -> Rust:
    """Return the rustc and the cargo that a build in a folder uses; runs no proxy of rustup's.

    Raises `MissingError` where there is none, or one is pinned that is not installed.
    """
    env = config.environment
    word, why = env.get("RUSTC"), "RUSTC"
    if not word:
        word, why = config.value("build", "rustc"), "build.rustc of cargo's configuration"
    rustc = _program(str(word or "rustc"), env.get("PATH"), "Rust, by rustup")
    cargo = _program(env.get("CARGO") or "cargo", env.get("PATH"), "Rust, by rustup")
    if not word:
        why = "the first on the PATH"
    pinned = None
    if _proxy(rustc) or _proxy(cargo):
        pinned, reason = _toolchain(folder, config)
        if _proxy(rustc):
            rustc, why = pinned / "bin" / "rustc", reason
        if _proxy(cargo):
            cargo = pinned / "bin" / "cargo"
    for path in (rustc, cargo):
        if not os.access(path, os.X_OK):
            what = f"Rust toolchain {pinned.name}" if pinned else str(path)
            raise MissingError(what, f"it has no {path.name}", "install it with rustup")
    return Rust(rustc, cargo, why, **_facts(rustc))


def _program(name: str, path: str | None, do: str) -> Path:
    place = shutil.which(name, path=path)
    if place is None:
        raise MissingError(name, "no such program", f"install {do}")
    return Path(place).absolute()


def _proxy(program: Path) -> bool:
    """Return whether a program is rustup, by the name of what it stands for."""
    rustup = program.with_name("rustup")
    with contextlib.suppress(OSError):
        if rustup.samefile(program):
            return True
        # A hard link may have become a copy; the proxies are one file in any case.
        return rustup.stat().st_size == program.stat().st_size
    return False


def _toolchain(folder: Path, config: CargoConfig) -> tuple[Path, str]:
    """Return the folder of the toolchain that rustup would take, and what says so."""
    home = Path(config.environment.get("RUSTUP_HOME") or Path.home() / ".rustup")
    chosen = files.read_toml(home / "settings.toml") if (home / "settings.toml").is_file() else {}
    name, why = config.environment.get("RUSTUP_TOOLCHAIN", ""), "RUSTUP_TOOLCHAIN"
    overrides = chosen.get("overrides", {})
    overrides = overrides if isinstance(overrides, dict) else {}
    for above in (folder, *folder.parents):
        if name:
            break
        if str(above) in overrides:
            name, why = str(overrides[str(above)]), f"rustup override of {above}"
        elif pin := next((p for p in _pins(above) if p.is_file()), None):
            name, why = _channel(pin), pin.name
    if not name:
        name, why = str(chosen.get("default_toolchain", "")), "rustup's default"
    if not name:
        raise MissingError("Rust", "rustup has no default toolchain", "rustup default stable")
    if os.sep in name:
        return Path(name), why
    host = chosen.get("default_host_triple", r"[a-z][\w.]*-[\w.]+-[\w.-]+")
    pattern = re.compile(rf"{re.escape(name)}(-{host})?")
    for place in sorted((home / "toolchains").glob(f"{name}*")):
        if pattern.fullmatch(place.name):
            return place, why
    reason = f"{why} pins it, and it is not installed (nothing is downloaded here)"
    raise MissingError(f"Rust toolchain {name}", reason, f"rustup toolchain install {name}")


def _pins(folder: Path) -> tuple[Path, Path]:
    return folder / "rust-toolchain", folder / "rust-toolchain.toml"


def _channel(pin: Path) -> str:
    """Return what a rust-toolchain file names: a channel, or the path of a toolchain."""
    try:
        text = pin.read_text(errors="replace").strip()
    except OSError as error:
        raise LabError(str(pin), error.strerror or "not read", "check it") from error
    if pin.suffix != ".toml" and re.fullmatch(r"[\w.-]+", text):
        return text
    try:
        table = tomllib.loads(text).get("toolchain", {})
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise LabError(str(pin), f"not TOML ({error})", "mend that line") from error
    table = table if isinstance(table, dict) else {}
    path, channel = table.get("path"), table.get("channel")
    if isinstance(path, str) and "\0" not in path:
        return str((pin.parent / path).resolve())
    if not isinstance(channel, str) or not re.fullmatch(r"[\w.-]+", channel):
        raise LabError(str(pin), "it names no channel", 'write channel = "stable"')
    return channel


def _facts(rustc: Path) -> dict[str, Any]:
    """Return what rustc says of itself."""
    text = _answer([rustc, "-vV"])
    keys = {"release": "release", "llvm": "LLVM version", "host": "host"}
    matches = {name: re.search(rf"^{key}: (\S+)", text, re.M) for name, key in keys.items()}
    facts = {name: match[1] for name, match in matches.items() if match}
    if facts.keys() != keys.keys():
        raise LabError(str(rustc), "it does not say its LLVM, or host", "use a rustc with LLVM")
    return facts


def _answer(command: Sequence[str | Path]) -> str:
    """Return what a tool prints, which is kept by its identity; raises as `probe.ask` does."""
    digest = files.digest(probe.identity(Path(command[0])), *map(str, command[1:]))
    note = settings.cache_dir() / "forecast" / f"tool-{digest}.json"
    with contextlib.suppress(LabError):
        return str(files.read_json(note))
    text = probe.ask(command)
    with contextlib.suppress(OSError):  # a read-only cache costs time, nothing else
        files.write(note, json.dumps(text))
    return text


def cfg(rust: Rust, target: str) -> str:
    """Return what rustc says of a target, one fact a line."""
    return _answer([rust.rustc, "--print", "cfg", "--target", target])


def llvm_profdata(rust: Rust, path: str | None) -> Path | None:
    """Return the llvm-profdata that cargo-pgo takes: rustc's own (llvm-tools), else the PATH's."""
    own = rust.sysroot / "lib" / "rustlib" / rust.host / "bin" / "llvm-profdata"
    other = shutil.which("llvm-profdata", path=path)
    return own if own.is_file() else Path(other) if other else None


def reads(profdata: Path, raw_version: int) -> bool | None:
    """Return whether an llvm-profdata reads raw profiles of a version; None: not known.

    It is given one without records, which is a whole one. What llvm-profdata says of its own
    version is not asked for: Apple's is not LLVM's, and that of LLVM 14 says none.
    Source: RawInstrProfReader::readHeader (InstrProfReader.cpp), which takes its own version alone.
    """
    if raw_version not in layout.LAYOUTS:
        return None
    ir = 1 << layout.VARIANTS["ir"]
    magic = int.from_bytes(layout.MAGIC[64], "big")
    rest = [0] * (layout.LAYOUTS[raw_version].header_size // 8 - 2)
    words = struct.pack(f"={2 + len(rest)}Q", magic, raw_version | ir, *rest)
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as folder:
        path = Path(folder, "empty.profraw")
        path.write_bytes(words)
        return process.run((profdata, "show", path), cwd=Path(folder)).ok
