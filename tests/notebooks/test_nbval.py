"""The committed notebooks: executed, normal, and true, whatever output of theirs is altered."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from nbsupport.notebooks import document

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RULES = dict(
    re.findall(
        r"^regex: (.*)\nreplace: (.*)$",
        (ROOT / "tests/notebooks/sanitize.cfg").read_text(),
        re.MULTILINE,
    )
)
WORD = re.compile(r"[A-Za-z0-9]")

#: Cells whose outputs nbval does not compare: measurements, other ones on each run.
IGNORED = {
    # How many runs of a race die.
    ("06-hypotheses", "raced = races.measure(lab, llvm, 60)\nraces.table(raced)"),
    ("08-pgo-benefit", "if builds:\n    display(benefit.figure(found))"),
    ("08-pgo-benefit", 'keep_table("benefit", found)\nbenefit.table(found)'),
    ("08-pgo-benefit", "if pair:\n    display(benefit.table(benefit.summarize(both, more)))"),
}


def test_only_measurements_are_not_compared() -> None:
    found = {
        (path.stem, cell.source)
        for path in NOTEBOOKS
        for cell in document.code(document.read(path))
        if any("nbval" in tag or tag == "raises-exception" for tag in document.tags(cell))
        or "NBVAL" in cell.source
    }
    assert found == IGNORED


# -- executed and normal


def wrong(text: str, path: Path) -> str:
    """Say what is wrong with the file of a committed notebook, "" for nothing."""
    path.write_text(text)
    found = document.read(path)
    cells = document.code(found)
    numbers = [cell.execution_count for cell in cells if cell.source.strip()]
    if numbers != list(range(1, len(numbers) + 1)):
        return "not executed in order"
    if any(output.output_type == "error" for cell in cells for output in cell.outputs):
        return "failed"
    if shown := document.machine_paths(found):
        return f"shows {shown[0][1]}"
    return "" if document.dump(document.normalize(found)) == text else "not normal"


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_has_ten_lines_and_does_more_than_keep_books(path: Path) -> None:
    for cell in document.code(document.read(path)):
        lines = cell.source.splitlines()
        assert len(lines) <= 10, cell.source
        assert not all(
            line.startswith(("import ", "from ", "keep_table(")) for line in lines if line
        )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebook_is_executed_and_normal(path: Path, tmp_path: Path) -> None:
    assert not wrong(path.read_text(), tmp_path / "copy.ipynb"), "make refresh"


def printing(**outputs: Any) -> Callable[[NotebookNode], None]:
    def change(found: NotebookNode) -> None:
        made = {"output_type": "display_data", "metadata": {}, "data": outputs}
        document.code(found)[-1].outputs.append(nbformat.from_dict(made))  # type: ignore[no-untyped-call]

    return change


def unexecuted(found: NotebookNode) -> None:
    cell = document.code(found)[-1]
    cell.execution_count, cell.outputs = None, []


def twice(found: NotebookNode) -> None:
    document.code(found)[-1].execution_count += 1


def failed(found: NotebookNode) -> None:
    made = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    document.code(found)[-1].outputs.append(nbformat.from_dict(made))  # type: ignore[no-untyped-call]


def timed(found: NotebookNode) -> None:
    document.code(found)[-1].metadata["execution"] = {"iopub.execute_input": "2026-11-22"}


def with_state(found: NotebookNode) -> None:
    found.metadata["widgets"] = {}


EXCERPT = '<figure class="source"><figcaption>f</figcaption><pre>{}</pre></figure>'


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (unexecuted, "not executed in order"),
        (twice, "not executed in order"),
        (failed, "failed"),
        (printing(**{"text/plain": "/home/me/x"}), "shows /home/me/x"),
        (printing(**{document.WIDGET: {"model_id": "1"}, "text/plain": "w"}), "not normal"),
        (printing(**{"text/html": EXCERPT.format("int theirs;")}), "not normal"),
        (printing(**{"text/html": '<pre class="source">int theirs;</pre>'}), "not normal"),
        (timed, "not normal"),
        (with_state, "not normal"),
    ],
)
def test_what_should_not_be_committed_is_seen(
    change: Callable[[NotebookNode], None], said: str, tmp_path: Path
) -> None:
    found = document.read(NOTEBOOKS[1])
    change(found)
    assert wrong(document.dump(found), tmp_path / "copy.ipynb") == said


def test_of_an_excerpt_all_but_the_lines_is_committed() -> None:
    cell = nbformat.v4.new_code_cell("x", outputs=[])  # type: ignore[no-untyped-call]
    book = nbformat.v4.new_notebook(cells=[cell])  # type: ignore[no-untyped-call]
    two = EXCERPT.format("int theirs;\n<b>int marked;</b>")
    printing(**{"text/html": f"{two}<p>ours</p>{two}", "text/plain": "x.c: f"})(book)
    (made,) = document.normalize(book).cells[0].outputs
    note = EXCERPT.format(document.LEFT_OUT)
    assert made.data["text/html"] == f"{note}<p>ours</p>{note}"
    (kept,) = document.normalize(book, excerpts=True).cells[0].outputs
    assert "int theirs;" in kept.data["text/html"]


# -- what nbval sees of an altered output


def command(folder: Path) -> list[str]:
    """Return how `make nbval` runs the notebooks of a folder (it sets PGO_LAB_QUIET, too)."""
    make = ["make", "--no-print-directory", "-n", "nbval"]
    said = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    recipe = re.sub(r"\\\n\s*", "", said).splitlines()[-1]
    quiet, *words, where = shlex.split(recipe)
    assert (quiet, where) == ("PGO_LAB_QUIET=1", "build/solved") and "--nbval" in words
    return ["env", quiet, *words, "-c", "pyproject.toml", str(folder)]


def texts(outputs: list[NotebookNode]) -> Iterator[tuple[NotebookNode, str]]:
    """Yield what there is to alter: where it is, and under which key."""
    for output in outputs:
        if output.output_type == "stream":
            yield output, "text"
        for kind in output.get("data", {}):
            yield output.data, kind


def spans(text: str) -> list[tuple[int, int]]:
    """Return what of a text the rules replace; of an excerpt, its lines."""
    found = []
    for rule in RULES:
        for match in re.finditer(rule, text):
            found.append((match.end(1), match.start(3)) if match.re.groups else match.span())
    return found


def is_replaced(text: str, at: int) -> bool:
    return any(begin <= at < end for begin, end in spans(text))


def alter(text: str, at: int) -> str:
    return text[:at] + ("x" if text[at] != "x" else "y") + text[at + 1 :]


class Collected:
    """A plug-in that keeps the cells that nbval would run."""

    def __init__(self) -> None:
        self.cells: list[Any] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.cells = session.items


@pytest.fixture(scope="module")
def cells() -> list[Any]:
    """Return the cells of all committed notebooks as nbval has them, ready to compare."""
    words = command(ROOT / "notebooks")
    options = [word for word in words[words.index("--nbval") :] if word != "-n"]
    seen = Collected()
    code = pytest.main([*options, "--collect-only", "-q", "-p", "no:cacheprovider"], plugins=[seen])
    assert code == 0
    for cell in seen.cells:
        cell.parent.setup_sanitize_files()
        cell.format_output_compare = lambda *_: None  # seconds, for a figure
    return [cell for cell in seen.cells if cell.options["check"]]


def test_any_wrong_text_is_noticed(cells: list[Any]) -> None:
    altered = 0
    for cell in cells:
        original = cell.cell.outputs
        assert cell.compare_outputs(original, original)
        for n, (_, key) in enumerate(texts(original)):
            outputs = copy.deepcopy(original)
            place, _ = list(texts(outputs))[n]
            if key in ("image/png", "image/jpeg"):
                continue
            text = place[key]
            if not isinstance(text, str):  # a claim, a table
                place[key] = {**text, "altered": True}
                assert not cell.compare_outputs(original, outputs), (cell.nodeid, key)
                continue
            for begin in range(0, len(text), len(text) // 12 + 1):
                at = WORD.search(text, begin)
                if at and not is_replaced(text, at.start()):
                    place[key] = alter(text, at.start())
                    altered += 1
                    assert not cell.compare_outputs(original, outputs), (cell.nodeid, place[key])
    assert altered > 1000


def test_a_rule_replaces_what_it_is_for_and_nothing_else(cells: list[Any]) -> None:
    where: dict[str, set[str]] = {rule: set() for rule in RULES}
    for cell in cells:
        for place, key in texts(cell.cell.outputs):
            text = place[key] if isinstance(place[key], str) else json.dumps(place[key])
            for rule in RULES:
                if re.search(rule, text):
                    call = re.search(r"\w+\.\w+(?=\(|\)$)", cell.cell.source)
                    where[rule].add(call[0] if call else cell.cell.source)
    assert list(where.values()) == [
        {"runtime.excerpt", "other.difference"},
        {"runtime.provenance"},
        {"workarounds.show_costs"},
        {"with_heap.get"},
    ]


# -- and in a run


def alter_all(path: Path, folder: Path) -> set[str]:
    """Write a copy with each plain text and claim altered; return the names of the cells to fail.

    Not the HTML: of a figure, pytest takes minutes to say how it differs.
    """
    found, names = document.read(path), set()
    for n, cell in enumerate(document.code(found)):
        if (path.stem, cell.source) in IGNORED:
            continue
        for place, key in texts(cell.outputs):
            if key in ("text", "text/plain"):
                text = place[key]
                at = [m.start() for m in WORD.finditer(text) if not is_replaced(text, m.start())]
                place[key] = alter(text, at[len(at) // 2])
                names.add(f"{path.stem} Cell {n}")
            elif not isinstance(place[key], str):  # a claim, a table
                place[key]["altered"] = True
                names.add(f"{path.stem} Cell {n}")
    (folder / path.name).write_text(document.dump(found))
    return names


def failing(folder: Path) -> set[str]:
    """Run a folder of notebooks as `make nbval` does; return the names of cells that failed."""
    report = folder / "report.xml"
    done = subprocess.run(
        [*command(folder), f"--junitxml={report}", "-p", "no:cacheprovider", "--tb=no", "-q"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "plugin exception" not in done.stdout  # it could not say how they differ
    cases = ET.parse(report).iter("testcase")  # noqa: S314 - our own
    return {
        f"{case.get('classname', '').rpartition('.')[0].rpartition('.')[2]} {case.get('name')}"
        for case in cases
        if case.find("failure") is not None
    }


@pytest.mark.parametrize(
    "paths",
    [NOTEBOOKS[3:4], pytest.param(NOTEBOOKS, marks=pytest.mark.slow)],
    ids=["03", "all"],
)
def test_altered_cells_fail_and_no_others(paths: list[Path], tmp_path: Path) -> None:
    altered = {name for path in paths for name in alter_all(path, tmp_path)}
    assert len(altered) >= 5 * len(paths)
    assert failing(tmp_path) == altered
