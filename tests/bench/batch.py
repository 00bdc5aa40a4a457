"""What it costs to run notebooks in a batch; part of `make bench`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat

from nbsupport.notebooks import batch
from tests.bench.trace import median

#: About a second of work, and what each of our notebooks imports.
CODE = "import pandas\nfrom nbsupport.notebooks import results\nsum(n * n for n in range(10**7))"
PGO_LAB = "from nbsupport.cli.commands import entry; entry()"


def rows() -> list[tuple[str, str, str, str]]:
    """Return the figures: what, measured, beside what, and the goal."""
    new = nbformat.v4
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        book = new.new_notebook(cells=[new.new_code_cell(CODE)])  # type: ignore[no-untyped-call]
        paths = [folder / f"{number}.ipynb" for number in range(4)]
        for path in paths:
            nbformat.write(book, path)  # type: ignore[no-untyped-call]
        numbers = iter(range(1000))

        def execute(some: int, jobs: int) -> Callable[[], object]:
            return lambda: batch.execute(paths[:some], folder / str(next(numbers)), {}, jobs=jobs)

        def python(*argv: object) -> Callable[[], object]:
            line = [sys.executable, "-c", *map(str, argv)]
            return lambda: subprocess.run(line, check=True, capture_output=True)

        script, alone = median(python(CODE)), median(execute(1, 1))
        one, two = median(execute(4, 1)), median(execute(4, 2))
        batch.execute(paths, folder / "again", {})
        again = median(python(PGO_LAB, "run", "--resume", "-o", folder / "again"))
    return [
        (
            "a notebook in a batch",
            f"{alone - script:.2f} s more",
            f"the same as a script ({script:.2f} s)",
            "1.5 s",
        ),
        (
            "four notebooks, two at once",
            f"{one / two:.2f} times as fast",
            f"one at a time ({one:.1f} s)",
            "1.6",
        ),
        ("a finished run, resumed", f"{again:.2f} s", f"four notebooks ({two:.1f} s)", "2 s"),
    ]


if __name__ == "__main__":
    for row in rows():
        print(*row, sep=" | ")  # noqa: T201
