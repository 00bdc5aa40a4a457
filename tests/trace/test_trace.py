"""Specification of nbsupport.studies.traces, with real LLDBs, real strace and real crashes."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nbsupport.base import settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.cli import commands
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.profile import names
from nbsupport.studies import ruler
from nbsupport.studies.traces import Traces
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain
from nbsupport.trace import memory, tables
from nbsupport.trace.trace import Trace, open_trace
from nbsupport.trace.tracer import Tracer

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="apt-get install strace")

SOURCE = r"""
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
extern char __start___llvm_prf_data[];
static int one(int x) { return x + 1; }
static int two(int x) { return x * 3; }
static int (*volatile const all[])(int) = {one, two};
__attribute__((constructor)) static void early(void) { if (getenv("EARLY")) _exit(3); }
__attribute__((destructor)) static void late(void) { if (getenv("LATE")) puts("late"); }
static void *held;
static void bye(void) { free(held); }
static void *work(void *n) {
  int s = 0;
  for (long i = 0; i < (long)n; i++) {
    void *volatile block = malloc(16);
    s = all[i % 2](s) & 255;
    free(block);
  }
  return s > 255 ? n : 0;
}
int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  char line[64] = "nothing";
  pthread_t threads[4];
  if (!strcmp(mode, "sites")) work((void *)atol(argv[2]));
  if (!strcmp(mode, "exec")) execl(argv[0], argv[0], "sites", "10", (char *)0);
  if (!strcmp(mode, "null")) *(volatile int *)0 = 1;
  if (!strcmp(mode, "hang")) for (;;) pause();
  if (!strcmp(mode, "stdin")) puts(fgets(line, sizeof line, stdin) ? line : "nothing");
  if (!strcmp(mode, "exit")) {
    atexit(bye);
    held = malloc(24);
    exit(0);
  }
  if (!strcmp(mode, "protect")) {
    long page = (long)__start___llvm_prf_data & ~4095L;
    return mprotect((void *)page, 4096, PROT_READ | PROT_WRITE);
  }
  if (!strcmp(mode, "fork")) {
    atexit(bye);
    if (!fork()) return 0;
    wait(0);
  }
  if (!strcmp(mode, "threads")) {
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, work, (void *)1000);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
  }
  if (!strcmp(mode, "signals")) {
    signal(SIGUSR1, SIG_IGN);
    for (int i = 0; i < 3; i++) raise(SIGUSR1);
  }
  if (!strcmp(mode, "gigabyte")) {
    static char block[1 << 16];
    for (int i = 0; i < 1 << 14; i++) fwrite(block, 1, sizeof block, stdout);
  }
  return 0;
}
"""


@pytest.fixture(scope="module")
def tracer(lldb: Path) -> Iterator[Tracer]:
    with Tracer(lldb) as made:
        yield made


@pytest.fixture(scope="module")
def compiled(clang: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that compiles the program above, instrumented, with more flags."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "t.c").write_text(SOURCE)

    def make(*flags: str) -> Path:
        out = folder / ("t" + "".join(flags).replace("/", "_"))
        linker = ["-fuse-ld=lld"] if clang.with_name("ld.lld").exists() else []
        command = [str(clang), "-O1", "-fprofile-generate", *linker, *flags, "t.c", "-o", str(out)]
        if not out.exists():
            subprocess.run([*command, "-lpthread"], cwd=folder, check=True)
        return out

    return make


@pytest.fixture
def run(tracer: Tracer, compiled: Callable[..., Path], tmp_path: Path) -> Callable[..., Trace]:
    """Return a function that traces the program above in one of its modes."""

    def trace(*mode: str, flags: tuple[str, ...] = (), **options: Any) -> Trace:
        env = {"PATH": "/usr/bin", **options.pop("env", {})}
        out = tmp_path / "trace"
        argv = [str(compiled(*flags)), *mode]
        return tracer.run(argv, out, env=env, cwd=tmp_path, **{"seconds": 20, **options})

    return trace


@pytest.fixture(scope="module")
def trial(
    lab: Lab, tracer: Tracer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Trace]:
    """Return a function that traces a trial's program, once."""
    made: dict[Any, Trace] = {}

    def trace(*names: str, order: str = "main-first") -> Trace:
        if (names, order) not in made:
            program = build.linked(lab.trial(*names, order=order), lab.cache)
            folder = tmp_path_factory.mktemp("trace")
            made[names, order] = tracer.run(
                [program], folder / "t", env={"PATH": "/usr/bin"}, cwd=folder, seconds=20
            )
        return made[names, order]

    return trace


