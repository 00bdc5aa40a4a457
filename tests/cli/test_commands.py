"""The command line: the contract for scripts, and one line for everything that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest

from nbsupport.base import settings
from nbsupport.cli import commands
from nbsupport.lab.lab import Lab
from nbsupport.notebooks import results
from nbsupport.profile import layout
from nbsupport.toolchains import discovery
from tests.support import synthetic
from tests.support.synthetic import Function

#: A parent that ignores SIGINT, as a script's background job does, becomes the rest of the command.
IGNORING = ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
PGO_LAB = [sys.executable, "-c", "from nbsupport.cli.commands import entry; entry()"]


def pgo_lab(*args: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({"XDG_CACHE_HOME": str(cache)} if cache else {})}
    return subprocess.run([*PGO_LAB, *args], capture_output=True, text=True, env=env, check=False)


@pytest.mark.parametrize(
    ("foreign", "options", "outcome"),
    [
        ("17", (), "crash"),
        ("22", (), "ok"),
        ("gcc", (), "ok"),
        ("17", ("--order", "foreign-first"), "version-mismatch"),
        ("17", ("--instrument", "none"), "ok"),
        ("17", ("--program", "rust-mimalloc"), "crash"),
    ],
)
def test_trial(lab: Lab, foreign: str, options: tuple[str, ...], outcome: str) -> None:
    done = pgo_lab("trial", "--llvm", "19", "--foreign", foreign, "--json", *options)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["outcome"] == outcome
    if outcome == "crash":
        top = found["frames"][0]["function"]
        assert top in ("initializeValueProfRuntimeRecord", "__llvm_profile_instrument_target")
        assert found["signal"] == "SIGSEGV"
        assert found["fault_address"].startswith("0x")
    if outcome == "ok":
        assert found["profile"]["valid"]


def test_trial_for_people(lab: Lab) -> None:
    done = pgo_lab("trial", "--llvm", "19", "--foreign", "17")
    lines = done.stdout.splitlines()
    assert lines[0] == "crash: ended by SIGSEGV"
    assert lines[1].startswith("  #0 initializeValueProfRuntimeRecord + ")
    assert lines[-1].startswith("  at 0x1000100000003 (from the registers): ")


def test_toolchains(lab: Lab) -> None:
    found = json.loads(pgo_lab("toolchains", "--json").stdout)
    by_name = {one["name"]: one for one in found}
    assert by_name["19@wheel"]["raw_version"] == 10
    assert "19.1.7" in pgo_lab("toolchains").stdout


BAD = [
    (("trial", "--llvm", "99", "--foreign", "17"), "toolchain 99: not found (there are "),
    (("trial", "--llvm", "19", "--foreign", "17", "--program", "x"), "program x: there is none; "),
    (("trial", "--llvm", "19", "--foreign", "17", "--order", "x"), "order 'x': not known; choose"),
    (("trial", "--llvm", "19"), "usage: Missing"),
    (("trial", "--llvm", "19", "--nonsense"), "usage: No such option"),
    (("nonsense",), "usage: No such command 'nonsense'"),
    (("toolchains", "--install", "12"), "LLVM 12: no pinned wheels (there are 17.0.6"),
    (("report", "/nonexistent", "-o", "x"), "/nonexistent: no executed notebooks there; "),
    (("report", "recorded", "--to", "nobody", "-o", "x"), "a report to 'nobody': not known"),
    (
        ("report", "recorded", "--to", "llvm", "--format", "html", "-o", "x"),
        "report --format html: no such",
    ),
    (("report", "recorded", "--format", "pdf", "-o", "x"), "report --format pdf: no such report"),
    (("rescue", "-o", "x", "--binary", "x", "--", "y"), "rescue: nothing to rescue, or two"),
    (("guard", "--", "/nonexistent", "x.o"), "guard: /nonexistent: it cannot be started"),
    (("run", "/nonexistent.ipynb", "-o", "build/never"), "/nonexistent.ipynb: "),
]


@pytest.mark.parametrize(("args", "says"), BAD)
@pytest.mark.usefixtures("lab")
def test_bad_input_is_one_line(
    args: tuple[str, ...], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = commands.main([arg.replace("build/never", str(tmp_path / "out")) for arg in args])
    output, errors = capfd.readouterr()
    assert (code, output) == (2, "")
    assert errors.startswith(f"pgo-lab: {says}")
    assert len(errors.splitlines()) == 1


def test_the_process_ends_with_what_the_command_returns() -> None:
    done = pgo_lab(*BAD[0][0])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"pgo-lab: {BAD[0][1]}")


@pytest.mark.parametrize(
    ("observed", "code", "says"),
    [
        ("'crash'", 0, "executed"),
        ("'ok'", 1, "the claim mixed-layouts-decide came out otherwise"),
        ("1 / 0", 3, "failed"),
    ],
)
def test_run_tells_what_changed_from_what_failed(
    lab: Lab, tmp_path: Path, observed: str, code: int, says: str
) -> None:
    claims = results.recorded().claims
    at = json.loads(claims.loc[claims["name"] == "mixed-layouts-decide", "at"].iloc[0])
    source = "from nbsupport.notebooks import claim\n"
    source += f"claim('mixed-layouts-decide', 'crash', {observed}, **{at})"
    cell = nbformat.v4.new_code_cell(source)  # type: ignore[no-untyped-call]
    notebook = nbformat.v4.new_notebook(cells=[cell])  # type: ignore[no-untyped-call]
    nbformat.write(notebook, tmp_path / "one.ipynb")  # type: ignore[no-untyped-call]
    env = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    command = [*PGO_LAB, "run", str(tmp_path / "one.ipynb"), "-o", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == code, done.stderr
    assert says in done.stderr


def test_an_unusable_cache_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "pgo-lab").write_text("a file is in the way")
    done = pgo_lab("toolchains", "--install", "19", cache=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "set XDG_CACHE_HOME" in done.stderr or "check that path" in done.stderr


@pytest.mark.parametrize("parent", [[], IGNORING], ids=["usual", "ignoring"])
def test_interrupt_is_one_line(tmp_path: Path, parent: list[str]) -> None:
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [*parent, *PGO_LAB, "toolchains", "--install", "19"]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("pgo-lab/toolchains/.staging-*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr.splitlines()[-1].startswith("pgo-lab: interrupted: ")
    assert "Traceback" not in stderr


def test_a_closed_pipe_is_no_error(lab: Lab) -> None:
    command = f"{sys.executable} -c 'from nbsupport.cli.commands import entry; entry()' toolchains | head -1"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


SHELL = f"{sys.executable} -c 'from nbsupport.cli.commands import entry; entry()'"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", line]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_reader_that_has_gone_makes_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("version mismatch : expected 8, but get 10")
    command = f"{SHELL} explain {tmp_path / 'report'}"
    assert shell(f"{command} | true; exit ${{PIPESTATUS[0]}}").returncode == 141
    done = shell(f"{command} >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_in_a_report_controls_the_terminal(tmp_path: Path) -> None:
    name = "evil\x1b]0;x\x07\x9b31m"
    frames = f"* thread #1, stop reason = SIGSEGV\n    frame #0: 0x1 app`{name}\n"
    (tmp_path / "report").write_text(frames)
    done = pgo_lab("explain", str(tmp_path / "report"))
    assert r"evil\x9b31m" in done.stdout  # what sets a title is left out, as colours are
    assert all(c.isprintable() or c == "\n" for c in done.stdout + done.stderr)


def test_without_arguments_there_is_help_and_no_complaint() -> None:
    done = pgo_lab()
    assert (done.returncode, done.stderr) == (2, "")
    assert "Usage:" in done.stdout


def test_version_and_help() -> None:
    assert pgo_lab("--version").stdout.startswith("pgo-lab 0.")
    shown = pgo_lab("--help")
    assert shown.returncode == 0
    for command in ("toolchains", "trial", "run", "report"):
        assert command in shown.stdout


def test_the_package_is_the_command_too() -> None:
    command = [sys.executable, "-m", "nbsupport", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == pgo_lab("--version").stdout


def test_bash_completes_commands_and_options() -> None:
    script = """
        source <(pgo-lab --show-completion bash)
        COMP_WORDS=(pgo-lab aud); COMP_CWORD=1; _pgo_lab_completion pgo-lab; echo "${COMPREPLY[@]}"
        COMP_WORDS=(pgo-lab audit --f); COMP_CWORD=2; _pgo_lab_completion pgo-lab; echo "${COMPREPLY[@]}"
    """
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout == "audit\n--format\n"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the programs that this process has started by now: none at first."""
    programs: list[object] = []
    start: Any = subprocess.Popen.__init__

    def count(self: subprocess.Popen[bytes], args: object, *rest: object, **more: object) -> None:
        programs.append(args)
        start(self, args, *rest, **more)

    monkeypatch.setattr(subprocess.Popen, "__init__", count)
    return programs


