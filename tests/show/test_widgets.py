"""The pictures to play with, on the real widgets: what a choice shows, and the static twins."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd
import pytest

from nbsupport.lab import tables
from nbsupport.lab.grid import sweep
from nbsupport.lab.lab import ORDERS, Lab
from nbsupport.notebooks import document, results
from nbsupport.show import widgets
from nbsupport.studies import mechanisms, observations, ruler, workarounds
from nbsupport.studies.traces import Traces
from nbsupport.toolchains.probe import Toolchain
from nbsupport.trace import pictures, words
from nbsupport.trace.trace import open_trace

Find = Callable[[str], Toolchain]
MECHANISMS = results.recorded().tables["mechanisms"]


def controls(live: Any) -> dict[str, Any]:
    """Return the labelled controls of a widget, by label."""
    return {one.description: one for one in parts(live) if getattr(one, "description", "")}


def parts(live: Any) -> list[Any]:
    """Return a widget and all that is in it."""
    return [live, *(each for child in getattr(live, "children", ()) for each in parts(child))]


def below(live: Any) -> str:
    """Return what a widget says below its controls."""
    return str(live.children[-1].value)


def bundle(live: Any) -> dict[str, Any]:
    return dict(live._repr_mimebundle_())


def rows(page: str) -> list[list[str]]:
    """Return the cells of a page's table rows."""
    cells = (re.findall("<td.*?>(.*?)</td>", row) for row in re.findall("<tr>.*?</tr>", page))
    return [[re.sub("<.*?>", "", cell) for cell in row] for row in cells if row]


@pytest.fixture(scope="module")
def ruled(lab: Lab, toolchain: Find) -> Any:
    toolchain("17"), toolchain("23")
    return ruler.widget(lab, ["17", "19", "23", "7"], "19", "17")


@pytest.fixture(scope="module")
def cells(lab: Lab, toolchain: Find) -> pd.DataFrame:
    toolchain("17")
    names = ["17", "19"]
    return sweep(mains=names, foreigns=names, programs=["cold", "hot"], orders=ORDERS, lab=lab)


@pytest.fixture(scope="module")
def tried(lab: Lab, toolchain: Find) -> tuple[workarounds.Row, ...]:
    toolchain("17")
    chosen = ["nothing", "fork", "mach-vm-protect", "c-not-instrumented", "cc-of-main"]
    return workarounds.try_all(lab, "cold", "19", "17", only=chosen)


@pytest.fixture
def everything(
    lab: Lab, ruled: Any, cells: pd.DataFrame, tried: tuple[workarounds.Row, ...]
) -> dict[str, Any]:
    return {
        "ruler": ruled,
        "timeline": pictures.timeline(Traces(lab, "recorded").trace("cold", "19", "17")),
        "grid": tables.grid_widget(cells, lab),
        "workarounds": workarounds.widget(tried),
        "matrix": mechanisms.widget(MECHANISMS, observations.load()),
    }


def test_each_has_a_static_twin_and_is_built_of_what_no_runner_hangs_on(
    everything: dict[str, Any],
) -> None:
    for name, live in everything.items():
        shown_by = bundle(live)
        assert document.WIDGET in shown_by, name
        assert shown_by["text/plain"], name
        assert re.search("<(table|figure)", shown_by["text/html"]), name
        assert not document._MACHINE_PATH.findall(
            str([one.value for one in parts(live) if isinstance(one, ipywidgets.HTML)])
        ), name
        kinds = {type(one) for one in parts(live)}
        assert not kinds & {ipywidgets.Output, ipywidgets.interactive}, name
        chosen = [
            one
            for one in parts(live)
            if isinstance(one, ipywidgets.ValueWidget) and not isinstance(one, ipywidgets.HTML)
        ]
        assert chosen, name
        assert all(one.description for one in chosen), name


