"""The steps of `pgo-lab mac-check`: each goes on without a tool that is missing, and says which.

Written from public facts, and never run on a Mac.
"""

import contextlib
import dataclasses
import itertools
import os
import shlex
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbsupport
from nbsupport.base import process, progress, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.lab.lab import ORDERS, Lab, environment
from nbsupport.lab.trial import Trial
from nbsupport.profile.layout import same_stride
from nbsupport.studies import mac_evidence
from nbsupport.studies.sent_folder import SentFolder
from nbsupport.toolchains import Toolchain, discovery, probe, profdata

#: Of `results.json`: a reader that knows another number refuses it.
SCHEMA = 1
RESULTS = "results.json"
#: What is asked of the machine. `brew` is not: it looks for updates of its own, on the network.
MACHINE = (
    "sw_vers",
    "uname -m",
    "sysctl -n machdep.cpu.brand_string",
    "sysctl -n sysctl.proc_translated",
    "DevToolsSecurity -status",
    "rustc -vV",
)
#: What is asked of Apple's tools where they are; macOS would offer to install them otherwise.
XCODE = (
    "xcrun --find clang",
    "xcrun clang --version",
    "xcrun lldb --version",
    "xcrun ld -v",
    "xcrun ld -ld_classic -v",
)
#: Of the environment these alone are told: they choose compilers, headers and libraries.
VARIABLES = ("DEVELOPER_DIR", "SDKROOT", "TOOLCHAINS", "MACOSX_DEPLOYMENT_TARGET", "CPATH")
OPTIMIZED = ("-Os", "-O2")
#: Off by its last word, as the cure has it that is pasted into CFLAGS.
OFF = ("-fprofile-generate", "-fno-profile-generate")
#: Included in a library, it aligns its constants more. See version-symbol-alignment in linker.toml.
ALIGNED = "aligned.inc"
#: What LLDB is asked at a crash, as text. All registers: `far` is of a set of its own on arm64.
LLDB = ("thread info", "bt", "register read --all", "disassemble --pc --count 4")
_ASKING = settings.Limits(seconds=15.0)
_REPORTED = ("far", "esr", "faultvaddr")
_MOST_REPORTS = 8
#: Seconds by which the time of a file may be behind the clock.
_TICK = 1.0
#: Seconds that macOS may take to write its report.
_WAIT = 15.0


@dataclass(frozen=True)
class MacBuild:
    """A program to build: by whom, optimized how, in which order, by which linker, stripped.

    `main` and `foreign` are toolchains' names; the foreign part is `instrumented`, or is not, and
    its constants, with the version symbol, may be `aligned` more than main's are.
    """

    main: str
    foreign: str
    optimize: str = OPTIMIZED[0]
    order: str = ORDERS[0]
    linker: str = "ld"
    dead_strip: bool = False
    instrumented: bool = True
    aligned: bool = False

    @property
    def program(self) -> str:
        """The program of the lab that main's toolchain builds: a Rust one by rustc."""
        return "rust-cold" if "@rustc" in self.main else "cold"

    @property
    def name(self) -> str:
        """The name of its files."""
        marks = ["stripped"] * self.dead_strip + ["foreign-off"] * (not self.instrumented)
        marks += ["aligned"] * self.aligned
        words = (self.main, self.foreign, self.optimize.strip("-"), self.order, self.linker)
        return "_".join((*words, *marks)).replace("/", "-")


