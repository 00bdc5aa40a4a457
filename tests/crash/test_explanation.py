"""Specification of nbsupport.crash.explanation: real crashes, rebuilt reports, and what is none."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from nbsupport.base import settings
from nbsupport.base.errors import LabError
from nbsupport.cli import commands, terminal
from nbsupport.crash import explanation, reports, runtime
from nbsupport.crash.crash import Crash, Frame
from nbsupport.crash.explanation import Explanation, explain
from nbsupport.crash.facts import from_report, value_words
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.studies import observations, sources
from tests.crash import test_shapes
from tests.support import hostile

WRITER = ["initializeValueProfRuntimeRecord", "writeOneValueProfData", "lprofWriteDataImpl",
          "lprofWriteData", "writeFile", "__llvm_profile_write_file"]  # fmt: skip
SITE = ["__llvm_profile_instrument_target", "library_step", "main"]


#: Runs a program as a person would, saves a core, looks or not; returns what the debugger says.
Debug = Callable[..., str]


@pytest.fixture(params=["lldb", "gdb"])
def debug(request: pytest.FixtureRequest, tmp_path: Path) -> Debug:
    start, ask, save, looks = {
        "lldb": (("--no-lldbinit", "-b", "-o", "run"), "-k", "process save-core",
                 ("bt", "register read", "disassemble --pc --count 1")),
        "gdb": (("-nx", "-batch", "-ex", "run"), "-ex", "generate-core-file",
                ("bt", "info registers", "x/i $pc")),
    }[request.param]  # fmt: skip

    def run(program: Path, core: Path | None = None, look: bool = True) -> str:
        commands = (*(looks if look else looks[:1]), *([f"{save} {core}"] if core else []))
        asked = [part for command in commands for part in (ask, command)]
        env = {"PATH": os.environ["PATH"], "LLVM_PROFILE_FILE": str(tmp_path / "x.profraw")}
        argv = [str(request.getfixturevalue(request.param)), *start, *asked, str(program)]
        return subprocess.run(argv, capture_output=True, text=True, env=env, check=False).stdout

    return run


def linked(lab: Lab, program: str, foreign: str = "17", **options: str) -> Path:
    return build.linked(lab.trial(program, "19", foreign, **options), settings.cache_dir())


def test_a_script_finds_these_keys(tmp_path: Path) -> None:
    message = "Runtime and instrumentation version mismatch : expected 8, but get 10"
    assert list(judged(tmp_path, message).to_json()) == [
        "verdict", "certainty", "face", "why", "advice", "record", "problems",
        "signal", "frames", "instruction", "registers", "fault_address", "fault_address_from", "exception", "words", "causes", "lines",
    ]  # fmt: skip


def judged(folder: Path, text: str, binary: Path | None = None) -> Explanation:
    (folder / "report").write_text(text)
    return explain(folder / "report", binary)


#: What leaves C and C++ out of a profile.
OFF = "CFLAGS=-fno-profile-generate CXXFLAGS=-fno-profile-generate"


def verdict(found: Explanation) -> tuple[str, str, str | None]:
    return found.verdict, found.certainty, found.face


def lldb_text(*functions: str, stop: str = "EXC_BAD_ACCESS (code=1, address=0x0)") -> str:
    """Return what LLDB prints on a Mac."""
    frames = (f"    frame #{n}: 0x{0x100003F5C + n:016x} app`{f}" for n, f in enumerate(functions))
    return "\n".join((f"* thread #1, stop reason = {stop}", *frames))


@pytest.mark.parametrize("program", ["cold", "hot"])
def test_a_real_crash(lab: Lab, debug: Debug, tmp_path: Path, program: str) -> None:
    face, frames = ("at exit", WRITER) if program == "cold" else ("in main", SITE)
    found = judged(tmp_path, debug(linked(lab, program)))
    assert verdict(found) == ("ours", "shown", face)
    assert [frame.function for frame in found.crash.frames[: len(frames)]] == frames
    assert found.crash.fault_address_from == "registers"
    assert f"NumCounters {3 if program == 'cold' else 2}, NumValueSites 1, 1" in found.why
    assert ("8 by 10, 9 by 8, 9 by 11" in found.why, found.record) == (True, None)
    assert f"Rebuild with {OFF}, or CC a clang" in found.advice


@pytest.mark.parametrize("program", ["cold", "hot"])
@pytest.mark.parametrize("look", [True, False])
def test_with_the_program(lab: Lab, debug: Debug, tmp_path: Path, program: str, look: bool) -> None:
    image = linked(lab, program)
    found = judged(tmp_path, debug(image, look=look), image)
    assert (found.verdict, found.certainty) == ("ours", "shown")
    assert "raw version 10 (LLVM 19 to 22) walks records of raw version 8" in found.why
    assert found.advice.startswith("Rebuild")
    problems = () if look else ("which record it read is not clear",)  # nothing leads to it
    assert found.problems == problems
    value = "0x1000100000003" if program == "cold" else "0x1000100000002"
    record = ["library_step", 192, 48, [4, 5, 6, 7, 8], value]  # after three records of main
    assert list((found.record or {}).values()) == (record if look else [])


def test_a_program_that_is_not_mixed_is_acquitted(lab: Lab, debug: Debug, tmp_path: Path) -> None:
    text = debug(linked(lab, "cold"))
    for foreign, options in (("19", {}), ("17", {"instrument": "none"})):
        found = judged(tmp_path, text, linked(lab, "cold", foreign, **options))
        assert verdict(found) == ("not-ours", "shown", None)
        assert "is not mixed: all records are laid out as the runtime" in found.why


@pytest.mark.parametrize("named", [True, False])
def test_a_core_file(lab: Lab, debug: Debug, tmp_path: Path, named: bool) -> None:
    image, core = linked(lab, "cold"), tmp_path / "core"
    debug(image, core)
    found = explain(core, image if named else None)
    assert verdict(found) == ("ours", "shown", "at exit")
    assert [frame.function for frame in found.crash.frames[:6]] == WRITER
    assert found.crash.frames[0].offset
    assert found.crash.fault_address == 0x1000100000003
    assert (found.record or {}).get("function") == ("library_step" if named else None)


@pytest.mark.parametrize(("source", "why"), [
    ("int main(int n, char **v) { return *(volatile int *)(long)(n - 1); }", "main is not of"),
    ("#include <stdlib.h>\nint main(void) { abort(); }", "ended itself"),
    ("int f(volatile int *p) { volatile int q[99]; q[5] = *p; return f(q) + q[5]; }\n"
     "int main(void) { int n = 0; return f(&n); }", "stack overflow"),
])  # fmt: skip
def test_its_own_crash(clang: Path, debug: Debug, tmp_path: Path, source: str, why: str) -> None:
    (tmp_path / "own.c").write_text(source)
    flags = ["-w", "-O1", "-fno-optimize-sibling-calls", "-fprofile-generate"]
    subprocess.run([clang, *flags, "own.c", "-o", "own"], cwd=tmp_path, check=True)
    found = judged(tmp_path, debug(tmp_path / "own"))
    assert (*verdict(found), why in found.why) == ("not-ours", "shown", None, True)
    assert judged(tmp_path, debug(tmp_path / "own"), tmp_path / "own").verdict == "not-ours"


def test_the_users_own_observations(tmp_path: Path) -> None:
    # The notes have no registers: a function and a null address prove nothing yet.
    told = {row.id: row.value for row in observations.load()}
    before = lldb_text(*SITE * 4, stop="breakpoint 1.1")
    offset = told["offset"].removeprefix("about ")
    text = lldb_text(f"{told['function']} + {offset}", *WRITER[1:], "exit")
    found = judged(tmp_path, f"{before}\n{text}")
    assert verdict(found) == ("ours", "likely", "at exit")
    assert [found.crash.frames[0].offset, found.crash.fault_address] == [88, 0]
    assert "null proves nothing" in found.why
    assert f"pgo-lab audit PROGRAM; or build with {OFF}: does it still crash?" in found.advice


MISMATCH = "LLVM Profile Error: Runtime and instrumentation version mismatch : expected 10, but get 8"  # fmt: skip
OURS, OTHER = ("ours", "likely", None), ("not-ours", "likely", None)
UNKNOWN, MESSAGE = ("unknown", "likely", None), ("no-crash", "likely", None)
STALE = lldb_text(*SITE, stop="EXC_BAD_ACCESS (code=1, address=0x7f10c4a01234)")


@pytest.mark.parametrize(("text", "expected", "why"), [
    # mise PR 11129, cargo-pgo issue 68: Apple's clang came first on the link line.
    (f"2025-03-17T10:00:00.1Z run 3\n2025-03-17T10:00:01.2Z {MISMATCH}\n",
     ("ours", "shown", "version message"), "(LLVM 19 to 22 and LLVM 14 to 17)"),
    # llvm-project issue 52683: what such a run leaves does not merge.
    ("warning: d.profraw: malformed instrumentation profile data", MESSAGE, "profile"),
    # newrelic-ios-agent-spm issue 64: objects of an older Xcode.
    ("error: raw profile version mismatch: Profile uses raw profile format version = 8; expected "
     "version = 10", MESSAGE, "raw version 8, which is LLVM 14 to 17"),
    # findings 5b: the second run of a program that crashed in the first.
    ("LLVM Profile Warning: Unable to merge profile data: source profile file is not compatible.",
     MESSAGE, "profile"),
    # aube PRs 582, 589, 590: a log without a place.
    ("RUSTFLAGS=-Cprofile-generate=/p\ndid not exit (signal: 11, SIGSEGV: …)", UNKNOWN, "nothing says"),
    ("error: d.profraw: truncated profile data\nSegmentation fault", UNKNOWN, "nothing says where. The"),
    # electron issue 51872: continuous mode; nothing but the setting tells it from ours.
    (f"LLVM_PROFILE_FILE=/p/%c%4m.profraw\n{STALE}", OTHER, "continuous"),
    (STALE, ("ours", "likely", "in main"), "0x7f10c4a01234 does not spell counts"),
    # sen issue 192: the process was killed as it wrote.
    ("error: d.profraw: invalid instrumentation profile data (file header is corrupt)", MESSAGE, ""),
    # cc-rs issue 1354: gcc got the flags.
    ("ld: undefined reference to `__gcov_init'", MESSAGE, "gcov"),
    # findings 8b: malloc itself is instrumented, and is called before main.
    (lldb_text(f"_{SITE[0]} [inlined] g(n=1) at a.c:2", f"_{SITE[0]}(n=1)", "_mi_page_malloc",
               "strdup", "___llvm_profile_initialize"), ("ours", "likely", "before main"), "null"),
    # The C library's copy is innermost, what it copies is the runtime's.
    (lldb_text("_platform_memmove", *WRITER), ("ours", "likely", "at exit"), "platform"),
    # x86 does not tell the address: the instruction and the registers do.
    (lldb_text(*WRITER, stop="SIGSEGV: invalid address (fault address: 0x0)")
     + "\n->  0x100003f5c <+88>: cmpq $0x0, (%rax)\nrax = 0x0001000100000001",
     ("ours", "shown", "at exit"), "NumCounters 1,"),
    (f"\x1b[1m{lldb_text('free', 'main')}".replace("   f", "\x1b[1m   f"),
     ("not-ours", "shown", None), "free is not"),
    (lldb_text("??", stop="EXC_BAD_ACCESS (code=1, address=0x1000100000001)"), OURS, "NumCounters"),
    (lldb_text("___lldb_unnamed_symbol1 + 8", "main"), UNKNOWN, "no name"),
    # A shape that nobody knows, in which names of the runtime stand.
    (f"crashed: {' <- '.join(WRITER)}", UNKNOWN, "initializeValueProfRuntimeRecord"),
    # A stack of macOS as the program exits has dyld's start on it, and no main.
    (lldb_text(*WRITER, "exit", "dyld4::LibSystemHelpers::exit", "start"),
     ("ours", "likely", "at exit"), "null"),
    (lldb_text(*WRITER, "dyld4::Loader::runInitializersBottomUp", "start"),
     ("ours", "likely", "before main"), "null"),
    # What the runtime calls, and what of it reads no records.
    (lldb_text("open", "lprofOpenFileEx", "writeFile", "main"), OTHER, "called (in lprofOpenFileEx)"),
    (lldb_text("lprofCreateBufferIO", "writeFile", "main"), OTHER, "reads no records"),
])  # fmt: skip
def test_public_reports(tmp_path: Path, text: str, expected: tuple[str, ...], why: str) -> None:
    found = judged(tmp_path, text)
    assert verdict(found) == expected
    assert why in found.why


@pytest.mark.parametrize(("rule", "text"), [
    ("version message", MISMATCH), ("died somewhere", "-fprofile-generate\nSegmentation fault"),
    ("names alone", "it dies in __llvm_profile_dump"),
    ("panic", "thread 'main' panicked at a.rs:1:2:\nstack backtrace:\n   0: f\n"),
    ("sanitizer's finding", "==1==ERROR: AddressSanitizer: heap-use-after-free on address 0x602\n"
     "    #0 0x5500 in f a.c:3:4\n"),
    ("compiler", "Stack dump:\n0.\tProgram arguments: /b/clang -c a.c\n #0 0x5500 f() a.cpp:1:2\n"),
    ("no wrong address", lldb_text("??", "main", stop="signal SIGILL")),
    ("in the runtime, no records", lldb_text("__llvm_profile_get_filename", "main")),
    ("called by the runtime", lldb_text("open", "lprofOpenFileEx", "main")),
    ("in the runtime, address not told", lldb_text(*WRITER, stop="signal SIGSEGV")),
    ("stack overflow", "thread main has overflowed its stack\n" + lldb_text("f", "main")),
    ("stack overflow", lldb_text("f", stop="EXC_BAD_ACCESS (code=1, address=0x16f5f7ff0)")
     + "\nrsp = 0x16f5f8000"),
    ("abort", lldb_text("abort", "main", stop="signal SIGABRT")),
    ("outside the runtime", lldb_text("free", "main")),
    ("records misread", lldb_text(*WRITER, stop="EXC_BAD_ACCESS (code=1, address=0x1000100000001)")),
    ("records misread, it seems", lldb_text("??", stop="EXC_BAD_ACCESS (code=1, address=0x1000100000001)")),
    ("no name", lldb_text("??", "main")), ("known bug", f"%c.profraw\n{STALE}"),
    ("in the runtime", STALE), ("in the runtime, at null", lldb_text(*WRITER)),
])  # fmt: skip
def test_each_rule_decides_what_it_is_for(rule: str, text: str) -> None:
    facts = from_report(reports._read(text), None, "PROGRAM")
    assert next(name for name, known in explanation.rules().items() if known.decides(facts)) == rule


def test_every_rule_speaks_of_facts_that_there_are() -> None:
    facts = from_report(reports._read(""), None, "PROGRAM")
    told = dict.fromkeys(facts, "what")
    for name, rule in explanation.rules().items():
        assert {fact.removeprefix("not ") for fact in rule.when} <= facts.keys(), name
        assert rule.why.format_map(told) and rule.advice.format_map(told), name


def test_a_mixed_program_alone_is_no_reason_where_no_frame_has_a_name(
    lab: Lab, tmp_path: Path
) -> None:
    text = lldb_text("??", "main", stop="EXC_BAD_ACCESS (code=1, address=0x0)")
    answer = judged(tmp_path, text, linked(lab, "cold"))
    assert verdict(answer) == UNKNOWN and "the program is mixed" in answer.why


def test_a_program_that_is_not_the_one_that_crashed_is_asked_about(
    lab: Lab, debug: Debug, tmp_path: Path
) -> None:
    answer = judged(tmp_path, debug(linked(lab, "cold")), linked(lab, "cold", "19"))
    assert answer.problems[-1].endswith("the program that crashed?")


VERSIONS = (
    "error: raw profile version mismatch: Profile uses raw profile format version = 8; "
    "expected version = 10\n"
)


def test_the_audit_of_the_program_is_used_for_a_message_too(lab: Lab, tmp_path: Path) -> None:
    alone = judged(tmp_path, VERSIONS)
    assert verdict(alone) == MESSAGE
    assert any(cause.mix for cause in alone.causes)
    mixed = judged(tmp_path, VERSIONS, linked(lab, "cold", "17"))
    assert verdict(mixed) == OURS and "raw version 10" in mixed.why
    assert mixed.causes[0].mix and "-fno-profile-generate" in mixed.advice
    fine = judged(tmp_path, VERSIONS, linked(lab, "cold", "19"))
    assert verdict(fine) == MESSAGE and "is not mixed" in fine.why
    assert not any(cause.mix for cause in fine.causes) and len(fine.causes) < len(alone.causes)


def test_a_line_to_paste_has_a_line_of_its_own(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = judged(tmp_path, VERSIONS, target / "release" / "tiny")
    terminal.explanation(mixed)
    shown = capsys.readouterr().out.splitlines()
    (number,) = [n for n, line in enumerate(shown) if line.startswith("CFLAGS_")]
    assert shown[number].endswith(" cargo build --release")
    assert shown[number - 1].startswith("do: Leave the C code out")
    assert mixed.to_json()["advice"].count("\n") >= 2


def test_a_coverage_build_gets_advice_of_its_own(tmp_path: Path) -> None:
    plain = judged(tmp_path, VERSIONS)
    coverage = judged(tmp_path, f"clang -fcoverage-mapping\n{VERSIONS}")
    assert [cause.why for cause in plain.causes] == [cause.why for cause in coverage.causes]
    assert [cause.do for cause in plain.causes] != [cause.do for cause in coverage.causes]


@pytest.mark.parametrize(("bug", "text"), [
    ("binary ids", lldb_text("__llvm_write_binary_ids", "lprofWriteDataImpl", "exit")),
    ("signal handler", "Program received signal SIGSEGV\n#0  0x01 in malloc ()\n#1  0x02 in writeFile ()\n"
     "#2  0x03 in __llvm_profile_write_file ()\n#3  0x04 in on_term (sig=15) at a.c:4\n"
     "#4  <signal handler called>\n#5  0x05 in free ()\n"),
    ("continuous mode", f"LLVM_PROFILE_FILE=/p/%c%4m.profraw\n{STALE}"),
    ("two writers", "Thread 1 \"app\" received signal SIGSEGV\n\nThread 2 (LWP 2):\n"
     "#0  0x01 in write ()\n#1  0x02 in writeFile ()\n#2  0x03 in __llvm_profile_write_file ()\n\n"
     "Thread 1 (LWP 1):\n#0  0x04 in initializeValueProfRuntimeRecord ()\n"
     "#1  0x05 in lprofWriteData ()\n#2  0x06 in __llvm_profile_write_file ()\n"),
    ("mapping cut", lldb_text("memcpy", "lprofMergeValueProfData", "main", stop="signal SIGBUS")),
    ("no section bounds", lldb_text("__llvm_profile_register_function", "__llvm_profile_init")),
])  # fmt: skip
def test_a_known_bug_is_told_with_what_tells_it_apart(tmp_path: Path, bug: str, text: str) -> None:
    known = runtime.known_bugs()[bug]
    found = judged(tmp_path, text)
    assert verdict(found) == OTHER
    assert known.why in found.why and known.reference in found.why and found.advice == known.test


def test_functions_that_read_records_are_those_of_the_sources() -> None:
    fields = {
        "Values",
        "NumValueSites",
        "NumCounters",
        "NameRef",
        "FuncHash",
        "CounterPtr",
        "BitmapPtr",
    }
    lists, names = runtime.readers(), set[str]()
    listed = lists["sites"] | lists["walks"] | lists["one"]
    for structure in sources.recorded():
        functions = {f.name.lstrip("_"): f for f in structure.functions}
        names |= functions.keys()
        readers = {name for name, f in functions.items() if fields & set(f.reads)}
        assert readers <= listed, structure.version
        value_sites = {
            name for name, f in functions.items() if "instrumentTargetValueImpl" in f.calls
        }
        assert value_sites <= lists["sites"], structure.version
        walkers = {functions[name].name for name in lists["walks"] & functions.keys()}
        for name in walkers - {functions[reader].name for reader in readers}:
            near = ((one, other) for other in walkers - {name} for one in (name,))
            assert any(structure.path(*way) or structure.path(*way[::-1]) for way in near), name
    assert listed - names == {"llvm_profile_instrument_range"}  # of LLVM 11 and before
    assert lists["others"] - names == {
        *("llvm_profile_init", "llvm_profile_runtime_user", "llvm_profile_instrument_gpu"),
        *("llvm_profile_set_timestamp", "llvm_profile_override_default_filename"),
    }
    own = {name for name in names if name.startswith(("llvm_profile_", "lprof"))}
    assert own <= runtime.functions()


@pytest.mark.parametrize(("address", "spelled"), [
    (0x0001_0001_0000_0001, "NumCounters 1, NumValueSites 1, 1"),
    (0x0001_0031_0000_077E, "NumCounters 1918, NumValueSites 49, 1"),  # orjson's yyjson
    (0x1_0000_0004, "NumCounters 4, NumValueSites 1, 0"),  # seen on arm64, as the next
    (0x9, None),
    (0x10, None),  # a field of what null points at
    (0x1_0496_0000, None),  # an address of a program
    (0x6000_0000_1230, None),  # of a Mac's heap
    (0x7FFF_F7D0_C9F8, None),  # of a library
])  # fmt: skip
def test_an_address_that_spells_a_record(tmp_path: Path, address: int, spelled: str | None) -> None:
    stop = f"EXC_BAD_ACCESS (code=1, address={address:#x})"
    found = judged(tmp_path, lldb_text(*WRITER, stop=stop))
    assert found.certainty == ("shown" if spelled else "likely")
    assert (spelled or "does not spell") in found.why


# From Apple's documentation: no such report of a real Mac is at hand.
def ips() -> dict[str, Any]:
    base, address = 0x104F7C000, 0x0001_0001_0000_0001
    frames = [{"imageOffset": 0x4000 + n, "imageIndex": 1, "symbol": f, "symbolLocation": 88 + n}
              for n, f in enumerate(WRITER)]  # fmt: skip
    return {
        "exception": {"type": "EXC_BAD_ACCESS", "signal": "SIGSEGV", "codes": "0x1, 0x0",
                      "subtype": f"KERN_INVALID_ADDRESS at 0x{address:016x}"},
        "faultingThread": 1,
        "threads": [{"frames": []}, {"triggered": True, "frames": frames, "threadState": {
            "x": [{"value": address}, {"value": 7}], "pc": {"value": base + 0x4000},
            "far": {"value": address}, "flavor": "ARM_THREAD_STATE64"}}],
        "usedImages": [{"base": 0x180000000, "name": "dyld"}, {"base": base, "name": "evtx_dump"}],
    }  # fmt: skip


CRASH = """\
Exception Type:        EXC_BAD_ACCESS (SIGSEGV)
Exception Codes:       KERN_INVALID_ADDRESS at 0x0001000100000001

