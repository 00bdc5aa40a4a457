"""A child process that misbehaves becomes an outcome, and never outlives its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from nbsupport.base import process
from nbsupport.base.errors import MissingError
from nbsupport.base.settings import MIB, Limits

QUICK = Limits(seconds=2, memory=128 * MIB, output=1 * MIB, file=4 * MIB)


def sh(script: str, folder: Path, limits: Limits = QUICK) -> process.Finished:
    return process.run(["/bin/sh", "-c", script], cwd=folder, limits=limits)


def python(script: str, folder: Path, limits: Limits = QUICK) -> process.Finished:
    return process.run([sys.executable, "-c", script], cwd=folder, limits=limits)


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def test_reports_output_and_exit_code(tmp_path: Path) -> None:
    done = sh("echo out; echo err >&2; exit 3", tmp_path)
    assert (done.stdout, done.stderr, done.exit_code, done.signal) == ("out\n", "err\n", 3, None)
    assert not done.ok


def test_reports_the_signal(tmp_path: Path) -> None:
    done = sh("kill -SEGV $$", tmp_path)
    assert (done.exit_code, done.signal_name) == (None, "SIGSEGV")


def test_arguments_are_not_read_by_a_shell(tmp_path: Path) -> None:
    done = process.run(["/bin/echo", "$HOME; `id`", ""], cwd=tmp_path)
    assert done.stdout == "$HOME; `id` \n"


def test_standard_input_is_closed(tmp_path: Path) -> None:
    assert sh("cat; echo end", tmp_path).stdout == "end\n"


def test_a_hanging_program_ends_at_the_time_limit(tmp_path: Path) -> None:
    done = sh("sleep 60", tmp_path, Limits(seconds=0.3))
    assert done.limit == "time"
    assert done.seconds < 5


def test_a_busy_program_that_outlives_us_ends_by_processor_time(tmp_path: Path) -> None:
    # The second fence: even if nobody watches, the kernel ends it.
    shell = process._LIMITER
    child = subprocess.Popen(
        ["/bin/sh", "-c", shell, "sh", "1", "9", sys.executable, "-c", "while 1: pass"]
    )
    assert child.wait(20) == -signal.SIGXCPU


def test_a_flood_of_output_is_bounded(tmp_path: Path) -> None:
    done = sh("yes", tmp_path)
    assert done.limit == "output"
    assert len(done.stdout) <= QUICK.output


def test_a_huge_file_is_bounded(tmp_path: Path) -> None:
    done = sh("exec head -c 100000000 /dev/zero > big", tmp_path)
    assert done.limit == "output"
    assert (tmp_path / "big").stat().st_size <= QUICK.file


def test_a_program_that_eats_memory_is_ended(tmp_path: Path) -> None:
    done = python("b = []\nwhile True: b.append(bytearray(1 << 20))", tmp_path)
    assert done.limit == "memory"


def test_memory_of_children_counts(tmp_path: Path) -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', "
    script += "'b = []\\nwhile True: b.append(bytearray(1 << 20))'])"
    assert python(script, tmp_path).limit == "memory"


def test_what_a_program_leaves_behind_is_ended(tmp_path: Path) -> None:
    # The grandchild holds the pipes open; the run ends with its parent all the same.
    start = time.monotonic()
    done = sh("sleep 60 & echo $!", tmp_path)
    assert time.monotonic() - start < QUICK.seconds
    assert done.ok
    wait_until_gone(int(done.stdout))


def test_no_core_file(tmp_path: Path) -> None:
    sh("kill -ABRT $$", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no-such-program: no such program"):
        process.run(["no-such-program"], cwd=tmp_path)


def test_interrupt_ends_the_child_and_passes_on(tmp_path: Path) -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        sh("echo $$ > pid; sleep 60", tmp_path, Limits(seconds=30))
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    script = "from pathlib import Path; from nbsupport.base import process; "
    script += "process.run(['/bin/sh', '-c', 'echo $$ > pid; sleep 60'], cwd=Path('.'))"
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_child_has_no_children_that_it_did_not_make(tmp_path: Path) -> None:
    script = "import os\ntry: os.wait()\nexcept ChildProcessError: print('none')"
    assert python(script, tmp_path).stdout == "none\n"


def test_end_all_ends_what_other_threads_run(tmp_path: Path) -> None:
    found: list[process.Finished] = []
    thread = threading.Thread(
        target=lambda: found.append(sh("touch up; sleep 60", tmp_path, Limits(seconds=30)))
    )
    thread.start()
    while not (tmp_path / "up").exists():
        time.sleep(0.01)
    process.end_all()
    thread.join(5)
    assert found[0].signal_name == "SIGKILL"


# -- a child that is kept alive

#: Two sleeping children in sessions of their own, whose process ids it writes.
PARENT = """
import pathlib, subprocess, sys
two = [subprocess.Popen(["sleep", "60"], start_new_session=True).pid for _ in range(2)]
pathlib.Path("new").write_text(" ".join(map(str, two)))
pathlib.Path("new").rename("pids")
{then}
"""


def family_of(then: str, folder: Path) -> tuple[process.Child, list[int]]:
    """Start a child that starts two of its own, and return these, too."""
    child = process.Child([sys.executable, "-c", PARENT.format(then=then)], cwd=folder)
    while not (folder / "pids").exists():
        assert not child.ended
        time.sleep(0.01)
    return child, [int(pid) for pid in (folder / "pids").read_text().split()]


def test_a_child_ends_with_its_descendants_in_whatever_session(tmp_path: Path) -> None:
    child, pids = family_of("subprocess.run(['sleep', '60'])", tmp_path)
    assert {member.pid for member in child.family()} >= set(pids)
    assert child.wait(0.01) is None and not child.ended
    child.end()
    child.end()
    assert child.wait(0) == -signal.SIGKILL
    for pid in pids:
        wait_until_gone(pid)


def test_a_child_that_has_gone_leaves_its_family_and_what_it_adopted_to_end(tmp_path: Path) -> None:
    child, (known, adopted) = family_of("sys.stdin.read(); sys.exit(3)", tmp_path)
    family = [psutil.Process(known)]
    child.adopt(adopted)
    assert child.wait(5) == 3 and child.family() == []
    child.end(family)
    for pid in (known, adopted):
        wait_until_gone(pid)


def test_end_all_ends_a_child_but_not_what_it_disowned(tmp_path: Path) -> None:
    child, (adopted, disowned) = family_of("sys.exit()", tmp_path)
    child.adopt(adopted)
    child.adopt(disowned)
    child.disown(disowned)
    process.end_all()
    wait_until_gone(adopted)
    assert psutil.pid_exists(disowned)
    os.kill(disowned, signal.SIGKILL)
    child.end()


def test_a_child_that_cannot_be_started_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        process.Child(["./nothing"], cwd=tmp_path)


def test_interrupts_are_heeded_where_the_parent_ignores_them() -> None:
    script = "import signal; from nbsupport.base import process; process.heed_interrupts()\n"
    script += "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    shell = ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    for parent in ([], shell):
        command = [*parent, sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "True\n"


def test_what_is_begun_with_nohup_goes_on_at_a_hang_up() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with process.handling({signal.SIGHUP: lambda *_: None, signal.SIGUSR1: lambda *_: None}):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGUSR1))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_runs_freely_says_how_it_ended_and_ends_at_an_interrupt(tmp_path: Path) -> None:
    assert process.run_freely(["sh", "-c", "exit 3"], cwd=tmp_path) == 3
    assert process.run_freely(["sh", "-c", "kill -SEGV $$"], cwd=tmp_path) == -signal.SIGSEGV
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        process.run_freely(["sh", "-c", "sleep 61 & sleep 62"], cwd=tmp_path)
    family = psutil.Process().children(recursive=True)
    assert not [child for child in family if child.name() == "sleep"]
