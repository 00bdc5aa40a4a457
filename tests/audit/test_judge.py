"""The audit: who instrumented what, held against what linkers and programs say themselves."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nbsupport.audit import evidence, objects
from nbsupport.audit import judge as auditing
from nbsupport.audit.advice import advise
from nbsupport.audit.fate import How, LinkPiece, predict
from nbsupport.audit.judge import Audited, AuditReport, audit
from nbsupport.base.errors import LabError
from nbsupport.cli.commands import main
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.profile import infer, layout
from nbsupport.profile.names import Names
from nbsupport.studies import hypotheses
from nbsupport.toolchains.probe import Toolchain

MAJORS = ("17", "18", "19", "22", "23")
HOW: dict[How, str] = {"ir": "-fprofile-generate", "front-end": "-fprofile-instr-generate"}
LINKS = 320
SEED = 20241129


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


# -- truth: random links, held against the linkers' own maps


@dataclasses.dataclass(frozen=True)
class Object:
    """An object of the pool: of which compiler, how instrumented, for which place of a link."""

    path: Path
    major: str
    raw_version: int
    how: How
    slot: int

    @property
    def record_size(self) -> int:
        return layout.LAYOUTS[self.raw_version].record_size()


SLOTS = 3


def source(slot: int, chance: random.Random) -> str:
    """Return C++ with functions that are static, inline (shared by objects) or external."""
    kinds = [chance.choice(("static", "inline", "external")) for _ in range(chance.randint(1, 8))]
    text, calls = "", []
    for n, kind in enumerate(kinds):
        body = f"(int x) {{ return x > {n} ? x * {n + 2} : x - 1; }}\n"
        name = f"shared_{n}" if kind == "inline" else f"own_{slot}_{chance.randrange(10**6)}"
        before = "" if kind == "external" else kind
        text += f"__attribute__((noinline)) {before} int {name}{body}"
        if kind != "external" or chance.random() < 0.5:
            calls.append(f"{name}(x)")
    total = " + ".join(calls or ["x"])
    text += f'extern "C" int entry_{slot}(int x) {{ return {total}; }}\n'
    return text


MAIN = "".join(f'extern "C" __attribute__((weak)) int entry_{n}(int);\n' for n in range(SLOTS))
MAIN += "int main(int argc, char **) {\n    int sum = 0;\n"
MAIN += "".join(f"    if (entry_{n})\n        sum += entry_{n}(argc);\n" for n in range(SLOTS))
MAIN += "    return sum == 1;\n}\n"


@pytest.fixture(scope="module")
def pool(
    toolchain: Callable[[str], Toolchain], tmp_path_factory: pytest.TempPathFactory
) -> list[Object]:
    """Compile 70 objects: by five LLVMs, in two ways, mains (slot -1) and others."""
    folder = tmp_path_factory.mktemp("pool")
    chance = random.Random(SEED)  # noqa: S311
    objects, commands = [], []
    for (major, how), slot, copy in itertools.product(
        itertools.product(MAJORS, HOW), range(-1, SLOTS), range(2)
    ):
        if slot < 0 and copy:
            continue
        name = f"{major}-{how}-{slot}-{copy}"
        (folder / f"{name}.cc").write_text(MAIN if slot < 0 else source(slot, chance))
        flags = [HOW[how], chance.choice(("-O0", "-O1", "-O2")), "-fPIC", "-fno-exceptions"]
        flags += ["-ffunction-sections"] if chance.random() < 0.7 else []
        compiler = toolchain(major)
        assert compiler.raw_version
        commands.append([compiler.compiler, *flags, "-c", f"{name}.cc", "-o", f"{name}.o"])
        objects.append(Object(folder / f"{name}.o", major, compiler.raw_version, how, slot))
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda command: run(*command, cwd=folder), commands))
    return objects


@dataclasses.dataclass(frozen=True)
class Linked:
    image: Path
    objects: tuple[Object, ...]
    runtime: int
    stripped: bool
    records: tuple[tuple[Object, int], ...]
    """What of each object survived, in order: the truth."""

    @property
    def layouts(self) -> tuple[tuple[int, int], ...]:
        by_size = itertools.groupby(self.records, lambda item: item[0].record_size)
        return tuple((size, sum(count for _, count in group)) for size, group in by_size)


def surviving(text: str, objects: Sequence[Object]) -> list[tuple[Object, int]]:
    """Read a linker's map: the bytes that each object has in `__llvm_prf_data`, in order."""
    by_name = {one.path.name: one for one in objects}
    _, _, used = text.rpartition("emory map\n")  # bfd, gold: what was discarded stands before
    lld = r"^ +\S+ +\S+ +(?P<size>[0-9a-f]+) +\d+ +(?P<file>\S+):\(__llvm_prf_data\)$"
    gnu = r"^ __llvm_prf_data\s+0x[0-9a-f]+\s+0x(?P<size>[0-9a-f]+) (?P<file>\S+)$"
    found: list[tuple[Object, int]] = []
    for match in re.finditer(lld if ":(__llvm_prf_data)" in used else gnu, used, re.MULTILINE):
        one = by_name[Path(match["file"]).name]
        found.append((one, int(match["size"], 16) // one.record_size))
    return [item for item in found if item[1]]


#: Without libunwind, which libc.a asks for; nobody runs these.
STATIC = ["-static", "-unwindlib=none", "-Wl,--unresolved-symbols=ignore-all"]


def link(number: int, pool: Sequence[Object], folder: Path, tools: dict[str, Toolchain]) -> Linked:
    """Link some objects of the pool at random (the number is the seed)."""
    chance = random.Random(f"{SEED} {number}")  # noqa: S311
    linker = chance.choice([name for name in ("lld", "bfd", "gold") if linker_there(name)])
    hows: list[How] = chance.choice([["ir"], ["ir"], ["front-end"], ["ir", "front-end"]])
    hows = hows[:1] if linker == "gold" else hows  # gold refuses inline functions of both ways
    majors = chance.sample(MAJORS, chance.choice((1, 2, 3, 3)))
    fitting = [one for one in pool if one.how in hows and one.major in majors]
    slots = chance.sample(range(SLOTS), chance.randint(1, SLOTS))
    main = chance.choice([one for one in fitting if one.slot < 0])
    objects = [main, *(chance.choice([o for o in fitting if o.slot == slot]) for slot in slots)]
    chance.shuffle(objects)
    shapes = [["-pie"], ["-no-pie"], ["-shared"], STATIC]
    # gold's map of a -r link does not say what came from where.
    shape = chance.choice([*shapes, *([["-r", "-nostdlib"]] if linker != "gold" else [])])
    stripped = shape[0] != "-r" and chance.random() < 0.4
    flags = [f"-fuse-ld={linker}", *shape, *(["-s"] if stripped else [])]
    flags += ["-fprofile-generate"] if shape[0] != "-r" else []
    if shape[0] != "-r" and chance.random() < 0.4:
        flags += ["-Wl,--gc-sections"]
    folder = folder / str(number)  # alone: an audit of the image looks beside it
    folder.mkdir()
    image = folder / ("linked.o" if shape[0] == "-r" else "linked")
    names = [one.path for one in objects]
    flags += [f"-Wl,-Map={image}.map", "-Wno-unused-command-line-argument"]
    run(tools[main.major].compiler, *flags, *names, "-o", image, cwd=folder)
    found = surviving(Path(f"{image}.map").read_text(errors="replace"), objects)
    return Linked(image, tuple(objects), main.raw_version, stripped, tuple(found))


@functools.cache
def linker_there(name: str) -> bool:
    return name == "lld" or shutil.which(f"ld.{name}") is not None


@pytest.fixture(scope="module")
def linked(
    pool: list[Object],
    toolchain: Callable[[str], Toolchain],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Linked]:
    folder = tmp_path_factory.mktemp("links")
    tools = {major: toolchain(major) for major in MAJORS}
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda n: link(n, pool, folder, tools), range(LINKS)))