Thread 0:
0   libsystem_kernel.dylib        \t0x00000001d96df334 mach_msg_trap + 8

Thread 1 Crashed:: Dispatch queue: com.apple.main-thread
0   evtx_dump                     \t0x0000000104f80000 initializeValueProfRuntimeRecord + 88
1   evtx_dump                     \t0x0000000104f80001 writeOneValueProfData + 89

Thread 1 crashed with ARM Thread State (64-bit):
    x0: 0x0001000100000001   x1: 0x0000000000000007
   far: 0x0001000100000001   pc: 0x0000000104f80000
"""


@pytest.mark.parametrize("text", [
    '{"app_name":"evtx_dump","bug_type":"309"}\n' + json.dumps(ips(), indent=1), CRASH,
])  # fmt: skip
def test_a_macos_report(tmp_path: Path, text: str) -> None:
    found = judged(tmp_path, text)
    assert verdict(found) == ("ours", "shown", "at exit")
    assert (found.crash.signal, found.crash.fault_address) == ("SIGSEGV", 0x1000100000001)
    assert found.crash.frames[:2] == tuple(Frame(WRITER[n], 88 + n, "evtx_dump") for n in (0, 1))
    assert (found.crash.registers["x1"], found.crash.registers["pc"]) == (7, 0x104F80000)


@pytest.mark.parametrize(("content", "why"), [
    (b"", "it is empty"), (b"\x7fELF\x02\x01" + bytes(99), "not text"),
    (bytes(range(256)), "not text"), (b"all is well\n", "no crash in it"),
    (b'{"bug_type":"309"}\n' + json.dumps(ips()).encode()[:-50], "cut off"),
    (b'{"bug_type":"210"}\n{"threads": 3}', "not of a crash"),
    (b'{"bug_type":' + b"[" * 100_000, "cut off"),
    (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\0" + bytes(99), "the debugger says"),
    (None, "not a regular file"),
])  # fmt: skip
def test_what_is_no_report(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "report"
    os.mkfifo(path) if content is None else path.write_bytes(content)
    with pytest.raises(LabError, match=why) as caught:
        explain(path)
    assert ("give " in caught.value.do, "\n" in str(caught.value)) == (True, False)
    for other, refusal in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(LabError, match=refusal):
            explain(other)


def test_only_a_word_that_the_instruction_names_is_taken_for_values(
    lab: Lab, debug: Debug, tmp_path: Path
) -> None:
    image = linked(lab, "cold")
    text = debug(image)
    assert judged(tmp_path, text, image).record
    # The same registers; but the instruction reads what none of them points at.
    other = re.sub(r"((?:->|=>).*:\s+)\S.*", r"\1movq (%rip), %rax", text)
    assert other != text
    answer = judged(tmp_path, other, image)
    assert answer.record is None
    assert answer.problems == ("which record it read is not clear",)


def test_another_register_is_not_taken_for_values() -> None:
    registers = {"rbx": 0x1000100000003, "rcx": 0x100010000000B, "rdx": 0x1000100000013}
    crash = Crash("SIGSEGV", (), "mov rax, qword ptr [rbx + 0x10]", registers, 0x1000100000013)
    assert value_words(crash) == [registers["rbx"], 0x1000100000013]


def test_a_record_is_of_the_image_that_crashed(lab: Lab, debug: Debug, tmp_path: Path) -> None:
    image = linked(lab, "cold")
    text = debug(image)
    place = reports._read(text).place
    assert place and judged(tmp_path, text, image).record
    # The same record and registers; but the crash is far from where that image would be.
    elsewhere = text.replace(f"{place:x}", f"{place + (1 << 44):x}")
    assert judged(tmp_path, elsewhere, image).record is None


@hypothesis.given(st.data())
def test_nothing_but_a_lab_error(data: st.DataObject) -> None:
    parts = st.sampled_from([CRASH, json.dumps(ips()), lldb_text(*WRITER), MISMATCH, '{"bug_type":1}\n',
                             "=> 0x1: mov %zz,(%rip) # q", "rip 0x1", "#0 0x1 in f (", "#9 g (",
                             *(text for text, *_ in test_shapes.TEXTS.values())])  # fmt: skip
    text = "\n".join(data.draw(st.lists(parts, max_size=3)))
    cut = data.draw(st.integers(0, len(text)))
    text = text[:cut] + data.draw(st.text(max_size=5)) + text[cut + data.draw(st.integers(0, 9)) :]
    text = data.draw(hostile.spoiled([text.encode()])).decode(errors="replace")
    try:
        report = reports._read(reports._from_json(text, "it"))
    except LabError:
        return
    facts = from_report(report, None, "PROGRAM")
    rule = next((one for one in explanation.rules().values() if one.decides(facts)), None)
    assert rule is None or rule.why.format_map(facts)


@pytest.mark.parametrize(("text", "verdict", "code"), [
    (CRASH, "ours", 0), (lldb_text("free", "main"), "not-ours", 1),
    ("error: d.profraw: truncated profile data", "no-crash", 1), ("Segmentation fault", "unknown", 2),
])  # fmt: skip
def test_each_verdict_has_an_exit_code_and_is_told_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, verdict: str, code: int
) -> None:
    (path := tmp_path / "report").write_text(text)
    assert commands.main(["explain", str(path), "--json"]) == code
    told = capsys.readouterr()
    assert json.loads(told.out)["verdict"] == verdict
    assert commands.main(["explain", str(path)]) == code
    shown = capsys.readouterr()
    assert shown.out.startswith(verdict)
    assert "do: " in shown.out or "  1. " in shown.out
    assert (told.err, shown.err) == ("", "")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def pgo_lab(*args: str | Path) -> int:
        return commands.main(["explain", *map(str, args)])

    (path := tmp_path / "report").write_text(CRASH)
    assert pgo_lab(path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["face"]) == ("ours", "at exit")
    assert list(found) == ["verdict", "certainty", "face", "why", "advice", "record", "problems",
                           "signal", "frames", "instruction", "registers", "fault_address",
                           "fault_address_from", "exception", "words", "causes",
                           "lines"]  # fmt: skip
    assert (found["fault_address"], found["registers"]["x1"]) == ("0x1000100000001", "0x7")
    assert pgo_lab(path) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("ours, shown, at exit: initializeValueProfRuntimeRecord read")
    assert shown[1] == "  #0 initializeValueProfRuntimeRecord + 88 (evtx_dump)"
    path.write_text(lldb_text("free", "main"))
    assert [pgo_lab(path), pgo_lab(path, "--binary", path)] == [1, 2]


@pytest.mark.parametrize("text", [
    "$ llvm-profdata merge -o app.profdata *.profraw\n$ ./app\nSegmentation fault (core dumped)\n",
    "$ ./app\nSegmentation fault (core dumped)\n$ llvm-profdata merge -o app.profdata *.profraw\n",
    "line 3:  12 Segmentation fault      ./app && llvm-profdata merge -o app.profdata a.profraw\n",
])  # fmt: skip
def test_a_program_that_dies_beside_llvm_profdata_is_not_it(tmp_path: Path, text: str) -> None:
    assert judged(tmp_path, text).verdict == "unknown"


#: A reader of profiles that died, below the frames of the handler that printed it; each parser of
#: backtraces has its own way to show these.
HANDLED = {
    "llvm, without names": """\
