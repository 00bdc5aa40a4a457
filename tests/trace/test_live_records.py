"""Records in memory: which one was being read at a crash, told from real crashes."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.audit.objects import BinaryPart
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.profile import names
from nbsupport.studies import ruler
from nbsupport.trace import tables
from nbsupport.trace.trace import Trace, open_trace
from nbsupport.trace.tracer import Tracer

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="apt-get install strace")


@pytest.mark.parametrize(
    ("main", "foreign"), [("19", "17"), ("17", "19"), ("17", "23"), ("22", "23"), ("23", "19")]
)
def test_the_record_at_the_crash_is_the_one_that_the_file_says(
    main: str, foreign: str, trial: Callable[..., Trace], lab: Lab
) -> None:
    misread = ruler.from_trial(lab, lab.trial("cold", main, foreign)).misread
    assert misread
    found = trial("cold", main, foreign)
    record = found.manifest["record"]
    assert record["offset"] == misread.slot.offset
    assert found.manifest["crash"]["fault_address"] == misread.fault_address
    (values,) = [row for row in record["fields"] if row[1].startswith("Values")]
    assert values[1] == f"Values = {misread.value:#x}" or misread.value < 1 << 16
    assert values[2].split("; ") == [
        f"{name} of {names.short(misread.record.name)}: "
        + ", ".join(str(n) if n < 1 << 16 else hex(n) for n in numbers)
        for name, numbers in misread.written.items()
    ]


def test_the_last_good_record_is_the_one_before(trial: Callable[..., Trace]) -> None:
    assert trial("cold", "19", "17").manifest["record"]["last_good"] == "mix"
    assert trial("hot", "19", "17").manifest["record"]["last_good"] == "main"


@pytest.mark.parametrize(
    ("names", "offset"),
    [
        (("cold", "19", "17"), 192),
        (("hot", "19", "17"), 192),
        (("cold", "17", "19"), 144),
        (("cold", "23", "19"), 216),
    ],
)
def test_a_stripped_program_tells_the_crash_and_the_record_and_what_was_not_seen(
    names: tuple[str, str, str],
    offset: int,
    tracer: Tracer,
    lab: Lab,
    clang: Path,
    tmp_path: Path,
) -> None:
    linked, bare = build.linked(lab.trial(*names), lab.cache), tmp_path / "bare"
    subprocess.run([clang.with_name("llvm-strip"), linked, "-o", bare], check=True)
    found = tracer.run([bare], tmp_path / "trace", env={}, cwd=tmp_path, seconds=20)
    record = found.manifest["record"]
    assert (record["function"], record["offset"]) == ("library_step", offset)
    assert any("stripped" in note for note in found.manifest["notes"])
    assert "main" in set(found.events["kind"])


def test_where_the_raw_version_is_not_known_no_record_is_said(
    trial: Callable[..., Trace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = tables._part

    def unknown(image: str) -> BinaryPart | None:
        part = read(image)
        return dataclasses.replace(part, runtime_raw_version=None) if part else None

    monkeypatch.setattr(tables, "_part", unknown)
    folder = Path(shutil.copytree(trial("cold", "19", "17").folder, tmp_path / "again"))
    (folder / tables.MANIFEST).write_text("{}")  # as one that was killed
    found = open_trace(folder)
    assert found.manifest["ended"] == "SIGSEGV" and "record" not in found.manifest
    assert any("cannot be told apart" in note for note in found.manifest["notes"])
    assert found.table("records").empty


def test_what_is_not_the_runtimes_crash_has_no_record(run: Callable[..., Trace]) -> None:
    found = run("null")
    assert found.manifest["crash"]["frames"][0]["function"] == "main"
    assert found.manifest["crash"]["fault_address"] == 0
    assert "record" not in found.manifest


def test_ten_million_value_sites_are_counted_by_the_runtime_and_sampled_by_the_trace(
    run: Callable[..., Trace],
) -> None:
    found = run("sites", "10000000")
    assert found.manifest["value_calls"] == 10_000_000
    assert (found.events["kind"] == "value site").sum() == 8
    assert any("only the first calls" in note for note in found.manifest["notes"])
