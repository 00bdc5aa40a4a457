"""Specification of nbsupport.crash.shapes: of each shape the frames, the fault, the crashed thread."""

from __future__ import annotations

import re

import pytest

from nbsupport.crash import reports, shapes

SITE, WALK = "__llvm_profile_instrument_target", "initializeValueProfRuntimeRecord"
#: Of each shape a text: its frames (None: no name), the signal, the address (None: not told).
TEXTS = {
    "lldb": (
        """\
* thread #2, name = 'app', stop reason = signal SIGSEGV: address not mapped (fault address: 0x30)
    frame #0: 0x0000000000401136 app`f [inlined] g(n=1) at a.c:2
  * frame #0: 0x0000000000401136 app`f(n=1) + 8 at a.c:3
    frame #1: 0x0000000000401150 app`___lldb_unnamed_symbol1 + 3
    frame #2: 0x00007ffff7d3355d libc.so.6`__run_exit_handlers(status=0) at exit.c:116:8
""",
        ["f", None, "__run_exit_handlers"], "SIGSEGV", 0x30,
    ),
    "gdb": (
        """\
Thread 2 "app" received signal SIGSEGV, Segmentation fault.
0x0000000000402b10 in std::vector<int, std::allocator<int> >::push_back(int&&) ()
#0  0x0000000000402b10 in std::vector<int, std::allocator<int> >::push_back(int&&) ()
#1  0x0000000000402b20 in ?? () from /lib/libthing.so.1
#2  0x0000000000402b30 in main (argc=1, argv=0x7ffe8) at a.c:3
$1 = {si_addr = 0x10}
""",
        ["std::vector<int, std::allocator<int> >::push_back", None, "main"], "SIGSEGV", 0x10,
    ),
    "coredumpctl": (
        """\
        Signal: 7 (BUS)
                Stack trace of thread 4242:
                #0  0x000055e3c21b1a4f f (app + 0x31a4f)
                #1  0x000055e3c21b0f21 n/a (libx.so (deleted) + 0x30f21)
""",
        ["f", None], "SIGBUS", None,
    ),
    "android": (
        """\
signal 11 (SIGSEGV), code 1 (SEGV_MAPERR), fault addr 0x0001000100000003
    x0  0001000100000003  x1  0000007ac7c160f0
backtrace:
      #00 pc 0000000000012345  /data/app/lib/arm64/libapp.so (f(int)+88) (BuildId: 0123abcd)
      #01 pc 0000000000012355  /data/app/lib/arm64/libapp.so (BuildId: 0123abcd)
      #02 pc 0x9c2370 libapp.so (g + 12)
""",
        ["f", None, "g"], "SIGSEGV", 0x1000100000003,
    ),
    "valgrind": (
        """\
==77== Invalid read of size 8
==77==    at 0x109F00: before (a.c:1)
==77==
==77== Process terminating with default action of signal 11 (SIGSEGV)
==77==  Access not within mapped region at address 0x20
==77==    at 0x109A2B: f (a.c:12)
==77==    by 0x109B00: ??? (in /usr/bin/app)
""",
        ["f", None], "SIGSEGV", 0x20,
    ),
    "sanitizer": (
        """\
==8==ERROR: AddressSanitizer: SEGV on unknown address (pc 0x56 bp 0x0 sp 0x7fff373dd3b0 T0)
    #0 0x56109e1394cd in f(int, char*) /src/a.c:3:5
    #1 0x56109e1394dd in g (app+0x10c4cd) (BuildId: 7f08)
    #2 0x56109e1394ed  (app+0x10c4dd)
""",
        ["f", "g", None], "SIGSEGV", None,
    ),
    "llvm": (
        """\
Stack dump:
0.\tProgram arguments: ./app
 #0 0x00 llvm::sys::PrintStackTrace(llvm::raw_ostream&, int) (/b/app+0x31a4f)
 #1 0x01 SignalHandler(int) Signals.cpp:0:0
 #2 0x02 (/lib/x86_64-linux-gnu/libc.so.6+0x42d90)
 #3 0x03 f(int) /src/a.cpp:3:5
 #4 0x04 (/b/app+0x307aa)
""",
        ["f", None], "", None,
    ),
    "minidump": (
        """\
Crash reason:  SIGSEGV / SEGV_MAPERR
Crash address: 0x40
Thread 0
 0  libc.so.6!poll + 0x4f
Thread 3 worker (crashed)
 0  app!f(int) [a.cpp : 12 + 0x5]
    rax = 0x0000000000000040   rdx = 0x0000000000000000
 1  app + 0x1234
""",
        ["f", None], "SIGSEGV", 0x40,
    ),
    "windbg": (
        """\
(1a2c.3b4c): Access violation - code c0000005 (first chance)
rax=0001000100000003 rbx=0000000000000000
Attempt to read from address 0000000000000050
 # Child-SP          RetAddr               Call Site
00 000000d5`12345678 00007ff6`12345678     app!f+0x58 [C:\\src\\a.c @ 12]
0a 000000d5`12345698 00007ff6`12345688     app+0x1234
""",
        ["f", None], "SIGSEGV", 0x50,
    ),
    "drmingw": (
        """\
app.exe caused an Access Violation at location 00007FF6E989158E in module app.exe Reading from location 0000000000000050.

AddrPC           Params
00007FF6E989158E 0000000000000000 00007FF6E9897668 0000000000000000  app.exe!f  [C:\\a.c @ 2]
00007FF6E98913D7 0000000000000000 0000000000000000 0000000000000000  app.exe
""",
        ["f", None], "SIGSEGV", 0x50,
    ),
    "swift": (
        """\
*** Program crashed: Bad pointer dereference at 0x0000000000000060 ***
Thread 0 crashed:
0      0x0000000100003f5c f(_:) + 88 in app at /src/a.swift:3:1
1 [ra] 0x0000000100003f6c <unknown> in app
""",
        ["f", None], "SIGSEGV", 0x60,
    ),
    "macos": (
        """\
Exception Type:        EXC_BAD_ACCESS (SIGSEGV)
Exception Codes:       KERN_INVALID_ADDRESS at 0x0000000000000070
Thread 0:
0   libsystem_kernel.dylib        \t0x00000001d96df334 mach_msg_trap + 8
Thread 1 Crashed:: Dispatch queue
0   evtx_dump                     \t0x0000000104f80000 f + 88 (a.c:3)
1                                 \t0x0000000104b1489e 0x104932000 + 1976478
""",
        ["f", None], "SIGSEGV", 0x70,
    ),
    "glibc": (
        """\
error: rustc interrupted by SIGSEGV, printing backtrace
/lib/librustc_driver-1.so(+0x8a1)[0x7f1a00000001]
/lib/librustc_driver-1.so(_ZN4f17h0E+0x12)[0x7f1a00000002]
""",
        [None, "_ZN4f17h0E"], "SIGSEGV", None,
    ),
    "java": (
        """\
#  SIGSEGV (0xb) at pc=0x00007f1a00000001, pid=1, tid=2
# C  [libapp.so+0x1234]  f+0x58
#
---------------  T H R E A D  ---------------

Native frames: (J=compiled Java code, C=native code)
C  [libapp.so+0x1234]  f+0x58
C  [libapp.so+0x2234]
siginfo: si_signo: 11 (SIGSEGV), si_code: 1 (SEGV_MAPERR), si_addr: 0x0000000000000080
""",
        ["f", None], "SIGSEGV", 0x80,
    ),
    "julia": (
        """\
[3585] signal 11 (1): Segmentation fault
in expression starting at REPL[5]:1
f at /src/a.c:12 [inlined]
unknown function (ip: 0x7f20c343d51d) at /lib/libapp.so
g at /lib/libapp.so (unknown line)
Allocations: 14513031 (Pool: 14512010; Big: 1021); GC: 10
""",
        ["f", None, "g"], "SIGSEGV", None,
    ),
    "go": (
        """\
fatal error: unexpected signal during runtime execution
[signal SIGSEGV: segmentation violation code=0x1 addr=0x90 pc=0x47e0e5]

goroutine 1 [syscall]:
runtime.cgocall(0x47e0a0, 0xc00004ee98)
\t/usr/local/go/src/runtime/cgocall.go:157 +0x5c
main.main()
\t/src/main.go:9 +0x18
""",
        [None, "runtime.cgocall", "main.main"], "SIGSEGV", 0x90,  # C's own are not shown
    ),
    "python": (
        """\
Fatal Python error: Segmentation fault

Current thread 0x00007f1a (most recent call first):
  File "a.py", line 3 in f

""",
        [None], "SIGSEGV", None,
    ),
    "rust": (
        """\
thread 'main' panicked at src/main.rs:2:5:
stack backtrace:
   0: rust_begin_unwind
             at /rustc/0123/library/std/src/panicking.rs:665:5
   1: app::main
note: some details are omitted
""",
        ["rust_begin_unwind", "app::main"], "", None,
    ),
    "kernel": (
        "[ 77.1] app[812]: segfault at a0 ip 00007f105556563b sp 00007f105a00e090 error 4 in app[1+2]\n",
        [], "SIGSEGV", 0xA0,
    ),
    "backward": (
        """\
Stack trace (most recent call last):
#2    Object "/app", at 0x55d3f0a04e4d, in _start
#1    Source "/src/main.cpp", line 31, in main [0x55d3f0a05102]
        29: int main() {
        30:   Config config;
      > 31:   f(config);
#0    Source "/src/config.cpp", line 9, in f [0x55d3f0a05002]
Segmentation fault (Address not mapped to object [0x8])
""",
        ["f", "main", "_start"], "SIGSEGV", 0x8,
    ),
    "gdb-mi": (
        r"""
~"\nProgram"
~" received signal SIGSEGV, Segmentation fault.\n"
*stopped,reason="signal-received",signal-name="SIGSEGV",frame={addr="0x401136",func="f",args=[]}
^done,stack=[frame={level="0",addr="0x401136",func="f",from="libx.so"},frame={level="1",addr="0x401150"}]
""",
        ["f", None], "SIGSEGV", None,
    ),
    "xcode": (
        """\
Thread 1: EXC_BAD_ACCESS (code=1, address=0x1000100000003)

    Thread 1 Queue: com.apple.main-thread (serial)
      0 f
      1 -[Thing close]
      2 start
""",
        ["f", "-[Thing close]", "start"], "SIGSEGV", 0x1000100000003,
    ),
    "libc": ("free(): invalid pointer\nbash: line 1:  5714 Aborted                 ./app\n",
             [], "SIGABRT", None),
}  # fmt: skip


