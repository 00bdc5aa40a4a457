"""`pgo-lab run`: a grid of parameters, a run that is killed, and going on with it."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pandas as pd
import psutil
import pytest

from nbsupport.base import process, progress
from nbsupport.base.errors import LabError
from nbsupport.notebooks import batch, document, results
from tests.support.notebooks import CODE, PARAMETERS, cell, write

GRID = ("--llvm=18", "--llvm=19", "--foreign=17", "--foreign=23", "-o")


def pgo_lab(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("pgo-lab")), "run", *map(str, arguments)]
    quiet = ("PYTEST_CURRENT_TEST", progress.QUIET)
    env = {name: value for name, value in process.environment({}).items() if name not in quiet}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True)


def run(*arguments: str | Path) -> tuple[int, str]:
    child = pgo_lab(*arguments)
    out, err = child.communicate(timeout=300)
    return child.returncode, out + err


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("books")
    front = (
        cell("run_folder: str = 'recorded'", "parameters"),
        "from pathlib import Path\nprint(len(list(Path(run_folder, 'notebooks').glob('0[12]*'))))",
    )
    fixed = cell('llvm: str = "19"', "parameters"), "foreign, steps = '0', 0", CODE
    return [
        write(folder / "00-start-here.ipynb", *front),
        write(folder / "01-plain.ipynb", cell(PARAMETERS, "parameters"), CODE),
        write(folder / "02-fixed.ipynb", *fixed),
    ]


@pytest.fixture(scope="module")
def grid(books: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the notebooks x two LLVMs x two foreign ones."""
    out = tmp_path_factory.mktemp("runs") / "grid"
    code, said = run(*books, *GRID, out)
    assert code == 0, said
    assert "executing 7 notebooks" in said
    assert "6 left, about" in said
    return out


def tables(out: Path) -> dict[str, list[str]]:
    """Return a run's tables as sorted rows of text."""
    found = {path.stem: pd.read_parquet(path) for path in out.glob("*.parquet")}
    return {
        name: sorted(json.dumps(row, sort_keys=True) for row in table.to_dict("records"))
        for name, table in found.items()
    }


def test_each_combination_that_a_notebook_declares_is_a_cell(grid: Path) -> None:
    names = sorted(path.stem for path in (grid / "notebooks").glob("*.ipynb"))
    plain = [f"01-plain--{main}-{other}" for main in (18, 19) for other in (17, 23)]
    assert names == ["00-start-here", *plain, "02-fixed--18", "02-fixed--19"]
    (front,) = document.code(document.read(grid / "notebooks" / "00-start-here.ipynb"))[-1:]
    assert front.outputs[0].text == "12\n"  # of 6 cells, each with its note: they came before


def test_tables_of_all_cells_are_one_that_says_of_which(grid: Path) -> None:
    found = results.read(grid)
    seen = found.tables["seen"]
    assert len(seen) == len(found.claims) == 6
    at = pd.DataFrame(list(map(json.loads, seen["at"])))
    assert list(at["llvm"]) == list(seen["main"])
    assert set(found.claims["notebook"]) == {"01-plain", "02-fixed"}
    names = sorted(path.name for path in grid.iterdir() if path.name[0] != ".")
    assert names == ["claims.parquet", "manifest.json", "notebooks", "seen.parquet"]


def test_the_manifest_says_what_was_asked_and_with_what(grid: Path) -> None:
    manifest = json.loads((grid / "manifest.json").read_text())
    assert manifest["arguments"]["parameters"] == {"llvm": ["18", "19"], "foreign": ["17", "23"]}
    entry = manifest["notebooks"]["01-plain--19-23"]
    assert entry["parameters"] == {"llvm": "19", "foreign": "23"}
    assert (entry["notebook"], entry["status"]) == ("01-plain", "executed")
    assert all(len(one["digest"]) == 16 for one in manifest["toolchains"])


def test_a_finished_run_is_resumed_without_executing_anything(
    books: list[Path], grid: Path
) -> None:
    before = tables(grid)
    for same in (["-o"], [*books, *GRID]):
        code, said = run(*same, grid, "--resume")
        assert (code, said.count(": reused")) == (0, 7), said
        assert tables(grid) == before
    code, said = run(*books, "--llvm=19", "--llvm=20", "-o", grid, "--resume")
    why = f"the run in {grid} was begun otherwise (llvm 18 only there; llvm 20 only here)"
    assert said == f"pgo-lab: --resume: {why}; give the same arguments, or -o alone\n"
    assert code == 2


def test_parameters_have_the_types_of_the_notebook(books: list[Path], tmp_path: Path) -> None:
    done = batch.execute(books[1:2], tmp_path, {"steps": ["2", "3"], "grid": r"4,5"})
    assert [one.parameters["steps"] for one in done] == [2, 3]
    assert [one.cell for one in done] == ["01-plain--2", "01-plain--3"]


@pytest.mark.parametrize(("text", "value"), [("false", False), ("True", True), ("0", False)])
def test_a_truth_is_written_as_people_write_it(tmp_path: Path, text: str, value: bool) -> None:
    flag = write(tmp_path / "01-flag.ipynb", cell("flag: bool = True", "parameters"))
    (done,) = batch.execute([flag], tmp_path / "run", {"flag": text})
    assert done.parameters["flag"] is value


