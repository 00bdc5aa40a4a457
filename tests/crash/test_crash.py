"""Specification of nbsupport.crash.crash, with real debuggers and real crashes."""

from __future__ import annotations

import contextlib
import platform
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from nbsupport.base import process
from nbsupport.base.errors import LabError
from nbsupport.crash.address import fault_address
from nbsupport.crash.crash import Crash
from nbsupport.crash.debugger import Debugger, open_debugger

x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="an x86-64 fault")

SOURCE = r"""
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

__attribute__((noinline)) int inner(volatile long *p) { return (int)p[2] + 1; }
__attribute__((noinline)) int outer(long p) { return inner((volatile long *)p) + 1; }
static void *in_thread(void *p) { outer((long)p); return 0; }
static void ignore(int n) { (void)n; }

int main(int argc, char **argv) {
  const char *mode = argv[1];
  pthread_t thread;
  char here[4096];
  if (!strcmp(mode, "at")) return outer(strtol(argv[2], 0, 0));
  if (!strcmp(mode, "jump")) return ((int (*)(void))strtol(argv[2], 0, 0))();
#ifdef __x86_64__
  if (!strcmp(mode, "table")) {
    long table[1] = {strtol(argv[2], 0, 0)};
    __asm__ volatile("call *%0" : : "m"(table[0]));
  }
#endif
  if (!strcmp(mode, "hang")) for (;;) pause();
  if (!strcmp(mode, "spin")) for (volatile int i = 0;; i++) {}
  if (!strcmp(mode, "abort")) abort();
  if (!strcmp(mode, "trap")) raise(SIGTRAP);
  if (!strcmp(mode, "kill")) kill(getpid(), SIGSEGV);
  if (!strcmp(mode, "term")) kill(getpid(), SIGTERM);
  if (!strcmp(mode, "exec")) execl(argv[0], argv[0], "at", "0", (char *)0);
  if (!strcmp(mode, "fork")) {
    if (!fork()) _exit(3);
    wait(0);
    return outer(0);
  }
  if (!strcmp(mode, "daemon")) {
    if (!fork()) for (;;) pause();
    return 0;
  }
  if (!strcmp(mode, "signals")) {
    signal(SIGUSR1, ignore);
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 20; i++) { raise(SIGUSR1); raise(SIGPIPE); raise(SIGCHLD); }
    return outer(0);
  }
  if (!strcmp(mode, "thread")) {
    pthread_create(&thread, 0, in_thread, 0);
    pthread_join(thread, 0);
  }
  if (!strcmp(mode, "chatty")) {
    for (int i = 0; i < 200000; i++) { puts(argv[0]); fputs(argv[0], stderr); }
    return outer(0);
  }
  if (!strcmp(mode, "where") && !strcmp(getcwd(here, sizeof here), argv[2])
      && environ[0] && !strcmp(environ[0], "ONLY=one = \"two\" $three") && !environ[1])
    return outer(0);
  if (!strcmp(mode, "stdin") && getchar() == EOF) return outer(0);
  return 7;
}
"""
ENDLESS = 60.0


