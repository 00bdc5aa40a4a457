"""What a reader waits for: a widget's answer, the site and its pages; part of `make bench`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
from playwright.sync_api import Locator

from nbsupport.base import settings
from nbsupport.report import site
from tests.bench.row import Place, Row, Sample, seconds, timed
from tests.browser import harness
from tests.browser.harness import Book, Window

#: From an event on a control to the first change of the widget's last pane of HTML.
_ANSWER = """(control, event) => new Promise(done => {
  const vbox = control.closest(".widget-vbox");
  const pane = [...vbox.querySelectorAll(":scope > .widget-html .widget-html-content")].at(-1);
  let start = 0;
  setTimeout(() => done(10000), 10000);
  const seen = new MutationObserver(() => { seen.disconnect(); done(performance.now() - start); });
  seen.observe(pane, {childList: true, subtree: true, characterData: true});
  control.addEventListener(event, () => { start = performance.now(); }, {once: true, capture: true});
})"""
_PAINTED = """() => new Promise(done => new PerformanceObserver(list => done(Math.max(
  ...list.getEntries().filter(one => one.name == "first-contentful-paint").map(one => one.startTime),
  performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd,
))).observe({type: "paint", buffered: true}))"""
#: The least that a widget can be: the rival of ours.
_BARE = """
import ipywidgets as w
slider, pane = w.IntSlider(), w.HTML()
slider.observe(lambda change: setattr(pane, "value", str(change.new)), "value")
w.VBox([slider, pane])
"""


def built(place: Place) -> tuple[Sample, Sample]:
    notebooks = sorted(settings.notebooks_dir().glob("*.ipynb"))

    def theirs() -> float:
        convert = (sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir")
        return timed(*convert, place.fresh(), *notebooks)()

    return lambda: seconds(lambda: site.build("recorded", place.fresh() / "site")), theirs


def pages(place: Place) -> list[Path]:
    folder = place.once("site", lambda staging: site.build("recorded", staging / "site"))
    return sorted((folder / "site").glob("*.html"))


def views(place: Place) -> tuple[Sample, Sample]:
    there = pages(place)
    empty = place.work / "empty.html"
    empty.write_text("<!doctype html><title>empty</title><p>empty")
    browser = place.stack.enter_context(harness.chromium())
    page = place.stack.enter_context(harness.window(browser, "file:")).page

    def view(path: Path) -> float:
        page.goto(path.as_uri())
        return float(page.evaluate(_PAINTED)) / 1e3

    view(empty)
    return lambda: max(map(view, there)), lambda: view(empty)


def weights(place: Place) -> tuple[Sample, Sample]:
    sizes = [path.stat().st_size / 1e6 for path in pages(place)]
    return lambda: max(sizes), lambda: sum(sizes) / len(sizes)


def lab(place: Place) -> Callable[[str], Book]:
    """Return a function that opens a notebook in a JupyterLab."""
    browser = place.stack.enter_context(harness.chromium())
    served = place.stack.enter_context(harness.server(settings.notebooks_dir(), place.fresh()))
    new = nbformat.v4
    named = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}  # else JupyterLab asks
    bare = new.new_notebook(cells=[new.new_code_cell(_BARE)], metadata=named)  # type: ignore[no-untyped-call]
    nbformat.write(bare, served.folder / "bare.ipynb")  # type: ignore[no-untyped-call]

    def opened(name: str) -> Book:
        window: Window = place.stack.enter_context(harness.window(browser, served.url))
        return Book(window, served, name)

    return opened


def shown(book: Book, source: str) -> Locator:
    """Run the notebook down to a cell, and return its widget."""
    book.select(source)
    book.command("notebook:run-all-above")
    book.command("notebook:run-cell")
    return book.widget(source)


def answer(control: Locator, event: str, act: Callable[[], object]) -> float:
    """Do something to a control, and return the seconds to the change that it makes."""
    waits = control.evaluate_handle(
        f"(control, event) => ({{done: ({_ANSWER})(control, event)}})", event
    )
    act()
    return float(waits.evaluate("waits => waits.done")) / 1e3


def key(widget: Locator) -> float:
    slider = widget.get_by_role("slider")
    return answer(slider, "keydown", lambda: slider.press("ArrowRight"))


def bare(opened: Callable[[str], Book]) -> Sample:
    @functools.cache
    def widget() -> Locator:
        return shown(opened("bare"), "IntSlider")

    return lambda: key(widget())


def timeline(place: Place) -> tuple[Sample, Sample]:
    """Measure from each key press on the slider to the change on the page."""
    opened = lab(place)
    widget = shown(opened("02-lldb-trace"), "pictures.timeline(")
    return lambda: key(widget), bare(opened)


def ruler(place: Place) -> tuple[Sample, Sample]:
    """Measure from each choice to its ruler; no two of them are alike."""
    opened = lab(place)
    widget = shown(opened("03-record-layout"), "ruler.widget(")

    def choices() -> Iterator[float]:
        for main in ("17", "19", "23"):
            for library in ("19", "23", "17"):
                for label, value in (("main:", main), ("library:", library)):
                    control = widget.get_by_label(label)
                    if control.input_value() != value:
                        choose = functools.partial(control.select_option, value)
                        yield answer(control, "change", choose)

    taken = choices()
    return lambda: next(taken), bare(opened)


ROWS = (
    Row("widgets.site", "the site, built", "nbconvert of its notebooks", "15 s", built),
    Row("widgets.view", "a page's first view, at most", "an empty page's", "1 s", views),
    Row("widgets.weight", "a page's weight, at most", "the average page's", "3 MB", weights, 1,
        unit="MB"),
    Row("widgets.timeline", "the timeline's answer to a key", "a bare slider's", "0.1 s", timeline,
        20),
    Row("widgets.ruler", "the ruler's to another pair", "a bare slider's to a key", "0.1 s", ruler,
        10),
)  # fmt: skip
