"""The programs are deterministic, portable C and Rust that hold no path of this machine.

That they (and the real allocators) behave as their trials need is for test_trials.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base import process, settings
from nbsupport.base.errors import BuildError, LabError, MissingError
from nbsupport.lab import programs
from nbsupport.toolchains.probe import Toolchain

OURS = ["cold", "hot", "allocator"]  # nothing to download
WARN = ("-Wall", "-Wextra", "-Werror")


def run(folder: Path, *command: str | Path, **env: str) -> str:
    """Run a tool that must succeed and return what it printed."""
    whole = process.environment(env)
    done = process.run(command, cwd=folder, env=whole, limits=settings.COMPILER)
    assert done.ok, done.stderr
    return done.stdout


def link(clang: Path) -> tuple[str | Path, ...]:
    return (clang, "-fuse-ld=lld") if clang.with_name("ld.lld").exists() else (clang,)


def build(name: str, clang: Path, folder: Path, *flags: str) -> Path:
    """Compile and link a C program of ours, and expect not one warning."""
    program, objects = programs.get(name), []
    for number, unit in enumerate((program.main, *program.library)):
        objects.append(folder / f"{number}.o")
        out = ("-c", unit.source, "-o", objects[-1])
        run(unit.folder, clang, *WARN, "-O1", *flags, *unit.flags, *out)
    run(folder, *link(clang), *flags, *objects, "-o", folder / name)
    return folder / name


def test_programs_are_listed_in_order_and_an_unknown_one_says_so() -> None:
    c = ("cold", "hot", "allocator", "mimalloc", "jemalloc")
    ways = ["explicit", "forked", "buffer", "continuous", "rich"]
    ours = ("cold", "hot", *ways, *c[2:4], "mimalloc-no-realloc", "mimalloc-checked", "jemalloc")
    rust = (*c[:4], "mimalloc-checked", "mimalloc-2-1", "jemalloc")
    assert programs.names() == (
        *ours,
        *(f"rust-{name}" for name in rust),
        "harness",
        "asked",
        "rust-harness",
    )
    for ask in (programs.get, programs.language):
        with pytest.raises(LabError, match=r"tepid.*cold, hot, explicit, forked"):
            ask("tepid")


@pytest.mark.parametrize("name", [*OURS, *(f"rust-{name}" for name in OURS)])
def test_units_name_no_folder_of_this_machine(name: str) -> None:
    program = programs.get(name)
    assert program.what and "\n" not in program.what
    assert program.language == ("rust" if name.startswith("rust") else "c")
    for unit in (program.main, *program.library):
        assert (unit.folder / unit.source).is_file()
        assert not [flag for flag in unit.flags if re.search(r"=/|-[IL]/|-O|-fprofile", flag)]


def test_a_digest_follows_the_source_its_headers_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a.c", "b.c", "h.h", "notes.txt"):
        (tmp_path / name).touch()
    before, everything = programs.digest(tmp_path, "a.c"), programs.digest(tmp_path)

    def changed(name: str) -> tuple[bool, bool]:
        (tmp_path / name).write_text("changed")
        found = programs.digest(tmp_path, "a.c") != before, programs.digest(tmp_path) != everything
        (tmp_path / name).write_text("")
        return found

    assert changed("a.c") == changed("h.h") == (True, True)
    assert changed("b.c") == (False, True)
    assert changed("notes.txt") == (False, False)
    (tmp_path / "h.h").rename(tmp_path / "g.h")
    assert programs.digest(tmp_path, "a.c") != before


def test_a_program_prints_one_line_each_time_and_hot_the_same_as_cold(
    clang: Path, tmp_path: Path
) -> None:
    printed = {}
    for name in OURS:
        program = build(name, clang, tmp_path)
        printed[name] = run(tmp_path, program)
        assert re.fullmatch(r"checksum \d+\n", printed[name])
        assert run(tmp_path, program) == printed[name]
    assert printed["hot"] == printed["cold"]


@pytest.mark.parametrize("name", OURS)
def test_no_program_of_ours_has_undefined_behaviour(name: str, clang: Path, tmp_path: Path) -> None:
    triple = "x86_64-unknown-linux-gnu"
    asan = run(tmp_path, clang, f"-print-file-name=lib/{triple}/libclang_rt.asan.a").strip()
    if not Path(asan).is_file():
        pytest.skip("this clang has no sanitizer runtimes")
    # They need the libunwind that comes with the compiler.
    unwind = run(tmp_path, clang, f"-print-file-name={triple}/libunwind.so.1").strip()
    checks = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    quiet = (f"-Wl,-rpath,{Path(unwind).parent}", "-Wno-unused-command-line-argument")
    run(tmp_path, build(name, clang, tmp_path, *checks, *quiet))


@pytest.mark.parametrize(("name", "ran"), [("hot", "1"), ("cold", "0")])
def test_which_library_runs_its_value_sites(
    name: str, ran: str, toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    """The library alone is instrumented; its profile has values of the sites that ran."""
    clang, profdata = toolchain("19").compiler, toolchain("19").llvm_profdata
    assert profdata
    library, driver = programs.get(name).library[0], tmp_path / "main.c"
    driver.write_text("unsigned library_step(unsigned);\nint main(void) { library_step(7); }\n")
    out: tuple[str | Path, ...] = ("-c", library.source, "-o", tmp_path / "library.o")
    run(library.folder, clang, "-O1", "-fprofile-generate", *out)
    run(tmp_path, clang, "-c", driver, "-o", "main.o")
    run(tmp_path, *link(clang), "-fprofile-generate", "main.o", "library.o", "-o", "program")
    run(tmp_path, tmp_path / "program", LLVM_PROFILE_FILE="x.profraw")
    run(tmp_path, profdata, "merge", "x.profraw", "-o", "x")
    said = run(tmp_path, profdata, "show", "--all-functions", "--ic-targets", "--memop-sizes", "x")
    # Once for indirect calls, once for memory operations.
    assert re.findall(r"Total number of sites: (\d+)", said) == ["1", "1"]
    assert re.findall(r"sites with values: (\d+)", said) == [ran, ran]


# -- configure

RECIPE = {
    "source": "unity.c",
    "configure": ["--with-something"],
    "unity": {"folder": "src", "leave_out": ["zone.c"]},
}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Return sources with a `configure` that notes how it was called in a header."""
    folder = tmp_path / "sources"
    for name in ("src/a.c", "src/b.c", "src/zone.c", "include/a.h"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "configure").write_text('echo "$@" > include/said.h; pwd > Makefile\n')
    (tmp_path / "staging").mkdir()
    return folder


