"""The process that a program is emulated in: it says in a file how that ended, and ends."""

import json
import os
import sys
from pathlib import Path

from nbsupport.base.errors import LabError
from nbsupport.macos.executable import load
from nbsupport.macos.libsystem import START, LibSystem


def main(program: str, folder: str, result: str, instructions: str, environment: str) -> None:
    """Emulate `program`, whose files are in `folder`; `environment` is its own, as JSON."""
    try:
        system = LibSystem(load(Path(program)), Path(folder), json.loads(environment))
        state = system.run(START, int(instructions))
    except LabError as error:
        state = {"error": [error.what, error.why, error.do]}
    Path(result).write_text(json.dumps(state))
    os._exit(0)  # what a crashed program has buffered stays unwritten


if __name__ == "__main__":
    main(*sys.argv[1:])
