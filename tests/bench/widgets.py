"""What a reader waits for: a widget's answer, the site and its pages; part of `make bench`."""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator

from nbsupport.base import settings
from nbsupport.report import site
from tests.browser import harness
from tests.browser.harness import Book

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


def rows() -> list[tuple[str, str, str, str]]:
    """Return the figures: what, measured, beside what, and the goal."""
    with tempfile.TemporaryDirectory() as name, harness.chromium() as browser:
        folder = Path(name)
        start = time.monotonic()
        front = site.build("recorded", folder / "site")
        built = time.monotonic() - start
        pages = sorted(front.parent.glob("*.html"))
        with harness.window(browser, front.parent.as_uri()) as window:
            views = {}
            for path in pages:
                window.page.goto(path.as_uri())
                views[path.name] = window.page.evaluate(_PAINTED)
        slowest = max(views, key=lambda page: float(views[page]))
        weight, heaviest = max((path.stat().st_size, path.name) for path in pages)
        with (
            harness.server(settings.notebooks_dir(), folder) as served,
            harness.window(browser, served.url) as window,
        ):
            pressed = keys(Book(window, served, "02-lldb-trace"))
            chosen = choices(Book(window, served, "03-record-layout"))
    return [
        ("the site, built", f"{built:.1f} s", f"{len(pages)} pages", "15 s"),
        ("a page's first view, at most", f"{views[slowest]:.0f} ms", slowest, "1000 ms"),
        ("a page's weight, at most", f"{weight / 1e6:.2f} MB", heaviest, "3 MB"),
        timing("the timeline's answer to a key", pressed),
        timing("the ruler's to another pair", chosen),
    ]


def timing(what: str, taken: list[float]) -> tuple[str, str, str, str]:
    """Return the row of a widget's answers."""
    measured = f"{statistics.median(taken):.0f} ms, at most {max(taken):.0f}"
    return what, measured, f"median of {len(taken)}", "100 ms"


def keys(book: Book) -> list[float]:
    """Return the milliseconds from each key press on the slider to the change on the page."""
    widget = shown(book, "widgets.timeline(")
    slider = widget.get_by_role("slider")
    return [answer(slider, "keydown", lambda: slider.press("ArrowRight")) for _ in range(20)]


def choices(book: Book) -> list[float]:
    """Return the milliseconds from each choice to its ruler; no two of them are alike."""
    widget = shown(book, "widgets.ruler(")
    taken = []
    for main in ("17", "19", "23"):
        for library in ("19", "23", "17"):
            for label, value in (("main:", main), ("library:", library)):
                control = widget.get_by_label(label)
                if control.input_value() != value:
                    choose = functools.partial(control.select_option, value)
                    taken.append(answer(control, "change", choose))
    return taken


def shown(book: Book, source: str) -> Locator:
    """Run the notebook down to a cell, and return its widget."""
    book.select(source)
    book.command("notebook:run-all-above")
    book.command("notebook:run-cell")
    return book.widget(source)


def answer(control: Locator, event: str, act: Callable[[], object]) -> float:
    """Do something to a control, and return the milliseconds to the change that it makes."""
    waits = control.evaluate_handle(
        f"(control, event) => ({{done: ({_ANSWER})(control, event)}})", event
    )
    act()
    return float(waits.evaluate("waits => waits.done"))


if __name__ == "__main__":
    for row in rows():
        print(*row, sep="  ")  # noqa: T201
