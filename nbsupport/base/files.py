"""Writing files and folders so that a reader sees the old or the new one, never half of it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import filelock

from nbsupport.base import process, progress, settings
from nbsupport.base.errors import LabError, from_os

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Loaded = TypeVar("Loaded", bound="DataclassInstance")
#: What a value of a type is called in TOML.
_TYPES: dict[Any, str] = {
    str: "a string",
    int: "a whole number",
    Path: "a path",
    tuple[str, ...]: "a list of strings",
    Mapping[str, str]: "a table of strings",
}


def write(path: Path, content: str | bytes) -> None:
    """Write a file atomically, making its folder; raises OSError and then leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        new = Path(folder, path.name)
        new.write_bytes(content.encode() if isinstance(content, str) else content)
        new.chmod(0o644)
        new.replace(path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file: of a download, or of a module, when what it makes is kept."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*parts: str | Path) -> str:
    """Return a name (16 hexadecimal digits) for what is made of these: texts, contents of files."""
    texts = (sha256(part) if isinstance(part, Path) else part for part in parts)
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def read_json(path: Path, do: str = "make it again") -> Any:
    """Return a JSON file's content; raises `LabError` for one that is not there, or not whole."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise from_os(f"reading {path}", error) from error
    except (ValueError, RecursionError) as error:
        raise LabError(str(path), f"not JSON ({error})", do) from error


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's content; raises `LabError` for one that is not there, or not TOML."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise from_os(f"reading {path}", error) from error
    except (ValueError, RecursionError) as error:
        raise LabError(str(path), f"not TOML ({error})", "mend that line") from error


def load(cls: type[Loaded], table: Mapping[str, Any], where: str) -> Loaded:
    """Make a dataclass out of a table of a TOML or JSON file, which `where` names.

    A list becomes a tuple, and a string a Path, where the field is one. Raises `LabError` for a
    key that is missing or that nobody knows, and for a value of another type than its field's.
    """
    if not isinstance(table, Mapping):
        raise LabError(where, "not a table", "make it again")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = get_type_hints(cls)
    for key in table.keys() - fields.keys():
        raise LabError(where, f"{key!r} is not known", f"choose from {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        optional = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if name not in table and not optional:
            raise LabError(where, f"{name!r} is missing", "add it")
        if name in table:
            value, hint = table[name], hints[name]
            if isinstance(value, str) and Path in (hint, *get_args(hint)):
                value = Path(value)
            values[name] = tuple(value) if isinstance(value, list) else value
            if not _fits(values[name], hint):
                why = f"{name} = {value!r} is not what belongs there"
                raise LabError(where, why, _wanted(hint))
    return cls(**values)


def _fits(value: object, hint: Any) -> bool:
    """Say whether a value, and each that is in it, is of the type that a field says."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in args
    if isinstance(hint, UnionType):
        return any(_fits(value, kind) for kind in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(v, args[1]) for v in value.values())
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _wanted(hint: Any) -> str:
    """Say what belongs into a field of a type."""
    if get_origin(hint) is Literal:
        return f"choose from {', '.join(get_args(hint))}"
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return f"write {' or '.join(_TYPES.get(kind, str(kind)) for kind in kinds)}"


def once(target: Path, make: Callable[[Path], object]) -> Path:
    """Return the folder `target`, which `make` fills in a staging folder if it is not there.

    Safe with several processes at once; what an interrupted one left is removed by the
    next. Raises `LabError` for what the file system refuses, and whatever `make` raises.
    """
    try:
        if not target.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            with alone(target):
                if not target.is_dir():
                    _fill(target, make)
    except OSError as error:
        raise from_os(f"making {target.name}", error) from error
    return target


def alone(target: Path) -> contextlib.AbstractContextManager[object]:
    """Hold, in a `with` block, the lock beside `target`; say so when another has it."""
    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    start, told_of = time.monotonic(), False
    while True:
        try:
            return lock.acquire(timeout=0.2)
        except filelock.Timeout:
            waited = time.monotonic() - start
            if process.ending.is_set() or waited > settings.INSTALL.seconds:
                raise
            if not told_of and waited > 1.0:  # a thread of ours, for a moment, is not worth a word
                progress.say(f"{target.name}: another process is at work on it; waiting")
                told_of = True


def _fill(target: Path, make: Callable[[Path], object]) -> None:
    prefix = f".staging-{target.name}-"

    def clear() -> None:
        for left in target.parent.glob(f"{prefix}*"):  # whoever left it is gone: we hold the lock
            shutil.rmtree(left, ignore_errors=True)

    clear()
    # A new name each time: a tool that outlives its killed parent may still write to the old
    # one for a moment, even after it was cleared; so it is cleared again.
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))
    try:
        make(staging)
        staging.chmod(0o755)
        staging.rename(target)
    finally:
        clear()


def remove(folder: Path) -> None:
    """Remove a folder; renamed first, so that half a one is never taken for a whole one."""
    doomed = folder.with_name(f".staging-{folder.name.removeprefix('.staging-')}-gone")
    shutil.rmtree(doomed, ignore_errors=True)
    shutil.rmtree(folder.rename(doomed))


def require(room: float, folder: Path, what: str) -> None:
    """Raise `LabError` unless so many bytes are free in a folder, for `what` is to come there."""
    free = shutil.disk_usage(folder).free
    if free < room:
        why = f"it needs {room / 1e6:.0f} MB in {folder}, {free / 1e6:.0f} MB are free"
        raise LabError(what, why, "make room, or set XDG_CACHE_HOME to another disk")


def run_tool(
    argv: Sequence[str | Path], folder: Path, env: Mapping[str, str] | None = None
) -> process.Finished:
    """Run a tool that fills a folder; a full disk is an OSError, as when we write ourselves."""
    done = process.run(argv, cwd=folder, env=env, limits=settings.INSTALL)
    if not done.ok and "no space left" in (done.stdout + done.stderr).lower():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    return done
