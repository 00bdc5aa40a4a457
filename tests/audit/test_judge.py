"""The audit: who instrumented what, held against what linkers and programs say themselves."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.audit.judge import Audited, audit
from nbsupport.base.errors import LabError
from nbsupport.cli.commands import main
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.profile import layout
from nbsupport.studies import hypotheses
from nbsupport.toolchains.probe import Toolchain
from tests.support.linked import (
    HOW,
    LINKS,
    MAJORS,
    Linked,
    only,
    run,
)


def test_layouts_are_those_of_the_linkers_map(linked: list[Linked]) -> None:
    assert sum(len(one.layouts) > 1 for one in linked) > LINKS / 3
    found = [only(audit([one.image]), one.image).layouts for one in linked]
    assert found == [one.layouts for one in linked]


def test_verdicts_and_blame_are_those_of_the_links(linked: list[Linked]) -> None:
    mixed = 0
    for one in linked:
        report = audit([one.image, *(each.path for each in one.objects)])
        image = only(report, one.image)
        versions = {each.raw_version for each, _ in one.records}
        said = f"{one.image}: {image.to_json()}"
        assert image.to_json()["runtime_raw_version"] in (None, one.runtime), said
        if len({layout.LAYOUTS[version].record_size() for version in versions}) == 1:
            # 9 with 10 may be seen (by the runtime's version) or not: the records are alike.
            assert image.judgement.verdict == "consistent" or len(versions | {one.runtime}) > 1, (
                said
            )
            continue
        mixed += 1
        assert report.verdict == image.judgement.verdict == "mixed", said
        if image.linked:
            sizes = foreign_sizes(one, image)
            brought = {o.path for o, _ in one.records if o.record_size in sizes}
            blamed = {blame.path for blame in image.judgement.blame}
            assert brought <= blamed, said
            assert blamed <= {o.path for o in one.objects if o.record_size in sizes}, said
    assert mixed > LINKS / 3


def foreign_sizes(one: Linked, image: Audited) -> set[int]:
    """Return the record sizes that are foreign by the rule: runtime, symbol, else the fewest."""
    sizes = {each.record_size for each, _ in one.records}
    instrumented = [each for each in one.objects if each.how == "ir"]
    usual = image.to_json()["runtime_raw_version"]
    if usual is None and not one.stripped and instrumented:
        usual = instrumented[0].raw_version
    if usual is None:
        count = {
            size: sum(n for each, n in one.records if each.record_size == size) for size in sizes
        }
        return sizes - {max(sizes, key=lambda size: (count[size], size))}
    return sizes - {layout.LAYOUTS[usual].record_size()}


#: Of each outcome some; the whole grid is in test_trials.
ORDERS = ("main-first", "foreign-first")
TRIALS = [
    *itertools.product(("cold", "hot"), ("19",), MAJORS, ORDERS, ("ir",), ("ir",)),
    *itertools.product(("cold",), ("17", "18", "23"), ("17", "19"), ORDERS, ("ir",), ("ir",)),
    *itertools.product(("cold",), ("18", "23"), ("17", "19"), ORDERS, ("front-end",), HOW),
    *itertools.product(("cold",), ("19",), ("17", "18"), ORDERS, ("ir",), ("front-end",)),
]


def test_an_audit_predicts_what_running_does(lab: Lab, tmp_path: Path) -> None:
    with Lab(lab.cache, debugger=False) as quick:
        for program, main, foreign, order, main_how, how in TRIALS:
            made = quick.trial(
                program, main, foreign, order=order, main_instrument=main_how, instrument=how
            )
            image = build.linked(made, lab.cache)
            bare = tmp_path / "bare"
            run(made.main.prefix / "bin" / "llvm-strip", image, "-o", bare, cwd=tmp_path)
            kind = quick.run(made).kind
            for path in (image, bare):
                found = audit([path]).files[0]
                said = f"{made.parameters}: {kind}, {found.to_json()}"
                if path == bare and "told apart" in found.judgement.why:
                    assert {made.main.raw_version, made.foreign.raw_version} <= {9, 10}, said
                    continue
                assert kind in found.judgement.outcomes, said
                if path == image:
                    likely = {"version-mismatch"} & hypotheses.predict(made)
                    assert likely == {"version-mismatch"} & set(found.judgement.outcomes), said
                if kind == "ok":
                    assert found.judgement.verdict == "consistent", said
                elif found.layouts[1:]:
                    assert found.judgement.verdict == "mixed", said
                    assert "ok" not in found.judgement.outcomes, said


@pytest.mark.parametrize(
    ("flags", "variant"),
    [
        (("-mllvm", "-pgo-block-coverage"), "byte-coverage"),
        (("-mllvm", "-pgo-function-entry-coverage"), "byte-coverage"),
        (("-mllvm", "-pgo-instrument-entry=1"), "entry-first"),
        (("-mllvm", "-pgo-temporal-instrumentation"), "temporal"),
    ],
)
@pytest.mark.parametrize("major", ["17", "23"])
@pytest.mark.parametrize(
    ("order", "strange"), [("main-first", 1), ("foreign-first", 1), ("foreign-first", 0)]
)
def test_mixed_variants_are_seen_and_do_as_predicted(
    lab: Lab,
    flags: tuple[str, ...],
    variant: str,
    major: str,
    order: str,
    strange: int,
    tmp_path: Path,
) -> None:
    made = lab.trial("cold", major, major, order=order)
    units = [made.program.main, made.program.library[0]]
    own = (*units[strange].flags, *flags)
    digest = f"{units[strange].inputs_digest} {flags}"
    units[strange] = dataclasses.replace(units[strange], flags=own, inputs_digest=digest)
    program = dataclasses.replace(made.program, main=units[0], library=(units[1],))
    made = dataclasses.replace(made, program=program)
    objects = [build.compiled(job, lab.cache) for job in build.jobs(made)]
    report = audit(objects)
    assert report.verdict == "mixed"
    assert variant in report.files[strange].to_json()["variants"]
    assert lab.run(made).kind in report.judgement.outcomes
    assert [blame.path for blame in report.judgement.blame] in ([objects[0]], [objects[1]])
    assert report.judgement.advice.startswith("Build all files with the same flags: ")
    # In the image only the width of counters tells; the same flags for all are no mix.
    assert audit([build.linked(made, lab.cache)]).verdict == (
        "mixed" if variant == "byte-coverage" else "consistent"
    )
    assert audit([objects[strange]]).verdict == "consistent"
    # The objects beside it tell, but for what was not linked.
    shutil.copy(build.linked(made, lab.cache), tmp_path / "program")
    for number, path in enumerate(objects):
        shutil.copy(path, tmp_path / f"{number}.o")
    beside = audit([tmp_path])
    assert beside.verdict == "mixed"
    assert set(beside.judgement.outcomes) <= set(report.judgement.outcomes)
    if variant != "byte-coverage":
        (blamed,) = beside.judgement.blame
        assert blamed.path.name in ("0.o", "1.o") and blamed.functions
        if blamed.functions == ("main",):  # with it a build script tries a compiler
            (tmp_path / ".rustc_info.json").touch()
            assert audit([tmp_path]).verdict == "consistent"
            (tmp_path / ".rustc_info.json").unlink()
    shutil.copy(build.linked(lab.trial("cold", major, major), lab.cache), tmp_path / "program")
    usual = build.jobs(lab.trial("cold", major, major, order=order))[strange]
    shutil.copy(build.compiled(usual, lab.cache), tmp_path / "usual.o")
    assert audit([tmp_path]).verdict == "consistent"


MCDC_LIBRARY = "int library(int a, int b) { return a && b ? 1 : 0; }\n"
MCDC_MAIN = (
    "int library(int, int);\nint main(int c, char **v) { return (c && v) + library(c, 2) > 9; }\n"
)


@pytest.mark.parametrize(("main", "foreign"), [("18", "19"), ("19", "18"), ("19", "22")])
def test_bitmaps_between_9_and_10_vanish(
    toolchain: Callable[[str], Toolchain], tmp_path: Path, main: str, foreign: str
) -> None:
    flags = ["-O1", HOW["front-end"], "-fcoverage-mapping", "-fcoverage-mcdc"]
    for name, text, major in (("main", MCDC_MAIN, main), ("library", MCDC_LIBRARY, foreign)):
        (tmp_path / f"{name}.c").write_text(text)
        run(toolchain(major).compiler, *flags, "-c", f"{name}.c", cwd=tmp_path)
    tools = toolchain(main)
    link = ["-fuse-ld=lld", "main.o", "library.o", "-o", "image"]
    run(tools.compiler, *flags, *link, cwd=tmp_path)
    subprocess.run(["./image"], cwd=tmp_path, env={"LLVM_PROFILE_FILE": "p"}, check=True)
    assert tools.llvm_profdata
    text = run(tools.llvm_profdata, "merge", "-text", "p", "-o", "-", cwd=tmp_path)
    lost = text.count("# Num Bitmap Bytes") < 2
    assert lost == ({main, foreign} == {"18", "19"})
    for paths in ([tmp_path / "image"], [tmp_path / "main.o", tmp_path / "library.o"]):
        report = audit(paths)
        assert (report.verdict == "mixed") == lost
        assert ("bitmaps vanish" in report.judgement.why) == lost
        assert report.judgement.outcomes == ["ok"]


@pytest.mark.parametrize("major", ["17", "19"])
def test_without_a_runtime_whoever_compiled_main_is_taken_to_link(
    lab: Lab, tmp_path: Path, major: str
) -> None:
    other = {"17": "19", "19": "17"}[major]
    made = lab.trial("cold", major, other)
    main, library = (build.compiled(job, lab.cache) for job in build.jobs(made))
    report = audit([library, main])
    assert [blame.path for blame in report.judgement.blame] == [library]
    assert report.judgement.why.startswith("if main's compiler links these together, the runtime ")
    other_llvm = layout.llvm_of(made.foreign.raw_version or 0)
    assert report.judgement.advice.endswith(
        " No runtime is among these files: the link's is taken to be that of main's compiler."
        f" If it is that of {other_llvm}, rebuild the rest instead."
    )
    assert {link.runtime for link in report.judgement.links} == {8, 10}
    image = audit([build.linked(made, lab.cache), library, main]).judgement
    assert "if " not in image.why.split(",")[0] and "No runtime" not in image.advice


def test_only_what_was_linked_is_blamed(lab: Lab, tmp_path: Path) -> None:
    """Objects with functions of the same names, otherwise or by another LLVM, were not."""
    made = lab.trial("cold", "19", "17")
    main, library = (build.compiled(job, lab.cache) for job in build.jobs(made))
    others = (lab.trial("cold", "19", "17", instrument="front-end"), lab.trial("cold", "19", "18"))
    stale = [build.compiled(build.jobs(other)[1], lab.cache) for other in others]
    image = build.linked(made, lab.cache)
    report = audit([image, main, *stale, library, image])
    assert len(report.files) == 5
    assert [one.path for one in report.judgement.blame] == [library]
    assert f"Rebuild {library} with a clang of LLVM 19 to 22" in report.judgement.advice
    assert "-fno-profile-generate" in report.judgement.advice
    assert only(report, image).to_json()["raw_versions"] == [8, 10]
    bare = tmp_path / "bare"
    run(made.main.prefix / "bin" / "llvm-strip", image, "-o", bare, cwd=tmp_path)
    # 8, not 5 to 8: its CounterPtrs are relative.
    assert audit([bare]).files[0].to_json()["raw_versions"] == [8, 9, 10]


def test_nothing_to_judge_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no object")
    os.mkfifo(tmp_path / "fifo")
    for path, why in (
        (tmp_path, "no object file, archive or image there"),
        (tmp_path / "text", "no object file, archive or image there"),
        (tmp_path / "fifo", "neither a regular file nor a folder"),
        (tmp_path / "gone", "no such file"),
    ):
        with pytest.raises(LabError, match=why):
            audit([path])


def test_an_image_without_section_headers_is_unknown(linked: list[Linked], tmp_path: Path) -> None:
    image = next(one.image for one in linked if one.image.name == "linked" and one.records)
    data = bytearray(image.read_bytes())
    data[0x28:0x30] = bytes(8)  # e_shoff
    data[0x3A:0x40] = bytes(6)  # e_shentsize, e_shnum, e_shstrndx
    bare = tmp_path / "bare"
    bare.write_bytes(data)
    report = audit([bare])
    assert report.verdict == "unknown"
    assert report.judgement.why
    assert main(["audit", str(bare)]) == 2  # nothing a script may take for fine


@pytest.mark.parametrize("major", ["18", "19", "22", "23"])
def test_one_compiler_with_and_without_decisions_is_no_mix(
    toolchain: Callable[[str], Toolchain], tmp_path: Path, major: str
) -> None:
    """Bitmaps tell 9 from 10, the lack of them tells nothing: a file without `&&` has none."""
    flags = ["-O1", HOW["front-end"], "-fcoverage-mapping", "-fcoverage-mcdc"]
    plain = "int plain(int a) { return a + 1; }\n"
    for name, text in (("with", MCDC_LIBRARY), ("without", plain)):
        (tmp_path / f"{name}.c").write_text(text)
        run(toolchain(major).compiler, *flags, "-c", f"{name}.c", cwd=tmp_path)
    with_, without = tmp_path / "with.o", tmp_path / "without.o"
    for paths in ([with_, without], [without, with_]):
        report = audit(paths)
        assert (report.verdict, report.judgement.outcomes) == ("consistent", ["ok"])
        assert f"raw version {toolchain(major).raw_version} " in report.judgement.why
