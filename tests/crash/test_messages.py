"""Specification of nbsupport.crash.messages: complete by construction, and true of real tools."""

from __future__ import annotations

import functools
import mmap
import os
import re
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import typer

from nbsupport.cli import commands
from nbsupport.crash import messages
from nbsupport.crash.messages import Message, Occurrence
from nbsupport.profile.layout import LAYOUTS
from nbsupport.toolchains import discovery
from nbsupport.toolchains.probe import Toolchain

#: What a message about a profile speaks of: strings of the binaries are chosen by these.
ANCHORS = re.compile(
    rb"(?i)profile|profil(?:ing|ed)\b|profraw|profdata|instrumentation|(?:hash|counter) mismatch"
    rb"|coverage|binary id|(?:symbol|function) name is empty|bitmap|correlat|\bcounters?\b|counterptr|value site"
    rb"|memprof|for requested architecture"
)
#: The help of options begins with what the option does. No message does so, but one.
HELP = (
    "Add Allow Also Always Annotate Append Apply Assume Attach Check Choose Collect Comma Compress"
    " Compute Computes Consider Control Convert Create Disable Display Do Don't Drop Dump Emit"
    " Enable Exclude Expand Export Extend Extract Fail Fix Force Format Generate Hoist Ignore"
    " Indicate Inline Insert Instruct Instrument Keep Lazy Load Log2 Make Match Merge Model Move"
    " Omit Optimize Order Outline Partition Perform Prevent Prevents Print Process Promote Read"
    " Reads Reject Relative Remap Remove Rename Reorder Report Restrict Run Salvage Select Set Show"
    " Shows Sort Specify Specifies Split Strip Supplement Suppress Takes Trim Turn Use Uses Utilize"
    " Verify Warn Write"
).replace(" ", "|")
#: Strings that ANCHORS choose and that are no message about a profile, each with its reason.
EXCLUDED = {
    r"(?s)\A.{400}": "a page of documentation, HTML or JavaScript inside of the compiler",
    r"getTypeName|StringRef llvm::|^DW_|^end declare|^begin declare": "names, joined",
    rf"^(?:{HELP})\b(?! IR generated| sure that all)": "the help of an option",
    r"^(?i:alias|average|cutoff|deprecated|directory|file|flow|for|id|if|maximum|max|minimum|output"
    r"|path|percentile|probability|static|the|this|threshold|user|verbosity|when|whether|with|turn"
    r"|display|enable|use|remap|do|just|increments|controls|granularity|scale|architectures|branch"
    r"|architecture|stable|conventional|call|context|cg|basic|block|nested|hot|size|tied|zier|how|a"
    r"|an|in|on|by|only|optimization)\b(?! (?:to profiled binary|input profile|profile"
    r" (?:is empty|may be)|size of (?:Cov|Prof|cov)|positional))(?!.*profile may be stale)": "the help of an option",
    r"^<|^--|^-memprof-dot|^ *(?:show|report): |^LLVM (?:profile data|code coverage)|^OVERVIEW|\(default\)$"
    r"|^[A-Z][a-z]+ (?:Coverage|coverage tool)|^Coverage executable|^Profile summary info|^target profile": "the help of llvm-cov and llvm-profdata",
    r"^(?:MemProf memory access profile|Sample profile|No profile correlation|Profile kind"
    r"|Profile with nested|Sanitizer coverage type|Function level overlap)": "the help of an option",
    r"^\s*(?:#|=====)|^  +.*(?:: |\n|Trace )$|^  Value sites|^(?:Total|Temporal Profile|Whole|Edge|Percentage|Sum of|Statistics"
    r"|Instrumentation level|Profile version|Profile overlap|Binary IDs|Counters section|Counters and"
    r"|Value sites|Context Profile Tree|Coverage Report|Num |Profile (?:Data|Bitmap) Type"
    r"|Bitmap Offset|Counter Offset|MC/DC)": "a line of what `show`, `overlap` or a report prints",
    r"^ (?:and test_profile|functions with profile|profile counts|available profile|only in"
    r"|profile (?:base|only|overlap|test)|has total profiled|samples from profile|to match prof"
    r"|Counter :|is not a registered|profiling in)|^ \(?of |^\) of |^in the original profile are"
    r"|^sample profile in extb": "a part of a report, of statistics or of a remark",
    r"^\n(?:PLEASE update this tool|Current Prof|Flat Prof|Experimental Prof|Supported Prof)":
        "the second line of a message that is answered, or a heading",
    r"^LLVM Profile (?:Error|Note|Warning): %s\n?$": "a frame; what it says is a string of its own",
    r"(?i)sanitizer|HEAP PROFILE at RSS|heap profiler|coverage dumps|xray|safe stack|MTE stack|nosanitize|redundant instrumentation": "sanitizers, XRay",
    r"(?i)pseudo-probe-for|sample-profile|use-sample|profile-sample|flow sensitive disc"
    r"|multiple promoted names|sample profile (?:loader|pass|file)|stale profile match"
    r"|^WARNING: -use-profiled": "sampling (AutoFDO), whose files no instrumented program writes",
    r"(?i)!memprof|memprof-dot|in memprof$|memprof allocation|memProf: \(|MemProf (?:hinting|callsite)"
    r"|MemProf: Function|Memprof cannot promote|MemProfUse pass|Cannot get MemProf|MemProfSummary"
    r"|MemProfiler: |MemProf Profile $|MemInfoBlock|DataAccessProfData|default memprof options"
    r"|memprof\. Ignore": "memory profiles inside of LLVM: its own checks and remarks",
    r"(?i)gcov|coverage notes|Order File|order file": "gcov's notes, and orders of functions",
    r"(?i)^(?:invalid|duplicate) profile(?: version:)? ?(?:for function ')?$|basic-block-sections"
    r"|MBB Profile Dump|BB labels": "Propeller's profiles of basic blocks, which perf writes",
    r"Profile verification failed|Prof\w* ?(?:Summary)?Analysis|profile-summary module|branch_weights"
    r"|duplicate profile values|value profiling metadata|cg_profile|CG Profile|!prof"
    r"|unknown instrumentation|Unknown instrumentation|instrumentation opportunit|Instrumentation is"
    r"|Instrumentor|instrumentation runtime functions|instrumentation events|doesn't have instr"
    r"|Minimal block coverage|DEBUGLOC_COVERAGE|required for profile correlation":
        "LLVM's checks of itself, and experiments that leave no file",
    r"irpgo-profile|call-graph-profile|CALL_GRAPH_PROFILE|cg profile|reproFile|/incremental":
        "the order that a linker gives to functions",
    r"\.symtab|[Ll]ocation counter|location counter|loop counter|loop nest counter|_COUNTER_"
    r"|program counter|counter name|DebugCounter|debug-counter|MaxCounterID|predicate-as-counter"
    r"|readsteady|aarch32|Additional counters|counter for every|has separate"
    r"|Counter Direction|counter updates|a counter|counter register|[Hh]as separate|edge counters"
    r"|GetPerformance|while \(counter|long counter|Tied counter|counter enable|unexpected counter":
        "other counters: of instructions, loops, the debugger",
    r"^BITMAP|read a bitmap|M-profile|'[AMR]' series|profile option \(-T\)|supported"
    r" profile name|extensions' for profile|on entry function does not|Profiling Extension"
    r"|instrumentation(?:-assembly|facility)|Instrumentation Issue|Armv9": "other profiles and bitmaps",
    r"hash mismatch(?:, got|: this object file)": "modules of clang",
    r"-fprofile-generate(?:, -fprofile-instr-generate,)? or -fcs|coverage_sanitizer|-fsanitize-coverage"
    r"|__attribute__|attribute may be|[Cc]orrelated ?[Vv]alue|orrelation kind: ": "parts, documentation",
    r"^(?:GCOV|PGO|Pass|Frontend|Instrumentation) (?:for|Profiler|instrumentation|instrumentation-based)"
    r"|^Instrumentation (?:map|profile)|^Symbols Invalid|^Relocation for|^PGO instr": "names of passes",
}  # fmt: skip