def only(report: AuditReport, path: Path) -> Audited:
    (found,) = [one for one in report.files if one.path == path]
    return found


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


# -- fate: what is predicted, held against what happens

V8, V9, V10, V11 = (LinkPiece(version) for version in (8, 9, 10, 11))
FRONT = LinkPiece(8, "front-end")
BYTE = LinkPiece(10, variants=("ir", "byte-coverage"))
TIMED = LinkPiece(10, variants=("ir", "temporal"))
ENTRY = LinkPiece(10, variants=("ir", "entry-first"))
MCDC = LinkPiece(9, "front-end", bitmaps=True)
PLAIN = LinkPiece(10, variants=("ir",))


@pytest.mark.parametrize(
    ("runtime", "pieces", "outcomes"),
    [
        (10, [], "no-profile"),
        (10, [V10, V10], "ok"),
        (10, [V10, V8], "crash malformed"),
        (10, [V8, V10], "crash version-mismatch"),
        (10, [V8], "crash version-mismatch"),
        (10, [FRONT, V10], "crash malformed"),
        (10, [FRONT, V8], "crash version-mismatch"),
        (10, [V10, V9], "ok"),
        (10, [V9, V10], "version-mismatch"),
        (10, [V10, V9, V11], "crash malformed"),
        (8, [V8, LinkPiece(7)], "crash malformed"),  # one stride, but CounterPtr became relative
        (7, [LinkPiece(7), LinkPiece(5)], "ok"),
        (12, [LinkPiece(12)], "ok"),
        (12, [LinkPiece(12), V11], "ok crash malformed wrong-counts"),  # not known
        (12, [V11, LinkPiece(12)], "crash version-mismatch"),
        (10, [PLAIN, BYTE], "malformed wrong-counts"),
        (10, [BYTE, PLAIN], "wrong-counts"),
        (10, [PLAIN, TIMED], "wrong-counts"),
        (10, [TIMED, PLAIN], "wrong-counts"),
        (10, [PLAIN, ENTRY], "ok"),
        (10, [MCDC], "ok"),
    ],
)
def test_fate(runtime: int, pieces: list[LinkPiece], outcomes: str) -> None:
    assert predict(runtime, pieces).outcomes == set(outcomes.split())


