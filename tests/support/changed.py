"""Says what `make quick` tries: what goes with the files that changed since the last commit.

    python -m tests.support.changed tests       what pytest is given
    python -m tests.support.changed notebooks   what nbval is given

A package's tests go with it, and what holds of every package; those of packages above wait for
`make test`, and so does what takes minutes. A file of data has the tests of those who read it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
#: What holds of every package, and takes a few seconds.
OF_ALL = [
    f"tests/project/test_{name}.py" for name in ("contributing", "doctests", "faces", "names")
]
#: What builds with cargo, opens a browser or runs whole notebooks: tried if it has itself changed.
LONG = [
    "tests/browser",
    "tests/lab/test_cases.py",
    "tests/notebooks/test_cluster.py",
    "tests/notebooks/test_replay.py",
    "tests/notebooks/test_run.py",
    "tests/project/test_build_pgo.py",
]


def changed(root: Path) -> list[str]:
    """Return the files that differ from the last commit: staged, not staged, and new ones."""
    command = ["git", "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames"]
    said = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return [entry[3:] for entry in said.split("\0") if entry]


def notebooks(root: Path, paths: Iterable[str]) -> list[str]:
    """Return those that are notebooks of the lab, and still there."""
    found = (path for path in paths if PurePosixPath(path).match("notebooks/*.ipynb"))
    return sorted(path for path in found if (root / path).is_file())


def tests(root: Path, paths: Collection[str]) -> list[str]:
    """Return the folders and files of tests to try, none of them twice; then what is left out."""
    late = {one for one in LONG if not any(path.startswith(one) for path in paths)}
    found = {one for path in paths for one in of(root, path) if (root / one).exists()} - late
    found = {one for one in found if one.rpartition("/")[0] not in found}
    return [
        *sorted(found),
        *(f"--ignore={one}" for one in sorted(late) if one[: one.rindex("/")] in found),
    ]


def of(root: Path, path: str) -> Iterator[str]:
    """Yield the folders and files of tests that go with a file."""
    match path.split("/"):
        case ["nbsupport", package, _, *_]:
            yield f"tests/{package}"
            yield from OF_ALL
        case ["tests", "support", name]:
            module = re.escape(name.partition(".")[0])
            says = rf"\btests\.support(\.| import .*\b){module}\b"
            yield from _saying(root, "tests/*/test_*.py", says)
        case ["tests", package, name]:
            yield path if name.startswith("test_") else f"tests/{package}"
        case ["data", name, *_]:
            reads = r"\bdata_dir\b", rf'"{re.escape(name)}["/]'
            for files in ("nbsupport/**/*.py", "tests/*/*.py"):
                for reader in _saying(root, files, *reads):
                    yield from of(root, reader)
        case ["notebooks", _]:
            pass  # nbval's
        case _:
            yield "tests/project"


def _saying(root: Path, files: str, *patterns: str) -> Iterator[str]:
    """Yield the files in whose text each of the patterns is."""
    for path in root.glob(files):
        text = path.read_text()
        if all(re.search(pattern, text) for pattern in patterns):
            yield path.relative_to(root).as_posix()


def main() -> int:
    """Print one path a line."""
    paths = changed(ROOT)
    found = tests(ROOT, paths) if sys.argv[1:] == ["tests"] else notebooks(ROOT, paths)
    sys.stdout.writelines(f"{path}\n" for path in found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