@pytest.fixture(scope="session")
def program(clang: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compile(clang, tmp_path_factory.mktemp("with a space"), "-O1")


def _compile(clang: Path, folder: Path, *flags: str) -> Path:
    (folder / "crasher.c").write_text(SOURCE)
    options = ("-fno-optimize-sibling-calls", "-pthread", "-o", "crasher", *flags)
    subprocess.run([clang, "crasher.c", *options], cwd=folder, check=True)
    return folder / "crasher"


@pytest.fixture
def token() -> str:
    """Return an argument that names this test's processes among all."""
    return f"token-{uuid.uuid4()}"


@pytest.fixture(scope="module")
def by_lldb(lldb: Path) -> Iterator[Debugger]:
    debugger = open_debugger(lldb, None)
    assert debugger
    with debugger:
        yield debugger


@pytest.fixture(scope="module")
def by_gdb(gdb: Path) -> Iterator[Debugger]:
    debugger = open_debugger(None, gdb)
    assert debugger
    with debugger:
        yield debugger


@pytest.fixture(params=["lldb", "gdb"])
def debugger(request: pytest.FixtureRequest) -> Debugger:
    found: Debugger = request.getfixturevalue(f"by_{request.param}")
    return found


def crash(debugger: Debugger, program: Path, *args: str, seconds: float = 10) -> Crash | None:
    return debugger.crash([program, *args], cwd=program.parent, env={}, seconds=seconds)


def crashed(debugger: Debugger, program: Path, *args: str) -> Crash:
    found = crash(debugger, program, *args)
    assert found
    return found


class TestFaultAddress:
    REGISTERS = {  # noqa: RUF012
        "rax": 0x1000,
        "rbx": 0x0001_0001_0000_0001,
        "rcx": 2,
        "rdx": 0xFFFF_FFFF_FFFF_FFFF,
        "rsi": 0x2000,
        "rdi": 0x3000,
        "rbp": 0x8000,
        "rsp": 0x7000,
        "r9": 0x9_0000_0004,
        "rip": 0x5000,
    }
    ARM = {"x0": 0x1000, "x1": 0xF_FFFF_FFFF, "x8": 3, "fp": 0x8000, "lr": 0x99, "sp": 0x7000}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("instruction", "address"),
        [
            # LLDB, Intel syntax
            ("mov rax, qword ptr [rax]", 0x1000),
            ("cmp qword ptr [rax + 8*rcx], 0x0", 0x1010),
            ("mov r10, qword ptr [rbp - 0x10]", 0x7FF0),
            ("mov byte ptr [rax + 4*rcx - 0x8], cl", 0x1000),
            ("mov rax, qword ptr [rbx]", 0x0001_0001_0000_0001),
            ("mov eax, dword ptr [r9d]", 4),
            ("mov eax, dword ptr [eax + 1]", 0x1001),
            ("mov rax, qword ptr [rip + 0x10]", 0x5010),
            ("mov rax, qword ptr [rdx + 2]", 1),  # wraps at 64 bits
            ("mov rax, qword ptr [0x28]", 0x28),
            ("lock xadd dword ptr [rax], ecx", 0x1000),
            ("rep stosb byte ptr es:[rdi], al", 0x3000),
            ("call qword ptr [rax + 0x8]", 0x1008),
            # gdb, Intel syntax
            ("cmp QWORD PTR [rax+rcx*8],0x0", 0x1010),
            ("mov rax,QWORD PTR [rip+0x2ee5]        # 0x404028 <stdout>", 0x404028),
            ("mov eax,DWORD PTR ds:0x28", 0x28),
            ("rep stos BYTE PTR es:[rdi],al", 0x3000),
            # AT&T syntax
            ("cmpq $0x0,(%rax,%rcx,8)", 0x1010),
            ("cmpq   $0x0, (%rax,%rcx,8)", 0x1010),
            ("movq -0x10(%rbp), %rax", 0x7FF0),
            ("mov (,%rcx,4),%eax", 8),
            ("rep stos %al,%es:(%rdi)", 0x3000),
            ("callq *0x8(%rax)", 0x1008),
            # what is not written
            ("call rax", 0x1000),
            ("jmp *%rbx", 0x0001_0001_0000_0001),
            ("call 0x401000 <foo>", 0x6FF8),
            ("push rbp", 0x6FF8),
            ("pushq %rbp", 0x6FF8),
            ("pop rax", 0x7000),
            ("ret", 0x7000),
            ("leave", 0x8000),
            ("rep stosb", 0x3000),
            # doubt, or nothing
            ("lea rax, [rax + 8]", None),
            ("nop word ptr [rax]", None),
            ("add rax, rcx", None),
            ("popcnt rax, rcx", None),
            ("ud2", None),
            ("hlt", None),
            ("mov rax, qword ptr fs:[0x28]", None),
            ("mov %fs:0x28,%rax", None),
            ("mov rax, qword ptr [r15]", None),  # a register that is not known
            ("vpgatherdd ymm0, dword ptr [rax + 4*ymm1], ymm2", None),
            ("rep movsb byte ptr es:[rdi], byte ptr [rsi]", None),  # which of two?
            ("rep movsb byte ptr es:[rdi], byte ptr [rbx]", 0x0001_0001_0000_0001),
            ("rep movsb", None),
            ("", None),
        ],
    )
    def test_x86_64(self, instruction: str, address: int | None) -> None:
        assert fault_address(instruction, self.REGISTERS) == address

    @pytest.mark.parametrize(
        ("instruction", "address"),
        [
            ("ldr x8, [x0]", 0x1000),
            ("ldr x8, [x0, #0x28]", 0x1028),
            ("ldr x8, [x0, #40]", 0x1028),
            ("ldp x29, x30, [sp, #-0x10]!", 0x6FF0),
            ("ldr x8, [x0], #0x10", 0x1000),
            ("ldr x8, [x0, x8]", 0x1003),
            ("ldr x8, [x0, x8, lsl #3]", 0x1018),
            ("ldrb w9, [x0, w1, uxtw #3]", 0x1000 + 8 * 0xFFFF_FFFF),
            ("ldrb w9, [x0, w1, sxtw #3]", 0x1000 - 8),
            ("str xzr, [x29, #8]", 0x8008),
            ("blr x8", 3),
            ("br x8", 3),
            ("bl 0x1234", None),
            ("add x0, x0, #1", None),
            ("ldr x0, [x9]", None),
            ("ldr z0, [x0, #1, mul vl]", None),
        ],
    )
    def test_aarch64(self, instruction: str, address: int | None) -> None:
        assert fault_address(instruction, self.ARM) == address


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
        _wait_until(lambda: not _running(token))  # the daemon's child too

    def test_a_stripped_program(self, by_lldb: Debugger, clang: Path, tmp_path: Path) -> None:
        found = crashed(by_lldb, _compile(clang, tmp_path, "-O1", "-s"), "at", "0")
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