def test_the_ruler_draws_what_is_chosen(lab: Lab, ruled: Any) -> None:
    def picture(main: str, foreign: str) -> str:
        return ruler.figure(ruler.from_trial(lab, lab.trial("cold", main, foreign))).html

    def answer(page: str) -> str:
        """Return what is folded below the question, which does not tell it."""
        question, folded = page.split("<details><summary>Answer</summary>")
        assert "What is there once it reaches the library" in question
        assert "faults at" not in question
        return folded

    main, foreign = (controls(ruled)[name] for name in ("main:", "library:"))
    assert picture("19", "17") in answer(bundle(ruled)["text/html"])
    assert picture("19", "17") in answer(below(ruled))
    foreign.value = "23"
    assert picture("19", "23") in answer(below(ruled))
    main.value = "23"
    assert "the runtime reads what was written" in answer(below(ruled))
    foreign.value = "7"
    assert "toolchain 7: not found" in below(ruled)


def test_a_choice_neither_links_nor_reads(ruled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ruler, "from_trial", lambda *_: pytest.fail("read again"))
    main, foreign = (controls(ruled)[name] for name in ("main:", "library:"))
    for pair in itertools.product(main.options, foreign.options):
        main.value, foreign.value = pair
        assert below(ruled)


def test_the_timeline_follows_its_slider_and_jumps(lab: Lab) -> None:
    died = Traces(lab, "recorded").trace("cold", "19", "17")
    live = pictures.timeline(died)
    slider, jump = (controls(live)[name] for name in ("step:", "jump to:"))
    assert slider.max == len(died.events) - 1
    write, end = words.milestones(died)[-2:]
    slider.value = write.n
    assert jump.value == write.n
    assert "write: lprofWriteDataImpl" in below(live)
    marks = {("code", "its code"), ("counters (__llvm_prf_cnts)", "its arguments")}
    marked = re.compile(r">([^<>]+)</div>&#9664; <b>([^<>]+)</b>")
    assert marks <= set(marked.findall(below(live)))
    slider.value -= 1
    assert jump.label == "-"
    jump.value = end.n
    assert slider.value == end.n
    assert ("no such address", "taken for Values") in marked.findall(below(live))
    assert "<ol start=0><li>initializeValueProfRuntimeRecord</li>" in below(live)
    assert bundle(live)["text/html"] == words.milestone_table(died).html


def test_a_timeline_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").touch()
    (tmp_path / "trace.json").write_text("{}")
    assert below(pictures.timeline(open_trace(tmp_path))) == widgets.page("")


def test_a_cell_of_the_grid_says_what_came_of_it(cells: pd.DataFrame, lab: Lab) -> None:
    live = tables.grid_widget(cells, lab)
    program, order = (controls(live)[name] for name in ("program:", "order:"))
    buttons = {one.tooltip: one for one in parts(live) if isinstance(one, ipywidgets.Button)}
    assert [one.description for one in buttons.values()] == ["ok", "crash", "crash", "ok"]
    mixed = buttons["main 19@wheel, library 17@wheel: crash"]
    mixed.click()
    said = dict(rows(below(live)))
    assert said["outcome"] == "crash: ended by SIGSEGV"
    assert said["fault address"] == "0x1000100000003 (from the registers)"
    assert said["frames"].startswith("initializeValueProfRuntimeRecord &lt; writeOne")
    built = below(live).split("<pre>")[1].split("</pre>")[0].splitlines()
    assert built[:4] == [
        "# by 19@wheel",
        "clang -O1 -fPIC -fprofile-generate -c main.c -o main.o",
        "# by 17@wheel",
        "clang -O1 -fPIC -fprofile-generate -c library_cold.c -o library_cold.o",
    ]
    assert built[5].endswith(" main.o library_cold.o -lm -ldl -o cold")
    order.value = "foreign-first"
    assert mixed.description == "mismatch"
    assert "expected 10, but get 8" in dict(rows(below(live)))["outcome"]
    assert " library_cold.o main.o " in below(live)
    program.value = "hot"
    assert mixed.description == "crash"
    assert dict(rows(below(live)))["frames"].startswith("__llvm_profile_instrument_target")


def test_the_chosen_cell_is_framed(cells: pd.DataFrame, lab: Lab) -> None:
    live = tables.grid_widget(cells, lab)
    one, other, *_ = [each for each in parts(live) if isinstance(each, ipywidgets.Button)]
    one.click(), other.click()
    assert ["transparent" in each.layout.border_top for each in (one, other)] == [True, False]
    controls(live)["program:"].value = "hot"
    assert "main 17@wheel, library 19@wheel, main-first" in below(live)


