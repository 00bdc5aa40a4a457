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


GROWING = """
import sys, threading, time
from pathlib import Path
from nbsupport.base import progress
progress.console = lambda: Console(file=sys.stderr, width=80, force_terminal=True)
from rich.console import Console
def grow(name):
    with progress.growing(name, Path("/nowhere"), 100):
        together.wait()
        time.sleep(0.3)
        progress.say(f"{name} is there")
together = threading.Barrier(2)
progress.each(["one", "two"], grow, "", jobs=2, step=lambda: None)
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


def test_two_bars_at_a_time_stand_one_below_the_other() -> None:
    command = [sys.executable, "-c", GROWING]
    done = subprocess.run(command, capture_output=True, env=loud(), check=True)
    assert b"\r\x1b[2K\x1b[1A\x1b[2K" in done.stderr  # back over two lines, to show them anew
    assert b"one is there" in done.stderr and b"two is there" in done.stderr


def test_a_bar_leaves_no_trace_in_a_log() -> None:
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, env=loud(), check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_as_many_at_once_as_there_are_processors_for_us() -> None:
    code = "from nbsupport.base import settings; print(settings.cores())"
    one = sorted(os.sched_getaffinity(0))[0]
    command = ("taskset", "-c", str(one), sys.executable, "-c", code)
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"