@pytest.mark.parametrize(
    ("runtime", "pieces", "says"),
    [
        (10, [PLAIN, ENTRY], "-fprofile-use misreads"),
        (10, [MCDC, LinkPiece(10, "front-end")], "MC/DC bitmaps vanish"),
        (9, [MCDC], ""),
        (10, [PLAIN, PLAIN], ""),
    ],
)
def test_what_is_lost_though_all_seems_well(
    runtime: int, pieces: list[LinkPiece], says: str
) -> None:
    found = predict(runtime, pieces)
    assert found.outcomes == {"ok"}
    assert found.fine == (not says)
    assert says in found.loss


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
    ],
)
@pytest.mark.parametrize("major", ["17", "23"])
@pytest.mark.parametrize(
    ("order", "strange"), [("main-first", 1), ("foreign-first", 1), ("foreign-first", 0)]
)
def test_mixed_variants_are_seen_and_do_as_predicted(
    lab: Lab, flags: tuple[str, ...], variant: str, major: str, order: str, strange: int
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
    # Beside an image it is no link of its own.
    image = build.linked(lab.trial("cold", "19", "19"), lab.cache)
    assert audit([image, tmp_path / "all.a"]).verdict == "consistent"


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
    assert auditing._usual([seen]) == 10


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


# -- a cargo project

TRIPLE = "x86_64-unknown-linux-gnu"
RUST = 'extern "C" { fn step(x: i32) -> i32; }\nfn main() { std::process::exit(unsafe { step(-1) }); }\n'


@pytest.fixture(scope="module")
def target(
    lab: Lab, toolchain: Callable[[str], Toolchain], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a target folder as cargo leaves it: rustc of LLVM 19, the C part by LLVM 17."""
    rustc, clang = lab.trial("rust-cold", "19", "17").main, toolchain("17").compiler
    folder = tmp_path_factory.mktemp("cargo") / "target"
    release = folder / "release"
    out, script = release / "build" / "tiny-2" / "out", release / "build" / "tiny-1"
    for each in (out, script, release / "deps"):
        each.mkdir(parents=True)
    note = {"outputs": {"1": {"stdout": f"rustc 1.85.0\nhost: {TRIPLE}\nLLVM version: 19.1.7\n"}}}
    (folder / ".rustc_info.json").write_text(json.dumps(note))
    (out / "step.c").write_text("int step(int x) { return x > 0 ? x : 0; }\n")
    run(clang, "-O1", "-fPIC", HOW["ir"], "-c", "step.c", "-o", "step.o", cwd=out)
    run(toolchain("19").prefix / "bin" / "llvm-ar", "crs", "libstep.a", "step.o", cwd=out)
    (script / "main.rs").write_text("fn main() {}\n")
    (release / "main.rs").write_text(RUST)
    (release / "part.rs").write_text("pub fn part() {}\n")
    linker = [f"-Clinker={toolchain('19').compiler}", "-Clink-arg=-fuse-ld=lld"]
    image = release / "deps" / "tiny-0123456789abcdef"
    library = "deps/libpart-0.rlib"
    run(
        rustc.compiler,
        "-Cprofile-generate",
        "--crate-type=lib",
        "part.rs",
        "-o",
        library,
        cwd=release,
    )
    run(rustc.compiler, *linker, "main.rs", "-o", "build-script-build", cwd=script)
    link = [f"-Lnative={out}", "-lstatic=step", "main.rs"]
    run(rustc.compiler, "-Cprofile-generate", *linker, *link, "-o", image, cwd=release)
    os.link(image, release / "tiny")
    return folder


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
    assert f'CFLAGS_{TRIPLE.replace("-", "_")}="-fno-profile-generate" ' in said
    assert "\ncargo" not in said
    assert " cargo build --release\n" in said
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
    assert 'CFLAGS_aarch64_apple_darwin="-fno-profile-generate"' in said
    assert "cargo build --release --target aarch64-apple-darwin" in said


def test_advice_for_coverage_takes_coverage_back(target: Path) -> None:
    said = advise(target, "x86_64-linux", 10, [LinkPiece(10, "front-end"), FRONT], [])
    assert '="-fno-profile-instr-generate -fno-coverage-mapping" ' in said


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


# -- bad input


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

    def found(path: Path, problems: list[str] | None = None) -> Iterator[Path]:
        yield from find(path, problems)
        vanishing.unlink(missing_ok=True)

    monkeypatch.setattr(objects, "find", found)
    report = audit([tmp_path, tmp_path / "gone"])
    assert report.verdict in ("consistent", "unknown")
    assert only(report, tmp_path / "whole.o").judgement.verdict == "consistent"
    said = [*report.problems, *(p for one in report.files for p in one.problems)]
    for name in ("gone", "vanishing.o", "dangling"):
        assert any(name in problem for problem in said), said


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


# -- the command

PGO_LAB = [sys.executable, "-c", "from nbsupport.cli.commands import entry; entry()"]


def pgo_lab(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PGO_LAB, *args], capture_output=True, text=True, check=False)


def test_json_is_the_contract(target: Path) -> None:
    done = pgo_lab("audit", target, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)
    assert found["verdict"] == "mixed"
    (program,) = [one for one in found["files"] if one["path"].endswith("/tiny")]
    ours = program["layouts"][0].pop("records")
    assert ours > 1  # rustc's functions: main, and what it inlined of the library
    assert program | {"links": [], "why": "", "blame": [], "advice": ""} == {
        "path": str(target / "release" / "tiny"),
        "format": "elf",
        "kind": "executable",
        "raw_versions": [8, 10],
        "variants": ["ir"],
        "layouts": [{"record_size": 64}, {"record_size": 48, "records": 1}],
        "runtime_raw_version": 10,
        "verdict": "mixed",
        "outcomes": ["crash", "malformed"],
        "problems": [],
        "links": [],
        "why": "",
        "blame": [],
        "advice": "",
    }


def test_people_read_the_verdict_first(target: Path) -> None:
    done = pgo_lab("audit", target)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("mixed: the runtime of raw version 10 (LLVM 19 to 22) walks ")
    assert lines[1] == "what will happen: crash or malformed"
    assert any(line.rstrip().endswith(str(target / "release" / "tiny")) for line in lines)
    assert "\x1b" not in done.stdout
    assert any("libstep.a: 1 functions: step" in line for line in lines)
    assert f"CFLAGS_{TRIPLE.replace('-', '_')}" in done.stdout


def test_exit_codes(pool: list[Object], tmp_path: Path) -> None:
    assert pgo_lab("audit", pool[0].path).returncode == 0
    done = pgo_lab("audit", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_the_command_needs_no_notebook_stack(pool: list[Object]) -> None:
    code = "import sys; from nbsupport.cli import commands; commands.main(['audit', sys.argv[1]]); "
    code += "print([m for m in ('pandas', 'pyarrow', 'IPython', 'nbformat') if m in sys.modules])"
    command = [sys.executable, "-c", code, str(pool[0].path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
