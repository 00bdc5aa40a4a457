"""What a program that a debugger starts is given: its path, and pipes for what it writes."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from nbsupport.base.errors import LabError, MissingError

#: Bytes that are taken from a pipe at once.
_CHUNK = 1 << 16


def program(name: str | Path) -> Path:
    """Return the path of a program that LLDB can start; raises `LabError` for what is none."""
    found = shutil.which(name)
    if found is None:
        path = Path(name)
        why = "no such program" if not path.exists() else "not executable, or not a file"
        raise MissingError(str(name), why, "check the path and its permissions")
    with Path(found).open("rb") as file:
        if file.read(2) == b"#!":
            do = "give its interpreter, after --: INTERPRETER SCRIPT"
            raise LabError(str(name), "it is a script, not a program", do)
    return Path(found).absolute()


@contextlib.contextmanager
def pipe(take: Callable[[bytes], object]) -> Iterator[Path]:
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
                        take(os.read(descriptor, _CHUNK))

        reader = threading.Thread(target=drain, daemon=True)
        reader.start()
        try:
            yield fifo
        finally:
            over.set()
            reader.join()
            os.close(descriptor)
