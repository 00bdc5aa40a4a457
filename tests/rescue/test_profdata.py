"""What is rescued is read by the compilers, layout by layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.profile import layout
from nbsupport.profile.names import decode
from nbsupport.rescue import profdata, rescue
from nbsupport.rescue.rescued import VALUES
from nbsupport.toolchains import profdata as llvm_profdata
from nbsupport.toolchains.probe import Toolchain
from tests.rescue.programs import (
    ENVIRONMENT,
    Compile,
    command,
    linked,
)
from tests.support import synthetic
from tests.support.synthetic import Function

WARN = ("-Wprofile-instr-out-of-date", "-Wprofile-instr-unprofiled", "-Wprofile-instr-missing")


def test_each_compiler_takes_its_part_as_it_takes_its_own(
    lab: Lab,
    tmp_path: Path,
    toolchain: Callable[[str], Toolchain],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No warning, and the same code as with the clean profile of a uniform build."""
    monkeypatch.setattr(llvm_profdata, "owners", lambda *_: [toolchain("17"), toolchain("19")])
    trial, path = linked(lab, "hot", "19", "17")
    found = rescue.run([path], tmp_path / "saved.profdata", env=ENVIRONMENT, cwd=tmp_path)
    assert [(one.record_size, one.functions, one.indexed) for one in found.parts] == [
        (48, 4, 17),
        (64, 3, 17),
    ]
    for job, reference, part in zip(
        build.jobs(trial), trial.references, reversed(found.parts), strict=True
    ):
        clean = tmp_path / "clean.profdata"
        rescue.run([build.linked(reference, lab.cache)], clean, env=ENVIRONMENT, cwd=tmp_path)
        said = []
        for profile in (clean, part.path, found.path):
            made = tmp_path / f"{profile.stem}.o"
            use = (*job.unit.flags, *WARN, f"-fprofile-use={profile}", "-c", job.unit.source)
            text = command(job.toolchain.compiler, "-O2", *use, "-o", made, cwd=job.unit.folder)
            said.append((text, made.read_bytes()))
        assert said[0] == said[1]
        # What is hot follows from all functions in a profile: the code may be another.
        assert said[0][0] == said[2][0] == ""


def test_without_an_llvm_profdata_it_is_text(
    compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llvm_profdata, "owners", lambda: [])
    found = rescue.run([compiled()], tmp_path / "o.profdata", env=ENVIRONMENT)
    assert found.path.read_text().startswith(":ir\n")
    assert [one.indexed for one in found.parts] == [None, None]


def test_what_a_compiler_could_not_read_is_text(
    compiled: Compile,
    tmp_path: Path,
    toolchain: Callable[[str], Toolchain],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the oldest llvm-profdata is LLVM 19's, LLVM 17 does not read what it makes."""
    monkeypatch.setattr(llvm_profdata, "owners", lambda: [toolchain("19")])
    found = rescue.run([compiled()], tmp_path / "o.profdata", env=ENVIRONMENT)
    assert [(one.path.name, one.indexed) for one in found.parts] == [
        ("o.48.proftext", None),
        ("o.64.profdata", 19),
    ]


@pytest.mark.parametrize("raw_version", [8, 9, 10, 11])
def test_memory_as_a_raw_profile_is_read_back(raw_version: int) -> None:
    known = layout.LAYOUTS[raw_version]
    kind = known.record_dtype()
    rows = np.zeros(2, kind)
    names = b"\x03\x00a\x01b"
    rows["NameRef"], rows["FuncHash"] = decode(names).hashes, (0x12, 0x34)
    for n in range(2):
        rows[n]["NumCounters"] = n + 1
        rows[n]["CounterPtr"] = (1000 + 8 * n - n * kind.itemsize) % (1 << 64)
    counters = np.array([5, 6, 7], "<u8").tobytes()
    held = {"data": (0, rows.tobytes()), "counters": (1000, counters), "names": (0, names)}
    version = raw_version | 1 << layout.VARIANTS["ir"]
    made = profdata.parse(profdata.raw(known, version, 64, "<", held))
    assert list(made.functions.rows()) == [(b"a", 0x12, [5]), (b"b", 0x34, [6, 7])]
    assert not [one for one in made.problems if "value" not in one.what]


def test_values_are_lost_only_where_there_are_value_sites() -> None:
    plain, valued = Function("f", 1, [5]), Function("g", 2, [7], sites={1: [[(3, 4)]]})
    for functions, lost in (([plain], ()), ([plain, valued], (VALUES,))):
        profile = profdata.parse(synthetic.profile(functions, 10 | 1 << 56))
        assert profdata.recover(profile).lost == lost
