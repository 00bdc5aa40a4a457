"""The recorded run: what comes with the project, to compare with and to replay.

``python -m nbsupport.notebooks.recording RUN`` makes a run the recorded one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nbsupport.base import files, settings
from nbsupport.lab import tables
from nbsupport.notebooks import results
from nbsupport.show import shown
from nbsupport.trace import trace


def record(run: Path) -> None:
    """Make a run the one that comes with the project: its tables, manifest and picture.

    A run of several LLVMs becomes the recording of all of them (data/recorded/versions).
    """
    found = results.read(run)
    entries = found.manifest["notebooks"]
    several = any(name != entry["notebook"] for name, entry in entries.items())
    recorded = settings.data_dir() / "recorded" / ("versions" if several else "")
    results.save(found, recorded)
    manifest = {key: value for key, value in found.manifest.items() if key != "arguments"}
    keep = ("notebook", "parameters", "status", "seconds")  # and no place on this machine
    manifest["notebooks"] = {
        name: {key: entry[key] for key in keep} for name, entry in entries.items()
    }
    files.write(recorded / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    if not several:
        files.write(recorded / "grid.svg", shown.svg(tables.grid(found.tables["trials"])))
        trace.keep(settings.cache_dir())


if __name__ == "__main__":
    record(Path(sys.argv[1]))
