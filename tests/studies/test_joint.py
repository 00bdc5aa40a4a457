"""One program at a time is held against all that was seen; its value sites say when it dies."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from nbsupport.base.errors import LabError, MissingError
from nbsupport.lab import programs
from nbsupport.lab.lab import Lab
from nbsupport.studies import joint, mechanisms, observations
from nbsupport.toolchains.probe import Toolchain

SEEN = observations.load()
CHECKED = "rust-mimalloc-checked"


@pytest.fixture(scope="module")
def joined(lab: Lab, toolchain: Callable[[str], Toolchain]) -> pd.DataFrame:
    for name in ("17", "19"):
        toolchain(name)
    table = joint.measure(lab, "19", "17", SEEN, whole=False).set_index("mechanism", drop=False)
    if table.loc[CHECKED, "why"]:
        pytest.skip(str(table.loc[CHECKED, "why"]))
    return table


def test_one_program_on_an_allocator_shows_all_but_the_address(joined: pd.DataFrame) -> None:
    lacking = {name: mechanisms.missing(row) for name, row in joined.to_dict("index").items()}
    in_main = ("the function", "the moments", "what is left")
    assert lacking == {
        "cold": ("an allocator",),
        "mimalloc-no-realloc": ("0x0",),
        "mimalloc": in_main,
        "rust-mimalloc": in_main,
        CHECKED: ("0x0",),
        # Run as it is alone: what takes long, the whole does.
        "jemalloc": ("the function", "0x0"),
        "jemalloc-checked": ("the function", "0x0"),
        "jemalloc-shared-region": ("0x0",),
    }
    assert joint.predict_missing(joined.to_dict("index")[CHECKED], crashes=True) == lacking[CHECKED]


def test_one_source_dies_in_main_or_at_exit_by_how_c_is_compiled(joined: pd.DataFrame) -> None:
    table = joined.loc[["rust-mimalloc", CHECKED]]
    assert table["ends"].tolist() == ["crash in main", "crash at exit"]
    assert table["function"].tolist()[1] == "initializeValueProfRuntimeRecord"
    assert table["memory"].gt(0).tolist() == [True, False]
    assert table["memory_ran"].gt(0).tolist() == [True, False]
    assert table["calls"].nunique() == 1


def test_the_sites_that_ran_say_when_each_dies(joined: pd.DataFrame) -> None:
    assert joint.surprises(joined, crashes=True) == []
    assert set(joined["ends"]) == {"crash in main", "crash at exit"}  # both are foretold
    other = joined.assign(memory_ran=0, calls_ran=0)
    assert (
        joint.surprises(other, crashes=True)
        == joined.index[joined["ends"] == "crash in main"].tolist()
    )


def test_jemallocs_site_kills_only_where_no_memory_is(joined: pd.DataFrame) -> None:
    checked, mapped = joined.loc["jemalloc-checked"], joined.loc["jemalloc-shared-region"]
    assert checked["calls_ran"] == mapped["calls_ran"] == 1
    assert (checked["ends"], mapped["ends"]) == ("crash in main", "crash at exit")


def test_one_raw_version_is_foretold_to_be_healthy(
    lab: Lab, toolchain: Callable[[str], Toolchain]
) -> None:
    toolchain("22")
    table = joint.measure(lab, "19", "22", SEEN, whole=False).set_index("mechanism", drop=False)
    assert joint.surprises(table, crashes=False) == []
    row = table.to_dict("index")["cold"]
    assert mechanisms.missing(row) == joint.predict_missing(row, crashes=False)


@pytest.mark.whole
def test_in_the_whole_no_flag_of_c_but_the_check_decides(
    lab: Lab, toolchain: Callable[[str], Toolchain]
) -> None:
    for name in ("17", "19"):
        toolchain(name)
    table = joint.measure(lab, "19", "17", SEEN, whole=True)
    assert joint.surprises(table, crashes=True) == []
    mimalloc = table[table["mechanism"].str.startswith("rust-mimalloc")]
    lacking = {mechanisms.missing(row) for row in mimalloc[mimalloc["checked"]].to_dict("records")}
    assert lacking == {("0x0",)}
    assert set(mimalloc[~mimalloc["checked"]]["ends"]) == {"crash in main"}


def test_what_cannot_be_run_says_so_and_is_no_surprise(
    lab: Lab, toolchain: Callable[[str], Toolchain], monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchain("17")

    def no_rust(name: str) -> Toolchain:
        raise MissingError("a rustc", "not found", "install it")

    monkeypatch.setattr(lab, "_find_rustc", no_rust)
    rows = [row for row in joint.load(whole=False) if row.id in ("cold", CHECKED)]
    monkeypatch.setattr(joint, "load", lambda **_: tuple(rows))
    table = joint.measure(lab, "19", "17", SEEN, whole=False)
    assert table["why"].tolist() == ["", "a rustc: not found"]
    assert table["agrees_allocators"].tolist() == ["no", "untried"]
    assert "not run: a rustc: not found" in joint.table(table).text
    assert joint.surprises(table, crashes=True) == []
    assert "Rust" not in joint.show_sites(table, crashes=True).text


def test_an_unknown_toolchain_is_no_table(lab: Lab) -> None:
    with pytest.raises(LabError, match="4711"):
        joint.measure(lab, "19", "4711", SEEN, whole=False)


def test_the_data_names_programs_and_asks_headers_to_check_where_it_says_so() -> None:
    for row in joint.load():
        flags = (
            *row.library,
            *(f for unit in programs.get(row.program).library for f in unit.flags),
        )
        assert row.checked == ("-D_FORTIFY_SOURCE=2" in flags), row.id
    assert len(joint.load()) > len(joint.load(whole=False)) > 5
