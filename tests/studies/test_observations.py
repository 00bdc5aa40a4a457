"""The impossible numbers: the harness shows them in healthy builds, and they decode."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base import process, settings
from nbsupport.base.errors import LabError
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.profile import layout
from nbsupport.studies import mechanisms, observations
from nbsupport.toolchains.probe import Toolchain

#: Calls the real functions as they are meant to be called, with each Begin and End given.
ASK = r"""
#include <stdio.h>
#include <stdlib.h>
unsigned long long __llvm_profile_get_num_data(const void *begin, const void *end);
unsigned long long __llvm_profile_get_num_counters(const char *begin, const char *end);
int main(int count, char **words) {
    for (int i = 1; i + 1 < count; i += 2) {
        void *begin = (void *)strtoull(words[i], 0, 0), *end = (void *)strtoull(words[i + 1], 0, 0);
        printf("data entries %llu\n", __llvm_profile_get_num_data(begin, end));
        printf("counters %llu\n", __llvm_profile_get_num_counters(begin, end));
    }
}
"""


def test_the_users_numbers_are_two_neighbours() -> None:
    seen = {observation.id: observation.value for observation in observations.load()}
    decoded = observations.decode(int(seen["entries"]), int(seen["counters"]))
    assert (decoded.data[0], decoded.data[-1]) == (0x102271FC1, 0x102272000)
    assert (decoded.counters[0], decoded.counters[-1]) == (0x102271F49, 0x102271F50)
    assert decoded.apart == 0x102272000 - 0x102271F49 == 0xB7
    ranges = "0x102271fc1..0x102272000 and 0x102271f49..0x102271f50"
    assert ranges in decoded.sentence and "0xb7 bytes" in decoded.sentence


def test_each_observation_has_a_source_and_is_held_against_programs_or_says_why_not() -> None:
    seen = observations.load()
    # What the program is, and the second of the numbers that are decoded (02).
    elsewhere = {"program", "counters"}
    held = {*mechanisms.criteria(), *elsewhere}
    assert {fact.id for fact in seen if not fact.beyond} == held
    assert all(fact.source.startswith(("notes", "summary", "analysis")) for fact in seen)


def test_no_observation_is_rounded_up() -> None:
    values = {fact.id: fact.value for fact in observations.load()}
    assert values["offset"] == "about 88"
    assert values["explicit"] == "would sometimes crash, but with profile data created"
    text = observations.show_beyond(observations.load()).text
    assert "the far register" in text and values["explicit"] in text
    assert "impossible" not in text and values["function"] not in text


@pytest.mark.parametrize("llvm", ["17", "19", "23"])
def test_what_the_real_functions_were_given_is_in_the_decoded_ranges(
    llvm: str, toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    chance, tool = random.Random(llvm), toolchain(llvm)  # noqa: S311 - examples
    some = [chance.randrange(2**64) >> chance.choice((0, 20, 58)) for _ in range(400)]
    pairs = [some[at : at + 2] for at in range(0, 400, 2)]
    pairs += [[0, 0], [0, 1], [1, 0], [64, 0], [0, 64], [0, 65], [0, 2**64 - 1]]
    (tmp_path / "ask.c").write_text(ASK)
    link = ["-fprofile-generate", *build.linker_flags(tool), "ask.c", "-o", "ask"]
    assert process.run([tool.compiler, *link], cwd=tmp_path, limits=settings.COMPILER).ok
    words = [str(word) for pair in pairs for word in pair]
    said = process.run([tmp_path / "ask", *words], cwd=tmp_path).stdout.splitlines()
    record = layout.LAYOUTS[tool.raw_version or 0].record_size()
    for (begin, end), *lines in zip(pairs, said[::2], said[1::2], strict=True):
        decoded = observations.decode(
            *observations.read_numbers("\n".join(lines)), record_size=record
        )
        for each in (decoded.data, decoded.counters):
            assert (end - begin) % 2**64 in each or (end - begin) % 2**64 - 2**64 in each
        assert [len(decoded.data), len(decoded.counters)] == [record, 8]  # and not wider


@pytest.mark.parametrize("program", ["harness", "rust-harness"])
def test_a_healthy_build_shows_numbers_of_that_kind(program: str, lab: Lab, tmp_path: Path) -> None:
    made = lab.trial(program, "19", "19")
    outcome = lab.run(made)
    assert (outcome.kind, outcome.profile.valid) == ("ok", True), outcome.detail
    said = process.run([build.linked(made, lab.cache)], cwd=tmp_path).stdout
    entries, counters = observations.read_numbers(said)
    # A program of this size has not a million of either.
    assert min(entries, counters) > 1_000_000 > outcome.profile.functions > 0
    assert observations.decode(entries, counters).apart < 4096  # two neighbours, as the user's


def test_distances_go_round_the_end_of_memory() -> None:
    below, above = observations.decode(0, 2**61 - 1), observations.decode(1, 0)
    assert (below.data, below.counters[-1]) == (range(-63, 1), 2**64 - 8)
    assert (below.apart, above.apart) == (63 - 8, 64 + 7)


def test_what_cannot_be_is_refused() -> None:
    for bad in ((-1, 0), (2**58, 0), (0, 2**61), (0, -1), (10**5000, 1)):
        with pytest.raises(LabError, match="not 64-bit numbers"):
            observations.decode(*bad)
    with pytest.raises(LabError, match="not 64-bit numbers"):
        observations.decode(1, 1, record_size=0)
    for text in ("", "checksum 1\n", "data entries 5\n", "data entries x\ncounters 1"):
        with pytest.raises(LabError, match="it printed no numbers"):
            observations.read_numbers(text)
