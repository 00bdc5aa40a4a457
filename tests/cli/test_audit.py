"""`pgo-lab audit`: the contract for scripts, and what people see."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from tests.support.linked import (
    TRIPLE,
)

PGO_LAB = [sys.executable, "-c", "from nbsupport.cli.commands import entry; entry()"]


def pgo_lab(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PGO_LAB, *args], capture_output=True, text=True, check=False)


@pytest.fixture
def compiled(lab: Lab) -> Path:
    """Return an instrumented object."""
    return build.compiled(build.jobs(lab.trial("cold", "19", "19"))[0], lab.cache)


def test_json_is_the_contract(target: Path) -> None:
    done = pgo_lab("audit", target, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)
    assert found["verdict"] == "mixed"
    (program,) = [one for one in found["files"] if one["path"].endswith("/tiny")]
    ours = program["layouts"][0].pop("records")
    assert ours > 1  # rustc's functions: main, and what it inlined of the library
    assert program | {"links": [], "why": "", "blame": [], "advice": ""} == {
        "path": str(target / "release" / "tiny"),
        "format": "elf",
        "kind": "executable",
        "raw_versions": [8, 10],
        "variants": ["ir"],
        "layouts": [{"record_size": 64}, {"record_size": 48, "records": 1}],
        "runtime_raw_version": 10,
        "verdict": "mixed",
        "outcomes": ["crash", "malformed"],
        "problems": [],
        "links": [],
        "why": "",
        "blame": [],
        "advice": "",
    }


def test_each_link_and_each_file_to_blame_has_the_keys_that_scripts_know(target: Path) -> None:
    document = json.loads(pgo_lab("audit", target, "--json").stdout)
    keys = ["verdict", "why", "outcomes", "links", "blame", "advice"]
    assert list(document) == [*keys, "origins", "files", "problems", "warnings"]
    for link in document["links"]:
        assert list(link) == ["runtime_raw_version", "first", "outcomes", "why", "loss"]
    for blame in document["blame"]:
        assert list(blame) == ["path", "count", "functions", "members", "certain"]
    for origin in document["origins"]:
        assert list(origin) == ["name", "files", "count", "functions"]
    assert document["links"] and document["blame"]


def test_people_read_the_verdict_first(target: Path) -> None:
    done = pgo_lab("audit", target)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("mixed: the runtime of raw version 10 (LLVM 19 to 22) walks ")
    assert lines[1] == "what will happen: crash or malformed"
    assert any(line.rstrip().endswith(str(target / "release" / "tiny")) for line in lines)
    assert "\x1b" not in done.stdout
    assert any("libstep.a: 1 function: step" in line for line in lines)
    assert f"CFLAGS_{TRIPLE.replace('-', '_')}" in done.stdout


def test_exit_codes(compiled: Path, tmp_path: Path) -> None:
    assert pgo_lab("audit", compiled).returncode == 0
    done = pgo_lab("audit", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_the_command_needs_no_notebook_stack(compiled: Path) -> None:
    code = "import sys; from nbsupport.cli import commands; commands.main(['audit', sys.argv[1]]); "
    code += "print([m for m in ('pandas', 'pyarrow', 'IPython', 'nbformat') if m in sys.modules])"
    command = [sys.executable, "-c", code, str(compiled)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_of_many_problems_the_first_are_shown(compiled: Path, tmp_path: Path) -> None:
    for n in range(50):
        (tmp_path / f"cut{n:02}.o").write_bytes(compiled.read_bytes()[: 100 + n])
    done = pgo_lab("audit", tmp_path)
    assert done.returncode == 2
    assert done.stdout.startswith("unknown: ")
    lines = done.stderr.splitlines()
    assert len(lines) == 31
    assert lines[0].startswith(f"pgo-lab: {tmp_path}/cut00.o: cut off: ")
    assert lines[-1] == "pgo-lab: and 20 more (--json lists all)"
