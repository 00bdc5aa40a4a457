"""Crashes as people paste them, each made here by a real tool, and what `pgo-lab explain` says."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from nbsupport import crash
from nbsupport.base import files, process, progress, settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.lab import Lab, build
from nbsupport.show import Shown
from nbsupport.show import table as show_table
from nbsupport.studies import mechanisms
from nbsupport.toolchains import Toolchain, discovery

#: How each tool is asked; {program} is the program.
_ASK: Mapping[str, tuple[str, ...]] = {
    "LLDB": ("{lldb}", "--no-lldbinit", "-b", "-o", "run", "-k", "bt", "-k", "register read",
             "-k", "disassemble --pc --count 1", "{program}"),
    "gdb": ("gdb", "-nx", "-batch", "-ex", "run", "-ex", "bt", "-ex", "info registers",
            "-ex", "x/i $pc", "{program}"),
    "valgrind": ("valgrind", "{program}"),
    "AddressSanitizer": ("{program}",),
}  # fmt: skip


@dataclass(frozen=True)
class CrashCase:
    """A fault of the gallery; data/gallery/faults.toml explains the fields."""

    what: str
    made: Literal["ours", "not-ours"]
    tools: tuple[str, ...]
    program: str = ""
    change: str = ""
    define: str = ""
    source: str = ""
    binary: bool = False


def load() -> dict[str, CrashCase]:
    """Return the faults by name."""
    tables = files.read_toml(settings.data_dir() / "gallery" / "faults.toml")
    return {name: files.load(CrashCase, table, f"fault {name}") for name, table in tables.items()}


def judge(lab: Lab, llvm: str, foreign: str) -> pd.DataFrame:
    """Return a row for each fault and each tool that is here: what made it, and what explain says.

    Columns: fault, tool, made (the right verdict), verdict, certainty, face, why. `llvm` and
    `foreign` are names of toolchains. A program that does not crash (two LLVMs that are alike) has
    no row. Raises `LabError` where a program cannot be built.
    """
    here = {tool: path for tool in _ASK if (path := _path(tool))}
    pairs = [
        (fault, tool)
        for fault in load().values()
        for tool in fault.tools
        if tool in here or tool not in _ASK
    ]

    def row(pair: tuple[CrashCase, str]) -> dict[str, str] | None:
        return _row(lab, *pair, llvm, foreign)

    rows = progress.each(pairs, row, "crashes, by the tools that people paste from")
    return pd.DataFrame([values for values in rows if values])


def table(judged: pd.DataFrame) -> Shown:
    """Show what was made beside what explain says."""
    columns = ("fault", "tool", "made", "verdict", "certainty", "face")
    heads = ("the program's fault", "tool", "right answer", "explain says", "certainty", "dies")
    return show_table(heads, judged[[*columns]].to_numpy().tolist())


def _path(tool: str) -> Path | str | None:
    if tool == "LLDB":
        return discovery.find_lldb()
    return "here" if tool == "AddressSanitizer" else shutil.which(tool)


def _row(lab: Lab, fault: CrashCase, tool: str, llvm: str, foreign: str) -> dict[str, str] | None:
    main = lab.trial("cold", llvm, llvm).main
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder = Path(name)
        if fault.source:
            (folder / "part.c").write_text(fault.source)
            command: tuple[str | Path, ...] = (main.compiler, "-c", "part.c")
            program = None
        else:
            program = _program(lab, fault, tool, llvm, foreign)
            if tool == "valgrind":  # 3.19 gives up at the debug information of the wheels' runtimes
                program = _stripped(program, main, folder)
            words = {"{program}": str(program), "{lldb}": str(discovery.find_lldb())}
            command = tuple(words.get(word, word) for word in _ASK[tool])
        env = process.environment(
            {"LLVM_PROFILE_FILE": str(folder / "x.profraw"), "DEBUGINFOD_URLS": ""}
        )
        done = process.run(command, cwd=folder, env=env, limits=settings.COMPILER)
        if program and done.exit_code == 0 and tool in ("valgrind", "AddressSanitizer"):
            return None
        text = folder / "text"
        text.write_text(f"{done.stdout}\n{done.stderr}")
        try:
            answer = crash.explain(text, program if fault.binary else None)
        except LabError:  # it ended well: nothing is told of a crash
            return None
    return {
        "fault": fault.what,
        "tool": tool,
        "made": fault.made,
        "verdict": answer.verdict,
        "certainty": answer.certainty,
        "face": answer.face or "",
        "why": answer.why,
    }


def _program(lab: Lab, fault: CrashCase, tool: str, llvm: str, foreign: str) -> Path:
    """Return the program of a fault, built at its first use."""
    if fault.change:
        change = {change.id: change for change in mechanisms.load()}[fault.change]
        return build.linked(change.changed(lab, fault.program, llvm, foreign), lab.cache)
    if fault.program:
        return build.linked(lab.trial(fault.program, llvm, foreign), lab.cache)
    main = lab.trial("cold", llvm, llvm).main
    more: tuple[str, ...] = ()
    if tool == "AddressSanitizer":  # whose runtime in the wheels needs their libunwind
        folders = (path.parent for path in main.prefix.glob("lib/**/libunwind.so.1"))
        more = ("-fsanitize=address", *(f"-Wl,-rpath,{folder}" for folder in folders))
    return _compiled(main, lab.cache, fault.define, more)


def _stripped(program: Path, clang: Toolchain, folder: Path) -> Path:
    """Return a copy of a program without debug information, where there is LLVM's strip."""
    tool, copy = clang.prefix / "bin" / "llvm-strip", folder / program.name
    if not tool.exists():
        return program
    process.run([tool, "--strip-debug", program, "-o", copy], cwd=folder, limits=settings.COMPILER)
    return copy


def _compiled(clang: Toolchain, cache: Path, define: str, more: tuple[str, ...]) -> Path:
    source = settings.data_dir() / "gallery" / "faults.c"
    flags = ("-w", "-O1", "-fno-optimize-sibling-calls", "-fprofile-generate", f"-D{define}", *more)
    key = files.digest(source, str(clang.compiler), clang.version, *flags)

    def fill(staging: Path) -> None:
        argv: list[str | Path] = [
            clang.compiler,
            *build.linker_flags(clang),
            *flags,
            source,
            "-o",
            "program",
        ]
        done = process.run(argv, cwd=staging, limits=settings.COMPILER)
        if not done.ok:
            raise MissingError(f"clang {clang.version} with {' '.join(flags)}", done.stderr[:200],
                               "choose another LLVM")  # fmt: skip

    return files.once(cache / "gallery" / key, fill) / "program"
