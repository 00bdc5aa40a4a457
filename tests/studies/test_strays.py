"""One object of another LLVM's runtime: what it does is measured, and follows from layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from nbsupport.base import settings
from nbsupport.base.errors import BuildError, MissingError
from nbsupport.lab.lab import Lab
from nbsupport.studies import mechanisms, races, runtime_objects, strays
from nbsupport.toolchains import Toolchain

WRITER, SITE = "initializeValueProfRuntimeRecord", "__llvm_profile_instrument_target"


@pytest.fixture(scope="module")
def objects(lab: Lab, toolchain: Callable[[str], Toolchain]) -> pd.DataFrame:
    toolchain("17")
    return strays.try_objects(lab, "19", "17").set_index("object")


def test_only_the_object_that_has_the_function_dies_in_it(objects: pd.DataFrame) -> None:
    assert objects.index[objects["defines"]].tolist() == ["InstrProfilingValue.c"]
    assert objects.index[objects["function"] == WRITER].tolist() == ["InstrProfilingValue.c"]
    there = objects.loc["InstrProfilingValue.c"].to_dict()
    assert (there["ends"], there["address"]) == ("crash at exit", "exactly 0")


def test_the_others_are_refused_or_harmless_or_die_elsewhere(objects: pd.DataFrame) -> None:
    refused = objects.loc["InstrProfilingBuffer.c"].to_dict()
    assert (refused["ends"], refused["detail"]) == ("refused", "duplicate symbol")
    assert objects.loc["InstrProfilingFile.c", "ends"] == "version-mismatch"
    assert objects.loc["InstrProfilingMerge.c", "ends"] == "ok"
    text = strays.table(objects.reset_index()).text
    assert f"each of the {(objects['ends'] == 'ok').sum()} others" in text
    assert "InstrProfilingMerge.c" not in text


@pytest.mark.parametrize(
    ("foreign", "ends"),
    [
        ("17", ("crash in main", "crash at exit")),
        ("18", ("ok", "ok")),
        ("22", ("ok", "ok")),
        ("23", ("crash in main", "crash in main")),
    ],
)
def test_layouts_foretell_what_the_object_does(
    lab: Lab, toolchain: Callable[[str], Toolchain], foreign: str, ends: tuple[str, str]
) -> None:
    assert strays.foretell(toolchain("19"), toolchain(foreign)) == ends
    made = {one.id: one for one in mechanisms.load()}
    for name, end in zip(("stray-object", "stray-object-local"), ends, strict=True):
        outcome = lab.run(made[name].changed(lab, "rich", "19", foreign))
        assert mechanisms.ends(outcome) == end, name


def test_a_rust_program_dies_in_main_of_it(lab: Lab, toolchain: Callable[[str], Toolchain]) -> None:
    toolchain("17")
    if not lab.available(programs=["rust-cold"], llvm="22"):
        pytest.skip("no rustc with LLVM 22")
    rust = strays.try_rust(lab, "22", "17")
    assert rust["ends"].tolist() == ["crash at exit", "crash in main", "refused"]
    assert rust["function"].tolist() == [WRITER, SITE, ""]


def test_objects_are_unpacked_once(toolchain: Callable[[str], Toolchain]) -> None:
    found = runtime_objects.extract(toolchain("17"))
    assert found["InstrProfilingValue.c"].read_bytes()[:4] == b"\x7fELF"
    assert found == runtime_objects.extract(toolchain("17"))
    with pytest.raises(MissingError, match="profile runtime"):
        runtime_objects.extract(replace(toolchain("17"), runtime=None))


def test_what_is_no_archive_is_said(
    toolchain: Callable[[str], Toolchain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runtime.a").write_bytes(b"\xca\xfe\xba\xbe universal")
    clang = replace(toolchain("17"), runtime=tmp_path / "runtime.a")
    monkeypatch.setattr(settings, "cache_dir", lambda: tmp_path / "cache")
    with pytest.raises(BuildError, match="unpacking the profile runtime"):
        runtime_objects.extract(clang)
    assert not [*(tmp_path / "cache" / "runtimes").glob("[0-9a-f]*")]


def test_two_writers_die_now_and_then(lab: Lab, toolchain: Callable[[str], Toolchain]) -> None:
    toolchain("19")
    raced = races.measure(lab, "19", 60)
    assert races.often(raced) == ("some runs", "none")
    row = raced.iloc[0]
    assert 0 < row["died"] < row["runs"]
    assert row["functions"] != "-"
    assert raced.iloc[1].tolist() == ["one thread writes, another still counts", 60, 0, "-", "-"]
    assert "two threads write at once" in races.table(raced).text


@pytest.mark.parametrize(
    ("died", "words"), [((3, 0), ("some runs", "none")), ((9, 9), ("each run", "each run"))]
)
def test_how_often_is_said_in_words(died: tuple[int, int], words: tuple[str, str]) -> None:
    assert races.often(pd.DataFrame({"died": died, "runs": [9, 9]})) == words
