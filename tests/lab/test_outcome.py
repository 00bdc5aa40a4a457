"""The closed set of outcomes: each kind, from the smallest run that shows it."""

from __future__ import annotations

import json

import pytest

from nbsupport.base.process import Finished
from nbsupport.crash.crash import Crash, Frame
from nbsupport.lab import counts
from nbsupport.lab.outcome import KINDS, Outcome, ProfileState, classify

MISMATCH = (
    "LLVM Profile Error: Runtime and instrumentation version mismatch : expected 10, but get 8\n"
)


def ended(
    exit_code: int | None = 0, signal: int | None = None, stderr: str = "", **more: object
) -> Finished:
    fields: dict[str, object] = {"limit": None, **more}
    return Finished(exit_code, signal, "", stderr, seconds=0.1, **fields)  # type: ignore[arg-type]


MERGED = ended()
SEEN: counts.Counts = {("main", 1): (1,)}
REFUSED = ended(1, stderr="error: run.profraw: malformed instrumentation profile data\n")


@pytest.mark.parametrize(
    ("kind", "done", "size", "merged", "seen", "wrong"),
    [
        ("ok", ended(), 100, MERGED, SEEN, None),
        ("no-profile", ended(), 100, MERGED, {}, None),
        ("crash", ended(None, 11), 100, None, {}, None),
        ("version-mismatch", ended(stderr=MISMATCH), 0, None, {}, None),
        ("no-profile", ended(), 0, None, {}, None),
        ("malformed", ended(), 100, REFUSED, {}, None),
        ("wrong-counts", ended(), 100, MERGED, SEEN, "1 functions are missing (f)"),
        ("failed", ended(3, stderr="no such file\n"), 0, None, {}, None),
        ("limit", ended(None, 9, limit="time"), 0, None, {}, None),
        # A crash that prints the message first is a crash; a limit comes before its signal.
        ("crash", ended(None, 11, stderr=MISMATCH), 0, None, {}, None),
        ("failed", ended(1, stderr=MISMATCH), 0, None, {}, None),
    ],
)
def test_kinds(
    kind: str,
    done: Finished,
    size: int,
    merged: Finished | None,
    seen: counts.Counts,
    wrong: str | None,
) -> None:
    found, detail = classify(done, size, merged, seen, wrong)
    assert found == kind
    assert detail
    assert "\n" not in detail


def test_the_set_is_closed() -> None:
    assert KINDS == (
        "ok", "crash", "version-mismatch", "no-profile", "malformed", "wrong-counts", "failed",
        "limit", "build-failed",
    )  # fmt: skip


def test_the_document_of_the_command_line_contract() -> None:
    dead = Crash(
        "SIGSEGV",
        (Frame("initializeValueProfRuntimeRecord", 99, "cold"),),
        "cmp qword ptr [rax], 0x0",
        {"rax": 0x1000100000001},
        0x1000100000001,
        "registers",
        "lldb 19.1.7",
    )
    outcome = Outcome(
        "crash", "ended by SIGSEGV", None, "SIGSEGV", dead, ProfileState(False, 704, 0), 0.01
    )
    document = json.loads(json.dumps(outcome.to_json()))
    contract = [
        "outcome",
        "exit_code",
        "signal",
        "frames",
        "fault_address",
        "fault_address_from",
        "profile",
        "seconds",
    ]
    assert set(contract) <= set(document)
    assert document["frames"] == [
        {"function": "initializeValueProfRuntimeRecord", "offset": 99, "module": "cold"}
    ]
    assert document["fault_address"] == "0x1000100000001"
    assert document["profile"] == {"valid": False, "bytes": 704, "functions": 0}
    row = outcome.to_row()
    assert row["function"] == "initializeValueProfRuntimeRecord"
    assert row["profile_bytes"] == 704
