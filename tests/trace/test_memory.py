"""Whose memory is where, and where the profile's pointers lead, in real programs."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from nbsupport.toolchains.probe import Toolchain
from nbsupport.trace import memory
from nbsupport.trace.trace import Trace
from tests.trace.programs import in_order

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="apt-get install strace")


def test_every_pointer_has_an_owner(trial: Callable[..., Trace]) -> None:
    found = trial("cold", "19", "17").table("pointers")
    passed = found[found["how"] == "passed"].set_index("name")["owner"]
    assert dict(passed) == {
        **dict.fromkeys(("DataBegin", "DataEnd"), "cold: __llvm_prf_data"),
        **dict.fromkeys(("CountersBegin", "CountersEnd"), "cold: __llvm_prf_cnts"),
        **dict.fromkeys(("NamesBegin", "NamesEnd"), "cold: __llvm_prf_names"),
    }
    written = found[found["how"] == "written"]
    assert dict(zip(written["of"], written["owner"], strict=True)) == {
        "main": "cold: __llvm_prf_vals",
        "library_step": "cold: __llvm_prf_vals",
    }
    read = found[found["how"] == "read"].set_index("of")
    assert read.loc["library_step", "value"] == 0x1000100000003
    assert read.loc["library_step", "owner"] == memory.UNMAPPED


def test_pointers_into_the_heap_are_said_to_be_there(run: Callable[..., Trace]) -> None:
    """The control: value data on the heap, as -vp-static-alloc=false has it."""
    found = run("sites", "5", flags=("-mllvm", "-vp-static-alloc=false")).table("pointers")
    values = found[found["name"] == "Values"]
    assert set(values["owner"]) == {"heap of the C library"}


def test_an_allocator_that_unmaps_its_heap_before_the_profile_is_written_harms_nothing(
    trial: Callable[..., Trace], toolchain: Callable[[str], Toolchain]
) -> None:
    found = trial("rust-mimalloc", "19", "22")
    in_order(
        found,
        ("handler", "mi_process_done"),
        ("memory", "33554432 bytes of: heap of mimalloc"),
        ("handler", "writeFileWithoutReturn"),
        ("write", "lprofWriteDataImpl"),
        ("returned", "__llvm_profile_write_file"),
    )
    assert found.manifest["ended"] == "exit code 0" and found.lost == 0
    assert found.exits[0] == found.exits[1]
    assert found.exits[0].startswith("mi_process_done, writeFileWithoutReturn")
    owners = set(found.table("pointers")["owner"])
    assert owners and all("__llvm_prf" in owner for owner in owners)


def test_what_touches_the_profiles_memory_is_told(run: Callable[..., Trace]) -> None:
    found = run("protect")
    assert found.lost == 1
    in_order(found, ("main", "main"), ("memory", "mprotect"), ("returned", "main"))
    assert found.events["what"].str.contains("holds the profile's.*__llvm_prf_data").sum() == 1
