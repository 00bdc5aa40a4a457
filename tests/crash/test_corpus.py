"""`explain` judges each text of the corpus as it was made, and is certain of nothing that is wrong."""

from __future__ import annotations

from collections import Counter

import pytest

from nbsupport.base.errors import LabError
from nbsupport.crash import backtrace, shapes
from nbsupport.crash.explanation import explain
from tests.crash.corpus.make import HERE, labels

LABELS = labels()
#: Texts in which an expert is certain, and `explain` is not: it says "likely" there.
CAUTIOUS = {
    "go-abort": "no frame of C is shown",
    "second-gdb-one-frame": "a local variable of that name is not read",
    "second-gdb-threads-in-full": "a local variable of that name is not read",
    "third-threads-lldb": "a local variable's value is not read",
    "rust-rustc-deep": "that rustc ran out of stack is a guess of its own handler",
}
#: Lines that mail or a terminal broke in two: what is lost with them is not guessed.
BROKEN = {"second-mail-asan": "unknown", "second-wrapped-valgrind": "ours"}


@pytest.mark.parametrize("name", LABELS)
def test_a_text_is_judged_as_it_was_made(name: str) -> None:
    label = LABELS[name]
    path = HERE / f"{name}.txt"
    if label["verdict"] == "unreadable":
        with pytest.raises(LabError):
            explain(path)
        return
    answer = explain(path)
    if name in BROKEN:
        assert (answer.verdict, answer.certainty) == (BROKEN[name], "likely")
        return
    assert (answer.verdict, answer.face or "") == (label["verdict"], label["face"]), answer.why
    assert (answer.certainty == "shown") >= ("shown" in label and name not in CAUTIOUS), answer.why
    assert answer.advice and answer.lines


def test_the_corpus_is_wide() -> None:
    verdicts = Counter(str(label["verdict"]) for label in LABELS.values())
    assert len(LABELS) >= 120
    assert verdicts["not-ours"] + verdicts["no-crash"] + verdicts["unknown"] >= len(LABELS) / 2
    assert verdicts["unknown"] >= 12
    assert sum(str(label["made"]).startswith("here:") for label in LABELS.values()) >= 60


def test_each_shape_is_read_five_times() -> None:
    read = Counter[str]()
    for name in LABELS:
        lines = [line.strip() for line in (HERE / f"{name}.txt").read_text().splitlines()]
        traces, faults = backtrace.find(lines)
        read.update({trace.shape for trace in traces} | {fault.shape for fault in faults})
    assert {shape for shape in shapes.load() if read[shape] < 5} <= {
        "backward",
        "gdb-mi",
        "java",
        "python",
        "rust",
        "xcode",
    }, read
