"""A program that trains: its profiles by every LLVM and in every way, and what llvm-profdata reads in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from nbsupport.base import process, settings
from nbsupport.profile import layout, profraw
from nbsupport.toolchains import profdata
from nbsupport.toolchains.probe import Toolchain

VERSIONS = ("17", "18", "19", "22", "23")
MAIN = """
int lib_calls(int), lib_branch(int); char from[99], to[99];
static int one(int x) { return x + 1; }
static int two(int x) { return x & 1 ? 2 * x : x; }
int (*volatile called[2])(int) = {one, two};
int both(int a, int b) { return a && b; }
int main(int argc, char **argv) {
  int sum = 0;
  for (int i = 0; i < 10; i++) {
    sum += called[i % 3 == 0](i) + both(i % 2, i % 3) + lib_calls(i) + lib_branch(i);
    __builtin_memcpy(to, from, (unsigned long)(sum % 17 + argc));
  }
  return sum == 12345;
}
"""
LIBRARY = """
static int helper(int x) { return x > 2 ? x * 3 : x; }
int lib_calls(int x) { int s = 0; for (int i = 0; i < x; i++) s += helper(i); return s; }
int lib_branch(int x) { return x & 1 ? lib_calls(x) : 7; }
int lib_cold(int x) { return x + 1; }
"""
IR, FRONT_END = ("-fprofile-generate",), ("-fprofile-instr-generate",)
COVERAGE = (*FRONT_END, "-fcoverage-mapping")
KINDS = {
    "ir": IR,
    "front-end": FRONT_END,
    "coverage": COVERAGE,
    "mcdc": (*COVERAGE, "-fcoverage-mcdc"),  # LLVM 18 and later
    "block-coverage": (*IR, "-mllvm", "-pgo-block-coverage"),
    "entry-coverage": (*IR, "-mllvm", "-pgo-function-entry-coverage"),
    "entry-first": (*IR, "-mllvm", "-pgo-instrument-entry"),
    "temporal": (*IR, "-mllvm", "-pgo-temporal-instrumentation"),
    "context-sensitive": ("-fcs-profile-generate",),
    "build-id": (*IR, "-Wl,--build-id"),
    "merge-pool": IR,
    "continuous": (*COVERAGE, "-mllvm", "-runtime-counter-relocation"),
}
VARIANTS = {
    "ir": ("ir",),
    "block-coverage": ("ir", "byte-coverage"),
    "entry-coverage": ("ir", "byte-coverage", "entry-only"),
    "entry-first": ("ir", "entry-first"),
    "temporal": ("ir", "temporal"),
    "context-sensitive": ("ir", "context-sensitive"),
    "front-end": (),
}
CASES = [(v, kind) for v in VERSIONS for kind in KINDS if (v, kind) != ("17", "mcdc")]
Find = Callable[[str], Toolchain]
#: Counts, bitmap, and for each kind of values and each site what it saw, by name and hash.
Content = dict[tuple[str, int], tuple[list[int], list[int], dict[int, list[dict[str, int]]]]]
Counts = dict[tuple[str, int], list[int]]


def run(*argv: str | Path, cwd: Path, **env: str) -> process.Finished:
    return process.run(argv, cwd=cwd, env=process.environment(env), limits=settings.COMPILER)


class Maker:
    """Builds and runs the program, once for each way."""

    def __init__(self, find: Find, folder: Path) -> None:
        self.find, self.folder = find, folder
        (folder / "main.c").write_text(MAIN)
        (folder / "lib.c").write_text(LIBRARY)

    def link(self, main: str, foreign: str, flags: tuple[str, ...], *, first: str = "main") -> Path:
        image = self.folder / f"{main}-{foreign}-{first}{''.join(flags)}".replace("/", "")
        objects = {}
        for name, version in (("main", main), ("lib", foreign)):
            objects[name] = self.folder / f"{name}.o"
            tool = self.find(version).compiler
            done = run(tool, "-O1", *flags, "-c", f"{name}.c", "-o", objects[name], cwd=self.folder)
            assert done.ok, done.stderr
        order = objects.values() if first == "main" else reversed(objects.values())
        tool = self.find(main).compiler
        done = run(tool, *flags, *order, "-o", image, cwd=self.folder)
        assert done.ok, done.stderr
        return image

    def profile(self, version: str, kind: str) -> Path:
        found = self.folder / f"{version}-{kind}.profraw"
        if not found.exists():
            pattern = {"merge-pool": "%2m", "continuous": "%c"}.get(kind, "")
            image = self.link(version, version, KINDS[kind])
            made = self.folder / f"made-{version}-{kind}"
            for _ in range(2 if kind == "merge-pool" else 1):
                done = run(image, cwd=self.folder, LLVM_PROFILE_FILE=f"{made}/{pattern}.profraw")
                assert done.ok and not done.stderr, done
            next(made.iterdir()).rename(found)
        return found

    def mixed(self, main: str, foreign: str, first: str) -> Path:
        found = self.folder / f"mixed-{main}-{foreign}-{first}.profraw"
        image = self.link(main, foreign, FRONT_END, first=first)
        run(image, cwd=self.folder, LLVM_PROFILE_FILE=str(found))
        return found

    def merge(self, version: str, *arguments: str | Path) -> process.Finished:
        tool = profdata.tool(self.find(version))
        return run(tool, "merge", *arguments, "-text", "-o", "merged", cwd=self.folder)

    def content(self, version: str, *paths: Path) -> Content:
        done = self.merge(version, *paths)
        assert done.ok, done.stderr
        return parse((self.folder / "merged").read_text())

    def counts(self, version: str, *paths: Path) -> Counts:
        return {key: counts for key, (counts, _, _) in self.content(version, *paths).items()}


def parse(text: str) -> Content:
    """Read llvm-profdata's text: source: TextInstrProfReader (InstrProfReader.cpp)."""
    lines = [line for line in text.splitlines() if line and line[0] not in "#:"]
    if ":temporal_prof_traces" in text:
        del lines[:4]  # number of traces, of all there were, weight, names
    left = deque(lines)
    take = left.popleft
    found: Content = {}
    while left:
        key = take(), int(take())
        counts = [int(take()) for _ in range(int(take()))]
        bitmap: list[int] = []
        sites: dict[int, list[dict[str, int]]] = {}
        if left and left[0].startswith("$"):
            bitmap = [int(take(), 16) for _ in range(int(take()[1:]))]
        if left and left[0].isdigit():
            for _ in range(int(take())):
                kind, number = int(take()), int(take())
                each = [[take() for _ in range(int(take()))] for _ in range(number)]
                sites[kind] = [{} for _ in each]
                for saw, site in zip(sites[kind], each, strict=True):
                    for what, _, count in (line.rpartition(":") for line in site):
                        # Two runs in one pool: the first one's addresses mean nothing now.
                        saw[what] = saw.get(what, 0) + int(count)
        found[key] = counts, bitmap, sites
    return found


def read_counts(path: Path) -> Counts:
    """Return the counts as our reader has them, functions of several profiles added up."""
    raw = profraw.read(path)
    assert raw.problems == ()
    found: Counts = {}
    for name, number, counts in raw.rows():
        before = found.get((name.decode(), number), [0] * len(counts))
        found[name.decode(), number] = [a + b for a, b in zip(before, counts, strict=True)]
    return found


def maker_layout(maker: Maker, version: str) -> layout.Layout:
    raw_version = maker.find(version).raw_version
    assert raw_version
    return layout.LAYOUTS[raw_version]


def uniform(maker: Maker, version: str) -> Path:
    path = maker.folder / f"uniform-{version}.profraw"
    image = maker.link(version, version, FRONT_END)
    assert run(image, cwd=maker.folder, LLVM_PROFILE_FILE=str(path)).ok
    return path
