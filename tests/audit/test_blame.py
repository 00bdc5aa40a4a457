"""Who brought foreign records: a line for each crate or build folder, and who is asked at all."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nbsupport.audit import objects
from nbsupport.audit.blame import Blame, origins
from nbsupport.audit.judge import audit
from nbsupport.cli.commands import main
from tests.support.compiled import FOO, MAIN, Bench

SOURCES = {
    "first": "int first(int x) { return x > 2 ? x : 2; }\n",
    "second": "int second(int x) { return x > 3 ? x : 3; }\nint third(int x) { return x; }\n",
}


@pytest.fixture
def crate(bench: Bench, tmp_path: Path) -> Path:
    """Return a cargo target folder with a crate's objects, their archive and its own library."""
    deps = tmp_path / "target" / "release" / "deps"
    out = tmp_path / "target" / "release" / "build" / "tiny-sys-0123456789abcdef" / "out"
    for folder in (deps, out):
        folder.mkdir(parents=True)
    (tmp_path / "target" / ".rustc_info.json").write_text("{}")
    for name, source in SOURCES.items():
        shutil.copy(bench.object("17", source), out / f"{name}.o")
    members = [out / f"{name}.o" for name in SOURCES]
    bench.run("19", "llvm-ar", "rcs", out / "libtiny.a", *members)
    shutil.copy(out / "libtiny.a", deps / "libtiny_sys-fedcba9876543210.rlib")
    main = bench.object("19", "int main(void) { return 0; }\n")
    whole = ["-Wl,--whole-archive", str(out / "libtiny.a"), "-Wl,--no-whole-archive"]
    shutil.copy(bench.linked("19", "tiny", main, *whole), deps / "tiny")
    return tmp_path / "target"


def test_a_crate_is_one_line_and_its_functions_are_counted_once(crate: Path) -> None:
    for path in (crate, crate / "release" / "deps" / "tiny"):
        report = audit([path])
        assert report.verdict == "mixed"
        (origin,) = report.origins
        assert (origin.name, origin.count) == ("tiny-sys", 3)
        assert sorted(file.path.name for file in origin.files) == [
            *("first.o", "libtiny.a", "libtiny_sys-fedcba9876543210.rlib", "second.o"),
        ]
        assert set(origin.functions) == {"first", "second", "third"}
        library = crate / "release" / "build" / "tiny-sys-0123456789abcdef" / "out" / "libtiny.a"
        assert str(origin) == (
            f"tiny-sys, 4 files, such as {library}: 3 functions: {', '.join(origin.functions)}"
        )
        assert report.to_json()["origins"][0]["count"] == 3
        assert len(report.to_json()["blame"]) == 4