TOOLS = ("bin/llvm-profdata", "bin/llvm-cov", "bin/clang", "bin/lld", "bin/ld.lld",
         "lib/libLLVM*.so*", "lib/libclang-cpp*.so*", "lib/clang/*/lib/**/libclang_rt.profile*.a")  # fmt: skip
#: What rustc's driver says about profiles; its strings are not ended, one follows the other.
RUST = re.compile(
    rb"-C profile-(?:use|generate)`|-C instrument-coverage(?:`| requires)|-Z profile-sample-use`"
    rb"|without the profiler runtime|is not a profiler runtime|-Cprofile-(?:use|generate) must"
)


def read_only(path: Path) -> Iterator[bytes]:
    """Yield the parts of a file in which its messages are: of ELF, what is neither code nor data."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:5] != b"\x7fELF\x02":
            yield data[:]
            return
        table, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
        for number in range(count):
            kind, flags, _, start, size = struct.unpack_from(
                "<IQQQQ", data, table + 64 * number + 4
            )
            if kind == 1 and flags & 0b111 == 0b010:  # PROGBITS; allocated, not written, not run
                yield data[start : start + size]


@functools.cache
def strings_of(prefix: Path) -> frozenset[str]:
    """Return the strings about profiles in the tools and libraries of an LLVM, with a blank each."""
    paths = {path.resolve() for pattern in TOOLS for path in prefix.glob(pattern)}
    runs = (run for path in sorted(paths) for part in read_only(path)
            for run in re.findall(rb"[\x20-\x7e\n\t]{8,}", part))  # fmt: skip
    chosen = {run.decode() for run in runs if b" " in run.strip() and ANCHORS.search(run)}
    return frozenset(chosen)


@functools.cache
def excluded(string: str) -> bool:
    return any(re.search(pattern, string) for pattern in EXCLUDED)


def fragments(message: Message) -> list[str]:
    """Return the strings of a message that answer one of the binaries': words, not symbols."""
    return [string for string in message.strings if " " in string]


def unanswered(strings: frozenset[str], known: Mapping[str, Message]) -> list[str]:
    parts = [part for message in known.values() for part in fragments(message)]
    return sorted(s for s in strings if not any(part in s for part in parts) and not excluded(s))


def llvms() -> list[Toolchain]:
    return [t for t in discovery.discover() if t.kind == "clang" and t.llvm_profdata and t.runtime]


def rustc_drivers() -> list[Path]:
    rustcs = [t for t in discovery.discover() if t.kind == "rustc"]
    return [d for t in rustcs for d in t.prefix.glob("lib/**/librustc_driver*.so")]


def test_each_message_of_each_llvm_is_answered() -> None:
    if not llvms():
        pytest.skip("no LLVM; pgo-lab toolchains --install 19")
    for llvm in llvms():
        assert len(strings_of(llvm.prefix)) > 500
        assert unanswered(strings_of(llvm.prefix), messages.load()) == [], llvm.name