class MacCheck:
    """One check: its `results` are in the `folder` after each thing that was done.

    What it links with is set where it is found: `linkers` are flags by name, `strip` and `map` the
    linker's words for "no dead code" and for a map of what it linked. `late` is set when the time
    of a step is over.
    """

    def __init__(self, folder: Path, work: Path) -> None:
        self.folder, self.work = SentFolder(folder, {work: "<work>"}), work
        self.results: dict[str, Any] = {"schema": SCHEMA, "whole": False, "missing": []}
        self.results["made_by"] = f"pgo-lab {nbsupport.__version__}"
        self.results["environment"] = {v: os.environ[v] for v in VARIABLES if v in os.environ}
        self.results |= {"machine": [], "compilers": [], "builds": [], "reports": []}
        self.linkers: dict[str, tuple[str, ...]] = {}
        self.strip, self.map = "-Wl,-dead_strip", "-Wl,-map,"
        self.pairs: list[tuple[Toolchain, Toolchain]] = []
        self.lldb: Path | None = None
        self.late = threading.Event()
        self._xcode, self._start = False, time.time() - _TICK

    def save(self) -> None:
        """Write what is known by now: Ctrl-C leaves that."""
        self.folder.write_json(RESULTS, self.results)

    def lack(self, what: str) -> None:
        """Take note of what is missing, and say it."""
        self.results["missing"].append(what)
        progress.say(f"  missing: {what}")
        self.save()

    def ask_machine(self) -> None:
        """Ask what this Mac is, and which of Apple's tools it has."""
        for command in MACHINE:
            self._ask(command)
        self._xcode = bool(self._ask("xcode-select -p"))
        if not self._xcode:
            self.lack("Apple's compiler and linker: xcode-select --install brings them")
            return
        for command in XCODE:
            self._ask(command)
        linker = Path(self._ask("xcrun --find ld"))
        if linker.is_file():
            self.linkers["ld"] = (f"--ld-path={linker}",)
            if linker.with_name("ld-classic").is_file():
                self.linkers["ld-classic"] = (*self.linkers["ld"], "-Wl,-ld_classic")

    def _ask(self, command: str) -> str:
        """Run a command and keep what it prints; return its output, "" where it fails."""
        row: dict[str, Any] = {"command": command, "exit_code": None, "output": ""}
        answer = ""
        try:
            argv, env = shlex.split(command), probe.environment()
            done = process.run(argv, cwd=Path("/"), env=env, limits=_ASKING)
            row |= {"exit_code": done.exit_code, "output": (done.stdout + done.stderr).strip()}
            answer = done.stdout.strip() if done.ok else ""
        except LabError as error:
            row["output"] = str(error)
        self.results["machine"].append(row)
        self.save()
        return answer

    def find_compilers(self) -> None:
        """Find the compilers, read each one's raw version off its code, choose whom to mix."""
        if not self._xcode:
            return
        toolchains = discovery.discover()
        keys = ("name", "kind", "version", "raw_version", "provider", "compiler", "runtime")
        for t in toolchains:
            values = {key: getattr(t, key) for key in keys}
            row = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
            self.results["compilers"].append(row)
        self.pairs = choose(toolchains)
        self.lldb = next((t.lldb for t in toolchains if t.provider == "apple"), None)
        if not any(mixed(*pair) for pair in self.pairs):
            do = "brew install llvm@19 llvm@17 brings two (or another Xcode, in DEVELOPER_DIR)"
            self.lack(f"two compilers whose records differ in size: {do}")
        for main in {main.name: main for main, _ in self.pairs}.values():
            try:
                profdata.tool(main)
            except MissingError as error:
                more = "; rustup component add llvm-tools" if main.kind == "rustc" else ""
                self.lack(f"{error}{more}")

    def try_mixed(self) -> None:
        """Build and run what mixes, in each way; of what does not mix, one program a linker."""
        builds = []
        for main, foreign in self.pairs:
            names = main.name, foreign.name
            if mixed(main, foreign):
                ways = itertools.product(OPTIMIZED, ORDERS, self.linkers, (False, True))
                builds += [MacBuild(*names, o, order, ld, strip) for o, order, ld, strip in ways]
                builds += [MacBuild(*names, linker=linker, aligned=True) for linker in self.linkers]
            else:
                builds += [MacBuild(*names, linker=linker) for linker in self.linkers]
        self._try_all(builds)

    def try_control(self) -> None:
        """Build what mixes once more, its foreign part without instrumentation."""
        pairs = [(main.name, foreign.name) for main, foreign in self.pairs if mixed(main, foreign)]
        ways = itertools.product(pairs, OPTIMIZED, self.linkers)
        self._try_all([MacBuild(*pair, o, linker=ld, instrumented=False) for pair, o, ld in ways])

    def _try_all(self, builds: Sequence[MacBuild]) -> None:
        with Lab(self.work, lldb=self.lldb) as lab:
            for build in builds:
                row = self._try(lab, build)
                if self.late.is_set():
                    return  # what was ended by us says nothing
                self.results["builds"].append(row)
                self.save()
                where = f" in {row['function']}" if row.get("function") else ""
                progress.say(f"  {build.name}: {row['outcome']}{where}")

    def _try(self, lab: Lab, build: MacBuild) -> dict[str, Any]:
        """Return what came of a build: the image as it was linked, and one run of it."""
        row = {**dataclasses.asdict(build), "program": build.program}
        try:
            trial, drawn = self._trial(lab, build)
            program = lab.linked(trial)
            if drawn.is_file():
                self.folder.write(f"maps/{build.name}.txt", drawn.read_text(errors="replace"))
            row |= mac_evidence.read_image(program)
        except LabError as error:
            self.folder.write(f"logs/{build.name}.txt", f"{error}\n{getattr(error, 'output', '')}")
            return {**row, "outcome": "build-failed", "detail": str(error)}
        try:
            outcome = lab.run(trial)
            if outcome.profile.valid:
                text, _ = lab.run_once(trial)
                self.folder.write(f"profiles/{build.name}.proftext", text)
        except LabError as error:  # of llvm-profdata, or of what the counts are compared with
            return {
                **row,
                **mac_evidence.run_alone(program),
                "outcome": "not-judged",
                "detail": str(error),
            }
        if outcome.kind == "crash" and not (self.folder.path / "crashes").exists():
            self._debug(program)
        return row | mac_evidence.told(outcome)

    def _trial(self, lab: Lab, build: MacBuild) -> tuple[Trial, Path]:
        """Return the trial of a build, and where the linker draws its map."""
        drawn = self.work / "maps" / build.name
        drawn.parent.mkdir(exist_ok=True)
        more = [] if build.instrumented else [*OFF]
        more += ["-include", str(settings.data_dir() / "macos" / ALIGNED)] * build.aligned
        how = None if build.instrumented else "none"
        trial = lab.trial(
            build.program, build.main, build.foreign, order=build.order, instrument=how
        )
        main = dataclasses.replace(trial.program.main, optimize=build.optimize)
        library = tuple(
            dataclasses.replace(unit, optimize=build.optimize, flags=(*unit.flags, *more))
            for unit in trial.program.library
        )
        program = dataclasses.replace(trial.program, main=main, library=library)
        link = (*self.linkers[build.linker], f"{self.map}{drawn}")
        link += (self.strip,) if build.dead_strip else ()
        return dataclasses.replace(trial, program=program, link=link), drawn

    def _debug(self, program: Path) -> None:
        """Keep what LLDB itself prints of a crash: evidence that went through no code of ours."""
        lldb = self.lldb or discovery.find_lldb()
        if lldb is None:
            self.lack("LLDB: only macOS's own reports then have frames and registers")
            return
        looks = [word for command in LLDB for word in ("-k", command)]
        command: process.Command = [lldb, "--no-lldbinit", "--batch", "-o", "run", *looks]
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            env = process.environment(environment(Path(folder)))
            limits = settings.TRACED
            done = process.run([*command, "--", program], cwd=Path(folder), env=env, limits=limits)
        self.folder.write("crashes/lldb.txt", done.stdout + done.stderr)

    def take_reports(self) -> None:
        """Take what macOS itself wrote of our programs' crashes, some seconds after each."""
        crashed = {row["program"] for row in self.results["builds"] if row["outcome"] == "crash"}
        if not crashed:
            return
        paths = self._new_reports(crashed) or (self.late.wait(_WAIT), self._new_reports(crashed))[1]
        if not paths:
            self.lack("reports of macOS: its DiagnosticReports have none of these programs")
        for number, path in enumerate(paths[:_MOST_REPORTS], 1):
            name = f"crashes/report-{number}.ips"
            try:
                report = mac_evidence.keep_report(path.read_text(errors="replace"))
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                self.lack(f"a report of macOS that is not as expected ({type(error).__name__})")
                continue
            self.folder.write_json(name, report)
            state = report["threads"][0].get("threadState", {})
            registers = {register: state[register] for register in _REPORTED if register in state}
            row = {"file": name, "exception": report["exception"], "registers": registers}
            self.results["reports"].append(row)

    def _new_reports(self, names: set[str]) -> list[Path]:
        place = Path.home() / "Library" / "Logs" / "DiagnosticReports"
        paths = [path for name in sorted(names) for path in sorted(place.glob(f"{name}-*.ips"))]
        return [path for path in paths if path.stat().st_mtime >= self._start]


