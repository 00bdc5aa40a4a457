"""JupyterLab as a reader has it: every notebook runs, and what is there to play with answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
from playwright.sync_api import Browser, Locator, expect

from nbsupport.base import settings
from tests.browser import harness
from tests.browser.harness import Book, Server

#: Notebooks with widgets that are opened in `make test`; the others only in `make test-all`.
QUICK = ("02-lldb-trace", "03-record-layout", "09-llvm-versions")
NAMES = [path.stem for path in sorted(settings.notebooks_dir().glob("*.ipynb"))]
ALL = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow], id=name) for name in NAMES
]

expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def served(toolchain: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with harness.server(settings.notebooks_dir(), tmp_path_factory.mktemp("lab")) as started:
        yield started


@pytest.fixture
def open_(chromium: Browser, served: Server) -> Iterator[Callable[[str], Book]]:
    """Return a function that opens a notebook in a window of its own."""
    with ExitStack() as stack:

        def opened(name: str) -> Book:
            window = stack.enter_context(harness.window(chromium, served.url))
            return Book(window, served, name)

        yield opened


@pytest.fixture(scope="module")
def ran(chromium: Browser, served: Server) -> Iterator[Callable[[str], Book]]:
    """Return a function that opens a notebook and chooses Run All, once for all tests of it."""
    with ExitStack() as stack:

        @functools.cache
        def run(name: str) -> Book:
            window = stack.enter_context(harness.window(chromium, served.url))
            book = Book(window, served, name)
            book.command("notebook:run-all-cells")
            return book

        yield run


def fails(book: Book) -> list[str]:
    """Return what went wrong in a notebook, as its file has it."""
    outputs = [output for cell in book.save().cells for output in cell.get("outputs", ())]
    return [f"{o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"]


@pytest.mark.parametrize("name", ALL)
def test_run_all_ends_without_an_error(ran: Callable[[str], Book], name: str) -> None:
    book = ran(name)
    assert not fails(book)
    code = [cell for cell in book.save().cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert book.page.get_by_text("Error displaying widget").count() == 0
    assert not book.window.errors
    assert not book.window.outside


def test_figures_show_before_anything_is_run(open_: Callable[[str], Book]) -> None:
    cell = open_("01-reproduction").select("tables.grid(cells)")
    expect(cell.locator("figure svg")).to_be_visible()
    expect(cell.locator("figcaption")).to_contain_text("LLVMs work together within these groups")


def shows(widget: Locator, *texts: str) -> None:
    """Wait until a widget has all of these texts in it."""
    for text in texts:
        expect(widget).to_contain_text(text)


def choose(control: Locator, option: str, widget: Locator, text: str) -> None:
    """Choose, and wait for a text; again, if JupyterLab has just drawn the widget anew."""
    for _ in range(3):
        control.select_option(option)
        with suppress(AssertionError):
            expect(widget).to_contain_text(text, timeout=8_000)
            return
    shows(widget, text)


def test_timeline_by_keyboard(ran: Callable[[str], Book]) -> None:
    widget = ran("02-lldb-trace").widget("pictures.timeline(")
    slider, choice = widget.get_by_role("slider"), widget.get_by_label("jump to:")
    slider.press("End")
    shows(widget, "crash: SIGSEGV", "reading the record of library_step", "taken for Values")
    expect(choice.locator("option:checked")).to_have_text("58: the end")
    slider.press("ArrowLeft")
    shows(widget, "record: initializeValueProfRuntimeRecord")
    expect(widget).not_to_contain_text("taken for Values")
    expect(choice.locator("option:checked")).to_have_text("-")


def test_timeline_by_mouse(ran: Callable[[str], Book]) -> None:
    widget = ran("02-lldb-trace").widget("pictures.timeline(")
    choose(widget.get_by_label("jump to:"), "10: the raw profile is created", widget, "file: fopen")
    shows(widget, "run.profraw")
    expect(widget.get_by_role("slider")).to_have_attribute("aria-valuetext", "10")
    widget.locator(".noUi-target").click(position={"x": 1, "y": 1})
    shows(widget, "registered: __cxa_atexit")


def test_ruler(ran: Callable[[str], Book]) -> None:
    widget = ran("03-record-layout").widget("ruler.widget(")
    main, library = widget.get_by_label("main:"), widget.get_by_label("library:")
    expect(widget.locator("details[open]")).to_have_count(0)  # the reader predicts first
    caption = widget.locator("details figcaption")
    choose(library, "23", caption, "records have 72 bytes")
    shows(caption, "raw version 8 steps 48 bytes", "FuncHash of fill")
    choose(main, "19", caption, "raw version 10 steps 64 bytes")
    choose(library, "17", caption, "records have 48 bytes")
    shows(caption, "raw version 10 steps 64 bytes", "0x1000100000003")


def test_dropdown_by_keyboard(ran: Callable[[str], Book]) -> None:
    book = ran("03-record-layout")
    library = book.widget("ruler.widget(").get_by_label("library:")
    library.select_option("19")
    library.focus()
    for key in ("Space", "ArrowDown", "Enter"):  # of a closed list, JupyterLab takes the arrows
        book.page.keyboard.press(key)
    expect(library).to_have_value("22")


def test_grid(ran: Callable[[str], Book]) -> None:
    widget = ran("09-llvm-versions").widget("tables.grid_widget(")
    widget.get_by_title("main 19@wheel, library 17@wheel: crash").click()
    shows(widget, "ended by SIGSEGV", "0x1000100000003", "initializeValueProfRuntimeRecord <")
    shows(widget, "# by 17@wheel", "clang -O1 -fPIC -fprofile-generate -c library_cold.c")
    ran("09-llvm-versions").page.keyboard.press("Tab")
    ran("09-llvm-versions").page.keyboard.press("Enter")
    shows(widget, "main 19@wheel, library 18@wheel, main-first", "# by 18@wheel")
    expect(widget).not_to_contain_text("SIGSEGV")
    order = widget.get_by_label("order:")
    order.select_option("foreign-first")
    other = widget.get_by_title("main 19@wheel, library 17@wheel: version-mismatch")
    expect(other).to_have_text("mismatch")
    shows(widget, "main 19@wheel, library 18@wheel, foreign-first")


@pytest.mark.slow
def test_matrix(ran: Callable[[str], Book]) -> None:
    widget = ran("06-hypotheses").widget("mechanisms.widget(")
    shows(widget, "C by another LLVM, of another raw version contradicts nothing.")
    widget.get_by_label("mechanism:").select_option("the values are unmapped before the write")
    shows(widget, "contradicts at address; when; ")
    widget.get_by_label("mechanism:").select_option("all")
    widget.get_by_label("observation:").select_option("crashes in")
    shows(widget, "crashes in: initializeValueProfRuntimeRecord", "getCurFilenameLength")


@pytest.mark.slow
def test_workarounds(ran: Callable[[str], Book]) -> None:
    widget = ran("07-workarounds").widget("workarounds.widget(")
    widget.get_by_label("verdict:").select_option("whole profile")
    widget.get_by_label("workaround:").select_option("cc-of-main")
    shows(widget, "cc-of-raw-version", "CC is the clang of main's LLVM")
    expect(widget).not_to_contain_text("does not help:")
    widget.get_by_label("workaround:").select_option("fork")
    shows(widget, "a forked child writes the profile", "does not help: dies in")


def test_form_sets_the_parameters_of_the_cells_below(open_: Callable[[str], Book]) -> None:
    book = open_("01-reproduction")
    book.select("tables.outcome(outcome)")
    book.command("notebook:run-all-above")
    form = book.widget("start(")
    shows(form, "All values are the defaults.")
    form.get_by_label("grid").select_option([])
    shows(form, "grid", "no LLVM is called", "It stays '17,")
    form.get_by_label("foreign").select_option("22")
    form.get_by_label("order").select_option("foreign-first")
    shows(form, "Not the default: foreign = '22', order = 'foreign-first'.")
    for below, shown in (("tables.trial(trial)", "22.1.8"), ("tables.outcome(outcome)", "ok:")):
        cell = book.select(below)
        book.command("notebook:run-cell")  # those below both take half a minute more
        shows(cell, shown)
    assert not fails(book)


def test_exercise_says_whether_an_answer_is_right(ran: Callable[[str], Book]) -> None:
    book = ran("02-lldb-trace")
    cell = book.select('check_answer("02-1"')
    shows(cell, "no answer yet")
    for answer, verdict in (("mi_process_done", "not yet"), ("writeFileWithoutReturn", "right")):
        editor = cell.locator(".cm-content")
        editor.press("Control+a")
        book.page.keyboard.insert_text(f'check_answer("02-1", "{answer}")')
        editor.press("Control+Enter")
        shows(cell, verdict)


def test_what_was_set_is_there_in_a_saved_notebook(
    ran: Callable[[str], Book], open_: Callable[[str], Book]
) -> None:
    book = ran("02-lldb-trace")
    widget = book.widget("pictures.timeline(")
    widget.get_by_role("slider").press("End")
    shows(widget, "taken for Values")
    book.save()
    book.shut_down()
    again = open_("02-lldb-trace")
    widget = again.widget("pictures.timeline(")
    shows(widget, "crash: SIGSEGV", "taken for Values")
    expect(widget.get_by_role("slider")).to_have_attribute("aria-valuetext", "58")
    assert again.page.get_by_text("Error displaying widget").count() == 0
    assert not again.window.errors
