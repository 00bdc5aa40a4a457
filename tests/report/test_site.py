"""The HTML site: whole, offline, readable on a phone, replaced only by a whole one."""

from __future__ import annotations

import html
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

from nbsupport.base.errors import LabError
from nbsupport.notebooks import document, results
from nbsupport.report import site
from nbsupport.studies import hypotheses

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
ADVICE = nbformat.v4.new_output(  # type: ignore[no-untyped-call]
    "error",
    ename="MissingError",
    evalue="llvm 99: not <found>; install it",
    traceback=["Traceback"],
)
WIDE = (
    "<table class='dataframe'><tr>"
    + "<td>__llvm_profile_instrument_target</td>" * 9
    + "</tr></table>"
)


def claim(*, holds: bool, sentence: str) -> dict[str, Any]:
    observed = "crash" if holds else "ok"
    name = f"crash-{re.sub('[^0-9]', '', sentence)[-2:]}"
    record = {"name": name, "sentence": sentence, "holds": holds, "at": {}}
    record |= {"predicted": "crash", "observed": observed}
    return {"text/plain": "a claim", document.CLAIM: record}


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
        (folder / "notebooks" / f"{name}.ipynb").write_text(document.dump(whole))
    entries = {name: {"status": "executed"} for name in books} | MANIFEST["notebooks"]
    (folder / "manifest.json").write_text(json.dumps({**MANIFEST, "notebooks": entries}))
    return folder


FRONT = [
    prose("# Start here\n\nSee [what happened](01-reproduction.ipynb) and [why](07-why.ipynb#x)."),
    shown({"text/html": '<p><a href="01-reproduction.ipynb#claim-x">there</a></p>'}),
    shown({"text/html": '<p><a href="07-why.ipynb#claim-x">missing</a></p>'}),
    shown(
        claim(holds=True, sentence="19 with 17 crashes"),
        claim(holds=False, sentence="23 with <19> crashes"),
    ),
    shown({"text/plain": "recorded: grid", results.TABLE: {"name": "grid", "rows": [{"a": 9917}]}}),
    shown({"text/plain": "x.c: 1 line", "text/html": '<pre class="source">int excerpted;</pre>'}),
]
FAILED = nbformat.v4.new_code_cell("llvm = '99'", outputs=[ADVICE])  # type: ignore[no-untyped-call]
SECOND = [
    prose("An Exception was encountered", document.PAPERMILL_ERROR),
    prose(
        "# Reproduction\n\n## A raw version\n\n`raw version`, raw version, raw version\n\n#### A level left out\n\n```nosuchlanguage\nx\n```"
    ),
    FAILED,
    shown(
        {"text/html": "<figure><svg viewBox='0 0 9 9'></svg><figcaption>C</figcaption></figure>"}
    ),
    shown({"text/plain": "frame", "text/html": WIDE}, source="x = " + "'long' + " * 60 + "''"),
    shown({"text/plain": WIDGET_TEXT, document.WIDGET: {"model_id": "m"}}),
    shown({"text/plain": "t", "text/html": "<b>the twin</b>", document.WIDGET: {"model_id": "n"}}),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("report")
    run = make_run(folder / "run", **{"00-start-here": FRONT, "01-reproduction": SECOND})
    front = site.build(str(run), folder / "build" / "site")
    assert front == folder / "build" / "site" / "index.html"
    assert [path.name for path in (folder / "build").iterdir()] == ["site"]
    yield front.parent


def text(page: Path) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page.read_text()))


def links(page: Path) -> list[tuple[str, str]]:
    found = re.findall(r'<a [^>]*href="([^"]*)"[^>]*>(.*?)</a>', page.read_text(), re.DOTALL)
    return [(href, re.sub(r"<[^>]*>", "", said)) for href, said in found]


def test_pages_are_in_reading_order(built: Path) -> None:
    entries = re.findall(
        r'toctree-l1[^>]*><a [^>]*href="([^"]*)">([^<]*)', (built / "index.html").read_text()
    )
    assert [name for name, _ in entries] == [
        "tour-crash.html", "tour-new-llvm.html", "tour-newcomer.html",
        "00-start-here.html", "01-reproduction.html", "glossary.html",
    ]  # fmt: skip
    assert ("01-reproduction.html", "Reproduction") in entries


