"""The ruler: what it reads from an image alone is where the program dies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbsupport.audit import objects
from nbsupport.base import settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.macos import emulator
from nbsupport.macos.build import build_program
from nbsupport.notebooks import document
from nbsupport.profile import infer, layout, stride
from nbsupport.profile.layout import LAYOUTS
from nbsupport.show import shown
from nbsupport.studies import ruler
from nbsupport.studies.ruler import Ruler
from nbsupport.toolchains import download
from nbsupport.toolchains.probe import Toolchain

MAJORS = ("17", "18", "19", "22", "23")
NodeOf = Callable[[str, str], Ruler]


@pytest.fixture(scope="module")
def ruled(lab: Lab, toolchain: Callable[[str], Toolchain]) -> NodeOf:
    """Return a function that reads the image of main by one LLVM, the library by another."""

    def read(main: str, foreign: str) -> Ruler:
        toolchain(main), toolchain(foreign)
        return ruler.from_trial(lab, lab.trial("cold", main, foreign))

    return read


@pytest.mark.parametrize("foreign", MAJORS)
@pytest.mark.parametrize("main", MAJORS)
def test_the_address_read_from_the_image_is_the_one_of_the_crash(
    lab: Lab, ruled: NodeOf, main: str, foreign: str
) -> None:
    """Nothing is run to read it; then the program is run."""
    misread = ruled(main, foreign).misread
    crash = lab.run(lab.trial("cold", main, foreign)).crash
    assert (misread and misread.fault_address) == (crash and crash.fault_address)


@pytest.mark.parametrize("fixups", [True, False], ids=["chained", "opcodes"])
@pytest.mark.parametrize(
    ("arch", "main", "foreign"),
    [
        ("arm64", "19", "16"),
        ("arm64", "19", "19"),
        ("x86_64", "19", "17"),
        ("x86_64", "19", "23"),
        ("x86_64", "23", "17"),
    ],
)
def test_so_it_is_of_a_program_of_macos(
    toolchain: Callable[[str], Toolchain], arch: Any, main: str, foreign: str, fixups: bool
) -> None:
    """Nothing is run to read it; then the program is executed by an emulated processor."""
    try:
        download.install("macho")
    except MissingError as error:
        pytest.skip(str(error))
    if arch == "x86_64":
        toolchain(main), toolchain(foreign)
    program = build_program("cold", arch, main, foreign, fixups=fixups)
    misread = ruler.from_program(program).misread
    crash = emulator.emulate(program.path, program.main).outcome.crash
    assert (misread and misread.fault_address) == (crash and crash.fault_address)
    assert (misread is None) == (main == foreign)


def test_the_readmes_picture_is_the_ruler_of_the_default_trial(lab: Lab) -> None:
    picture = settings.data_dir() / "recorded" / "ruler.svg"
    drawn = ruler.figure(ruler.from_trial(lab, lab.trial("cold", "19", "17")))
    assert shown.svg(drawn) == picture.read_text()


def test_numbers_taken_for_a_pointer(ruled: NodeOf) -> None:
    found = ruled("19", "17")
    sizes = [record.layout.record_size() for record in found.records]
    assert sizes == [64] * 3 + [48] * 6
    assert [slot.offset for slot in found.slots] == list(range(0, 480 - 63, 64))
    misread = found.misread
    assert misread
    assert (misread.slot.offset, misread.at, misread.record.name) == (192, 232, "library_step")
    assert misread.written == {"NumCounters": [3], "NumValueSites": [1, 1]}
    assert found.data[232:240] == bytes([3, 0, 0, 0, 1, 0, 1, 0])
    assert misread.fault_address == misread.value == 0x1000100000003
    assert ruler.explain(found) == (
        (
            "written",
            "03 00 00 00 01 00 01 00: NumCounters 3 and NumValueSites 1, 1 of library_step",
        ),
        ("last byte first", "0x0001000100000003"),
        ("read as", "Values, a pointer to nodes"),
        ("fault address", "0x1000100000003"),
    )


def test_code_taken_for_a_node(ruled: NodeOf) -> None:
    """The pointer to the function is a good pointer; what it points to is not."""
    misread = ruled("19", "23").misread
    assert misread
    assert list(misread.written) == ["FunctionPointer"]
    assert misread.node
    assert misread.fault_address == misread.node + 16


def test_a_hash_taken_for_a_pointer(ruled: NodeOf) -> None:
    misread = ruled("23", "17").misread
    assert misread
    assert list(misread.written) == ["NameRef"]


def test_an_llvm_that_is_not_in_the_table_is_asked(
    lab: Lab, toolchain: Callable[[str], Toolchain], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a newer one will be: its records have a size that the table does not have either."""
    toolchain("23")
    monkeypatch.delitem(LAYOUTS, 11)
    known = tuple(each for each in layout._KNOWN if each.raw_version != 11)
    monkeypatch.setattr(layout, "_KNOWN", known)
    found = ruler.from_trial(lab, lab.trial("cold", "19", "23"))
    assert [record.layout.record_size() for record in found.records] == [64] * 3 + [72] * 6
    assert found.fault_address == "0x8348535641574165"


