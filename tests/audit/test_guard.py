"""The guard before the linker: a mix is refused, all else is the linker's, byte for byte."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsupport.audit import guard
from nbsupport.audit.judge import audit
from nbsupport.base.errors import MissingError
from nbsupport.lab import build
from nbsupport.toolchains import discovery, profdata
from nbsupport.toolchains.probe import Toolchain
from tests.support import hostile

MAIN = """
#include <stdio.h>
int part(int); /* this is not __llvm_prf_data */
int main(int count, char **words) { (void)words; printf("%d\\n", part(count)); return 0; }
"""
PART = "int part(int n) { return n * 41 + 1; }\n"
RUST = 'extern "C" { fn part(n: i32) -> i32; }\nfn main() { println!("{}", unsafe { part(1) }); }\n'
Find = Callable[[str], Toolchain]
Words = list[str | Path]
#: What rustc and people start.
GUARD = Path(sys.executable).with_name("pgo-lab-guard")
#: Leaves a word on each line, and its own exit code.
STUB = '#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n'


def run(*words: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command, env = [str(word) for word in words], {**os.environ, "LC_ALL": "C", **env}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def made(*words: str | Path, cwd: Path) -> None:
    done = run(*words, cwd=cwd)
    assert done.returncode == 0, done.stderr


def guarded(linker: str | Path, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run(GUARD, *words, cwd=cwd, **{guard.LINKER: str(linker)})


@pytest.fixture(scope="module")
def folder(toolchain: Find, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with main and part, as objects and (part) as archives, by each toolchain."""
    folder = tmp_path_factory.mktemp("guard")
    (folder / "main.c").write_text(MAIN)
    (folder / "part.c").write_text(PART)
    for name in ("17", "18", "19", "22", "gcc"):
        tool = toolchain(name)
        flags = ["-O1", "-fPIC", *(["-fprofile-generate"] if name != "gcc" else [])]
        (folder / name).mkdir()
        for unit in ("main", "part"):
            made(tool.compiler, *flags, "-c", f"{unit}.c", "-o", f"{name}/{unit}.o", cwd=folder)
        for kind, archive in (("rc", "libpart.a"), ("rcT", "libthin.a")):
            made("ar", kind, archive, "part.o", cwd=folder / name)
    return folder