Stack dump:
0.\tProgram arguments: llvm-profdata merge -o out.profdata a.profraw
 #0 0x000055d3c8a0f2c8 (/usr/bin/llvm-profdata+0x1f2c8)
 #1 0x000055d3c8a0d03e SignalHandler(int) Signals.cpp:0:0
 #2 0x00007f1d3c242520 (/lib/x86_64-linux-gnu/libc.so.6+0x42520)
 #3 0x000055d3c89c1111 llvm::RawInstrProfReader<unsigned long>::readValueProfilingData(llvm::InstrProfRecord&) (/usr/bin/llvm-profdata+0x1111)
 #4 0x000055d3c89c1333 main (/usr/bin/llvm-profdata+0x1333)
""",
    "macOS": """\
0  llvm-profdata            0x0000000104b3c2d0 llvm::sys::PrintStackTrace(llvm::raw_ostream&, int) + 56
1  llvm-profdata            0x0000000104b3a6b4 llvm::sys::RunSignalHandlers() + 112
2  llvm-profdata            0x0000000104b3c980 SignalHandler(int) + 344
3  libsystem_platform.dylib 0x00000001923ea584 _sigtramp + 56
4  llvm-profdata            0x0000000104a7b9b0 llvm::RawInstrProfReader<unsigned long long>::readValueProfilingData(llvm::InstrProfRecord&) + 180
5  llvm-profdata            0x0000000104a12345 main + 300
""",
    "gdb": """\
