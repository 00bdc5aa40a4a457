"""Fixtures: objects, links and a cargo project."""

from __future__ import annotations

import itertools
import random
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nbsupport.audit import objects
from nbsupport.toolchains.probe import Toolchain
from tests.support.compiled import (
    FOO,
    TRIPLES,
    Bench,
    mach_o,
    pair,
    pe,
)
from tests.support.linked import (
    HOW,
    LINKS,
    MAIN,
    MAJORS,
    SEED,
    SLOTS,
    Linked,
    Object,
    link,
    run,
    source,
)


@pytest.fixture(scope="session")
def pool(
    toolchain: Callable[[str], Toolchain], tmp_path_factory: pytest.TempPathFactory
) -> list[Object]:
    """Compile 70 objects: by five LLVMs, in two ways, mains (slot -1) and others."""
    folder = tmp_path_factory.mktemp("pool")
    chance = random.Random(SEED)  # noqa: S311
    objects, commands = [], []
    for (major, how), slot, copy in itertools.product(
        itertools.product(MAJORS, HOW), range(-1, SLOTS), range(2)
    ):
        if slot < 0 and copy:
            continue
        name = f"{major}-{how}-{slot}-{copy}"
        (folder / f"{name}.cc").write_text(MAIN if slot < 0 else source(slot, chance))
        flags = [HOW[how], chance.choice(("-O0", "-O1", "-O2")), "-fPIC", "-fno-exceptions"]
        flags += ["-ffunction-sections"] if chance.random() < 0.7 else []
        compiler = toolchain(major)
        assert compiler.raw_version
        commands.append([compiler.compiler, *flags, "-c", f"{name}.cc", "-o", f"{name}.o"])
        objects.append(Object(folder / f"{name}.o", major, compiler.raw_version, how, slot))
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda command: run(*command, cwd=folder), commands))
    return objects


@pytest.fixture(scope="session")
def linked(
    pool: list[Object],
    toolchain: Callable[[str], Toolchain],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Linked]:
    folder = tmp_path_factory.mktemp("links")
    tools = {major: toolchain(major) for major in MAJORS}
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda n: link(n, pool, folder, tools), range(LINKS)))


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, toolchain: Callable[[str], Toolchain]) -> Bench:
    return Bench(tmp_path_factory.mktemp("objects"), toolchain)


@pytest.fixture(scope="session")
def disassemble(bench: Bench) -> objects.Disassemble:
    def run(path: Path) -> str | None:
        tool = bench.tool("23", "llvm-dis")
        done = subprocess.run([tool, "-o", "-", path], capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else None

    return run


@pytest.fixture(scope="session")
def samples(bench: Bench) -> list[bytes]:
    paths = [bench.object("19", FOO, triple=triple) for triple in TRIPLES]
    paths.append(pe(bench, "sample.dll", *pair(bench, "x86_64-pc-windows-msvc")))
    paths.append(mach_o(bench, *pair(bench, "x86_64-apple-macos11")[:2]))
    bench.run("19", "llvm-ar", "rcs", "sample.a", *(path.name for path in paths[:5]))
    bench.run(
        "19",
        "ld.lld",
        "-shared",
        "--noinhibit-exec",
        *pair(bench, "x86_64-linux-gnu"),
        "-o",
        "sample.so",
    )
    x86 = (bench.folder / "sample.so").read_bytes()
    arm = x86[:18] + b"\xb7" + x86[19:]  # e_machine
    return [path.read_bytes() for path in (*paths, bench.folder / "sample.a")] + [x86, arm]
