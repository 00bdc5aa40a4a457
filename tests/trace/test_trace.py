"""A trace on disk: live, recorded, and by the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nbsupport.cli import commands
from nbsupport.trace.tracer import Tracer

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="apt-get install strace")


def test_a_program_without_a_runtime_has_no_profile_to_miss(tracer: Tracer, tmp_path: Path) -> None:
    found = tracer.run(["true"], tmp_path / "trace", env={}, cwd=tmp_path, seconds=20)
    assert "empty" not in found.manifest
    assert "empty" not in "".join(found.summary())


def test_the_command_line(
    mixed_crash: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert commands.main(["trace", "-o", "t", "--json", "--", str(mixed_crash)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ended"] == "SIGSEGV" and told["record"]["function"] == "library_step"
    assert commands.main(["trace", "-o", "u", "--", str(mixed_crash)]) == 0
    said = capsys.readouterr().out
    assert "SIGSEGV in initializeValueProfRuntimeRecord" in said and "NumCounters of" in said
    assert commands.main(["trace", "-o", "v", "--stdin", "none", "--", str(mixed_crash)]) == 2
    assert "check --stdin" in capsys.readouterr().err
