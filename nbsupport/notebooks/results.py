"""One run on disk: what its notebooks claimed and recorded, and how to read that back.

Claims and tables travel in the notebooks themselves, as outputs of MIME types of our own, so that a
notebook executed by any runner can be read. `collect` gathers them into Parquet tables beside the
notebooks; `data/recorded` holds those of one real run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from nbsupport import __version__
from nbsupport.base import files, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.notebooks import document
from nbsupport.show.shown import Shown, element, table

TABLE = "application/vnd.pgo-lab.table+json"

#: How much a notebook runs: what its default leaves out takes long. A claim of the whole alone has
#: `scope` among its parameters.
SCOPES = ("default", "whole")

#: What this process has claimed and recorded.
_claims: list[dict[str, Any]] = []
_tables: dict[str, pd.DataFrame] = {}


@dataclass(frozen=True)
class ClaimText:
    """What data/claims.toml has of a claim; its first lines say what the fields mean."""

    notebook: str
    sentence: str
    values: str = ""
    scope: str = ""

    def value(self, content: object, words: Mapping[str, object]) -> str:
        """Return what was predicted, or observed, as text."""
        parts = content if isinstance(content, tuple) else (content,)
        if self.values:
            return self.values.format(*parts, **words)
        return ", ".join(map(str, parts)) or "none"


def load_claims() -> dict[str, ClaimText]:
    """Return the claims that the notebooks make, by id."""
    path = settings.data_dir() / "claims.toml"
    entries = files.read_toml(path).items()
    return {name: files.load(ClaimText, entry, f"{path.name}: {name}") for name, entry in entries}


def claim(name: str, predicted: object, observed: object, /, **parameters: object) -> None:
    """State a claim: what was predicted, what was observed.

    Shows one stable line and records the claim in the notebook. `name` is its id in
    data/claims.toml, where its sentence is. `predicted` and `observed` are told as text, several
    things in a tuple with commas between them, or as `values` there says; a frozenset of
    predictions is kept by any of its members. `parameters` are those that the claim was made for,
    but for the words that its sentence names. A claim that does not hold is news to report, not an
    error. Raises `LabError` for an id that is not there, or a word that is missing.
    """
    text = load_claims().get(name)
    if text is None:
        raise LabError(f"claim {name!r}", "there is none", "add its sentence to data/claims.toml")
    at = {key: v for key, v in parameters.items() if f"{{{key}}}" not in text.sentence}
    if text.scope:
        at["scope"] = text.scope
    predictions = predicted if isinstance(predicted, frozenset) else [predicted]
    try:
        expected = sorted(text.value(prediction, parameters) for prediction in predictions)
        outcome = text.value(observed, parameters)
        sentence = text.sentence.format(**parameters)
    except LookupError as error:
        why = f"its text needs {error}, which is not given"
        raise LabError(f"claim {name!r}", why, "give it, or mend data/claims.toml") from error
    record: dict[str, Any] = {"name": name, "sentence": sentence, "holds": outcome in expected}
    record |= {"predicted": " or ".join(expected), "observed": outcome, "at": _said(at)}
    _claims.append({"notebook": "", **record, "at": json.dumps(record["at"], sort_keys=True)})
    verb = "holds" if record["holds"] else "DOES NOT HOLD"
    values = f"predicted: {record['predicted']}; observed: {outcome}"
    _display({"text/plain": f"{verb}: {sentence} ({values})", document.CLAIM: record})


def _said(parameters: Mapping[str, object]) -> dict[str, str]:
    """Return parameters as text, a toolchain's folder by its name: the same on each machine."""
    texts = {key: str(value) for key, value in sorted(parameters.items())}
    return {key: Path(text).name if text[:1] == "/" else text for key, text in texts.items()}


def keep_table(name: str, table: pd.DataFrame) -> None:
    """Record a table in the notebook under a name; shows one line that says so."""
    kept = table.drop(columns="seconds", errors="ignore")  # it differs from run to run
    _tables[name] = kept
    rows = json.loads(kept.to_json(orient="records"))
    line = f"recorded: {name}, {len(table)} rows"
    _display({"text/plain": line, TABLE: {"name": name, "rows": rows}})