def test_each_entry_is_missed_when_it_is_removed() -> None:
    strings = frozenset().union(*(strings_of(llvm.prefix) for llvm in llvms()))
    if not strings:
        pytest.skip("no LLVM; pgo-lab toolchains --install 19")
    known = dict(messages.load())
    held = [name for name, m in known.items() if any(p in s for p in fragments(m) for s in strings)]
    assert len(held) > 50
    for name in held:
        others = {k: m for k, m in known.items() if k != name}
        # What is said of a raw profile and of a merged one is one string, and two entries.
        alike = [m for m in others.values() if m.strings == known[name].strings]
        assert alike or unanswered(strings, others), name


def test_no_exclusion_hides_a_message() -> None:
    strings = frozenset().union(*(strings_of(llvm.prefix) for llvm in llvms()))
    parts = [part for message in messages.load().values() for part in fragments(message)]
    short = [string for string in strings if len(string) < 200]
    assert [s for s in short if excluded(s) and any(part in s for part in parts)] == []


def test_each_exclusion_is_needed() -> None:
    strings = frozenset().union(*(strings_of(llvm.prefix) for llvm in llvms()))
    if not strings:
        pytest.skip("no LLVM; pgo-lab toolchains --install 19")
    assert [p for p in EXCLUDED if not any(re.search(p, s) for s in strings)] == []


def test_since_and_until_are_those_of_the_binaries() -> None:
    for llvm in llvms():
        major = int(llvm.major)
        for name, message in messages.load().items():
            bounds = int(message.since or 0), int(message.until or 99)
            if message.since or message.until:
                held = any(p in s for p in fragments(message) for s in strings_of(llvm.prefix))
                assert held == (bounds[0] <= major <= bounds[1]), (name, llvm.name)


@pytest.mark.parametrize("name", [*messages.load(), ""])
def test_an_entry_without_bounds_is_in_each_llvm_or_in_none(name: str) -> None:
    if name and not messages.load()[name].since and not messages.load()[name].until:
        parts = fragments(messages.load()[name])
        held = [any(p in s for p in parts for s in strings_of(llvm.prefix)) for llvm in llvms()]
        assert len(set(held)) < 2, held


def unanswered_of_rustc(known: Mapping[str, Message]) -> list[bytes]:
    """Return what surrounds the words of RUST that no entry answers, in each driver of rustc."""
    parts = [s.encode() for m in known.values() if "rustc" in m.says for s in fragments(m)]
    gaps = []
    for driver in rustc_drivers():
        for data in read_only(driver):
            for match in RUST.finditer(data):
                around = data[max(match.start() - 80, 0) : match.end() + 80]
                places = (data.find(part, max(match.start() - len(part), 0)) for part in parts)
                ends = zip(places, map(len, parts), strict=True)
                covered = any(0 <= start < match.end() <= start + size for start, size in ends)
                if not covered and b"When using the `-C instrument-coverage` flag" not in around:
                    gaps.append(around)
    return gaps


def test_each_message_of_rustc_is_answered_and_missed_when_its_entry_is_removed() -> None:
    if not rustc_drivers():
        pytest.skip("no rustc; pgo-lab toolchains --install rustc-web")
    known = messages.load()
    assert unanswered_of_rustc(known) == []
    for name in ("profile file of rustc is missing", "rustc options exclude each other",
                 "rustc option lacks its path", "rustc lacks its profile runtime"):  # fmt: skip
        assert unanswered_of_rustc({k: m for k, m in known.items() if k != name}), name


SOURCE = """
int first(int x) { if (x > 3) return x * 2; return x + 1; }
int second(int x) { return x - 1; }
int (*volatile called)(int) = second;
int main(int argc, char **argv) { return first(argc) + called(argc) > 100; }
"""
SMALL = "int other(int x) { return x > 2; }\n"
EXPECTS = """
int often(int x) { if (__builtin_expect(x > 100, 1)) return 1; return 2; }
int main(int argc, char **argv) { int s = 0; for (int i = 0; i < 99; i++) s += often(argc + i % 2); return !s; }
"""
DUMPS = "int __llvm_profile_dump(void); int main(void) { return __llvm_profile_dump() + __llvm_profile_dump(); }\n"
CALLS = "int %s(void); int main(void) { return %s(); }\n"


