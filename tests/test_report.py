"""The HTML site: whole, offline, readable on a phone, replaced only by a whole one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from nbsupport import notebook, report, results, settings
from nbsupport.errors import LabError

WIDGET_TEXT = "HBox(children=())"
ERROR = "cell 2: ValueError: a `quoted` <b> thing"
MANIFEST: dict[str, Any] = {
    "finished": "2025-03-04T05:06:07+00:00",
    "platform": "Linux x86_64",
    "toolchains": [
        {"name": "19@wheel", "kind": "clang", "version": "19.1.7"},
        {"name": "19@rustc", "kind": "rustc", "version": "19.1.9"},
        {"name": "19@debian", "kind": "clang", "version": "19.1.7"},
        {"name": "22@wheel", "kind": "clang", "version": "22.1.8"},
    ],
    "notebooks": {"01-reproduction": {"status": "failed", "error": ERROR}},
}
WIDE = (
    "<table class='dataframe'><tr>"
    + "<td>__llvm_profile_instrument_target</td>" * 9
    + "</tr></table>"
)


def claim(*, holds: bool, sentence: str) -> dict[str, object]:
    observed = "crash" if holds else "ok"
    record = {"name": sentence, "sentence": sentence, "holds": holds, "at": {}}
    record |= {"predicted": "crash", "observed": observed}
    return {"text/plain": "a claim", results.CLAIM: record}


def shown(*bundles: dict[str, object], source: str = "show()") -> NotebookNode:
    new = nbformat.v4.new_output
    outputs = [new("display_data", data=data) for data in bundles]  # type: ignore[no-untyped-call]
    cell: NotebookNode = nbformat.v4.new_code_cell(source, outputs=outputs)  # type: ignore[no-untyped-call]
    return cell


def prose(source: str, *tags: str) -> NotebookNode:
    cell: NotebookNode = nbformat.v4.new_markdown_cell(source)  # type: ignore[no-untyped-call]
    cell.metadata["tags"] = list(tags)
    return cell


def make_run(folder: Path, **books: list[NotebookNode]) -> Path:
    (folder / "notebooks").mkdir(parents=True)
    for name, cells in books.items():
        whole = nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
        (folder / "notebooks" / f"{name}.ipynb").write_text(notebook.dump(whole))
    entries = {name: {"status": "executed"} for name in books} | MANIFEST["notebooks"]
    (folder / "manifest.json").write_text(json.dumps({**MANIFEST, "notebooks": entries}))
    return folder


FRONT = [
    prose("# Start here\n\nSee [what happened](01-reproduction.ipynb) and [why](07-why.ipynb#x)."),
    shown(
        claim(holds=True, sentence="19 with 17 crashes"),
        claim(holds=False, sentence="23 with <19> crashes"),
    ),
    shown({"text/plain": "recorded: grid", results.TABLE: {"name": "grid", "rows": [{"a": 9917}]}}),
    shown({"text/plain": "x.c: 1 line", "text/html": '<pre class="source">int excerpted;</pre>'}),
]
SECOND = [
    prose("An Exception was encountered", notebook.PAPERMILL_ERROR),
    prose("# Reproduction\n\n## One\n\ntext\n\n#### A level left out\n\n```nosuchlanguage\nx\n```"),
    shown(
        {"text/html": "<figure><svg viewBox='0 0 9 9'></svg><figcaption>C</figcaption></figure>"}
    ),
    shown({"text/plain": "frame", "text/html": WIDE}, source="x = " + "'long' + " * 60 + "''"),
    shown({"text/plain": WIDGET_TEXT, notebook.WIDGET: {"model_id": "m"}}),
    shown({"text/plain": "t", "text/html": "<b>the twin</b>", notebook.WIDGET: {"model_id": "n"}}),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("report")
    run = make_run(folder / "run", **{"00-start-here": FRONT, "01-reproduction": SECOND})
    front = report.site(run, folder / "build" / "site")
    assert front == folder / "build" / "site" / "index.html"
    assert [path.name for path in (folder / "build").iterdir()] == ["site"]
    yield front.parent


def text(page: Path) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page.read_text()))


def test_front_page_is_the_first_notebook(site: Path) -> None:
    assert (site / "index.html").read_text() == (site / "00-start-here.html").read_text()
    entries = re.findall(
        r'toctree-l1[^>]*><a [^>]*href="([^"]*)">([^<]*)', (site / "index.html").read_text()
    )
    assert entries == [("#", "Start here"), ("01-reproduction.html", "Reproduction")]


def test_links_lead_to_pages_or_are_text(site: Path) -> None:
    page = (site / "index.html").read_text()
    assert re.search(r'href="01-reproduction.html"[^>]*><span[^>]*>what happened', page)
    assert "and why." in text(site / "index.html")


def test_claims_say_whether_they_hold(site: Path) -> None:
    page = (site / "index.html").read_text()
    assert re.search(r'class="claim holds"><strong>✓ holds</strong>19 with 17 crashes<', page)
    assert re.search(
        r'class="claim fails"><strong>✗ does not hold</strong>23 with &lt;19&gt;', page
    )
    assert "predicted crash, observed ok" in page
    assert "9917" not in page  # rows are for programs
    assert "recorded: grid" in page


def test_failed_notebook_says_so_below_its_title(site: Path) -> None:
    page = text(site / "01-reproduction.html")
    assert "This notebook failed: cell 2: ValueError: a `quoted` &lt;b&gt; thing" in page
    assert "An Exception was encountered" not in page
    assert page.index("Reproduction¶") < page.index("This notebook failed")


def test_excerpts_of_sources_are_in_the_site(site: Path) -> None:
    assert "int excerpted;" in text(site / "index.html")


def test_widget_leaves_its_twin(site: Path) -> None:
    page = (site / "01-reproduction.html").read_text()
    assert "<b>the twin</b>" in page
    assert WIDGET_TEXT not in page


def test_foot_tells_when_and_with_what(site: Path) -> None:
    line = "Executed 2025-03-04 05:06 UTC on Linux x86_64, with LLVM 19.1.7, 22.1.8."
    for name in ("index.html", "01-reproduction.html"):
        assert line in text(site / name)


class Assets(HTMLParser):
    """Collects what a browser loads by itself for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "srcset", "data")]
        if tag == "link":
            self.found += [value or "" for name, value in attrs if name == "href"]