def test_the_page_of_the_grid_shows_each_way_to_end_once(cells: pd.DataFrame, lab: Lab) -> None:
    twin = bundle(tables.grid_widget(cells, lab))
    assert twin["text/html"].startswith(tables.grid(cells).html)
    ends = [(row[2], row[4].split(" ")[0]) for row in rows(twin["text/html"])]
    writer, site = "initializeValueProfRuntimeRecord", "__llvm_profile_instrument_target"
    assert ends == [("ok", ""), ("crash", writer), ("version-mismatch", ""), ("crash", site)]
    assert "libc" not in twin["text/html"]


def test_another_machine_s_sweep_with_a_gap(cells: pd.DataFrame, lab: Lab) -> None:
    live = tables.grid_widget(cells.drop(index=2), lab)
    empty = [one for one in parts(live) if isinstance(one, ipywidgets.Button)][1]
    assert empty.description == "-"
    empty.click()
    assert "not run" in below(live)


def test_a_rust_main_is_compiled_as_it_is_linked(lab: Lab, toolchain: Find) -> None:
    lines = tables.commands(lab.trial("rust-mimalloc", "19", "17"))
    assert lines[0].startswith("# by 17@wheel\nclang -O1 -fPIC ")
    assert lines[1].startswith("# by 19@rustc-")
    assert "-Cprofile-generate" in lines[1]
    assert "/" not in "".join(lines)


def test_workarounds_are_filtered_and_explained(tried: tuple[workarounds.Row, ...]) -> None:
    live = workarounds.widget(tried)
    verdict, source, one = (controls(live)[n] for n in ("verdict:", "source:", "workaround:"))
    twin = workarounds.table(tried)
    assert bundle(live)["text/html"] == twin.html
    assert below(live).startswith(widgets.page(twin.html).removesuffix("</div>"))
    assert verdict.options == ("all", "does not help", "not tried", "no crash", "whole profile")
    verdict.value = "whole profile"
    assert rows(below(live))[0][0] == "cc-of-main"
    assert "mach-vm-protect" not in below(live)
    verdict.value, source.value = "all", "notes"
    assert [row[0] for row in rows(below(live))][:2] == ["fork", "mach-vm-protect (mimalloc)"]
    one.value = "c-not-instrumented"
    said = dict(row for row in rows(below(live)) if len(row) == 2)
    (row,) = [each for each in tried if each.workaround.id == one.value]
    assert said["changes"] == row.workaround.what
    assert said["verdict"].startswith("no crash, lacks")
    assert said["functions with right counts"].startswith("3 of 3 of main; 0 of ")
    assert said["by one LLVM alone"] == "ok"


def test_the_matrix_says_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = observations.load()
    live = mechanisms.widget(MECHANISMS, seen)
    mechanism, observation = (controls(live)[name] for name in ("mechanism:", "observation:"))
    assert mechanism.value == "C by another LLVM, of another raw version"
    assert "contradicts nothing." in below(live)
    made = MECHANISMS.set_index("mechanism")
    mechanism.value = freed = str(made.loc["values-freed", "what"])
    assert "contradicts at address; when; llvm-profdata says of what is left." in below(live)
    said = {row[0]: row[1:] for row in rows(below(live))}
    assert said["at address"] == ["0x0", "a real address", "contradicts it"]
    assert said["crashes in"][1:] == ["initializeValueProfRuntimeRecord", "agrees"]
    assert said["small programs"][2].startswith("agrees only if")
    observation.value = "when"
    assert [row[0] for row in rows(below(live))] == ["when"]
    mechanism.value = "all"
    assert len(rows(below(live))) == len(MECHANISMS)
    observation.value = "all"
    lacking = {row[0]: row[1] for row in rows(below(live))}
    assert lacking[freed] == "3"
    assert bundle(live)["text/html"] == mechanisms.figure(MECHANISMS, seen).html


def test_what_was_not_made_says_why() -> None:
    made = MECHANISMS.copy()
    made.loc[5, "why"] = "on linux: no"
    made.loc[5, [str(name) for name in made if "agrees_" in str(name)]] = "untried"
    live = mechanisms.widget(made, observations.load())
    controls(live)["mechanism:"].value = made["what"][5]
    assert "not tried: on linux: no" in below(live)
    assert "not tried here" in below(live)
