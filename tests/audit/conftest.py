"""Fixtures: objects, links and a cargo project."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from nbsupport.toolchains.probe import Toolchain
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
