"""Says where a sentence has words that need a second reading (tests/support/words.toml).

`python -m tests.support.words [FILE]…` reads texts, Markdown, TOML, Python's docstrings and a
notebook's prose; without a file, all that people read. It exits with 1 for any such word.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
#: What people read.
READ = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "notebooks/*.ipynb",
    "data/*.toml",
    "data/*/*.toml",
    "nbsupport/**/*.py",
)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the sentences' texts of a file, each with its line (of a notebook: its cell)."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        for number, cell in enumerate(json.loads(text)["cells"]):
            if cell["cell_type"] == "markdown":
                yield number, "".join(cell["source"])
    elif path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield node.lineno, node.value
    else:
        yield from enumerate(text.split("\n"), 1)


def unclear(path: Path) -> Iterator[str]:
    """Yield a line for each of the words in a file: where it stands, and what to say instead."""
    for number, text in prose(path):
        plain = re.sub(r"`[^`]*`", "", " ".join(text.split()))
        for pattern, instead in WORDS.items():
            for match in re.finditer(pattern, plain, re.IGNORECASE):
                yield f"{path}:{number}: {match[0]!r}: {instead}"


def main(names: list[str]) -> int:
    """Print what is unclear in these files; return 1 if anything is."""
    paths = [Path(name) for name in names]
    if not paths:
        paths = sorted(path for pattern in READ for path in ROOT.glob(pattern))
    lines = [line for path in paths for line in unclear(path)]
    print(*lines, sep="\n", end="\n" if lines else "")  # noqa: T201 - what it is for
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
