"""An LLVM that the project has not seen works without a change of code, and what is new is said."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import papermill
import pytest

from nbsupport.audit import evidence, judge
from nbsupport.audit.fate import LinkPiece, predict
from nbsupport.base import process, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.lab import build, counts
from nbsupport.lab.lab import Lab
from nbsupport.profile import layout, profraw, training
from nbsupport.studies import hypotheses, ruler
from nbsupport.toolchains import discovery, headers, tree
from nbsupport.toolchains.probe import Toolchain
from tests.support import tomorrow

PLACES = {"NumCallSites": 56, "NumCounters": 64, "NumValueSites": 68, "NumBitmapBytes": 76}


@pytest.fixture(scope="module")
def opt(
    toolchain: Callable[[str], Toolchain], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Return where two LLVMs of tomorrow are: `llvm-24`, and `alike-24` with 23's records."""
    folder, base, sources = tmp_path_factory.mktemp("opt"), toolchain("23"), tree.load("23")
    return {
        name: tomorrow.make(base, sources, folder / name, wider=name == "llvm-24")
        for name in ("llvm-24", "alike-24")
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache folder with the user's compilers, whose programs are thrown away."""
    cache = tmp_path_factory.mktemp("home") / "pgo-lab"
    cache.mkdir()
    for name in ("toolchains", "sources", "archives"):
        (cache / name).symlink_to(settings.cache_dir() / name)
    return cache


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Take out of the process what it learned: other tests know no such LLVM."""
    before = dict(layout.LAYOUTS)
    yield
    layout.LAYOUTS.clear()
    layout.LAYOUTS.update(before)
    discovery._given.clear()


@pytest.fixture
def fresh(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr(settings, "cache_dir", lambda: place)
    with Lab() as made:
        yield made


@pytest.fixture
def altered(opt: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies LLVM 24 with changes in its header; None: without header."""

    def copy(*changes: tuple[str, str] | None) -> Path:
        prefix = tmp_path / "llvm-24"
        shutil.copytree(opt["llvm-24"], prefix, symlinks=True)
        clang, header = prefix / "bin" / "clang", prefix / tomorrow.HEADER
        clang.write_text(clang.read_text().replace(str(opt["llvm-24"]), str(prefix)))
        if None in changes:
            header.unlink()
        else:
            tomorrow.alter(header, *filter(None, changes))
        return prefix

    return copy


def test_it_is_found_by_its_path_and_called_by_number_and_folder(opt: dict[str, Path]) -> None:
    found = discovery.find(str(opt["llvm-24"]))
    assert (found.name, found.version, found.raw_version) == ("24@llvm-24", "24.1.0", 12)
    assert found.runtime
    assert found.runtime.is_relative_to(opt["llvm-24"])
    assert discovery.find(str(opt["llvm-24"] / "bin" / "clang")) == found
    assert discovery.find("24@llvm-24") == found


def test_two_of_one_name_are_told_apart(
    opt: dict[str, Path], altered: Callable[..., Path], tmp_path: Path
) -> None:
    one = discovery.find(str(opt["llvm-24"]))
    link, again = tmp_path / "link", altered()
    link.symlink_to(opt["llvm-24"])
    assert discovery.find(str(link)) == one
    other = discovery.find(str(again))
    assert (one.name, other.name) == ("24@llvm-24", str(again / "bin" / "clang"))
    assert discovery.find(other.name) == other
    wheel = again.rename(tmp_path / "wheel")  # not one of the lab's own
    assert discovery.find(str(wheel)).name == str(wheel / "bin" / "clang")


def test_it_is_found_on_the_system(
    opt: dict[str, Path], monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    monkeypatch.setenv("CONDA_PREFIX", str(opt["llvm-24"]))
    assert discovery.find("24").name == "24@conda"
    assert layout.LAYOUTS[12].record_size() == 80


def test_its_layout_is_read_from_its_own_header(opt: dict[str, Path]) -> None:
    assert 12 not in layout.LAYOUTS
    found = discovery.find(str(opt["llvm-24"]))
    known = layout.LAYOUTS[12]
    assert {name: known.offsets()[name] for name in PLACES} == PLACES
    assert layout.sizes() == {48: (4, 5, 6, 7, 8), 64: (9, 10), 72: (11,), 80: (12,)}
    assert layout.llvm_of(12) == "LLVM 24"
    assert headers.learned(found) is known
    assert headers.differences(found) == ()
    assert list(layout.changes(layout.nearest(12), known)) == [
        ("record", "NumCallSites", None, (56, 8)),
        ("record", "NumCounters", (56, 4), (64, 4)),
        ("record", "NumValueSites", (60, 6), (68, 6)),
        ("record", "OffloadDeviceWaveSize", (66, 2), (74, 2)),
        ("record", "NumBitmapBytes", (68, 4), (76, 4)),
        ("header", "NumThreads", None, (128, 8)),
        ("header", "NumVTables", (128, 8), (136, 8)),
        ("header", "VNamesSize", (136, 8), (144, 8)),
        ("header", "ValueKindLast", (144, 8), (152, 8)),
    ]
    assert headers.learned(discovery.find("23")) is layout.nearest(12)


def test_what_changed_between_known_layouts() -> None:
    grown = layout.changes(layout.LAYOUTS[9], layout.LAYOUTS[10])
    assert [tuple(one) for one in grown if one.part == "record"] == [
        ("record", "NumValueSites", (52, 4), (52, 6)),
        ("record", "NumBitmapBytes", (56, 4), (60, 4)),
    ]
    gone = [one.name for one in layout.changes(layout.LAYOUTS[9], layout.LAYOUTS[8])]
    assert gone[-1] == "BitmapDelta"


#: Main, library, link order; what becomes of "cold", whose value sites do not run before exit.
TRIALS = (
    ("llvm-24", "llvm-24", "main-first", "ok"),
    ("llvm-24", "llvm-24", "foreign-first", "ok"),
    ("19", "llvm-24", "main-first", "crash"),
    ("19", "llvm-24", "foreign-first", "version-mismatch"),
    ("23", "llvm-24", "main-first", "crash"),
    ("23", "llvm-24", "foreign-first", "version-mismatch"),
    ("llvm-24", "19", "main-first", "crash"),
    ("llvm-24", "23", "main-first", "crash"),
    ("llvm-24", "23", "foreign-first", "version-mismatch"),
    # The same records under another number: with 23 first, all is well.
    ("23", "alike-24", "main-first", "ok"),
    ("23", "alike-24", "foreign-first", "version-mismatch"),
    ("alike-24", "23", "main-first", "ok"),
    ("19", "alike-24", "main-first", "crash"),
)


@pytest.mark.parametrize(("main", "foreign", "order", "kind"), TRIALS)
def test_what_becomes_of_a_link_is_predicted_and_so_it_comes(
    fresh: Lab, opt: dict[str, Path], main: str, foreign: str, order: str, kind: str
) -> None:
    names = (str(opt.get(name, name)) for name in (main, foreign))
    trial = fresh.trial("cold", *names, order=order)
    row = trial.to_row()
    assert {row["main"].partition("@")[0], row["foreign"].partition("@")[0]} <= {"19", "23", "24"}
    assert hypotheses.predict(trial) == {kind}
    assert fresh.run(trial).kind == kind

    report = judge.audit([build.linked(trial, fresh.cache)])
    (image,) = report.files
    said = image.to_json()
    assert kind in report.judgement.outcomes
    assert report.verdict == ("consistent" if kind == "ok" else "mixed")
    if trial.runtime.raw_version == trial.foreign.raw_version or "alike-24" not in (main, foreign):
        assert said["raw_versions"] == sorted({row["main_raw_version"], row["foreign_raw_version"]})
    assert said["runtime_raw_version"] == row["main_raw_version"]
    sizes = [layout.LAYOUTS[p.raw_version or 0].record_size() for p in (trial.main, trial.foreign)]
    sizes = sizes if order == "main-first" else sizes[::-1]
    assert [size for size, _ in image.layouts] == list(dict.fromkeys(sizes))


def test_the_address_where_it_dies_is_read_off_the_file(fresh: Lab, opt: dict[str, Path]) -> None:
    for main, foreign in (("19", str(opt["llvm-24"])), (str(opt["llvm-24"]), "19")):
        trial = fresh.trial("cold", main, foreign)
        address = fresh.run(trial).to_json()["fault_address"]
        assert address == ruler.from_trial(fresh, trial).fault_address is not None


def test_objects_are_judged_before_they_are_linked(fresh: Lab, opt: dict[str, Path]) -> None:
    trial = fresh.trial("cold", "23", str(opt["llvm-24"]))
    objects = [build.compiled(job, fresh.cache) for job in build.jobs(trial)]
    report = judge.audit(objects)
    assert report.verdict == "mixed"
    assert report.judgement.outcomes == ["crash", "malformed", "version-mismatch"]
    assert "raw version 12 (LLVM 24)" in report.judgement.why


def test_other_processes_that_read_files_know_it_too(
    fresh: Lab, opt: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = fresh.trial("cold", str(opt["llvm-24"]), str(opt["llvm-24"]))
    objects = [build.compiled(job, fresh.cache) for job in build.jobs(trial)]
    monkeypatch.setattr(evidence, "_PARALLEL", 0)
    (alone,), many = judge.audit(objects[:1]).files, judge.audit(objects, jobs=2).files
    assert many[0].to_json() == alone.to_json()
    assert [run.raw_versions for one in many for run in one.parts[0].records] == [(12,), (12,)]


def test_its_raw_profile_is_read(fresh: Lab, opt: dict[str, Path], tmp_path: Path) -> None:
    trial = fresh.trial("cold", str(opt["llvm-24"]), str(opt["llvm-24"]))
    file = tmp_path / "run.profraw"
    env = {"LLVM_PROFILE_FILE": str(file)}
    assert process.run([build.linked(trial, fresh.cache)], cwd=tmp_path, env=env).ok
    raw = profraw.read(file)
    assert (raw.raw_version, raw.problems) == (12, ())
    merged = counts.parse(fresh.run_once(trial)[0])
    assert {name.decode(): tuple(values) for name, _, values in raw.rows()} == {
        name: values for (name, _), values in merged.items()
    }
    whole = file.read_bytes()
    data = bytearray(whole)
    struct.pack_into("<Q", data, 8 * layout.LAYOUTS[12].header.index("NumThreads"), 3)
    file.write_bytes(data)
    (doubt,) = profraw.read(file).problems
    assert (doubt.offset, doubt.what[:22]) == (128, "header: NumThreads = 3")

    del layout.LAYOUTS[12]
    assert training.state(profraw.read(file)) == "other-version"
    discovery.find(str(opt["llvm-24"]))
    file.write_bytes(whole)
    assert training.state(profraw.read(file)) == "ok"


def test_without_its_header_nothing_is_guessed(altered: Callable[..., Path]) -> None:
    found = discovery.find(str(altered(None)))
    assert (found.major, found.raw_version) == ("24", 12)
    assert 12 not in layout.LAYOUTS
    with pytest.raises(MissingError, match="InstrProfData.inc of 24@llvm-24: not installed with"):
        headers.learned(found)
    told = predict(11, [LinkPiece(11), LinkPiece(12)], "cold")
    assert told.outcomes == {"ok", "crash", "malformed", "wrong-counts"}
    assert "how raw version 12 lays them out is not known" in told.why
    # What does not depend on it is predicted all the same.
    assert predict(11, [LinkPiece(12), LinkPiece(11)], "cold").outcomes == {"version-mismatch"}
    assert predict(12, [LinkPiece(12)]).outcomes == {"ok"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            ("RAW_VERSION 12\n", "RAW_VERSION 13\n"),
            "the header of 24@llvm-24: raw version 13, its compiler emits 12; install compiler",
        ),
        (
            (f"INSTR_PROF_DATA(const uint64_t, x, {tomorrow.FIELD}, x)", ""),
            "its compiler's records have fields of 8, 8, 8, 8, 8, 8, 8, 8, 4, 6, 2, 4 bytes",
        ),
        (
            ("INSTR_PROF_RAW_HEADER(uint64_t, VNamesSize, VNamesSize)", ""),
            "no VNamesSize where it was",
        ),
    ],
)
def test_a_header_that_contradicts_is_not_believed(
    altered: Callable[..., Path], change: tuple[str, str], why: str
) -> None:
    found = discovery.find(str(altered(change)))
    assert {12, 13}.isdisjoint(layout.LAYOUTS)
    with pytest.raises(LabError, match=re.escape(why)):
        headers.learned(found)


def test_records_that_start_otherwise_are_not_learned() -> None:
    near = layout.LAYOUTS[11]
    name, *rest = near.record
    other = dataclasses.replace(near, raw_version=12, record=(layout.Field("New", 8), name, *rest))
    with pytest.raises(LabError, match="raw version 12: no NameRef, FuncHash, CounterPtr where it"):
        layout.learn(other)
    assert 12 not in layout.LAYOUTS


@pytest.mark.slow
@pytest.mark.parametrize("book", ["01-reproduction", "03-record-layout"])
@pytest.mark.parametrize("side", ["llvm", "foreign"])
def test_the_notebooks_hold_what_they_claim(
    book: str,
    side: str,
    opt: dict[str, Path],
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kernel finds the LLVM, and learns its layout, by itself."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.parent))
    new = str(opt["llvm-24"])
    given = {"llvm": "19", "foreign": "19", "grid": f"19,23,{new}", side: new}
    source, out = settings.notebooks_dir() / f"{book}.ipynb", tmp_path / "out.ipynb"
    papermill.execute_notebook(source, out, given, kernel_name="python3", progress_bar=False)
    kind = "application/vnd.pgo-lab.claim+json"
    outputs = [o for c in json.loads(out.read_text())["cells"] for o in c.get("outputs", ())]
    claims = [o["data"][kind] for o in outputs if kind in o.get("data", {})]
    assert len(claims) >= 4
    assert [claim for claim in claims if not claim["holds"]] == []
