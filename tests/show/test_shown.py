"""What is shown says the same as text and as HTML."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pandas as pd
import pytest

from nbsupport.crash.crash import Crash, Frame
from nbsupport.lab import tables
from nbsupport.lab.lab import Lab
from nbsupport.lab.outcome import KINDS, Outcome
from nbsupport.notebooks import results
from nbsupport.show import shown
from nbsupport.studies import observations

FRAMES = (
    Frame("initializeValueProfRuntimeRecord", 99, "cold"),
    Frame("writeFile", 12, "cold"),
    Frame("", 4711, "libc.so.6"),
    Frame("exit", 26, "libc.so.6"),
)
CRASH = Crash("SIGSEGV", FRAMES, "mov", {}, 0x1000100000003, "registers", "lldb 19.1.7")
DEAD = Outcome("crash", "ended by SIGSEGV", None, "SIGSEGV", CRASH)


def test_an_outcome_shows_the_programs_frames_only() -> None:
    page = tables.outcome(DEAD)
    assert page.text.splitlines()[0] == (
        "crash: ended by SIGSEGV, at 0x1000100000003 (from the registers)"
    )
    assert "initializeValueProfRuntimeRecord  +99" in page.text
    assert "from libc.so.6" in page.text
    assert "4711" not in page.text  # differs with the C library
    assert "+99" in page.html


def test_beside_what_the_user_saw() -> None:
    text = observations.table(observations.load(), DEAD).text
    assert "initializeValueProfRuntimeRecord                         initializeValue" in text
    assert "at exit" in text.splitlines()[-2]


def test_outcomes_crosswise_keep_the_order_asked_for() -> None:
    found = pd.DataFrame(
        {"p": ["z", "z", "a"], "f": ["17", "gcc", "17"], "outcome": ["crash", "ok", "crash"]}
    )
    assert tables.outcomes(found, "p", ["f"]).text.split("\n") == [
        "p  17     gcc", "z  crash  ok", "a  crash  -",
    ]  # fmt: skip


def test_an_empty_table_says_none() -> None:
    columns = ["program", "main", "foreign", "order", "instrument", "outcome", "detail"]
    assert tables.details(pd.DataFrame(columns=columns)).text == "none"


def test_the_grid_says_each_outcome_in_letters() -> None:
    table = results.recorded().tables["trials"]
    first = tables.grid(table)
    root = ET.fromstring(shown.svg(first))  # noqa: S314 - ours
    label, told = root.attrib["aria-label"], root.find("{*}desc")
    # Read off the outcomes: raw versions 8 | 9 and 10, whose records are alike | 11.
    finding = (
        "Main linked first: 17 | 18, 19, 22 | 23. Library linked first: 17 | 18 | 19, 22 | 23."
    )
    assert finding in label
    for meaning in ("ok (green)", "crash (red)", "mismatch (orange)"):
        assert meaning in label
    assert "broken" not in label  # nor any other kind that is not there
    assert told is not None and told.text == "crash 41; ok 36; version-mismatch 23"
    letters = [element.text for element in root.iter() if element.text and element.text.strip()]
    assert letters.count("crash") == int((table["outcome"] == "crash").sum())
    assert letters.count("mismatch") == int((table["outcome"] == "version-mismatch").sum())
    assert finding in first.html.split("<figcaption>")[1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_look(kind: str) -> None:
    table = results.recorded().tables["trials"].head(1).assign(outcome=kind)
    assert "<svg" in tables.grid(table).html


def test_a_trial_says_who_builds_what(lab: Lab) -> None:
    text = tables.trial(lab.trial("cold", "19", "gcc")).text
    assert "clang 19@wheel, 19.1.7" in text
    assert text.splitlines()[-1].startswith("library (cold)    gcc gcc, ")


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("crash", "crash"),
        ("crash at exit", "crash"),
        ("refuted", "refuted"),
        ("supported", "holds"),
        ("whole profile", "holds"),
        ("no crash, no profile", "open"),
        ("does not help", "fails"),
    ],
)
def test_a_verdict_has_its_mark(text: str, mark: str) -> None:
    assert f'<td class="outcome {mark}">{text}</td>' in shown.table(("a",), [(text,)]).html


def test_only_long_names_break() -> None:
    page = shown.table(("a",), [("macOS, __llvm_profile_write_file",)]).html
    assert "macOS, __<wbr>llvm_<wbr>profile_<wbr>write_<wbr>file" in page


def test_nothing_in_a_cell_controls_a_terminal_or_a_page() -> None:
    table = shown.table(["name"], [["evil\x1b[31m\x07"]])
    for text in (table.text, table.html):
        assert "evil\\x1b[31m\\x07" in text
        assert all(c.isprintable() or c == "\n" for c in text)
