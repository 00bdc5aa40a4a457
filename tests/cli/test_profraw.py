"""`pgo-lab profraw`: the contract for scripts, and what people see."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.cli import commands
from nbsupport.profile import profraw
from tests.support.trained import Maker


@pytest.fixture
def pgo_lab(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*argv: str | Path) -> tuple[int, str, str]:
        code = commands.main([*map(str, argv)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_profile_on_the_command_line(
    pgo_lab: Callable[..., tuple[int, str, str]], maker: Maker, tmp_path: Path
) -> None:
    path = maker.profile("19", "ir")
    code, out, err = pgo_lab("profraw", path, "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["valid"] is True and document["problems"] == []
    assert (document["raw_version"], document["functions"]) == (10, profraw.read(path).functions)
    code, out, _ = pgo_lab("profraw", path, "--csv")
    rows = list(csv.reader(io.StringIO(out)))
    expected = [
        [name.decode(), hex(number), " ".join(map(str, counts))]
        for name, number, counts in profraw.read(path).rows()
    ]
    assert rows == [["name", "hash", "counts"], *expected]
    code, out, _ = pgo_lab("profraw", path)
    assert code == 0 and "raw version: 10" in out and "\x1b" not in out
    (tmp_path / "empty").touch()
    code, out, _ = pgo_lab("profraw", tmp_path / "empty", "--json")
    assert code == 1 and "skips it silently" in json.loads(out)["problems"][0]["what"]
    code, out, err = pgo_lab("profraw", tmp_path / "none")
    assert (code, out) == (2, "") and err.startswith("pgo-lab: ") and err.count("\n") == 1


def test_a_folder_on_the_command_line(
    pgo_lab: Callable[..., tuple[int, str, str]], maker: Maker, tmp_path: Path
) -> None:
    assert pgo_lab("profraw", tmp_path)[0] == 2  # nothing in it
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(maker.profile("19", "ir").read_bytes())
    code, out, _ = pgo_lab("profraw", tmp_path, "--json")
    document = json.loads(out)
    assert (code, document["valid"], len(document["files"])) == (0, True, 2)
    assert {file["state"] for file in document["files"]} == {"ok"}
    (tmp_path / "c").touch()
    code, out, _ = pgo_lab("profraw", tmp_path)
    assert code == 1 and f"{tmp_path / 'c'}: byte 0: empty" in out
    (tmp_path / "d").symlink_to("nowhere")
    assert pgo_lab("profraw", tmp_path)[0] == 2