def test_an_audit_starts_no_compiler_where_all_raw_versions_are_known(
    mixed_crash: Path, started: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert commands.main(["audit", str(mixed_crash)]) == 1
    profile = tmp_path / "x.profraw"
    profile.write_bytes(synthetic.profile([Function("f", 1, [2])], 10))
    assert commands.main(["profraw", str(profile)]) == 0
    assert started == []
    monkeypatch.delitem(layout.LAYOUTS, 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no compiler was looked at yet
    commands.main(["audit", str(mixed_crash)])
    assert started


def test_what_is_learned_counts_and_is_asked_for_once(
    mixed_crash: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, newer = [], layout.LAYOUTS[10]

    def discover() -> None:
        asked.append("asked")
        layout.LAYOUTS[10] = newer

    monkeypatch.delitem(layout.LAYOUTS, 10)
    monkeypatch.setattr(discovery, "discover", discover)
    assert commands.main(["audit", "--json", str(mixed_crash)]) == 1
    [file] = json.loads(capsys.readouterr().out)["files"]
    assert (asked, file["raw_versions"]) == (["asked"], [8, 10])
    assert [run["record_size"] for run in file["layouts"]] == [64, 48]


def test_a_report_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    done = pgo_lab("report", "recorded", "--format", "markdown", "-o", str(tmp_path / "report.md"))
    assert done.returncode == 0 and done.stdout == f"{tmp_path / 'report.md'}\n"
    assert (tmp_path / "report.md").read_text().startswith("# PGO segfault analysis")


def test_guard_links_or_refuses(tmp_path: Path) -> None:
    """The linker's words are its own: options, too."""
    main, other = (discovery.find(name).compiler for name in ("19", "17"))
    programs = settings.data_dir() / "programs"
    flags = ("-O1", "-fprofile-generate", "-c", "-o")
    for clang, source in ((main, "main.c"), (main, "library_cold.c"), (other, "library_hot.c")):
        made = str(tmp_path / f"{source}.o")
        subprocess.run([str(clang), *flags, made, str(programs / source)], check=True)
    link = (str(main), "-fuse-ld=lld", "-fprofile-generate", "-o", str(tmp_path / "out"))
    own, foreign = (str(tmp_path / f"library_{name}.c.o") for name in ("cold", "hot"))
    done = pgo_lab("guard", "--", *link, str(tmp_path / "main.c.o"), foreign)
    assert done.returncode == 1 and foreign in done.stderr
    assert done.stderr.startswith("pgo-lab: guard: not linked, for it would be a mix. Do")
    assert not (tmp_path / "out").exists()
    done = pgo_lab("guard", "--", *link, str(tmp_path / "main.c.o"), own)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out").exists()