class TestProcesses:
    @pytest.mark.parametrize("mode", ["hang", "spin"])
    def test_a_program_that_hangs_is_ended(
        self, by_lldb: Debugger, program: Path, token: str, mode: str
    ) -> None:
        start = time.monotonic()
        assert crash(by_lldb, program, mode, token, seconds=0.5) is None
        assert time.monotonic() - start < 3
        assert not _running(token)
        assert crashed(by_lldb, program, "at", "0").function == "inner"

    def test_gdb_ends_a_program_that_hangs(
        self, by_gdb: Debugger, program: Path, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nbsupport.crash.gdb._MARGIN", 1.0)
        assert crash(by_gdb, program, "hang", token, seconds=0.5) is None
        _wait_until(lambda: not _running(token))

    def test_one_agent_serves_many_programs(self, by_lldb: Debugger, program: Path) -> None:
        first = crashed(by_lldb, program, "at", "0")
        agents = _agents()
        for _ in range(70):  # past two cleanings of LLDB's cache
            assert crashed(by_lldb, program, "at", "0") == first
        assert _agents() == agents

    def test_a_hanging_debugger_is_replaced(
        self, lldb: Path, program: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nbsupport.crash.lldb._MARGIN", 0.5)
        before = _agents()
        with _open(lldb) as debugger:
            (agent,) = _agents() - before
            agent.suspend()
            assert crash(debugger, program, "at", "0", seconds=0.5) is None
            monkeypatch.undo()
            assert crashed(debugger, program, "at", "0").function == "inner"

    def test_a_debugger_that_hangs_in_the_middle_leaves_no_program(
        self, lldb: Path, program: Path, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nbsupport.crash.lldb._MARGIN", 1.0)
        before = _agents()
        with _open(lldb) as debugger:
            (agent,) = _agents() - before

            def suspend() -> None:
                _wait_until(lambda: any(p.name() == "crasher" for p in _running(token)))
                time.sleep(0.2)
                agent.suspend()

            thread = threading.Thread(target=suspend)
            thread.start()
            assert crash(debugger, program, "hang", token, seconds=1.5) is None
            thread.join()
            _wait_until(lambda: not _running(token))

    @pytest.mark.parametrize("launched", [True, False])
    def test_ending_all_children_ends_lldb_and_its_program(
        self, lldb: Path, program: Path, token: str, launched: bool
    ) -> None:
        before = _agents()
        with _open(lldb) as debugger:
            (agent,) = _agents() - before

            def hang() -> None:
                with contextlib.suppress(LabError):  # or None, if LLDB lived to tell
                    crash(debugger, program, "hang", token, seconds=ENDLESS)

            thread = threading.Thread(target=hang)
            thread.start()
            # LLDB's server runs before the program does, and must not leave it behind.
            _wait_until(lambda: bool(_running(token) if launched else agent.children()))
            process.end_all()
            thread.join(5)
            assert not thread.is_alive()
            _wait_until(lambda: not _running(token) and not _agents() - before)
            assert crashed(debugger, program, "at", "0").function == "inner"

    def test_close_leaves_nothing(self, lldb: Path) -> None:
        before = _agents()
        debugger = _open(lldb)
        assert _agents() - before
        debugger.close()
        debugger.close()
        assert not _agents() - before

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
            _wait_until(lambda: any(p.name() == "crasher" for p in _running(token)))
            family = psutil.Process(parent.pid).children(recursive=True)
            assert len(family) >= 3, "LLDB, its server, the program"
            parent.send_signal(signal.SIGKILL)
        assert not psutil.wait_procs(family, timeout=5)[1]


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
        _open(lldb).close()


def _open(lldb: Path) -> Debugger:
    debugger = open_debugger(lldb, None)
    assert debugger
    return debugger


def _agents() -> set[psutil.Process]:
    return {child for child in psutil.Process().children() if _has(child, "inside_lldb")}


def _running(token: str) -> list[psutil.Process]:
    return [child for child in psutil.process_iter() if _has(child, token)]


def _has(child: psutil.Process, token: str) -> bool:
    try:
        return child.status() != psutil.STATUS_ZOMBIE and token in " ".join(child.cmdline())
    except psutil.Error:
        return False


def _wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