def test_front_page_is_the_ledger(built: Path) -> None:
    page = (built / "index.html").read_text()
    known = hypotheses.load()
    verdicts = re.findall(r'class="verdict (\w+)">\S \1<', page)
    # This run made one claim of one hypothesis, which did not come out as that one says.
    assert verdicts == ["open"] * len(known)
    assert all(html.escape(one.claim) in page for one in known)
    assert "1 of 2 claims hold" in text(built / "index.html")


def test_a_verdict_leads_to_the_cell_that_decided_it(tmp_path: Path) -> None:
    decided = claim(holds=True, sentence="all raw versions as foretold")
    decided[document.CLAIM] |= {"name": "fate-as-predicted", "observed": "0 surprises"}
    run = make_run(tmp_path / "run", **{"01-reproduction": [prose("# R"), shown(decided)]})
    front = site.build(str(run), tmp_path / "site")
    target, said = "01-reproduction.html#claim-fate-as-predicted", "all raw versions as foretold"
    assert (target, f"{said}: 0 surprises") in links(front)
    # No link to the glossary inside a link.
    assert (target, said) in links(tmp_path / "site" / "tour-crash.html")
    assert 'class="verdict supported"' in front.read_text()
    assert (
        'id="claim-fate-as-predicted"' in (tmp_path / "site" / "01-reproduction.html").read_text()
    )


def test_every_claim_leads_to_its_cell(built: Path) -> None:
    found = dict(links(built / "index.html"))
    assert found["00-start-here.html#claim-crash-17"] == "19 with 17 crashes"
    assert found["00-start-here.html#claim-crash-19"] == "23 with &lt;19&gt; crashes"
    front = (built / "index.html").read_text()
    assert re.findall(r'class="mark (\w+)" title="[\w ]+">(.)<', front) == [
        ("holds", "✓"),
        ("fails", "✗"),
    ]
    page = (built / "00-start-here.html").read_text()
    assert page.count('id="claim-crash-17"') == page.count('id="claim-crash-19"') == 1


def test_of_a_grid_each_notebook_is_named_and_links_lead_to_the_first(tmp_path: Path) -> None:
    front = [prose("# Start\n\n[there](01-r.ipynb)")]
    r = [prose("# R"), shown(claim(holds=True, sentence="19 with 17 crashes"))]
    run = make_run(tmp_path / "run", **{"00-start": front, "01-r--19": r, "01-r--22": r})
    made = links(site.build(str(run), tmp_path / "site"))
    assert ("01-r--19.html", "R (19)") in made
    assert ("01-r--22.html", "R (22)") in made
    assert ("01-r--19.html", "there") in links(tmp_path / "site" / "00-start.html")


def test_what_a_tour_names_and_the_run_lacks_is_said(built: Path) -> None:
    page = text(built / "tour-crash.html")
    assert "not tried in this run: records-found-by-invariants" in page
    assert "07, section 2" in page
    assert not [href for href, _ in links(built / "tour-crash.html") if href.startswith("07")]


def test_links_lead_to_pages_or_are_text(built: Path) -> None:
    page = (built / "00-start-here.html").read_text()
    assert re.search(r'href="01-reproduction.html"[^>]*><span[^>]*>what happened', page)
    assert "and why." in text(built / "00-start-here.html")
    found = links(built / "00-start-here.html")
    assert ("01-reproduction.html#claim-x", "there") in found  # of an output
    assert "missing</p>" in page


def test_first_mention_of_a_term_leads_to_the_glossary(built: Path) -> None:
    page = (built / "01-reproduction.html").read_text()
    (tip,) = re.findall(
        r'href="glossary.html#term-raw-version" data-tip="([^"]*)">raw version<', page
    )
    assert tip.startswith("The number that an LLVM gives")
    assert 'id="term-raw-version"' in (built / "glossary.html").read_text()
    assert 'class="term"' not in (built / "glossary.html").read_text()
    assert not re.search(r"<code[^>]*>[^<]*<a class=.term", page)
    assert not re.search(r"<h\d[^>]*>[^<]*<a class=.term", page)


def test_an_error_is_advice(built: Path) -> None:
    page = (built / "01-reproduction.html").read_text()
    assert re.search(
        r'class="admonition error advice"><p>llvm 99: not &lt;found&gt;; install it', page
    )
    assert "Traceback" not in page


