"""The ledger: verdicts follow from what a run observed, and from nothing else."""

from __future__ import annotations

import pandas as pd
import pytest

from nbsupport.notebooks import results
from nbsupport.notebooks.results import Run
from nbsupport.studies import hypotheses, mechanisms
from nbsupport.studies.hypotheses import Hypothesis, Prediction

KNOWN = {one.id: one for one in hypotheses.load()}
RECORDED = results.recorded()
COLUMNS = ["notebook", "name", "sentence", "observed", "holds"]
#: What of a mechanism's program was measured, beside how it agrees.
MEASURED = {"ends": "crash at exit", "function": "f", "address": "0x34", "merge": "valid"}


def run(claims: dict[str, str] | None = None, lacking: dict[str, str] | None = None) -> Run:
    """Return a run of claims (name: observed) and mechanisms (name: what it contradicts)."""
    rows = [
        {"mechanism": name, "what": f"way {name}", "why": "", **MEASURED}
        | {f"agrees_{each}": "no" for each in lacks.split()}
        for name, lacks in (lacking or {}).items()
    ]
    claimed = [
        {"notebook": "06-x", "name": name, "sentence": f"{name} is so", "observed": text}
        | {"holds": True}
        for name, text in (claims or {}).items()
    ]
    tables = {"mechanisms": pd.DataFrame(rows)} if rows else {}
    return Run({}, pd.DataFrame(claimed, columns=COLUMNS), tables)


@pytest.mark.parametrize(
    ("observed", "verdict"),
    [("so", "supported"), ("not so", "refuted"), ("neither", "open"), (None, "open")],
)
def test_a_prediction_is_judged_by_what_was_observed(observed: str | None, verdict: str) -> None:
    made = run({"claim": observed} if observed else {})
    assert Prediction("it is so", "claim", so="so", unless="not so").verdict(made) == verdict


def test_a_prediction_may_ask_whether_its_claim_holds() -> None:
    """So the words of a claim's values may be rewritten, and no verdict changes."""
    made = run({"claim": "in any words"})
    test = Prediction("it is so", "claim", so="holds")
    assert test.verdict(made) == "supported"
    assert Prediction("it is so", "claim", unless="holds").verdict(made) == "refuted"
    fails = Run({}, made.claims.assign(holds=False), {})
    assert (test.verdict(fails), test.verdict(run())) == ("open", "open")


def test_what_does_not_crash_and_what_was_not_tried_are_said() -> None:
    some = Hypothesis("h", "claim", "rival", "how", rows=("x",))
    made = run(lacking={"x": "function moment"}).tables["mechanisms"]
    healthy = Run({}, run().claims, {"mechanisms": made.assign(ends="ok")})
    assert some.verdict(healthy) == ("refuted", ("way x: does not crash (ok)",))
    made = run(lacking={"x": ""}).tables["mechanisms"].assign(agrees_allocators="untried")
    untried = Run({}, run().claims, {"mechanisms": made})
    said = "way x: shows all that was tried (not tried: jemalloc)"
    assert some.verdict(untried) == ("supported", (said,))


def test_one_observation_against_it_outweighs_all_others() -> None:
    one = Prediction("it is so", "a", so="so", unless="not so")
    two = Prediction("this, too", "b", so="so", unless="not so")
    both = Hypothesis("h", "claim", "ours", "how", predictions=(one, two))
    assert both.verdict(run({"a": "so"})) == ("supported", ("a is so: so (06)",))
    assert both.verdict(run({"a": "so", "b": "not so"})) == (
        "refuted",
        ("a is so: so (06)", "b is so: not so (06)"),
    )
    assert both.verdict(run()) == ("open", ())
    again = run({"a": "neither"}).claims  # as where nothing is mixed, in a run of many LLVMs
    again = pd.concat([again, again.assign(observed="so")])
    assert both.verdict(Run({}, again, {}))[0] == "supported"
    again = pd.concat([again, again.assign(observed="not so")])
    assert both.verdict(Run({}, again, {}))[0] == "refuted"


