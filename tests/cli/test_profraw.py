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
from tests.support import synthetic
from tests.support.synthetic import Function
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


def test_what_is_not_valid_names_the_next_step(
    pgo_lab: Callable[..., tuple[int, str, str]], maker: Maker, tmp_path: Path
) -> None:
    cut = tmp_path / "a cut.profraw"
    cut.write_bytes(maker.profile("19", "ir").read_bytes()[:-8])
    step = f"do: pgo-lab rescue --profraw '{cut}' --binary PROGRAM\n"
    assert pgo_lab("profraw", cut)[1].endswith(step)
    (tmp_path / "text").write_text("no profile")
    for other in (tmp_path / "text", maker.profile("19", "ir")):
        assert "do: " not in pgo_lab("profraw", other)[1]


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


EVIL = "evil\x1b]0;title\x07\x9b31m\u202e"


def test_no_name_controls_the_terminal(
    pgo_lab: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """Names of functions and of files, whatever is printed."""
    path = tmp_path / f"{EVIL}.profraw"
    # A count that cannot be: its function is named.
    path.write_bytes(synthetic.profile([Function(EVIL, 1, [2**57])], 10))
    printed = [
        pgo_lab("profraw", path),
        pgo_lab("profraw", "--csv", path),
        pgo_lab("profraw", tmp_path),
        pgo_lab("profraw", tmp_path / f"{EVIL}none"),
        pgo_lab("rescue", "-o", tmp_path / f"{EVIL}.proftext", "--profraw", path),
        pgo_lab("audit", path),
        pgo_lab("explain", path),
    ]
    for _, out, err in printed:
        assert all(c.isprintable() or c == "\n" for c in out + err), (out, err)
        assert "evil\\x1b]0;title\\x07\\x9b31m" in out + err


def test_equal_faults_are_said_once_and_other_files_are_counted(
    pgo_lab: Callable[..., tuple[int, str, str]], maker: Maker, tmp_path: Path
) -> None:
    (tmp_path / "deps").mkdir()
    for n in range(22):
        (tmp_path / f"{n:02}.profraw").touch()
        (tmp_path / "deps" / f"{n:02}.d").write_text("app: main.rs\n")
    (tmp_path / "good.profraw").write_bytes(maker.profile("19", "ir").read_bytes())
    code, out, _ = pgo_lab("profraw", tmp_path)
    assert code == 1 and out.count("a merge skips it silently") == 1
    assert f"{tmp_path / '00.profraw'} and 21 more: byte 0: empty" in out
    first = tmp_path / "deps" / "00.d"
    assert f"22 other files, at which a merge of the folder fails; the first is {first}\n" in out
    document = json.loads(pgo_lab("profraw", "--json", tmp_path)[1])
    assert len(document["files"]) == 45  # scripts get all


def test_a_file_larger_than_the_limit_is_one_line(
    pgo_lab: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = tmp_path / "large.profraw"
    path.write_bytes(synthetic.profile([Function("f", 1, [2])], 10))
    with path.open("r+b") as file:
        file.truncate(3 << 20)
    assert pgo_lab("profraw", path)[0] == 0
    code, out, err = pgo_lab("profraw", "--most", "2", path)
    assert (code, out) == (2, "")
    assert "more than 2,097,152 are not read; give more with --most, in MiB" in err
    assert pgo_lab("profraw", "--most", "2", tmp_path)[0] == 2
