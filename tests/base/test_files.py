"""Files are read with one line of advice where they are not as they should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from nbsupport.base import files
from nbsupport.base.errors import LabError


@dataclass(frozen=True)
class Row:
    name: str
    size: int = 0
    kind: Literal["a", "b"] = "a"
    place: Path | None = None
    flags: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    on: bool = False


def test_a_table_becomes_a_dataclass() -> None:
    table = {"name": "n", "place": "/p", "flags": ["-x"], "env": {"A": "1"}, "on": True}
    made = files.load(Row, table, "rows.toml")
    assert made == Row("n", 0, "a", Path("/p"), ("-x",), {"A": "1"}, on=True)
    assert files.load(Row, {"name": "n", "place": None}, "rows.toml").place is None


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "rows.toml: 'name' is missing; add it"),
        ({"name": "n", "nam": 1}, "rows.toml: 'nam' is not known; choose from name, size, kind"),
        ({"name": 1}, "name = 1 is not what belongs there; write a string"),
        ({"name": "n", "size": True}, "size = True is not .*; write a whole number"),
        ({"name": "n", "kind": "c"}, "kind = 'c' is not .*; choose from a, b"),
        ({"name": "n", "place": 1}, "place = 1 is not .*; write a path"),
        ({"name": "n", "flags": "-x"}, "flags = '-x' is not .*; write a list of strings"),
        ({"name": "n", "flags": [1]}, r"flags = \[1\] is not .*; write a list of strings"),
        ({"name": "n", "env": {"A": 1}}, "env = {'A': 1} is not .*; write a table of strings"),
        ({"name": "n", "on": 1}, "on = 1 is not what belongs there"),
        ([1], "rows.toml: not a table"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(table: Any, says: str) -> None:
    with pytest.raises(LabError, match=says):
        files.load(Row, table, "rows.toml")


@pytest.mark.parametrize("read", [files.read_json, files.read_toml])
def test_a_file_that_cannot_be_read_is_named(read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(LabError, match=r"reading .*file: No such file .*; check that path"):
        read(path)
    for content in (b"{", b"\xff", b"a = " + b"[" * 5000):
        path.write_bytes(content)
        with pytest.raises(LabError, match=r"/file: not (JSON|TOML) \("):
            read(path)


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    files.write(path, "old")
    with path.open() as reader:
        files.write(path, "newer")
        assert reader.read() == "old"  # whoever reads meanwhile
    with pytest.raises(UnicodeEncodeError):
        files.write(path, "\udc80")
    assert path.read_text() == "newer"
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_a_digest_tells_contents_order_and_borders_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.write_text("1")
    assert files.digest(one) == files.digest(other) != files.digest("1")
    assert len({files.digest("a", "b"), files.digest("b", "a"), files.digest("ab")}) == 3
    before = files.digest(one)
    one.write_text("2")
    assert files.digest(one) != before
