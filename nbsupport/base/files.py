"""Writing files and folders so that a reader sees the old or the new one, never half of it."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import filelock

from nbsupport.base import process, progress, settings
from nbsupport.base.errors import LabError, from_os

Say = Callable[[str], None]


def write(path: Path, content: str | bytes) -> None:
    """Write a file atomically, making its folder; raises OSError and then leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


@functools.cache
def digest(path: Path) -> str:
    """Return the SHA-256 of a file, read once: a module's own, when what it makes is kept."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def once(target: Path, make: Callable[[Path], object], *, say: Say = progress.say) -> Path:
    """Return the folder `target`, which `make` fills in a staging folder if it is not there.

    Safe with several processes at once; what an interrupted one left is removed by the
    next. Raises `LabError` for what the file system refuses, and whatever `make` raises.
    """
    try:
        if not target.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            with alone(target, say):
                if not target.is_dir():
                    _fill(target, make)
    except OSError as error:
        raise from_os(f"making {target.name}", error) from error
    return target


@contextlib.contextmanager
def alone(target: Path, say: Say) -> Iterator[None]:
    """Hold the lock beside `target`, whose parent is there; say so when another has it."""
    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0.2)
    except filelock.Timeout:
        say(f"{target.name}: another process is at work on it; waiting")
        lock.acquire(timeout=settings.INSTALL.seconds)
    try:
        yield
    finally:
        lock.release()


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
        raise LabError(
            what,
            f"it needs {room / 1e6:.0f} MB in {folder}, {free / 1e6:.0f} MB are free",
            "make room, or set XDG_CACHE_HOME to another disk",
        )


def run_tool(
    argv: Sequence[str | Path], folder: Path, env: Mapping[str, str] | None = None
) -> process.Finished:
    """Run a tool that fills a folder; a full disk is an OSError, as when we write ourselves."""
    done = process.run(argv, cwd=folder, env=env, limits=settings.INSTALL)
    if not done.ok and "no space left" in (done.stdout + done.stderr).lower():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    return done