@pytest.fixture(scope="module")
def link(toolchain: Find, folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that links to `out` in a fresh way, by LLVM 19 behind the guard."""
    tool = toolchain("19")

    def link(*words: str | Path, by: str = "") -> subprocess.CompletedProcess[str]:
        (folder / "out").unlink(missing_ok=True)
        chosen = toolchain(by) if by else tool
        flags = [*build.linker_flags(chosen), "-fprofile-generate"]
        return guarded(chosen.compiler, *flags, *words, "-o", "out", cwd=folder)

    return link


Link = Callable[..., subprocess.CompletedProcess[str]]


def runs(folder: Path) -> str:
    profile = folder / "out.profraw"
    profile.unlink(missing_ok=True)
    done = run(folder / "out", cwd=folder, LLVM_PROFILE_FILE=str(profile))
    assert done.returncode == 0
    return done.stdout


def find_rustc() -> Toolchain:
    try:
        return discovery.find_rustc("19")
    except MissingError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("objects", ["19/main.o 17/part.o", "17/part.o 19/main.o"])
def test_a_mix_is_refused_in_either_order_and_names_the_foreign_object(
    link: Link, folder: Path, objects: str
) -> None:
    done = link(*objects.split())
    assert (done.returncode, done.stdout, (folder / "out").exists()) == (1, "", False)
    first, advice, why, *blamed = done.stderr.splitlines()
    assert first == "pgo-lab: guard: not linked, for it would be a mix. Do this:"
    assert advice == (
        "Rebuild 17/part.o with a clang of LLVM 19 to 22 (raw version 10), or with"
        " -fno-profile-generate."
    )
    assert re.fullmatch("why: the runtime .* raw version 10 .*raw version 8.*", why)
    assert blamed == ["foreign: 17/part.o: 1 function: part"]


def test_the_line_to_paste_is_the_audits_and_comes_first(
    link: Link, folder: Path, toolchain: Find, tmp_path: Path
) -> None:
    """Objects lie anywhere; where the program is linked to says how cargo was called."""
    deps = tmp_path / "target" / "release" / "deps"
    deps.mkdir(parents=True)
    note = {"outputs": {"1": {"stdout": "host: x86_64-unknown-linux-gnu\n"}}}
    (tmp_path / "target" / ".rustc_info.json").write_text(json.dumps(note))
    tool = toolchain("19")
    words = [*build.linker_flags(tool), "-fprofile-generate", "19/main.o", "17/part.o"]
    names = (f"{name}_x86_64_unknown_linux_gnu" for name in ("CFLAGS", "CXXFLAGS"))
    paste = " ".join(f'{name}="-fno-profile-generate"' for name in names)
    made(tool.compiler, *words, "-o", deps / "out", cwd=folder)
    audited = audit([deps / "out"]).judgement.advice
    for out in (["-o", str(deps / "out")], [f"-o{deps / 'out'}"]):
        done = guarded(tool.compiler, *words, *out, cwd=folder)
        assert done.returncode == 1
        lines = done.stderr.splitlines()
        assert lines[1:5] == audited.splitlines()
        assert lines[2] == f"{paste} cargo build --release"


@pytest.mark.parametrize("by", ["17", "19"])
def test_one_raw_version_links_as_without_the_guard(
    link: Link, folder: Path, toolchain: Find, by: str
) -> None:
    objects = ["19/main.o", "22/part.o"] if by == "19" else ["17/main.o", "17/part.o"]
    done = link(*objects, by=by)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert runs(folder) == "42\n" and (folder / "out.profraw").stat().st_size > 100
    image = (folder / "out").read_bytes()
    flags = [*build.linker_flags(toolchain(by)), "-fprofile-generate", *objects, "-o", "out"]
    made(toolchain(by).compiler, *flags, cwd=folder)
    assert (folder / "out").read_bytes() == image


def test_what_is_not_instrumented_is_no_mix(link: Link, folder: Path) -> None:
    for objects in (("19/main.o", "gcc/part.o"), ("gcc/main.o", "22/part.o")):
        assert (link(*objects).returncode, runs(folder)) == (0, "42\n")


@pytest.mark.parametrize(
    "objects",
    [("17/main.o", "17/part.o"), ("17/main.o", "gcc/part.o"), ("17/part.o", "gcc/main.o")],
)
def test_a_runtime_of_another_raw_version_is_a_mix_too(
    link: Link, folder: Path, objects: tuple[str, str]
) -> None:
    done = link(*objects)
    assert done.returncode == 1 and not (folder / "out").exists()
    assert "of raw version 10 (LLVM 19 to 22)" in done.stderr


#: How part of {0} may come to a link.
WAYS = {
    "object": ["{0}/part.o"],
    "archive": ["{0}/libpart.a"],
    "thin archive": ["{0}/libthin.a"],
    "library": ["-L{0}", "-lpart"],
    "library, apart": ["-L", "{0}", "-l", "part"],
    "library, folder later": ["-lpart", "-L", "{0}"],
    "library by its name": ["-L{0}", "-l:libpart.a"],
    "static": ["-L{0}", "-Wl,-Bstatic,-lpart,-Bdynamic"],
    "group": ["-Wl,--start-group,{0}/libpart.a,--end-group"],
    "whole": ["-Wl,--whole-archive", "{0}/libpart.a", "-Wl,--no-whole-archive"],
    "for the linker": ["-Xlinker", "{0}/part.o"],
    "response file": ["@words"],
    "response files": ["@more"],
    "space": ["a b/{0}.o"],
    "space in a response file": ["@spaces"],
}


@pytest.mark.parametrize("way", WAYS)
def test_however_it_comes_to_the_link(
    folder: Path, toolchain: Find, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "a b").mkdir(exist_ok=True)
    for name in ("17", "22", "gcc"):
        (folder / "words").write_text(f"-L.\n{name}/part.o\n")
        (folder / "more").write_text("-L. @words")
        (folder / "a b" / f"{name}.o").write_bytes((folder / name / "part.o").read_bytes())
        quotes = {"17": f"a\\ b/{name}.o", "22": f'"a b/{name}.o"', "gcc": f"'a b/{name}.o'"}
        (folder / "spaces").write_text(f"-L. {quotes[name]}\n")
        words = [word.format(name) for word in WAYS[way]]
        said = guard.refused([str(toolchain("19").compiler), "19/main.o", *words])
        assert said.endswith(": 1 function: part") == bool(said) == (name == "17")


def test_front_end_instrumentation_and_parts_of_a_link_are_judged(
    link: Link, folder: Path, toolchain: Find
) -> None:
    for name in ("17", "19"):
        flags = ["-O1", "-fPIC", "-fprofile-instr-generate", "-c", "part.c"]
        made(toolchain(name).compiler, *flags, "-o", f"front{name}.o", cwd=folder)
        clang: list[str | Path] = [
            toolchain(name).compiler,
            *build.linker_flags(toolchain(name)),
            "-nostdlib",
        ]
        made(*clang, "-r", f"{name}/part.o", "-o", f"relinked{name}.o", cwd=folder)
        made("ar", "rcT", f"thin{name}.a", f"front{name}.o", cwd=folder)
    for foreign in ("front17.o", "relinked17.o", "thin17.a"):
        assert link("19/main.o", foreign).returncode == 1
        own = foreign.replace("17", "19")
        assert (link("19/main.o", own).returncode, runs(folder)) == (0, "42\n")


def test_a_shared_library_has_a_runtime_of_its_own(
    link: Link, folder: Path, toolchain: Find
) -> None:
    (folder / "shared").mkdir()
    tool = toolchain("17")
    flags = [*build.linker_flags(tool), "-fprofile-generate", "-shared", "17/part.o"]
    made(tool.compiler, *flags, "-o", "shared/libpart.so", cwd=folder)
    (folder / "shared" / "libpart.a").write_bytes((folder / "17" / "libpart.a").read_bytes())
    for words in (["shared/libpart.so"], ["-Lshared", "-lpart"]):
        done = link("19/main.o", *words, "-Wl,-rpath," + str(folder / "shared"))
        assert (done.returncode, done.stderr, runs(folder)) == (0, "", "42\n")
    assert link("19/main.o", "-Lshared", "-Wl,-Bstatic", "-lpart", "-Wl,-Bdynamic").returncode == 1
    assert link("19/main.o", "17/part.o", "shared/libpart.so").returncode == 1


def test_raw_versions_9_and_10_link_only_where_counts_survive(
    link: Link, folder: Path, toolchain: Find
) -> None:
    done = link("19/main.o", "18/part.o")
    assert done.returncode == 0 and "guard: linked in this order: Rebuild 18/part.o" in done.stderr
    assert runs(folder) == "42\n"
    show: Words = [profdata.tool(toolchain("19")), "show", "--all-functions", "out.profraw"]
    assert "Total functions: 2" in run(*show, cwd=folder).stdout
    assert link("18/part.o", "19/main.o").returncode == 1
    assert link("19/main.o", "18/libpart.a").returncode == 0
    # Of an archive no order is known: here main is first, after all, and the profile lost.
    assert link("19/libpart.a", "18/main.o").returncode == 1


def test_bitcode_of_another_llvm_is_refused_where_an_llvm_dis_reads_it(
    link: Link, folder: Path, toolchain: Find, tmp_path: Path
) -> None:
    """The one beside the compiler; the link would be one that crashes."""
    flags = ["-O1", "-fPIC", "-flto", "-fprofile-generate", "-c", "part.c", "-o", "bitcode.o"]
    made(toolchain("17").compiler, *flags, cwd=folder)
    done = link("19/main.o", "bitcode.o")
    assert done.returncode == 1 and "guard: not linked, for it would be a mix" in done.stderr
    made(toolchain("19").compiler, *flags, cwd=folder)
    assert link("19/main.o", "bitcode.o").returncode == 0


def test_bitcode_that_nobody_reads_is_left_to_the_linker(
    folder: Path,
    toolchain: Find,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(guard, "_assembly", lambda *_: None)
    monkeypatch.chdir(folder)
    flags = ["-O1", "-fPIC", "-flto", "-fprofile-generate", "-c", "part.c", "-o", "bitcode.o"]
    made(toolchain("17").compiler, *flags, cwd=folder)
    made("ar", "rc", "bitcode.a", "gcc/main.o", "bitcode.o", cwd=folder)
    for words in (["bitcode.o"], ["-Wl,--start-lib", "bitcode.o", "-Wl,--end-lib"], ["bitcode.a"]):
        assert guard.refused([str(toolchain("19").compiler), "19/main.o", *words]) == ""
        expected = f"not judged, so left to the linker: {words[-1]}: .*bitcode: needs an llvm-dis"
        assert re.search(expected.replace("-Wl,--end-lib", "bitcode.o"), capsys.readouterr().err)


@pytest.fixture
def stub(folder: Path) -> Path:
    path = folder / "stub"
    path.write_text(STUB)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--version"],
        ["-c", "19/main.o", "17/part.o"],
        ["19/main.o", "17/absent.o", "-o", "a b", "", "*", "$HOME", "-Wl,a,b"],
        ["main.c", "19/part.o", "-o", "17/part.o"],
        ["@absent", "@", "@/", "19/main.o", "-l", "-L"],
        ["-l"],
        ["-o"],
        ["-labsent", "-L/absent", "-L.", "-l" + "x" * 5000, "x" * 5000, "@" + "x" * 5000],
    ],
    ids=lambda words: " ".join(words)[:30] or "none",
)
def test_all_else_is_the_linkers_with_its_words_and_exit_code(
    folder: Path, stub: Path, words: list[str]
) -> None:
    done = guarded(stub, *words, cwd=folder)
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == "".join(f"{word}\n" for word in words or [""])


def test_what_cannot_be_read_is_the_linkers(folder: Path, stub: Path) -> None:
    whole = (folder / "17" / "part.o").read_bytes()
    (folder / "short.o").write_bytes(whole[: len(whole) // 2])
    (folder / "script").write_text("INPUT(17/part.o) /* __llvm_prf_data */")
    (folder / "noise.a").write_bytes(b"!<arch>\n\0__llvm_prf_data" + bytes(range(256)))
    (folder / "loop").write_text("@loop @loop 'unterminated")
    (folder / "nested").mkdir()
    if not (folder / "fifo").exists():
        os.mkfifo(folder / "fifo")
    odd = ["short.o", "script", "noise.a", "fifo", "@fifo", "@loop", "nested", "/dev/zero"]
    done = guarded(stub, "19/main.o", *odd, cwd=folder)
    assert done.returncode == 7 and done.stdout.split() == ["19/main.o", *odd]


def test_a_linker_that_dies_or_is_not_there(folder: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
        (folder / "dies").write_text(f"#!/bin/sh\nkill -{number} $$\n")
        (folder / "dies").chmod(0o755)
        assert guarded(folder / "dies", "19/main.o", cwd=folder).returncode == -number
    done = guarded("absent-linker", "19/main.o", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    expected = f"guard: absent-linker: it cannot be started; set {guard.LINKER}"
    assert done.stderr == f"pgo-lab: {expected}\n"
    code = "import sys; from nbsupport.audit import guard; sys.exit(guard.guard([]))"
    done = run(sys.executable, "-c", code, cwd=folder)
    assert done.returncode == 2 and "guard: no linker: it cannot be started" in done.stderr


def test_the_first_look_needs_no_reader_of_objects(folder: Path, toolchain: Find) -> None:
    runtime = find_rustc().runtime  # has bitcode inside an object
    objects = ["19/main.o", "22/libpart.a", "gcc/main.o", "main.c", str(runtime)]
    code = f"""if True:
        import sys
        from nbsupport.audit import guard
        said = guard.refused(["{toolchain("19").compiler}", "-fprofile-generate", *{objects}])
        print([said, *({{"lief", "numpy", "typer", "rich", "pandas"}} & set(sys.modules))])
    """
    done = run(sys.executable, "-c", code, cwd=folder)
    assert (done.stdout, done.stderr) == ("['']\n", "")


def test_an_object_with_an_impossible_place_never_stops_the_link(folder: Path) -> None:
    """Its symbol table has an index of names, or a symbol a section, at the end of 64 bits."""
    sample = (folder / "17" / "part.o").read_bytes()
    spoiled = folder / "impossible.o"
    (table,), (count,) = struct.unpack_from("<Q", sample, 40), struct.unpack_from("<H", sample, 60)
    for section in range(count):
        data = bytearray(sample)
        data[table + 64 * section + 24 : table + 64 * section + 32] = b"\xff" * 8  # sh_offset
        spoiled.write_bytes(data)
        assert isinstance(guard.refused(["cc", str(spoiled), str(folder / "17" / "main.o")]), str)


@given(st.data())
def test_a_spoiled_object_never_stops_the_link(folder: Path, data: st.DataObject) -> None:
    for name in ("part.o", "libpart.a"):
        sample = (folder / "17" / name).read_bytes()
        spoiled = folder / f"spoiled-{name}"
        spoiled.write_bytes(data.draw(hostile.spoiled([sample], within=len(sample))))
        assert isinstance(guard.refused(["cc", str(spoiled), str(folder / "17" / "main.o")]), str)


def test_rustc_takes_it_for_its_linker(folder: Path, tmp_path: Path) -> None:
    rustc = find_rustc()
    (tmp_path / "main.rs").write_text(RUST)
    (tmp_path / "Cargo.toml").touch()
    linker = tmp_path / "pgo-lab-guard"
    linker.write_text(f'#!/bin/sh\nexec {GUARD} "$@"\n')
    linker.chmod(0o755)
    flags = ["-Cprofile-generate", f"-Clinker={linker}", "-lstatic=part", "main.rs", "-o", "out"]
    for name, refused in (("17", True), ("19", False), ("gcc", False)):
        (tmp_path / "out").unlink(missing_ok=True)
        words: Words = [rustc.compiler, *flags, f"-Lnative={folder / name}"]
        done = run(*words, cwd=tmp_path, **{guard.LINKER: "cc"})
        assert (done.returncode != 0) == refused == (not (tmp_path / "out").exists()), done.stderr
        assert ("guard: not linked, for it would be a mix" in done.stderr) == refused
        if refused:
            assert "libpart.a: 1 function: part" in done.stderr
            off = [rf'{flags}_\w+="-fno-profile-generate" ' for flags in ("CFLAGS", "CXXFLAGS")]
            assert re.search(rf"\b{''.join(off)}cargo build", done.stderr)
        else:
            assert runs(tmp_path) == "42\n" and (tmp_path / "out.profraw").stat().st_size > 100
