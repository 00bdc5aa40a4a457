"""One run of a command: its own empty folder, and the profile that it leaves there."""

from __future__ import annotations

import dataclasses

import pytest

from nbsupport.lab import build, counts
from nbsupport.lab.lab import Invocation, Lab
from nbsupport.lab.trial import Trial

#: A pool: the runtime puts a number in place of %m, and merges run into run.
POOL = (("LLVM_PROFILE_FILE", "run-%m.profraw"),)


@pytest.fixture
def pooled(lab: Lab) -> Trial:
    return dataclasses.replace(lab.trial("cold", "19", "19"), environment=POOL)


def test_a_profile_in_a_pool_is_judged_as_any_other(lab: Lab, pooled: Trial) -> None:
    plain, found = lab.run(lab.trial("cold", "19", "19")), lab.run(pooled)
    assert (found.kind, found.profile) == ("ok", plain.profile), found.detail
    text, _ = lab.run_once(pooled)
    assert len(counts.parse(text)) == found.profile.functions > 1


def test_a_crash_leaves_nothing_in_a_pool_to_the_next_run(lab: Lab) -> None:
    mixed = dataclasses.replace(lab.trial("cold", "19", "17"), environment=POOL)
    for _ in range(2):
        found = lab.run(mixed)
        assert found.kind == "crash", found.detail
        assert found.crash and "writeFile" in [frame.function for frame in found.crash.frames]


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("$1; echo no profile >c.profraw", "ok"),
        ("$1; echo no profile >a.profraw", "malformed"),
        ("$1; mkdir a.profraw", "ok"),
        ("$1; mkfifo a.profraw", "ok"),
        ("$1; mv b.profraw b.profdata", "no-profile"),
        ("LLVM_PROFILE_FILE=run-%m.profraw $1; ls run-?*_0.profraw", "ok"),
        ("$1; echo said by the program >&2; exit 3", "failed"),
    ],
)
def test_the_first_profile_by_name_counts(command: str, kind: str, lab: Lab, pooled: Trial) -> None:
    argv = ["/bin/sh", "-c", command, "sh", str(build.linked(pooled, lab.cache))]
    run = Invocation(argv, pooled.main, lab.limits, {"LLVM_PROFILE_FILE": "b.profraw"})
    outcome, text = lab.judge_command(run)
    assert outcome.kind == kind, outcome.detail
    assert bool(counts.parse(text)) == (kind == "ok")


def test_a_toolchain_is_alike_by_its_records_or_main_takes_its_place(lab: Lab) -> None:
    assert lab.alike("19", "22") == "22"
    assert lab.alike("18", "22") == "22"  # another raw version, the same stride
    assert lab.alike("17", "22") == "17"
    assert lab.alike("23", "22") == "23"
    assert lab.alike("19", "4711") == "4711"
