"""`pgo-lab mac-check`, as far as it can be tried without a Mac.

Its builds are real, of this machine: the compilers and LLDB that are here, lld in place of Apple's
linker. Where a program of Apple's is asked, a script stands in: these show which questions are
asked and that the answers are kept, and make no claim about a Mac.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbsupport.base import process, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.cli import commands
from nbsupport.crash.explanation import explain
from nbsupport.studies import mac_check, mac_evidence, mac_steps
from nbsupport.studies.mac_check import CheckStep
from nbsupport.studies.mac_steps import MacBuild, MacCheck
from nbsupport.studies.sent_folder import SentFolder
from nbsupport.toolchains import Toolchain, discovery, probe

#: What programs of Apple's print, by their command lines. `ld -v` is as in ziglang/zig issue 17188,
#: `clang --version` and `lldb --version` as in homebrew's `brew config` and many issues.
ANSWERS = {
    "sw_vers": "ProductName:\t\tmacOS\nProductVersion:\t\t15.1\nBuildVersion:\t\t24B83",
    "uname -m": "arm64",
    "sysctl -n machdep.cpu.brand_string": "Apple M1",
    "sysctl -n sysctl.proc_translated": "0",
    "DevToolsSecurity -status": "Developer mode is currently enabled.",
    "rustc -vV": "rustc 1.85.0 (4d91de4e4 2025-02-17)\nLLVM version: 19.1.7",
    "xcode-select -p": "/Applications/Xcode.app/Contents/Developer",
    "xcrun --find clang": "/Applications/Xcode.app/Contents/Developer/usr/bin/clang",
    "xcrun clang --version": "Apple clang version 16.0.0 (clang-1600.0.26.4)",
    "xcrun lldb --version": "lldb-1600.0.39.109\nApple Swift version 6.0.3",
    "xcrun ld -v": "@(#)PROGRAM:ld PROJECT:ld-1115.7.3",
    "xcrun ld -ld_classic -v": "@(#)PROGRAM:ld-classic  PROJECT:ld64-954.16",
}
REPORT = Path(__file__).parents[1] / "crash" / "corpus" / "fourth-mac-ips-main.txt"


@pytest.fixture
def check(tmp_path: Path) -> MacCheck:
    (tmp_path / "work").mkdir()
    return MacCheck(tmp_path / "sent", tmp_path / "work")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], Path]:
    """Return a function that puts programs on PATH: they answer as told, and note what is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(answers: dict[str, str]) -> Path:
        for name in {command.split()[0] for command in answers}:
            cases = "".join(
                f"'{command}') cat <<'E'\n{text}\nE\n;;\n" for command, text in answers.items()
            )
            path = folder / name
            lines = f'#!/bin/sh\nasked="{name} $*"; asked="${{asked% }}"\n'
            lines += (
                f'echo "$asked" >>{folder}/asked\ncase "$asked" in\n{cases}*) exit 1 ;;\nesac\n'
            )
            path.write_text(lines)
            path.chmod(0o755)
        return folder / "asked"

    return make


def step(do: Callable[[MacCheck], None], seconds: int = 60) -> CheckStep:
    return CheckStep("one", "does it", (), seconds, do)


