"""A rescued profile holds what the same objects count in a uniform build, whatever happens."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from nbsupport.audit import machine_code, objects
from nbsupport.base import settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.lab import build, cases, counts
from nbsupport.lab.counts import Counts
from nbsupport.lab.lab import Lab
from nbsupport.lab.trial import Trial
from nbsupport.profile import layout, profraw
from nbsupport.profile.names import decode
from nbsupport.rescue import live, profdata, rescue, value_sites
from nbsupport.rescue.rescued import VALUES, Rescued
from nbsupport.studies import rescued_counts
from nbsupport.toolchains import discovery
from nbsupport.toolchains import profdata as llvm_profdata
from nbsupport.toolchains.probe import Toolchain
from nbsupport.toolchains.profdata import Key, TextRecord
from tests.support.processes import without_ptrace

PROGRAMS = settings.data_dir() / "programs"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
PGO_LAB = Path(sys.executable).with_name("pgo-lab")
#: One LLVM for each raw version.
VERSIONS = ("17", "18", "19", "23")

Saved = Callable[..., tuple[Rescued, Counts]]
Compile = Callable[..., Path]


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """Return a function that runs a program under rescue, and the counts of its profile."""

    def run(*argv: object, **more: object) -> tuple[Rescued, Counts]:
        out = tmp_path / "saved.proftext"
        words = [str(word) for word in argv]
        found = rescue.run(words, out, env=ENVIRONMENT, cwd=tmp_path, **more)  # type: ignore[arg-type]
        return found, counts.parse(out.read_text())

    return run


def linked(lab: Lab, program: str, main: str, foreign: str, **options: str) -> tuple[Trial, Path]:
    trial = lab.trial(program, main, foreign, **options)
    return trial, build.linked(trial, lab.cache)


def expected(lab: Lab, trial: Trial) -> counts.Expected:
    return counts.together(lab.reference(part) for part in trial.references)


SOURCE = r"""
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
unsigned library_step(unsigned round);
static sigjmp_buf back;
static void on(int number) { siglongjmp(back, number); }
int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    unsigned sum = 0;
    for (unsigned n = 0; n < 10 && strcmp(what, "fork"); n++) sum += library_step(n);
    fprintf(stderr, "stepped\n");
    if (!strcmp(what, "abort")) abort();
    if (!strcmp(what, "leave")) _exit(3);
    if (!strcmp(what, "fork")) {
        int status = 1;
        if (!fork()) _exit(library_step(1) == 0);
        return wait(&status) < 0 || status;
    }
    if (!strcmp(what, "handle")) {
        signal(SIGSEGV, on);
        if (!sigsetjmp(back, 1)) *(volatile int *)16 = 1;
        puts("went on");
    }
    if (!strcmp(what, "become")) execl(argv[0], argv[0], "became", NULL);
    if (!strcmp(what, "forever")) for (;;) { puts("tick"); fflush(stdout); usleep(1000); }
    if (!strcmp(what, "read")) { char line[9]; if (fgets(line, 9, stdin)) fputs(line, stdout); }
    return !strcmp(what, "became") ? 7 : 0;
}
"""


def command(*words: object, cwd: Path | None = None) -> str:
    """Run a command that has to succeed; return what it says on standard error."""
    argv = [str(word) for word in words]
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=True)
    return done.stderr


@pytest.fixture(scope="session")
def compiled(
    toolchain: Callable[[str], Toolchain], tmp_path_factory: pytest.TempPathFactory
) -> Compile:
    """Return a function that links SOURCE by LLVM 19 with the hot library of another LLVM."""
    folder = tmp_path_factory.mktemp("rescue")
    (folder / "main.c").write_text(SOURCE)
    flags = ("-O1", "-fPIC", "-fprofile-generate")

    def make(foreign: str = "17", *link: str) -> Path:
        main, other = toolchain("19"), toolchain(foreign)
        out = folder / re.sub(r"\W", "", f"program{foreign}{link}")
        if out.exists():
            return out
        objects: list[object] = []
        for one, source in ((main, folder / "main.c"), (other, PROGRAMS / "library_hot.c")):
            objects.append(folder / f"{out.name}-{source.stem}.o")
            command(one.compiler, *flags, "-c", source, "-o", objects[-1])
        linker: list[object] = [main.compiler, "-fuse-ld=lld", *flags]
        if "-static" in link:  # clang asks for libraries that only some systems have
            linker = ["gcc", "-Wl,--undefined=__llvm_profile_runtime"]
            objects.append(main.runtime)
        command(*linker, *objects, *link, "-o", out)
        return out

    return make


def strip(path: Path, folder: Path) -> Path:
    made = Path(shutil.copy(path, folder / f"stripped-{path.name}"))
    tool = discovery.find("19").prefix / "bin" / "llvm-strip"
    command(tool, "--strip-all", made)
    return made


def pgo_lab(*argv: object, **more: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in (PGO_LAB, "rescue", *argv)]
    return subprocess.run(words, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload,no-any-return]


def test_every_pair_has_the_whole_profile_of_a_uniform_build(lab: Lab) -> None:
    """Counters, value sites and what these saw, function by function."""
    rows = rescued_counts.try_all(lab, ("hot", "rich", "cold"), VERSIONS)
    assert len(rows) == 3 * 10  # 18 and 19 have one record size
    assert set(rows["outcome"]) == {"crash"} and set(rows["layouts"]) == {2}
    assert set(rows["lost"]) == set(rows["wrong"]) == {""}
    assert rows.groupby("program")["functions"].min().to_dict() == {"cold": 9, "hot": 7, "rich": 73}


def test_equal_strides_are_saved_as_well(lab: Lab, saved: Saved) -> None:
    trial, path = linked(lab, "hot", "18", "19", order="foreign-first")
    _, seen = saved(path)
    assert counts.difference(seen, expected(lab, trial)) is None


def uniform(lab: Lab, trial: Trial, folder: Path) -> dict[Key, TextRecord]:
    """Return what uniform builds say when they run under LLDB, too, where no address is random."""
    found = dict[Key, TextRecord]()
    for part in trial.references:
        out = folder / "uniform.profdata"
        program = build.linked(part, lab.cache)
        assert rescue.run([program], out, env=ENVIRONMENT, cwd=folder).healthy
        found |= rescued_counts.read_functions(out)
    return found


@pytest.mark.parametrize(
    ("program", "main", "foreign", "stripped"),
    [
        ("hot", "19", "17", True),
        ("rich", "17", "23", True),
        ("hot", "23", "18", True),
        ("mimalloc", "19", "17", True),
        ("jemalloc", "17", "19", False),
        ("rust-mimalloc", "19", "17", False),
        ("rust-jemalloc", "19", "23", True),
    ],
)
def test_stripped_programs_allocators_and_rust(
    lab: Lab, tmp_path: Path, program: str, main: str, foreign: str, stripped: bool
) -> None:
    """mimalloc looks at the clock: once in a hundred runs it counts otherwise."""
    trial, path = linked(lab, program, main, foreign, order="foreign-first")
    path = strip(path, tmp_path) if stripped else path
    out = tmp_path / "saved.profdata"
    for _ in range(5):
        found = rescue.run([path], out, env=ENVIRONMENT, cwd=tmp_path)
        assert not found.notes and not found.lost and not found.healthy
        seen, wanted = rescued_counts.read_functions(out), uniform(lab, trial, tmp_path)
        if wrong := [key for key in {**seen, **wanted} if seen.get(key) != wanted.get(key)]:
            continue
        return
    pytest.fail(str(wrong))


def test_value_counters_on_the_heap_are_left_alone(
    lab: Lab, saved: Saved, toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    """-vp-static-alloc=false: no record has a list of its own, so value sites do nothing."""
    trial, _ = linked(lab, "hot", "19", "17")
    out, objects = tmp_path / "dynamic", list[Path]()
    for job in build.jobs(trial):
        objects.append(tmp_path / f"{len(objects)}.o")
        flags = (*job.flags, "-mllvm", "-vp-static-alloc=false")
        compile = (job.toolchain.compiler, *flags, "-c", job.unit.source, "-o", objects[-1])
        command(*compile, cwd=job.unit.folder)
    command(toolchain("19").compiler, "-fuse-ld=lld", "-fprofile-generate", *objects, "-o", out)
    found, seen = saved(out)
    assert found.lost == (VALUES,) and not found.notes
    assert counts.difference(seen, expected(lab, trial)) is None


def test_mc_dc_bitmaps_are_said_to_be_lost(
    saved: Saved, toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    """A text profile of an older LLVM has no place for them."""
    (tmp_path / "main.c").write_text(
        "int library_step(int); int main(int n, char **a) { return n > 1 && a[1] && library_step(n); }"
    )
    main, other = toolchain("19").compiler, toolchain("17").compiler
    flags = ("-fprofile-instr-generate", "-fcoverage-mapping")
    command(main, *flags, "-fcoverage-mcdc", "-c", "main.c", "-o", "main.o", cwd=tmp_path)
    command(other, *flags, "-c", PROGRAMS / "library_hot.c", "-o", "hot.o", cwd=tmp_path)
    link = (main, "-fuse-ld=lld", *flags, "main.o", "hot.o", "-o", "mcdc")
    command(*link, cwd=tmp_path)
    found, seen = saved(tmp_path / "mcdc")
    assert found.lost[-1:] == ("its MC/DC bitmaps",) and ("main", 1) in {
        (name, row[0]) for (name, _), row in seen.items()
    }


def test_the_real_project(lab: Lab, tmp_path: Path) -> None:
    """A library of Rust and C, which a program that is not instrumented loads: orjson."""
    found = {}
    for cc in ("17", "22"):
        rustc, clang = discovery.find_rustc("22"), discovery.find(cc)
        made = cases.build(cases.get("orjson"), rustc, clang)
        words = [part.replace("{python}", sys.executable) for part in made.case.command]
        out = tmp_path / f"{cc}.proftext"
        one = rescue.run(words, out, env=ENVIRONMENT, cwd=made.folder)
        assert one.healthy == (cc == "22")
        # Up to LLVM 17 a colon stood between a file and its static function.
        found[cc] = counts.parse(out.read_text().replace(".c:", ".c;"))
    assert len(found["17"]) == len(found["22"]) == 480
    both = found["17"].keys() & found["22"].keys()
    assert len(both) >= 470
    assert [key for key in both if found["17"][key] != found["22"][key]] == []


WARN = ("-Wprofile-instr-out-of-date", "-Wprofile-instr-unprofiled", "-Wprofile-instr-missing")


def test_each_compiler_takes_its_part_as_it_takes_its_own(
    lab: Lab, tmp_path: Path, toolchain: Callable[[str], Toolchain]
) -> None:
    """No warning, and the same code as with the clean profile of a uniform build."""
    trial, path = linked(lab, "hot", "19", "17")
    found = rescue.run([path], tmp_path / "saved.profdata", env=ENVIRONMENT, cwd=tmp_path)
    assert [(one.record_size, one.functions, one.indexed) for one in found.parts] == [
        (48, 4, 17),
        (64, 3, 17),
    ]
    for job, reference, part in zip(
        build.jobs(trial), trial.references, reversed(found.parts), strict=True
    ):
        clean = tmp_path / "clean.profdata"
        rescue.run([build.linked(reference, lab.cache)], clean, env=ENVIRONMENT, cwd=tmp_path)
        said = []
        for profile in (clean, part.path, found.path):
            made = tmp_path / f"{profile.stem}.o"
            use = (*job.unit.flags, *WARN, f"-fprofile-use={profile}", "-c", job.unit.source)
            text = command(job.toolchain.compiler, "-O2", *use, "-o", made, cwd=job.unit.folder)
            said.append((text, made.read_bytes()))
        assert said[0] == said[1]
        # What is hot follows from all functions in a profile: the code may be another.
        assert said[0][0] == said[2][0] == ""


def test_a_malformed_file(lab: Lab, tmp_path: Path) -> None:
    trial, path = linked(
        lab, "cold", "17", "19", instrument="front-end", main_instrument="front-end"
    )
    raw = tmp_path / "run.profraw"
    subprocess.run([path], env={**ENVIRONMENT, "LLVM_PROFILE_FILE": str(raw)}, check=True)
    assert not profraw.read(raw).valid
    before = raw.read_bytes()
    found = rescue.from_profraw(raw, tmp_path / "saved.proftext")
    assert "records: expected all of 48 bytes" in found.notes[0]
    seen = counts.parse(found.path.read_text())
    assert counts.difference(seen, expected(lab, trial)) is None
    assert raw.read_bytes() == before


@pytest.mark.parametrize(("main", "cut"), [("19", False), ("18", True)])
def test_what_a_crash_has_left(lab: Lab, tmp_path: Path, main: str, cut: bool) -> None:
    """LLVM 18 has written no names by then: the program has them."""
    trial, path = linked(lab, "cold", main, "17")
    raw, out = tmp_path / "run.profraw", tmp_path / "saved.proftext"
    subprocess.run([path], env={**ENVIRONMENT, "LLVM_PROFILE_FILE": str(raw)}, check=False)
    if cut:
        with pytest.raises(LabError, match="nothing that can be rescued.*--binary"):
            rescue.from_profraw(raw, out)
    rescue.from_profraw(raw, out, binary=path)
    assert counts.difference(counts.parse(out.read_text()), expected(lab, trial)) is None
    _, other = linked(lab, "hot", main, "17")
    with pytest.raises(LabError, match="not what wrote that profile"):
        rescue.from_profraw(raw, out, binary=other)


def test_an_empty_file_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.profraw").touch()
    with pytest.raises(LabError, match="empty.*pgo-lab rescue -o OUT -- PROGRAM"):
        rescue.from_profraw(tmp_path / "run.profraw", tmp_path / "saved.profdata")


def test_a_healthy_program_writes_its_profile_itself_with_values(
    compiled: Compile, saved: Saved, tmp_path: Path
) -> None:
    found, _ = saved(compiled("19"))
    assert found.healthy and not found.lost and "healthy" in found.notes[0]
    assert "# ValueKind" in found.path.read_text()
    assert tmp_path / "saved.proftext" == found.path


@pytest.mark.parametrize(
    ("what", "note"),
    [
        ("abort", "crashed for a reason of its own: SIGABRT"),
        ("leave", "exit code 3"),
        ("become", "exit code 7.*|.*became another program"),
        ("handle", ""),
    ],
)
def test_however_it_ends_there_is_a_profile(
    compiled: Compile, saved: Saved, what: str, note: str
) -> None:
    found, seen = saved(compiled(), what)
    assert re.search(note, " ".join(found.notes)) if note else not found.notes
    assert (
        max(n for (name, _), row in seen.items() if name == "library_step" for n in row) == 10 * 64
    )


def test_a_runtime_that_is_not_recognized_crashes_and_its_counters_are_saved(
    compiled: Compile, saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_VALUES", ())
    monkeypatch.setattr(machine_code, "value_functions", lambda *_: [])
    found, seen = saved(compiled())
    assert "in its profile runtime, which could not be kept from it: SIGSEGV" in found.notes[0]
    assert len(seen) == 6


def test_a_program_that_forks_is_said_to_lose_its_children(lab: Lab, saved: Saved) -> None:
    _, path = linked(lab, "forked", "19", "17")
    found, seen = saved(path)
    assert any("forked children" in one for one in found.lost)
    assert sum(row[0] for (name, _), row in seen.items() if name == "main") == 300


def test_a_child_that_is_forked_does_not_crash_either(compiled: Compile, saved: Saved) -> None:
    """It comes to a value site before its parent does, and has no debugger."""
    found, _ = saved(compiled(), "fork")
    assert not found.notes  # such as its parent's exit code


def test_a_program_that_writes_twice_is_counted_once(lab: Lab, saved: Saved) -> None:
    """The runtime appends a second profile to its file, and llvm-profdata adds both up."""
    trial, path = linked(lab, "explicit", "19", "17")
    _, seen = saved(path)
    twice = expected(lab, trial)
    assert {key: tuple(2 * n for n in row) for key, row in seen.items()} == twice


@pytest.mark.parametrize("link", [("-static",), ("-static", "-s")])
def test_a_static_program(compiled: Compile, saved: Saved, link: tuple[str, ...]) -> None:
    """Stripped, nothing says where it ends, either: it is where its profile would be written."""
    found, seen = saved(compiled("17", *link))
    assert not found.notes and len(seen) == 6


def test_byte_counters_and_front_end(
    lab: Lab, saved: Saved, toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    trial, path = linked(
        lab, "hot", "19", "17", instrument="front-end", main_instrument="front-end"
    )
    found, seen = saved(path)
    assert found.path.read_text().startswith(":fe")
    assert counts.difference(seen, expected(lab, trial)) is None
    flags = ["-O1", "-fprofile-generate", "-mllvm", "-pgo-function-entry-coverage"]
    main, other = toolchain("19").compiler, toolchain("17").compiler
    library, out = tmp_path / "library.o", tmp_path / "covered"
    hot, source = PROGRAMS / "library_hot.c", PROGRAMS / "main.c"
    command(other, *flags, "-c", hot, "-o", library)
    command(main, "-fuse-ld=lld", *flags, source, library, "-o", out)
    for one in (out, strip(out, tmp_path)):
        found, seen = saved(one)
        assert set(seen.values()) == {(1,)}


@contextlib.contextmanager
def started(*argv: object, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    words = [str(word) for word in (PGO_LAB, "rescue", *argv)]
    with subprocess.Popen(
        words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def test_a_program_that_never_ends_is_asked_by_a_signal(compiled: Compile, tmp_path: Path) -> None:
    program = shutil.copy(compiled(), tmp_path / "endless")
    with started("-o", "now.profdata", "--", program, "forever", cwd=tmp_path) as child:
        assert child.stdout and child.stdout.readline() == "tick\n"
        child.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 60
        while not (tmp_path / "now.profdata").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        first = (tmp_path / "now.profdata").stat().st_ino
        assert child.stdout.readline() == "tick\n"  # it goes on
        child.send_signal(signal.SIGINT)
        out, said = child.communicate(timeout=60)
        assert child.returncode == 0 and set(out.split()) == {"tick"}
    assert (tmp_path / "now.profdata").stat().st_ino != first
    assert "when it was asked for" in said
    lines = [one.info["cmdline"] or () for one in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if str(program) in line]


def test_its_time_is_over(compiled: Compile, saved: Saved) -> None:
    found, seen = saved(compiled(), "forever", seconds=1.0)
    assert "its time was over" in found.notes[0]
    assert len(seen) == 6


def test_input_and_output_are_the_programs_own(compiled: Compile, tmp_path: Path) -> None:
    argv = ("-o", tmp_path / "o.profdata", "--", compiled(), "read")
    done = pgo_lab(*argv, input="a line\n")
    assert done.returncode == 0 and done.stdout == "a line\n"
    assert done.stderr.startswith("stepped\n")
    assert "6 functions" in done.stderr and "lost" not in done.stderr
    done = pgo_lab("--json", *argv, input="a line\n")
    document = json.loads(done.stdout)
    assert document["functions"] == 6 and not document["healthy"]
    assert [one["record_size"] for one in document["parts"]] == [48, 64]
    assert "a line" in done.stderr


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("-o", "o.profdata"), "nothing to rescue, or two things; give --profraw"),
        (("-o", "o.profdata", "--", "/bin/true"), "no image of it is instrumented; build it with"),
        (("-o", "o.profdata", "--", "./nothing"), "no such program; check"),
        (("-o", "o.profdata", "--", "./script"), "a script, not a program; give its interpreter"),
        (("-o", ".", "--", "/bin/true"), "it is a folder; give the file"),
        (("-o", "script/o.profdata", "--", "/bin/true"), "File exists"),
        (("-o", "o.profdata", "--profraw", "script"), "not a raw profile"),
        (("-o", "o.profdata", "--profraw", "none"), "No such file"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, argv: tuple[str, ...], line: str) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "script").chmod(0o755)
    done = pgo_lab(*argv, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("pgo-lab: ") and line in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["script"]


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_where_ptrace_is_forbidden(compiled: Compile, tmp_path: Path) -> None:
    argv = ("-o", tmp_path / "o.profdata", "--", compiled())
    done = pgo_lab(*argv, preexec_fn=without_ptrace)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "ptrace is allowed" in done.stderr


def test_without_lldb(compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "find_lldb", lambda: None)
    with pytest.raises(MissingError, match="toolchains --install 23"):
        rescue.run([compiled()], tmp_path / "o.profdata")


def test_a_disk_that_fills_up_meanwhile_loses_nothing(
    compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with monkeypatch.context() as patch:
        patch.setattr(profdata, "write", full)
        with pytest.raises(
            LabError, match="No space left on device; what was counted is in"
        ) as one:
            rescue.run([compiled()], tmp_path / "o.profdata", env=ENVIRONMENT)
    kept = re.search(r"--profraw (\S+)", str(one.value))
    assert kept
    assert rescue.from_profraw(Path(kept[1]), tmp_path / "o.profdata").functions == 6


def test_without_an_llvm_profdata_it_is_text(
    compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llvm_profdata, "owners", lambda: [])
    found = rescue.run([compiled()], tmp_path / "o.profdata", env=ENVIRONMENT)
    assert found.path.read_text().startswith(":ir\n")
    assert [one.indexed for one in found.parts] == [None, None]


def test_what_a_compiler_could_not_read_is_text(
    compiled: Compile,
    tmp_path: Path,
    toolchain: Callable[[str], Toolchain],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the oldest llvm-profdata is LLVM 19's, LLVM 17 does not read what it makes."""
    monkeypatch.setattr(llvm_profdata, "owners", lambda: [toolchain("19")])
    found = rescue.run([compiled()], tmp_path / "o.profdata", env=ENVIRONMENT)
    assert [(one.path.name, one.indexed) for one in found.parts] == [
        ("o.48.proftext", None),
        ("o.64.profdata", 19),
    ]


