"""Specification of nbsupport.crash.lldb: LLDB is kept alive, replaced, and ended with what it runs."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from nbsupport.base import process
from nbsupport.base.errors import LabError
from nbsupport.crash.debugger import Debugger
from tests.crash.programs import agents, crash, crashed, gone, open_lldb
from tests.support.processes import CEILING, running, wait_until

ENDLESS = 60.0


class TestProcesses:
    @pytest.mark.parametrize("mode", ["hang", "spin"])
    def test_a_program_that_hangs_is_ended(
        self, by_lldb: Debugger, program: Path, token: str, mode: str
    ) -> None:
        start = time.monotonic()
        assert crash(by_lldb, program, mode, token, seconds=0.5) is None
        assert time.monotonic() - start < 3
        assert not running(token)
        assert crashed(by_lldb, program, "at", "0").function == "inner"

    def test_gdb_ends_a_program_that_hangs(
        self, by_gdb: Debugger, program: Path, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nbsupport.crash.gdb._MARGIN", 1.0)
        assert crash(by_gdb, program, "hang", token, seconds=0.5) is None
        wait_until(lambda: not running(token))

    def test_one_agent_serves_many_programs(self, by_lldb: Debugger, program: Path) -> None:
        first = crashed(by_lldb, program, "at", "0")
        before = agents()
        for _ in range(70):  # past two cleanings of LLDB's cache
            assert crashed(by_lldb, program, "at", "0") == first
        assert agents() == before

    def test_a_hanging_debugger_is_replaced(
        self, lldb: Path, program: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nbsupport.crash.lldb._MARGIN", 0.5)
        before = agents()
        with open_lldb(lldb) as debugger:
            (agent,) = agents() - before
            agent.suspend()
            assert crash(debugger, program, "at", "0", seconds=0.5) is None
            monkeypatch.undo()
            assert crashed(debugger, program, "at", "0").function == "inner"

    def test_a_debugger_that_hangs_in_the_middle_leaves_no_program(
        self, lldb: Path, program: Path, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nbsupport.crash.lldb._MARGIN", 1.0)
        before = agents()
        with open_lldb(lldb) as debugger:
            (agent,) = agents() - before

            def suspend() -> None:
                wait_until(lambda: any(p.name() == "crasher" for p in running(token)))
                time.sleep(0.2)
                agent.suspend()

            thread = threading.Thread(target=suspend)
            thread.start()
            assert crash(debugger, program, "hang", token, seconds=1.5) is None
            thread.join()
            wait_until(lambda: not running(token))

    @pytest.mark.parametrize("launched", [True, False])
    def test_ending_all_children_ends_lldb_and_its_program(
        self, lldb: Path, program: Path, token: str, launched: bool
    ) -> None:
        before = agents()
        with open_lldb(lldb) as debugger:
            (agent,) = agents() - before

            def hang() -> None:
                with contextlib.suppress(LabError):  # or None, if LLDB lived to tell
                    crash(debugger, program, "hang", token, seconds=ENDLESS)

            thread = threading.Thread(target=hang)
            thread.start()
            # LLDB's server runs before the program does, and must not leave it behind.
            wait_until(lambda: bool(running(token) if launched else agent.children()))
            process.end_all()
            thread.join(CEILING)
            assert not thread.is_alive()
            wait_until(lambda: not running(token) and not agents() - before)
            wait_until(lambda: gone(agent))  # its command line goes before it does
            assert crashed(debugger, program, "at", "0").function == "inner"

    def test_close_leaves_nothing(self, lldb: Path) -> None:
        before = agents()
        debugger = open_lldb(lldb)
        assert agents() - before
        debugger.close()
        debugger.close()
        assert not agents() - before

    @pytest.mark.parametrize("mode", ["hang", "spin"])
    def test_nothing_outlives_a_killed_parent(
        self, lldb: Path, program: Path, token: str, mode: str
    ) -> None:
        script = (
            "import sys; from pathlib import Path; from nbsupport.crash.debugger import open_debugger\n"
            "lldb, *argv = sys.argv[1:]\n"
            "open_debugger(Path(lldb), None).crash(argv, cwd=Path('/'), env={}, seconds=60)\n"
        )
        argv = (sys.executable, "-c", script, lldb, program, mode, token)
        with subprocess.Popen(argv) as parent:
            wait_until(lambda: any(p.name() == "crasher" for p in running(token)))
            family = psutil.Process(parent.pid).children(recursive=True)
            assert len(family) >= 3, "LLDB, its server, the program"
            parent.send_signal(signal.SIGKILL)
        assert not psutil.wait_procs(family, timeout=CEILING)[1]
