"""The pictures of a trace: what a reader sees of a run, true for each way in which it ends."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.show.shown import Shown
from nbsupport.toolchains.probe import Toolchain
from nbsupport.trace import pictures, words
from nbsupport.trace.trace import Trace, open_trace
from nbsupport.trace.tracer import Tracer

#: How a run can end: program, foreign LLVM, link order. `again` is the same once more.
_RUNS = {
    "healthy": ("cold", "22", "main-first"),
    "allocator": ("allocator", "22", "main-first"),
    "at exit": ("cold", "17", "main-first"),
    "again": ("cold", "17", "main-first"),
    "in main": ("hot", "17", "main-first"),
    "mismatch": ("cold", "17", "foreign-first"),
}
Runs = Mapping[str, Trace]
Find = Callable[[str], Toolchain]


@pytest.fixture(scope="module")
def runs(
    lab: Lab, toolchain: Find, tracer: Tracer, tmp_path_factory: pytest.TempPathFactory
) -> Runs:
    for name in ("17", "22"):
        toolchain(name)
    made = {}
    for n, (end, (program, foreign, order)) in enumerate(_RUNS.items()):
        linked = build.linked(lab.trial(program, "19", foreign, order=order), lab.cache)
        folder, cwd = tmp_path_factory.mktemp(str(n)), tmp_path_factory.mktemp("cwd")
        env = {"LLVM_PROFILE_FILE": "run.profraw", "LC_ALL": "C"}
        made[end] = tracer.run([linked], folder, env=env, cwd=cwd)
    return made


def _all(found: Trace) -> dict[str, Shown]:
    page = words.timeline, words.pointers, words.record, pictures.memory_map
    made = {show.__name__: show(found) for show in (*page, words.milestone_table, words.aligned)}
    return {**made, "story": words.story({"a run": found})}


def _cells(page: Shown, *terms: str) -> list[list[str]]:
    """Return the cells of the lines that have all of some words."""
    lines = (line for line in page.text.splitlines()[1:] if all(word in line for word in terms))
    return [re.split(" {2,}", line) for line in lines]


@pytest.mark.parametrize("end", _RUNS)
def test_no_picture_shows_an_address_that_is_mapped(runs: Runs, end: str) -> None:
    places = runs[end].table("places")
    for name, page in _all(runs[end]).items():
        for number in re.findall(r"\b0x[0-9a-f]{5,16}\b", page.text + page.html):
            inside = (places["start"] <= int(number, 16)) & (int(number, 16) < places["end"])
            assert not inside.any(), (name, number)


def test_two_runs_of_one_program_give_the_same_bytes(runs: Runs) -> None:
    assert _all(runs["at exit"]) == _all(runs["again"])


def test_the_timeline_is_a_story_on_a_page(runs: Runs) -> None:
    page = words.timeline(runs["at exit"])
    kinds = [cells[1] for cells in _cells(page)]
    order = [kinds.index(kind) for kind in ("runtime", "main", "value site", "write", "crash")]
    assert order == sorted(order)
    assert len(kinds) <= 40
    assert _cells(page, "44-45", "__llvm_profile_get_num_data", "returned 8")
    assert _cells(page, "record of main x 2", "record of library_step x 2")
    assert _cells(words.timeline(runs["mismatch"]), "__llvm_profile_write_file", "returned -1")
    some = words.timeline(runs["at exit"], ["main", "crash"])
    assert [cells[1] for cells in _cells(some)] == ["main", "crash"]


def test_the_pointer_that_was_misread_is_named_and_its_record_shown(runs: Runs) -> None:
    page = words.pointers(runs["at exit"])
    assert _cells(page, "DataBegin", "passed", "cold: __llvm_prf_data")
    assert _cells(page, "Values of library_step", "0x1000100000003: the crash")
    page = words.record(runs["at exit"])
    ((_, read, written, _),) = _cells(page, "followed")
    assert read == "Values = 0x1000100000003"
    assert written.startswith("NumCounters of library_step")
    (((said),),) = _cells(page, "SIGSEGV in initializeValueProfRuntimeRecord")
    assert " = 0x1000100000003" in said
    assert "the address is from the registers. Last good record: mix." in said
    assert not _cells(words.pointers(runs["healthy"]), "Values of")
    assert "No record was being read" in words.record(runs["healthy"]).text


@pytest.mark.parametrize("end", _RUNS)
def test_the_map_says_what_the_table_of_pointers_says(runs: Runs, end: str) -> None:
    table = runs[end].table("pointers")
    followed = table[table["how"] != "written"]["owner"]
    page = pictures.memory_map(runs[end])
    assert f'role="img" aria-label="The writer has {len(followed)} pointers' in page.html
    assert "none leads to an allocator's memory" in page.text
    for owner, said in (("nobody: unmapped", "nowhere"), ("text", "to code")):
        n = int(followed.str.endswith(owner).sum())
        assert (f"{n} lead{'s' * (n == 1)} {said}" in page.text) == (n > 0)
    assert ("the program dies here" in page.html) == (end in ("at exit", "again", "in main"))
    assert ("no call of the writer" in page.html) == (end in ("in main", "mismatch"))
    bands = "names", "code", "counters", "records", "heap of the C", "libraries", "stack", "no such"
    places = [page.html.index(f">{band}") for band in bands]
    assert places == sorted(places), "in order of address"


@pytest.mark.parametrize(
    "owner", ["heap of mimalloc", "unmapped, once heap of mimalloc", "mapped by f"]
)
def test_a_pointer_to_an_allocators_memory_is_said(runs: Runs, tmp_path: Path, owner: str) -> None:
    shutil.copytree(runs["healthy"].folder, tmp_path / "copy")
    table = runs["healthy"].table("pointers")
    table.loc[table["how"] == "read", "owner"] = [owner, "nobody: unmapped"]
    table.to_parquet(tmp_path / "copy" / "pointers.parquet")
    caption = pictures.memory_map(open_trace(tmp_path / "copy")).text
    assert f"1 leads to an allocator's memory ({owner}), 1 leads nowhere" in caption
    assert "none leads" not in caption


def test_a_record_that_was_read_as_it_was_written_is_not_blamed(runs: Runs) -> None:
    told = runs["at exit"].manifest
    fields = [("232", "Values = 0x1000100000003", "Values of library_step")]
    fine = {**told, "record": {**told["record"], "fields": fields}}
    found = dataclasses.replace(runs["at exit"], manifest=fine)
    assert "dies of" not in pictures.memory_map(found).html
    assert not _cells(words.pointers(found), "the crash")


@pytest.mark.parametrize(
    ("end", "titles", "last"),
    [
        ("healthy", "created registered runs over begins end", "exit code 0; raw profile: "),
        ("at exit", "created registered runs over begins end", "SIGSEGV in initializeValueProf"),
        ("in main", "created registered runs end", "SIGSEGV in __llvm_profile_instrument_target"),
        ("mismatch", "created registered runs over begins end", "version mismatch"),
    ],
)
def test_the_moments_are_those_that_there_were(
    runs: Runs, end: str, titles: str, last: str
) -> None:
    moments = words.milestones(runs[end])
    assert [moment.title.split()[-1] for moment in moments] == titles.split()
    assert [moment.n for moment in moments] == sorted(moment.n for moment in moments)
    assert last in moments[-1].sentence
    assert ("exit, called from" in moments[3].sentence) == (end != "in main")
    bounds = ", 128 of counters; their bounds are in cold: __llvm_prf_data"
    assert (bounds in moments[-2].sentence) == (end in ("healthy", "at exit"))


def test_the_story_says_what_is_missing_in_which_run(runs: Runs) -> None:
    page = words.story({end: runs[end] for end in ("healthy", "in main", "mismatch")})
    cells = {(row[0], row[1]): row[2:] for row in _cells(page)}
    assert cells["start-up", "created"] == ["yes", "yes", "yes"]
    assert cells["writing", "opened"] == ["yes", "MISSING", "MISSING"]
    assert cells["outcome", "how it ended"] == ["exit code 0", "SIGSEGV", "exit code 0"]
    assert "version mismatch" in cells["outcome", "why it is empty"][2]


def test_what_both_saw_is_on_one_line(runs: Runs) -> None:
    page = words.aligned(runs["healthy"])
    both = [cells[:2] for cells in _cells(page, "both")]
    opened = ["open run.profraw", "openat run.profraw"]
    assert [*both[:2], both[2][0]] == [opened, opened, "_exit"]
    assert _cells(page, "lprofWriteDataImpl", "debugger")
    assert _cells(page, "write run.profraw", "bytes", "system calls")
    assert _cells(words.aligned(runs["at exit"]), "SIGSEGV in", "both")
    grown = words.aligned(runs["allocator"])
    assert _cells(grown, "mmap 4194304 bytes  ", "both"), "the arena of allocator.c"
    assert ">mapped by the program<" in pictures.memory_map(runs["allocator"]).html


def test_a_trace_of_nothing_is_shown_too(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").touch()
    (tmp_path / "trace.json").write_text("{}")
    empty = open_trace(tmp_path)
    assert "No pointer of a writer was seen" in _all(empty)["memory_map"].text
    assert words.milestones(empty) == ()
