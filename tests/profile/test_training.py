"""A folder of profiles as one training run, against what every llvm-profdata makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbsupport.profile import profraw, training
from tests.support import synthetic
from tests.support.synthetic import Function
from tests.support.trained import VERSIONS, Maker


def skipped(version: str, maker: Maker, folder: Path) -> list[tuple[str, training.State, bool]]:
    """Fill a folder; return for each of its files the state, and whether merge takes it alone."""
    good = maker.profile(version, "ir").read_bytes()
    other = {"17": "19", "18": "19", "19": "17", "22": "23", "23": "22"}[version]
    (folder / "sub").mkdir()
    for name, data in {
        "a.profraw": good,
        "b.empty": b"",
        "c.truncated": good[:-60],
        "d.magic": good[:5],
        "e.malformed": good + b"garbage!",
        "f.other": maker.profile(other, "ir").read_bytes(),
        "g.txt": b"hello, world",
        "sub/h": good,
    }.items():
        (folder / name).write_bytes(data)
    return [
        ("a.profraw", "ok", True),
        ("b.empty", "empty", True),
        ("c.truncated", "truncated", False),
        ("d.magic", "truncated", False),
        ("e.malformed", "malformed", False),
        ("f.other", "other-version", False),
        ("g.txt", "not-a-profile", False),
        ("sub/h", "ok", True),
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_each_file_of_a_run_has_its_state_and_merge_does_as_we_say(
    version: str, maker: Maker, tmp_path: Path
) -> None:
    expected = skipped(version, maker, tmp_path)
    run_ = training.read(tmp_path)
    states = [(str(f.path.relative_to(tmp_path)), f.state) for f in run_.files]
    order = sorted(expected, key=lambda item: (item[0].count("/"), item[0]))
    assert states == [(name, state) for name, state, _ in order]
    assert (run_.exit_code, run_.raw_version) == (1, maker.find(version).raw_version)
    assert run_.functions == profraw.read(tmp_path / "a.profraw").functions
    assert not maker.merge(version, tmp_path).ok  # a folder is all of its files
    good = tmp_path / "a.profraw"
    for name, _, taken in expected:
        done = maker.merge(version, tmp_path / name, good)
        assert done.ok == taken, done
        if taken:
            assert not done.stderr
        done = maker.merge(version, "--failure-mode=all", tmp_path / name, good)
        assert done.ok and ("warning" in done.stderr) == (not taken)
    done = maker.merge(version, tmp_path / "b.empty")
    assert done.ok and not done.stderr and not done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_functions_that_a_merge_drops_are_counted(
    version: str, maker: Maker, tmp_path: Path
) -> None:
    raw_version = maker.find(version).raw_version
    assert raw_version
    for name, functions in {
        "1.profraw": [Function("f", 1, [1, 2]), Function("g", 2, [3])],
        "2.profraw": [Function("f", 1, [1]), Function("g", 2, [4]), Function("g", 5, [6, 7])],
    }.items():
        (tmp_path / name).write_bytes(synthetic.profile(functions, raw_version | 1 << 56))
    found = training.read(tmp_path)
    assert (found.functions, found.counters, found.exit_code) == (3, 5, 1)
    [problem] = found.problems
    assert "2.profraw: 1 functions with other numbers of counters" in problem
    done = maker.merge(version, tmp_path)
    assert done.ok and "f: function basic block count change detected" in done.stderr
    merged = maker.content(version, tmp_path)
    assert {(n.decode(), h): counts for n, h, counts in found.rows()} == {
        key: counts for key, (counts, _, _) in merged.items()
    }
    assert merged["f", 1][0] == [1, 2] and merged["g", 2][0] == [7]


@pytest.mark.parametrize("version", VERSIONS)
def test_context_sensitive_counters_beside_others_are_fine(
    version: str, maker: Maker, tmp_path: Path
) -> None:
    """As Clang's manual merges them; a bit of the hash tells them apart."""
    for kind in ("ir", "context-sensitive"):
        (tmp_path / kind).write_bytes(maker.profile(version, kind).read_bytes())
    run_ = training.read(tmp_path)
    assert (run_.problems, run_.exit_code) == ((), 0)
    assert run_.functions == len(maker.content(version, tmp_path))


def test_a_mix_of_kinds_is_merged_silently_and_so_is_said(maker: Maker, tmp_path: Path) -> None:
    for kind in ("ir", "front-end"):
        (tmp_path / kind).write_bytes(maker.profile("19", kind).read_bytes())
    found = training.read(tmp_path)
    assert found.exit_code == 1 and "several variants (front-end; ir)" in found.problems[0]
    done = maker.merge("19", tmp_path)
    assert done.ok and not done.stderr


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.profraw").write_bytes(synthetic.profile([Function("f", 1, [2])], 10))
    (tmp_path / "sub").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:  # root may read all
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    run_ = training.read(tmp_path)
    assert [(f.path.name, f.state) for f in run_.files] == [
        ("good.profraw", "ok"),
        ("sub", "unreadable"),
    ]
    assert run_.exit_code == 2 and run_.files[1].problems[0].what == "Permission denied"
