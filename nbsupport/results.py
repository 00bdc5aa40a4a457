"""One run on disk: what its notebooks claimed and recorded, and how to read that back.

Claims and tables travel in the notebooks themselves, as outputs of MIME types of our
own, so that a notebook executed by any runner can be read. `collect` gathers them into
Parquet tables beside the notebooks; `data/recorded` holds those of one real run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbsupport import files, settings
from nbsupport.errors import LabError, MissingError

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "application/vnd.pgo-lab.claim+json"
TABLE = "application/vnd.pgo-lab.table+json"

#: What this process has claimed and recorded.
_claims: list[dict[str, Any]] = []
_tables: dict[str, pd.DataFrame] = {}

#: Columns that differ from run to run, and so stay out of what a notebook records.
_MEASURED = ("seconds",)


def claim(
    name: str, sentence: str, *, predicted: object, observed: object, at: Mapping[str, object]
) -> None:
    """State a claim: what was predicted, what was observed.

    Shows one stable line and records the claim in the notebook. `name` identifies it for
    ever, `at` gives the parameters that it was made for; a set of predictions is kept by any
    of its members. A claim that does not hold is news to report, not an error.
    """
    several = isinstance(predicted, frozenset)
    holds = observed in predicted if several else observed == predicted  # type: ignore[operator]
    says = " or ".join(sorted(predicted)) if several else str(predicted)  # type: ignore[call-overload]
    verb = "holds" if holds else "DOES NOT HOLD"
    line = f"{verb}: {sentence} (predicted: {says}; observed: {observed})"
    record = {
        "name": name,
        "sentence": sentence,
        "holds": holds,
        "predicted": says,
        "observed": str(observed),
        "at": {key: str(value) for key, value in sorted(at.items())},
    }
    _claims.append({"notebook": "", **record, "at": json.dumps(record["at"], sort_keys=True)})
    _display({"text/plain": line, CLAIM: record})


def record(name: str, table: pd.DataFrame) -> None:
    """Record a table in the notebook under a name; shows one line that says so."""
    kept = table.drop(columns=[c for c in _MEASURED if c in table])
    rows = json.loads(kept.to_json(orient="records"))
    _tables[name] = kept
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
        return (
            f"all {total} claims hold: the crash comes from linking objects of two LLVMs whose "
            "raw profiles are laid out differently"
        )

    def changed(self, baseline: Run) -> tuple[str, ...]:
        """Return the names of claims that came out otherwise, at equal parameters."""
        key = ["name", "at"]
        both = self.claims.merge(baseline.claims, on=key, suffixes=("", "_before"))
        return tuple(both.loc[both["holds"] != both["holds_before"], "name"])


def open_run(run: str) -> Run:
    """Return the run in the folder of that name, or the `recorded` one."""
    return recorded() if run == "recorded" else read(Path(run))


def read(run: Path) -> Run:
    """Read a run from its executed notebooks; raises `LabError` where there are none."""
    import pandas as pd  # noqa: PLC0415

    notebooks = sorted((run / "notebooks").glob("*.ipynb"))
    if not notebooks:
        raise MissingError(str(run), "no executed notebooks there", f"pgo-lab run -o {run}")
    claims: list[dict[str, Any]] = []
    tables: dict[str, pd.DataFrame] = {}
    for path in notebooks:
        for kind, content in _outputs(path):
            if kind == CLAIM:
                at = json.dumps(content["at"], sort_keys=True)
                claims.append({"notebook": path.stem, **content, "at": at})
            else:
                tables[content["name"]] = pd.DataFrame(content["rows"])
    return Run(_manifest(run / "manifest.json"), _claim_table(claims), tables)


def _claim_table(claims: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    columns = ["notebook", "name", "sentence", "holds", "predicted", "observed", "at"]
    return pd.DataFrame(claims, columns=columns).astype({"holds": bool})


def _outputs(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        cells = json.loads(path.read_text())["cells"]
        for cell in cells:
            for output in cell.get("outputs", ()):
                for kind in (CLAIM, TABLE):
                    if kind in output.get("data", {}):
                        yield kind, output["data"][kind]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(str(path), f"not a readable notebook ({error})", "run it again") from error


def collect(run: Path) -> Run:
    """Write the tables of a run's notebooks beside them, and return them."""
    found = read(run)
    save(found, run)
    return found


def save(run: Run, folder: Path) -> None:
    """Write claims and tables as Parquet, each file atomically."""
    for name, table in {"claims": run.claims, **run.tables}.items():
        content = BytesIO()
        table.to_parquet(content, index=False)
        files.write(folder / f"{name}.parquet", content.getvalue())


def load(folder: Path) -> Run:
    """Read a run from its Parquet tables, without its notebooks."""
    import pandas as pd  # noqa: PLC0415

    try:
        tables = {path.stem: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
        claims = tables.pop("claims")
    except (OSError, ValueError, KeyError) as error:
        raise LabError(str(folder), f"not a recorded run ({error})", "record it again") from error
    return Run(_manifest(folder / "manifest.json"), claims, tables)


def recorded() -> Run:
    """Return the run that came with the project (data/recorded); its manifest says of when."""
    return dataclasses.replace(load(settings.data_dir() / "recorded"), recorded=True)


def _manifest(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise LabError(str(path), f"not JSON ({error})", "run it again") from error
    return manifest