def test_another_grid_in_the_same_folder_leaves_the_old_cells_out(
    books: list[Path], tmp_path: Path
) -> None:
    batch.execute(books[1:], tmp_path, {"llvm": ["18", "19"]})
    batch.execute(books[1:2], tmp_path, {"llvm": ["19"]})
    found = results.collect(tmp_path)
    assert list(found.manifest["notebooks"]) == ["01-plain", "02-fixed--18", "02-fixed--19"]
    assert len(found.tables["seen"]) == 3


# -- bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["-p", "stride=3"],
            "parameter stride: none of these notebooks has it; choose from: foreign, grid",
        ),
        (["-p", "steps=three"], "parameter steps: 'three' is no int; give a int"),
        (["-p", "steps"], "-p steps: not NAME=VALUE; give it as -p NAME=A,B"),
        (["-p", "=3"], "-p =3: not NAME=VALUE"),
    ],
)
def test_a_bad_parameter_is_one_line(
    books: list[Path], tmp_path: Path, arguments: list[str], said: str
) -> None:
    code, text = run(*books, *arguments, "-o", tmp_path / "run")
    assert (code, text.count("\n")) == (2, 1)
    assert said in text
    assert not (tmp_path / "run").exists()


def test_a_comma_may_be_in_a_value(books: list[Path], tmp_path: Path) -> None:
    assert run(books[1], "-p", r"grid=1\,2,3", "-o", tmp_path / "run")[0] == 0
    there = sorted(path.stem for path in (tmp_path / "run" / "notebooks").glob("*.ipynb"))
    assert there == ["01-plain--1_2", "01-plain--3"]


def test_a_folder_with_strangers_is_left_alone(books: list[Path], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(LabError, match=r"not a run's folder, and not empty; choose another"):
        batch.execute(books, tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_resuming_nothing_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"no run there; begin one: pgo-lab run -o"):
        batch.resume(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"arguments": {"notebooks": 3}}'])
def test_a_corrupt_manifest_loses_nothing_that_is_finished(
    books: list[Path], tmp_path: Path, text: str
) -> None:
    batch.execute(books[1:2], tmp_path, {})
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(LabError, match="run it again with its arguments: what is finished is kept"):
        batch.resume(tmp_path)
    assert [one.status for one in batch.execute(books[1:2], tmp_path, {})] == ["reused"]


# -- killed


def killed_and_resumed(books: list[Path], out: Path, moment: float) -> str:
    """Kill a run after so many seconds, go on with it; return what the second one said."""
    child = pgo_lab(*books, *GRID, out)
    time.sleep(moment)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    resume = ["--resume"] if (out / "manifest.json").is_file() else []
    code, said = run(*books, *GRID, out, *resume)
    assert code == 0, said
    return said


def check_kills(books: list[Path], grid: Path, folder: Path, times: int) -> None:
    """Kill as many runs, each at a moment of its own share of the time that the whole took."""
    manifest = json.loads((grid / "manifest.json").read_text())
    began, ended = (datetime.fromisoformat(manifest[key]) for key in ("started", "finished"))
    share = ((ended - began).total_seconds() + 2) / times  # two to start, and to end
    rng = random.Random(times)  # noqa: S311 - not for secrets
    for number in range(times):
        out = folder / str(number)
        said = killed_and_resumed(books, out, (number + rng.random()) * share)
        assert tables(out) == tables(grid), said
        assert not list(out.glob(".work-*"))


def test_a_run_killed_before_its_first_notebook_ended_goes_on(
    books: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    child = pgo_lab(books[1], "-p", "steps=2", "-o", out)
    deadline = time.monotonic() + 60
    while not (out / "manifest.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.kill()
    child.communicate()
    assert not (out / "notebooks").exists()
    code, said = run(books[1], "-p", "steps=2", "-o", out, "--resume")
    assert (code, said.count("01-plain: executed")) == (0, 1), said
    assert pd.read_parquet(out / "seen.parquet")["steps"].tolist() == [2]


def test_a_killed_run_goes_on_to_the_same_tables(
    books: list[Path], grid: Path, tmp_path: Path
) -> None:
    check_kills(books, grid, tmp_path, 1)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_to_the_same_tables(
    books: list[Path], grid: Path, tmp_path: Path
) -> None:
    check_kills(books, grid, tmp_path, 20)


def is_kernel(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "ipykernel_launcher" in process.cmdline()
    return False


def test_a_killed_run_leaves_no_process_behind(tmp_path: Path) -> None:
    waits = write(tmp_path / "01-waits.ipynb", "import time\ntime.sleep(120)")
    child = pgo_lab(waits, "-o", tmp_path / "run")
    family: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    try:
        while not any(is_kernel(member) for member in family):
            assert time.monotonic() < deadline
            time.sleep(0.05)
            family = psutil.Process(child.pid).children(recursive=True)
    finally:
        child.kill()
        child.communicate()
    _, left = psutil.wait_procs(family, timeout=20)
    assert not left
