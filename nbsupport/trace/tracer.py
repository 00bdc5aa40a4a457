"""Runs a program under LLDB, then under a tracer of system calls, and keeps what they see."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import platform
import selectors
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from nbsupport import files, settings, toolchains
from nbsupport.crash.with_lldb import Lldb
from nbsupport.errors import LabError, MissingError
from nbsupport.trace import syscalls, tables, watch
from nbsupport.trace.kept import Trace, open_trace


class Tracer:
    """Traces programs with one LLDB, kept alive between them; a context manager.

    Raises `MissingError` where there is no LLDB, and `LabError` where it does not work.
    """

    def __init__(self, lldb: Path | None = None, cache: Path | None = None) -> None:
        found = lldb or toolchains.find_lldb(cache)
        if found is None:
            do = "pgo-lab toolchains --install 23, or install lldb"
            raise MissingError("LLDB", "there is none on this machine", do)
        threading.Thread(target=tables.prepare).start()
        self._lldb = Lldb(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lldb.close()

    def run(
        self,
        argv: Sequence[str | Path],
        folder: Path,
        *,
        env: Mapping[str, str],
        cwd: Path,
        seconds: float = 60.0,
        stdin: Path = Path(os.devnull),
        about: Mapping[str, Any] | None = None,
    ) -> Trace:
        """Run a program twice, under LLDB and under strace, and keep the trace in a new folder.

        Its raw profiles go below the folder, by the name that `LLVM_PROFILE_FILE` in `env` ends
        with; `about` goes into the manifest. Raises `LabError` for a program that cannot be
        started, and a folder in use.
        """
        program, folder = _program(argv[0]), folder.absolute()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise LabError(str(folder), "it is there, and not empty", "give a new folder")
        if not stdin.exists():
            raise LabError(str(stdin), "no such file to read from", "check --stdin")
        command = [str(program), *map(str, argv[1:])]
        manifest = {
            **(about or {}),
            "program": program.name,
            "arguments": command[1:],
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "platform": f"{platform.system()} {platform.machine()}",
            "debugger": self._lldb.name,
        }
        name = Path(env.get("LLVM_PROFILE_FILE", "run.profraw")).name
        files.write(folder / tables.MANIFEST, json.dumps(manifest))
        for part in tables.RUNS:
            (folder / part).mkdir(parents=True)

        def variables(part: str) -> dict[str, str]:
            return {**env, "LLVM_PROFILE_FILE": str((folder / part / name).absolute())}

        limits = dataclasses.replace(settings.TRACED, seconds=seconds)
        try:
            self._debug(command, folder, variables("lldb"), cwd, limits, stdin)
        except BaseException:
            if (folder / tables.EVENTS).stat().st_size:
                tables.assemble(folder, manifest)
            else:
                shutil.rmtree(folder)
            raise
        calls = syscalls.trace(command, cwd=cwd, env=variables("strace"), limits=limits)
        tables.assemble(folder, manifest, calls, name)
        return open_trace(folder)

    def _debug(
        self,
        command: list[str],
        folder: Path,
        env: Mapping[str, str],
        cwd: Path,
        limits: settings.Limits,
        stdin: Path,
    ) -> None:
        plan = watch.plan({name: folder / f"{name}.bin" for name in tables.COPIES})
        with (folder / tables.EVENTS).open("w") as stream, _output(folder / tables.OUTPUT) as fifo:

            def see(event: Mapping[str, Any]) -> None:
                stream.write(json.dumps(event) + "\n")
                stream.flush()

            more = {"memory": limits.memory, "trace": plan}
            more |= {"stdin": str(stdin.absolute()), "output": str(fifo)}
            try:
                self._lldb.stop(command, cwd, env, limits.seconds, more, see)
            except LabError as error:
                do = "check that it is built for this machine, and that ptrace is allowed"
                raise LabError(error.what, error.why, do) from error


def _program(name: str | Path) -> Path:
    """Return the path of a program that LLDB can start."""
    found = shutil.which(name)
    if found is None:
        path = Path(name)
        why = "no such program" if not path.exists() else "not executable, or not a file"
        raise MissingError(str(name), why, "check the path and its permissions")
    with Path(found).open("rb") as file:
        if file.read(2) == b"#!":
            do = "trace its interpreter: pgo-lab trace -o DIR -- INTERPRETER SCRIPT"
            raise LabError(str(name), "it is a script, not a program", do)
    return Path(found).absolute()


@contextlib.contextmanager
def _output(kept: Path) -> Iterator[Path]:
    """Yield a pipe's path; of what a program writes there the first is kept, the rest dropped."""
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as folder, kept.open("wb") as out:
        fifo = Path(folder) / "output"
        os.mkfifo(fifo)
        # Opened for both, it never ends while the program has not opened it yet.
        descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        over = threading.Event()

        def drain() -> None:
            room = settings.PROGRAM.output
            with selectors.DefaultSelector() as selector:
                selector.register(descriptor, selectors.EVENT_READ)
                while selector.select(0.02) or not over.is_set():
                    with contextlib.suppress(BlockingIOError):
                        chunk = os.read(descriptor, 1 << 16)[:room]
                        room -= len(chunk)
                        out.write(chunk)

        reader = threading.Thread(target=drain, daemon=True)
        reader.start()
        try:
            yield fifo
        finally:
            over.set()
            reader.join()
            os.close(descriptor)
