"""Executing notebooks: parameters, faults, reuse, interrupts, and what is committed of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import nbformat
import psutil
import pytest
from nbformat import NotebookNode

from nbsupport.base.errors import LabError
from nbsupport.cli import commands
from nbsupport.notebooks import batch, document, recording

PROSE = "# A title\n\nProse."


def cell(source: str, *tags: str, outputs: tuple[NotebookNode, ...] = ()) -> NotebookNode:
    made: NotebookNode = nbformat.v4.new_code_cell(source, outputs=list(outputs))  # type: ignore[no-untyped-call]
    if tags:
        made.metadata["tags"] = list(tags)
    return made


def prose(source: str) -> NotebookNode:
    made: NotebookNode = nbformat.v4.new_markdown_cell(source)  # type: ignore[no-untyped-call]
    return made


def book(*cells: NotebookNode | str) -> NotebookNode:
    made: NotebookNode = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
        cells=[cell(one) if isinstance(one, str) else one for one in cells]
    )
    return made


def write(path: Path, *cells: NotebookNode | str, title: str = PROSE) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(document.dump(book(prose(title), *cells)))
    return path


def printed(path: Path) -> str:
    outputs = [out for one in document.code(document.read(path)) for out in one.outputs]
    return "".join(out.get("text", "") for out in outputs)


# --- What one run does with good and bad notebooks


TAKES = cell(
    'llvm: str | None = "18"\nflag = "-fprofile-use=x"  # a = b\ncount: int = 1\nrun_folder = ""',
    "parameters",
)


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
    done = batch.execute(books, out, given, timeout=8)
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
    """Each notebook looks whether another one is running; the one that measures must find none."""
    monkeypatch.setattr(batch, "ALONE", ("2",))
    here = tmp_path / "running"
    here.mkdir()
    look = (
        f"import os, pathlib, time\nhere = pathlib.Path({str(here)!r})\n"
        "mine = here / str(os.getpid())\nmine.touch()\ntime.sleep(2)\n"
        "seen = len(list(here.iterdir()))\nmine.unlink()\nprint(seen)"
    )
    notebooks = [write(tmp_path / "in" / f"{n}.ipynb", look) for n in range(3)]
    done = batch.execute(notebooks, tmp_path / "run", {}, jobs=3)
    assert [printed(one.path) for one in done if one.notebook == "2"] == ["1\n"]


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
    assert run("19") == ["executed", "executed"]  # the front page depends on the others
    assert printed(made) == "19\n"


def test_failure_is_not_reused(finished: Finished) -> None:
    out, done = finished
    (again,) = batch.execute([out.parent / "notebooks" / "02-fails.ipynb"], out, {})
    assert (again.status, again.fingerprint) == ("failed", done["02-fails"].fingerprint)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["notebooks"]["01-good"]["status"] == "executed"  # others stay in it


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda made: made.cells[1].update(source="y = 2"), id="code"),
        pytest.param(lambda made: made.cells[1].metadata.update(tags=["x"]), id="tags"),
        pytest.param(lambda made: made.cells.append(cell("z")), id="another cell"),
    ],
)
def test_digest_tells_code_apart(change: object) -> None:
    assert callable(change)
    before, after = book(prose(PROSE), "x = 1"), book(prose(PROSE), "x = 1")
    assert document.digest(before, {}) == document.digest(after, {})
    change(after)
    assert document.digest(before, {}) != document.digest(after, {})


def test_digest_tells_parameters_and_surroundings_apart() -> None:
    one = book("x = 1")
    seen = {
        document.digest(one, {"a": 1}),
        document.digest(one, {"a": "1"}),
        document.digest(one, {}, "c"),
    }
    assert len(seen) == 3


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


# --- What is committed


def output(kind: str, **content: object) -> NotebookNode:
    made: NotebookNode = nbformat.v4.new_output(kind, **content)  # type: ignore[no-untyped-call]
    return made


def test_normalize_keeps_code_tags_and_outputs() -> None:
    shown = output("execute_result", data={"text/plain": "1"}, execution_count=7)
    one = cell("1", "kept", outputs=(shown,))
    one.execution_count = 7
    one.metadata["papermill"] = {"duration": 1.5}
    one.metadata["execution"] = {"iopub.status.busy": "2025-01-01T00:00:00Z"}
    whole = book(prose(PROSE), one)
    whole.metadata = {
        "kernelspec": {"name": "other", "display_name": "Mine", "language": "python"},
        "language_info": {"name": "python", "version": "3.11.7"},
        "papermill": {"input_path": "/home/me/x.ipynb"},
        "widgets": {"application/vnd.jupyter.widget-state+json": {}},
    }
    assert json.loads(json.dumps(document.normalize(whole))) == {
        "cells": [
            {"cell_type": "markdown", "id": "cell-1", "metadata": {}, "source": PROSE},
            {
                "cell_type": "code",
                "id": "cell-2",
                "metadata": {"tags": ["kept"]},
                "source": "1",
                "execution_count": 7,
                "outputs": [
                    {
                        "output_type": "execute_result",
                        "data": {"text/plain": "1"},
                        "metadata": {},
                        "execution_count": 7,
                    }
                ],
            },
        ],
        "metadata": {
            "kernelspec": {
                "name": "python3",
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
            },
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def test_normalize_merges_streams_between_displays() -> None:
    stream = [output("stream", name=name, text=text) for name, text in ("e1", "o2", "e3", "o4")]
    for one in stream:
        one.name = {"e": "stderr", "o": "stdout"}[one.name]
    shown = output("display_data", data={"text/plain": "x"})
    (made,) = document.normalize(book(cell("", outputs=(*stream, shown, stream[1])))).cells
    assert [(o.get("name"), o.get("text")) for o in made.outputs] == [
        ("stdout", "24"),
        ("stderr", "13"),
        (None, None),
        ("stdout", "2"),
    ]


def test_normalize_drops_widget_views() -> None:
    view = {"model_id": "random"}
    alone = output("display_data", data={document.WIDGET: view})
    both = output("display_data", data={document.WIDGET: view, "text/html": "<b>twin</b>"})
    (made,) = document.normalize(book(cell("", outputs=(alone, both)))).cells
    assert [o.data for o in made.outputs] == [{"text/html": "<b>twin</b>"}]


def test_normalize_changes_nothing_twice_and_not_its_argument() -> None:
    given = book(prose(PROSE), cell("x", outputs=(output("stream", name="stdout", text="x"),)))
    before = json.dumps(given)
    once = document.normalize(given)
    assert json.dumps(given) == before
    assert document.normalize(once) == once


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("at /home/me/x.c:3", ["/home/me/x.c:3"]),
        ("'/srv/pgo-lab-1/run.profraw'", ["/srv/pgo-lab-1/run.profraw"]),
        ("/Users/me/t, /root/a", ["/Users/me/t,", "/root/a"]),
        ("lib/home/x ~/tmp/y a/b 1/2 </tmp> https://example.org/home/x", []),
    ],
)
def test_machine_paths(text: str, found: list[str]) -> None:
    shown = output("stream", name="stdout", text=text)
    html = output("display_data", data={"text/html": text, "image/png": "/root/base64"})
    assert [path for _, path in document.machine_paths(book(cell("", outputs=(shown,))))] == found
    assert [path for _, path in document.machine_paths(book(cell("", outputs=(html,))))] == found


def test_refresh_twice_is_the_same_bytes(tmp_path: Path) -> None:
    cells = (
        TAKES,
        "import sys; print(llvm); print('e', file=sys.stderr); print('o')",
        "import ipywidgets; ipywidgets.IntSlider()",
    )
    path = write(tmp_path / "books" / "x.ipynb", *cells)
    (done,) = recording.refresh([path])
    assert done.status == "executed"
    first, when = path.read_bytes(), path.stat().st_mtime_ns
    assert b"injected-parameters" not in first
    assert printed(path) == "18\no\ne\n"
    failing = write(tmp_path / "books" / "y.ipynb", "1 / 0")
    before = failing.read_bytes()
    assert commands.main(["dev", "refresh", str(tmp_path / "books")]) == 3
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (first, when)
    assert failing.read_bytes() == before


def test_refresh_refuses_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "books" / "x.ipynb", "print('/home/me/y')")
    before = path.read_bytes()
    assert commands.main(["dev", "refresh", str(path)]) == 2
    assert "x.ipynb: cell 2 shows the path /home/me/y; print names" in capsys.readouterr().err
    assert path.read_bytes() == before