def in_order(found: Trace, *wanted: tuple[str, str]) -> None:
    """Expect these events (kind, function or what it says) in this order, among others."""
    rows = found.events[["kind", "function", "what"]].itertuples(index=False)
    for kind, said in wanted:
        assert any(row.kind == kind and said in (row.function, row.what) for row in rows), said


def test_the_crash_at_exit_is_seen_from_the_first_constructor_to_the_signal(
    trial: Callable[..., Trace],
) -> None:
    found = trial("cold", "19", "17")
    in_order(
        found,
        ("constructor", "_GLOBAL__sub_I_InstrProfilingRuntime.cpp"),
        ("runtime", "__llvm_profile_initialize"),
        ("allocator", "strdup"),
        ("file", "run.profraw, w"),
        ("registered", "writeFileWithoutReturn"),
        ("returned", "__llvm_profile_initialize"),
        ("main", "main"),
        ("value site", "record of main, site 1, value 0x1"),
        ("returned", "main"),
        ("process", "exit"),
        ("handler", "writeFileWithoutReturn"),
        ("runtime", "__llvm_profile_write_file"),
        ("file", "run.profraw, ab"),
        ("write", "lprofWriteDataImpl"),
        ("record", "record of mix"),
        ("record", "record of library_step"),
        ("crash", "SIGSEGV"),
    )
    assert list(found.events["n"]) == list(range(len(found.events)))
    assert found.events["time"].is_monotonic_increasing
    assert found.manifest["ended"] == "SIGSEGV"
    last = found.events.iloc[-1]
    assert last["caller"] == "initializeValueProfRuntimeRecord"


def test_what_calls_the_runtime_makes_of_the_allocator_is_one_strdup(
    trial: Callable[..., Trace],
) -> None:
    events = trial("cold", "19", "22").events
    asked = events[(events["kind"] == "allocator") & (events["module"] != "cold")]
    runtime = ("parseAndSetFilename", "writeFile", "lprofWriteData", "lprofWriteDataImpl")
    assert list(asked.loc[asked["caller"].isin(runtime), "function"]) == ["strdup"]
    # All the others are the C library's, for its own files.
    assert set(asked["caller"]) - {"parseAndSetFilename"} <= {
        "__strdup", "libc.so.6", "__tsearch", "_IO_file_doallocate", "_IO_fclose", "_IO_setb",
        "_IO_free_backup_area",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("main", "foreign"), [("19", "17"), ("17", "19"), ("17", "23"), ("22", "23"), ("23", "19")]
)
def test_the_record_at_the_crash_is_the_one_that_the_file_says(
    main: str, foreign: str, trial: Callable[..., Trace], lab: Lab
) -> None:
    misread = ruler.from_trial(lab, lab.trial("cold", main, foreign)).misread
    assert misread
    found = trial("cold", main, foreign)
    record = found.manifest["record"]
    assert record["offset"] == misread.slot.offset
    assert found.manifest["crash"]["fault_address"] == misread.fault_address
    (values,) = [row for row in record["fields"] if row[1].startswith("Values")]
    assert values[1] == f"Values = {misread.value:#x}" or misread.value < 1 << 16
    assert values[2].split("; ") == [
        f"{name} of {names.short(misread.record.name)}: "
        + ", ".join(str(n) if n < 1 << 16 else hex(n) for n in numbers)
        for name, numbers in misread.written.items()
    ]


def test_the_last_good_record_is_the_one_before(trial: Callable[..., Trace]) -> None:
    assert trial("cold", "19", "17").manifest["record"]["last_good"] == "mix"
    assert trial("hot", "19", "17").manifest["record"]["last_good"] == "main"