Program received signal SIGSEGV, Segmentation fault.
#0  0x00007ffff7a8d000 in ?? () from /lib/x86_64-linux-gnu/libLLVM-19.so.1
#1  0x00007ffff7a8b123 in SignalsSignalHandler(int) () from /lib/x86_64-linux-gnu/libLLVM-19.so.1
#2  <signal handler called>
#3  0x00007ffff5b8d000 in llvm::RawInstrProfReader<unsigned long>::readValueProfilingData(llvm::InstrProfRecord&) () from /lib/x86_64-linux-gnu/libLLVM-19.so.1
#4  0x0000555555561111 in main ()
""",
    "coredumpctl": """\
                Stack trace of thread 4242:
                #0  0x00007f2c1a0d2000 n/a (libLLVM.so.19.1 + 0xd2000)
                #1  0x00007f2c1a0d0abc SignalHandler (libLLVM.so.19.1 + 0xd0abc)
                #2  0x00007f2c18e42520 __restore_rt (libc.so.6 + 0x42520)
                #3  0x00007f2c1b222222 _ZN4llvm18RawInstrProfReaderImE22readValueProfilingDataERNS_15InstrProfRecordE (libLLVM.so.19.1 + 0x1222222)
                #4  0x000055aabbccddee main (llvm-profdata + 0x1dee)