class TestCommand:
    def test_on_another_machine_it_is_one_line(self, capfd: pytest.CaptureFixture[str]) -> None:
        assert commands.main(["mac-check"]) == 2
        output, errors = capfd.readouterr()
        assert (output, len(errors.splitlines())) == ("", 1)
        assert errors.startswith("pgo-lab: mac-check: this is not a Mac; ")

    def test_the_plan_is_said_anywhere_and_does_nothing(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert commands.main(["mac-check", "--plan", "-o", str(tmp_path / "sent")]) == 0
        text = capfd.readouterr().out
        assert max(map(len, text.splitlines())) <= 100
        for each in mac_check.STEPS:
            assert f"{each.name}, {each.seconds} s at most. " in text
        for command in (*mac_steps.MACHINE, *mac_steps.XCODE, "xcode-select -p"):
            assert f"     {command}\n" in text
        for said in (f"{tmp_path / 'sent'}.zip", "10 minutes at most", "uses no network"):
            assert said in " ".join(text.split())
        assert not list(tmp_path.iterdir())

    def test_it_takes_ten_minutes_at_most(self) -> None:
        assert sum(each.seconds for each in mac_check.STEPS) <= 595

    def test_it_says_the_plan_first_and_then_where_to_send_the_archive(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.platform", "darwin")
        said: list[str] = []

        def look(_: MacCheck) -> None:
            said.append(capfd.readouterr().out)

        monkeypatch.setattr(mac_check, "STEPS", (step(look),))
        folder = tmp_path / "sent"
        assert commands.main(["mac-check", "-o", str(folder)]) == 0
        assert "1. one, 60 s at most. does it" in said[0]
        text = " ".join(capfd.readouterr().out.split())
        assert f"Please send {folder}.zip back: open an issue where you got pgo-lab" in text
        assert zipfile.ZipFile(f"{folder}.zip").namelist() == ["sent/", "sent/results.json"]
        assert commands.main(["mac-check", "-o", str(folder)]) == 2
        assert "it is there already; move it away" in capfd.readouterr().err


class TestMachine:
    def test_each_question_is_asked_and_its_answer_kept(
        self, check: MacCheck, stand_in: Callable[[dict[str, str]], Path], tmp_path: Path
    ) -> None:
        linker = tmp_path / "ld"
        linker.touch()
        asked = stand_in({**ANSWERS, "xcrun --find ld": str(linker)})
        check.ask_machine()
        assert set(asked.read_text().splitlines()) == {*ANSWERS, "xcrun --find ld"}
        rows = {row["command"]: row for row in check.results["machine"]}
        assert {rows[command]["output"] for command in ANSWERS} == set(ANSWERS.values())
        assert check.linkers == {"ld": (f"--ld-path={linker}",)}
        assert not check.results["missing"]
        linker.with_name("ld-classic").touch()
        check.ask_machine()
        assert check.linkers["ld-classic"] == (f"--ld-path={linker}", "-Wl,-ld_classic")

    def test_without_apples_tools_none_of_them_is_started(
        self,
        check: MacCheck,
        stand_in: Callable[[dict[str, str]], Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        there = {"sw_vers": "x", "xcrun x": "x", "xcode-select x": "error: no developer tools"}
        asked = stand_in(there)
        monkeypatch.setattr("nbsupport.toolchains.discovery.discover", lambda: pytest.fail("asked"))
        mac_check.do_steps(check, mac_check.STEPS)
        assert not [line for line in asked.read_text().splitlines() if line.startswith("xcrun")]
        (missing,) = check.results["missing"]
        assert missing == "Apple's compiler and linker: xcode-select --install brings them"
        rows = {row["command"]: row for row in check.results["machine"]}
        assert rows["rustc -vV"]["exit_code"] is None
        assert "no such program" in rows["rustc -vV"]["output"]
        assert mac_check.load(check.folder.path)["whole"]


@pytest.mark.parametrize(
    "ask", [lambda c, path: c._ask(f"{path} -vV"), lambda _, path: probe.ask([path])]
)
def test_rustup_is_asked_to_install_nothing(
    check: MacCheck, tmp_path: Path, ask: Callable[[MacCheck, Path], str]
) -> None:
    path = tmp_path / "rustc"
    path.write_text('#!/bin/sh\necho "install: $RUSTUP_AUTO_INSTALL"\n')
    path.chmod(0o755)
    assert ask(check, path).strip() == "install: 0"


def compiler(name: str, raw_version: int | None, *, runtime: bool = True) -> Toolchain:
    version, _, provider = name.partition("@")
    place = Path("/", name)
    archive = Path("/runtime") if runtime else None
    words = (f"{version}.0.0", raw_version, provider, place, place)
    return Toolchain(name, "rustc" if "rustc" in provider else "clang", *words, runtime=archive)


OLD, NEW = compiler("16@apple", 8), compiler("17@apple", 10)
HOMEBREW = [compiler(name, raw) for name, raw in (("17@homebrew", 8), ("19@homebrew", 10))]
NEWEST = compiler("23@homebrew", 11)
RUSTC = compiler("22@rustc-1.95.0", 10)


@pytest.mark.parametrize(
    ("there", "pairs"),
    [
        ([OLD, *HOMEBREW, NEWEST, RUSTC], ["19@homebrew 16@apple"]),
        ([OLD, RUSTC], ["22@rustc-1.95.0 16@apple"]),
        ([OLD, NEWEST], ["23@homebrew 16@apple"]),
        # Of one size: that is tried, and another library, which mixes.
        ([NEW, *HOMEBREW, NEWEST], ["19@homebrew 17@apple", "19@homebrew 17@homebrew"]),
        ([NEW, HOMEBREW[1], NEWEST], ["19@homebrew 17@apple", "19@homebrew 23@homebrew"]),
        ([NEW, HOMEBREW[1], RUSTC], ["19@homebrew 17@apple"]),
        (HOMEBREW, ["19@homebrew 17@homebrew"]),
        ([OLD], []),
        ([], []),
        ([compiler("16@apple", 8, runtime=False), *HOMEBREW], ["19@homebrew 17@homebrew"]),
        ([compiler("16@apple", None), HOMEBREW[1]], []),
    ],
)
def test_who_is_mixed_is_what_the_user_had_where_it_can_be(
    there: list[Toolchain], pairs: list[str]
) -> None:
    ordered = sorted(there, key=lambda t: int(t.major))
    assert [f"{main.name} {foreign.name}" for main, foreign in mac_steps.choose(ordered)] == pairs


def test_compilers_are_told_and_what_is_missing_of_them(
    check: MacCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    apple = replace(NEW, lldb=Path("/xcode/lldb"))
    monkeypatch.setattr("nbsupport.toolchains.discovery.discover", lambda: (apple, RUSTC))
    check.find_compilers()
    assert not check.results["compilers"], "Apple's tools are not here"
    monkeypatch.setattr(check, "_xcode", True)
    check.find_compilers()
    rows = [(row["name"], row["raw_version"]) for row in check.results["compilers"]]
    assert (rows, check.lldb) == ([("17@apple", 10), ("22@rustc-1.95.0", 10)], apple.lldb)
    sizes, tool = check.results["missing"]
    assert sizes.startswith("two compilers whose records differ in size: brew install llvm@19")
    assert tool.startswith("llvm-profdata for 22@rustc-1.95.0: not found; ")
    assert tool.endswith("; rustup component add llvm-tools")


@pytest.fixture(scope="module")
def whole(
    toolchain: Callable[[str], Toolchain], tmp_path_factory: pytest.TempPathFactory
) -> MacCheck:
    """Return a check of this machine: LLVM 19 with 17, which mixes, and with 22, which does not."""
    folder = tmp_path_factory.mktemp("check")
    (folder / "work").mkdir()
    check = MacCheck(folder / "sent", folder / "work")
    main = toolchain("19@wheel")
    check.pairs = [(main, toolchain("17@wheel")), (main, toolchain("22@wheel"))]
    check.linkers = {"lld": ("-fuse-ld=lld",)}
    check.strip, check.map = "-Wl,--gc-sections", "-Wl,-Map,"
    do = (MacCheck.try_mixed, MacCheck.try_control)
    mac_check.do_steps(check, [step(each, 300) for each in do])
    return check


class TestBuilds:
    def test_each_way_is_built_and_run(self, whole: MacCheck) -> None:
        rows = mac_check.load(whole.folder.path)["builds"]
        ways = [
            (r["optimize"], r["order"], r["dead_strip"], r["aligned"], r["instrumented"])
            for r in rows
        ]
        assert len(set(ways)) == len(ways) - 1 == 11  # that of one size is built in one of the ways
        assert not whole.results["missing"]
        for row in rows:
            kind, symbol, layouts = "crash", 10, [[64, 3], [48, 6]]
            if row["order"] == "foreign-first":
                kind, symbol, layouts = "version-mismatch", 8, layouts[::-1]
            if row["foreign"] == "22@wheel":
                kind, layouts = "ok", [[64, 9]]
            if not row["instrumented"]:
                kind, layouts = "ok", [[64, 3]]
            assert (row["outcome"], row["version_symbol"], row["layouts"]) == (
                kind,
                symbol,
                layouts,
            )
            assert row["outcome"] in row["foretold"]
            assert len(row["records"]) == 2 * sum(size * number for size, number in layouts)

    def test_a_crash_is_told_whole(self, whole: MacCheck) -> None:
        row = next(row for row in whole.results["builds"] if row["outcome"] == "crash")
        assert row["function"] == "initializeValueProfRuntimeRecord"
        assert row["fault_address"] == "0x1000100000003" in row["registers"].values()
        assert row["words"].startswith("signal SIGSEGV")
        text = (whole.folder.path / "crashes" / "lldb.txt").read_text()
        for said in (
            "initializeValueProfRuntimeRecord",
            "rip = 0x",
            "stop reason = signal SIGSEGV",
        ):
            assert said in text

    def test_what_tools_said_is_kept(self, whole: MacCheck) -> None:
        names = {path.stem for path in (whole.folder.path / "maps").iterdir()}
        assert len(names) == 12
        way = "19@wheel_17@wheel_Os_main-first_lld"
        plain, stripped, aligned = (
            (whole.folder.path / "maps" / f"{way}{mark}.txt").read_text()
            for mark in ("", "_stripped", "_aligned")
        )
        assert "__llvm_prf_data" in plain and len(stripped) < len(plain)
        assert "aligned_to_64" in aligned and "aligned_to_64" not in plain
        profiles = {path.stem for path in (whole.folder.path / "profiles").iterdir()}
        kept = {"19@wheel_22@wheel_Os_main-first_lld"}
        kept |= {f"19@wheel_17@wheel_{o}_main-first_lld_foreign-off" for o in ("Os", "O2")}
        assert profiles == kept
        assert ":ir" in (whole.folder.path / "profiles" / f"{kept.pop()}.proftext").read_text()

    def test_it_is_said_in_lines(self, whole: MacCheck) -> None:
        assert mac_check.summarize(whole.results) == [
            "10 programs mixed: crash 5, version-mismatch 4, ok 1",
            "2 programs with the foreign part's instrumentation off: ok 2",
        ]

    def test_what_cannot_be_linked_is_a_row_and_a_log(
        self, check: MacCheck, whole: MacCheck
    ) -> None:
        check.pairs, check.linkers = whole.pairs[:1], {"none": ("--ld-path=/nonexistent",)}
        mac_check.do_steps(check, [step(MacCheck.try_control)])
        assert {row["outcome"] for row in check.results["builds"]} == {"build-failed"}
        for log in (check.folder.path / "logs").iterdir():
            assert "nonexistent" in log.read_text()
        assert "build-failed" in mac_check.table([check.folder.path]).text

    def test_without_an_llvm_profdata_it_is_said_how_a_program_ended(
        self, check: MacCheck, whole: MacCheck, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(_: Toolchain) -> Path:
            raise MissingError("llvm-profdata", "not found", "get it")

        monkeypatch.setattr("nbsupport.toolchains.profdata.tool", missing)
        monkeypatch.setattr(mac_steps, "OPTIMIZED", ("-Os",))
        check.pairs, check.linkers = whole.pairs[:1], whole.linkers
        check.strip, check.map = whole.strip, whole.map
        check.try_mixed()
        check.try_control()
        *mixed, control = check.results["builds"]
        # A crash, and a version's message, need no profile.
        assert {row["outcome"] for row in mixed} == {"crash", "version-mismatch"}
        assert (control["outcome"], control["exit_code"], control["signal"]) == (
            "not-judged",
            0,
            None,
        )
        assert control["profile"]["bytes"] > 300
        assert control["detail"] == "llvm-profdata: not found; get it"


class TestTime:
    def test_a_step_ends_with_its_time_and_the_next_one_is_done(self, check: MacCheck) -> None:
        def sleep(check: MacCheck) -> None:
            for _ in range(2):  # what is begun when the time is over ends, too
                process.run(["sleep", "60"], cwd=Path("/"), limits=settings.TRACED)

        done: list[bool] = []
        start = time.monotonic()
        mac_check.do_steps(check, [step(sleep, 1), step(lambda _: done.append(True))])
        assert time.monotonic() - start < 10
        assert done and check.results["missing"] == [
            "one: the rest of this step, because its 1 s were over"
        ]

    def test_what_the_clock_ended_is_no_outcome(self, check: MacCheck, whole: MacCheck) -> None:
        check.pairs, check.linkers = whole.pairs, whole.linkers
        check.late.set()
        check.try_mixed()
        assert not check.results["builds"]

    def test_an_interrupt_leaves_what_is_whole(self, check: MacCheck) -> None:
        def interrupted(check: MacCheck) -> None:
            check.lack("a thing")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            mac_check.do_steps(check, [step(interrupted)])
        results = mac_check.load(check.folder.path)
        assert (results["whole"], results["missing"]) == (False, ["a thing"])

    def test_what_fails_is_said_and_the_rest_is_done(self, check: MacCheck) -> None:
        def failing(_: MacCheck) -> None:
            raise LabError("a tool", "gone", "get it")

        mac_check.do_steps(check, [step(failing)])
        assert mac_check.load(check.folder.path)["missing"] == ["one: a tool: gone; get it"]


@pytest.fixture
def jane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Make this a Mac of Jane's, who has all kinds of names; return what nobody else may read."""
    home = tmp_path / "Users" / "jane.roe"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "jane.roe")
    monkeypatch.setenv("LOGNAME", "roe-admin")
    monkeypatch.setenv("SECRET_TOKEN", "xyzzy-1234")
    monkeypatch.setenv("SDKROOT", f"{home}/sdk")
    monkeypatch.setattr("platform.node", lambda: "Janes-Mac.local")
    user = type("Entry", (), {"pw_gecos": "Jane Q. Roe,,,", "pw_name": "jroe"})
    monkeypatch.setattr("pwd.getpwuid", lambda _: user)
    yield [b"jane", b"roe", b"xyzzy", b"secret", bytes(tmp_path)]


class TestPrivacy:
    def test_nothing_in_the_folder_tells_who_and_where(
        self,
        tmp_path: Path,
        jane: list[bytes],
        whole: MacCheck,
        stand_in: Callable[[dict[str, str]], Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(mac_steps, "OPTIMIZED", ("-Os",))
        home = Path.home()
        (tmp_path / "work").mkdir()
        check = MacCheck(tmp_path / "sent", tmp_path / "work")
        text = (
            f"jane.roe and JROE, roe-admin of Jane Q. Roe at janes-mac: {home}/x, {tmp_path}/work/y"
        )
        asked = {command: text for command in ANSWERS if not command.startswith("uname")}
        stand_in({**asked, "xcrun --find ld": f"{home}/ld", "env": ""})
        check.ask_machine()
        check.pairs, check.linkers = whole.pairs[:1], {"lld": ("-fuse-ld=lld",)}
        check.strip, check.map = "-Wl,--gc-sections", "-Wl,-Map,"
        check.lldb = discovery.find_lldb()
        reports = home / "Library" / "Logs" / "DiagnosticReports"
        reports.mkdir(parents=True)
        check.try_mixed()
        body = REPORT.read_text().replace("USER", "jane.roe").replace("pagepack", "cold")
        (reports / "cold-2026-11-30-120000.ips").write_text(body)
        check.take_reports()
        check.folder.write("logs/more.txt", "/private/var/folders/ab/c0_def/T/x")
        check.save()
        archive = zipfile.ZipFile(check.folder.pack())
        contents = [path.read_bytes() for path in check.folder.path.rglob("*") if path.is_file()]
        contents += [archive.read(name) for name in archive.namelist()]
        assert len(contents) > 20
        for content in contents:
            for private in (*jane, b"c0_def"):
                assert private.lower() not in content.lower()
        results = mac_check.load(check.folder.path)
        assert results["environment"] == {"SDKROOT": "~/sdk"}
        assert results["machine"][0]["output"] == (
            "<name> and <name>, <name> of <name> at <name>: ~/x, <work>/y"
        )

    def test_names_inside_of_words_stay(self, tmp_path: Path, jane: list[bytes]) -> None:
        hide = SentFolder(tmp_path / "sent", {}).hide
        assert hide("jroes jrooe x_jroe jroe-") == "jroes jrooe x_<name> <name>-"
        home = str(Path.home())
        assert hide(f"{home} {home}x {home}/x {home.upper()}/x") == f"~ {hide(home + 'x')} ~/x ~/x"
        assert hide(home + "x").endswith("x") and "~" not in hide(home + "x")

    def test_a_home_that_is_the_root_hides_no_slash(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", "/")
        assert SentFolder(tmp_path / "sent", {}).hide("cd / ; ls /usr") == "cd / ; ls /usr"


class TestReports:
    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr(mac_steps, "_WAIT", 0.1)
        folder = tmp_path / "Library" / "Logs" / "DiagnosticReports"
        folder.mkdir(parents=True)
        return folder

    def test_macos_own_report_is_taken_without_what_is_of_this_mac(
        self, check: MacCheck, place: Path
    ) -> None:
        check.results["builds"] = [{"outcome": "crash", "program": "cold"}]
        new = place / "cold-2026-11-30-120000.ips"
        for path in (new, place / "cold-2025-01-01-120000.ips", place / "mail-1.ips"):
            path.write_text(REPORT.read_text())
        os.utime(place / "cold-2025-01-01-120000.ips", (1, 1))
        check.take_reports()
        (row,) = check.results["reports"]
        assert row["registers"]["far"] == {"value": 0x1000100000003}
        assert row["exception"]["subtype"].startswith("KERN_INVALID_ADDRESS at 0x0001000100000003")
        kept = check.folder.path / row["file"]
        text = kept.read_text()
        for private in ("crashReporterKey", "incident", "userID", "parentProc", "procPath", "pid"):
            assert f'"{private}"' in REPORT.read_text() or private == "incident_id"
            assert f'"{private}"' not in text
        # It is a report still: explain reads it as it does the whole one.
        whole, part = (explain(path).to_json() for path in (REPORT, kept))
        assert part["verdict"] == whole["verdict"] == "ours"

    def test_what_is_no_report_is_said(self, check: MacCheck, place: Path) -> None:
        check.results["builds"] = [{"outcome": "crash", "program": "cold"}]
        for number, text in enumerate(("", "{}", '{"bug_type": "309"}\n{"threads": []}', "x\ny")):
            (place / f"cold-{number}.ips").write_text(text)
        check.take_reports()
        assert not check.results["reports"]
        assert len(check.results["missing"]) == 4

    def test_none_is_said_and_not_asked_for_where_nothing_crashed(
        self, check: MacCheck, place: Path
    ) -> None:
        check.take_reports()
        assert not check.results["missing"]
        check.results["builds"] = [{"outcome": "crash", "program": "cold"}]
        check.take_reports()
        (missing,) = check.results["missing"]
        assert missing.startswith("reports of macOS: its Diag")


class TestTable:
    def test_until_a_mac_ran_it_the_table_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: MacCheck
    ) -> None:
        assert mac_check.recorded() == [], "a Mac ran it: README and notebook 11 must say so"
        assert "never run on a Mac" in mac_check.table().text
        monkeypatch.setattr(settings, "data_dir", lambda: tmp_path)
        shutil.copytree(whole.folder.path, tmp_path / "recorded" / "mac" / "macos-15")
        text = mac_check.table().text
        assert "never run" not in text
        assert text.count("macos-15") == 12
        assert "3 of 64, 6 of 48" in text and "17@wheel, not instrumented" in text

    def test_the_processors_own_register_is_shown(self, tmp_path: Path, whole: MacCheck) -> None:
        results = mac_check.load(whole.folder.path)
        row = next(row for row in results["builds"] if row["outcome"] == "crash")
        for register in ("far", "faultvaddr"):
            document = {**results, "builds": [{**row, "exception": {register: "0xabc"}}]}
            (tmp_path / "results.json").write_text(json.dumps(document))
            assert mac_check.table([tmp_path]).text.endswith("0x1000100000003  0xabc")

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}'])
    def test_what_is_no_check_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(LabError, match="results.json: not"):
            mac_check.load(tmp_path)
        with pytest.raises(LabError, match="No such file"):
            mac_check.load(tmp_path / "gone")


@pytest.mark.slow  # it takes the compilers for macOS
@pytest.mark.parametrize(("arch", "foreign"), [("arm64", "16"), ("x86_64", "17")])
@pytest.mark.parametrize("order", ["main-first", "foreign-first"])
@pytest.mark.parametrize("strip", [False, True])
def test_a_mach_o_image_says_its_order_and_its_version_symbol(
    arch: Any, foreign: str, order: Any, strip: bool
) -> None:
    from nbsupport.macos import build_program

    program = build_program("cold", arch, "19", foreign, order=order, dead_strip=strip)
    image = mac_evidence.read_image(program.path)
    layouts, symbol = [[64, 3], [48, 6]], 10
    if order == "foreign-first":
        layouts, symbol = layouts[::-1], 8
    assert (image["layouts"], image["version_symbol"]) == (layouts, symbol)
    assert (image["runtime"], image["verdict"]) == (10, "mixed")
    assert len(image["records"]) == 2 * 480


def test_the_names_of_files_tell_builds_apart() -> None:
    build = MacBuild("19@homebrew", "16@apple")
    changes: list[dict[str, Any]] = [
        {"optimize": "-O2"}, {"order": "foreign-first"}, {"linker": "ld-classic"},
        {"dead_strip": True}, {"instrumented": False}, {"aligned": True}, {"main": "/opt/clang"},
    ]  # fmt: skip
    names = {build.name, *(replace(build, **change).name for change in changes)}
    assert len(names) == 1 + len(changes)
    assert not [name for name in names if "/" in name]


def test_a_notebook_on_a_mac_makes_the_check_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Path] = []
    monkeypatch.setattr(settings, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(mac_check, "check", made.append)
    assert mac_check.measure("whole") == mac_check.recorded()  # here is no Mac
    monkeypatch.setattr(sys, "platform", "darwin")
    assert mac_check.measure("default") == mac_check.recorded()
    assert mac_check.measure("whole") == [*mac_check.recorded(), *made]
    assert [folder.name for folder in made] == ["this-mac"]
