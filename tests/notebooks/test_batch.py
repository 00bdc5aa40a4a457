"""Executing notebooks: parameters, faults, reuse, interrupts, and going on with a run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import psutil
import pytest

from nbsupport.base import progress, settings
from nbsupport.base.errors import LabError
from nbsupport.notebooks import batch, document
from nbsupport.notebooks.worker import NotebookJob, Workers
from tests.support.notebooks import TAKES, cell, printed, write


class Instant(Workers):
    """Executes nothing: what comes out is what went in; `work` does something meanwhile."""

    def __init__(self, work: Callable[[NotebookJob], object] = lambda _: None) -> None:
        self.work = work

    def execute(self, job: NotebookJob) -> str | None:
        shutil.copy(job.folder / "input.ipynb", job.folder / "output.ipynb")
        self.work(job)
        return None

    def stop(self) -> None:
        pass


# --- What one run does with good and bad notebooks


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, dict[str, batch.Done]]]:
    folder = tmp_path_factory.mktemp("books {x}")  # papermill would take {x} for a parameter
    source, out = folder / "notebooks", folder / "run"
    show = "import os; print(repr((llvm, flag, count)), os.getcwd(), os.environ['PGO_LAB_QUIET'])"
    tell = "import json, pathlib\nprint(sorted(p.name for p in pathlib.Path(run_folder).glob('notebooks/*')))"
    books = [
        write(source / "00-start-here.ipynb", cell("run_folder = ''", "parameters"), tell),
        write(source / "01-good.ipynb", TAKES, show),
        write(source / "02-fails.ipynb", "x = 1", "raise ValueError('no \\x1b[31mgood')", "x = 2"),
        write(source / "03-dies.ipynb", "1", "import os; os.kill(os.getpid(), 9)"),
        write(source / "04-hangs.ipynb", "import time; time.sleep(1000)"),
    ]
    given = {"llvm": "18.10", "count": "3", "foreign": "not passed on"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "TIMEOUT", 8.0)
        done = batch.execute(books, out, given)
    assert [one.notebook for one in done] == [path.stem for path in books]
    yield out, {one.notebook: one for one in done}


Finished = tuple[Path, dict[str, batch.Done]]


def test_declared_parameters_arrive_typed(finished: Finished) -> None:
    done = finished[1]["01-good"]
    assert (done.status, done.error) == ("executed", None)
    folder = finished[0].parent / "notebooks"
    assert printed(done.path) == f"('18.10', '-fprofile-use=x', 3) {folder} 1\n"
    assert "not passed on" not in done.path.read_text()


def test_failure_is_told_and_kept(finished: Finished) -> None:
    done = finished[1]["02-fails"]
    assert (done.status, done.error) == ("failed", "cell 2: ValueError: no good")
    tags = [document.tags(one) for one in document.read(done.path).cells]
    assert (document.PAPERMILL_ERROR,) in tags


def test_dead_kernel_fails_its_notebook_only(finished: Finished) -> None:
    assert finished[1]["03-dies"].error == "cell 2: the kernel died"


def test_cell_over_its_time_fails_its_notebook_only(finished: Finished) -> None:
    assert finished[1]["04-hangs"].error == "cell 1: not done after 8 s"


def test_last_notebook_sees_what_the_others_left(finished: Finished) -> None:
    seen = printed(finished[1]["00-start-here"].path)
    for name in ("01-good", "02-fails", "03-dies", "04-hangs"):
        assert f"{name}.ipynb" in seen


def test_what_measures_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "ALONE", ("2",))
    running: list[str] = []
    most: dict[str, int] = {}

    def work(job: NotebookJob) -> None:
        running.append(job.folder.name)
        time.sleep(0.3)
        most[job.folder.name] = len(running)
        running.remove(job.folder.name)

    notebooks = [write(tmp_path / "in" / f"{n}.ipynb", "1") for n in range(4)]
    batch.execute(notebooks, tmp_path / "run", {}, jobs=4, executor=Instant(work))
    assert most["2"] == 1
    assert max(most.values()) == 3


def test_one_bar_says_what_is_executed_and_how_long_all_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, lines, moments = [100.0], list[str](), list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress, "say", lines.append)
    bars: list[Callable[[], str]] = []

    @contextlib.contextmanager
    def bar(what: str, total: int, now: Callable[[], str]) -> Iterator[Callable[[], None]]:
        assert total == 4
        bars.append(now)
        yield lambda: None

    def work(job: NotebookJob) -> None:
        clock[0] += 5
        moments.append(bars[0]())
        clock[0] += {"a": 5, "b": 15, "c": 5, "d": 5}[job.folder.name]

    monkeypatch.setattr(progress, "bar", bar)
    notebooks = [write(tmp_path / "in" / f"{name}.ipynb", "1") for name in "abcd"]
    batch.execute(notebooks, tmp_path / "run", {}, jobs=1, executor=Instant(work))
    # At first as usual, then at this machine's pace; less what the one that runs has taken.
    left = ("a; about 115 s left", "b; about 25 s left", "c; about 25 s left", "d; about 8 s left")
    assert moments == [*left]
    assert lines[1:] == [
        "  a: executed in 10.0 s (3 left, about 30 s)",
        "  b: executed in 20.0 s (2 left, about 30 s)",
        "  c: executed in 10.0 s (1 left, about 13 s)",
        "  d: executed in 10.0 s",
    ]


def test_a_bar_that_asks_while_a_line_is_said_waits_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars, stuck = list[Callable[[], str]](), list[bool]()

    @contextlib.contextmanager
    def bar(what: str, total: int, now: Callable[[], str]) -> Iterator[Callable[[], None]]:
        bars.append(now)
        yield lambda: None

    def say(line: str) -> None:  # as rich does: its own thread draws, and a line waits for it
        drawing = threading.Thread(target=bars[0], daemon=True) if bars else threading.Thread()
        drawing.start()
        drawing.join(2)
        stuck.append(drawing.is_alive())

    monkeypatch.setattr(progress, "bar", bar)
    monkeypatch.setattr(progress, "say", say)
    notebooks = [write(tmp_path / "in" / f"{name}.ipynb", "1") for name in "ab"]
    batch.execute(notebooks, tmp_path / "run", {}, jobs=1, executor=Instant())
    assert stuck == [False] * 3


def test_the_first_is_first_then_the_front_tells_of_it_and_the_longest_is_last(
    tmp_path: Path,
) -> None:
    begun, filled = list[str](), list[int]()  # 0: nothing is being made any more
    first = ("00-start-here", "01-reproduction", "02-lldb-trace", "07-workarounds")
    names = (*first, *batch.ALONE)
    notebooks = [write(tmp_path / "in" / f"{name}.ipynb", "1") for name in names]
    executor = Instant(lambda job: begun.append(job.folder.name))
    out = tmp_path / "run"

    class Filling:
        def fill(self) -> None:
            manifest = json.loads((out / "manifest.json").read_text())
            assert manifest["finished"] is None
            filled.append(len(manifest["notebooks"]))

        def settle(self) -> None:
            filled.append(0)

    def run() -> list[str]:
        begun.clear()
        done = batch.execute(notebooks, out, {}, jobs=1, executor=executor, filling=Filling())
        assert [one.notebook for one in done] == [*names]
        return begun

    middle = ["02-lldb-trace", "07-workarounds", *batch.ALONE]
    assert run() == ["01-reproduction", "00-start-here", *middle, "00-start-here"]
    assert filled == [2, 3, 4, 0]
    filled.clear()
    assert run() == []
    assert filled == [0]  # nothing to do, nothing to show


def test_a_run_that_goes_on_has_its_front_early_too(tmp_path: Path) -> None:
    begun = list[str]()
    names = ("00-start-here", "01-reproduction", "02-lldb-trace", "03-record-layout")
    notebooks = [write(tmp_path / "in" / f"{name}.ipynb", "1") for name in names]
    executor = Instant(lambda job: begun.append(job.folder.name))
    out = tmp_path / "run"

    class Filling:
        def fill(self) -> None:
            begun.append("site")

        def settle(self) -> None:
            pass

    def run(books: list[Path]) -> list[str]:
        begun.clear()
        batch.execute(books, out, {}, jobs=1, executor=executor, filling=Filling())
        return begun

    run(notebooks[:2])
    assert run(notebooks) == [*("03-record-layout", "00-start-here", "site", "02-lldb-trace"), "site",
                              "00-start-here"]  # fmt: skip
    # With one notebook to execute it comes at the end alone.
    write(notebooks[2], "2")
    assert run(notebooks) == ["02-lldb-trace"]


def test_of_a_grid_the_front_is_early_once(tmp_path: Path) -> None:
    begun = list[str]()
    write(tmp_path / "in" / "00-start-here.ipynb", "1")
    write(tmp_path / "in" / "01-reproduction.ipynb", TAKES)
    write(tmp_path / "in" / "02-lldb-trace.ipynb", TAKES)

    def work(job: NotebookJob) -> None:
        begun.append(job.folder.name)
        time.sleep(0.1)  # so that several end at a time

    class Filling:
        def fill(self) -> None:
            pass

        def settle(self) -> None:
            begun.append("settled")

    notebooks = sorted((tmp_path / "in").glob("*.ipynb"))
    values = {"llvm": [str(n) for n in range(17, 23)]}
    executor = Instant(work)
    batch.execute(notebooks, tmp_path / "run", values, jobs=6, executor=executor, filling=Filling())
    early = begun[: begun.index("settled")]
    assert early.count("00-start-here") == 1 and len(early) == 13


def test_without_a_site_the_front_is_executed_once(tmp_path: Path) -> None:
    begun = list[str]()
    names = ("00-start-here", "01-reproduction")
    notebooks = [write(tmp_path / "in" / f"{name}.ipynb", "1") for name in names]
    executor = Instant(lambda job: begun.append(job.folder.name))
    batch.execute(notebooks, tmp_path / "run", {}, jobs=1, executor=executor)
    assert begun == ["01-reproduction", "00-start-here"]


def test_manifest_tells_of_each(finished: Finished) -> None:
    manifest = json.loads((finished[0] / "manifest.json").read_text())
    assert {name: entry["status"] for name, entry in manifest["notebooks"].items()} == {
        "00-start-here": "executed",
        "01-good": "executed",
        "02-fails": "failed",
        "03-dies": "failed",
        "04-hangs": "failed",
    }
    assert manifest["finished"] >= manifest["started"]
    assert manifest["arguments"]["parameters"] == {
        "llvm": ["18.10"],
        "count": [3],
        "foreign": ["not passed on"],
    }


def test_nothing_else_is_left(finished: Finished) -> None:
    there = {path.name for path in finished[0].iterdir()} - {".lock"}
    assert there == {"notebooks", "manifest.json"}
    assert len(list((finished[0] / "notebooks").iterdir())) == 10


# --- Reuse


def test_only_what_changed_is_executed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    front = write(tmp_path / "books" / "00-start-here.ipynb", "0")
    other = write(tmp_path / "books" / "01-a.ipynb", TAKES, "print(llvm)")
    made = out / "notebooks" / "01-a.ipynb"

    def run(llvm: str) -> list[str]:
        return [one.status for one in batch.execute([front, other], out, {"llvm": llvm})]

    assert run("18") == ["executed", "executed"]
    before = made.read_bytes(), made.stat().st_mtime_ns
    assert run("18") == ["reused", "reused"]
    assert (made.read_bytes(), made.stat().st_mtime_ns) == before
    write(other, TAKES, "print(llvm)", title="# Another title")
    assert run("18") == ["reused", "reused"]
    assert document.read(made).cells[0].source == "# Another title"
    assert printed(made) == "18\n"
    assert run("19") == ["reused", "executed"]
    assert printed(made) == "19\n"
    # What the others claim and record, the front page depends on.
    write(other, TAKES, f"display({{{document.CLAIM!r}: {{'name': llvm}}}}, raw=True)")
    assert run("19") == run("18") == ["executed", "executed"]
    assert run("18") == ["reused", "reused"]


def test_failure_is_not_reused(finished: Finished) -> None:
    out, done = finished
    (again,) = batch.execute([out.parent / "notebooks" / "02-fails.ipynb"], out, {})
    assert (again.status, again.fingerprint) == ("failed", done["02-fails"].fingerprint)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["notebooks"]["01-good"]["status"] == "executed"  # others stay in it


def test_another_code_or_other_data_execute_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(name: str, **changes: str) -> str:
        """Return the digest of a project of three files, some of them changed."""
        contents = {"package/a/a.py": "1", "data/b.toml": "1", "data/site/c.css": "1"}
        for path, content in (contents | changes).items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        monkeypatch.setattr(batch, "__file__", str(tmp_path / name / "package/notebooks/batch.py"))
        monkeypatch.setattr(settings, "data_dir", lambda: tmp_path / name / "data")
        return batch.own_digest()

    before = digest("before")
    assert digest("same") == before
    assert digest("site", **{"data/site/c.css": "2"}) == before
    assert digest("compiled", **{"data/__pycache__/x.pyc": "2"}) == before
    for path in ("package/a/a.py", "data/b.toml", "package/new.py", "data/new.toml"):
        assert digest(path.replace("/", "-"), **{path: "2"}) != before


# --- Going on with a run


@pytest.fixture
def begun(tmp_path: Path) -> tuple[list[Path], Path]:
    """Return two notebooks, and the folder of a run of them that was ended at its beginning."""
    books, out = [write(tmp_path / "books" / f"{n}.ipynb", TAKES) for n in "ab"], tmp_path / "run"

    def work(job: NotebookJob) -> None:
        assert job
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        values = {"llvm": ["18", "19"], "count": ["1"]}
        batch.execute(books, out, values, executor=Instant(work))
    return books, out


def test_what_was_begun_is_known_before_anything_is_executed(
    begun: tuple[list[Path], Path],
) -> None:
    out = begun[1]
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["notebooks"], manifest["finished"]) == ({}, None)
    assert not (out / "notebooks").exists()
    cells = [done.cell for done in batch.resume(out, executor=Instant())]
    assert cells == ["a--18", "a--19", "b--18", "b--19"]


@pytest.mark.parametrize(
    ("names", "values", "different"),
    [
        ("", {}, ""),
        ("ab", {"llvm": ["18", "19"], "count": ["1"]}, ""),
        ("ba", {"llvm": ["19", "18"]}, ""),
        ("a", {}, "notebooks {}/b.ipynb only there"),
        ("", {"llvm": ["19", "20"]}, "llvm 18 only there; llvm 20 only here"),
        ("", {"count": ["2"]}, "count 1 only there; count 2 only here"),
        ("", {"foreign": ["17"]}, "foreign 17 only here"),
    ],
)
def test_the_same_arguments_are_taken_and_others_refused(
    begun: tuple[list[Path], Path], names: str, values: dict[str, object], different: str
) -> None:
    books, out = begun
    folder, before = books[0].parent, (out / "manifest.json").read_bytes()
    notebooks = [folder / f"{name}.ipynb" for name in names]
    if not different:
        assert len(batch.resume(out, notebooks, values, executor=Instant())) == 4
        return
    with pytest.raises(LabError) as caught:
        batch.resume(out, notebooks, values, executor=Instant())
    why = f"the run in {out} was begun otherwise ({different.format(folder)})"
    assert str(caught.value) == f"--resume: {why}; give the same arguments, or -o alone"
    assert (out / "manifest.json").read_bytes() == before


# --- Bad input, two at once, interrupts


def test_missing_notebook_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"nope\.ipynb: No such file.*give the path of a notebook"):
        batch.execute([tmp_path / "nope.ipynb"], tmp_path / "run", {})


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"cells": 1, "nbformat": 4}', "\0"])
def test_something_else_is_not_a_notebook(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(content)
    with pytest.raises(LabError, match="not a notebook"):
        batch.execute([path], tmp_path / "run", {})


def test_a_file_is_no_folder_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(LabError, match="File exists"):
        batch.execute([write(tmp_path / "b" / "x.ipynb", "1")], tmp_path / "run", {})


def test_two_runs_into_one_folder_refuse_each_other(tmp_path: Path) -> None:
    path = write(tmp_path / "books" / "x.ipynb", "1")
    out = tmp_path / "run"
    out.mkdir()
    with filelock.FileLock(out / ".lock"), pytest.raises(LabError, match="another run is writing"):
        batch.execute([path], out, {})
    assert not (out / "notebooks").exists()


def test_interrupt_ends_all_and_keeps_what_is_done(tmp_path: Path) -> None:
    out = tmp_path / "run"
    mark = f"{os.getpid()}.25"  # seconds to sleep, found again in the list of processes
    books = [
        write(tmp_path / "books" / "quick.ipynb", "1"),
        write(
            tmp_path / "books" / "slow.ipynb",
            "import subprocess, tempfile; from pathlib import Path",
            "from nbsupport.base import process, settings; long = settings.Limits(seconds=1000)",
            f"left = subprocess.Popen(['sleep', '{mark}'], start_new_session=True)",
            "Path('slow').touch()",
            "with tempfile.TemporaryDirectory(dir='.', prefix='half') as half:\n"
            f"    process.run(['sleep', '{mark}'], cwd=Path(half), limits=long)",
        ),
        write(
            tmp_path / "books" / "stubborn.ipynb",
            "import signal, subprocess, pathlib; signal.signal(signal.SIGINT, signal.SIG_IGN)",
            "pathlib.Path('stubborn').touch()",
            f"subprocess.run(['sleep', '{mark}'], start_new_session=True)",
        ),
    ]
    code = "import sys; from pathlib import Path; from nbsupport.notebooks import batch\n"
    code += "batch.execute([Path(p) for p in sys.argv[2:]], Path(sys.argv[1]), {}, jobs=3)"
    run = subprocess.Popen(
        [sys.executable, "-c", code, out, *books], stderr=subprocess.PIPE, text=True
    )
    waited_for = [
        out / "notebooks" / "quick.json",
        *(tmp_path / "books" / n for n in ("slow", "stubborn")),
    ]
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in waited_for) or len(_sleeping(mark)) < 3:
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.1)
    family = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=20)[1]
    assert "KeyboardInterrupt" in said
    assert not _sleeping(mark)
    assert not list((tmp_path / "books").glob("half*"))
    assert not [process for process in family if _running(process)]
    assert {path.name for path in (out / "notebooks").iterdir()} == {"quick.ipynb", "quick.json"}
    assert {path.name for path in out.iterdir()} - {".lock"} == {"notebooks", "manifest.json"}
    assert list(json.loads((out / "manifest.json").read_text())["notebooks"]) == ["quick"]


def _running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _sleeping(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [])[:2] == ["sleep", mark]:
            found.append(process.pid)
    return found
