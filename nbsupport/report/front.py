"""The pages around the notebooks: the front page with the ledger, the tours, the glossary.

Templates are in `data/site` (Jinja2, then Markdown); what they say of claims comes from the run.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from nbsupport.base import files, settings
from nbsupport.notebooks.results import Run
from nbsupport.report.pages import find, link_to
from nbsupport.show.shown import Html, element, escape
from nbsupport.studies import hypotheses

GLOSSARY = "glossary.toml"


def term_id(name: str) -> str:
    """Return the id that Sphinx gives to a term of the glossary. Source: docutils' make_id."""
    return "term-" + re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-")


def templates(folder: Path) -> jinja2.Environment:
    """Return the templates in a folder: of Markdown, so nothing is escaped that they put in."""
    return jinja2.Environment(  # noqa: S701
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )


def render(run: Run, titles: Mapping[str, str]) -> dict[str, str]:
    """Return the pages that are not notebooks, as Markdown by file; `titles` are the notebooks'."""
    folder = settings.data_dir() / "site"
    terms = files.read_toml(folder / GLOSSARY)["term"]
    facts = {
        "run": run,
        "titles": titles,
        "ledger": _ledger(run, titles),
        "first": hypotheses.FIRST,
        "notebooks": _claims(run, titles),
        "terms": sorted(terms, key=lambda term: str(term["name"]).lower()),
        "claim": lambda name: _link(run, titles, name),
    }
    names = (path.name for path in folder.glob("*.md"))
    return {name: templates(folder).get_template(name).render(facts) for name in names}


def _ledger(run: Run, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the hypotheses with their verdicts and what decided them, linked to its cell."""
    entries = []
    for hypothesis in hypotheses.load():
        verdict, observed = hypothesis.verdict(run)
        claims = [p.claim for p in hypothesis.predictions if p.verdict(run) != "open"]
        why = [_link(run, titles, name, observed=True) for name in claims]
        why += [_row(line, titles) for line in observed[len(claims) :]]
        if verdict == "open":
            why = [escape(hypothesis.decide)]
        claim, source = escape(hypothesis.claim), escape(hypothesis.source)
        entry = {"id": hypothesis.id, "claim": claim, "source": source}
        entries.append({**entry, "verdict": verdict, "why": why})
    return entries


def _row(line: str, titles: Mapping[str, str]) -> Html:
    """Return how a mechanism differs from the user's crash; linked to where it was tried."""
    name, _, rest = line.partition(": ")
    return Html(f"{link_to(escape(name), '06-hypotheses', titles)}: {escape(rest)}")


def _claims(run: Run, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the claims of each notebook, as links, with how many hold."""
    entries = []
    for name, claims in run.claims.groupby("notebook", sort=True):
        links = [_link(run, titles, claim) for claim in dict.fromkeys(claims["name"])]
        title = titles.get(find(str(name), titles) or "", str(name))
        held = f"{int(claims['holds'].sum())} of {len(claims)} hold"
        entry = {"title": escape(title), "held": held, "all": bool(claims["holds"].all())}
        entries.append({**entry, "claims": links})
    return entries


def _link(run: Run, titles: Mapping[str, str], name: str, *, observed: bool = False) -> Html:
    """Return a claim's sentence, marked with whether it holds, as a link to where it is shown."""
    claims = run.claims[run.claims["name"] == name].to_dict("records")
    if not claims:
        return element("span", "not tried in this run: ", element("code", name), class_="claimed")
    sentence, notebook = str(claims[0]["sentence"]), str(claims[0]["notebook"])
    if observed:
        sentence += f": {' and '.join(dict.fromkeys(run.observed(name)))}"
    mark = element("span", "✗", class_="mark fails", title="does not hold")
    if run.holds(name):
        mark = element("span", "✓", class_="mark holds", title="holds")
    link = link_to(sentence, notebook, titles, run.place(name))
    number = element("small", notebook.partition("-")[0])
    return element("span", mark, " ", link, " ", number, class_="claimed")
