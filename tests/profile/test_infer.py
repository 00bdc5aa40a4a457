"""Records are found by their own words, whatever wrote them and whatever lies around them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nbsupport.profile import infer, layout, names
from nbsupport.profile.infer import Section, Stretch
from nbsupport.profile.layout import LAYOUTS, Bits, Field, Layout, Order

#: What an LLVM to come may write: longer than any layout, shorter than two of the shortest.
FUTURE = Layout(12, None, (*LAYOUTS[11].record, Field("Later", 8)), ())


@dataclass
class Made:
    """A section and the truth about it."""

    section: Section
    offsets: list[int]
    sizes: list[int]

    @property
    def runs(self) -> list[tuple[int, int, int]]:
        """Offset, record size, records."""
        found: list[tuple[int, int, int]] = []
        for offset, size in zip(self.offsets, self.sizes, strict=True):
            if found and found[-1][1] == size:
                found[-1] = (found[-1][0], size, found[-1][2] + 1)
            else:
                found.append((offset, size, 1))
        return found


def make(
    runs: Sequence[tuple[int, int]],
    *,
    bits: Bits = 64,
    order: Order = "<",
    slack: bytes = b"",
    seed: int = 0,
    linked: bool = True,
    width: int = 8,
    counters: bool = True,
    far: bool = False,
) -> Made:
    """Lay out runs of (raw version, records) with fields as a compiler and a linker leave them.

    `linked`: pointers hold addresses (else zeros, as in an object). `width`: of a counter.
    `far`: the counters are not right behind the records, where small numbers may point.
    """
    chance = random.Random(seed)  # noqa: S311 - reproducible on purpose
    kinds = [known for version, count in runs for known in [LAYOUTS.get(version, FUTURE)] * count]
    size = sum(known.record_size(bits) for known in kinds) + len(slack)
    low = -(1 << 20) if far or chance.random() < 0.5 else size + 8 * chance.randrange(64)
    here, at = low, 0
    text, data, offsets, sizes = [], bytearray(), [], []
    for number, known in enumerate(kinds):
        name = f"_ZN{number}{chance.random()}".encode()
        text.append(name)
        count = min(int(chance.paretovariate(0.7)), 3000)
        record = np.zeros(1, known.record_dtype(bits, order))[0]
        record["NameRef"] = names.Names([name]).hashes[0]
        record["FuncHash"] = chance.getrandbits(60) if chance.random() < 0.9 else 24
        place = here - at if known.relative else 0x400000 + here
        record["CounterPtr"] = place % (1 << bits) if linked else 0
        for field in ("FunctionPointer", "Values"):
            if linked and chance.random() < 0.7:
                record[field] = 0x401000 + chance.randrange(1 << 24)
        record["NumCounters"] = count
        record["NumValueSites"] = [int(chance.paretovariate(1)) - 1 & 0xFF for _ in range(known.value_kinds)]  # fmt: skip
        if "NumBitmapBytes" in known.record_dtype().fields and chance.random() < 0.2:  # type: ignore[operator]
            record["NumBitmapBytes"] = chance.randrange(1, 40)
        offsets.append(at)
        sizes.append(known.record_size(bits))
        data += record.tobytes()
        here += count * width
        at += sizes[-1]
    chance.shuffle(text)
    bounds = (low, here) if linked and counters else None
    section = Section(bytes(data) + slack, names.Names(text), bounds, bits, order)
    return Made(section, offsets, sizes)


def check(made: Made, by: str) -> None:
    found = infer.find(made.section)
    assert found.offsets.tolist() == made.offsets
    assert found.sizes.tolist() == made.sizes
    assert [(run.offset, run.record_size, run.records) for run in found.runs] == made.runs
    assert found.by == by


runs_of = st.lists(
    st.tuples(st.sampled_from([8, 9, 10, 11, 12]), st.integers(1, 50)), min_size=1, max_size=6
)
bits_of = st.sampled_from([64, 32])
orders = st.sampled_from(["<", ">"])
seeds = st.integers(0, 1 << 32)
slacks = st.one_of(st.integers(0, 71).map(bytes), st.binary(max_size=71))
often = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


@often
@given(runs_of, bits_of, orders, slacks, seeds, st.sampled_from([1, 8]))
def test_linked_images_are_recovered_exactly(
    runs: list[tuple[int, int]], bits: Bits, order: Order, slack: bytes, seed: int, width: int
) -> None:
    """Both invariants, any sequence of layouts, known or not, whatever follows the last record."""
    if 12 in (runs[-1][0], *(version for version, _ in runs[-2:-1])) and runs[-1][1] == 1:
        runs = [*runs, (8, 2)]  # where one of it, or one behind it, ends cannot be told
    if runs[-1][0] == 12:
        slack = slack[:15]  # with more, a record of 48 bytes could begin in it
    check(make(runs, bits=bits, order=order, slack=slack, seed=seed, width=width), "both")


@often
@given(runs_of, bits_of, orders, st.integers(0, 71), seeds, st.booleans())
def test_names_alone_are_enough(
    runs: list[tuple[int, int]], bits: Bits, order: Order, slack: int, seed: int, linked: bool
) -> None:
    """Objects before linking, and COFF: no counters are known."""
    runs = [(version, count) for version, count in runs if version != 12] or [(9, 1)]
    if runs[-1][1] == 1:
        slack = 0  # the only record of its kind, and something behind it: cannot be told
    made = make(
        runs,
        bits=bits,
        order=order,
        slack=bytes(slack),
        seed=seed,
        linked=linked,
        counters=False,
    )
    check(made, "names")


@often
@given(runs_of, orders, slacks, seeds)
def test_counters_alone_are_enough(
    runs: list[tuple[int, int]], order: Order, slack: bytes, seed: int
) -> None:
    """Names are elsewhere (debug information), or do not decode. 32 bits may land by chance."""
    runs = [(version, count) for version, count in runs if version != 12] or [(9, 1)]
    made = make(runs, order=order, slack=slack, seed=seed, far=True)
    made.section = dataclasses.replace(made.section, names=names.Names())
    check(made, "counters")


@often
@given(runs_of, orders, slacks, seeds, st.integers(2, 5))
def test_missing_names_are_made_up_for_by_counters(
    runs: list[tuple[int, int]], order: Order, slack: bytes, seed: int, every: int
) -> None:
    runs = [(version, count) for version, count in [*runs, (8, 2)] if version != 12]
    made = make(runs, order=order, slack=slack, seed=seed, far=True)
    kept = made.section.names.text[::every]
    made.section = dataclasses.replace(made.section, names=names.Names(kept))
    check(made, "both")


@often
@given(st.lists(st.tuples(st.sampled_from([5, 7, 8, 10]), st.integers(1, 9)), min_size=1), seeds)
def test_absolute_counter_pointers_are_found_by_name(
    runs: list[tuple[int, int]], seed: int
) -> None:
    made = make([(5, 2), *runs], seed=seed)
    relative = any(version >= 8 for version, _ in runs)
    check(made, "both" if relative else "names")


def test_the_last_records_counters_tell_its_size() -> None:
    """Raw version 11 would see a NumCounters of 2 in the NumBitmapBytes of 9: too few for the room."""
    made = make([(8, 3), (9, 1)], seed=5, far=True)
    record = np.frombuffer(bytearray(made.section.data), LAYOUTS[9].record_dtype(), 1, 144).copy()
    low, high = made.section.counters or (0, 0)
    record["NumCounters"], record["NumBitmapBytes"] = 5, 2
    grown = high + 8 * (5 - int(made.section.data[144 + 48]))
    data = bytes(made.section.data[:144]) + record.tobytes() + bytes(8)
    made.section = dataclasses.replace(made.section, data=data, counters=(low, grown))
    check(made, "both")


def test_a_missing_name_without_counters_makes_a_hole_not_a_stride() -> None:
    """Two runs, whose records lie one after the other, and nothing in between."""
    made = make([(8, 9)], linked=False, seed=3)
    hashes = [int(np.frombuffer(made.section.data, "<u8")[at // 8]) for at in made.offsets]
    text = [n for n in made.section.names.text if names.Names([n]).hashes[0] != hashes[4]]
    found = infer.find(dataclasses.replace(made.section, names=names.Names(text)))
    assert [(r.offset, r.record_size, r.records) for r in found.runs] == [(0, 48, 4), (240, 48, 4)]


@pytest.mark.parametrize("width", [1, 8])
def test_the_size_of_a_counter_is_seen(width: int) -> None:
    made = make([(10, 5), (8, 1)], width=width, seed=1)
    assert [run.counter_size for run in infer.find(made.section).runs] == [width, width]
    assert infer.find(make([(10, 3)], linked=False).section).runs[0].counter_size is None


def test_a_run_knows_the_versions_that_it_can_be_of() -> None:
    found = infer.find(make([(11, 1), (10, 2), (12, 3), (8, 1)]).section)
    assert [run.raw_versions() for run in found.runs] == [(11,), (9, 10), (), (4, 5, 6, 7, 8)]
    assert Stretch(0, 48, 1).raw_versions(32) == (9, 10)


hostile = st.integers(-(1 << 70), 1 << 70)


@settings(max_examples=300)
@given(st.binary(max_size=300), st.lists(st.binary(max_size=9)), hostile, hostile, bits_of, orders)
@example(bytes(47), [], 0, 1, 64, "<")
@example(bytes(48), [], -1, 1 << 65, 64, "<")
def test_any_bytes_have_an_answer(
    data: bytes, text: list[bytes], low: int, high: int, bits: Bits, order: Order
) -> None:
    known = names.Names(text)
    planted = b"".join(int(h).to_bytes(8, "little") + data[:56] for h in known.hashes)
    for content in (data, planted + data, memoryview(data)):
        found = infer.find(Section(content, known, (low, high), bits, order))
        assert len(found.offsets) == len(found.sizes) == sum(run.records for run in found.runs)
        assert (np.diff(found.offsets) >= min(layout.sizes(bits))).all()
        assert (found.sizes > 0).all()
        assert (found.offsets + found.sizes <= len(content)).all()
