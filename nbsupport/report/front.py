"""The pages around the notebooks: the front page with the ledger, the tours, the glossary.

Templates are in `data/site` (Jinja2, then Markdown); what they say of claims comes from the run.
"""

from __future__ import annotations

import html
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from nbsupport.base import settings
from nbsupport.notebooks.results import Run
from nbsupport.report.pages import anchor, find
from nbsupport.studies import hypotheses

GLOSSARY = "glossary.toml"


def term_id(name: str) -> str:
    """Return the id that Sphinx gives to a term of the glossary. Source: docutils' make_id."""
    return "term-" + re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-")


def texts(run: Run, titles: Mapping[str, str]) -> dict[str, str]:
    """Return the pages that are not notebooks, as Markdown by file; `titles` are the notebooks'."""
    import jinja2  # noqa: PLC0415 - only reports need it

    loader = jinja2.FileSystemLoader(settings.data_dir() / "site")
    templates = jinja2.Environment(  # noqa: S701 - Markdown; what is put in is escaped here
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    terms = tomllib.loads((settings.data_dir() / "site" / GLOSSARY).read_text())["term"]
    facts = {
        "run": run,
        "titles": titles,
        "ledger": _ledger(run, titles),
        "notebooks": _claims(run, titles),
        "terms": sorted(terms, key=lambda term: str(term["name"]).lower()),
        "claim": lambda name: _link(run, titles, name),
    }
    names = (path.name for path in (settings.data_dir() / "site").glob("*.md"))
    return {name: templates.get_template(name).render(facts) for name in names}


def _ledger(run: Run, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the hypotheses with their verdicts and what decided them, linked to its cell."""
    found = []
    for one in hypotheses.load():
        verdict, seen = one.verdict(run)
        made = [each.claim for each in one.predictions if each.verdict(run) != "open"]
        links = [_link(run, titles, name, observed=True) for name in made]
        rows = [_row(said, titles) for said in seen[len(made) :]]
        why = [*links, *rows] if verdict != "open" else [html.escape(one.decide)]
        entry = {"claim": html.escape(one.claim), "source": html.escape(one.source)}
        found.append({**entry, "verdict": verdict, "why": why})
    return found


def _row(said: str, titles: Mapping[str, str]) -> str:
    """Return what a mechanism, made to happen, shows or contradicts; linked to where it was."""
    name, _, rest = said.partition(" ")
    code = f"<code>{html.escape(name)}</code>"
    page = find("06-hypotheses", titles)
    text = f'<a href="{page}.html">{code}</a>' if page else code
    return f"{text} {html.escape(rest)}"


def _claims(run: Run, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the claims of each notebook, as links, with how many hold."""
    found = []
    for name, made in run.claims.groupby("notebook", sort=True):
        links = [_link(run, titles, one) for one in dict.fromkeys(made["name"])]
        title = titles.get(find(str(name), titles) or "", str(name))
        held = f"{int(made['holds'].sum())} of {len(made)} hold"
        entry = {"title": html.escape(title), "held": held, "all": bool(made["holds"].all())}
        found.append({**entry, "claims": links})
    return found


def _link(run: Run, titles: Mapping[str, str], name: str, *, observed: bool = False) -> str:
    """Return a claim's sentence, marked with whether it holds, as a link to the cell that shows it.

    A claim that the run has not made is said to be that.
    """
    made = run.claims[run.claims["name"] == name].to_dict("records")
    if not made:
        code = f"<code>{html.escape(name)}</code>"
        return f'<span class="claimed">not tried in this run: {code}</span>'
    holds = run.holds(name)
    mark, kind = ("✓", "holds") if holds else ("✗", "fails")
    said = html.escape(str(made[0]["sentence"]))
    if observed:
        said += f": {html.escape(' and '.join(dict.fromkeys(run.observed(name))))}"
    says = "holds" if holds else "does not hold"
    word = f'<span class="mark {kind}" title="{says}">{mark}</span> '
    page = find(str(made[0]["notebook"]), titles)
    link = f'<a href="{page}.html#{anchor(name)}">{said}</a>' if page else said
    number = str(made[0]["notebook"]).partition("-")[0]
    return f'<span class="claimed">{word}{link} <small>{number}</small></span>'
