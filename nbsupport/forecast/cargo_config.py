"""What cargo's configuration files and variables say of a build, in the order in which they count.

Source: the chapter Configuration of the Cargo Book: hierarchical structure, [build], [env],
[target]; environment variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbsupport.base import files
from nbsupport.base.errors import LabError


@dataclass(frozen=True)
class CargoConfig:
    """The configuration files that hold in a folder, the closest first, and the environment."""

    files: tuple[tuple[Path, Mapping[str, Any]], ...]
    environment: Mapping[str, str]

    def value(self, table: str, key: str) -> Any:
        """Return a key of a table, such as `build`: the environment's, else the closest file's."""
        name = f"CARGO_{table}_{key}".upper().replace("-", "_")
        if name in self.environment:
            return self.environment[name]
        values = (_table(content, table).get(key) for _, content in self.files)
        return next((value for value in values if value is not None), None)

    def env(self) -> dict[str, str]:
        """Return what a build script finds in its environment: `[env]` adds to ours.

        What is set already stays, unless `force` says otherwise. Raises `LabError` for an entry
        that is none.
        """
        env = dict(self.environment)
        forced, ours = set[str](), set(env)
        for path, content in self.files:
            for name, entry in _table(content, "env").items():
                table = entry if isinstance(entry, dict) else {"value": entry}
                value = table.get("value")
                if not isinstance(value, str) or not name or "=" in name:
                    why = f"[env] {name} = {entry!r} has no text as its value"
                    raise LabError(str(path), why, "write a string, or { value = … }")
                if table.get("relative") is True:
                    value = str(path.parent.parent / value)
                if name not in env or (name in ours and table.get("force") is True):
                    if name not in forced:
                        env[name] = value
                    forced.add(name)
        return env

    def forced(self) -> dict[str, Path]:
        """Return the variables that a file sets whatever the environment has, and that file."""
        return {
            name: path
            for path, content in reversed(self.files)
            for name, entry in _table(content, "env").items()
            if isinstance(entry, dict) and entry.get("force") is True
        }

    def rustflags(self, target: str, cfg: str = "") -> tuple[str, ...]:
        """Return the flags that cargo gives rustc for a target: the first source that has some.

        Sources are CARGO_ENCODED_RUSTFLAGS, RUSTFLAGS, all [target]s that match, [build]. `cfg` is
        what rustc says of the target, one a line (`rustc --print cfg`).
        """
        if (encoded := self.environment.get("CARGO_ENCODED_RUSTFLAGS")) is not None:
            return tuple(word for word in encoded.split("\x1f") if word)
        if (plain := self.environment.get("RUSTFLAGS")) is not None:
            return tuple(plain.split())
        name = f"CARGO_TARGET_{target}_RUSTFLAGS".upper().replace("-", "_")
        own = self.environment.get(name, "").split()
        words = [*self._flags("target", target, cfg), *own]
        if not words:
            words = [
                *self._flags("build"),
                *self.environment.get("CARGO_BUILD_RUSTFLAGS", "").split(),
            ]
        return tuple(words)

    def cfgs(self) -> bool:
        """Return whether a [target] is chosen by `cfg(…)`: then rustc has to be asked."""
        tables = (_table(content, "target") for _, content in self.files)
        return any(key.startswith("cfg(") for table in tables for key in table)

    def _flags(self, name: str, target: str = "", cfg: str = "") -> Iterator[str]:
        """Yield the rustflags of a table, those of closer files last: there they win."""
        for path, content in reversed(self.files):
            tables = [_table(content, name)]
            if target:
                tables = [v for k, v in tables[0].items() if _matches(k, target, cfg, path)]
            for table in tables:
                value = table.get("rustflags", ()) if isinstance(table, dict) else ()
                words = value.split() if isinstance(value, str) else value
                if not all(isinstance(word, str) for word in words):
                    raise LabError(str(path), "rustflags are no strings", "write a list of strings")
                yield from words


def read(folder: Path, environment: Mapping[str, str]) -> CargoConfig:
    """Return the configuration that holds in a folder; raises `LabError` for what is not TOML."""
    home = cargo_home(environment)
    folders = [above / ".cargo" for above in (folder, *folder.parents)]
    paths = [place for place in folders if place != home] + [home]
    contents = []
    for place in paths:
        # Of two files of one folder, cargo takes the one without a suffix.
        path = next((p for p in (place / "config", place / "config.toml") if p.is_file()), None)
        if path:
            contents.append((path, files.read_toml(path)))
            if "\\x00" in repr(contents[-1]):
                raise LabError(str(path), "it has a NUL", "remove it")
    return CargoConfig(tuple(contents), environment)


def cargo_home(environment: Mapping[str, str]) -> Path:
    """Return cargo's own folder, with its configuration and the sources of packages."""
    return Path(environment.get("CARGO_HOME") or Path.home() / ".cargo")


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name, {})
    return table if isinstance(table, dict) else {}


def _matches(key: str, target: str, cfg: str, path: Path) -> bool:
    """Return whether [target.KEY] is of a target: by its name, or by a `cfg(…)` that holds."""
    if key == target:
        return True
    if not key.startswith("cfg("):
        return False
    words = re.findall(r'"[^"]*"|[\w-]+|[(),=]', key)
    try:
        return _holds(words, frozenset(cfg.splitlines()))
    except IndexError as error:
        raise LabError(str(path), f"[target.{key!r}] is no cfg", "mend it") from error


def _holds(words: list[str], facts: frozenset[str]) -> bool:
    """Evaluate the words of `cfg(…)`, `all(…)`, `any(…)`, `not(…)`, `name = "value"` or `name`.

    >>> _holds(["not", "(", "any", "(", "unix", ",", "windows", ")", ")"], frozenset(["unix"]))
    False
    """
    name = words.pop(0)
    if words[:1] == ["="]:
        words.pop(0)
        return f"{name}={words.pop(0)}" in facts
    if words[:1] != ["("]:
        return name in facts
    values = list[bool]()
    while words.pop(0) != ")":  # "(", then each ","
        if words[0] != ")":
            values.append(_holds(words, facts))
    if name == "not":
        return not values[0]
    return any(values) if name == "any" else all(values)
