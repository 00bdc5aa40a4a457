"""The first instrumented program that a command starts: of a script, that is what is traced."""

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nbsupport.crash.elf import Elf
from nbsupport.crash.family import Family, Follower, Process

#: A program with its arguments, its folder, its whole environment.
Command = tuple[list[str], Path, dict[str, str]]


class _Finder(Follower):
    """Holds the first process with an instrumented image, and all others with it."""

    def __init__(self) -> None:
        self.command: Command | None = None
        self.ready, self.over = threading.Event(), threading.Event()

    def loaded(self, process: Process, elf: Elf, bias: int) -> None:
        """Wait where the image has come, until all is over."""
        if not elf.instrumented or self.over.is_set():
            return
        folder = Path(f"/proc/{process.pid}")
        with contextlib.suppress(OSError):
            texts = (os.fsdecode((folder / name).read_bytes()) for name in ("cmdline", "environ"))
            words, variables = (text.removesuffix("\0").split("\0") for text in texts)
            pairs = (variable.partition("=") for variable in variables if "=" in variable)
            env = {name: value for name, _, value in pairs}
            self.command = [str(process.program), *words[1:]], (folder / "cwd").readlink(), env
            self.ready.set()
            self.over.wait()


@contextlib.contextmanager
def first(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], seconds: float
) -> Iterator[Command | None]:
    """Yield the first instrumented program that a command comes to; None if there is none in time.

    It is there with the arguments, folder and environment that it gets. Nothing of it has run, and
    the command's files are there until the block ends; then all of it is ended.
    """
    finder = _Finder()
    family = Family((argv, cwd, env), (subprocess.DEVNULL,) * 3, finder)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(family.run)
        future.add_done_callback(lambda _: finder.ready.set())
        try:
            finder.ready.wait(seconds)
            yield finder.command
        finally:
            finder.over.set()
            family.end()
        future.result()