def choose(toolchains: Sequence[Toolchain]) -> list[tuple[Toolchain, Toolchain]]:
    """Return whom to mix, main and foreign, of `toolchains`, the oldest LLVM first.

    Main is LLVM 19 (Homebrew's), else rustc, else the newest; foreign is Apple's clang. If their
    records are of one size, the two do not mix: the oldest clang that mixes with main follows.
    """
    able = [t for t in toolchains if t.runtime and t.raw_version]
    clangs = [t for t in able if t.kind == "clang" and t.provider != "apple"]
    rustcs = [t for t in able if t.kind == "rustc"]
    mains = [*(t for t in clangs if t.major == "19"), *reversed(rustcs), *reversed(clangs)][:1]
    pairs = [(main, foreign) for main in mains for foreign in able if foreign.provider == "apple"]
    if not any(mixed(*pair) for pair in pairs):
        others = ((main, foreign) for main in mains for foreign in clangs if mixed(main, foreign))
        pairs += [*others][:1]
    return pairs


def mixed(main: Toolchain, foreign: Toolchain) -> bool:
    """Return whether the records of two toolchains differ in size."""
    return not same_stride(main.raw_version or 0, foreign.raw_version or 0)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[threading.Event]:
    """End what a block runs once its time is over, and what it starts then; the value says so."""
    done, late = threading.Event(), threading.Event()

    def watch() -> None:
        if done.wait(seconds):
            return
        late.set()
        while not done.wait(0.2):
            process.end_all()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield late
    finally:
        done.set()
        watcher.join()