def test_each_shape_has_a_text_and_says_where_it_is_described() -> None:
    assert TEXTS.keys() == shapes.load().keys()
    assert all(len(shape.source) > 20 for shape in shapes.load().values())


@pytest.mark.parametrize("name", TEXTS)
def test_a_shape_is_read(name: str) -> None:
    text, functions, signal, address = TEXTS[name]
    report = reports._read(f"a line of a log\n\n{text}\nanother\n")
    assert report.crash
    assert [frame.function or None for frame in report.crash.frames] == functions
    assert (report.crash.signal, report.crash.fault_address) == (signal, address)
    assert report.rests == tuple(sorted(report.rests))
    assert all(report.lines[n] for n in report.rests)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("prefix", ["> ", "2025-03-17T10:00:00.1234567Z ", "    ", "\x1b[1m"])
def test_what_surrounds_lines_is_left_out(name: str, prefix: str) -> None:
    text, functions, *_ = TEXTS[name]
    wrapped = "".join(f"{prefix}{line}\r\n" for line in text.splitlines())
    report = reports._read(f"```\n{wrapped}\n```\n")
    assert report.crash
    assert [frame.function or None for frame in report.crash.frames] == functions


def test_what_is_written_over_is_no_line_of_its_own() -> None:
    report = reports._read(f"one\rsection_start:1:build\r\x1b[0K\r\n{TEXTS['lldb'][0]}")
    assert report.lines[0] == ""
    assert report.crash and report.crash.function == "f" and report.rests[0] == 1


