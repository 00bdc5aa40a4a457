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
from nbsupport.crash.debugger import find_program, output_pipe, require_lldb
from nbsupport.crash.inside_lldb.protocol import Request
from nbsupport.crash.lldb import Lldb
from nbsupport.trace import syscalls, tables, watch
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

        `argv` is the program and its arguments. `folder` is made; the program's raw profiles go
        below it, by the name that `LLVM_PROFILE_FILE` in `env`, its whole environment, ends
        with. `cwd` is the folder that it runs in, `seconds` the time that each run may take,
        `stdin` the file that it reads under LLDB. `about` goes into the manifest. Raises
        `LabError` for a program that cannot be started, and a folder in use.
        """
        program, folder = find_program(argv[0]), folder.absolute()
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
