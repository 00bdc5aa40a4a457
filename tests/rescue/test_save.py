"""What a rescue writes out of files and of runs, and what it says of them."""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base.errors import LabError
from nbsupport.lab import counts
from nbsupport.lab.lab import Lab
from nbsupport.profile import profraw
from nbsupport.rescue import profdata, rescue
from nbsupport.toolchains.probe import Toolchain
from tests.rescue.programs import (
    ENVIRONMENT,
    PROGRAMS,
    Compile,
    Saved,
    command,
    expected,
    linked,
)
from tests.support import synthetic
from tests.support.synthetic import Function
from tests.support.trained import KINDS, Maker, parse


def test_mc_dc_bitmaps_are_said_to_be_lost(
    saved: Saved, toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    """A text profile of an older LLVM has no place for them."""
    (tmp_path / "main.c").write_text(
        "int library_step(int); int main(int n, char **a) { return n > 1 && a[1] && library_step(n); }"
    )
    main, other = toolchain("19").compiler, toolchain("17").compiler
    flags = ("-fprofile-instr-generate", "-fcoverage-mapping")
    command(main, *flags, "-fcoverage-mcdc", "-c", "main.c", "-o", "main.o", cwd=tmp_path)
    command(other, *flags, "-c", PROGRAMS / "library_hot.c", "-o", "hot.o", cwd=tmp_path)
    link = (main, "-fuse-ld=lld", *flags, "main.o", "hot.o", "-o", "mcdc")
    command(*link, cwd=tmp_path)
    found, seen = saved(tmp_path / "mcdc")
    assert found.lost[-1:] == ("its MC/DC bitmaps",) and ("main", 1) in {
        (name, row[0]) for (name, _), row in seen.items()
    }


def test_a_malformed_file(lab: Lab, tmp_path: Path) -> None:
    trial, path = linked(
        lab, "cold", "17", "19", instrument="front-end", main_instrument="front-end"
    )
    raw = tmp_path / "run.profraw"
    subprocess.run([path], env={**ENVIRONMENT, "LLVM_PROFILE_FILE": str(raw)}, check=True)
    assert not profraw.read(raw).valid
    before = raw.read_bytes()
    found = rescue.from_profraw(raw, tmp_path / "saved.proftext")
    assert "records: expected all of 48 bytes" in found.notes[0]
    seen = counts.parse(found.path.read_text())
    assert counts.difference(seen, expected(lab, trial)) is None
    assert raw.read_bytes() == before


@pytest.mark.parametrize(("main", "cut"), [("19", False), ("18", True)])
def test_what_a_crash_has_left(lab: Lab, tmp_path: Path, main: str, cut: bool) -> None:
    """LLVM 18 has written no names by then: the program has them."""
    trial, path = linked(lab, "cold", main, "17")
    raw, out = tmp_path / "run.profraw", tmp_path / "saved.proftext"
    subprocess.run([path], env={**ENVIRONMENT, "LLVM_PROFILE_FILE": str(raw)}, check=False)
    if cut:
        with pytest.raises(LabError, match="nothing that can be rescued.*--binary"):
            rescue.from_profraw(raw, out)
    rescue.from_profraw(raw, out, binary=path)
    assert counts.difference(counts.parse(out.read_text()), expected(lab, trial)) is None
    _, other = linked(lab, "hot", main, "17")
    with pytest.raises(LabError, match="not what wrote that profile"):
        rescue.from_profraw(raw, out, binary=other)


def test_an_empty_file_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.profraw").touch()
    with pytest.raises(LabError, match="empty.*pgo-lab rescue -o OUT -- PROGRAM"):
        rescue.from_profraw(tmp_path / "run.profraw", tmp_path / "saved.profdata")


def test_a_healthy_program_writes_its_profile_itself_with_values(
    compiled: Compile, saved: Saved, tmp_path: Path
) -> None:
    found, _ = saved(compiled("19"))
    assert found.healthy and not found.lost and "healthy" in found.notes[0]
    assert "# ValueKind" in found.path.read_text()
    assert tmp_path / "saved.proftext" == found.path


def test_a_disk_that_fills_up_meanwhile_loses_nothing(
    compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with monkeypatch.context() as patch:
        patch.setattr(profdata, "write", full)
        with pytest.raises(
            LabError, match="No space left on device; what was counted is in"
        ) as one:
            rescue.run([compiled()], tmp_path / "o.profdata", env=ENVIRONMENT)
    kept = re.search(r"--profraw (\S+)", str(one.value))
    assert kept
    assert rescue.from_profraw(Path(kept[1]), tmp_path / "o.profdata").functions == 7


def test_a_function_with_a_count_that_cannot_be_is_named_and_left_out(tmp_path: Path) -> None:
    path, out = tmp_path / "x.profraw", tmp_path / "out.proftext"
    functions = [Function("good", 1, [5]), Function("bad", 2, [2**57])]
    path.write_bytes(synthetic.profile(functions, 10 | 1 << 56))
    rescued = rescue.from_profraw(path, out)
    assert rescued.functions == 2 and "bad" in out.read_text()
    assert rescued.lost == ()  # there are no value sites
    assert "bad has a count that cannot be: --without 'bad' leaves it out" in rescued.notes
    rescued = rescue.from_profraw(path, out, without=["bad"])
    assert rescued.functions == 1 and "bad" not in out.read_text()
    assert "left out, as you asked: bad" in rescued.notes and "cannot be:" not in str(rescued.notes)
    with pytest.raises(LabError, match="no function other in it; give a name as pgo-lab profraw"):
        rescue.from_profraw(path, out, without=["other"])


def test_profiles_of_two_runtimes_in_one_file_are_parted(maker: Maker, tmp_path: Path) -> None:
    path, out = tmp_path / "x.profraw", tmp_path / "out.profdata"
    raws = {version: maker.profile(version, "front-end") for version in ("19", "17")}
    path.write_bytes(b"".join(raw.read_bytes() for raw in raws.values()))
    rescued = rescue.from_profraw(path, out)
    assert [part.record_size for part in rescued.parts] == [48, 64]
    assert "two runtimes wrote to one file" in rescued.notes[0]
    for part, version in zip(rescued.parts, ("17", "19"), strict=True):
        assert maker.content("23", part.path).keys() == maker.counts(version, raws[version]).keys()


def test_bytes_missing_anywhere_make_no_wrong_count(maker: Maker, tmp_path: Path) -> None:
    """Each count that is rescued is the whole file's, or the function is not in the output."""
    raw, out = tmp_path / "x.profraw", tmp_path / "out.proftext"
    image = maker.link("19", "19", KINDS["ir"])
    source = maker.profile("19", "ir")
    whole = maker.counts("19", source)
    data = source.read_bytes()
    results: dict[bool, list[int]] = {True: [], False: []}
    for size, place, with_binary in itertools.product(
        (8, 16, 24, 64), range(8, len(data) - 63, 8), (True, False)
    ):
        if with_binary and size in (16, 24):
            continue  # as without
        raw.write_bytes(data[:place] + data[place + size :])
        with contextlib.suppress(LabError):
            rescue.from_profraw(raw, out, binary=image if with_binary else None)
            counts_left = {key: row[0] for key, row in parse(out.read_text()).items()}
            assert counts_left.items() <= whole.items(), (size, place, with_binary)
            results[with_binary].append(len(counts_left))
    # A hole in a record costs that function alone, and with the program none.
    assert max(results[False][:20]) == len(whole) - 1 == 6
    assert sum(results[False]) > 1000 and min(results[True]) > 0


def test_a_hole_is_said_with_what_it_costs(maker: Maker, tmp_path: Path) -> None:
    raw, out = tmp_path / "x.profraw", tmp_path / "out.proftext"
    image, data = maker.link("19", "19", KINDS["ir"]), maker.profile("19", "ir").read_bytes()
    raw.write_bytes(data[:200] + data[208:])
    rescued = rescue.from_profraw(raw, out)
    assert rescued.functions == 6
    assert "it was malformed: 8 bytes are missing before byte 248, in its records" in rescued.notes
    assert any(line.startswith("1 function whose counts are not certain") for line in rescued.lost)
    assert rescue.from_profraw(raw, out, binary=image).functions == 7
    raw.write_bytes(data[:600] + data[608:])
    for binary in (None, image):
        with pytest.raises(LabError, match="counters, so no count is certain; run it again: pgo-"):
            rescue.from_profraw(raw, out, binary=binary)


def test_where_the_counters_are_whole_the_program_is_asked_for(
    maker: Maker, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    raw, image = maker.profile("19", "ir"), maker.link("19", "19", KINDS["ir"])
    data = raw.read_bytes()
    names = profraw.read(raw).profiles[0].header.stated["names"]
    said, helped = list[str](), list[int]()
    for place in range(names, len(data) - 8, 4):
        (tmp_path / "cut").write_bytes(data[:place] + data[place + 8 :])
        with contextlib.suppress(LabError):
            rescue.from_profraw(tmp_path / "cut", out)
            continue  # what is cut is value data
        with pytest.raises(LabError, match="give the program that wrote it") as error:
            rescue.from_profraw(tmp_path / "cut", out)
        said.append(str(error.value))
        with contextlib.suppress(LabError):  # a hole just before the names may be in the counters
            helped.append(rescue.from_profraw(tmp_path / "cut", out, binary=image).functions)
    assert any("no count is certain" in text for text in said)
    assert set(helped) == {7}


def test_a_file_without_counters_is_not_asked_for_its_program_twice(
    maker: Maker, tmp_path: Path
) -> None:
    raw, out = tmp_path / "x.profraw", tmp_path / "out.proftext"
    image, data = maker.link("19", "19", KINDS["ir"]), maker.profile("19", "ir").read_bytes()
    raw.write_bytes(data[:500])
    for binary in (None, image):
        with pytest.raises(LabError, match="no counters are in the file; run it again: pgo-lab r"):
            rescue.from_profraw(raw, out, binary=binary)


def test_records_that_were_written_over_take_no_others_counters(tmp_path: Path) -> None:
    raw, out = tmp_path / "x.profraw", tmp_path / "out.proftext"
    functions = [Function(f"f{n}", n, [n] * 4) for n in range(1, 6)]
    data = synthetic.profile(functions, 10 | 1 << 56)
    raw.write_bytes(data[:256] + data[192:256] + data[320:])  # the second over the third
    rescued = rescue.from_profraw(raw, out)
    assert parse(out.read_text()).keys() == {("f1", 1), ("f4", 4), ("f5", 5)}
    assert "functions whose counts are not certain, for records were" in str(rescued.lost)