def test_claims_say_whether_they_hold(built: Path) -> None:
    page = (built / "00-start-here.html").read_text()
    holds = r'class="claim holds" id="[^"]*"><strong>✓ holds</strong>19 with 17 crashes<'
    assert re.search(holds, page)
    fails = r'class="claim fails" id="[^"]*"><strong>✗ does not hold</strong>23 with &lt;19&gt;'
    assert re.search(fails, page)
    assert "predicted: crash; observed: ok" in page
    assert "9917" not in page  # rows are for programs
    assert "recorded: grid" not in page


def test_code_that_sets_up_or_claims_is_folded_away(tmp_path: Path) -> None:
    made = shown(claim(holds=True, sentence="19 with 17 crashes"), source="claim(1)")
    set_up = shown(source="llvm = 19")
    set_up.metadata["tags"] = [document.PARAMETERS]
    form = shown({"text/html": "<p>llvm is 19</p>"}, source="start('x', globals())")
    plain = shown({"text/html": "<p>seen</p>"}, source="views.look()")
    run = make_run(tmp_path / "run", x=[prose("# X"), set_up, form, plain, made])
    site.build(str(run), tmp_path / "site")
    page = (tmp_path / "site" / "x.html").read_text()
    code = text(tmp_path / "site" / "x.html")
    assert "llvm is 19" in code
    assert "llvm = 19" not in code
    assert "globals()" not in code
    assert "views.look()" in code
    (folded,) = re.findall(r"<details.*?</details>", page, re.DOTALL)
    assert "How this is computed" in folded
    assert "claim" in folded


def test_failed_notebook_says_so_below_its_title(built: Path) -> None:
    page = text(built / "01-reproduction.html")
    assert "This notebook failed: cell 2: ValueError: a `quoted` &lt;b&gt; thing" in page
    assert "An Exception was encountered" not in page
    assert page.index("Reproduction¶") < page.index("This notebook failed")


def test_excerpts_of_sources_are_in_the_site(built: Path) -> None:
    assert "int excerpted;" in text(built / "00-start-here.html")


def test_widget_leaves_its_twin(built: Path) -> None:
    page = (built / "01-reproduction.html").read_text()
    assert "<b>the twin</b>" in page
    assert WIDGET_TEXT not in page


def test_each_page_tells_when_and_with_what(built: Path) -> None:
    line = "Live executed 2025-03-04 05:06 UTC on Linux x86_64, with LLVM 19.1.7, 22.1.8"
    for page in built.glob("*.html"):
        assert line in text(page), page


def test_recorded_is_told_from_live(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", x=[prose("# First")], y=[prose("# Second")])
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["notebooks"]["y"]["parameters"] = {"source": "recorded"}
    (run / "manifest.json").write_text(json.dumps(manifest))
    site.build(str(run), tmp_path / "site")
    assert "Live executed" in text(tmp_path / "site" / "x.html")
    assert "Recorded executed" in text(tmp_path / "site" / "y.html")


class Assets(HTMLParser):
    """Collects what a browser loads by itself for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "srcset", "data")]
        if tag == "link":
            self.found += [value or "" for name, value in attrs if name == "href"]


def test_nothing_is_loaded_from_the_web(built: Path) -> None:
    pages = list(built.rglob("*.html"))
    assert len(pages) >= 3
    for page in pages:
        assets = Assets()
        assets.feed(page.read_text())
        assert assets.found
        for asset in assets.found:
            assert not re.match(r"\s*(https?:)?//", asset), (page.name, asset)
    for style in built.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text()), style


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_on_a_phone(built: Path, scheme: str) -> None:
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
            page.goto((built / name).as_uri())
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


def test_site_is_replaced_only_by_a_whole_one(built: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(built, tmp_path / "site"))
    broken = make_run(tmp_path / "b", x=[prose("# Second\n\n:::{nosuchdirective}\n:::")])
    with pytest.raises(LabError, match=r"x\.ipynb.*nosuchdirective.*mend the notebook"):
        site.build(str(broken), out)
    assert (out / "00-start-here.html").exists()
    site.build(str(make_run(tmp_path / "c", y=[prose("# Third")])), out)
    assert "Third" in text(out / "y.html")
    assert not (out / "00-start-here.html").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"b", "c", "site"}


def test_what_is_no_site_is_not_replaced(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", x=[prose("# First")])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    for out in (tmp_path / "mine", tmp_path / "mine" / "letter.txt"):
        with pytest.raises(LabError, match="not a site of ours"):
            site.build(str(run), out)
    assert (tmp_path / "mine" / "letter.txt").exists()


def test_run_without_notebooks_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no executed notebooks"):
        site.build(str(tmp_path), tmp_path / "site")
