"""Execution counts of a profile, and whether they are the right ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nbsupport.toolchains import profdata
from nbsupport.toolchains.profdata import Key

Counts = dict[Key, tuple[int, ...]]
#: Counts to expect; None where two runs of the same program differ, so that no one count is right.
Expected = dict[Key, tuple[int, ...] | None]


def parse(text: str) -> Counts:
    """Return the counters of each function in a text profile (see `profdata.parse`)."""
    return {key: record.counters for key, record in profdata.parse(text).items()}


def agreed(runs: Iterable[Counts]) -> Expected:
    """Return what several runs of one program have in common; raises ValueError without a run."""
    first, *others = runs
    expected: Expected = dict(first)
    for other in others:
        for key in expected.keys() | other.keys():
            if expected.get(key) != other.get(key):
                expected[key] = None
    return expected


def together(parts: Iterable[Expected]) -> Expected:
    """Return the counts of a program from those of its parts; a function of two parts adds up.

    Source: InstrProfRecord::merge (InstrProf.cpp): equal name and hash, counters are added.
    """
    whole: Expected = {}
    for part in parts:
        for key, counters in part.items():
            total = whole.get(key, ())
            if total is None or counters is None:
                whole[key] = None
            else:
                pairs = zip(total, counters, strict=True) if total else ((0, n) for n in counters)
                whole[key] = tuple(a + b for a, b in pairs)
    return whole


def difference(counts: Counts, expected: Mapping[Key, tuple[int, ...] | None]) -> str | None:
    """Say what is wrong with the counts that were seen; None when nothing is."""
    missing = sorted(name for name, _ in expected.keys() - counts.keys())
    if missing:
        return f"{len(missing)} functions are missing ({_some(missing)})"
    extra = sorted(name for name, _ in counts.keys() - expected.keys())
    if extra:
        return f"{len(extra)} functions belong to no part of the program ({_some(extra)})"
    wrong = sorted(
        key[0]
        for key, counters in expected.items()
        if counters is not None and counts[key] != counters
    )
    return f"{len(wrong)} functions have wrong counts ({_some(wrong)})" if wrong else None


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
