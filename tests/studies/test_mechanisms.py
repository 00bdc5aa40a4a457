"""Each mechanism really happens, and its signature is what the notebook reads off it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from nbsupport.base import process, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.crash.crash import Crash, Frame
from nbsupport.lab import programs
from nbsupport.lab.lab import Lab
from nbsupport.lab.outcome import Kind, Outcome
from nbsupport.studies import mechanisms, observations
from nbsupport.studies.build_change import BuildChange
from nbsupport.studies.mechanisms import Signature
from nbsupport.studies.observations import Observation
from nbsupport.toolchains.probe import Toolchain

SEEN = {one.id: one for one in observations.load() if one.id in mechanisms.criteria()}
WRITER, SITE = "initializeValueProfRuntimeRecord", "__llvm_profile_instrument_target"
#: What a program that ends normally comes to, and where it dies.
ENDS = {
    "healthy": "ok",
    "mixed": f"crash at exit {WRITER} 0x0",
    "mixed-newer": f"crash at exit {WRITER} 0x0",
    "mixed-library-first": "version-mismatch",
    "mixed-front-end": f"crash at exit {WRITER} 0x3",
    "values-freed": f"crash at exit {WRITER} a real address",
    "heap-freed": "crash at exit getCurFilenameLength a real address",
    "exit-order": "ok",
    "records-null": "crash at exit writeOneValueProfData 0x34",
    "values-null": f"crash in main {SITE} 0x18",
    "records-empty": "malformed",
    "two-runtimes": f"crash in main {SITE} 0x0",
    "two-runtimes-last": "ok",
    "two-runtimes-archive": f"crash in main {SITE} 0x0",
    "stray-object": f"crash in main {SITE} 0x0",
    "stray-object-local": f"crash at exit {WRITER} 0x0",
    "pool": "ok",
    "continuous-pool": "malformed",
    "stale-records": f"crash in main {SITE} a real address",
    "forked": "ok",
    "executed": "ok",
    "no-stack": "crash in the write the C library a real address",
    "no-memory": "no-profile",
    "variant-block": "malformed",
    "variant-entry": "malformed",
    "wrong-question": "ok",
}


@pytest.fixture(scope="module")
def made(lab: Lab, toolchain: Callable[[str], Toolchain]) -> dict[str, Signature]:
    for name in ("17", "19", "23"):
        toolchain(name)
    return {one.mechanism.id: one for one in mechanisms.measure(lab, "19", "17", whole=False)}


@pytest.fixture(scope="module")
def compared(made: dict[str, Signature]) -> pd.DataFrame:
    return mechanisms.compare(list(made.values()), list(SEEN.values()))


def test_each_comes_to_what_it_is_made_to(compared: pd.DataFrame) -> None:
    ends = compared[["ends", "function", "address"]].agg(" ".join, axis=1).str.strip()
    assert dict(zip(compared["mechanism"], ends, strict=True)) == ENDS


def test_what_is_left_is_judged_by_llvm_profdata(compared: pd.DataFrame) -> None:
    table = compared.set_index("mechanism")
    assert table.loc["mixed", "merge"] == "too much profile data"
    assert table.loc["continuous-pool", "merge"] == "truncated profile data"
    assert table.loc["variant-block", "merge"] == "malformed instrumentation profile data"
    assert table.loc["records-empty", "merge"] == "llvm-profdata dies of SIGSEGV"


def test_mixed_layouts_show_all_of_the_crash_and_no_rival_does(made: dict[str, Signature]) -> None:
    fits = {name: one.fits(list(SEEN.values())) for name, one in made.items()}
    assert [name for name, fit in fits.items() if list(fit.values()).count("yes") == 7] == ["mixed"]
    newer = {name for name, word in fits["mixed-newer"].items() if word != "yes"}
    assert newer == {"entries", "allocators"}  # jemalloc takes long: the whole tries it
    assert fits["mixed"].pop("entries") == "no"
    assert set(fits["mixed"].values()) == {"yes"}
    assert [name for name, fit in fits.items() if fit.get("entries") == "yes"] == [
        "records-null",
        "records-empty",
        "wrong-question",
    ]


@pytest.mark.whole
def test_in_the_whole_mixed_layouts_alone_show_all(
    lab: Lab, toolchain: Callable[[str], Toolchain]
) -> None:
    for name in ("17", "19", "23"):
        toolchain(name)
    fits = {
        one.mechanism.id: [*one.fits(list(SEEN.values())).values()]
        for one in mechanisms.measure(lab, "19", "17")
    }
    assert [name for name, words in fits.items() if words.count("yes") == 7] == [
        "mixed",
        "mixed-newer",
    ]
    assert not any("untried" in words for words in fits.values())


def test_freed_values_die_in_the_same_function_but_otherwise(made: dict[str, Signature]) -> None:
    fit = made["values-freed"].fits(list(SEEN.values()))
    assert [name for name, word in fit.items() if word == "no" and name != "entries"] == [
        "address",
        "moment",
        "merge",
    ]
    assert fit["function"] == "yes"
    assert (fit["size"], fit["systems"]) == ("assumed", "assumed")


@pytest.mark.parametrize("what", ["values-freed", "heap-freed"])
def test_what_main_writes_before_a_heap_is_freed_is_whole(
    made: dict[str, Signature], what: str
) -> None:
    outcomes, whole = made[what].outcomes, made["exit-order"].outcomes["cold"].profile
    assert outcomes["explicit"].profile.bytes - outcomes["cold"].profile.bytes > 0.9 * whole.bytes


def test_one_raw_version_is_no_mix(lab: Lab, toolchain: Callable[[str], Toolchain]) -> None:
    toolchain("22")
    mixed = mechanisms.load()[1]
    kinds = {
        name: lab.run(mixed.changed(lab, name, "19", "22")).kind for name in ("cold", "explicit")
    }
    assert mixed.id == "mixed"
    assert set(kinds.values()) == {"ok"}


# -- agreement is a function of what was measured


def crash(*functions: str, address: int = 0, by: str = "siginfo") -> Outcome:
    frames = tuple(Frame(name, 0, "program") for name in functions)
    dead = Crash("SIGSEGV", frames, fault_address=address, fault_address_from=by)  # type: ignore[arg-type]
    return Outcome("crash", "ended by SIGSEGV", crash=dead)


OK = Outcome("ok", "")
WRITES = (WRITER, "__llvm_profile_write_file")
FITS = {
    "cold": crash(*WRITES, "exit", address=3 << 60, by="registers"),
    "explicit": crash(*WRITES, "main"),
    "rich": crash(),
    "mimalloc": crash(),
    "jemalloc": crash(),
    "small": OK,
    "gcc": OK,
    "asked": Outcome("failed", "exit code 1: impossible: more than 2^24 records"),
}
OURS = BuildChange("x", "ours", "a mechanism")


def test_a_signature_that_fits_everything_agrees_with_everything() -> None:
    whole = Signature(OURS, FITS, "too much profile data")
    assert whole.fits(list(SEEN.values())) == dict.fromkeys(SEEN, "yes")


@pytest.mark.parametrize(
    ("observed", "program", "otherwise", "word"),
    [
        ("function", "cold", crash("writeOneValueProfData"), "no"),
        ("function", "cold", OK, "no"),
        ("address", "cold", crash(*WRITES, address=0x7FFF0000), "no"),
        ("address", "cold", crash(*WRITES, address=0), "yes"),
        ("moment", "explicit", crash(*WRITES, "exit"), "no"),
        ("moment", "explicit", crash(WRITER, "main"), "no"),
        ("moment", "explicit", crash("fopen", "__llvm_profile_write_file", "main"), "no"),
        ("moment", "explicit", OK, "no"),
        ("moment", "cold", OK, "no"),
        ("allocators", "jemalloc", OK, "no"),
        ("allocators", "mimalloc", OK, "no"),
        ("size", "small", crash(), "assumed"),
        ("size", "cold", OK, "no"),
        ("systems", "gcc", crash(), "assumed"),
        ("systems", "cold", OK, "no"),
        ("entries", "asked", Outcome("failed", "exit code 1: another reason"), "no"),
        # Without a debugger there are no frames, and no word of where it died.
        ("function", "cold", Outcome("crash", ""), "untried"),
        ("address", "cold", Outcome("crash", ""), "untried"),
        ("moment", "explicit", Outcome("crash", ""), "untried"),
        ("moment", "cold", Outcome("crash", ""), "untried"),
        ("allocators", "jemalloc", Outcome("crash", ""), "yes"),
    ],
)
def test_what_differs_from_the_report_does_not_agree(
    observed: str, program: str, otherwise: Outcome, word: str
) -> None:
    changed = Signature(OURS, {**FITS, program: otherwise}, "too much profile data")
    assert changed.agrees(SEEN[observed]) == word


def test_another_word_of_llvm_profdata_does_not_agree() -> None:
    assert Signature(OURS, FITS, "truncated profile data").agrees(SEEN["merge"]) == "no"


def test_a_criterion_is_of_an_observation_and_asks_for_what_is_measured() -> None:
    healthy = Signature(OURS, FITS)
    assert list(mechanisms.criteria()) == [name for name in mechanisms.criteria() if name in SEEN]
    for name, criterion in mechanisms.criteria().items():
        run = {*criterion.programs, "cold"}
        assert criterion.programs, name
        assert run >= {*criterion.crash, *criterion.alive}, name
        assert criterion.column in ("", *healthy.measured), name
        assert bool(criterion.says) == bool(criterion.column), name
        for program in run - {"small", "gcc"}:
            programs.get(program)


def test_a_new_observation_is_described_by_its_criterion_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forked = mechanisms.Criterion("forked, too", "forked", ("forked",), crash=("forked", "cold"))
    one = {"forked": dataclasses.replace(forked, in_crash=False), "twice": forked}
    monkeypatch.setattr(mechanisms, "criteria", lambda: one)
    seen = [Observation(name, f"what {name}", "value", "source") for name in one]
    outcomes = {"cold": crash(), "forked": OK}
    row, other = mechanisms.compare(
        [Signature(OURS, outcomes), Signature(OURS, {**outcomes, "forked": crash()})], seen
    ).to_dict("records")
    assert (row["agrees_forked"], other["agrees_forked"]) == ("no", "yes")
    assert (mechanisms.lacks(row), mechanisms.lacks(other)) == (["twice"], [])
    assert mechanisms.measurement(row, "twice") == "ok"
    drawn = mechanisms.figure(mechanisms.compare([Signature(OURS, outcomes)], seen), seen)
    assert "forked, too" in drawn.html


# -- what cannot be made to happen


def test_what_cannot_happen_here_says_why_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lab: Lab
) -> None:
    elsewhere = BuildChange("mach", "rival", "macOS alone", platform="plan9", why="it is of Plan 9")
    broken = BuildChange(
        "broken", "rival", "links nothing", foreign="main", link=("/nowhere/no-such.o",)
    )
    healthy = mechanisms.load()[0]
    monkeypatch.setattr(mechanisms, "load", lambda: (elsewhere, broken, healthy))
    found = mechanisms.measure(lab, "19", "17")
    assert [bool(one.why) for one in found] == [True, True, False]
    assert found[0].why == "on linux: it is of Plan 9"
    assert "no-such.o" in found[1].why
    assert "/nowhere" not in found[1].why
    assert capsys.readouterr().out == ""  # the table says it
    table = mechanisms.compare(found, list(SEEN.values()))
    assert table["why"].astype(bool).tolist() == [True, True, False]
    assert "not tried: on linux: it is of Plan 9" in mechanisms.table(table).text
    figure = mechanisms.figure(table, list(SEEN.values()))
    assert "Of 1 mechanisms these do: none." in figure.text


def test_what_one_program_lacks_is_untried_and_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lab: Lab
) -> None:
    find = lab._find

    def no_gcc(name: str) -> Toolchain:
        if name == "gcc":
            raise MissingError("gcc", "not found", "install it")
        return find(name)

    monkeypatch.setattr(lab, "_find", no_gcc)
    two = mechanisms.load()[:2]
    monkeypatch.setattr(mechanisms, "load", lambda: two)
    found = {one.mechanism.id: one for one in mechanisms.measure(lab, "19", "17")}
    assert capsys.readouterr().out == "left out: gcc: not found\n"
    fits = found["mixed"].fits(list(SEEN.values()))
    assert [name for name, word in fits.items() if word == "untried"] == ["systems"]
    assert not found["mixed"].why
    row = mechanisms.compare(list(found.values()), list(SEEN.values())).to_dict("records")[1]
    assert (row["gcc"], row["cold"]) == ("", "crash")
    assert mechanisms.lacks(row) == []


def test_the_default_runs_what_is_costly_of_ours_alone(
    lab: Lab, toolchain: Callable[[str], Toolchain], monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchain("17")
    some = {one.id: one for one in mechanisms.load() if one.id in ("mixed", "heap-freed", "pool")}
    monkeypatch.setattr(mechanisms, "load", lambda: (*some.values(),))
    few = {one.mechanism.id: one for one in mechanisms.measure(lab, "19", "17", whole=False)}
    assert {name for name, one in few.items() if "jemalloc" in one.outcomes} == {"mixed"}
    # Untried, but where the program with mimalloc has decided.
    agreed = {name: one.agrees(SEEN["allocators"]) for name, one in few.items()}
    assert agreed == {"mixed": "yes", "heap-freed": "untried", "pool": "no"}
    rows = mechanisms.compare([*few.values()], [*SEEN.values()]).to_dict("records")
    untried = {row["mechanism"]: mechanisms.untried(row) for row in rows}
    assert untried == {"mixed": [], "heap-freed": ["allocators"], "pool": []}


def test_an_unknown_toolchain_is_no_signature(lab: Lab) -> None:
    with pytest.raises(LabError, match="4711"):
        mechanisms.measure(lab, "19", "4711")


# -- the data


@pytest.mark.parametrize(
    "define",
    [
        *("VALUES_FREED", "HEAP_FREED", "NO_MEMORY", "NO_STACK", "EARLIER_RUN", "STALE", "BOTH"),
        *("LOCAL", "TWO_WRITERS", "COUNTING"),
    ],
)
def test_the_header_compiles_without_a_warning(define: str, clang: Path, tmp_path: Path) -> None:
    main = programs.get("cold").main
    more = ("-DEARLIER_RUN",) if define == "STALE" else ()
    flags = ("-Wall", "-Wextra", "-Werror", "-std=gnu11", f"-D{define}", *more)
    header = settings.data_dir() / "hypotheses" / "mechanism.h"
    argv = (clang, *flags, "-include", header, "-c", main.source, "-o", tmp_path / "main.o")
    done = process.run(argv, cwd=main.folder, limits=settings.COMPILER)
    assert done.ok, done.stderr


def test_shown_is_text_for_each_mechanism(
    made: dict[str, Signature], compared: pd.DataFrame
) -> None:
    text = mechanisms.table(compared).text
    assert "nan" not in text
    assert all(one.mechanism.what in text for one in made.values())
    assert len({change.what for change in mechanisms.load()}) == len(mechanisms.load())


def test_the_caption_names_the_rows_that_fit(
    made: dict[str, Signature], compared: pd.DataFrame
) -> None:
    figure = mechanisms.figure(compared, list(SEEN.values()))
    fits = made["mixed"].mechanism.what
    assert f"these do: {fits}." in figure.text
    freed = made["values-freed"].mechanism.what
    words = "a debugger prints a real address, dies only at exit, leaves truncated profile data"
    assert f"{freed}: {words}" in figure.html
    for group in ("no change", "our explanation", "what the notes say", "other explanations"):
        assert f">{group}</text>" in figure.html


def test_a_header_that_changes_is_another_program(lab: Lab) -> None:
    change = next(one for one in mechanisms.load() if one.id == "values-freed")
    trial, plain = change.changed(lab, "cold", "19", "17"), lab.trial("cold", "19", "19")
    assert trial.program.main.inputs_digest != plain.program.main.inputs_digest
    link = next(one for one in mechanisms.load() if one.id == "two-runtimes")
    linked = link.changed(lab, "cold", "19", "17")
    runtime = lab.trial("cold", "17", "17").main.runtime
    assert str(runtime) in linked.link
    assert linked.digest != dataclasses.replace(linked, link=()).digest
    assert all(not one.link for one in linked.references)
    kind: Kind = lab.run(linked).kind
    assert kind == "crash"
