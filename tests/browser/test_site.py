"""The site as a reader has it: whole, quiet, for narrow screens, for the keyboard and in the dark."""

from __future__ import annotations

import re
import shutil
import urllib.parse
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from nbsupport.base import files, process, settings
from nbsupport.report import site
from tests.browser import harness
from tests.browser.harness import Window

PACKAGES = Path(__file__).parent
SCREENS = [(1280, "light"), (390, "dark"), (1280, "dark"), (390, "light")]
#: Each width and each scheme once: axe takes a second a page.
SCANNED = SCREENS[:2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site of the recorded run, with the committed notebooks."""
    return site.build("recorded", tmp_path_factory.mktemp("site") / "site").parent


@pytest.fixture(scope="module")
def axe() -> str:
    """Return the source of axe, as package-lock.json pins it."""
    if shutil.which("npm") is None:
        pytest.skip("no npm, which brings axe: apt-get install npm")

    def install(folder: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(PACKAGES / name, folder / name)
        done = process.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            limits=settings.INSTALL,
        )
        assert done.ok, done.stderr

    pinned = files.digest(PACKAGES / "package-lock.json")[:16]
    folder = files.once(settings.cache_dir() / "npm" / pinned, install)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture
def window(request: pytest.FixtureRequest, chromium: Browser, built: Path) -> Iterator[Window]:
    """Return a window of the size and the scheme that the test asks for."""
    width, scheme = request.param
    size = {"width": width, "height": 900}
    with harness.window(chromium, built.as_uri(), viewport=size, color_scheme=scheme) as opened:
        yield opened


def pages(built: Path) -> list[Path]:
    found = sorted(built.rglob("*.html"))
    assert len(found) > len(list(settings.notebooks_dir().glob("*.ipynb")))
    return found


@pytest.mark.parametrize("window", SCREENS, indirect=True, ids=str)
def test_pages_are_whole_quiet_and_fit_the_screen(window: Window, built: Path) -> None:
    wrong = [f"{path.name}: {what}" for path in pages(built) for what in faults(window, path)]
    assert not wrong, "\n".join(wrong)


def faults(window: Window, path: Path) -> Iterator[str]:
    """Yield what is wrong with a page in a window."""
    window.errors.clear()
    window.outside.clear()
    page = window.page
    page.goto(path.as_uri())
    for part in ("html", ".content"):  # wide outputs scroll by themselves
        for found in page.locator(part).all():
            if (width := found.evaluate("part => part.scrollWidth")) > page.evaluate("innerWidth"):
                yield f"{part} is {width} wide, and scrolls sideways"
    if not page.title() or page.locator("h1").count() != 1:
        yield f"title {page.title()!r}, {page.locator('h1').count()} h1"
    yield from (f"says {error}" for error in window.errors)
    yield from (f"asks for {url}" for url in window.outside)


@pytest.mark.parametrize("window", SCANNED, indirect=True, ids=str)
def test_axe_finds_nothing_serious(window: Window, built: Path, axe: str) -> None:
    wrong = []
    for path in pages(built):
        window.page.goto(path.as_uri())
        window.page.evaluate(axe)
        wrong += [f"{path.name}: {said}" for said in window.page.evaluate(_SCAN)]
    assert not wrong, "\n".join(wrong)


_SCAN = """async () => (await axe.run({resultTypes: ["violations"]})).violations
  .filter(one => ["serious", "critical"].includes(one.impact))
  .map(one => `${one.id}: ${one.help}: ${one.nodes.map(node => node.target.join(" ")).join("; ")}`)"""


@pytest.mark.parametrize("window", SCREENS, indirect=True, ids=str)
def test_scheme_is_the_readers(window: Window, built: Path) -> None:
    window.page.goto((built / "index.html").as_uri())
    dark = window.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    colour = window.page.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = sum(map(int, re.findall(r"\d+", colour)[:3])) > 3 * 128
    assert bright != dark


class Links(HTMLParser):
    """Collects where a page's links lead, and the names of its parts."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.names: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.names |= {given.get("id") or "", given.get("name") or ""}
        self.targets += [given.get(key) or "" for key in ("href", "src") if key in given]


def dangling(folder: Path) -> list[str]:
    """Return the links within a folder of pages that lead nowhere, each with its page."""
    read = {path.resolve(): Links(path) for path in folder.rglob("*.html")}
    found = []
    for path, target in [(page, target) for page in read for target in read[page].targets]:
        parts = urllib.parse.urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        there = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
        fragment = urllib.parse.unquote(parts.fragment)
        named = not fragment or there not in read or fragment in read[there].names
        if not there.is_file() or not named:
            found.append(f"{path.name}: {target}")
    return found


def test_links_lead_somewhere(built: Path) -> None:
    assert dangling(built) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html">b</a><a href="#x">x</a>')
    (tmp_path / "b.html").write_text('<a href="a.html#y"><a href="c.html"><img src="d.png">')
    assert sorted(dangling(tmp_path)) == ["b.html: a.html#y", "b.html: c.html", "b.html: d.png"]
