"""The parameters of the notebooks: each is checked, shown with what it is, and set by a form."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbsupport.base import settings
from nbsupport.base.errors import LabError
from nbsupport.lab import programs
from nbsupport.notebooks import document, parameters
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain

BOOKS = sorted(settings.notebooks_dir().glob("*.ipynb"))
DEFAULTS = {path.stem: document.defaults(document.read(path)) for path in BOOKS}
FIRST = "01-reproduction"


def controls(form: Any) -> dict[str, Any]:
    return {row.children[0].description: row.children[0] for row in form.children[:-1]}


def said(form: Any) -> str:
    return str(form.children[-1].value)


@pytest.fixture
def given(toolchain: Callable[[str], Toolchain]) -> dict[str, Any]:
    toolchain("17"), toolchain("22")
    return {**DEFAULTS[FIRST], "lab": "what else a notebook has"}


@pytest.mark.parametrize("path", BOOKS, ids=[path.stem for path in BOOKS])
def test_each_notebook_has_its_form_below_its_parameters(path: Path) -> None:
    book = document.read(path)
    cells = document.code(book)
    sources = [cell.source for cell in cells]
    (at,) = [n for n, cell in enumerate(cells) if document.PARAMETERS in document.tags(cell)]
    call = rf'start\("{path.stem}", globals\(\)(, replayed=False)?\)'
    assert re.fullmatch(rf"from nbsupport.notebooks import .*\bstart\n\n{call}", sources[at + 1])
    assert set(DEFAULTS[path.stem]) <= set(parameters.KINDS)
    assert all(document.comments(book).values())


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_defaults_of_every_notebook_are_good(name: str, given: dict[str, Any]) -> None:
    form = parameters.form(name, dict(DEFAULTS[name]))
    values = {key: one.value for key, one in controls(form).items()}
    joined = {key: ",".join(v) if isinstance(v, tuple) else v for key, v in values.items()}
    assert joined == DEFAULTS[name]
    assert "All values are the defaults." in said(form)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("source", "taped", "source 'taped': not known; choose one of live, recorded"),
        ("order", "x", "order 'x': not known; choose one of main-first, foreign-first"),
        ("instrument", "gcc", "instrument 'gcc': not known; choose one of ir, front-end, none"),
        ("program", "nope", f"program 'nope': not known; choose one of {', '.join(programs.names())}"),
        ("llvm", "99", "toolchain 99: not found (there are "),
        ("llvm", 19, "llvm 19: not a text; write llvm = \"19\" (papermill: -r llvm 19)"),
        ("foreign", "", "foreign '': no LLVM is called ''; give a version (19), a provider's"),
        ("twin", "/no/where", "/no/where: no compiler there; give the path of a clang or its"),
        ("alike", "a b", "alike 'a b': no LLVM is called 'a b'; give a version"),
        ("grid", "17;18", "grid '17;18': no LLVM is called '17;18'; give versions with commas"),
        ("versions", "", "versions '': no LLVM is called ''; give versions with commas"),
        ("repetitions", 2, "repetitions 2: no number, or too small; take 6 or more"),
        ("repetitions", "9", "repetitions '9': no number, or too small; take 6 or more"),
        ("repetitions", True, "repetitions True: no number, or too small"),
        ("run_folder", None, "run_folder None: not a text"),
    ],
)  # fmt: skip
def test_a_wrong_value_says_which_are_allowed(
    name: str, value: object, words: str, given: dict[str, Any]
) -> None:
    with pytest.raises(LabError) as error:
        parameters.check(name, value)
    assert str(error.value).startswith(words)
    book = next(book for book, has in DEFAULTS.items() if name in has)
    with pytest.raises(LabError) as again:
        parameters.form(book, {**DEFAULTS[book], name: value})
    assert str(again.value) == str(error.value)


@pytest.mark.parametrize("name", ["19@wheel", "22@rustc-1.95.0", "gcc", "18.1.8", "/usr/bin/clang"])
def test_what_may_name_an_llvm(name: str) -> None:
    for one in ("llvm", "compare_to"):
        parameters.check(one, name, "recorded")
    parameters.check("grid", f"17,{name}")


def test_a_recording_asks_for_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("discover", "find"):
        monkeypatch.setattr(discovery, name, lambda *_: pytest.fail("asked"))
    parameters.form(FIRST, {**DEFAULTS[FIRST], "source": "recorded", "llvm": "99"})


def test_a_control_sets_the_variable_for_the_cells_below(given: dict[str, Any]) -> None:
    form = parameters.form(FIRST, given)
    llvm, order = (controls(form)[name] for name in ("llvm", "order"))
    assert {"17", "19", "19@wheel"} <= set(llvm.options)
    assert order.options == ("main-first", "foreign-first")
    llvm.value, order.value = "22", "foreign-first"
    assert (given["llvm"], given["order"]) == ("22", "foreign-first")
    assert "Not the default: llvm = &#x27;22&#x27;, order = &#x27;foreign-first&#x27;." in said(
        form
    )
    assert "Run the cells below again" in said(form)
    llvm.value, order.value = "19", "main-first"
    assert "All values are the defaults." in said(form)
    assert given["lab"] == "what else a notebook has"


def test_what_is_refused_is_told_and_put_back(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    form = parameters.form(FIRST, given)
    one = controls(form)
    for value in ("23@<b>", "22"):  # there when the form was made, and gone since
        one["llvm"].options = (*one["llvm"].options, "23@<b>")
        one["llvm"].value = value
    assert given["llvm"] == one["llvm"].value == "22"
    assert "&lt;b&gt;" not in said(form)
    one["llvm"].value = "23@<b>"
    assert given["llvm"] == one["llvm"].value == "22"
    assert "no LLVM is called &#x27;23@&lt;b&gt;&#x27;" in said(form)
    assert "(It stays &#x27;22&#x27;.)" in said(form)
    one["grid"].value = ()
    assert given["grid"] == ",".join(one["grid"].value) == DEFAULTS[FIRST]["grid"]
    assert "no LLVM is called &#x27;&#x27;" in said(form)
    one["llvm"].value = "19"
    assert "&lt;b&gt;" not in said(form)
    assert "no LLVM is called &#x27;&#x27;" in said(form), "the other one is still told"


def test_several_llvms_are_chosen_in_a_list(given: dict[str, Any]) -> None:
    one = controls(parameters.form(FIRST, given))["grid"]
    one.value = ("17", "22")
    assert given["grid"] == "17,22"


def test_a_number_is_bounded() -> None:
    given = dict(DEFAULTS["08-pgo-benefit"])
    one = controls(parameters.form("08-pgo-benefit", given))["repetitions"]
    one.value = 1
    assert (one.value, given["repetitions"]) == (6, 6)


def test_a_page_without_a_kernel_shows_names_values_and_meanings(given: dict[str, Any]) -> None:
    twin = parameters.form(FIRST, {**given, "llvm": "22"})._repr_mimebundle_()
    lines = [line.split(None, 2) for line in twin["text/plain"].splitlines()[1:]]
    assert [line[0] for line in lines] == list(DEFAULTS[FIRST])
    assert lines[0] == ["llvm", "22", "main's LLVM: compiles main, brings the runtime"]
    assert "<td>or &quot;recorded&quot;: needs no compiler</td>" in twin["text/html"]
    assert document.WIDGET in twin


def test_an_installed_wheel_has_no_notebooks(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "notebooks_dir", lambda: tmp_path)
    assert set(controls(parameters.form(FIRST, given))) == set(DEFAULTS[FIRST])


def test_what_papermill_injects_is_shown_and_checked(tmp_path: Path) -> None:
    """The form stands below the injected cell; a wrong value ends the notebook there."""
    book = document.read(settings.notebooks_dir() / f"{FIRST}.ipynb")
    book.cells = document.code(book)[:2]
    path = tmp_path / f"{FIRST}.ipynb"
    path.write_text(document.dump(book))

    def run(*options: str) -> tuple[int, str]:
        out = tmp_path / "out.ipynb"
        command = [sys.executable, "-m", "papermill", str(path), str(out), *options]
        command += ["--no-progress-bar", "--log-level", "ERROR", "-k", "python3"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        shown = [o for c in document.code(document.read(out)) for o in c.outputs]
        return done.returncode, str(shown)

    code, shown = run("-r", "order", "foreign-first")
    assert (code, "order       foreign-first" in shown) == (0, True)
    code, shown = run("-r", "order", "sideways")
    assert (code, "order 'sideways': not known; choose one of main-first" in shown) == (1, True)
