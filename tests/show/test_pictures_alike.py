"""Each table and figure drawn twice is the same bytes, and text from outside is escaped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pandas as pd
import pytest

from nbsupport.crash.crash import Crash, Frame
from nbsupport.lab import cases, tables
from nbsupport.lab.outcome import Outcome
from nbsupport.notebooks import results
from nbsupport.show import look, shown
from nbsupport.show.shown import Shown
from nbsupport.studies import benefit, mechanisms, observations, profile_file, untrained
from nbsupport.studies.profile_file import Written
from nbsupport.trace import pictures, words
from nbsupport.trace import trace as traces
from nbsupport.trace.trace import Trace

#: What a program, a path or a message may be called.
HOSTILE = "<script>\"&'"


class Renamed(Trace):
    """A trace in which the library's function has the hostile name."""

    def table(self, name: str) -> pd.DataFrame:
        table = super().table(name)
        return table.map(lambda v: v.replace("library_step", HOSTILE) if type(v) is str else v)


def of_trace(draw: Callable[[Trace], Shown]) -> Callable[[], Shown]:
    def picture() -> Shown:
        trace = traces.open_trace(traces.recorded() / "cold-19-17-main-first")
        manifest = json.dumps(trace.manifest).replace("library_step", json.dumps(HOSTILE)[1:-1])
        return draw(Renamed(trace.folder, json.loads(manifest)))

    return picture


def of_table(
    draw: Callable[[pd.DataFrame], Shown], name: str, column: str, **more: object
) -> Callable[[], Shown]:
    def picture() -> Shown:
        table = results.recorded().tables[name]
        return draw(table.assign(**{column: HOSTILE}, **more))  # type: ignore[arg-type]

    return picture


def outcome() -> Outcome:
    frames = (Frame(HOSTILE, 9, HOSTILE), Frame("exit", 26, "libc.so.6"))
    return Outcome(
        "crash", HOSTILE, None, "SIGSEGV", Crash("SIGSEGV", frames, "mov", {}, 9, "siginfo")
    )


def mechanisms_figure(table: pd.DataFrame) -> Shown:
    return mechanisms.figure(table, observations.load())


def observed() -> Shown:
    seen = [dataclasses.replace(o, what=HOSTILE, value="1") for o in observations.load()]
    return observations.table([*seen, *observations.load()], outcome())


def written() -> Shown:
    left = Written(((HOSTILE, 9),), HOSTILE, {("f", 1): (2,)}, (), (HOSTILE,))
    return profile_file.table(HOSTILE, [(HOSTILE, left)], left)


def killed() -> Shown:
    left = Written(((HOSTILE, 9),), "valid", {("f", 1): (2,)}, (), ())
    return profile_file.figure({HOSTILE: [(HOSTILE, left)]}, {HOSTILE: left})


PICTURES: dict[str, Callable[[], Shown]] = {
    "a table": lambda: shown.table((HOSTILE,), [(HOSTILE,)]),
    "a figure": lambda: shown.framed(look.sheet(20)[0], HOSTILE, HOSTILE),
    "an outcome": lambda: tables.outcome(outcome()),
    "outcomes": of_table(lambda t: tables.outcomes(t, "program", ["main"]), "trials", "program"),
    "details": of_table(tables.details, "trials", "detail"),
    "the grid": of_table(tables.grid, "trials", "program"),
    "cases": of_table(
        cases.table, "cases", "case", function=HOSTILE, profile_functions=9, c_functions=9
    ),
    "mechanisms": of_table(mechanisms_figure, "mechanisms", "what"),
    "benefit's table": of_table(
        benefit.table, "benefit", "program", seconds=1.0, spread=0.1, load=1.0
    ),
    "why it executes more": lambda: untrained.table(
        pd.DataFrame([{"what": HOSTILE, "instructions": 9, "ratio": 1.0, "untrained": 0.5}])
    ),
    "functions": lambda: untrained.function_table(pd.DataFrame({"none": [9]}, index=[HOSTILE])),
    "benefit's figure": of_table(benefit.figure, "benefit", "program"),
    "observations": observed,
    "a profile file": written,
    "what a kill leaves": killed,
    "a timeline": of_trace(words.timeline),
    "pointers": of_trace(words.pointers),
    "a record": of_trace(words.record),
    "milestones": of_trace(words.milestone_table),
    "debugger and system": of_trace(words.aligned),
    "a story": of_trace(lambda trace: words.story({HOSTILE: trace})),
    "the memory": of_trace(pictures.memory_map),
}
#: Which name no function of the program.
UNNAMED = ("the memory", "debugger and system", "milestones")


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_the_same_bytes_twice_and_escapes_what_comes_from_outside(name: str) -> None:
    first, second = (PICTURES[name]() for _ in range(2))
    assert first == second
    assert "<script" not in first.html
    if name not in UNNAMED:
        assert "&lt;script&gt;" in first.html
