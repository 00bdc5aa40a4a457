"""A trial for macOS on the command line: foretold, emulated, and read off the file."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from nbsupport.base.errors import LabError
from nbsupport.cli.commands import main
from nbsupport.studies import macho
from nbsupport.toolchains.probe import Toolchain


@pytest.mark.parametrize(("arch", "foreign"), [("arm64", "16"), ("x86_64", "17")])
def test_the_address_is_foretold_read_off_the_file_and_met(
    toolchain: Callable[[str], Toolchain],
    capsys: pytest.CaptureFixture[str],
    arch: str,
    foreign: str,
) -> None:
    toolchain("19")
    words = ["trial", "--macos", arch, "--llvm", "19", "--foreign", foreign]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["outcome"], document["foretold"]) == ("crash", ["crash", "malformed"])
    assert document["frames"][0]["function"] == "initializeValueProfRuntimeRecord"
    address = document["fault_address"]
    assert document["spelled"] == document["reported"] == address == "0x1000100000003"
    assert main(words) == 0
    text = capsys.readouterr().out
    assert f"its records spell the address {address}\n" in text
    assert text.endswith("on an emulated processor: no macOS was there\n")


def test_a_crash_in_main_is_at_no_address_that_the_records_spell(
    toolchain: Callable[[str], Toolchain],
) -> None:
    toolchain("19")
    trial = macho.try_program("x86_64", "19", "17", "hot", "main-first", None)
    assert trial.outcome.crash and "instrument_target" in trial.outcome.crash.function
    assert not trial.spelled and trial.reported and len(trial.notes()) == 3


@pytest.mark.parametrize(
    ("wrong", "choices"),
    [
        ({"arch": "ppc"}, "arm64, x86_64"),
        ({"order": "sideways"}, "main-first, foreign-first"),
        ({"instrument": "half"}, "ir, front-end, none"),
        ({"main_instrument": "none"}, "ir"),
    ],
)
def test_what_there_is_not_is_one_line(wrong: dict[str, str], choices: str) -> None:
    words = {"arch": "arm64", "order": "main-first", "instrument": "ir", "main_instrument": "ir"}
    with pytest.raises(LabError, match=f"not known; choose from {choices}"):
        macho.try_program(llvm="19", foreign="16", program="cold", **{**words, **wrong})
