"""What compilers make of a small file, as the object says; and compilers that do not answer."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base import settings
from nbsupport.base.errors import LabError
from nbsupport.forecast import compilers, verdict
from nbsupport.toolchains.probe import Toolchain
from tests.forecast.conftest import Check, Write
from tests.support.cargo_projects import script

Find = Callable[[str], Toolchain]
GENERATE = "-fprofile-generate"


@pytest.mark.parametrize(("name", "family"), [("17", "clang"), ("22", "clang"), ("gcc", "gnu")])
@pytest.mark.parametrize("language", ["C", "C++"])
def test_an_object_says_who_made_it(
    name: str, family: str, language: compilers.Language, toolchain: Find
) -> None:
    compiler = toolchain(name)
    emitted = compilers.emit([compiler.compiler], [GENERATE], language, os.environ)
    assert (emitted.family, emitted.quiet) == (family, True)
    assert compilers.described(emitted).split()[1].split(".")[0] == compiler.major
    assert [piece.raw_version for piece in emitted.pieces] == (
        [compiler.raw_version] if compiler.raw_version else []
    )
    plain = compilers.emit([compiler.compiler], [], language, os.environ)
    assert (plain.family, plain.pieces) == (family, ())


@pytest.mark.parametrize("level", ["0", "1", "2", "3", "s", "z"])
def test_what_instruments_does_so_at_every_level_of_optimization(
    level: str, rustc: Toolchain, toolchain: Find
) -> None:
    def versions(compiler: Path, *flags: str) -> list[int]:
        language: compilers.Language = "Rust" if compiler == rustc.compiler else "C"
        emitted = compilers.emit([compiler], flags, language, os.environ)
        return [piece.raw_version for piece in emitted.pieces]

    flags = f"-Copt-level={level}", "-Cprofile-generate=x", "-Funsafe-code"
    assert versions(rustc.compiler, *flags) == [rustc.raw_version]
    for major in ("17", "22"):
        clang = toolchain(major)
        assert versions(clang.compiler, f"-O{level}", GENERATE) == [clang.raw_version]
        second = versions(clang.compiler, f"-O{level}", "-fcs-profile-generate")
        assert second == ([] if level == "0" else [clang.raw_version])


@pytest.mark.parametrize("name", ["17", "18", "19", "22", "23"])
def test_records_without_a_version_are_of_their_compilers(name: str, toolchain: Find) -> None:
    """Those of raw versions 9 and 10 are alike, and a front end adds no symbol that says which."""
    clang = toolchain(name)
    flag = "-fprofile-instr-generate"
    for words in ([flag], []):
        command = [str(clang.compiler), *([] if words else [flag])]
        emitted = compilers.emit(command, words, "C", os.environ)
        assert [(p.raw_version, p.how) for p in emitted.pieces] == [
            (clang.raw_version, "front-end")
        ]


def test_c_is_compiled_as_for_a_release(write: Write, check: Check, toolchain: Find) -> None:
    """A second, context-sensitive profile is made where clang optimizes."""
    own = write(env={"CFLAGS": "-fcs-profile-generate", "RUSTFLAGS": "-Cprofile-generate=pgo"})
    old = str(toolchain("17").compiler)
    assert check(own, old).verdict == "mixed"
    assert verdict.check(None, [old, f"{old} -fcs-profile-generate"]).verdict == "mixed"


@pytest.fixture(scope="module")
def two(toolchain: Find) -> tuple[Path, Path]:
    """Return clangs of raw version 8 and 10; found before a test has another cache."""
    return toolchain("17").compiler, toolchain("22").compiler


def test_an_answer_is_kept_until_the_compiler_changes(
    two: tuple[Path, Path], cache: Path, tmp_path: Path
) -> None:
    """A stand-in that is no script: what it says is said by the real one."""
    link = tmp_path / "clang"
    link.symlink_to(two[0])

    def ask() -> compilers.Emitted:
        return compilers.emit([link], [GENERATE], "C", os.environ)

    first = ask()
    (note,) = (cache / "forecast").iterdir()
    note.write_text(note.read_text().replace("17.0.6", "17.0.7"))
    assert ask().version == first.version.replace("17.0.6", "17.0.7")
    note.write_text("{")
    assert ask() == first
    link.unlink()
    link.symlink_to(two[1])
    assert ask().version != first.version


def test_a_script_is_asked_each_time_for_it_calls_another(
    two: tuple[Path, Path], cache: Path, tmp_path: Path
) -> None:
    wrapper = tmp_path / "cc"
    versions = []
    for compiler in two:
        script(wrapper, f'exec {shlex.quote(str(compiler))} "$@"')
        os.utime(wrapper, (1, 1))
        versions.append(compilers.emit([wrapper], [GENERATE], "C", os.environ).pieces[0])
    assert [piece.raw_version for piece in versions] == [8, 10]
    assert not (cache / "forecast").exists()


def test_what_hangs_or_asks_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write: Write, check: Check
) -> None:
    monkeypatch.setattr(compilers, "_LIMITS", settings.Limits(seconds=1.0))
    own = write()
    hanging = script(tmp_path / "hanging", "sleep 60")
    start = time.monotonic()
    with pytest.raises(LabError, match=r"hanging: stopped at the time limit"):
        check(own, str(hanging))
    assert time.monotonic() - start < 20
    asking = script(
        tmp_path / "asking", 'read -r answer && exec cc "$@"', "echo no answer >&2; exit 1"
    )
    with pytest.raises(LabError, match="asking: no answer"):
        check(own, str(asking))


def test_a_compiler_that_is_not_there_or_makes_nothing_is_one_line(
    write: Write, check: Check, tmp_path: Path
) -> None:
    own = write()
    with pytest.raises(LabError, match="CC: no such program: no-cc; install it"):
        check(own, CC="no-cc")
    with pytest.raises(LabError, match="it ended with 0"):
        check(own, str(script(tmp_path / "idle", "exit 0")))
    with pytest.raises(LabError, match="what it makes is no object"):
        check(
            own,
            str(script(tmp_path / "echo", 'while [ "$1" != -o ]; do shift; done; echo x > "$2"')),
        )


def test_wrappers_are_passed_over_and_arguments_are_not(
    write: Write, check: Check, toolchain: Find, tmp_path: Path
) -> None:
    sccache = script(tmp_path / "sccache", f"touch {tmp_path}/ran; exit 1")
    forecast = check(write(), CC=f"{sccache} {toolchain('17').compiler} -m64")
    assert forecast.verdict == "mixed"
    assert forecast.calls[0].command == (str(toolchain("17").compiler), "-m64")
    assert not (tmp_path / "ran").exists()


def test_a_program_that_does_not_answer_alone_is_no_clang_to_cc(
    write: Write, check: Check, toolchain: Find, tmp_path: Path
) -> None:
    old = toolchain("17").compiler
    own = write(env={"RUSTFLAGS": "-Cprofile-generate=pgo"})
    forecast = check(own, CC=f"env {old}")
    assert (forecast.verdict, forecast.calls[0].name) == ("consistent", "clang 17.0.6")
    assert "nothing of rustc's" in forecast.calls[0].effect
    assert check(own, CC=f"env {old}", CFLAGS=GENERATE).verdict == "mixed"
    zig = script(tmp_path / "zig", f'[ "$1" = cc ] || exit 1; shift; exec {old} "$@"')
    assert check(own, CC=f"{zig} cc").verdict == "mixed"


def test_flags_that_ask_for_records_where_none_are_made_leave_it_unknown(
    write: Write, check: Check, toolchain: Find
) -> None:
    old = str(toolchain("17").compiler)
    own = write(env={"RUSTFLAGS": "-Cprofile-generate=pgo", "CC": old})
    second = "-O0 -fcs-profile-generate"
    forecast = check(own, CFLAGS=f"-fno-profile-generate {second}")
    assert (forecast.verdict, forecast.exit_code) == ("unknown", 2)
    assert "ask for records" in forecast.why and "tiny 0.1.0" in forecast.why
    assert check(own, CFLAGS=f"{second} -fno-profile-generate").verdict == "consistent"
    assert verdict.check(None, [f"{old} {second}"]).verdict == "unknown"


# -- without cargo


def test_compilers_alone(toolchain: Find) -> None:
    old, new, gcc = (str(toolchain(name).compiler) for name in ("17", "22", "gcc"))
    mixed = verdict.check(None, [old, new])
    assert (mixed.verdict, mixed.exit_code) == ("mixed", 1)
    assert set(mixed.outcomes) >= {"crash", "version-mismatch"}
    assert "LLVM 14 to 17" in mixed.advice and "LLVM 19 to 22" in mixed.advice
    assert verdict.check(None, [new, f"{new} -O2"]).verdict == "consistent"
    assert verdict.check(None, [old, f"{new} -fno-profile-generate"]).verdict == "consistent"
    assert verdict.check(None, [gcc]).verdict == "not-instrumented"
    front_end = verdict.check(None, [old, f"{new} -fprofile-instr-generate"])
    assert front_end.verdict == "mixed"
    for commands, why in (
        ([""], "no compiler"),
        (["'"], "no words"),
        (["/no/cc"], "no such program"),
    ):
        with pytest.raises(LabError, match=why):
            verdict.check(None, commands)
    with pytest.raises(LabError, match="unknown argument|unsupported"):
        verdict.check(None, [f"{new} -no-such-flag"])


def test_a_compiler_is_the_cc_of_the_project_in_the_current_folder(
    write: Write, toolchain: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, old = write(), str(toolchain("17").compiler)
    for name, value in own.environment().items():
        monkeypatch.setenv(name, value)
    for folder in (own.folder, own.folder / "src"):
        monkeypatch.chdir(folder)
        forecast = verdict.check(None, [old])
        assert (forecast.verdict, forecast.calls[0].packages) == ("mixed", ("tiny 0.1.0",))
        assert verdict.check(None, [old, old]).verdict == "consistent"  # two are judged alone
    monkeypatch.chdir(tmp_path)
    assert verdict.check(None, [old]).calls[0].packages == ()


def test_compile_commands(toolchain: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = str(toolchain("17").compiler), str(toolchain("22").compiler)
    folder = tmp_path / "inner"
    folder.mkdir()
    database = folder / "compile_commands.json"
    (tmp_path / "Cargo.toml").touch()  # further away than the commands

    def judged(*commands: str | list[str]) -> verdict.Forecast:
        entries = [
            {
                "file": f"{n}.c",
                "directory": "/",
                "arguments" if isinstance(c, list) else "command": c,
            }
            for n, c in enumerate(commands)
        ]
        database.write_text(json.dumps(entries))
        return verdict.check(folder, [])

    mixed = judged(
        f"{old} {GENERATE} -O2 -c 0.c", [new, GENERATE, "-c", "1.c"], [new, "-g", "-c", "2.c"]
    )
    assert mixed.verdict == "mixed"
    assert [call.because for call in mixed.calls] == ["compile_commands.json, one file"] * 3
    assert judged(f"{old} -c 0.c", f"ccache {new} {GENERATE} -c 1.c").verdict == "consistent"
    assert judged(f"{old} -c 0.c").verdict == "not-instrumented"
    assert verdict.check(folder, [new]).verdict == "consistent"
    judged(f"{old} {GENERATE} -c 0.c")
    assert verdict.check(folder, [new]).verdict == "mixed"
    monkeypatch.chdir(folder)
    assert verdict.check(None, [new]).verdict == "mixed"
    for text, why in (
        ("[", "not JSON"),
        ("{}", "not a list"),
        ('[{"file": "x.c"}]', "without command"),
    ):
        database.write_text(text)
        with pytest.raises(LabError, match=why):
            verdict.check(folder, [])
