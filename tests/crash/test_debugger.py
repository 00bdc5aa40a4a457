"""Specification of nbsupport.crash.debugger, with real debuggers and real crashes."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from nbsupport.base.errors import LabError
from nbsupport.crash.debugger import Debugger, open_debugger
from tests.crash.programs import compile_crasher, crash, crashed, open_lldb
from tests.support.processes import running, wait_until

x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="an x86-64 fault")


class TestCrash:
    def test_null(self, debugger: Debugger, program: Path) -> None:
        found = crashed(debugger, program, "at", "-16")
        assert (found.signal, found.fault_address) == ("SIGSEGV", 0)
        assert found.fault_address_from == "siginfo"
        assert [frame.function for frame in found.frames[:3]] == ["inner", "outer", "main"]
        assert found.function == "inner"
        assert found.frames[1].module == "crasher"
        assert 0 < (found.frames[1].offset or 0) < 40
        assert found.frames[-1].function == "_start"
        assert found.debugger == debugger.name

    def test_the_kernel_knows_an_ordinary_address(self, debugger: Debugger, program: Path) -> None:
        found = crashed(debugger, program, "at", "0x100000004")
        assert (found.fault_address, found.fault_address_from) == (0x100000014, "siginfo")

    @x86_64
    def test_the_kernel_hides_a_non_canonical_address(
        self, debugger: Debugger, program: Path
    ) -> None:
        found = crashed(debugger, program, "at", "0x0001000100000001")
        assert found.fault_address == 0x0001_0001_0000_0011
        assert found.fault_address_from == "registers"
        assert found.registers["rdi"] == 0x0001_0001_0000_0001
        assert found.instruction
        assert "[rdi" in found.instruction

    def test_a_jump_to_nowhere(self, debugger: Debugger, program: Path) -> None:
        found = crashed(debugger, program, "jump", "0x10000000")
        assert found.fault_address == 0x10000000
        assert found.instruction is None
        assert [frame.function for frame in found.frames[:2]] == ["", "main"]

    @x86_64
    def test_a_jump_to_a_non_canonical_address(self, debugger: Debugger, program: Path) -> None:
        found = crashed(debugger, program, "jump", "0x0001000100000001")
        assert found.fault_address == 0x0001_0001_0000_0001
        assert found.fault_address_from == "registers"

    @x86_64
    def test_a_bad_target_read_from_memory_is_not_taken_for_the_operand(
        self, debugger: Debugger, program: Path
    ) -> None:
        found = crashed(debugger, program, "table", "0x0001000100000001")
        assert found.instruction
        assert found.instruction.startswith("call")
        assert (found.fault_address, found.fault_address_from) == (None, None)

    def test_a_signal_that_was_sent_has_no_address(self, debugger: Debugger, program: Path) -> None:
        found = crashed(debugger, program, "kill")
        assert (found.signal, found.fault_address) == ("SIGSEGV", None)
        assert found.fault_address_from is None

    @pytest.mark.parametrize("name", ["abort", "trap"])
    def test_other_fatal_signals(self, debugger: Debugger, program: Path, name: str) -> None:
        found = crashed(debugger, program, name)
        assert found.signal == {"abort": "SIGABRT", "trap": "SIGTRAP"}[name]
        assert found.fault_address is None
        assert "main" in [frame.function for frame in found.frames]

    @pytest.mark.parametrize("mode", ["fork", "exec", "signals", "thread", "chatty", "stdin"])
    def test_what_happens_before_does_not_matter(
        self, debugger: Debugger, program: Path, mode: str
    ) -> None:
        assert crashed(debugger, program, mode).function == "inner"

    def test_folder_and_environment_are_those_given(
        self, debugger: Debugger, program: Path, tmp_path: Path
    ) -> None:
        argv = (program, "where", str(tmp_path))
        env = {"ONLY": 'one = "two" $three'}
        found = debugger.crash(argv, cwd=tmp_path, env=env, seconds=10)
        assert found
        assert found.function == "inner"

    @pytest.mark.parametrize("mode", ["return", "term", "daemon"])
    def test_no_crash(self, debugger: Debugger, program: Path, token: str, mode: str) -> None:
        assert crash(debugger, program, mode, token) is None
        wait_until(lambda: not running(token))  # the daemon's child too

    def test_a_stripped_program(self, by_lldb: Debugger, clang: Path, tmp_path: Path) -> None:
        found = crashed(by_lldb, compile_crasher(clang, tmp_path, "-O1", "-s"), "at", "0")
        assert (found.frames[0].function, found.frames[0].module) == ("", "crasher")
        assert (found.frames[0].offset or 0) > 0x200

    def test_the_mixed_program(
        self, by_lldb: Debugger, by_gdb: Debugger, mixed_crash: Path, tmp_path: Path
    ) -> None:
        found = []
        for index, debugger in enumerate((by_lldb, by_gdb)):
            profile = {"LLVM_PROFILE_FILE": str(tmp_path / f"{index}.profraw")}
            seen = debugger.crash([mixed_crash], cwd=tmp_path, env=profile, seconds=10)
            assert seen
            found.append(seen)
        one, two = found
        ours = [frame for frame in one.frames if frame.module == mixed_crash.name]
        assert [frame.function for frame in ours][:5] == [
            "initializeValueProfRuntimeRecord",
            "writeOneValueProfData",
            "lprofWriteDataImpl",
            "lprofWriteData",
            "writeFile",
        ]
        assert ours == [frame for frame in two.frames if frame.module == mixed_crash.name]
        assert one.fault_address == two.fault_address
        assert one.fault_address_from == two.fault_address_from

    def test_a_program_that_does_not_exist(self, by_lldb: Debugger, tmp_path: Path) -> None:
        with pytest.raises(LabError, match="LLDB says"):
            crash(by_lldb, tmp_path / "missing")


class TestOpen:
    @pytest.mark.parametrize("script", ["exit 1", "exec true", "echo no Python here"])
    def test_gdb_steps_in_for_a_broken_lldb(self, gdb: Path, tmp_path: Path, script: str) -> None:
        broken = tmp_path / "lldb"
        broken.write_text(f"#!/bin/sh\n{script}\n")
        broken.chmod(0o755)
        found = open_debugger(broken, gdb)
        assert found
        assert found.name.startswith("gdb ")

    def test_without_a_working_debugger_there_is_none(self, tmp_path: Path) -> None:
        assert open_debugger(None, None) is None
        assert open_debugger(tmp_path / "missing", tmp_path / "missing") is None
        assert open_debugger(Path("/bin/false"), Path("/bin/false")) is None

    def test_the_name_tells_the_version(self, by_lldb: Debugger, by_gdb: Debugger) -> None:
        assert by_lldb.name.removeprefix("lldb ")[0].isdigit()
        assert by_gdb.name.removeprefix("gdb ")[0].isdigit()

    def test_a_kernels_python_settings_do_not_reach_lldb(
        self, lldb: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONHOME", "/nowhere")
        open_lldb(lldb).close()
