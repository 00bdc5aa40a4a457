"""What a command left behind, as text that is the same in each run.

As little as possible is replaced, each time for a reason that stands beside it.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import html.parser
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: In the folder of a site.
SITE = ".pgo-lab-site"
#: What varies: where, by what it is replaced, and why.
RULES = (
    (r'(?<="seconds": )[\d.e-]+', "SECONDS", "measured: of a trial, of a notebook"),
    (r"(?<=: executed in )[\d.]+(?= s)", "SECONDS", "measured, said when a notebook is done"),
    (r"^[\d.]+ s$", "SECONDS", "the same in a run's index.html"),
    (r"(?<= left, about )\d+(?= s\))", "SECONDS", "an estimate from what was measured"),
    (r'(?<=^\{"time": )[\d.]+', "SECONDS", "of an event in LLDB, since the launch"),
    (r'(?<="fingerprint": ")[0-9a-f]{64}', "DIGEST", "of the package's code, among others"),
    (r"(?<=/pgo-lab-)[a-z0-9_]{8}(?=/)", "RANDOM", "a temporary folder of ours"),
    (r"(?<=/rustc)[A-Za-z0-9]{6}(?=/)", "RANDOM", "a temporary folder of rustc"),
    (r"(?<= at )0x[0-9a-f]+(?=>)", "ADDRESS", "of an object of Python, in its repr"),
)
#: Of strace's calls, for the system's random layout is on there (LLDB turns it off).
CALLS = (
    (r"\b0x[567][0-9a-f]{11}\b", "ADDRESS", "of the program, its stack, heap and libraries"),
    (r"(?<=pipe:\[)\d+", "NUMBER", "of an inode"),
    (r'(?<=,write,run\.profraw,"3, "").*?(?="",|""\.\.\.)', "BYTES", "which hold addresses, too"),
)
MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(?::\d\d(?:\.\d+)?)?(?:Z|\+00:00| UTC)")


def normal(text: str, places: Mapping[str, str], start: datetime.datetime) -> str:
    """Replace what varies, folders by their names, and moments since `start`, not those before."""

    def now(match: re.Match[str]) -> str:
        moment = datetime.datetime.fromisoformat(f"{match[1]}T{match[2]}+00:00")
        return match[0] if moment < start.replace(second=0, microsecond=0) else "NOW"

    for folder, name in places.items():
        text = text.replace(folder, name)
    for pattern, instead, _ in RULES:
        text = re.sub(pattern, instead, text, flags=re.M)
    return MOMENT.sub(now, text)


def files(folder: Path, title: str) -> Iterator[str]:
    """Yield a text for each file below a folder, and for each empty folder."""
    sites = {path.parent for path in folder.rglob(SITE)}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and any(path.iterdir()):
            continue
        site = next((parent for parent in path.parents if parent in sites), None)
        try:
            text = _in_site(path.relative_to(site), path) if site else described(path)
        except Exception as error:  # a file that is not what its name says is news, too
            text = f"{type(error).__name__}\n"
        yield f"--- {title}: {path.relative_to(folder)}: {text}"


def _in_site(name: Path, path: Path) -> str:
    """Front pages in full; a notebook's page, and what indexes all pages, hold code that moves."""
    if name.suffix == ".html" and not re.match(r"\d\d-", name.name):
        return described(path)
    return f"{_digest(path.read_bytes())}\n" if name.parts[0] == "_static" else "there\n"


def described(path: Path) -> str:
    """Return what is in a file: all of a text, the cells of a table, else a digest."""
    if path.is_dir():
        return "an empty folder\n"
    data = path.read_bytes()
    if not data:
        return "empty\n"
    if path.suffix == ".profraw":  # functions' addresses are in it, which vary
        return f"{len(data)} bytes\n"
    if path.suffix == ".parquet":
        return f"\n{_table(path)}"
    if path.suffix == ".ipynb":
        return f"\n{_notebook(json.loads(data))}"
    with contextlib.suppress(UnicodeDecodeError):
        text = data.decode()
        if path.suffix == ".html":
            return f"\n{_Words.of(text)}"
        if "\0" not in text:
            return f"\n{whole(text)}"
    return f"{_digest(data)}\n"


def whole(text: str) -> str:
    """Return lines; that the last one has no end is said."""
    return text if text.endswith("\n") else f"{text}\n(no end of line)\n"


def _digest(data: bytes) -> str:
    return f"{len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()[:16]}"


def _table(path: Path) -> str:
    import pandas as pd

    table = pd.read_parquet(path)
    kinds = ", ".join(f"{name} {kind}" for name, kind in table.dtypes.items())
    if "time" in table:
        table["time"] = "SECONDS"  # measured: of each event, of each call
    if path.stem == "calls":
        table["thread"] = table["thread"].factorize()[0]  # a process's number varies
    text = table.to_csv(index=False)
    for pattern, instead, _ in CALLS if path.stem == "calls" else ():
        text = re.sub(pattern, instead, text)
    return f"{kinds}\n{text}"


def _notebook(book: dict[str, Any]) -> str:
    """Return what a notebook's cells put out, without times, ids and how pictures look.

    Code is told where papermill wrote it: all else is the notebook's, which moves.
    """
    lines = []
    for number, cell in enumerate(book["cells"]):
        tags = cell["metadata"].get("tags", [])
        lines.append(f"cell {number}: {cell['cell_type']} {tags}")
        if "injected-parameters" in tags:
            lines.append("".join(cell["source"]))
        for output in cell.get("outputs", ()):
            for kind, content in sorted(output.get("data", {}).items()):
                text = "".join(content) if isinstance(content, list | str) else json.dumps(content)
                shown = kind.startswith("text/") or "pgo-lab" in kind
                lines.append(f"{kind}: {text if shown else 'there'}")
            lines += [
                f"{key}: {output[key]}" for key in ("name", "ename", "evalue") if key in output
            ]
            lines.append("".join(output.get("text", ())))
    return "".join(f"{line}\n" for line in lines if line)


class _Words(html.parser.HTMLParser):
    """The words of a page, a line for each piece of text; scripts and looks are none."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.words = "", list[str]()

    @classmethod
    def of(cls, page: str) -> str:
        reader = cls()
        reader.feed(page)
        return "".join(f"{line}\n" for line in reader.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style", "svg"):
            self.hidden = self.hidden or tag
        shown = () if self.hidden else ("href", "src", "alt")
        self.words += [f"<{tag} {name}={value}>" for name, value in attrs if name in shown]

    def handle_endtag(self, tag: str) -> None:
        if tag == self.hidden:
            self.hidden = ""

    def handle_data(self, data: str) -> None:
        if not self.hidden and data.strip():
            self.words.append(" ".join(data.split()))
