"""Runs programs in LLDB until they crash, for `nbsupport.crash.lldb`, which asks over a socket."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import resource
import signal
import socket
import threading
import time
from typing import Any

import lldb

from .common import Watcher, exception_of, name_of, registers_of
from .protocol import FATAL, Request, Siginfo, StackFrame, Stop, to_message

#: Darwin stops with a Mach exception instead (numbers: <mach/exception_types.h>).
EXCEPTIONS = {1: "SIGSEGV", 2: "SIGILL", 3: "SIGFPE", 6: "SIGTRAP"}
#: Names that LLDB makes up for functions without a symbol.
UNNAMED = "___lldb_unnamed"
FRAMES = 64
SETTINGS = (
    "target.preload-symbols false",
    "target.load-script-from-symbol-file false",
    "symbols.enable-external-lookup false",
    "plugin.jit-loader.gdb.enable off",
    "target.skip-prologue false",  # a tracer reads arguments where a function begins
    # A server that answers late is not gone (one that is gone closes the link): by default LLDB
    # gives it up after five seconds, and calls its program ended, "lost connection".
    "plugin.process.gdb-remote.packet-timeout 600",
)
#: Each target leaves its modules in LLDB's cache; dropping them for every target would
#: also drop the C library, whose symbols all of them share.
TARGETS_BETWEEN_CLEANINGS = 32


def serve() -> None:
    """Answer requests, until the other end of the socket closes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    link = socket.socket(fileno=int(os.environ["NBSUPPORT_AGENT_SOCKET"]))
    # LLDB's server asks lsb_release for the distribution's name at each launch, twice; where
    # that is a shell script, it gives up at once without its tools (20 of 45 ms).
    os.environ["PATH"] = "/nonexistent"
    link.set_inheritable(False)  # it is for LLDB alone
    # A debugger of our own: LLDB's also has a thread that reads the events, and LLDB 23
    # crashes when that one looks at a process that has just been killed here.
    debugger = lldb.SBDebugger.Create(False)
    debugger.SetAsync(True)
    for setting in SETTINGS:  # one that an LLDB does not have is only speed lost there
        debugger.HandleCommand("settings set " + setting)
    _send(link, {"version": debugger.GetVersionString()})
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    agent = Agent(debugger, link)
    threading.Thread(target=_receive, args=(link, requests, agent), daemon=True).start()
    while True:
        _send(link, agent.answer(requests.get()))


def _send(link: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the lab has gone; `_receive` sees that too, and acts
        link.sendall(json.dumps(message).encode() + b"\n")


def _receive(link: socket.socket, requests: queue.SimpleQueue[Any], agent: Agent) -> None:
    """Queue requests; when the lab has gone, end the program and LLDB, whatever they are doing."""
    with contextlib.suppress(OSError):  # killed with our message unread, it resets the link
        for line in link.makefile("rb"):
            message = json.loads(line)
            if "note" in message:
                agent.notes.put(message["note"])
            else:
                requests.put(message)
    # LLDB's server lets go of a program whose launch is under way; so wait for its number.
    agent.launching.acquire(timeout=5)
    agent.end_program()
    os._exit(0)


class Agent:
    """Runs one program after the other until a fatal signal."""

    def __init__(self, debugger: Any, link: socket.socket) -> None:
        self.debugger, self.link = debugger, link
        self.pid = 0  # of the program that is running; 0: none
        self.launching = threading.Lock()
        self.notes: queue.SimpleQueue[Any] = queue.SimpleQueue()  # for the watcher
        self.targets = 0

    def answer(self, request: Request) -> dict[str, Any]:
        """Run a program; return what becomes of the request (see protocol.py)."""
        error = lldb.SBError()
        # A program of another machine leaves its platform selected, which starts none of ours.
        self.debugger.SetSelectedPlatform(lldb.SBPlatform("host"))
        target = self.debugger.CreateTarget(request["argv"][0], None, None, False, error)
        if not target.IsValid():
            return {"error": error.GetCString() or "no target"}
        try:
            return self._run(target, request)
        except Exception as defect:  # of ours: said, rather than the end of LLDB
            return {"error": f"{type(defect).__name__}: {defect}"}
        finally:
            self.pid = 0
            self.debugger.DeleteTarget(target)
            self.targets += 1
            if self.targets % TARGETS_BETWEEN_CLEANINGS == 0:
                lldb.SBDebugger.MemoryPressureDetected()

    def _run(self, target: Any, request: Request) -> dict[str, Any]:
        listener = lldb.SBListener("nbsupport")
        error = lldb.SBError()
        while not self.notes.empty():
            self.notes.get()  # of a run that has ended
        deadline = time.monotonic() + request["seconds"]
        watcher = self._watcher(target, request.get("plan"))
        os.chdir(request["cwd"])  # else LLDB does not find what the program loads by ./name
        with self.launching:
            launch = _launch(request, listener, watcher.at_entry)
            watcher.process = process = target.Launch(launch, error)
            if not error.Success():
                return {"error": error.GetCString() or "it does not start"}
            self.pid = process.GetProcessID()
        _send(self.link, {"pid": self.pid})
        if hasattr(resource, "prlimit"):  # Linux; elsewhere the time limit has to do
            with contextlib.suppress(OSError, ValueError):
                resource.prlimit(self.pid, resource.RLIMIT_DATA, (request["memory"],) * 2)
        try:
            fatal = _fatal_stop(watcher, listener, deadline)
            if fatal is None:
                return {"crash": None}
            stop = _describe(target, *fatal)
            watcher.crashed(fatal[0], stop)
            return {"crash": stop}
        finally:
            process.Kill()
            self.end_program()
            os.chdir("/")

    def _watcher(self, target: Any, plan: Any) -> Watcher:
        def emit(event: Any) -> None:
            _send(self.link, {"event": to_message(event)})

        name = plan["watcher"] if plan else ""
        if name == "trace":
            from .tracing import EventTracer  # noqa: PLC0415 - most requests need neither

            return EventTracer(target, emit, self.notes, plan)
        if name == "rescue":
            from .rescuing import Rescuer  # noqa: PLC0415

            return Rescuer(target, emit, self.notes, plan)
        return Watcher(target, emit, self.notes, plan)

    def end_program(self) -> None:
        """End the program and what it started: LLDB's server makes it the head of a group."""
        if self.pid:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)


