"""A trace on disk: live, recorded, and by the command line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from nbsupport.base.errors import LabError
from nbsupport.cli import commands
from nbsupport.lab.lab import Lab
from nbsupport.studies.traces import Traces
from nbsupport.trace import tables
from nbsupport.trace.trace import open_trace
from nbsupport.trace.tracer import Tracer
from tests.trace.programs import in_order

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="apt-get install strace")


def test_a_program_without_a_runtime_has_no_profile_to_miss(tracer: Tracer, tmp_path: Path) -> None:
    found = tracer.run(["true"], tmp_path / "trace", env={}, cwd=tmp_path, seconds=20)
    assert "empty" not in found.manifest
    assert "empty" not in "".join(found.summary())


def test_traces_of_the_labs_trials_live_and_recorded(lab: Lab, tmp_path: Path) -> None:
    with Traces(lab) as traces:
        live = traces.trace("cold", "19", "17")
        assert live.mixed and not traces.trace("cold", "19", "22").mixed
    assert not re.search(r"/(tmp|home|root|work|var)/", live.table("calls").to_csv())
    assert not live.recorded and open_trace(live.folder).manifest == live.manifest
    for source, parts, why in (
        ("dead", ("cold", "19", "17"), "choose live or recorded"),
        ("recorded", ("cold", "1", "2"), "no trace there"),
    ):
        with pytest.raises(LabError, match=why):
            Traces(lab, source).trace(*parts)


def test_a_recorded_trace_is_whole_and_names_no_folder(lab: Lab) -> None:
    found = Traces(lab, "recorded").trace("cold", "19", "17")
    assert found.recorded
    for name in tables.TABLES:
        text = found.table(name).to_csv() + json.dumps(found.manifest)
        assert not re.search(r"/(tmp|home|root|work|var)/", text)
    in_order(found, ("main", "main"), ("crash", "SIGSEGV"))


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