@pytest.mark.parametrize("raw_version", [8, 9, 10, 11])
def test_memory_as_a_raw_profile_is_read_back(raw_version: int) -> None:
    known = layout.LAYOUTS[raw_version]
    kind = known.record_dtype()
    rows = np.zeros(2, kind)
    names = b"\x03\x00a\x01b"
    rows["NameRef"], rows["FuncHash"] = decode(names).hashes, (0x12, 0x34)
    for n in range(2):
        rows[n]["NumCounters"] = n + 1
        rows[n]["CounterPtr"] = (1000 + 8 * n - n * kind.itemsize) % (1 << 64)
    counters = np.array([5, 6, 7], "<u8").tobytes()
    held = {"data": rows.tobytes(), "counters": counters, "names": names}
    version = raw_version | 1 << layout.VARIANTS["ir"]
    made = profdata.parse(profdata.raw(known, version, 64, "<", held, {"counters": 1000}))
    assert list(made.functions.rows()) == [(b"a", 0x12, [5]), (b"b", 0x34, [6, 7])]
    assert not [one for one in made.problems if "value" not in one.what]


def test_where_the_runtime_looks_beyond_the_records_nothing_is_mended(
    saved: Saved, toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    """LLVM 23 looks 48 bytes on, where the last of the records of LLVM 17 has ended."""
    sources = {
        "main": "int copy(char *, char *, unsigned long); char a[9], b[9];"
        "int main(int n, char **v) { return copy(a, b, (unsigned long)n); }",
        "last": "#include <string.h>\n"
        "int copy(char *a, char *b, unsigned long n) { memcpy(a, b, n); return 0; }",
    }
    flags = ("-O1", "-fPIC", "-fprofile-generate")
    for (name, text), version in zip(sources.items(), ("23", "17"), strict=True):
        (tmp_path / f"{name}.c").write_text(text)
        command(toolchain(version).compiler, *flags, "-c", f"{name}.c", cwd=tmp_path)
    link = (toolchain("23").compiler, "-fuse-ld=lld", *flags, "main.o", "last.o", "-o", "out")
    command(*link, cwd=tmp_path)
    file = objects.read(tmp_path / "out")
    assert file and value_sites.slots(file.parts[0], 11) is None
    found, seen = saved(tmp_path / "out")
    assert found.lost == (VALUES,) and not found.notes
    assert {name: row for (name, _), row in seen.items()} == {"main": (1,), "copy": (1,)}


def test_whoever_ends_it_gets_the_profile(compiled: Compile, tmp_path: Path) -> None:
    with started("-o", "o.profdata", "--", compiled(), "forever", cwd=tmp_path) as child:
        assert child.stdout and child.stdout.readline() == "tick\n"
        child.terminate()
        child.communicate(timeout=60)
        assert child.returncode == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"o.profdata", "o.48.profdata", "o.64.profdata"}
