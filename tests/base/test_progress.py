"""What is shown while something takes its time, and what is not."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from nbsupport.base import progress

CODE = """
import time
from nbsupport.base import progress
progress._SOON = 0.0
with progress.bar("counting", 2) as step:
    for _ in range(2):
        time.sleep(0.3)
        step()
"""


def loud() -> dict[str, str]:
    """Return an environment in which nothing keeps progress from showing."""
    quiet = ("PYTEST_CURRENT_TEST", progress.QUIET)
    return {name: value for name, value in os.environ.items() if name not in quiet} | {
        "TERM": "xterm"
    }


def test_a_bar_moves_in_a_terminal() -> None:
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", CODE], stderr=theirs, env=loud(), check=True)
    os.close(theirs)
    shown = os.read(ours, 1 << 16)
    os.close(ours)
    assert b"counting" in shown and b"1/2" in shown


def test_a_bar_leaves_no_trace_in_a_log() -> None:
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, env=loud(), check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
