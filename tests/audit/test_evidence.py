"""What files say of their own instrumentation."""

from __future__ import annotations

import dataclasses
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from nbsupport.audit import evidence, objects
from nbsupport.audit import judge as auditing
from nbsupport.audit.fate import How
from nbsupport.audit.judge import audit
from nbsupport.base.errors import LabError
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.profile import infer
from nbsupport.profile.names import Names
from nbsupport.toolchains.probe import Toolchain
from tests.support.linked import (
    Object,
    only,
    run,
)


def test_what_records_leave_open_is_as_the_others_are(pool: list[Object]) -> None:
    """Front-end records of 9 and 10 are alike, and have no version symbol."""

    def first(major: str, how: How) -> Path:
        return next(one.path for one in pool if one.major == major and one.how == how)

    front = first("18", "front-end")
    assert audit([front]).files[0].to_json()["raw_versions"] == [9, 10]
    assert audit([front, first("18", "ir")]).verdict == "consistent"
    assert audit([front, first("19", "ir")]).verdict == "consistent"
    assert audit([first("18", "ir"), first("19", "ir")]).verdict == "mixed"


def test_an_archive_is_its_members_in_order(
    pool: list[Object], lab: Lab, toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    members = [one for one in pool if one.slot == 0 and one.how == "ir"]
    members = [*(m for m in members if m.major == "22"), *(m for m in members if m.major == "17")]
    tool = toolchain("19").prefix / "bin" / "llvm-ar"
    run(tool, "crs", "all.a", *(one.path for one in members), cwd=tmp_path)
    found = audit([tmp_path / "all.a"]).files[0]
    assert found.to_json()["kind"] == "archive"
    assert [size for size, _ in found.layouts] == [64, 48]
    each = [sum(n for _, n in audit([one.path]).files[0].layouts) for one in members]
    assert sum(count for _, count in found.layouts) == sum(each)
    assert found.judgement.verdict == "mixed"
    # An image vouches for its folder, not for what is named beside it.
    image = build.linked(lab.trial("cold", "19", "19"), lab.cache)
    assert audit([image, tmp_path / "all.a"]).verdict == "mixed"
    shutil.copy(image, tmp_path / "program")
    beside = audit([tmp_path])
    assert beside.verdict == "consistent"
    unlinked = f"not judged: {tmp_path / 'all.a'}, of raw version 8, which no image there holds"
    assert beside.judgement.why.endswith(unlinked)


def test_an_image_holds_records_like_its_own_under_another_number(lab: Lab, tmp_path: Path) -> None:
    """Those of 18 in a program of 19: the image says raw version 10 of both."""
    for main, foreign, held in (("19", "18", True), ("18", "19", True), ("19", "17", False)):
        folder = tmp_path / f"{main}-{foreign}"
        folder.mkdir()
        likely = "18" if main == "19" else "19"
        image = build.linked(lab.trial("cold", main, likely), lab.cache)
        shutil.copy(image, folder / "program")
        mixed = lab.trial("cold", main, foreign)
        objects = [build.compiled(job, lab.cache) for job in build.jobs(mixed)]
        for number, path in enumerate(objects):
            shutil.copy(path, folder / f"{number}.o")
        report = audit([folder])
        assert report.verdict == "consistent"
        assert ("not judged" in report.judgement.why) != held


def test_what_is_not_instrumented_vouches_for_no_object(
    lab: Lab, toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    """Nor does a build script: after a link that was refused, it is all that is there."""
    for version in ("17", "19"):
        (tmp_path / f"{version}.c").write_text(f"int f{version}(int n) {{ return n > 1; }}")
        command = (toolchain(version).compiler, "-fprofile-generate", "-c", f"{version}.c")
        run(*command, "-o", f"{version}.o", cwd=tmp_path)
    assert audit([tmp_path]).verdict == "mixed"
    trial = lab.trial("cold", "19", "19", main_instrument="none", instrument="none")
    plain = build.linked(trial, lab.cache)
    shutil.copy(plain, tmp_path / "program")
    report = audit([tmp_path])
    assert report.verdict == "mixed"
    assert {file.path.name for file in report.telling} == {"17.o", "19.o"}
    assert report.judgement.advice and report.judgement.blame
    whole = build.linked(lab.trial("cold", "19", "19"), lab.cache)
    shutil.copy(whole, tmp_path / "build-script-build")
    assert audit([tmp_path]).verdict == "mixed"
    shutil.copy(whole, tmp_path / "program")
    assert audit([tmp_path]).verdict == "consistent"


@pytest.mark.parametrize("content", [b"", b"\x7fEL"])
def test_an_object_that_was_hardly_begun_is_named(
    content: bytes, pool: list[Object], tmp_path: Path
) -> None:
    (tmp_path / "begun.o").write_bytes(content)
    (tmp_path / "other.o").write_text("a text with the name of an object\n")
    with pytest.raises(LabError, match="no object: . bytes, as a compiler leaves that was ended"):
        audit([tmp_path / "begun.o"])
    shutil.copy(pool[0].path, tmp_path / "whole.o")
    report = audit([tmp_path])
    assert report.verdict == "unknown" and "begun.o: no object" in report.judgement.why


def test_what_the_runtime_says_of_itself_is_not_taken_for_an_objects(lab: Lab) -> None:
    """Nothing of the front end has a version symbol; what an image then has is its runtime's."""
    made = lab.trial("cold", "19", "17", main_instrument="none", instrument="front-end")
    report = audit([build.linked(made, lab.cache)])
    found = report.files[0].to_json()
    assert (found["raw_versions"], found["runtime_raw_version"]) == ([8], 10)
    assert report.judgement.outcomes == ["crash", "malformed"]


def test_where_the_runtime_is_not_known_the_version_symbol_says_who_is_foreign(lab: Lab) -> None:
    image = build.linked(lab.trial("cold", "19", "17"), lab.cache)
    file = objects.read(image)
    assert file
    part = dataclasses.replace(file.parts[0], runtime_raw_version=None)
    (seen,) = evidence.from_file(dataclasses.replace(file, parts=(part,))).parts
    few, many = (len(each.references) for each in seen.records)
    assert few < many  # by number, the library's would be the usual ones
    assert auditing._usual([seen]) == (10, "")


def test_what_cannot_be_read_is_listed(
    pool: list[Object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(pool[0].path, tmp_path / "whole.o")
    (tmp_path / "cut.o").write_bytes(pool[0].path.read_bytes()[:100])
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere")
    vanishing = tmp_path / "vanishing.o"
    shutil.copy(pool[0].path, vanishing)
    find = objects.find

    def found(paths: Iterable[Path], unread: dict[Path, str]) -> Iterator[Path]:
        yield from find(paths, unread)
        vanishing.unlink(missing_ok=True)

    monkeypatch.setattr(objects, "find", found)
    report = audit([tmp_path, tmp_path / "gone"])
    assert report.verdict == "unknown"
    assert only(report, tmp_path / "whole.o").judgement.verdict == "consistent"
    said = [*report.problems, *(p for one in report.files for p in one.problems)]
    for name in ("gone", "vanishing.o", "dangling"):
        assert any(name in problem for problem in said), said


def test_a_newer_layout_is_said_not_guessed(pool: list[Object], tmp_path: Path) -> None:
    """Records of 80 bytes, and a version symbol of 12, as of an LLVM of tomorrow."""
    one = next(each for each in pool if each.raw_version == 11 and each.how == "ir")
    names = Names([b"first", b"second", b"third"])
    record = [struct.pack("<9Q", int(h), 1, 0, 0, 0, 0, 0, 1, 0) + bytes(8) for h in names.hashes]
    section = infer.Section(b"".join(record), names)
    part = objects.BinaryPart(
        "", "elf", "object", "x86_64-linux", 64, "<", (section,), 12 | 1 << 56, instrumented=True
    )
    found = auditing._judge(evidence.from_file(objects.BinaryFile(tmp_path / "new.o", "", (part,))))
    assert found.to_json()["raw_versions"] == [12]
    assert found.layouts == ((80, 3),)
    assert "an LLVM newer than this tool knows" in found.judgement.why
    whole = auditing._judge_objects([*found.parts, *audit([one.path]).files[0].parts])
    assert whole.verdict == "mixed"


def test_reading_by_several_processes_is_the_same(
    pool: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = [pool[0].path.parent]
    alone = audit(folder, jobs=1).to_json()
    monkeypatch.setattr(evidence, "_PARALLEL", 0)
    assert audit(folder, jobs=2).to_json() == alone