def test_nothing_is_misread_where_the_records_are_alike(ruled: NodeOf) -> None:
    for main, foreign in (("19", "18"), ("18", "19"), ("19", "22"), ("23", "23")):
        found = ruled(main, foreign)
        assert found.misread is None
        assert found.records == found.slots  # which of the two wrote a record, nobody can tell
        assert ruler.explain(found) == ()
        assert "the runtime reads what was written" in ruler.caption(found)


@pytest.mark.parametrize("raw_version", LAYOUTS)
def test_the_fields_of_a_record_lie_side_by_side(raw_version: int) -> None:
    record = stride.Record(96, "f", LAYOUTS[raw_version])
    ends = [start + size for _, start, size in record.fields()]
    starts = [start for _, start, _ in record.fields()]
    assert starts[0] == 96
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    assert ends[-1] <= record.end
    assert {name for name, _, _ in record.fields()} <= ruler._COLOURS.keys()


def test_layouts_side_by_side() -> None:
    table = ruler.show_layouts({"18": LAYOUTS[9], "19": LAYOUTS[10], "22": LAYOUTS[10]})
    lines = [line.split("  ") for line in table.text.splitlines()]
    rows = {line[0]: [cell.strip() for cell in line[1:] if cell] for line in lines}
    assert rows["field"] == ["LLVM 18 (v9)", "LLVM 19, 22 (v10)"]
    assert rows["Values"] == ["40", "40"]
    assert rows["NumBitmapBytes"] == ["56", "60"]
    assert rows["value kinds"] == ["2", "3"]
    assert rows["bytes of the header"] == ["112", "128"]
    newer = ruler.show_layouts({"17": LAYOUTS[8], "23": LAYOUTS[11]}).text
    fields = [line.split()[0] for line in newer.splitlines()]
    assert fields.index("UniformCounterPtr") == fields.index("CounterPtr") + 1
    assert "UniformCounterPtr      -             24" in newer


def test_runs_side_by_side(lab: Lab, toolchain: Callable[[str], Toolchain]) -> None:
    toolchain("17")
    file = objects.read(build.linked(lab.trial("cold", "19", "17"), lab.cache))
    assert file
    table = ruler.show_runs(infer.find(file.parts[0].sections[0]))
    assert [line.split("  ")[0] for line in table.text.splitlines()] == ["from byte", "0", "192"]
    words = " ".join(table.text.splitlines()[-1].split())
    assert words == "192 6 48 NameRef and CounterPtr 4, 5, 6, 7, 8"


def test_a_stripped_image_reads_the_same(lab: Lab, ruled: NodeOf, tmp_path: Path) -> None:
    trial = lab.trial("cold", "19", "17")
    image = shutil.copy(build.linked(trial, lab.cache), tmp_path)
    strip = trial.main.prefix / "bin" / "llvm-strip"
    subprocess.run([strip, image], check=True)
    assert ruler.read(Path(image), LAYOUTS[10], LAYOUTS[8]).misread == ruled("19", "17").misread


def test_the_figure_says_what_it_shows(ruled: NodeOf) -> None:
    found = ruled("19", "17")
    first = ruler.figure(found)
    for part in ("64 bytes", "48 bytes", "NumCounters and NumValueSites of library_step"):
        assert part in first.html.split("<figcaption>")[1]
    told = first.html.split("<desc>")[1].split("</desc>")[0]
    assert "03 00 00 00 01 00 01 00" in told
    assert "0x1000100000003" in told
    for word in ("written", "read", "UniformCounterPtr"):
        assert (f">{word}<" in first.html) == (word != "UniformCounterPtr")
    assert not document._MACHINE_PATH.findall(first.html)


def test_what_has_no_ruler(lab: Lab, tmp_path: Path, toolchain: Callable[[str], Toolchain]) -> None:
    toolchain("17")
    mixed = build.linked(lab.trial("cold", "19", "17"), lab.cache)
    text = tmp_path / "text"
    text.write_text("no image")
    for image, foreign in ((text, 8), (Path(sys.executable), 8), (mixed, 11)):
        with pytest.raises(LabError, match="not a 64-bit image of these layouts"):
            ruler.read(image, LAYOUTS[10], LAYOUTS[foreign])


@pytest.mark.parametrize(("main", "foreign"), [("19", "17"), ("17", "19"), ("19", "22")])
def test_a_ruler_is_kept_as_json(ruled: NodeOf, main: str, foreign: str) -> None:
    whole = ruled(main, foreign)
    again = ruler.from_json(json.loads(json.dumps(whole.to_json())))
    assert ruler.figure(again) == ruler.figure(whole)
    assert again == whole
