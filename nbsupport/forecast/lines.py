"""What to paste so that a build does not mix, as a shell, cargo and cargo-pgo take it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbsupport.audit.advice import UNDO
from nbsupport.forecast import cc_crate

#: Refuses a link of a mix, as rustc's linker (nbsupport.audit.guard).
GUARD = "-Clinker=pgo-lab-guard"


@dataclass(frozen=True)
class Lines:
    """The settings that end a mix, and what has to be built anew: cargo does not see it by itself.

    `env` are variables of the build script, `rustflags` all flags of rustc, those there were and
    the profile's; `stale` the packages to clean first; `target` the triple that the flags are for.
    `before` are lines that come before all; `hiding` is a variable that is set, and goes before
    flags of cargo's files.
    """

    env: Mapping[str, str]
    rustflags: tuple[str, ...]
    stale: tuple[str, ...]
    target: str
    before: tuple[str, ...] = ()
    hiding: str = ""

    @property
    def clean(self) -> list[str]:
        """The lines that come first, in each form."""
        names = " ".join(f"-p {shlex.quote(name)}" for name in self.stale)
        return [*self.before, *([f"cargo clean --release {names}"] if names else [])]

    def build_env(self) -> dict[str, str]:
        """Return what a child process's environment gets, for the build to be right."""
        return {**self.env, "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(self.rustflags)}

    def shell(self) -> str:
        """Return the lines for a shell, in the project's folder."""
        flags = {"RUSTFLAGS": " ".join(self.rustflags)}
        if any(" " in flag for flag in self.rustflags):  # RUSTFLAGS are parted at spaces
            flags = {"CARGO_ENCODED_RUSTFLAGS": "\x1f".join(self.rustflags)}
        build = f"{_assigned({**flags, **self.env})} cargo build --release"
        return "\n".join([*self.clean, build])

    def config(self) -> str:
        """Return the lines for .cargo/config.toml; its own entries of these names make room."""
        entries = (
            f"{json.dumps(name)} = {{ value = {json.dumps(value)}, force = true }}"
            for name, value in self.env.items()
        )
        env = ["[env]", *entries, ""] if self.env else []
        if self.hiding:
            env.insert(0, f"# unset {self.hiding}, which hides the flags below")
        flags = ", ".join(json.dumps(flag) for flag in self.rustflags)
        return "\n".join([*env, f"[target.{json.dumps(self.target)}]", f"rustflags = [{flags}]"])

    def cargo_pgo(self) -> str:
        """Return the lines for cargo-pgo, which brings -Cprofile-generate itself."""
        others = [flag for flag in self.rustflags if "profile-generate" not in flag]
        flags = {"RUSTFLAGS": " ".join(others)} if others else {}
        settings = {**flags, **self.env}
        build = f"{_assigned(settings)} cargo pgo build" if settings else "cargo pgo build"
        return "\n".join([*self.clean, build])

    def to_json(self) -> dict[str, Any]:
        """Return the part `lines` of `pgo-lab check --json`."""
        return {
            "clean": self.clean,
            "environment": self.build_env(),
            "shell": self.shell(),
            "config": self.config(),
            "cargo_pgo": self.cargo_pgo(),
        }


def _assigned(values: Mapping[str, str]) -> str:
    """Return assignments before a command; of a name that a shell cannot assign, env does."""
    words = [f"{name}={_quoted(value)}" for name, value in values.items()]
    return " ".join(words if all(map(str.isidentifier, values)) else ["env", *words])


def _quoted(value: str) -> str:
    """Return a value as people quote flags: in double quotes, where that is enough."""
    if "\x1f" in value:  # parts cargo's encoded flags; bash, zsh and ksh read it so
        text = value.replace("\\", "\\\\").replace("'", "\\'").replace("\x1f", "\\x1f")
        return f"$'{text}'"
    return shlex.quote(value) if any(c in value for c in '"$`\\!') else f'"{value}"'


def undone(env: Mapping[str, str], target: str, host: str) -> dict[str, str]:
    """Return CFLAGS and CXXFLAGS that take instrumentation back, appended to what is set.

    The variable is the most specific that is in use, else that of the target.
    """
    return {
        name: f"{env.get(name, '')} {UNDO['ir']}".strip()
        for base in ("CFLAGS", "CXXFLAGS")
        for name in (_variable(base, env, target, host),)
    }


def without_gcov(env: Mapping[str, str]) -> dict[str, str]:
    """Return the flag variables that ask gcc for records of its own, without what does.

    >>> without_gcov({"CFLAGS": "-g --coverage", "CXXFLAGS": "-O2"})
    {'CFLAGS': '-g'}
    """
    gcov = r"(?:^|(?<=\s))(-fprofile-(generate|arcs)\S*|-?-coverage)(?=\s|$)"
    flags = {name: env[name] for name in env if re.search("C(XX)?FLAGS", name)}
    return {n: re.sub(gcov, "", v).strip() for n, v in flags.items() if re.search(gcov, v)}


def chosen(
    base: str, program: str | Path, env: Mapping[str, str], target: str, host: str
) -> dict[str, str]:
    """Return the variable of CC (or CXX: `base`) that is in use, set to another compiler."""
    return {_variable(base, env, target, host): str(program)}


def _variable(base: str, env: Mapping[str, str], target: str, host: str) -> str:
    names = cc_crate.variables(base, target, host)
    return next((name for name in names if name in env), names[1])
