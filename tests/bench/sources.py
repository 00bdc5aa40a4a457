"""What reading LLVM's sources costs, beside the tools one would take; part of `make bench`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from nbsupport.studies.sources import compare, parse, structure, tree
from nbsupport.toolchains import discovery
from tests.bench.trace import median


def rows() -> list[tuple[str, str, str, str]]:
    """Return the figures: what, measured, beside what, and the goal."""

    def excerpt() -> object:
        parse.parsed.cache_clear()
        return parse.excerpt(tree.load("19.1.7"), "initializeValueProfRuntimeRecord", mark="Values")

    def changes() -> object:
        parse.parsed.cache_clear()
        one, two = (structure.from_tree(tree.load(version)) for version in ("19.1.7", "22.1.8"))
        return compare.compare(one, two)

    def run(*argv: object) -> Callable[[], object]:
        command = [str(part) for part in argv]
        return lambda: subprocess.run(command, check=False, capture_output=True)

    one, two = (tree.load(version).folder for version in ("19.1.7", "22.1.8"))
    part = Path("compiler-rt/lib/profile")
    clang = discovery.find("19").compiler
    flags = ("-fsyntax-only", "-Xclang", "-ast-dump", f"-I{one / 'compiler-rt/include'}")
    dump = median(run(clang, *flags, one / part / "InstrProfilingValue.c"))
    diff = median(run("git", "diff", "--no-index", "-W", one / part, two / part))
    ours, all_ours = median(excerpt), median(changes)
    return [
        (
            "an excerpt of a cached version",
            f"{ours * 1e3:.0f} ms, {ours / dump:.2f} times",
            f"clang -ast-dump of that file ({dump * 1e3:.0f} ms)",
            "50 ms",
        ),
        (
            "two versions of the whole runtime compared",
            f"{all_ours:.2f} s, {all_ours / diff:.1f} times",
            f"git diff -W of the folders ({diff * 1e3:.0f} ms)",
            "2 s",
        ),
    ]
