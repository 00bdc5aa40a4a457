"""The notes' mechanism, made to happen: how a freed heap looks when it really is the cause."""

from __future__ import annotations

import pytest

from nbsupport.lab import Lab
from nbsupport.outcome import Outcome


@pytest.fixture(scope="module")
def seen(lab: Lab) -> dict[str, Outcome]:
    names = [f"{what}{when}" for what in ("values-freed", "heap-freed") for when in ("", "-early")]
    names += ["values-freed-explicit", "heap-freed-explicit"]
    return {name: lab.run(lab.trial(name, "19", "19")) for name in names}


@pytest.mark.parametrize("what, function", [
    ("values-freed", "initializeValueProfRuntimeRecord"),
    ("heap-freed", "getCurFilenameLength"),  # the name of the file, the runtime's one strdup
])  # fmt: skip
def test_what_is_freed_is_missed_by_another_function(
    seen: dict[str, Outcome], what: str, function: str
) -> None:
    dead = seen[what].crash
    assert dead and dead.function == function
    assert dead.fault_address and dead.fault_address >> 47 == 0  # an address, once mapped


@pytest.mark.parametrize("what", ["values-freed", "heap-freed"])
def test_freed_after_the_profile_is_written_it_harms_nothing(
    seen: dict[str, Outcome], what: str
) -> None:
    assert seen[f"{what}-early"].kind == "ok"


@pytest.mark.parametrize("what", ["values-freed", "heap-freed"])
def test_an_explicit_write_succeeds_unlike_the_users(seen: dict[str, Outcome], what: str) -> None:
    explicit, at_exit = seen[f"{what}-explicit"].profile, seen[what].profile
    whole = seen[f"{what}-early"].profile
    assert explicit and at_exit and whole
    assert explicit.bytes - at_exit.bytes > 0.9 * whole.bytes  # the first profile is there
