"""A rescued profile holds what the same objects count in a uniform build, whatever happens."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nbsupport.base.errors import LabError, MissingError
from nbsupport.cli import commands
from nbsupport.crash import family
from nbsupport.crash.inside_lldb.protocol import Note, RescueEvent
from nbsupport.lab import cases, counts
from nbsupport.lab.lab import Lab
from nbsupport.rescue import live, rescue
from nbsupport.rescue.live import LiveImage
from nbsupport.studies import rescued_counts
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain
from tests.rescue.programs import (
    ENVIRONMENT,
    VERSIONS,
    Compile,
    Saved,
    expected,
    linked,
    pgo_lab,
)
from tests.support.processes import without_ptrace


def test_every_pair_has_the_whole_profile_of_a_uniform_build(lab: Lab) -> None:
    """Counters, value sites and what these saw, function by function."""
    rows = rescued_counts.try_all(lab, ("hot", "rich", "cold"), VERSIONS)
    assert len(rows) == 3 * 10  # 18 and 19 have one record size
    assert set(rows["outcome"]) == {"crash"} and set(rows["layouts"]) == {2}
    assert set(rows["lost"]) == set(rows["wrong"]) == {""}
    assert rows.groupby("program")["functions"].min().to_dict() == {"cold": 9, "hot": 7, "rich": 75}


def test_equal_strides_are_saved_as_well(lab: Lab, saved: Saved) -> None:
    trial, path = linked(lab, "hot", "18", "19", order="foreign-first")
    _, seen = saved(path)
    assert counts.difference(seen, expected(lab, trial)) is None


@pytest.mark.whole
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


def test_input_and_output_are_the_programs_own(compiled: Compile, tmp_path: Path) -> None:
    argv = ("-o", tmp_path / "o.profdata", "--", compiled(), "read")
    done = pgo_lab(*argv, input="a line\n")
    assert done.returncode == 0 and done.stdout == "a line\n"
    assert done.stderr.startswith("stepped\n")
    assert "7 functions" in done.stderr and "lost" not in done.stderr
    done = pgo_lab("--json", *argv, input="a line\n")
    document = json.loads(done.stdout)
    assert document["functions"] == 7 and not document["healthy"]
    assert [one["record_size"] for one in document["parts"]] == [48, 64]
    assert "a line" in done.stderr


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("-o", "o.profdata"), "nothing to rescue, or two things; give --profraw"),
        (
            ("-o", "o.profdata", "--", "/bin/true"),
            "no image of it is instrumented, nor of what it starts; build",
        ),
        (("-o", "o.profdata", "--", "./nothing"), "no such program; check"),
        (("-o", "o.profdata", "--", "./script"), "nor of what it starts; build it with"),
        (("-o", ".", "--", "/bin/true"), "it is a folder; give the file"),
        (("-o", "script/o.profdata", "--", "/bin/true"), "File exists"),
        (("-o", "o.profdata", "--profraw", "script"), "not a raw profile"),
        (("-o", "o.profdata", "--profraw", "none"), "No such file"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    argv: tuple[str, ...],
    line: str,
) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "script").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    assert commands.main(["rescue", *argv]) == 2
    error = capfd.readouterr().err
    assert error.startswith("pgo-lab: ") and line in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["script"]


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_where_ptrace_is_forbidden(compiled: Compile, tmp_path: Path) -> None:
    argv = ("-o", tmp_path / "o.profdata", "--", compiled())
    done = pgo_lab(*argv, preexec_fn=without_ptrace)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "ptrace is allowed" in done.stderr


def test_where_nothing_follows_children(
    compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS: LLDB follows the program alone."""
    monkeypatch.setattr(family, "able", lambda: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.sh").write_text(f"#!/bin/sh\n{compiled()}\n")
    (tmp_path / "train.sh").chmod(0o755)
    itself = "give the program that it starts, or let cargo's `runner` be"
    with pytest.raises(LabError, match=f"train.sh: it is a script, not a program; {itself}"):
        rescue.run(["./train.sh"], tmp_path / "o.profdata")
    with pytest.raises(LabError, match=f"followed on Linux only; {itself}"):
        rescue.run(["/bin/sh", "train.sh"], tmp_path / "o.profdata", env=ENVIRONMENT)
    monkeypatch.setattr(discovery, "find_lldb", lambda: None)
    with pytest.raises(MissingError, match="toolchains --install 23"):
        rescue.run([compiled()], tmp_path / "o.profdata")


def test_lldbs_server_may_answer_late(
    compiled: Compile,
    saved: Saved,
    toolchain: Callable[[str], Toolchain],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a loaded machine LLDB said "lost connection", after five seconds; 19 does so soonest."""
    answer = live.answer

    def late(event: RescueEvent) -> tuple[LiveImage, Note]:
        ours = psutil.Process().children(recursive=True)
        (server,) = (child for child in ours if child.name().startswith("lldb-server"))
        server.suspend()
        threading.Timer(8, server.resume).start()
        return answer(event)

    monkeypatch.setattr(family, "able", lambda: False)
    monkeypatch.setattr(discovery, "find_lldb", lambda: toolchain("19").lldb)
    monkeypatch.setattr(live, "answer", late)
    found, seen = saved(compiled())
    assert not found.notes and len(seen) == 7


def test_pairs_by_lldb(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "able", lambda: False)
    rows = rescued_counts.try_all(lab, ("rich",), VERSIONS)
    assert len(rows) == 10 and set(rows["lost"]) == set(rows["wrong"]) == {""}


def test_no_lldb_is_needed_where_children_are_followed(
    compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "find_lldb", lambda: None)
    assert rescue.run([compiled()], tmp_path / "o.profdata", env=ENVIRONMENT).functions == 7