def test_nothing_is_loaded_from_the_web(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 3
    for page in pages:
        assets = Assets()
        assets.feed(page.read_text())
        assert assets.found
        for asset in assets.found:
            assert not re.match(r"\s*(https?:)?//", asset), (page.name, asset)
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text()), style


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_on_a_phone(site: Path, scheme: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    requests: list[str] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        options = {"width": 390, "height": 800}
        page = browser.new_page(viewport=options, color_scheme=scheme)  # type: ignore[arg-type]
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        for name in ("index.html", "01-reproduction.html"):
            page.goto((site / name).as_uri())
            for part in ("html", ".content"):  # wide outputs scroll by themselves
                width = page.evaluate(f"document.querySelector('{part}').scrollWidth")
                assert width <= 390, f"{name}: {part} scrolls sideways"
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        browser.close()
    assert requests
    assert all(url.startswith(("file:", "data:")) for url in requests)
    assert not errors
    bright = sum(map(int, re.findall(r"\d+", colour)[:3])) > 3 * 128
    assert bright == (scheme == "light")


def test_site_is_replaced_only_by_a_whole_one(site: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(site, tmp_path / "site"))
    broken = make_run(tmp_path / "b", x=[prose("# Second\n\n:::{nosuchdirective}\n:::")])
    with pytest.raises(LabError, match=r"x\.ipynb.*nosuchdirective.*mend the notebook"):
        report.site(broken, out)
    assert "Start here" in text(out / "index.html")
    report.site(make_run(tmp_path / "c", y=[prose("# Third")]), out)
    assert "Third" in text(out / "index.html")
    assert not (out / "00-start-here.html").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"b", "c", "site"}


def test_what_is_no_site_is_not_replaced(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", x=[prose("# First")])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    for out in (tmp_path / "mine", tmp_path / "mine" / "letter.txt"):
        with pytest.raises(LabError, match="not a site of ours"):
            report.site(run, out)
    assert (tmp_path / "mine" / "letter.txt").exists()


def test_run_without_notebooks_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no executed notebooks"):
        report.site(tmp_path, tmp_path / "site")


def test_verdict_is_one_sentence(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", x=FRONT)
    assert "23 with <19> crashes" in results.read(run).verdict()
    assert "\n" not in results.read(run).verdict()


def test_a_run_of_several_llvms_is_recorded_beside_that_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cells = [shown(claim(holds=True, sentence="so it is"))]
    run = make_run(tmp_path / "run", **{"01-a--17": cells, "01-a--19": cells})
    entry = {"notebook": "01-a", "status": "executed", "seconds": 1.0, "fingerprint": "f"}
    notebooks = {f"01-a--{n}": {**entry, "parameters": {"llvm": n}} for n in ("17", "19")}
    arguments = {"notebooks": ["/home/me/01-a.ipynb"]}
    manifest = {**MANIFEST, "notebooks": notebooks, "arguments": arguments}
    (run / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(settings, "data_dir", lambda: tmp_path / "data")
    report.record(run)
    folder = tmp_path / "data" / "recorded"
    assert [path.name for path in folder.iterdir()] == ["versions"]
    kept = (folder / "versions" / "manifest.json").read_text()
    assert "/home/me" not in kept
    assert "fingerprint" not in kept
    assert len(results.load(folder / "versions").claims) == 2
