"""LLDB kept alive as a child process, asked over a socket; its side is in inside_lldb."""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbsupport.base import process, settings
from nbsupport.base.errors import LabError
from nbsupport.crash.inside_lldb.protocol import Note, Request, Stop

#: What to do where a program does not start under LLDB.
ALLOW = "check that it is built for this machine, and that ptrace is allowed"
_START = 20.0  # seconds for LLDB to start, which takes 0.3 on an idle machine
_MARGIN = 5.0  # seconds that LLDB may take on top of the program's


class Lldb:
    """LLDB, one program at a time; started anew when it has ended or hangs.

    Raises LabError when it does not start, or has no Python.
    """

    def __init__(self, lldb: Path) -> None:
        self._lldb = lldb
        self._lock = threading.Lock()
        self._agent = _Agent(lldb)
        self.name = self._agent.name

    def stop(
        self,
        argv: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        seconds: float,
        more: Request | None = None,
        see: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> Stop | None:
        """Run a program; return what LLDB sees at a fatal signal, None without one or in time.

        `more` may ask for a trace or a rescue, each event of which goes to `see`.
        """
        request: Request = {
            "memory": settings.PROGRAM.memory,
            **(more or {}),
            "argv": list(argv),
            "cwd": str(cwd),
            "env": dict(env),
            "seconds": seconds,
        }
        with self._lock:
            if self._agent.ended:
                self._agent.end()
                self._agent = _Agent(self._lldb)
            try:
                reply = self._agent.ask(request, seconds + _MARGIN, see)
            except BaseException as error:
                self._agent.end()
                if isinstance(error, TimeoutError):
                    return None
                raise
        if "error" in reply:
            raise LabError(argv[0], f"LLDB says: {reply['error']}", ALLOW)
        stop: Stop | None = reply["crash"]
        return stop

    def tell(self, note: Note) -> None:
        """Send a note to LLDB's side while `stop` waits: from `see`, or a signal handler."""
        self._agent.send({"note": note})

    def close(self) -> None:
        """End LLDB and what it runs."""
        with self._lock:
            self._agent.end()


class _Agent:
    """One LLDB process running inside_lldb, and the socket to it."""

    def __init__(self, lldb: Path) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._child = _start(lldb, theirs.fileno())
            except OSError as error:
                self._socket.close()
                raise LabError(str(lldb), str(error.strerror), "check the path") from error
        self._replies = self._socket.makefile("rb")
        try:
            version = self._receive(_START)["version"]
        except BaseException as error:
            self.end()
            if isinstance(error, TimeoutError):
                raise LabError("LLDB", "it does not answer", "try again, or use gdb") from error
            raise
        # "lldb version 19.1.7 (…)", perhaps after a vendor's name; Apple's "lldb-1500.0.404.7".
        number = re.search(r"lldb(?: version |-)([\d.]*\d)", version)
        self.name = f"lldb {number[1]}" if number else "lldb"

    @property
    def ended(self) -> bool:
        """Whether it was ended, or LLDB has gone since the last request, as after Ctrl-C."""
        return self._replies.closed or self._child.ended

    def ask(
        self, request: Request, seconds: float, see: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Return the answer; raises TimeoutError, or LabError when LLDB has ended."""
        deadline = time.monotonic() + seconds
        self.send(request)
        reply = self._receive(seconds)
        if program := reply.get("pid"):
            # LLDB puts the program into a group of its own, and its server lets go of the
            # program when LLDB is killed: it must be ended by itself.
            self._child.adopt(program)
            while "event" in (reply := self._receive(deadline - time.monotonic())):
                see(reply["event"])
            self._child.disown(program)
        return reply

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; one that LLDB has gone for has no answer either."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self, seconds: float) -> dict[str, Any]:
        self._socket.settimeout(max(seconds, 0.001))
        try:
            line = self._replies.readline()
        except ConnectionError:
            line = b""
        if not line:
            do = "try again, or install LLDB with its Python (pgo-lab toolchains --install 23)"
            raise LabError("LLDB", "it ended unexpectedly", do)
        reply: dict[str, Any] = json.loads(line)
        return reply

    def end(self) -> None:
        """End LLDB and the program, if one is running."""
        self._child.end()
        self._replies.close()
        self._socket.close()


def _start(lldb: Path, fileno: int) -> process.Child:
    # What a kernel or a virtual environment says about Python is not for LLDB's own.
    env = {k: v for k, v in process.environment().items() if not k.startswith("PYTHON")}
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "NBSUPPORT_AGENT_SOCKET": str(fileno)}
    # Debian 12's LLDB 14 looks for its Python module in a folder that does not exist.
    for path in lldb.resolve().parents[1].glob("lib/python3*/*-packages/lldb/__init__.py"):
        env["PYTHONPATH"] = str(path.parent.parent)
    package = str(Path(__file__).with_name("inside_lldb"))
    quoted = package.replace("\\", "\\\\").replace('"', '\\"')
    command = (lldb, "--no-lldbinit", "--batch", "-o", f'command script import "{quoted}"')
    return process.Child(command, cwd=Path("/"), env=env, pass_fds=(fileno,))