def test_a_line_of_sixteen_megabytes_takes_no_second_longer() -> None:
    report = reports._read("a" * (16 << 20) + "\n" + TEXTS["gdb"][0])
    assert report.crash and len(report.lines[0]) == 1000


def test_the_first_fatal_stop_counts_and_of_threads_the_one_that_crashed() -> None:
    first, other = TEXTS["gdb"][0], TEXTS["gdb"][0].replace("push_back", "pop_back")
    report = reports._read(first + other)
    assert report.crash and report.crash.function.endswith("push_back")
    threads = """\
Thread 2 "app" received signal SIGSEGV, Segmentation fault.
Thread 1 (Thread 0x7f (LWP 1)):
#0  0x01 in wait4 () from libc.so.6
#1  0x02 in main ()
Thread 2 (Thread 0x7e (LWP 2)):
#0  0x03 in f ()
#1  0x04 in start_thread ()
"""
    report = reports._read(threads)
    assert report.crash and [frame.function for frame in report.crash.frames] == [
        "f",
        "start_thread",
    ]


def test_a_handler_that_waits_is_above_the_crash_and_one_that_crashes_is_it() -> None:
    text = "Program terminated with signal SIGSEGV\n#0  0x01 in {} ()\n#1  <signal handler called>\n#2  0x02 in f ()\n"
    for innermost, function in (("raise", "f"), ("waitpid", "f"), ("_int_malloc", "_int_malloc")):
        report = reports._read(text.format(innermost))
        assert report.crash and report.crash.function == function


def test_ten_thousand_frames_are_read_to_the_first_sixty_four() -> None:
    rows = "\n".join(f"#{n}  0x00007fff0000{n:04x} in f (n={n}) at a.c:3" for n in range(10_000))
    report = reports._read(f"Program received signal SIGSEGV, Segmentation fault.\n{rows}")
    assert report.crash and len(report.crash.frames) == 64


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-8-sig"])
def test_what_windows_writes_is_read(coding: str) -> None:
    text = reports._text(TEXTS["windbg"][0].encode(coding), "it")
    assert re.match(r"\(1a2c", text.removeprefix("\ufeff"))
