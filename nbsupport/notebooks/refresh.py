"""``python -m nbsupport.notebooks.refresh PATH…``: each a notebook or a folder of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nbsupport.base.errors import LabError
from nbsupport.notebooks.recording import refresh


def main(arguments: Sequence[str]) -> int:
    """Refresh committed notebooks; return an exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m nbsupport.notebooks.refresh", description=__doc__
    )
    parser.add_argument("path", nargs="+", type=Path)
    given = parser.parse_args(arguments)
    try:
        done = refresh([found for path in given.path for found in _notebooks(path)])
    except LabError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: no notebook was changed\n")
        return 130
    return 3 if any(one.status == "failed" for one in done) else 0


def _notebooks(path: Path) -> list[Path]:
    return sorted(path.glob("*.ipynb")) if path.is_dir() else [path]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