def _launch(request: Request, listener: Any, at_entry: bool) -> Any:
    info = lldb.SBLaunchInfo(request["argv"][1:])
    info.SetListener(listener)
    info.SetWorkingDirectory(request["cwd"])
    info.SetEnvironmentEntries([f"{k}={v}" for k, v in request["env"].items()], False)
    entry = lldb.eLaunchFlagStopAtEntry if at_entry else 0
    info.SetLaunchFlags(lldb.eLaunchFlagDisableASLR | entry)
    info.AddOpenFileAction(0, request.get("stdin", os.devnull), True, False)
    output = request.get("output", os.devnull)
    for stream, path in ((1, output), (2, request.get("errors", output))):
        info.AddOpenFileAction(stream, path, False, True)
    return info


def _fatal_stop(watcher: Watcher, listener: Any, deadline: float) -> tuple[Any, str] | None:
    """Let the program run; return the thread that a fatal signal stopped, and the signal's name."""
    process = watcher.process
    event = lldb.SBEvent()
    state_bit = lldb.SBProcess.eBroadcastBitStateChanged
    ended = (lldb.eStateExited, lldb.eStateDetached, lldb.eStateInvalid, lldb.eStateUnloaded)
    while time.monotonic() < deadline:
        # Wakes at once for an event; the second is only how late deadline and notes are seen.
        watcher.turn()
        changed = listener.WaitForEvent(1, event) and event.GetType() & state_bit
        state = lldb.SBProcess.GetStateFromEvent(event) if changed else None
        if state in ended:
            watcher.exited(process.GetExitStatus(), process.GetExitDescription() or "")
            return None
        if state == lldb.eStateStopped and not lldb.SBProcess.GetRestartedFromEvent(event):
            for thread in process:
                name = _signal(thread)
                if name in FATAL and not watcher.handled(thread, name):
                    return thread, name
            watcher.stopped()
            process.Continue()
    watcher.late(listener)
    return None


def _signal(thread: Any) -> str:
    reason = thread.GetStopReason()
    if reason == lldb.eStopReasonException:
        return EXCEPTIONS.get(thread.GetStopReasonDataAtIndex(0), "")
    if reason == lldb.eStopReasonSignal:
        with contextlib.suppress(ValueError):
            return signal.Signals(thread.GetStopReasonDataAtIndex(0)).name
    return ""


def _describe(target: Any, thread: Any, name: str) -> Stop:
    top = thread.GetFrameAtIndex(0)
    flavor = ("intel",) if target.GetTriple().startswith(("x86", "i386")) else ()
    instruction = None
    for decoded in target.ReadInstructions(top.GetPCAddress(), 1, *flavor):
        instruction = f"{decoded.GetMnemonic(target)} {decoded.GetOperands(target)}".strip()
        # rip counts from the next instruction: the address is said in a comment, as gdb does.
        if operand := re.search(r"ptr \[rip ([+-]) (\w+)\]", instruction):
            following = top.GetPC() + decoded.GetByteSize()
            instruction += f" # {following + int(operand[1] + operand[2], 0):#x}"
    return {
        "signal": name,
        "frames": _frames(thread),
        "instruction": instruction,
        "pc": top.GetPC(),
        "registers": registers_of(top),
        "siginfo": _siginfo(thread),
        "exception": exception_of(top),
        "words": thread.GetStopDescription(256) or "",
    }


def _frames(thread: Any) -> list[StackFrame]:
    """Return the innermost frames of functions as linked.

    LLDB shows inlined functions as frames of their own before the function they are in,
    whose frame then has another address: the first of such a group has the true one.
    """
    frames = []
    inside = False
    for n in range(FRAMES):
        frame = thread.GetFrameAtIndex(n)
        if frame.IsValid() and not inside:
            frames.append(_frame(frame))
        inside = frame.IsInlined()
    return frames


def _frame(frame: Any) -> StackFrame:
    address, symbol = frame.GetPCAddress(), frame.GetSymbol()
    name = (symbol.GetName() if symbol.IsValid() else frame.GetFunctionName()) or ""
    name = "" if name.startswith(UNNAMED) else name
    offset = None
    if not name and address.GetModule().IsValid():
        offset = address.GetFileAddress()
    elif name and symbol.IsValid():
        offset = address.GetFileAddress() - symbol.GetStartAddress().GetFileAddress()
    return {"function": name, "offset": offset, "module": name_of(frame.GetModule())}


def _siginfo(thread: Any) -> Siginfo | None:
    """Return what the kernel said, as LLDB 14 and later know it on Linux."""
    info = thread.GetSiginfo() if hasattr(thread, "GetSiginfo") else None
    if info is None or not info.IsValid() or info.GetError().Fail():
        return None
    address = info.GetValueForExpressionPath("._sifields._sigfault.si_addr")
    code = info.GetChildMemberWithName("si_code")
    if not (address.IsValid() and code.IsValid()):
        return None
    return {"code": code.GetValueAsSigned(), "address": address.GetValueAsUnsigned()}
