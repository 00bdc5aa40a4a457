"""A plug-in for `make nbval`: how two outputs differ, in the first lines that do.

pytest's own comparison of two pictures takes minutes, so it is switched off there.
"""

from __future__ import annotations

import difflib
import itertools

_LINES = 20


def pytest_assertrepr_compare(left: object, right: object) -> list[str] | None:
    """Return the lines in which two texts differ, committed ones as -, and those of now as +."""
    if not (isinstance(left, str) and isinstance(right, str)):
        return None
    lines = left.splitlines(), right.splitlines()
    found = difflib.unified_diff(*lines, "committed", "now", n=0, lineterm="")
    return [line[:300] for line in itertools.islice(found, _LINES)]