def test_every_pointer_has_an_owner(trial: Callable[..., Trace]) -> None:
    found = trial("cold", "19", "17").table("pointers")
    passed = found[found["how"] == "passed"].set_index("name")["owner"]
    assert dict(passed) == {
        **dict.fromkeys(("DataBegin", "DataEnd"), "cold: __llvm_prf_data"),
        **dict.fromkeys(("CountersBegin", "CountersEnd"), "cold: __llvm_prf_cnts"),
        **dict.fromkeys(("NamesBegin", "NamesEnd"), "cold: __llvm_prf_names"),
    }
    written = found[found["how"] == "written"]
    assert dict(zip(written["of"], written["owner"], strict=True)) == {
        "main": "cold: __llvm_prf_vals",
        "library_step": "cold: __llvm_prf_vals",
    }
    read = found[found["how"] == "read"].set_index("of")
    assert read.loc["library_step", "value"] == 0x1000100000003
    assert read.loc["library_step", "owner"] == memory.UNMAPPED


def test_pointers_into_the_heap_are_said_to_be_there(run: Callable[..., Trace]) -> None:
    """The control: value data on the heap, as -vp-static-alloc=false has it."""
    found = run("sites", "5", flags=("-mllvm", "-vp-static-alloc=false")).table("pointers")
    values = found[found["name"] == "Values"]
    assert set(values["owner"]) == {"heap of the C library"}


def test_an_allocator_that_unmaps_its_heap_before_the_profile_is_written_harms_nothing(
    trial: Callable[..., Trace], toolchain: Callable[[str], Toolchain]
) -> None:
    found = trial("rust-mimalloc", "19", "22")
    in_order(
        found,
        ("handler", "mi_process_done"),
        ("memory", "33554432 bytes of: heap of mimalloc"),
        ("handler", "writeFileWithoutReturn"),
        ("write", "lprofWriteDataImpl"),
        ("returned", "__llvm_profile_write_file"),
    )
    assert found.manifest["ended"] == "exit code 0" and found.lost == 0
    assert found.exits[0] == found.exits[1]
    assert found.exits[0].startswith("mi_process_done, writeFileWithoutReturn")
    owners = set(found.table("pointers")["owner"])
    assert owners and all("__llvm_prf" in owner for owner in owners)


def test_what_touches_the_profiles_memory_is_told(run: Callable[..., Trace]) -> None:
    found = run("protect")
    assert found.lost == 1
    in_order(found, ("main", "main"), ("memory", "mprotect"), ("returned", "main"))
    assert found.events["what"].str.contains("holds the profile's.*__llvm_prf_data").sum() == 1


def test_what_is_freed_after_main_is_told_and_what_main_allocates_is_not(
    run: Callable[..., Trace],
) -> None:
    found = run("exit")
    in_order(
        found,
        ("process", "exit"),
        ("handler", "bye"),
        ("allocator", "free"),
        ("handler", "writeFileWithoutReturn"),
        ("handler", "late"),
    )
    assert "main" not in set(found.events.loc[found.events["kind"] == "allocator", "caller"])


def test_an_explicit_write_dies_at_the_same_place(trial: Callable[..., Trace]) -> None:
    at_exit, explicit = trial("cold", "19", "17"), trial("explicit", "19", "17")
    in_order(
        explicit, ("main", "main"), ("runtime", "__llvm_profile_write_file"), ("crash", "SIGSEGV")
    )
    assert "main" not in set(explicit.events.loc[explicit.events["kind"] == "returned", "function"])
    one, other = (
        [(f["function"], f["offset"]) for f in t.manifest["crash"]["frames"][:6]]
        for t in (at_exit, explicit)
    )
    assert one == other
    same = ("function", "offset", "last_good")
    assert [explicit.manifest["record"][k] for k in same] == [
        at_exit.manifest["record"][k] for k in same
    ]


def test_every_lldb_sees_the_same(
    trial: Callable[..., Trace], toolchain: Callable[[str], Toolchain], lab: Lab, tmp_path: Path
) -> None:
    program = build.linked(lab.trial("cold", "19", "17"), lab.cache)
    expected = trial("cold", "19", "17").events[["kind", "function", "caller"]]
    lldbs = {t.lldb for name in ("19", "22", "23") if (t := toolchain(name)).lldb}
    assert len(lldbs) == 3
    for n, lldb in enumerate(sorted(lldbs)):
        with Tracer(lldb) as other:
            found = other.run([program], tmp_path / str(n), env={}, cwd=tmp_path, seconds=20)
        assert found.events[["kind", "function", "caller"]].equals(expected), lldb


