"""One line installs the command, wherever people install from; what is locked is what is tested."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = [sys.executable, "-m", "uv"]


def done(
    *command: str | Path, cwd: Path, code: int = 0, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that must end with `code`; seldom, uv crashes at its very end: then again."""
    env = {**os.environ, **(environment or {})}
    for last in (False, True):
        answer = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, check=False
        )
        if answer.returncode == code or last:
            break
    assert answer.returncode == code, answer.stderr[-2000:]
    return answer


def entries(path: Path) -> set[str]:
    return {entry.strip() for entry in re.split(r"\n(?=\S)", path.read_text().strip())}


def test_the_light_lock_is_a_part_of_the_whole_one() -> None:
    light = entries(ROOT / ".github" / "base.lock")
    assert light <= entries(ROOT / "requirements.lock")
    assert not [entry for entry in light if entry.startswith(("pandas=", "jupyter", "lief"))]


SLOW = pytest.mark.slow  # the index is asked for each package, as on a first install


@pytest.mark.parametrize(
    "system",
    [
        "linux",
        pytest.param("aarch64-unknown-linux-gnu", marks=SLOW),
        pytest.param("macos", marks=SLOW),
    ],
)
def test_the_base_has_wheels_for_the_newest_python(system: str, tmp_path: Path) -> None:
    pins = ROOT / ".github" / "base.lock"
    how = ("--no-build", "--python-version", "3.14", "--python-platform", system)
    done(*UV, "pip", "compile", "-q", *how, pins, "-o", os.devnull, cwd=tmp_path)


def test_a_checkout_runs_without_being_installed(mixed_crash: Path, tmp_path: Path) -> None:
    source = f"git+file://{ROOT}"
    command = ("tool", "run", "-q", "--from", source, "pgo-lab", "audit", "--json", mixed_crash)
    answer = done(*UV, *command, cwd=tmp_path, code=1)
    assert json.loads(answer.stdout)["verdict"] == "mixed"


@pytest.mark.slow
def test_pipx_installs_the_wheel_that_make_builds(mixed_crash: Path, tmp_path: Path) -> None:
    done("git", "clone", "-q", ROOT, tmp_path / "clone", cwd=tmp_path)
    done("make", "dist", cwd=tmp_path / "clone")
    assert not (tmp_path / "clone" / ".venv").exists()
    (wheel,) = (tmp_path / "clone" / "dist").glob("*.whl")
    assert len(list((tmp_path / "clone" / "dist").glob("*.tar.gz"))) == 1
    places = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    pipx: tuple[str | Path, ...] = (
        *UV,
        "tool",
        "run",
        "-q",
        "pipx==1.8.0",
        "install",
        "--python",
        sys.executable,
        wheel,
    )
    done(*pipx, cwd=tmp_path, environment=places)
    answer = done(tmp_path / "bin" / "pgo-lab", "audit", mixed_crash, cwd=tmp_path, code=1)
    assert answer.stdout.startswith("mixed: ")


@pytest.mark.slow
def test_what_binder_and_the_devcontainer_do_brings_the_crash(tmp_path: Path) -> None:
    clone, python = tmp_path / "clone", tmp_path / "env" / "bin" / "python"
    done("git", "clone", "-q", ROOT, clone, cwd=tmp_path)
    done(*UV, "venv", "-q", "--seed", tmp_path / "env", cwd=tmp_path)
    path = f"{python.parent}:{os.environ['PATH']}"
    how = {"PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    done(clone / ".binder" / "postBuild", cwd=tmp_path, environment=how)
    command = ("pgo-lab", "trial", "--llvm", "19", "--foreign", "17")
    assert done(*command, cwd=tmp_path, environment=how).stdout.startswith(
        "crash: ended by SIGSEGV"
    )
    settings = json.loads((clone / ".devcontainer" / "devcontainer.json").read_text())
    assert settings["postCreateCommand"].endswith(".binder/postBuild")
