"""The public record of Macs is told as it is: what changed with what, and what it does not show."""

from __future__ import annotations

from nbsupport.studies import history

STEPS, REPORTS = history.load()


def test_the_commit_that_broke_it_changed_two_things_and_not_the_allocator() -> None:
    before, after, skipped, *_ = STEPS
    changed = [
        name for name in ("cc", "mirrored", "rustc") if vars(before)[name] != vars(after)[name]
    ]
    assert changed == ["cc", "mirrored", "rustc"]
    assert "unchanged" in after.allocator
    assert (before.pgo, skipped.pgo) == ("yes", "skipped")


def test_cc_mirrors_from_the_version_on_that_the_file_says() -> None:
    for step in STEPS:
        mirrors = tuple(map(int, step.cc.split("."))) >= (1, 2, 2)
        assert step.mirrored == ("yes" if mirrors else "no"), step.commit


def test_a_report_says_what_it_does_not_show() -> None:
    text = history.show_reports(REPORTS).text
    assert all(report.source in text and report.lacks for report in REPORTS)
    assert all(step.commit in history.table(STEPS).text for step in STEPS)
    # Whoever saw the message saw no crash: none of them is both.
    messages = [report for report in REPORTS if "expected 10" in report.saw]
    assert len(messages) == 2
    assert all(report.lacks.startswith("no crash") for report in messages)
