"""Hypotheses on trial: what is predicted before a trial runs, and the ledger of what came of it.

What is on trial is data (`data/hypotheses/hypotheses.toml`); verdicts come from a run alone.
"""

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from nbsupport.audit import LinkPiece, fate
from nbsupport.base import files, settings
from nbsupport.lab import Trial
from nbsupport.lab.outcome import Kind
from nbsupport.notebooks.results import Run, load_claims
from nbsupport.show import shown
from nbsupport.show.shown import element
from nbsupport.studies import mechanisms

Verdict = Literal["refuted", "supported", "open"]
#: The hypotheses that a reader asks about first: ours, three of the notes, and the nearest rival.
FIRST = ("mixed", "freed", "allocator", "macos", "stray-runtime")


def predict(trial: Trial) -> frozenset[Kind]:
    """Return the kinds of outcome that mixed record layouts, and nothing else, would produce."""
    return _predict(trial.to_row())


def surprises(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a sweep whose outcome was not predicted."""
    unexpected = [row["outcome"] not in _predict(row) for row in table.to_dict("records")]
    return table[unexpected]


def decided(table: pd.DataFrame) -> int:
    """Return of how many rows of a sweep one outcome alone is predicted."""
    return sum(len(_predict(row)) == 1 for row in table.to_dict("records"))


def _predict(row: dict[Any, Any]) -> frozenset[Kind]:
    """Predict from a row's parameters alone, as `nbsupport.audit.fate` does."""
    runtime: int = row["main_raw_version"]
    parts = [(runtime, row["main_instrument"]), (row["foreign_raw_version"], row["instrument"])]
    if row["order"] == "foreign-first":
        parts.reverse()
    pieces = [LinkPiece(version, how) for version, how in parts if how != "none"]
    sites: fate.Sites = "cold" if row["program"].endswith("cold") else "hot"
    return fate.predict(runtime, pieces, sites).outcomes


@dataclass(frozen=True)
class Prediction:
    """What follows from a hypothesis; the fields are those that `hypotheses.toml` explains."""

    says: str
    claim: str
    so: str = ""
    unless: str = ""

    def verdict(self, run: Run) -> Verdict:
        """Return what a run's claim makes of it: open where it says nothing."""
        observed = {*run.observed(self.claim), *(["holds"] if run.holds(self.claim) else [])}
        if self.unless in observed:
            return "refuted"
        return "supported" if self.so in observed else "open"

    def seen(self, run: Run) -> str:
        """Return what was observed, in a claim's own words, and in which notebook."""
        claim = run.claims[run.claims["name"] == self.claim].to_dict("records")[0]
        where = f" ({claim['notebook'][:2]})" if claim["notebook"] else ""
        return f"{claim['sentence']}: {' and '.join(run.observed(self.claim))}{where}"


@dataclass(frozen=True)
class Hypothesis:
    """An explanation on trial; the fields are those that `hypotheses.toml` explains."""

    id: str
    claim: str
    source: str
    mechanism: str
    rows: tuple[str, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    decide: str = ""

    def verdict(self, run: Run) -> tuple[Verdict, tuple[str, ...]]:
        """Return what a run makes of it, and the observations: claims, and what rows lack.

        One prediction that does not come true refutes it, and so do its rows, if each lacks
        something of the user's crash. It is supported if all that was tested came true.
        """
        tests = [test for test in self.predictions if test.verdict(run) != "open"]
        rows_of_run = _tried(run)
        rows = [row for row in self.rows if row in rows_of_run]
        why = [test.seen(run) for test in tests]
        for row in rows:
            why.append(_fared(rows_of_run[row]))
        if not why:
            return "open", ()
        wrong = [test for test in tests if test.verdict(run) == "refuted"]
        refuted = wrong or (rows and all(mechanisms.lacks(rows_of_run[row]) for row in rows))
        return "refuted" if refuted else "supported", tuple(why)


def load() -> tuple[Hypothesis, ...]:
    """Return the hypotheses, ours first."""
    path = settings.data_dir() / "hypotheses" / "hypotheses.toml"
    hypotheses = []
    for name, entry in files.read_toml(path).items():
        where = f"{path.name}: {name}"
        predictions = entry.pop("prediction", [])
        for table in predictions:  # `if` is a word of Python's
            table["so"] = table.pop("if", "")
        entry["predictions"] = [files.load(Prediction, table, where) for table in predictions]
        hypotheses.append(files.load(Hypothesis, {"id": name, **entry}, where))
    return tuple(hypotheses)


def _fared(row: dict[Any, Any]) -> str:
    """Return in words how a mechanism differs from the user's crash, or that it shows all."""
    if words := mechanisms.reasons(row):
        return f"{row['what']}: {'; '.join(words)}"
    criteria = mechanisms.criteria()
    names = [criteria[name].costly or (criteria[name].short,) for name in mechanisms.untried(row)]
    untried = ", ".join(itertools.chain(*names))
    shows = f"shows all that was tried (not tried: {untried})" if untried else "shows all"
    return f"{row['what']}: {shows}"


def _tried(run: Run) -> dict[str, dict[Any, Any]]:
    """Return the row of each mechanism that a run tried, by its id."""
    table = run.tables.get("mechanisms")
    rows = [] if table is None else table.to_dict("records")
    return {row["mechanism"]: row for row in rows if not row["why"]}


def ledger(run: Run) -> pd.DataFrame:
    """Return a row for each hypothesis with what a `run` (its claims and tables) makes of it."""
    columns = ["hypothesis", "claim", "source", "mechanism"]
    columns += ["verdict", "observations", "predictions", "decide"]
    rows, texts = [], load_claims()
    for hypothesis in load():
        verdict, why = hypothesis.verdict(run)
        claims = [test.claim for test in hypothesis.predictions]
        books = dict.fromkeys(texts[name].notebook[:2] for name in claims) or ("06",)
        decide = hypothesis.decide or f"notebook {' and '.join(books)}"
        says = "; ".join(test.says for test in hypothesis.predictions)
        row = (hypothesis.id, hypothesis.claim, hypothesis.source, hypothesis.mechanism)
        rows.append((*row, verdict, "; ".join(why), says, decide))
    return pd.DataFrame(rows, columns=columns)


def table(verdicts: pd.DataFrame) -> shown.Shown:
    """Show a ledger: each hypothesis with its verdict and what decided it, or would.

    The `FIRST` are in sight, the others are folded.
    """
    first = verdicts["hypothesis"].isin(FIRST)
    short, rest = _table(verdicts[first]), _table(verdicts[~first])
    summary = element("summary", f"The other explanations: {(~first).sum()}")
    folded = element("details", summary, shown.Html(rest.html))
    return shown.Shown(f"{short.text}\n{rest.text}", short.html + folded)


def _table(verdicts: pd.DataFrame) -> shown.Shown:
    rows = []
    for row in verdicts.to_dict("records"):
        decided = row["decide"] if row["verdict"] == "open" else row["observations"]
        rows.append((row["claim"], row["source"], row["verdict"], decided))
    heads = ("explanation", "said by", "verdict", "what decided it; if open, what would")
    return shown.table(heads, rows)