def test_rows_refute_when_each_contradicts_the_crash() -> None:
    some = Hypothesis("h", "claim", "rival", "how", rows=("x", "y"))
    assert some.verdict(run(lacking={"x": "function", "y": "address merge"})) == (
        "refuted",
        ("way x: dies in f", "way y: a debugger prints 0x34; leaves a valid profile"),
    )
    assert some.verdict(run(lacking={"x": "function", "y": ""}))[0] == "supported"
    assert some.verdict(run(lacking={"other": "function"})) == ("open", ())
    # The numbers of the harness are no part of the crash.
    assert some.verdict(run(lacking={"x": "entries"})) == ("supported", ("way x: shows all",))


def test_a_row_that_was_not_made_says_nothing() -> None:
    table = pd.DataFrame([{"mechanism": "x", "why": "not on this system"}])
    made = Run({}, pd.DataFrame({"name": [], "observed": []}), {"mechanisms": table})
    assert Hypothesis("h", "claim", "rival", "how", rows=("x",)).verdict(made) == ("open", ())


def test_before_a_run_all_is_open_and_says_what_would_decide() -> None:
    ledger = hypotheses.ledger(run())
    assert set(ledger["verdict"]) == {"open"}
    assert ledger["decide"].astype(bool).all()
    text = hypotheses.table(ledger).text
    assert "notebook 01" in text
    assert "an ARM Mac: far, esr and the kind of stop" in text


def test_only_another_system_refutes_that_macos_alone_is_affected() -> None:
    verdicts = {
        system: KNOWN["macos"].verdict(run({"crash-on-this-system": f"crash on {system}"}))[0]
        for system in ("Linux", "Darwin")
    }
    assert verdicts == {"Linux": "refuted", "Darwin": "open"}
    assert KNOWN["macos"].verdict(run({"crash-on-this-system": "ok on Linux"}))[0] == "open"


def test_the_notes_are_answered_fairly() -> None:
    ledger = hypotheses.ledger(RECORDED).set_index("hypothesis")["verdict"]
    notes = [one.id for one in KNOWN.values() if one.source.startswith(("notes", "summary"))]
    assert set(ledger[notes]) == {"refuted", "supported"}
    assert ledger["not-timing"] == "supported"  # they say so, and are right
    assert ledger["mixed"] == "supported"
    still = ["users-build", "far-without-an-address", "no-site-before", "apples-linker"]
    assert set(ledger[still]) == {"open"}


def test_we_are_refuted_by_the_rules_of_the_others() -> None:
    """Mixed records are no explanation of a true 0, and the ledger says so."""
    name, seen = "zero-takes-two-layouts", "none by one runtime, some by two"
    assert KNOWN["zero-on-arm64"].verdict(run({name: seen}))[0] == "refuted"
    assert KNOWN["zero-on-arm64"].verdict(run({name: f"some{seen[4:]}"}))[0] == "supported"


def test_an_object_of_another_runtime_is_refuted_by_what_was_tried_alone() -> None:
    one = KNOWN["stray-runtime"]
    whole = dict.fromkeys(one.rows, "")
    late = {"rust-dies-in-main-of-a-foreign-object": "crash at exit, crash at exit, refused"}
    assert one.verdict(run(late, whole))[0] == "supported"
    assert one.verdict(run(late, whole | {"stray-object": "function"}))[0] == "supported"
    assert one.verdict(run(late, dict.fromkeys(one.rows, "merge")))[0] == "refuted"
    early = {"rust-dies-in-main-of-a-foreign-object": "crash at exit, crash in main, refused"}
    assert one.verdict(run(early, whole))[0] == "refuted"


@pytest.mark.parametrize("one", KNOWN.values(), ids=KNOWN)
def test_what_a_hypothesis_names_is_there(one: Hypothesis) -> None:
    assert set(one.rows) <= {each.id for each in mechanisms.load()}
    assert one.predictions or one.rows or one.decide
    for prediction in one.predictions:
        assert prediction.so or prediction.unless
        # What it looks for is what its claim says, letter by letter: else it would stay open.
        assert prediction.verdict(RECORDED) != "open", prediction.claim
