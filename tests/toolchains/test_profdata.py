"""One llvm-profdata: which is the right one, and what it makes of profiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base.errors import MissingError
from nbsupport.toolchains import discovery, profdata
from nbsupport.toolchains.probe import Toolchain
from nbsupport.toolchains.profdata import TextRecord

TEXT = """\
# IR level Instrumentation Flag
:ir
main
# Func Hash:
71342323022792008
# Num Counters:
2
# Counter Values:
50
1
# Num Value Kinds:
1
# ValueKind = IPVK_MemOPSize:
1
# NumValueSites:
1
1
33:18

lib.c;helper
# Func Hash:
0x10
# Num Counters:
1
# Counter Values:
7

"""


def test_reads_names_hashes_counters_and_value_sites() -> None:
    records = profdata.parse(TEXT)
    assert records == {
        ("main", 71342323022792008): TextRecord((50, 1), ("1", "1", "1", "1", "33:18")),
        ("lib.c;helper", 16): TextRecord((7,), ()),
    }
    assert [record.values for record in records.values()] == [1, 0]
    assert [record.sites for record in records.values()] == [[(1, [1])], []]


def test_value_sites_are_told_by_kind_whether_they_saw_values_or_not() -> None:
    calls = ("0", "3", "2", "a.c;f:7", "g:1", "0", "1", "f:2")
    record = TextRecord((1,), ("2", *calls, "1", "1", "0"))
    assert record.sites == [(0, [2, 0, 1]), (1, [0])]
    assert TextRecord((1,), ("$1", "0x0")).sites == []  # a bitmap of the front end's


def test_an_empty_profile_has_no_functions() -> None:
    assert profdata.parse(":ir\n") == {}


def test_temporal_traces_are_no_functions() -> None:
    head = ":ir\n:temporal_prof_traces\n# Num Temporal Profile Traces:\n1\n1\n1\nmain,g,\n\n"
    records = profdata.parse(head + "g\n# Func Hash:\n7\n# Num Counters:\n1\n5\n\n")
    assert records == {("g", 7): TextRecord((5,), ())}


def test_of_a_toolchain_without_one_it_is_that_of_its_llvm(
    toolchain: Callable[[str], Toolchain], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = toolchain("19@wheel")
    bare = dataclasses.replace(wheel, name="19@rustc-1", llvm_profdata=None)
    apple = dataclasses.replace(wheel, provider="apple", llvm_profdata=Path("apple"))
    monkeypatch.setattr(discovery, "discover", lambda: (apple, bare, wheel))
    assert profdata.tool(wheel) == profdata.tool(bare) == wheel.llvm_profdata
    monkeypatch.setattr(discovery, "discover", lambda: (apple, bare))
    with pytest.raises(MissingError, match=r"llvm-profdata for 19@rustc-1: not found; .*19\.1\.7"):
        profdata.tool(bare)


def test_those_of_a_raw_version_come_oldest_first(toolchain: Callable[[str], Toolchain]) -> None:
    toolchain("19"), toolchain("22")
    owners = profdata.owners(10)
    assert {owner.raw_version for owner in owners} == {10}
    assert [int(owner.major) for owner in owners] == sorted(int(owner.major) for owner in owners)
    assert len(profdata.owners()) > len(owners)
    assert profdata.owners(99) == []


def test_profiles_are_merged_to_text_or_an_index_or_not_at_all(
    toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    tool = profdata.tool(toolchain("19"))
    source, text, index = (tmp_path / name for name in ("a.proftext", "b.proftext", "b.profdata"))
    source.write_text(TEXT)
    for out in (text, index):
        assert profdata.merge(tool, [source, source], out).ok
    assert profdata.as_text(tool, index).stdout == text.read_text()
    twice = profdata.parse(text.read_text())
    assert [record.counters for record in twice.values()] == [(14,), (100, 2)]
    before = index.read_bytes()
    source.write_text("nonsense")
    done = profdata.merge(tool, [source], index)
    assert not done.ok and "a.proftext" in done.stderr
    assert index.read_bytes() == before
