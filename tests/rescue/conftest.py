"""Programs of two LLVMs, linked once, and what runs them under rescue."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.lab import counts
from nbsupport.lab.counts import Counts
from nbsupport.rescue import rescue
from nbsupport.rescue.rescued import Rescued
from nbsupport.toolchains.probe import Toolchain
from tests.rescue.programs import (
    ENVIRONMENT,
    PROGRAMS,
    SOURCE,
    Compile,
    Saved,
    command,
)


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """Return a function that runs a program under rescue, and the counts of its profile."""

    def run(*argv: object, **more: object) -> tuple[Rescued, Counts]:
        out = tmp_path / "saved.proftext"
        words = [str(word) for word in argv]
        found = rescue.run(words, out, env=ENVIRONMENT, cwd=tmp_path, **more)  # type: ignore[arg-type]
        return found, counts.parse(out.read_text())

    return run


@pytest.fixture(scope="session")
def compiled(
    toolchain: Callable[[str], Toolchain], tmp_path_factory: pytest.TempPathFactory
) -> Compile:
    """Return a function that links SOURCE by LLVM 19 with the hot library of another LLVM."""
    folder = tmp_path_factory.mktemp("rescue")
    (folder / "main.c").write_text(SOURCE)
    flags = ("-O1", "-fPIC", "-fprofile-generate")

    def make(foreign: str = "17", *link: str) -> Path:
        main, other = toolchain("19"), toolchain(foreign)
        out = folder / re.sub(r"\W", "", f"program{foreign}{link}")
        if out.exists():
            return out
        objects: list[object] = []
        for one, source in ((main, folder / "main.c"), (other, PROGRAMS / "library_hot.c")):
            objects.append(folder / f"{out.name}-{source.stem}.o")
            command(one.compiler, *flags, "-c", source, "-o", objects[-1])
        linker: list[object] = [main.compiler, "-fuse-ld=lld", *flags]
        if "-static" in link:  # clang asks for libraries that only some systems have
            linker = ["gcc", "-Wl,--undefined=__llvm_profile_runtime"]
            objects.append(main.runtime)
        command(*linker, *objects, *link, "-o", out)
        return out

    return make
