"""CONTRIBUTING.md is followed: its entries are added to a copy of the data, and tried."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from nbsupport.base import settings
from nbsupport.lab import cases, programs
from nbsupport.lab.lab import Lab
from nbsupport.notebooks import exercises, results
from nbsupport.studies import hypotheses, mechanisms, workarounds

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
ENTRIES = [
    (where, re.sub(r"(?m)^ {3}", "", entry))
    for where, entry in re.findall(r"(?ms)^ *```toml\n *# (\S+)\n(.*?)^ *```", GUIDE)
]


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the data with every entry of the guide added."""
    folder = tmp_path_factory.mktemp("guide") / "data"
    shutil.copytree(settings.data_dir(), folder)
    for where, entry in ENTRIES:
        path = folder.parent / where
        path.write_text(f"{path.read_text() if path.exists() else ''}\n{entry}")
        tomllib.loads(path.read_text())
    return folder


@pytest.fixture
def guided(added: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "data_dir", lambda: added)


def test_there_is_an_entry_of_each_kind() -> None:
    assert [where.removeprefix("data/") for where, _ in ENTRIES] == [
        "programs/programs.toml",
        "workarounds/workarounds.toml",
        "hypotheses/mechanisms.toml",
        "hypotheses/hypotheses.toml",
        "cases/toy.toml",
        "exercises.toml",
    ]


@pytest.mark.usefixtures("guided", "mixed_crash")
@pytest.mark.parametrize(("foreign", "kind"), [("17", "crash"), ("19", "ok")])
def test_the_program_crashes_mixed(lab: Lab, foreign: str, kind: str) -> None:
    assert "toy" in programs.names()
    assert lab.run(lab.trial("toy", "19", foreign)).kind == kind


@pytest.mark.usefixtures("guided", "mixed_crash")
def test_the_workaround_is_tried(lab: Lab) -> None:
    (row,) = workarounds.try_all(lab, "cold", "19", "17", only=["no-atomics"])
    assert row.verdict == "does not help"


@pytest.mark.usefixtures("guided", "mixed_crash")
def test_the_mechanism_refutes_the_hypothesis(lab: Lab) -> None:
    (one,) = [one for one in mechanisms.load() if one.id == "counters-atomic"]
    assert lab.run(one.changed(lab, "cold", "19", "17")).kind == "ok"
    (atomic,) = [one for one in hypotheses.load() if one.id == "atomic"]
    assert [each.id for each in mechanisms.load() if each.id in atomic.rows] == [one.id]
    verdict, why = atomic.verdict(results.recorded())
    assert verdict == "refuted" and "crash-without-an-allocator" in {
        each.claim for each in atomic.predictions
    }
    assert why


@pytest.mark.usefixtures("guided")
def test_the_case_is_found() -> None:
    assert cases.get("toy").run_as == "toy"


@pytest.mark.usefixtures("guided")
def test_the_exercise_has_the_answer_that_the_guide_says() -> None:
    (entry,) = (entry for where, entry in ENTRIES if where == "data/exercises.toml")
    ((name, exercise),) = tomllib.loads(entry).items()
    assert exercises.check_answer(name, exercise["answer"]).text == f"{name}: right"


def test_what_the_guide_names_is_there() -> None:
    names = set(re.findall(r"`((?:data|tests|nbsupport|notebooks)/[\w./-]+)`", GUIDE))
    assert len(names) > 10
    assert not [name for name in names if not (ROOT / name).exists()]
    for path in re.findall(r"tests/\w+\.py|notebooks/\d\S+\.ipynb", GUIDE):
        assert (ROOT / path).is_file(), path
    for target in set(re.findall(r"`make ([a-z-]+)`", GUIDE)):
        done = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert "No rule" not in done.stderr, target


def test_the_python_that_the_guide_writes_names_what_there_is() -> None:
    lines = re.findall(r"python -c '(.*)'", GUIDE)
    assert lines
    for line in lines:
        code = ast.parse(line)
        names: dict[str, object] = {}
        for node in ast.walk(code):
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(ast.unparse(node), names)  # noqa: S102 - a line of ours
        for node in ast.walk(code):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert hasattr(names[node.value.id], node.attr), line


def test_a_package_is_no_longer_than_the_map_says() -> None:
    rows = re.findall(r"(?m)^\| \d+ \| `(nbsupport/\w+)` \| .+ \| (\d+) \|$", GUIDE)
    packages = {f"nbsupport/{path.parent.name}" for path in ROOT.glob("nbsupport/*/__init__.py")}
    assert {package for package, _ in rows} == packages
    for package, most in rows:
        lines = sum(len(path.read_text().splitlines()) for path in (ROOT / package).rglob("*.py"))
        assert lines <= int(most), f"{package} grew: change the map of CONTRIBUTING.md, and say why"


def test_the_version_has_a_section_in_the_changelog() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    log = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"(?m)^## \[?{re.escape(project['version'])}\]?( |$)", log)
