"""A valid, mergeable profile out of what is called lost: a malformed file, a crashing program.

The counters of a mixed program are right: each function increments its own, whoever
instrumented it. Only the runtime, which walks records of two layouts with one stride, loses
them. Here records are recognized by their names, and a profile is written for each layout.
A running program keeps what its value sites saw, too (live.py); a file does not.
"""

import contextlib
import dataclasses
import functools
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from nbsupport.base.errors import LabError, from_os
from nbsupport.crash import family
from nbsupport.crash.debugger import PROGRAM_ITSELF, find_program, require_lldb
from nbsupport.crash.lldb import Lldb
from nbsupport.rescue.rescued import Rescued

#: Seconds; a socket cannot wait longer.
FOREVER = 1e6
_BUILD = "build it with -fprofile-generate (rustc: -Cprofile-generate)"
#: A program with its arguments, its folder, its environment, its seconds; and where it writes.
Command = tuple[Sequence[str], Path, Mapping[str, str], float]
Streams = tuple[IO[str] | None, IO[str] | None]


def from_profraw(
    path: Path, out: Path, *, binary: Path | None = None, without: Collection[str] = ()
) -> Rescued:
    """Write what is in a raw profile (`path`) to `out`, whatever is malformed in it.

    `out` is a text profile where it ends with `.proftext`, otherwise an indexed one; where there
    are several layouts, the profile of each is written beside it. `binary`, the program that
    wrote the raw profile, gives the records and names that a file lacks which a crash cut off.
    Functions whose names are in `without` are left out. Raises `LabError` for what is no raw
    profile or is empty, for a `binary` that has not written it, for a name that is not there, and
    where `out` cannot be written.
    """
    _writable(out)
    from nbsupport.rescue import save  # noqa: PLC0415 - see `run`

    return save.save_file(path, out, binary, without)


def run(
    argv: Sequence[str | Path],
    out: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = FOREVER,
    streams: Streams = (None, None),
) -> Rescued:
    """Run a program to its end, and write its profile, although it would crash otherwise.

    Nothing is built anew. Where all its images are of one layout, it writes its profile itself.
    On Linux (x86-64, AArch64; 64-bit programs) each program that it starts is rescued as well:
    the profile is of all. Elsewhere LLDB is needed, and follows the program alone.
    `argv` is the program or script (a path, or a name of PATH) and its arguments; `out` as in
    `from_profraw`. `env` is its whole environment and `cwd` the folder that it runs in (None:
    this process's); LLVM_PROFILE_FILE is ours. `seconds` is how long it may run; `streams` are
    where its standard output and error go (None: nowhere). SIGUSR1 to this process writes what
    there is at once; Ctrl-C and the time limit end the program, with its profile. Raises
    `MissingError` without LLDB or program, `LabError` where nothing is instrumented or the program
    cannot be run, or an `out` that cannot be written.
    """
    _writable(out)
    follows = family.able()
    program = find_program(argv[0], script=follows)
    words = [str(program), *map(str, argv[1:])]
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        own = Path(name) / "own"
        own.mkdir()
        variables = dict(os.environ if env is None else env)
        variables["LLVM_PROFILE_FILE"] = f"{own}/%p.profraw"
        command = words, cwd or Path.cwd(), variables, min(seconds, FOREVER)
        return (_follow if follows else _debug)(command, own, out, streams)


def _follow(command: Command, own: Path, out: Path, streams: Streams) -> Rescued:
    """Rescue a command and all that it starts."""
    from nbsupport.rescue import children, save  # noqa: PLC0415 - see `_debug`

    write = functools.partial(save.save_family, out=out)
    state = children.run(command, own, write, streams)
    if state.why == "end" and not state.runs:
        raise KeyboardInterrupt
    if not state.runs:
        why = "no image of it is instrumented, nor of what it starts"
        raise LabError(command[0][0], why, _BUILD)
    return _ended(write(state), state.code, state.why)


def _debug(command: Command, own: Path, out: Path, streams: Streams) -> Rescued:
    """Rescue one program, by LLDB."""
    lldb = require_lldb()
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(Lldb, lldb)
        from nbsupport.rescue import live, save  # noqa: PLC0415 - as long as LLDB takes to start

        with contextlib.closing(starting.result()) as debugger:
            write = functools.partial(save.save_run, own=own, out=out)
            state = live.run(debugger, command, own.parent, write, streams)
    if not state.images:
        why = "no image of it is instrumented, and what it starts is followed on Linux only"
        raise LabError(command[0][0], why, f"{PROGRAM_ITSELF}, or {_BUILD}")
    return _ended(write(state), state.code, state.why)


def _ended(rescued: Rescued, code: int | None, why: str) -> Rescued:
    return dataclasses.replace(rescued, code=code or 0, stopped=why == "end")


def _writable(out: Path) -> None:
    """Raise `LabError` unless a file can be made there: before a program has run for hours."""
    if out.is_dir():
        raise LabError(str(out), "it is a folder", "give the file to write: -o FILE.profdata")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.absolute().parent):
            pass
    except OSError as error:
        raise from_os(f"writing {out}", error) from error
