"""A cargo project whose C code another LLVM instrumented: who is blamed, and what to do."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.audit.advice import advise
from nbsupport.audit.fate import LinkPiece
from nbsupport.audit.judge import audit
from nbsupport.toolchains.probe import Toolchain
from tests.audit.test_fate import FRONT
from tests.support.linked import (
    TRIPLE,
    only,
)


def pasted(advice: str) -> tuple[dict[str, str], str]:
    """Return the line to paste as a shell takes it: its variables, and the command behind them."""
    words = shlex.split(advice.splitlines()[1])
    variables = dict(word.split("=", 1) for word in words[: words.index("cargo")])
    return variables, " ".join(words[len(variables) :])


def undone(triple: str, flags: str) -> dict[str, str]:
    """Return what takes instrumentation back: cc reads CXXFLAGS alone for a C++ file."""
    return {f"{name}_{triple.replace('-', '_')}": flags for name in ("CFLAGS", "CXXFLAGS")}


def test_a_cargo_target_is_judged_by_its_images(target: Path) -> None:
    report = audit([target])
    program = only(report, target / "release" / "tiny")
    assert report.verdict == program.judgement.verdict == "mixed"
    assert [size for size, _ in program.layouts] == [64, 48]
    assert [(one.path.name, one.judgement.verdict) for one in report.files if one.linked] == [
        ("tiny", "mixed"),  # once, though there are two links to it
        ("build-script-build", "not-instrumented"),
    ]
    blame = {one.path.name: one.functions for one in report.judgement.blame}
    assert blame == {"libstep.a": ("step",), "step.o": ("step",)}
    said = report.judgement.advice
    assert pasted(said) == (undone(TRIPLE, "-fno-profile-generate"), "cargo build --release")
    assert "a clang of LLVM 19 to 22 (raw version 10)" in said


def test_blame_is_looked_for_beside_an_image(target: Path) -> None:
    report = audit([target / "release" / "tiny"])
    assert {one.path.name for one in report.judgement.blame} == {"libstep.a", "step.o"}


def test_a_cross_build_names_its_target(target: Path, tmp_path: Path) -> None:
    copy = tmp_path / "target"
    shutil.copytree(target, copy)
    (copy / "release").rename(copy / "release-was")
    (copy / "aarch64-apple-darwin").mkdir()
    (copy / "release-was").rename(copy / "aarch64-apple-darwin" / "release")
    said = audit([copy]).judgement.advice
    variables, command = pasted(said)
    assert variables == undone("aarch64-apple-darwin", "-fno-profile-generate")
    assert command == "cargo build --release --target aarch64-apple-darwin"


def test_advice_for_coverage_takes_coverage_back(target: Path) -> None:
    said = advise(target, "x86_64-linux", 10, [LinkPiece(10, "front-end"), FRONT], [])
    assert pasted(said)[0] == undone(TRIPLE, "-fno-profile-instr-generate -fno-coverage-mapping")


@pytest.mark.parametrize(
    ("versions", "old"),
    [
        (["1.2.15"], "1.2.15"),
        (["1.2.16"], ""),
        (["1.10.0", "1.0.79"], "1.0.79"),
        (["1.2.9+x"], "1.2.9+x"),
        ([], ""),
    ],
)
def test_an_old_cc_crate_is_not_told_what_does_not_cure(
    target: Path, tmp_path: Path, versions: list[str], old: str
) -> None:
    project = tmp_path / "my project"
    shutil.copytree(target, project / "target")
    texts = [f'[[package]]\nname = "cc"\nversion = "{version}"\n' for version in versions]
    other = '[[package]]\nname = "cc-x"\nversion = "1.0.0"\n'
    (project / "Cargo.lock").write_text("\n".join([other, *texts]))
    for path in (project / "target", project / "target" / "release" / "tiny"):
        lines = audit([path]).judgement.advice.splitlines()
        cure = f"cd '{project}' && pgo-lab check"
        assert (lines[1] == cure, "CFLAGS_" in lines[1]) == (bool(old), not old)
        assert f"The cc crate {old} puts CFLAGS first" in lines[0] or not old
        assert "pgo-lab check" in "\n".join(lines) and lines[2].startswith("Or keep it in: ")


def test_objects_alone_are_one_link_and_a_runtime_among_them_decides(
    target: Path, toolchain: Callable[[str], Toolchain]
) -> None:
    part = target / "release" / "deps" / "libpart-0.rlib"
    step = target / "release" / "build" / "tiny-2" / "out" / "libstep.a"
    report = audit([part, step])
    assert report.verdict == "mixed"
    assert set(report.judgement.outcomes) >= {"crash", "version-mismatch"}
    assert only(report, part).judgement.verdict == "consistent"
    assert audit([part]).verdict == audit([step]).verdict == "consistent"
    runtime = toolchain("23").runtime
    assert runtime
    foreign = audit([part, runtime])
    assert foreign.verdict == "mixed"
    assert foreign.judgement.outcomes == ["crash", "version-mismatch"]
    assert [one.path for one in foreign.judgement.blame] == [part]
    assert audit([runtime]).verdict == "not-instrumented"