HOST = r"""
#include <dlfcn.h>
int main(void) {
  void *library = dlopen("./library.so", RTLD_NOW);
  return library ? ((int (*)(void))dlsym(library, "entry"))() : 9;
}
"""


def test_what_a_program_loads_by_itself_is_seen_as_well(
    tracer: Tracer, toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    """As a Python extension is: instrumented by two LLVMs, loaded by a relative name."""
    mine, other = toolchain("19").compiler, toolchain("17").compiler
    sources = settings.data_dir() / "programs"
    (tmp_path / "host.c").write_text(HOST)
    (tmp_path / "elsewhere").mkdir()  # LLDB looks beside the program, too
    linker = ["-fuse-ld=lld"] if mine.with_name("ld.lld").exists() else []
    how = ["-O1", "-fPIC", "-fprofile-generate"]
    for command in (
        [mine, *how, "-Dmain=entry", "-c", sources / "main.c", "-o", "main.o"],
        [other, *how, "-c", sources / "library_cold.c", "-o", "library.o"],
        [mine, *how, *linker, "-shared", "main.o", "library.o", "-o", "library.so"],
        [mine, *linker, "host.c", "-o", "elsewhere/host", "-ldl"],
    ):
        subprocess.run([str(part) for part in command], cwd=tmp_path, check=True)
    host = tmp_path / "elsewhere" / "host"
    found = tracer.run([host], tmp_path / "t", env={}, cwd=tmp_path, seconds=20)
    in_order(
        found,
        ("main", "main"),
        ("runtime", "__llvm_profile_initialize"),
        ("registered", "writeFileWithoutReturn"),
        ("write", "lprofWriteDataImpl"),
        ("crash", "SIGSEGV"),
    )
    assert found.manifest["record"]["function"] == "library_step"
    pointers = found.table("pointers")
    assert "library.so: __llvm_prf_data" in set(pointers["owner"])


@pytest.mark.parametrize(
    ("names", "offset"),
    [
        (("cold", "19", "17"), 192),
        (("hot", "19", "17"), 192),
        (("cold", "17", "19"), 144),
        (("cold", "23", "19"), 216),
    ],
)
def test_a_stripped_program_tells_the_crash_and_the_record_and_what_was_not_seen(
    names: tuple[str, str, str],
    offset: int,
    tracer: Tracer,
    lab: Lab,
    clang: Path,
    tmp_path: Path,
) -> None:
    linked, bare = build.linked(lab.trial(*names), lab.cache), tmp_path / "bare"
    subprocess.run([clang.with_name("llvm-strip"), linked, "-o", bare], check=True)
    found = tracer.run([bare], tmp_path / "trace", env={}, cwd=tmp_path, seconds=20)
    record = found.manifest["record"]
    assert (record["function"], record["offset"]) == ("library_step", offset)
    assert any("stripped" in note for note in found.manifest["notes"])
    assert "main" in set(found.events["kind"])


def test_ten_million_value_sites_are_counted_by_the_runtime_and_sampled_by_the_trace(
    run: Callable[..., Trace],
) -> None:
    found = run("sites", "10000000")
    assert found.manifest["value_calls"] == 10_000_000
    assert (found.events["kind"] == "value site").sum() == 8
    assert any("only the first calls" in note for note in found.manifest["notes"])


def test_threads_are_told_apart_and_none_is_lost(run: Callable[..., Trace]) -> None:
    found = run("threads")
    assert found.manifest["ended"] == "exit code 0"
    sites = found.events[found.events["kind"] == "value site"]
    assert set(sites["thread"]) & {2, 3, 4, 5}
    # What one thread allocates while another is in the runtime is not the runtime's.
    assert "work" not in set(found.events.loc[found.events["kind"] == "allocator", "caller"])


def test_signals_forks_and_new_images_are_events(run: Callable[..., Trace], tmp_path: Path) -> None:
    found = run("signals")
    assert list(found.events.loc[found.events["kind"] == "signal", "function"]) == ["SIGUSR1"] * 3
    shutil.rmtree(tmp_path / "trace")
    found = run("fork")
    in_order(found, ("registered", "bye"), ("process", "fork"), ("handler", "bye"))
    assert any("child" in note for note in found.manifest["notes"])
    assert "clone" in set(found.table("calls")["name"]) | {"clone3"}
    shutil.rmtree(tmp_path / "trace")
    found = run("exec")
    in_order(found, ("main", "main"), ("process", "execve"), ("main", "main"))


def test_what_is_not_the_runtimes_crash_has_no_record(run: Callable[..., Trace]) -> None:
    found = run("null")
    assert found.manifest["crash"]["frames"][0]["function"] == "main"
    assert found.manifest["crash"]["fault_address"] == 0
    assert "record" not in found.manifest


def test_a_program_without_a_runtime_has_no_profile_to_miss(tracer: Tracer, tmp_path: Path) -> None:
    found = tracer.run(["true"], tmp_path / "trace", env={}, cwd=tmp_path, seconds=20)
    assert "empty" not in found.manifest
    assert "empty" not in "".join(found.summary())


def test_a_program_that_ends_before_main(run: Callable[..., Trace]) -> None:
    found = run(env={"EARLY": "1"})
    assert found.manifest["ended"] == "exit code 3"
    assert any("main was never entered" in note for note in found.manifest["notes"])


def test_a_program_that_never_ends_is_stopped_and_its_trace_kept(run: Callable[..., Trace]) -> None:
    found = run("hang", seconds=2)
    assert found.manifest["ended"] == "stopped at the time limit"
    assert "main" in found.events.iloc[-1]["frames"]
    in_order(found, ("registered", "writeFileWithoutReturn"), ("main", "main"), ("limit", "time"))


def test_input_is_the_files_and_output_is_bounded(
    run: Callable[..., Trace], tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("hello\n")
    assert "hello" in (run("stdin", stdin=tmp_path / "in").folder / "output.txt").read_text()
    shutil.rmtree(tmp_path / "trace")
    assert "nothing" in (run("stdin").folder / "output.txt").read_text()
    shutil.rmtree(tmp_path / "trace")
    found = run("gigabyte")
    assert found.manifest["ended"] == "exit code 0"
    assert (found.folder / "output.txt").stat().st_size == 1 << 20


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "no such program"),
        (b"", "not a valid executable|no program"),
        (b"junk", "not a valid executable"),
        (b"\x7fELF\x02\x01\x01", "not a valid executable"),
        (b"#!/bin/sh\n", "script.*INTERPRETER"),
    ],
)
def test_what_is_no_program_is_one_line(
    content: bytes | None, why: str, tracer: Tracer, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o755)
    with pytest.raises(LabError, match=why):
        tracer.run([path], tmp_path / "trace", env={}, cwd=tmp_path)
    assert not (tmp_path / "trace").exists()


