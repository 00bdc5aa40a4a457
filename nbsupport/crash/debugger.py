"""A debugger that reruns programs until they crash, and what it needs for a program.

LLDB comes first: it is kept alive and answers in about 50 ms (lldb.py). Without it, gdb runs
once per crash (gdb.py).
"""

import contextlib
import os
import selectors
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from nbsupport.base.errors import LabError, MissingError
from nbsupport.crash.crash import Crash, from_stop
from nbsupport.crash.gdb import Gdb
from nbsupport.crash.lldb import Lldb
from nbsupport.toolchains import discovery

#: What to do where children are not followed.
PROGRAM_ITSELF = "give the program that it starts, or let cargo's `runner` be the command up to --"


class Debugger(contextlib.AbstractContextManager["Debugger"]):
    """A debugger that reruns programs, one at a time; a context manager.

    `name` is the debugger's name and version, such as "lldb 19.1.7".
    """

    def __init__(self, backend: Lldb | Gdb) -> None:
        self._backend = backend
        self.name = backend.name

    def crash(
        self, argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], seconds: float
    ) -> Crash | None:
        """Run a program until its first fatal signal; None without one, or not in time.

        `argv` is the program's path, and its arguments; `cwd` the folder it runs in, `env` its
        whole environment, `seconds` how long it may take. It is ended in any case, and a handler
        that it has for the signal does not run. Raises `LabError` when the debugger cannot start
        the program, or ends unexpectedly; the next call starts the debugger anew.
        """
        stop = self._backend.stop([str(part) for part in argv], cwd, env, seconds)
        return None if stop is None else from_stop(stop, self.name)

    def close(self) -> None:
        """End the debugger and what it runs; may be called twice."""
        self._backend.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def open_debugger(lldb: Path | None, gdb: Path | None) -> Debugger | None:
    """Return the first debugger that works: LLDB, else gdb; None without both.

    `lldb` and `gdb` are their executables (None: there is none). LLDB is left out where it is
    broken, too, for example where it has no Python.
    """
    for backend, path in ((Lldb, lldb), (Gdb, gdb)):
        with contextlib.suppress(LabError):
            if path is not None:
                return Debugger(backend(path))
    return None


def require_lldb() -> Path:
    """Return the path of this machine's LLDB; raises `MissingError` where there is none."""
    lldb = discovery.find_lldb()
    if lldb is None:
        do = "pgo-lab toolchains --install 23, or install lldb"
        raise MissingError("LLDB", "there is none on this machine", do)
    return lldb


def find_program(name: str | Path, *, script: bool = False) -> Path:
    """Return the path of a program that LLDB can start, or of a script, where that is allowed.

    Raises `LabError` for what is neither.
    """
    path = shutil.which(name)
    if path is None:
        why = "not executable, or not a file" if Path(name).exists() else "no such program"
        raise MissingError(str(name), why, "check the path and its permissions")
    with Path(path).open("rb") as file:
        if not script and file.read(2) == b"#!":
            raise LabError(str(name), "it is a script, not a program", PROGRAM_ITSELF)
    return Path(path).absolute()


@contextlib.contextmanager
def output_pipe(take: Callable[[bytes], object]) -> Iterator[Path]:
    """Yield the path of a pipe; what a program writes there goes to `take`, in a thread."""
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as folder:
        fifo = Path(folder) / "output"
        os.mkfifo(fifo)
        # Opened for both, it never ends while the program has not opened it yet.
        descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        over = threading.Event()

        def drain() -> None:
            with selectors.DefaultSelector() as selector:
                selector.register(descriptor, selectors.EVENT_READ)
                last = False
                while selector.select(0.02) or not last:
                    last = over.is_set()  # before the last look, not after it
                    with contextlib.suppress(BlockingIOError):
                        take(os.read(descriptor, 1 << 16))

        reader = threading.Thread(target=drain, daemon=True)
        reader.start()
        try:
            yield fifo
        finally:
            over.set()
            reader.join()
            os.close(descriptor)
