"""A plug-in for `make nbval`: how two outputs differ, in the first lines that do.

pytest's own comparison of two pictures takes minutes, so it is switched off there.
"""

from __future__ import annotations

import difflib
import itertools
import json

_LINES = 20


def pytest_assertrepr_compare(left: object, right: object) -> list[str]:
    """Return the lines in which two outputs differ, committed ones as -, and those of now as +.

    A claim and a table are no texts, and are compared as JSON: nbval itself fails to show them.
    """
    committed, now = (
        (output if isinstance(output, str) else json.dumps(output, indent=1, default=str)).split(
            "\n"
        )
        for output in (left, right)
    )
    differences = difflib.unified_diff(committed, now, "committed", "now", n=0, lineterm="")
    return [line[:300] for line in itertools.islice(differences, _LINES)]
