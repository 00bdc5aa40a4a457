"""What `make quick` tries: the tests and the notebooks that go with what changed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import changed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository of a few files, committed."""
    for name in ("a.py", "gone.py", "moved.py", "staged.py", "with space.py"):
        (tmp_path / name).write_text(f"{name}\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True)


def test_what_differs_from_the_last_commit_has_changed(repository: Path) -> None:
    assert changed.changed(repository) == []
    (repository / "staged.py").write_text("2")
    git(repository, "add", "staged.py")
    git(repository, "mv", "moved.py", "there.py")
    (repository / "with space.py").write_text("2")
    (repository / "gone.py").unlink()
    (repository / "new").mkdir()
    (repository / "new" / "ä.py").touch()
    (repository / ".gitignore").write_text("*.pyc\n")
    (repository / "new" / "x.pyc").touch()
    found = {"staged.py", "moved.py", "there.py", "with space.py", "gone.py"}
    assert set(changed.changed(repository)) == found | {"new/ä.py", ".gitignore"}


def test_nothing_changed_is_nothing_to_try() -> None:
    assert changed.tests(ROOT, []) == changed.notebooks(ROOT, []) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("nbsupport/profile/layout.py", {"tests/profile", *changed.OF_ALL}),
        ("nbsupport/studies/sources/parse.py", {"tests/studies", *changed.OF_ALL}),
        ("nbsupport/__init__.py", {"tests/project"}),
        ("tests/profile/test_layout.py", {"tests/profile/test_layout.py"}),
        ("tests/audit/conftest.py", {"tests/audit"}),
        ("tests/support/tomorrow.py", {"tests/toolchains/test_headers.py"}),
        ("tests/support/changed.py", {"tests/project/test_changed.py"}),
        ("data/watched.toml", {"tests/trace", *changed.OF_ALL}),
        ("data/diff.toml", {"tests/notebooks", *changed.OF_ALL}),
        ("data/jupyter/labconfig/default_setting_overrides.json", {"tests/browser"}),
        ("notebooks/01-reproduction.ipynb", set[str]()),
        ("Makefile", {"tests/project"}),
    ],
)
def test_the_tests_that_go_with_a_file(path: str, expected: set[str]) -> None:
    assert set(changed.of(ROOT, path)) == expected


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "data").iterdir()))
def test_each_file_of_data_has_tests(name: str) -> None:
    assert [*changed.of(ROOT, f"data/{name}/x")]


def test_nothing_is_tried_that_is_not_there_or_that_a_folder_has() -> None:
    paths = ["tests/crash/conftest.py", "tests/crash/test_lldb.py", "tests/show/test_gone.py"]
    assert changed.tests(ROOT, paths) == ["tests/crash"]


def test_what_takes_minutes_is_tried_only_if_it_has_changed() -> None:
    assert all((ROOT / one).exists() for one in changed.LONG)
    paths = ["nbsupport/lab/cases.py", "data/jupyter/labconfig/default_setting_overrides.json"]
    left_out = "--ignore=tests/lab/test_cases.py"
    assert changed.tests(ROOT, paths) == ["tests/lab", *changed.OF_ALL, left_out]
    changes = [*paths, "tests/lab/test_cases.py", "tests/browser/harness.py"]
    assert changed.tests(ROOT, changes) == ["tests/browser", "tests/lab", *changed.OF_ALL]


def test_notebooks_are_those_of_the_lab() -> None:
    (first, *_) = (path.name for path in sorted((ROOT / "notebooks").glob("*.ipynb")))
    paths = [f"notebooks/{first}", "notebooks/gone.ipynb", "x/notebooks/y.ipynb", "README.md"]
    assert changed.notebooks(ROOT, paths) == [f"notebooks/{first}"]