def test_elsewhere_a_folder_is_one_line(bench: Bench, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    for name, source in SOURCES.items():
        shutil.copy(bench.object("17", source), tmp_path / "a" / f"{name}.o")
    shutil.copy(bench.object("17", FOO), tmp_path / "b" / "foo.o")
    for n in range(8):
        shutil.copy(bench.object("19", MAIN.replace("some", f"some{n}")), tmp_path / f"main{n}.o")
    lines = [str(origin) for origin in audit([tmp_path]).origins]
    assert lines[0].startswith(f"{tmp_path}/a, 2 files, such as first.o: 3 functions: ")
    assert lines[1].startswith(f"{tmp_path}/b/foo.o: 1 function: foo")


def test_a_mixed_archive_names_the_members_that_are_foreign(bench: Bench, tmp_path: Path) -> None:
    library = tmp_path / "libboth.a"
    ours, foreign = bench.object("19", SOURCES["first"]), bench.object("17", SOURCES["second"])
    bench.run("19", "llvm-ar", "rcs", library, ours, foreign)
    main = bench.object("19", "int main(void) { return 0; }\n")
    whole = ["-Wl,--whole-archive", str(library), "-Wl,--no-whole-archive"]
    image = tmp_path / "image"
    shutil.copy(bench.linked("19", "both", main, *whole), image)
    for paths in ([library, main], [image, library]):
        report = audit(paths)
        (blame,) = report.judgement.blame
        assert blame.to_json()["members"] == (foreign.name,)
        what = f"{library}({foreign.name})"
        assert str(report.origins[0]).startswith(f"{what}: 2 functions: ")
        assert report.judgement.advice.startswith(f"Rebuild {what} with ")


def test_of_what_has_no_records_the_files_are_named() -> None:
    (origin,) = origins([Blame(Path("x/a.bc")), Blame(Path("x/b.bc"))])
    assert str(origin) == "x, 2 files, such as a.bc"


def test_files_beside_a_program_are_read_only_where_it_is_mixed(
    crate: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    read = objects.read

    def count(path: Path, *rest: object) -> object:
        asked.append(path)
        return read(path)

    monkeypatch.setattr("nbsupport.audit.evidence.objects.read", lambda path, _: count(path))
    image = crate / "release" / "deps" / "whole"
    shutil.copy(bench.linked("19", "whole", bench.object("19", FOO + MAIN)), image)
    assert audit([image]).verdict == "consistent"
    assert asked == [image]
    assert audit([image.with_name("tiny")]).verdict == "mixed"
    assert len(asked) > 2


def test_the_verdict_is_told_before_anyone_is_blamed(
    crate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []

    def none(*_: object) -> list[Path]:
        shown.append(capsys.readouterr().out)
        return []

    monkeypatch.setattr("nbsupport.audit.blame.beside", none)
    assert main(["audit", str(crate / "release" / "deps" / "tiny")]) == 1
    (before,) = shown
    lines = before.splitlines()
    assert lines[0].startswith("mixed: ") and lines[1] == "what will happen: crash or malformed"
    assert "do: " in capsys.readouterr().out


def test_one_file_needs_no_more_than_a_reader_of_it(crate: Path) -> None:
    """No process is started, nothing is imported that only folders or compilers need."""
    code = """if True:
        import subprocess, sys
        from nbsupport.cli import commands
        subprocess.Popen.__init__ = None
        code = commands.main(["audit", "--json", sys.argv[1]])
        heavy = {"lief", "rich.progress", "multiprocessing", "nbsupport.toolchains.discovery"}
        print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)
    """
    command = [sys.executable, "-c", code, str(crate / "release" / "deps" / "tiny")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "1 []\n"


def test_an_object_that_cannot_have_been_linked_is_not_blamed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a program are objects of other compilers, of other code, and of older sources."""
    monkeypatch.chdir(tmp_path)
    both = SOURCES["first"] + SOURCES["second"]
    foreign = bench.object("17", both)
    shutil.copy(foreign, "linked.o")
    stale = (
        ("other-llvm.o", "18", both),
        ("ours.o", "19", both),
        ("with-more.o", "17", both + "int fourth(int x) { return x * 4; }\n"),
        ("changed.o", "17", both.replace("return x >", "while (x & 7) x *= 3; return x >")),
        ("elsewhere.o", "17", FOO),
    )
    for name, llvm, source in stale:
        shutil.copy(bench.object(llvm, source), name)
    main_object = bench.object("19", "int main(void) { return 0; }\n")
    shutil.copy(bench.linked("19", "stale", main_object, foreign), "app")
    report = audit([Path("app")])
    (blame,) = report.judgement.blame
    assert (blame.path.name, blame.certain) == ("linked.o", True)
    assert [str(origin) for origin in report.origins] == [
        "linked.o: 3 functions: first, second, third"
    ]


def test_of_two_objects_that_both_fit_one_is_said_to_be_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("-O2", "-fprofile-generate")
    foreign = bench.object("17", SOURCES["first"])
    shutil.copy(foreign, "a.o")
    shutil.copy(bench.object("17", SOURCES["first"], *flags), "b.o")
    main_object = bench.object("19", "int main(void) { return 0; }\n")
    shutil.copy(bench.linked("19", "rivals", main_object, foreign), "app")
    for paths in ([Path("app")], [Path()]):
        report = audit(paths)
        line = "this folder, one of 2 files that have them: a.o, b.o: 1 function: first"
        assert [str(origin) for origin in report.origins] == [line]
        assert report.judgement.advice.startswith("Rebuild the one that was linked of a.o, b.o wi")
        assert not any(file["certain"] for file in report.to_json()["blame"])