def here() -> Run:
    """Return what this process, a notebook's kernel, has claimed and recorded so far."""
    return Run({}, _claim_table(_claims), dict(_tables))


def _display(bundle: dict[str, Any]) -> None:
    from IPython.display import display  # noqa: PLC0415 - only notebooks show anything

    display(bundle, raw=True)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Run:
    """What one run found: `claims` and `tables` as pandas tables, `manifest` as written.

    `recorded` says that it came with the project, and was not made on this machine now.
    `claims` has the columns notebook, name, sentence, holds, predicted, observed, at.
    """

    manifest: Mapping[str, Any]
    claims: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    recorded: bool = False

    @property
    def outdated(self) -> str:
        """By which other version of the project it was made, "" if by this one or unknown."""
        made = str(self.manifest.get("what", ""))
        return "" if made in ("", f"PGO Crash Lab {__version__}") else made

    def observed(self, name: str) -> tuple[str, ...]:
        """Return what was observed for a claim, once for each time that it was made."""
        return tuple(self.claims.loc[self.claims["name"] == name, "observed"])

    def holds(self, name: str) -> bool:
        """Return whether a claim was made and held each time."""
        made = self.claims.loc[self.claims["name"] == name, "holds"]
        return len(made) > 0 and bool(made.all())

    def verdict(self) -> str:
        """Return the run in one sentence."""
        total = len(self.claims)
        if not total:
            return "no notebook claimed anything"
        held = int(self.claims["holds"].sum())
        if held < total:
            names = ", ".join(self.claims.loc[~self.claims["holds"], "name"])
            return f"{held} of {total} claims hold; not so: {names}"
        if not self.holds("one-explanation-fits"):  # 06 has not been run: the cause is not shown
            return f"all {total} claims hold"
        why = "linking objects of two LLVMs whose raw profiles are laid out differently"
        return f"all {total} claims hold: the crash comes from {why}"

    @property
    def scope(self) -> str:
        """How much was run: one of `SCOPES`."""
        cells = self.manifest.get("notebooks", {}).values()
        given = {cell.get("parameters", {}).get("scope") for cell in cells}
        return SCOPES[1] if SCOPES[1] in given else SCOPES[0]

    def place(self, claim: str) -> str:
        """Return where on its notebook's page a claim is shown, as the end of a link.

        The recorded run is of the whole, and the notebooks that come with it are not.
        """
        absent = self.recorded and load_claims()[claim].scope
        return "" if absent else f"#claim-{claim}"

    def changed(self, baseline: Run) -> tuple[str, ...]:
        """Return the names of claims that differ, at equal parameters."""
        both = self.claims.merge(baseline.claims, on=["name", "at"], suffixes=("", "_before"))
        return tuple(both.loc[both["holds"] != both["holds_before"], "name"])


def open_run(run: str) -> Run:
    """Return the run in the folder of that name, or the `recorded` one."""
    return recorded() if run == "recorded" else read(Path(run))


def read(run: Path) -> Run:
    """Read a run from its executed notebooks; raises `LabError` where there are none.

    A table of several cells is one, with a column `at`: the parameters of its cell, as JSON.
    """
    manifest = _manifest(run)
    entries = manifest.get("notebooks", {})
    claims: list[dict[str, Any]] = []
    tables: dict[str, list[tuple[str, list[dict[str, Any]]]]] = {}
    for path in executed(run, manifest):
        entry = entries.get(path.stem, {})
        cell = json.dumps(_said(entry.get("parameters", {})), sort_keys=True)
        for kind, content in _outputs(path):
            if kind == document.CLAIM:
                at = json.dumps(content["at"], sort_keys=True)
                claims.append({"notebook": entry.get("notebook", path.stem), **content, "at": at})
            else:
                tables.setdefault(content["name"], []).append((cell, content["rows"]))
    frames = {}
    for name, parts in tables.items():
        rows = parts[0][1]
        if parts[1:]:
            rows = [{**row, "at": at} for at, part in parts for row in part]
        frames[name] = pd.DataFrame(rows)
    return Run(manifest, _claim_table(claims), frames)