class Workshop:
    """What makes tools speak: small programs, their profiles, and profiles that were spoiled."""

    def __init__(self, folder: Path, toolchain: Callable[[str], Toolchain]) -> None:
        self.folder, self.toolchain, self.text = folder, toolchain, ""
        for name, source in {
            "a": SOURCE,
            "small": SMALL,
            "expects": EXPECTS,
            "dumps": DUMPS,
            "entry": SOURCE,
        }.items():
            (folder / f"{name}.c").write_text(source)
        self.clang("-fprofile-generate", "a.c", "-o", "ir")
        self.clang("-fprofile-instr-generate", "-fcoverage-mapping", "a.c", "-o", "cov")
        for name in ("ir", "cov"):
            self.run(f"./{name}", file=f"{name}.profraw")
            self.profdata("merge", f"{name}.profraw", "-o", f"{name}.profdata")
        assert not self.text

    def run(self, *argv: str | Path, file: str = "default.profraw") -> str:
        """Run a command in the folder; return, and note, what it prints."""
        env = {"PATH": os.environ["PATH"], "LLVM_PROFILE_FILE": file, "LC_ALL": "C"}
        done = subprocess.run([str(part) for part in argv], cwd=self.folder, env=env, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        text = done.stdout.decode(errors="replace")
        self.text += text
        return text

    def clang(self, *argv: str, llvm: str = "19") -> str:
        return self.run(self.toolchain(llvm).compiler, "-O1", *argv)

    def profdata(self, *argv: str, llvm: str = "19") -> str:
        return self.run(self.toolchain(llvm).compiler.with_name("llvm-profdata"), *argv)

    def cov(self, *argv: str) -> str:
        return self.run(self.toolchain("19").compiler.with_name("llvm-cov"), *argv)

    def texts(self, *profiles: str) -> str:
        """Merge profiles that are written in text, each after the line `:ir` or another of its own."""
        for number, profile in enumerate(profiles):
            body = profile if profile.startswith(":") else f":ir\n{profile}"
            (self.folder / f"{number}.proftext").write_text(body.replace(" ", "\n") + "\n")
        names = [f"{number}.proftext" for number in range(len(profiles))]
        return self.profdata("merge", *names, "-o", "merged")

    def spoiled(self, change: Callable[[bytearray], object], name: str = "ir.profraw") -> str:
        """Merge a profile of which something was changed."""
        data = bytearray((self.folder / name).read_bytes())
        change(data)
        (self.folder / "spoiled").write_bytes(data)
        return self.profdata("merge", "spoiled", "-o", "merged")

    def field(self, name: str, value: int, record: bool = False) -> str:
        """Merge a profile of which one field, of the header or of the first record, was changed."""
        layout = LAYOUTS[10]
        place = (
            layout.header_size + layout.offsets()[name] if record else 8 * layout.header.index(name)
        )
        width = "<I" if name == "NumCounters" and record else "<Q"
        return self.spoiled(lambda data: struct.pack_into(width, data, place, value))

    def counter(self) -> str:
        layout = LAYOUTS[10]
        place = layout.header_size + 3 * layout.record_size()
        return self.spoiled(lambda data: struct.pack_into("<Q", data, place, 13 * 10**18 + 1))

    def used(self, profile: str, source: str, *flags: str, kind: str = "use") -> str:
        """Compile a source by a profile, a whole text or a file's name."""
        if "\n" in source:
            (self.folder / "used" / "a.c").parent.mkdir(exist_ok=True)
            (self.folder / "used" / "a.c").write_text(source)
            source = "used/a.c"
        flag = f"-fprofile-{kind}={profile}"
        return self.clang("-O2", flag, *flags, "-c", source, "-o", "used.o")

    def linked(self, symbol: str, linker: str = "lld", *flags: str) -> str:
        (self.folder / "calls.c").write_text(CALLS % (symbol, symbol))
        return self.clang(f"-fuse-ld={linker}", *flags, "calls.c", "-o", "linked")

    def twice(self) -> str:
        """Link two objects that both define the symbol of the version."""
        (self.folder / "twice.c").write_text("long long __llvm_profile_raw_version = 8;\n")
        self.clang("-c", "twice.c")
        return self.clang("-fuse-ld=lld", "-fprofile-generate", "twice.o", "a.c", "-o", "linked")

    def mixed(self) -> str:
        self.clang("-fprofile-generate", "-c", "small.c", "-o", "old.o", llvm="17")
        self.clang("-fprofile-generate", "old.o", "a.c", "-o", "mixed")
        return self.run("./mixed", file="mixed.profraw")

    def pooled(self, content: bytes) -> str:
        """Run a program whose merge pool holds already something else."""
        self.run("./ir", file="pool/%m.profraw")
        [pool] = (self.folder / "pool").iterdir()
        pool.write_bytes(content)
        return self.run("./ir", file="pool/%m.profraw")

    def temporal(self) -> str:
        self.clang(
            "-fprofile-generate", "-mllvm", "-pgo-temporal-instrumentation", "a.c", "-o", "t"
        )
        return "".join(self.run("./t", file="t%m.profraw") for _ in range(2))

    def trained(self, name: str, *flags: str) -> str:
        self.clang("-O2", "-fprofile-generate", *flags, f"{name}.c", "-o", name)
        self.run(f"./{name}", file=f"{name}.profraw")
        self.profdata("merge", f"{name}.profraw", "-o", f"{name}.profdata")
        return f"{name}.profdata"

    def older(self, command: str) -> str:
        """Let LLVM 17 read a profile of 19."""
        return self.profdata(command, f"ir.{'profraw' if command == 'merge' else 'profdata'}",
                             *(["-o", "merged"] if command == "merge" else []), llvm="17")  # fmt: skip

    def newer(self) -> str:
        os.utime(self.folder / "cov")
        return self.cov("report", "cov", "-instr-profile=cov.profdata")

    def rustc(self, *flags: str) -> str:
        rustcs = [
            t for t in discovery.discover() if t.kind == "rustc" and "rustc-web" not in t.provider
        ]
        if not rustcs:
            pytest.skip("no rustc of rustup")
        (self.folder / "r.rs").write_text("fn main() {}\n")
        return self.run(rustcs[-1].compiler, *flags, "r.rs")


@pytest.fixture(scope="module")
def workshop(
    tmp_path_factory: pytest.TempPathFactory, toolchain: Callable[[str], Toolchain]
) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"), toolchain)


CHANGED = SOURCE.replace("x > 3", "x > 3 && x < 9 || x == 77")
LONGER = SOURCE + "int third(int x) { if (x) return 2; return 1; }\n"
#: How a tool here is made to say each message.
SAID: dict[str, Callable[[Workshop], str]] = {
    "profile file of rustc is missing": lambda w: w.rustc("-Cprofile-use=/no/such.profdata"),
    "rustc options exclude each other": lambda w: w.rustc("-Cprofile-generate", "-Cprofile-use=x"),
    "rustc option lacks its path": lambda w: w.rustc("-Cprofile-use"),
    "no IR profile": lambda w: w.rustc(f"-Cprofile-use={w.folder / 'cov.profdata'}"),
    "options exclude each other": lambda w: w.clang("-fprofile-generate", "-fprofile-use", "a.c"),
    "option is not known": lambda w: w.clang("-fprofile-update=never", "-c", "a.c"),
    "undefined counters": lambda w: w.linked("__profc_other"),
    "undefined profile runtime": lambda w: w.linked("__llvm_profile_write_file"),
    "undefined gcov": lambda w: w.linked("__gcov_init"),
    "duplicate profile symbol": Workshop.twice,
    "profile runtime library is missing": lambda w: w.linked(
        "second", "lld", "-fprofile-generate", "-resource-dir=/none"),
    "runtime version mismatch": Workshop.mixed,
    "continuous mode needs a bias": lambda w: w.run("./ir", file="%c-x.profraw"),
    "merge pool is not compatible": lambda w: w.pooled((w.folder / "cov.profraw").read_bytes()),
    "merge pool is too small": lambda w: w.pooled(b"x" * 50),
    "this kind does not merge at run time": Workshop.temporal,
    "merge at run time failed": Workshop.temporal,
    "runtime could not write": lambda w: w.run("./ir", file="/proc/none/x.profraw"),
    "file name specifier": lambda w: w.run("./ir", file="%m%m.profraw"),
    "file name cannot be filled in": lambda w: w.run("./ir", file="%t/x.profraw"),
    "raw version mismatch": lambda w: w.older("merge"),
    "merged profile's version is not supported": lambda w: w.older("show"),
    "symbol name is empty": lambda w: w.field("NumData", 1),
    "excessive counter": Workshop.counter,
    "records do not fit": lambda w: w.field("NumCounters", 1 << 20, record=True),
    "text profile is malformed": lambda w: w.profdata("merge", "a.c", "-o", "merged"),
    "binary ids are malformed": lambda w: w.field("BinaryIdsSize", 8),
    "truncated profile": lambda w: w.texts("f 1 2 3"),
    "too much profile data": lambda w: w.spoiled(lambda data: data.__delitem__(slice(-8, None))),
    "header is corrupt": lambda w: w.spoiled(lambda data: data.__delitem__(slice(100, None))),
    "bad magic": lambda w: w.used("ir.profraw", "a.c"),
    "format is not recognized": lambda w: w.profdata("merge", "ir", "-o", "merged"),
    "profile is empty": lambda w: w.profdata("show", "/dev/null"),
    "there is no profile": lambda w: w.profdata("merge", "none.profraw", "-o", "merged"),
    "correlation failed": lambda w: w.profdata("merge", "--debug-info=ir", "ir.profraw", "-o", "x"),
    "kinds do not merge": lambda w: w.texts("f 1 2 5 6", ":fe\nf 1 2 5 6"),
    "functions differ in the merge": lambda w: w.texts("f 1 1 5", "f 1 2 5 6"),
    "merge is not of one program": lambda w: w.texts("f 1 1 5", "f 1 2 5 6"),
    "counter overflow": lambda w: w.texts(*[f"f 1 1 {2**64 - 100}"] * 2),
    "malformed profile": lambda w: w.texts("f 1 1 5 1 0 x"),
    "sample profile": lambda w: w.profdata("merge", "--sample", "ir.profraw", "-o", "merged"),
    "llvm-profdata was called wrongly": lambda w: w.profdata("merge", "-o", "merged"),
    "entry profile": lambda w: w.used(w.trained("entry", "-mllvm", "-pgo-function-entry-coverage"), "a.c"),
    "function changed": lambda w: w.used("ir.profdata", CHANGED),
    "profile is out of date": lambda w: w.used("cov.profdata", CHANGED, kind="instr-use"),
    "profile is incomplete": lambda w: w.used(
        "cov.profdata", LONGER, "-Wprofile-instr-missing", kind="instr-use"),
    "file is not in the profile": lambda w: w.used("cov.profdata", "small.c", kind="instr-use"),
    "function is not in the profile": lambda w: w.used(
        "ir.profdata", "small.c", "-mllvm", "-pgo-warn-missing-function"),
    "expectation was wrong": lambda w: w.used(w.trained("expects"), "expects.c", "-Wmisexpect"),
    "no coverage mapping": lambda w: w.cov("report", "ir", "-instr-profile=ir.profdata"),
    "functions have mismatched data": lambda w: w.cov("show", "cov", "-instr-profile=ir.profdata"),
    "object is newer": Workshop.newer,
    "binary id has no object": lambda w: w.cov(
        "report", "-arch=arm64", "cov", "-instr-profile=cov.profdata"),
    "llvm-cov was called wrongly": lambda w: w.cov("report", "cov"),
    "dump may overwrite": lambda w: w.trained("dumps") and w.run("./dumps"),
    "runtime tells its names": lambda w: w.trained("dumps") and w.run("./dumps"),
    "clang or rustc cannot read the profile": lambda w: w.used("none.profdata", "a.c"),
    "llvm-cov cannot load": lambda w: w.cov("show", "cov", "-instr-profile=none"),
    "no profile can be merged": lambda w: w.profdata("merge", "a.c", "-o", "merged"),
    "linker failed": lambda w: w.linked("__gcov_init"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_what_a_tool_really_says_is_found(name: str, workshop: Workshop) -> None:
    lines = SAID[name](workshop).splitlines()
    occurrences = {o.message.name: o for o in messages.find(lines)}
    assert name in occurrences, lines
    assert_filled(occurrences[name])


def assert_filled(occurrence: Occurrence) -> None:
    """Assert that each sentence reads well, whichever groups matched."""
    causes = occurrence.message.causes
    sentences = [s for cause in causes for s in (cause.why, cause.do, cause.coverage)]
    for sentence in [occurrence.means, *map(occurrence.fill, sentences)]:
        assert not re.search(r"[{}]| [.,:;](?:\s|$)|[:;,]\.|  ", sentence), sentence


#: Lines of what cannot be made to happen here, or of other tools and releases.
SAMPLES = {
    "profile file of rustc is missing": [
        "error: File `target/merged.profdata` passed to `-C profile-use` does not exist.",
    ],
    "symbol name is empty": [
        "warning: a.profraw: malformed instrumentation profile data: function name is empty",
    ],
    "malformed profile": ["warning: a.profraw: Malformed instrumentation profile data"],
    "bad magic": ["warning: /b/fd.pgo: Invalid instrumentation profile data (bad magic)"],
    "rustc lacks its profile runtime": [
        "error[E0463]: can't find crate for `profiler_builtins`",
        "  = note: the compiler may have been built without the profiler runtime",
        "error: the crate `core` is not a profiler runtime",
    ],
    "rustc options exclude each other": [
        "error: option `-C instrument-coverage` is not compatible with either `-C profile-use` or `-C profile-generate`",
        "warning: -C instrument-coverage requires symbol mangling version `v0`, but `-C symbol-mangling-version=legacy` was specified",
    ],
    "options exclude each other": [
        "clang: error: invalid argument '-fcoverage-mapping' only allowed with '-fprofile-instr-generate'",
        "clang: error: invalid argument 'SampleUse with PGO options' not allowed with ''",
    ],
    "option is not known": [
        "gcc: error: unrecognized command-line option \u2018-fprofile-instr-generate\u2019; did you mean \u2018-fprofile-generate\u2019?",
        "clang: error: unknown argument: '-fprofile-continuous'",
        "error: unknown codegen option: `profile-generated`",
    ],
    "option needs a profile": [
        "warning: argument '-fprofile-sample-accurate' requires profile-guided optimization information",
    ],
    "undefined profile runtime": [
        "a.c:(.text+0x77): undefined reference to `__llvm_profile_instrument_memop'",
        "mold: error: undefined symbol: __llvm_profile_instrument_target",
        "lld-link: error: undefined symbol: __llvm_profile_write_file",
        "ld64.lld: error: undefined symbol: ___llvm_profile_runtime",
        '  "___llvm_profile_runtime", referenced from:',
        "Undefined symbol: ___llvm_profile_runtime",
        "a.obj : error LNK2019: unresolved external symbol __llvm_profile_runtime referenced in function main",
    ],
    "undefined counters": [
        "/usr/bin/ld.bfd: a.o:(.data+0x0): undefined reference to `__profc_foo'",
        "lld-link: error: undefined symbol: __llvm_profile_counter_bias",
        "ld.lld: error: undefined hidden symbol: __start___llvm_prf_cnts",
        "ld.lld: error: relocation refers to a discarded section: __llvm_prf_data",
    ],
    "undefined gcov": [
        "a.c:(.text+0x96): undefined reference to `__gcov_init'",
        '  "___gcov_merge_add", referenced from:',
        "ld.lld: error: undefined symbol: llvm_gcda_emit_arcs",
    ],
    "duplicate profile symbol": [
        "/usr/bin/ld: b.o:(.data+0x0): multiple definition of `__llvm_profile_raw_version'; a.o:(.data+0x0): first defined here",
        "mold: error: duplicate symbol: b.o: a.o: __llvm_profile_counter_bias",
        "duplicate symbol '___llvm_profile_runtime' in:",
        "b.obj : error LNK2005: __llvm_profile_raw_version already defined in a.obj",
    ],
    "profile runtime library is missing": [
        "/usr/bin/ld: cannot find /usr/lib/llvm-16/lib/clang/16/lib/linux/libclang_rt.profile-x86_64.a: No such file or directory",
        "ld: library not found for -lclang_rt.profile_osx",
        "LINK : fatal error LNK1104: cannot open file 'clang_rt.profile-x86_64.lib'",
        "lld-link: error: could not open 'clang_rt.profile.lib': No such file or directory",
    ],
    "continuous mode needs a bias": [
        "LLVM Profile Error: Neither __llvm_profile_counter_bias nor __llvm_profile_bitmap_bias is defined",
    ],
    "continuous mode cannot map": [
        "LLVM Profile Error: Continuous counter sync mode is enabled, but raw profile is notpage-aligned. CurrentFileOffset = 8, pagesz = 4096.",
        "LLVM Profile Error: Counters section not page-aligned (start = 0x1, pagesz = 4096).",
        "LLVM Profile Warning: __llvm_profile_set_file_object(fd=3) not supported in continuous sync mode when merging is disabled",
    ],
    "runtime could not write": [
        'LLVM Profile Error: Failed to write file "default.profraw": Operation not permitted',
        "LLVM Profile Error: Failed to write file : Filename not set",
        "LLVM Profile Error: mmapProfileForMerging: mmap failed: Invalid argument",
        "LLVM Profile Warning: can't open file with mode ab: x.profraw",
    ],
    "gcov file is not compatible": [
        "libgcov profiling error:/b/gg.gcda:overwriting an existing profile data with a different checksum",
        "profiling: /b/a.gcda: cannot merge previous GCDA file: corrupt arc tag (0x00000000)",
        "profiling: /b/a.gcda: cannot open: Permission denied",
    ],
    "profile version is not supported": [
        "warning: cov/0.profraw: Unsupported instrumentation profile format version",
    ],
    "value data is malformed": [
        "warning: a.profraw: malformed instrumentation profile data: number of value profile kinds is invalid",
        "warning: Inconsistent number of value sites for indirect call profiling in \"f\", possibly due to the use of a stale profile.",
    ],
    "hash type is not supported": ["error: a.profdata: unsupported instrumentation profile hash type"],
    "no zlib": [
        "warning: a: profile uses zlib compression but the profile reader was built without zlib support",
    ],
    "correlation is needed": [
        "warning: a.profraw: debug info/binary for correlation is required",
        "error: Expected --debuginfod or --debug-file-directory when --correlate is provided",
    ],
    "merge would be invalid": [
        "error: invalid profile created. Please file a bug at: https://example.org and include the profraw files that caused this error.",
    ],
    "kinds do not merge": [
        "warning: p.profraw: Merge IR generated profile with Clang generated profile.",
        "error: cannot merge single-byte-coverage profiles with count (non-coverage) profiles",
        "error: cannot merge FunctionEntryOnly profiles and BB profiles together",
    ],
    "memory profile": ["error: a.memprofraw: memprof raw profile got different call stack for same id"],
    "entry profile": ["error: a.profdata: Cannot use coverage profiles for optimization"],
    "function changed": [
        "warning: app.0123-cgu.1: function control flow change detected (hash mismatch) _ZN3app5driveE Hash = 42 up to 20 count discarded",
    ],
    "select or branch without counts": [
        "warning: Invalid Profile Data in Function main",
        "Profile data available but missing branch-weights metadata for select instruction. ",
    ],
    "expectation was wrong": [
        "warning: a.c:1:2: Potential performance regression from use of the llvm.expect intrinsic: Annotation was correct on 10.0% (1 / 10) of profiled executions.",
    ],
    "feature is not supported": [
        "error: Runtime counter relocation is presently not supported for MC/DC bitmaps.",
    ],
    "gcc has no such profile": [
        "gg.c:5:5: error: the control flow of function \u2018zz\u2019 does not match its profile data (counter \u2018arcs\u2019)",
        "o.c:1:1: warning: \u2018a.profdata/o.gcda\u2019 profile count data file not found [-Wmissing-profile]",
    ],
    "a tool around it failed": [
        "error: failed to merge profile data: process didn't exit successfully: `llvm-profdata merge` (exit status: 1)",
        "Failed to merge PGO profile(s): warning: a.profraw: ...",
        "Failed to merge raw profiles in directory /b to destination /b/Coverage.profdata: Aggregation tool '/x/llvm-profdata' failed with exit code 1: ...",
    ],
    "contextual profile": ["error: contextual profile file is invalid: Empty"],
    "coverage mapping is malformed": [
        "error: failed to load coverage: 'a': malformed coverage data: coverage mapping size is not zero",
    ],
    "coverage version is not supported": [
        "error: Failed to load coverage: 'a': Unsupported coverage format version",
    ],
    "binary id has no object": ["error: Missing binary ID: 0123abcd"],
    "value counters ran out": [
        "LLVM Profile Warning: Unable to track new values: Running out of static counters.  Consider using option -mllvm -vp-counters-per-site=<n> to allocate more value profile counters at compile time. ",
    ],
    "profile of a device": [
        "LLVM Profile Note: hsa_init failed (0x1) - HSA device profiling disabled",
        "LLVM Profile Warning: failed to get symbol x for module 0x1",
    ],
    "clang or rustc cannot read the profile": [
        "error: Could not read profile a.profdata: No such file or directory",
        "clang: error: error in reading profile a.profdata: Is a directory",
    ],
    "no profile can be merged": ["error: No profiles could be merged."],
    "linker failed": [
        "make: *** [Makefile:3: all] Error 1",
        "error: could not compile `app` (bin \"app\") due to 1 previous error",
        "error: linking with `cc` failed: exit status: 1",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_wordings_of_other_tools_and_releases_are_found(name: str) -> None:
    for line in SAMPLES[name]:
        occurrences = messages.find(["before", line, "behind"])
        assert name in [o.message.name for o in occurrences], line
        assert {o.line for o in occurrences} == {1}
        for occurrence in occurrences:
            assert_filled(occurrence)


def names(text: str) -> list[str]:
    return [o.message.name for o in messages.find(text.splitlines())]


def test_each_message_has_a_line_that_was_said() -> None:
    assert messages.load().keys() == {*SAID, *SAMPLES}


def test_raw_versions_are_decoded() -> None:
    line = "Profile uses raw profile format version = 8; expected version = 10"
    [occurrence] = messages.find([line])
    assert "8, which is LLVM 14 to 17" in occurrence.means
    assert "10, which is LLVM 19 to 22" in occurrence.means
    assert "LLVM 14 to 17" in occurrence.fill(occurrence.message.causes[0].do)
    assert occurrence.values["raw_version"] == "8"
    [unknown] = messages.find([line.replace("= 8", "= 99")])
    assert "99, which is an LLVM newer than this tool knows" in unknown.means


def test_the_innermost_cause_is_first_and_what_only_follows_is_last() -> None:
    text = """\
make: *** [all] Error 1
error: no profile can be merged
warning: a.profraw: malformed instrumentation profile data: symbol name is empty
LLVM Profile Warning: Unable to track new values: Running out of static counters.
"""
    assert names(text) == ["symbol name is empty", "malformed profile", "value counters ran out",
                           "no profile can be merged", "linker failed"]  # fmt: skip
    link = "ld.lld: error: undefined symbol: __llvm_profile_runtime\nmake: *** [all] Error 1"
    assert names(link) == ["undefined profile runtime", "linker failed"]
    assert [o.line for o in messages.find(text.splitlines())] == [2, 2, 3, 1, 0]


def test_a_message_is_named_once_for_its_first_line() -> None:
    line = "warning: {}.profraw: truncated profile data"
    occurrences = messages.find([line.format(word) for word in ("one", "two", "three")])
    assert [(o.message.name, o.line) for o in occurrences] == [("truncated profile", 0)]


@pytest.mark.parametrize("width", [40, 60, 72, 80])
@pytest.mark.parametrize("blanks", [True, False])
def test_a_message_that_was_wrapped_is_found(width: int, blanks: bool) -> None:
    """A window breaks at its edge, mail at a blank."""
    line = ("LLVM Profile Error: Runtime and instrumentation version mismatch : "
            "expected 10, but get 8")  # fmt: skip
    cut = line.rfind(" ", 0, width) if blanks else width
    parts = [line[:cut], line[cut + blanks :]] if width > 40 else [
        line[:40], line[40:80], line[80:]]  # fmt: skip
    occurrences = messages.find(["$ ./a.out", *parts, "$"])
    assert [(o.message.name, o.line) for o in occurrences] == [("runtime version mismatch", 1)]


def test_lines_that_only_stand_together_are_no_message() -> None:
    assert names("short\nno profile\ncan be merged\nno profile here of any kind at all") == []


def test_text_without_a_message_has_none() -> None:
    assert messages.find([]) == messages.find([""]) == []
    assert names("Compiling profile v1.0\nthe counters of coverage\nSegmentation fault") == []


def test_junk_is_no_error() -> None:
    assert messages.find(["\udcff\x00\x1b[31m", "\u00e9" * 99, "truncated profile data \udcff"])


@pytest.mark.parametrize("what", ["frames", "warnings", "prose"])
def test_a_long_log_takes_no_time(what: str) -> None:
    shape = {
        "frames": "#{} 0x{:016x} in core::ops::FnOnce::call_once at src/profile/counter.rs:{} {}",
        "warnings": "warning: app.{:x}: function control flow change detected (hash mismatch) f{} Hash = {} up to {}",
        "prose": "[{:08}] the profile data of module {} was read by llvm-profdata, counter {} of {}, and so on",
    }[what]
    lines = [shape.format(n, n * 7919, n % 90, n) for n in range(200_000)]
    lines.append("error: no profile can be merged")
    assert sum(map(len, lines)) > 14 << 20
    messages.find(["no profile can be merged"])
    start = time.process_time()
    found = [o.message.name for o in messages.find(lines)]
    assert time.process_time() - start < 0.5
    assert found == ["function changed"] * (what == "warnings") + ["no profile can be merged"]


def test_each_command_that_tells_causes_apart_is_there() -> None:
    group = typer.main.get_command(commands.app)
    ours = set(getattr(group, "commands"))  # noqa: B009 - a group's, of whichever click typer brings
    known = {"clang", "cc", "rustc", "cargo", "df"}  # compilers, what calls them; the disk
    for message in messages.load().values():
        assert message.causes, message.name
        for cause in message.causes:
            tool, command, *_ = cause.tells.split()
            assert tool in known or tool.startswith("llvm-") or tool == "pgo-lab", cause
            assert tool != "pgo-lab" or command in ours, cause
            mentioned = re.findall(r"pgo-lab (\w+)(?= -| PROGRAM)", cause.do)
            assert set(mentioned) <= ours, cause


def test_each_tool_of_llvm_that_is_named_comes_with_it() -> None:
    if not llvms():
        pytest.skip("no LLVM; pgo-lab toolchains --install 19")
    tools = {path.name for llvm in llvms() for path in (llvm.prefix / "bin").glob("llvm-*")}
    causes = [cause for message in messages.load().values() for cause in message.causes]
    named = {c.tells.split()[0] for c in causes if c.tells.startswith("llvm-")}
    assert named <= tools


def test_a_cause_of_two_llvms_is_told_apart_by_the_audit() -> None:
    causes = [cause for message in messages.load().values() for cause in message.causes]
    assert sum(cause.mix for cause in causes) > 15
    assert {c.tells.split()[1] for c in causes if c.mix} == {"audit"}


TOOL_NAMES = {"rustc", "rustup", "clang", "gcc", "llvm-cov", "llvm-profdata"}


def test_sentences_are_sentences() -> None:
    for message in messages.load().values():
        for sentence in [message.means, *(c.why for c in message.causes)]:
            word = sentence.split()[0].removesuffix("'s")
            assert not word[0].islower() or word in TOOL_NAMES, sentence
            assert sentence.endswith((".", ")", "?")), sentence


def test_what_was_not_run_says_from_where() -> None:
    for message in messages.load().values():
        missing = {"ld64", "link.exe", "xcodebuild"} & set(message.says)
        assert bool(missing) == message.not_run.startswith("from public documents"), message.name


@pytest.mark.parametrize(
    ("reason", "first"),
    [
        ("No space left on device", "The disk is full"),
        ("Disk quota exceeded", "The disk is full"),
        ("No such file or directory", "The folder is not there"),
        ("Read-only file system", "The folder may not be written"),
        ("Success", '"Success" as the reason'),
    ],
)
def test_what_a_message_gives_as_its_reason_is_the_first_cause(reason: str, first: str) -> None:
    lines = [f'LLVM Profile Error: Failed to write file "x.profraw": {reason}']
    (occurrence,) = messages.find(lines)
    for mixed in (None, True, False):
        assert messages.causes(occurrence, lines, mixed=mixed)[0].why.startswith(first)


def test_each_pattern_of_a_reason_is_of_a_message_that_gives_one() -> None:
    for message in messages.load().values():
        for cause in message.causes:
            assert not re.compile(cause.reason).pattern or "reason" in message.regex.groupindex
