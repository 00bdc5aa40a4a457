"""Runs a program under LLDB, then under a tracer of system calls, and keeps what they see."""

import contextlib
import dataclasses
import datetime
import json
import os
import platform
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError
from nbsupport.crash import family
from nbsupport.crash.debugger import find_program, output_pipe, require_lldb
from nbsupport.crash.elf import Elf
from nbsupport.crash.inside_lldb.protocol import Request
from nbsupport.crash.lldb import Lldb
from nbsupport.trace import syscalls, tables, watch
from nbsupport.trace.first import Command, first
from nbsupport.trace.trace import Trace, open_trace


class Tracer(contextlib.AbstractContextManager["Tracer"]):
    """Traces programs with one LLDB, kept alive between them; a context manager.

    `lldb` is its path (None: this machine's). Raises `MissingError` where there is no LLDB, and
    `LabError` where it does not work.
    """

    def __init__(self, lldb: Path | None = None) -> None:
        path = lldb or require_lldb()
        threading.Thread(target=tables.prepare).start()
        self._lldb = Lldb(path)

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

        `argv` is the program and its arguments. Where it is not instrumented itself, on Linux, what
        is traced is the first instrumented program that it starts (a script's, make's), or the one
        that loads the first instrumented library. `folder` is made; the program's raw profiles go
        below it, by the name that `LLVM_PROFILE_FILE` in `env`, its whole environment, ends
        with. `cwd` is the folder that it runs in, `seconds` the time that each run may take,
        `stdin` the file that it reads under LLDB. `about` goes into the manifest. Raises
        `LabError` for a program that cannot be started, and a folder in use.
        """
        program, folder = find_program(argv[0], script=family.able()), folder.absolute()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise LabError(str(folder), "it is there, and not empty", "give a new folder")
        if not stdin.exists():
            raise LabError(str(stdin), "no such file to read from", "check --stdin")
        command: Command = [str(program), *map(str, argv[1:])], cwd, dict(env)
        with contextlib.ExitStack() as stack:
            if family.able() and not _is_instrumented(program):
                inner = stack.enter_context(first(*command, seconds))
                if not inner and _is_script(program):
                    why = "it is a script, and nothing that it starts in time is instrumented"
                    raise LabError(str(argv[0]), why, "build that with -fprofile-generate")
                if inner and inner[0][0] != str(program.resolve()):
                    about = {**(about or {}), "started_by": " ".join(command[0])}
                command = inner or command
            return self._trace(command, folder, seconds, stdin, about or {})

    def _trace(
        self,
        start: Command,
        folder: Path,
        seconds: float,
        stdin: Path,
        about: Mapping[str, Any],
    ) -> Trace:
        command, cwd, env = start
        manifest = {
            **about,
            "program": Path(command[0]).name,
            "arguments": command[1:],
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "platform": f"{platform.system()} {platform.machine()}",
            "debugger": self._lldb.name,
        }
        name = Path(env.get("LLVM_PROFILE_FILE", "run.profraw")).name
        files.write(folder / tables.MANIFEST, json.dumps(manifest))
        for part in tables.RUNS:
            (folder / part).mkdir()
        debugged, traced = (
            {**env, "LLVM_PROFILE_FILE": str(folder / part / name)} for part in tables.RUNS
        )
        limits = dataclasses.replace(settings.TRACED, seconds=seconds)
        try:
            self._debug(command, folder, debugged, cwd, limits, stdin)
        except BaseException:
            if (folder / tables.EVENTS).stat().st_size:
                tables.assemble(folder, manifest)
            else:
                shutil.rmtree(folder)
            raise
        calls = syscalls.trace(command, cwd=cwd, env=traced, limits=limits)
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
        room = settings.PROGRAM.output
        with (
            (folder / tables.EVENTS).open("w") as stream,
            (folder / tables.OUTPUT).open("wb") as out,
        ):

            def see(event: Mapping[str, Any]) -> None:
                stream.write(json.dumps(event) + "\n")
                stream.flush()

            def take(chunk: bytes) -> None:
                out.write(chunk[: max(0, room - out.tell())])

            with output_pipe(take) as fifo:
                more: Request = {
                    "memory": limits.memory,
                    "stdin": str(stdin.absolute()),
                    "output": str(fifo),
                    "plan": watch.plan({name: folder / f"{name}.bin" for name in tables.COPIES}),
                }
                self._lldb.stop(command, cwd, env, limits.seconds, more, see)


def _is_instrumented(program: Path) -> bool:
    try:
        return Elf(program).instrumented
    except (OSError, ValueError):
        return not _is_script(program)  # LLDB says what is wrong with it


def _is_script(program: Path) -> bool:
    with program.open("rb") as file:
        return file.read(2) == b"#!"
