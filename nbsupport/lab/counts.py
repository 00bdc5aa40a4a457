"""Execution counts of a profile, and whether they are the right ones."""

from collections.abc import Iterable

from nbsupport.toolchains import profdata
from nbsupport.toolchains.profdata import Key

Counts = dict[Key, tuple[int, ...]]
#: Counts to expect; None where two runs of the same program differ, so that no one count is right.
Expected = dict[Key, tuple[int, ...] | None]


def parse(text: str) -> Counts:
    r"""Return the counters of each function in a text profile (see `profdata.parse`).

    >>> parse(":ir\nmain\n# Func Hash:\n16\n# Num Counters:\n2\n# Counter Values:\n50\n1\n")
    {('main', 16): (50, 1)}
    """
    return {key: record.counters for key, record in profdata.parse(text).items()}


def agreed(runs: Iterable[Counts]) -> Expected:
    """Return what several runs of one program have in common; raises ValueError without a run.

    >>> agreed([{("f", 1): (1,), ("g", 2): (5,)}, {("f", 1): (1,), ("g", 2): (6,)}])
    {('f', 1): (1,), ('g', 2): None}
    """
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

    >>> together([{("f", 1): (1, 2)}, {("f", 1): (10, 20), ("g", 2): None}])
    {('f', 1): (11, 22), ('g', 2): None}
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


def difference(counts: Counts, expected: Expected) -> str | None:
    """Say what is wrong with the counts of a run; None when nothing is.

    >>> difference({("f", 1): (1,)}, {("f", 1): (1,), ("g", 2): None})
    '1 functions are missing (g)'
    >>> difference({("f", 1): (1,), ("x", 9): (0,)}, {("f", 1): (1,)})
    '1 functions belong to no part of the program (x)'
    >>> difference({("f", 1): (2,), ("g", 2): (9,)}, {("f", 1): (1,), ("g", 2): None})
    '1 functions have wrong counts (f)'
    >>> difference({("f", 1): (1,), ("g", 2): (9,)}, {("f", 1): (1,), ("g", 2): None})
    """
    wrong = (key for key, right in expected.items() if right not in (None, counts.get(key)))
    for keys, fault in (
        (expected.keys() - counts.keys(), "are missing"),
        (counts.keys() - expected.keys(), "belong to no part of the program"),
        (wrong, "have wrong counts"),
    ):
        names = sorted(name for name, _ in keys)
        if names:
            more = ", …" if names[3:] else ""
            return f"{len(names)} functions {fault} ({', '.join(names[:3])}{more})"
    return None
