"""What reading LLVM's sources costs, beside the tools one would take; part of `make bench`."""

from __future__ import annotations

from pathlib import Path

from nbsupport.studies.sources import compare, parse, structure
from nbsupport.toolchains import discovery, tree
from tests.bench.row import Place, Row, Sample, seconds, timed

OLD, NEW = "19.1.7", "22.1.8"
PART = Path("compiler-rt/lib/profile")


def excerpt(_: Place) -> tuple[Sample, Sample]:
    folder = tree.load(OLD).folder
    clang = discovery.find("19").compiler
    flags = ("-fsyntax-only", "-Xclang", "-ast-dump", f"-I{folder / 'compiler-rt/include'}")

    def work() -> None:
        parse.parsed.cache_clear()
        parse.excerpt(tree.load(OLD), "initializeValueProfRuntimeRecord", mark="Values")

    return lambda: seconds(work), timed(clang, *flags, folder / PART / "InstrProfilingValue.c")


def changes(_: Place) -> tuple[Sample, Sample]:
    folders = [tree.load(version).folder / PART for version in (OLD, NEW)]

    def work() -> None:
        parse.parsed.cache_clear()
        compare.compare(*(structure.from_tree(tree.load(version)) for version in (OLD, NEW)))

    return lambda: seconds(work), timed("git", "diff", "--no-index", "-W", *folders, codes=[1])


ROWS = (
    Row("sources.excerpt", "an excerpt of a cached version", "clang -ast-dump of that file",
        "50 ms", excerpt),
    Row("sources.compare", "two versions of the whole runtime compared",
        "git diff -W of the folders", "2 s", changes),
)  # fmt: skip
