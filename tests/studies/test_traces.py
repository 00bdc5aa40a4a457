"""Traces of the lab's trials: made now by a real LLDB and strace, or recorded."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from nbsupport.base.errors import LabError
from nbsupport.lab.lab import Lab
from nbsupport.studies.traces import Traces
from nbsupport.trace import tables
from nbsupport.trace.trace import open_trace
from tests.trace.programs import in_order

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="apt-get install strace")


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
