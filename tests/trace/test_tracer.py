"""Specification of nbsupport.trace.tracer, with real LLDBs, real strace and real crashes."""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base import settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.crash import family
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain
from nbsupport.trace import tables
from nbsupport.trace.trace import Trace, open_trace
from nbsupport.trace.tracer import Tracer
from tests.support.processes import running, wait_until, without_ptrace
from tests.trace.programs import in_order

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="apt-get install strace")


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
        (b"#!/bin/sh\n", "a script, and nothing that it starts in time is instrumented; build"),
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
    ours = tracer.run([mixed_crash], tmp_path / "ours", env={}, cwd=tmp_path, seconds=20)
    assert ours.manifest["ended"] == "SIGSEGV"  # LLDB has not settled for that machine
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


@pytest.mark.parametrize("how", ["script", "bash", "make"])
def test_of_a_script_the_first_instrumented_program_is_traced(
    tracer: Tracer, mixed_crash: Path, tmp_path: Path, how: str
) -> None:
    """With the arguments, the folder, the environment and the files that the script gives it."""
    name = f"train-{how}.sh"
    lines = ["mkdir sub", "trap 'rm -r sub' EXIT", "cd sub", "true", f"A=b {mixed_crash} x 'y z'"]
    (tmp_path / name).write_text("\n".join(["#!/bin/sh", *lines, "touch ../after", ""]))
    (tmp_path / name).chmod(0o755)
    (tmp_path / "makefile").write_text(f"all:\n\t./{name}\n")
    words: list[str | Path] = [tmp_path / name] if how == "script" else [how, "all"]
    words = ["bash", name] if how == "bash" else words
    env = {"PATH": "/usr/bin:/bin"}
    found = tracer.run(words, tmp_path / "trace", env=env, cwd=tmp_path, seconds=20)
    assert found.manifest["program"] == mixed_crash.name
    assert found.manifest["arguments"] == ["x", "y z"]
    assert found.manifest["ended"] == "SIGSEGV" and len(found.table("calls"))
    assert str(words[-1]) in found.manifest["started_by"]
    assert any("note: the first instrumented program" in line for line in found.summary())
    # It is there, since the script has been ended where it stood.
    assert (tmp_path / "sub").is_dir() and not (tmp_path / "after").exists()
    assert not running(name)


def test_where_nothing_follows_children_a_script_is_no_program(
    tracer: Tracer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "able", lambda: False)
    (tmp_path / "x").write_text("#!/bin/sh\n")
    (tmp_path / "x").chmod(0o755)
    with pytest.raises(LabError, match="script, not a program; give the program that it starts"):
        tracer.run([tmp_path / "x"], tmp_path / "trace", env={}, cwd=tmp_path)


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
    events = tmp_path / "t" / tables.EVENTS
    argv = [str(Path(sys.executable).with_name("pgo-lab")), "trace", "--seconds", "1000"]
    argv += ["-o", str(tmp_path / "t"), "--", str(program), "hang"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as child:
        wait_until(lambda: child.poll() is not None or _has_entered_main(events))
        child.send_signal(end)
        said = child.communicate()[1]
    assert child.returncode == (-9 if end == signal.SIGKILL else 130), said
    if end == signal.SIGKILL:
        events.write_text(events.read_text() + '{"time": 1')
    else:
        assert said.count("\n") == 1, said
    found = open_trace(tmp_path / "t")
    assert found.manifest["ended"] == "the trace was interrupted"
    in_order(found, ("registered", "writeFileWithoutReturn"), ("main", "main"))
    wait_until(lambda: not running(str(program)))


def _has_entered_main(events: Path) -> bool:
    return events.exists() and '"main"' in events.read_text()


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