def test_configured_sources_are_one_unit_and_name_no_folder(sources: Path, tmp_path: Path) -> None:
    staging, cc = tmp_path / "staging", tmp_path / "cc"
    cc.touch(mode=0o755)
    programs._configure(sources, staging, RECIPE, cc)
    made = {p.relative_to(staging).as_posix() for p in staging.rglob("*") if p.is_file()}
    assert made == {"unity.c", "src/a.c", "src/b.c", "src/zone.c", "include/a.h", "include/said.h"}
    assert (staging / "unity.c").read_text() == '#include "src/a.c"\n#include "src/b.c"\n'
    said = (staging / "include" / "said.h").read_text().split()
    # Set, so that the reader's environment has no say.
    assert {"CFLAGS=", "CPPFLAGS=", "LIBS=", "--with-something", f"CC={cc}"} <= set(said)


def test_a_configure_that_fails_says_why(sources: Path, tmp_path: Path) -> None:
    (sources / "configure").write_text("echo error: cannot create executables >&2; exit 77\n")
    with pytest.raises(BuildError, match="cannot create executables"):
        programs._configure(sources, tmp_path / "staging", RECIPE, Path("/bin/sh"))
    with pytest.raises(MissingError, match="no such compiler"):
        programs._configure(sources, tmp_path / "staging", RECIPE, Path("/nowhere/cc"))
