"""What is known of Apple's linkers: each row says who says so, and what on a Mac decides it."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nbsupport.base import settings
from nbsupport.lab import build, programs
from nbsupport.lab.outcome import Outcome
from nbsupport.studies import mac_evidence, mac_linker, mac_steps
from nbsupport.studies.mac_check import STEPS
from nbsupport.studies.mac_linker import LinkerQuestion
from nbsupport.studies.mac_steps import MacBuild

ROWS = mac_linker.load()


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_has_sources_and_what_decides_it(row: LinkerQuestion) -> None:
    assert row.question.endswith("?")
    assert row.sources
    for source in row.sources:
        # A file or a thread of a repository, or a page of Apple's by its name.
        assert re.match(r"[\w.-]+/[\w.-]+(: | issue \d+| pull requests? \d+)|Apple", source), source
    assert row.decided_by in {step.name for step in STEPS}
    assert min(map(len, (row.ld64, row.ld_prime, row.lld))) > 2


def test_what_is_not_published_is_not_guessed() -> None:
    # Of ld-prime's sources nothing is public: what its column says is that, or from a thread.
    for name, row in ROWS.items():
        threads = [s for s in row.sources if " issue " in s or " pull request" in s]
        assert "not published" in row.ld_prime or threads, name


def test_the_table_shows_every_row() -> None:
    shown = mac_linker.table()
    for row in ROWS.values():
        assert row.question in shown.text
        assert f"mac-check, {row.decided_by}: {row.reads}" in shown.text
    assert shown.html.count("<tr>") == len(ROWS) + 1


def test_what_a_row_reads_is_in_the_results_of_each_build(mixed_crash: Path) -> None:
    fields = {field.name for field in dataclasses.fields(MacBuild)}
    fields |= (
        mac_evidence.read_image(mixed_crash).keys() | mac_evidence.told(Outcome("ok", "")).keys()
    )
    assert {row.reads for row in ROWS.values()} <= fields


@pytest.mark.slow  # it takes the compilers for macOS
@pytest.mark.parametrize(("arch", "llvm"), [("arm64", "16"), ("arm64", "19"), ("x86_64", "17")])
def test_what_the_rows_say_of_objects_is_in_objects(arch: Any, llvm: str) -> None:
    from nbsupport.macos import target

    compiler = target.compiler(arch, llvm)
    tools = target.compiler("x86_64", "19").prefix / "bin"

    def look(*more: str) -> tuple[str, int]:
        """Return the line of the version symbol, and its alignment as ld64 computes it."""
        unit = programs.get("cold").library[0]
        unit = dataclasses.replace(unit, flags=(*target.compile_flags(arch), *unit.flags, *more))
        path = build.compiled(build.CompileJob(unit, compiler, "ir"), settings.cache_dir())
        names = subprocess.run(
            [tools / "llvm-nm", "-m", path], capture_output=True, text=True, check=True
        )
        (line,) = [line for line in names.stdout.splitlines() if "_raw_version" in line]
        command: list[str | Path] = [tools / "llvm-objdump", "--macho", "--private-headers", path]
        headers = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        data = headers.partition("sectname __llvm_prf_data")[2].partition("sectname")[0]
        assert "attributes LIVE_SUPPORT" in data
        own = re.search(r"sectname __const\n +segname __TEXT\n[^S]*?align 2\^(\d+)", headers)
        assert own
        place = int(line.split()[0], 16) % (1 << int(own[1]))
        return line, (place & -place).bit_length() - 1 if place else int(own[1])

    line, alignment = look()
    assert line.endswith("(__TEXT,__const) weak private external ___llvm_profile_raw_version")
    assert alignment == 4
    included = settings.data_dir() / "macos" / mac_steps.ALIGNED
    assert look("-include", str(included))[1] == 6
