"""What `pgo-lab mac-check` keeps of a program, of a run, and of a report that macOS wrote."""

import json
import tempfile
from pathlib import Path
from typing import Any

from nbsupport.audit import judge, objects
from nbsupport.base import process
from nbsupport.lab.lab import environment
from nbsupport.lab.outcome import Outcome
from nbsupport.toolchains import discovery

#: What is kept of a report that macOS wrote; the rest has numbers of this machine and this user.
#: Source: "Interpreting the JSON format of a crash report" (Apple).
_KEPT = "procName osVersion cpuType translated exception termination asi vmRegionInfo usedImages"


def read_image(program: Path) -> dict[str, Any]:
    """Return what a linked program says of its records, for `results.json`.

    `layouts` are record size and number of records of each run, as they lie; `version_symbol` is
    the raw version of the symbol that won, `runtime` that of the runtime; `foretold` are the kinds
    of outcome that these leave possible; `records` the section's bytes in hex, as in the file.
    """
    report = judge.audit([program], learn=discovery.discover)
    (file,) = report.files
    binary = objects.read(program)
    sections = [section for part in binary.parts for section in part.sections] if binary else []
    return {
        "layouts": [list(layout) for layout in file.layouts],
        "version_symbol": file.parts[0].symbol[0],
        "runtime": file.parts[0].runtime,
        "verdict": report.verdict,
        "foretold": report.judgement.outcomes,
        "records": b"".join(bytes(section.data) for section in sections).hex(),
    }


def run_alone(program: Path) -> dict[str, Any]:
    """Run a program, and say how it ended and how large a profile it left: that needs no tool."""
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        done = process.run([program], cwd=Path(name), env=environment(Path(name)))
        size = sum(path.stat().st_size for path in Path(name).glob("*.profraw"))
    ended = {"exit_code": done.exit_code, "signal": done.signal_name, "limit": done.limit}
    return {**ended, "profile": {"valid": None, "bytes": size}}


def told(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON, with all that LLDB told of a crash."""
    document = outcome.to_json()
    if crash := outcome.crash:
        numbers = {"registers": crash.registers, "exception": crash.exception}
        document |= {k: {name: f"{n:#x}" for name, n in v.items()} for k, v in numbers.items()}
        document |= {"words": crash.words, "function": crash.function}
    return document


def keep_report(text: str) -> dict[str, Any]:
    """Return what is kept of an .ips report: of a line about it, the type; of threads, the one.

    Raises ValueError, LookupError, TypeError or AttributeError for what is none.
    """
    head, _, rest = text.partition("\n")
    body = json.loads(rest)
    public = {key: body[key] for key in _KEPT.split() if key in body}
    threads = [body["threads"][body.get("faultingThread", 0)]]
    kind = json.loads(head)["bug_type"]
    return {"bug_type": kind, **public, "faultingThread": 0, "threads": threads}
