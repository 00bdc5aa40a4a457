"""evtx itself on trial: here by a stand-in for its repository; the real one is on the network."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base import settings
from nbsupport.lab import cases
from nbsupport.lab.lab import Lab
from nbsupport.studies import evtx
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain
from tests.support import repositories


def test_what_was_measured_measured_outside_says_so_in_each_row() -> None:
    runs, gains = evtx.measured_outside()
    for table in (runs, gains):
        assert set(table["measured"]) == {"outside the notebooks, 2026-11-28, Linux x86-64"}
    lines = evtx.table(runs).text.splitlines()
    assert len(lines) == 1 + len(runs) and all(
        "outside the notebooks" in line for line in lines[1:]
    )
    healthy = runs[runs["died"] == "0 of 22"]
    assert list(healthy["cc"]) == ["gcc", "clang 19", "clang 16"]
    assert " 4,851 " in lines[1] and "5,227" in evtx.table(runs).text
    assert all(gains["with"] < gains["without"])


def test_each_way_is_built_and_run_on_each_sample(
    tmp_path: Path, lab: Lab, toolchain: Callable[[str], Toolchain]
) -> None:
    toolchain("17")
    made = repositories.make(tmp_path, discovery.find_rustc("19"))
    sample = made.folder / "samples" / "Security_short_selected.evtx"
    sample.with_name("another.evtx").write_text("ElfFil")
    made.pin(made.commit("two samples"))
    how = {"case": made.case, "vendored": str(made.crates)}
    runs = evtx.measure(lab, "17", allocators=["mimalloc"], **how)
    assert list(runs["cc"]) == ["gcc", "17", "19", "17"]
    assert list(runs["died"]) == ["0 of 2", "2 of 2", "0 of 2", "0 of 2"], runs["where"]
    assert list(runs["of_c"].fillna(-1)) == [0, -1, 1, 0]
    assert runs["where"][1] and set(runs["measured"]) == {"by the lab, here"}
    gains = evtx.worth(lab, "17", **how)
    assert len(gains) == 2 and all(gains["with"] > 0)
    assert evtx.table(gains).text.count("by the lab, here") == 2


def test_jemalloc_is_another_feature_of_the_same_commit() -> None:
    case = evtx._with(cases.get("evtx"), "jemalloc")
    assert case.cargo == ("--locked", "--features", "fast-alloc-jemalloc")
    assert dataclasses.replace(case, cargo=cases.get("evtx").cargo) == cases.get("evtx")


def test_a_build_that_fails_is_a_row(lab: Lab, tmp_path: Path) -> None:
    text = cases.get("evtx").path.read_text()
    nowhere = (tmp_path / "none").as_uri()
    (tmp_path / "evtx.toml").write_text(re.sub("(?m)^git = .*", f'git = "{nowhere}"', text))
    runs = evtx.measure(lab, "17", case=str(tmp_path / "evtx.toml"), allocators=["jemalloc"])
    assert list(runs["died"]) == ["not built"] * 4
    assert all("\n" not in why and "992cc2844ed6" in why for why in runs["where"])


@pytest.mark.network
def test_evtx_itself(lab: Lab, toolchain: Callable[[str], Toolchain]) -> None:
    """Its repository and crates come from the network; the tables replace what is by hand."""
    for name in ("17", "19"):
        toolchain(name)
    runs, gains = evtx.measure(lab, "17"), evtx.worth(lab, "17")
    out = settings.cache_dir() / "evtx"
    out.mkdir(exist_ok=True)
    for name, table in (("runs", runs), ("worth", gains)):
        (out / f"{name}.txt").write_text(evtx.table(table).text + "\n")
        table.to_json(out / f"{name}.json", orient="records", indent=1)
    died = dict(zip(zip(runs["allocator"], runs["cc"], runs["cflags"], strict=True), runs["died"],
                    strict=True))  # fmt: skip
    for allocator in evtx.FEATURES:
        assert died[allocator, "17", ""] == "22 of 22"
        for way in (("gcc", ""), ("19", ""), ("17", "-fno-profile-generate")):
            assert died[allocator, *way] == "0 of 22"