""",
}  # fmt: skip


@pytest.mark.parametrize("text", HANDLED.values(), ids=HANDLED)
def test_frames_of_the_handler_that_printed_them_are_not_the_crash(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "crash.txt").write_text(text)
    answer = explain(tmp_path / "crash.txt")
    assert "readValueProfilingData" in answer.crash.function and len(answer.crash.frames) == 2
    assert (answer.verdict, answer.advice[:27]) == ("not-ours", "Run pgo-lab profraw on each")


ASAN = """\
==4242==ERROR: AddressSanitizer: SEGV on unknown address {} (pc 0x55d0c1a2b3c4 bp 0x7ffd1a2b3c40 sp {} T0)
    #0 0x55d0c1a2b3c4 in f /home/u/src/app.c:12:10
    #1 0x55d0c1a2b3f4 in main /home/u/src/app.c:20:10
"""


@pytest.mark.parametrize(("address", "stack", "overflows"), [
    ("0x000000000008", "0x000000004008", False),
    ("0x000000000008", "0x7ffd1a2b3c08", False),
    ("0x7ffd1a2a0000", "0x7ffd1a2b3c08", False),  # a guard is not so large
    ("0x7ffd1a2b3c00", "0x7ffd1a2b3c08", True),
    ("0x7ffd1a2b4ff8", "0x7ffd1a2b3c08", True),  # into a large frame
])  # fmt: skip
def test_a_stack_overflow_is_shown_by_an_address_beside_the_stack_alone(
    tmp_path: Path, address: str, stack: str, overflows: bool
) -> None:
    (tmp_path / "crash.txt").write_text(ASAN.format(address, stack))
    answer = explain(tmp_path / "crash.txt")
    assert answer.why.startswith("stack overflow: " if overflows else "f is not of the runtime")


SIGSEGV = "Program received signal SIGSEGV, Segmentation fault.\n"
TARGET = "__llvm_profile_instrument_target"


@pytest.mark.parametrize(("frame", "verdict"), [
    ("#0  0x01 in __llvm_profile_wrapper_write (path=0x0) at src/llvm_profile_wrapper.c:14", "not-ours"),
    ("#0  0x01 in lprofSaveAll () from libapp.so", "not-ours"),
    (f"#0  0x01 in {TARGET} (v=0, data=0x0, i=0) at src/llvm_profile_wrapper.c:14", "not-ours"),
    (f"#0  0x01 in {TARGET} (v=0) at ../compiler-rt/lib/profile/InstrProfilingValue.c:246", "ours"),
    (f"#0  0x01 in {TARGET} ()", "ours"),
    ("#0  0x01 in writeOneValueProfData.isra.0 ()", "ours"),
])  # fmt: skip
def test_a_function_is_the_runtimes_by_its_name_and_its_source(
    tmp_path: Path, frame: str, verdict: str
) -> None:
    (tmp_path / "crash.txt").write_text(f"{SIGSEGV}{frame}\n#1  0x02 in main () at src/main.c:2\n")
    answer = explain(tmp_path / "crash.txt")
    assert answer.verdict == verdict
    assert ("is not of the runtime" in answer.why) == (verdict == "not-ours")


@pytest.mark.parametrize(("head", "module", "tool"), [
    ('Thread 1 "llvm-cov" received signal SIGABRT, Aborted.', "/lib/libLLVM-19.so.1", "llvm-cov"),
    ("Program received signal SIGSEGV, Segmentation fault.", "/usr/bin/clang-19", "clang-19"),
    ("Program received signal SIGSEGV, Segmentation fault.", "/lib/libLLVM-19.so.1", "a tool"),
])  # fmt: skip
def test_the_tool_that_read_a_profile_is_the_one_that_the_report_names(
    tmp_path: Path, head: str, module: str, tool: str
) -> None:
    frame = f"#0  0x01 in llvm::IndexedInstrProfReader::readHeader() () from {module}"
    (tmp_path / "crash.txt").write_text(f"{head}\n{frame}\n#1  0x02 in main ()\n")
    assert explain(tmp_path / "crash.txt").why.startswith(f"{tool} crashed as it read a profile")