def executed(run: Path, manifest: Mapping[str, Any]) -> list[Path]:
    """Return the executed notebooks of a run: those that its manifest names, if it has one."""
    entries = manifest.get("notebooks")
    paths = sorted((run / "notebooks").glob("*.ipynb"))
    paths = [path for path in paths if entries is None or path.stem in entries]
    if not paths:
        raise MissingError(str(run), "no executed notebooks there", f"pgo-lab run -o {run}")
    return paths


def _claim_table(claims: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    columns = ["notebook", "name", "sentence", "holds", "predicted", "observed", "at"]
    return pd.DataFrame(claims, columns=columns).astype({"holds": bool})


def digest(path: Path) -> str:
    """Return what tells all that an executed notebook claims and records from anything else."""
    return files.digest(*(json.dumps(output, sort_keys=True) for output in _outputs(path)))


def _outputs(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        for cell in json.loads(path.read_text())["cells"]:
            for output in cell.get("outputs", ()):
                for kind in (document.CLAIM, TABLE):
                    if kind in output.get("data", {}):
                        yield kind, output["data"][kind]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LabError(str(path), f"not a readable notebook ({error})", "run it again") from error


def collect(run: Path) -> Run:
    """Return a run, its tables written beside its notebooks, in place of any that are there."""
    whole = read(run)
    for old in set(run.glob("*.parquet")) - {run / f"{name}.parquet" for name in whole.tables}:
        old.unlink()
    save(whole, run)
    return whole


def save(run: Run, folder: Path) -> None:
    """Write claims and tables as Parquet, each file atomically."""
    for name, frame in {"claims": run.claims, **run.tables}.items():
        files.write(folder / f"{name}.parquet", frame.to_parquet(index=False))


def load(folder: Path) -> Run:
    """Read a run from its Parquet tables, without its notebooks."""
    try:
        tables = {path.stem: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
        claims = tables.pop("claims")
    except (OSError, ValueError, KeyError) as error:
        raise LabError(str(folder), f"not a recorded run ({error})", "record it again") from error
    return Run(_manifest(folder), claims, tables)


def recorded() -> Run:
    """Return the run that came with the project (data/recorded); its manifest says of when."""
    return replace(load(settings.data_dir() / "recorded"), recorded=True)


def baseline() -> Run:
    """Return the recorded run with the claims of all LLVMs (data/recorded/versions), too."""
    run, versions = recorded(), load(settings.data_dir() / "recorded" / "versions")
    claims = pd.concat([run.claims, versions.claims]).drop_duplicates(["name", "at"])
    return replace(run, claims=claims.reset_index(drop=True))


def _manifest(run: Path) -> dict[str, Any]:
    path = run / "manifest.json"
    manifest: dict[str, Any] = files.read_json(path, "run it again") if path.is_file() else {}
    return manifest


def claims_table(run: Run) -> Shown:
    """Show the claims of a run, one a line, each with a link to the notebook that shows it."""
    rows = []
    columns = ["name", "holds", "sentence", "observed", "notebook"]
    for name, holds, sentence, observed, notebook in run.claims[columns].itertuples(index=False):
        link = element("a", notebook, href=f"{notebook}.ipynb{run.place(name)}")
        verdict = "holds" if holds else "DOES NOT HOLD"
        rows.append((verdict, sentence, observed, Shown(notebook, link)))
    return table(("verdict", "claim", "observed", "shown in"), rows)


def provenance(run: Run) -> Shown:
    """Show of when and what a run is."""
    manifest = run.manifest
    names = ", ".join(t["name"] for t in manifest.get("toolchains", ()))
    when = str(manifest.get("started", "")).partition("T")[0] or "an unknown day"
    what = "A recording that came with the project" if run.recorded else "A run on this machine"
    line = f"{what}, of {when}, {manifest.get('platform', '')}, with {names}"
    line += f" (stale: made by {run.outdated}; make it again)" if run.outdated else ""
    return Shown(line, element("p", line, class_="provenance"))