def test_another_machines_program_a_folder_and_one_without_permission(
    tracer: Tracer, mixed_crash: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    content = bytearray(mixed_crash.read_bytes())
    content[18:20] = struct.pack("<H", 183 if content[18] == 62 else 62)  # e_machine
    other.write_bytes(content)
    other.chmod(0o755)
    with pytest.raises(LabError, match="built for this machine"):
        tracer.run([other], tmp_path / "trace", env={}, cwd=tmp_path)
    other.chmod(0o644)
    for path in (other, tmp_path):
        with pytest.raises(MissingError, match="not executable, or not a file"):
            tracer.run([path], tmp_path / "trace", env={}, cwd=tmp_path)


def test_a_folder_in_use_is_left_alone(run: Callable[..., Trace], tmp_path: Path) -> None:
    (tmp_path / "trace").mkdir()
    (tmp_path / "trace" / "mine").write_text("x")
    with pytest.raises(LabError, match="not empty; give a new folder"):
        run()
    assert [path.name for path in (tmp_path / "trace").iterdir()] == ["mine"]


def without_ptrace() -> None:
    """Forbid ptrace to this process and its children, as containers do (seccomp)."""
    numbers = {"x86_64": 101, "aarch64": 117}
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, numbers[os.uname().machine])]
    steps += [(6, 0, 0, 0x50001), (6, 0, 0, 0x7FFF0000)]  # errno 1; allow
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None)
    assert libc.prctl(38, 1, 0, 0, 0) == 0 == libc.prctl(22, 2, ctypes.c_char_p(program))


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_where_ptrace_is_forbidden_the_line_says_so(mixed_crash: Path, tmp_path: Path) -> None:
    argv = [str(Path(sys.executable).with_name("pgo-lab")), "trace", "-o", str(tmp_path / "t")]
    done = subprocess.run(
        [*argv, "--", str(mixed_crash)],
        preexec_fn=without_ptrace,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "not permitted" in done.stderr and "ptrace is allowed" in done.stderr
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_trace_keeps_what_it_saw_and_leaves_no_process(
    end: signal.Signals, compiled: Callable[..., Path], tmp_path: Path
) -> None:
    program = shutil.copy(compiled(), tmp_path / f"victim{end}")
    argv = [str(Path(sys.executable).with_name("pgo-lab")), "trace", "-o", str(tmp_path / "t")]
    with subprocess.Popen(
        [*argv, "--", program, "hang"], stderr=subprocess.PIPE, text=True
    ) as child:
        events = tmp_path / "t" / tables.EVENTS
        deadline = time.monotonic() + 30
        while not (events.exists() and '"main"' in events.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.send_signal(end)
        said = child.communicate(timeout=30)[1]
    assert child.returncode == (-9 if end == signal.SIGKILL else 130)
    assert end == signal.SIGKILL or said.count("\n") == 1, said
    if end == signal.SIGKILL:
        events.write_text(events.read_text() + '{"time": 1')
    found = open_trace(tmp_path / "t")
    assert found.manifest["ended"] == "the trace was interrupted"
    in_order(found, ("registered", "writeFileWithoutReturn"), ("main", "main"))
    deadline = time.monotonic() + 10
    while victims := [p for p in psutil.process_iter(["name"]) if p.name() == Path(program).name]:
        assert time.monotonic() < deadline, victims
        time.sleep(0.05)


def test_traces_of_the_labs_trials_live_and_recorded(lab: Lab, tmp_path: Path) -> None:
    with Traces(lab) as traces:
        live = traces.trace("cold", "19", "17")
        assert live.mixed and not traces.trace("cold", "19", "22").mixed
    assert not re.search(r"/(tmp|home|root|work|var)/", live.table("calls").to_csv())
    assert not live.recorded and open_trace(live.folder).manifest == live.manifest
    for source, parts, why in (
        ("dead", ("cold", "19", "17"), "choose live or recorded"),
        ("recorded", ("cold", "1", "2"), "no trace there"),
    ):
        with pytest.raises(LabError, match=why):
            Traces(lab, source).trace(*parts)


def test_a_recorded_trace_is_whole_and_names_no_folder(lab: Lab) -> None:
    found = Traces(lab, "recorded").trace("cold", "19", "17")
    assert found.recorded
    for name in tables.TABLES:
        text = found.table(name).to_csv() + json.dumps(found.manifest)
        assert not re.search(r"/(tmp|home|root|work|var)/", text)
    in_order(found, ("main", "main"), ("crash", "SIGSEGV"))


def test_the_command_line(
    mixed_crash: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert commands.main(["trace", "-o", "t", "--json", "--", str(mixed_crash)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ended"] == "SIGSEGV" and told["record"]["function"] == "library_step"
    assert commands.main(["trace", "-o", "u", "--", str(mixed_crash)]) == 0
    said = capsys.readouterr().out
    assert "SIGSEGV in initializeValueProfRuntimeRecord" in said and "NumCounters of" in said
    assert commands.main(["trace", "-o", "v", "--stdin", "none", "--", str(mixed_crash)]) == 2
    assert "check --stdin" in capsys.readouterr().err


def test_no_lldb_is_one_line(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "find_lldb", lambda: None)
    with pytest.raises(MissingError, match="LLDB: there is none"):
        Tracer()


def test_an_lldb_without_python_is_one_line(tmp_path: Path) -> None:
    bare = tmp_path / "lldb"
    bare.write_text("#!/bin/sh\necho 'error: your LLDB was built without scripting' >&2\n")
    bare.chmod(0o755)
    with pytest.raises(LabError, match="ended unexpectedly; .*LLDB with its Python"):
        Tracer(bare)
