"""What a reader waits for: a widget's answer, the site and its pages; part of `make bench`."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from browser import harness
from browser.harness import Book

from nbsupport import settings, site

#: Press a key on the slider, and wait for the first change of the widget's HTML.
_PRESSED = """slider => new Promise(done => {
  const pane = slider.closest(".widget-vbox").querySelector(":scope > .widget-html .widget-html-content");
  let start = 0;
  const seen = new MutationObserver(() => { seen.disconnect(); done(performance.now() - start); });
  seen.observe(pane, {childList: true, subtree: true, characterData: true});
  slider.addEventListener("keydown", () => { start = performance.now(); }, {once: true, capture: true});
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
            answer = answers(Book(window, served, "02-lldb-trace"))
    return [
        ("the site, built", f"{built:.1f} s", f"{len(pages)} pages", "15 s"),
        ("a page's first view, at most", f"{views[slowest]:.0f} ms", slowest, "1000 ms"),
        ("a page's weight, at most", f"{weight / 1e6:.2f} MB", heaviest, "3 MB"),
        ("a widget's answer to a key", f"{answer:.0f} ms", "median of 20", "100 ms"),
    ]


def answers(book: Book) -> float:
    """Return the median milliseconds from a key press on the slider to the change on the page."""
    book.select("widgets.timeline(")
    book.command("notebook:run-all-above")
    book.command("notebook:run-cell")
    slider = book.widget("widgets.timeline(").get_by_role("slider")
    taken = []
    for _ in range(20):
        waits = slider.evaluate_handle(f"slider => ({{done: ({_PRESSED})(slider)}})")
        slider.press("ArrowRight")
        taken.append(float(waits.evaluate("waits => waits.done")))
    return statistics.median(taken)


if __name__ == "__main__":
    for row in rows():
        print(*row, sep="  ")  # noqa: T201
