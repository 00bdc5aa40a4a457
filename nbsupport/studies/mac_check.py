"""`pgo-lab mac-check`: what only a Mac can show of the crash, in a folder to send back.

Never run on a Mac: `table` says so until the folder of such a run is in `data/recorded/mac`.
"""

import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbsupport.base import files, progress, settings
from nbsupport.base.errors import LabError
from nbsupport.show import shown
from nbsupport.studies import mac_steps
from nbsupport.studies.mac_steps import LLDB, MACHINE, OFF, OPTIMIZED, VARIABLES, XCODE, MacCheck

NEVER = "never run on a Mac"


@dataclass(frozen=True)
class CheckStep:
    """A step: what it does, in words for who owns the Mac, in at most so many seconds."""

    name: str
    what: str
    commands: tuple[str, ...]
    seconds: int
    do: Callable[[MacCheck], None]


_BUILD = f"clang {' and '.join(OPTIMIZED)} -fprofile-generate, or rustc -Cprofile-generate"
_LINK = "clang --ld-path=(xcrun --find ld), and -Wl,-ld_classic where Xcode has that linker, too"
STEPS = (
    CheckStep(
        "machine",
        "We ask what this Mac is, and which of Apple's tools it has.",
        (*MACHINE, "xcode-select -p", *XCODE, "xcrun --find ld"),
        60,
        MacCheck.ask_machine,
    ),
    CheckStep(
        "compilers",
        "We look for Apple's clang, Homebrew's LLVMs and rustc. Each compiles an empty function. "
        "The result tells which version of profile records this compiler writes.",
        ("clang --version, -print-targets, -fprofile-generate -S …", "rustc -vV, --emit=llvm-ir …"),
        120,
        MacCheck.find_compilers,
    ),
    CheckStep(
        "mixed",
        "We build a small program of this project with two compilers: main with LLVM 19 or rustc, "
        "the library with Apple's clang. We link main first and library first, with "
        "-dead_strip and without, and once with a library of greater alignment. From each program "
        "we read the order of its records and the version symbol that the linker kept. Each "
        "program runs, for 10 s at most; if it crashes, it runs again under Apple's LLDB.",
        (_BUILD, _LINK, f"lldb --batch -o run -k '{' / '.join(LLDB)}'"),
        270,
        MacCheck.try_mixed,
    ),
    CheckStep(
        "control",
        "This is the decisive experiment: the same programs, but the library is not instrumented. "
        "If mixed records cause the crash, none of these programs crashes.",
        (f"clang {' '.join(OFF)} (the library)",),
        90,
        MacCheck.try_control,
    ),
    CheckStep(
        "reports",
        "We copy the reports that macOS itself wrote of these crashes: they tell the register far. "
        "In ~/Library/Logs/DiagnosticReports we read new reports of these programs only.",
        (),
        40,
        MacCheck.take_reports,
    ),
)

_AFTER = """\
The command writes the folder {folder} and {folder}.zip. The file results.json has every result. \
The folders maps, profiles, logs and crashes have the words of linkers, llvm-profdata, compilers, \
LLDB and macOS. The command builds in a temporary folder, and removes it. It keeps what compilers \
answer in {cache}.
The command installs nothing and uses no network. It sends nothing, asks you nothing, and \
needs no password. macOS may ask whether a debugger may control a program, and may say that a \
program quit unexpectedly. Answer as you like. Ctrl-C ends the command; each file in the folder \
then is whole.
The folder tells neither your name nor the name of this Mac, nor where your files are. Of the \
environment it has these variables only: {variables}.
The command is worth most with two kinds of compilers: Xcode or its command line tools, and \
LLVM 19 (brew install llvm@19) or rustc. Xcode 16.3 and later do not mix with LLVM 19; then an \
older LLVM helps (brew install llvm@17). The command says what is missing, and goes on without it.\
"""


def plan(folder: Path) -> list[str]:
    """Return, in lines, what `check` would do: commands, files, the longest time."""
    most = sum(step.seconds for step in STEPS)
    lines = [f"pgo-lab mac-check takes {most // 60 + 1} minutes at most. We expect two. Its steps:"]
    for number, step in enumerate(STEPS, 1):
        text = f"{number}. {step.name}, {step.seconds} s at most. {step.what}"
        lines += ["", *textwrap.wrap(text, 90, subsequent_indent="   ", break_on_hyphens=False)]
        lines += [f"     {command}" for command in step.commands]
    after = _AFTER.format(folder=folder, cache=settings.cache_dir(), variables=", ".join(VARIABLES))
    for paragraph in after.split("\n"):
        lines += ["", *textwrap.wrap(paragraph, 90, break_on_hyphens=False)]
    return lines


def check(folder: Path) -> list[str]:
    """Do all steps, and write the folder and its archive; return what came of it, in lines.

    Raises `LabError` on a machine that is not a Mac, and where there is such a folder already.
    """
    require_mac()
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as work:
        checked = MacCheck(folder, Path(work))
        do_steps(checked, STEPS)
    archive = checked.folder.pack()
    return [
        *summarize(checked.results),
        f"Everything is in {folder}. Please send {archive.resolve()} back:",
        "open an issue where you got pgo-lab, and attach it (on GitHub: drag it into the text).",
    ]


def require_mac() -> None:
    """Raise `LabError` on a machine that is not a Mac."""
    if sys.platform != "darwin":
        do = "run it on one; pgo-lab mac-check --plan says what it would do there"
        raise LabError("mac-check", "this is not a Mac", do)


def do_steps(checked: MacCheck, steps: Sequence[CheckStep]) -> None:
    """Do the steps, each within its time. The results say in `missing` what a step cannot do."""
    checked.save()
    for number, step in enumerate(steps, 1):
        progress.say(f"{number} of {len(steps)}: {step.name}")
        with mac_steps.within(step.seconds) as checked.late:
            try:
                step.do(checked)
            except LabError as error:
                checked.lack(f"{step.name}: {error}")
        if checked.late.is_set():
            checked.lack(
                f"{step.name}: the rest of this step, because its {step.seconds} s were over"
            )
    checked.results["whole"] = True
    checked.save()


def summarize(results: dict[str, Any]) -> list[str]:
    """Return what builds came to, and what was missing, in lines."""
    lines = []
    kinds = {"mixed": True, "with the foreign part's instrumentation off": False}
    for what, instrumented in kinds.items():
        rows = [row for row in results["builds"] if row["instrumented"] == instrumented]
        if rows:
            counts = Counter(row["outcome"] for row in rows)
            came = ", ".join(f"{kind} {number}" for kind, number in counts.items())
            lines.append(f"{len(rows)} programs {what}: {came}")
    return [*lines, *(f"missing: {what}" for what in results["missing"])]


def load(folder: Path) -> dict[str, Any]:
    """Return the results in the folder of a check; raises `LabError` for what is none of ours."""
    path = folder / mac_steps.RESULTS
    results = files.read_json(path, "give the folder that pgo-lab mac-check wrote")
    if not isinstance(results, dict) or results.get("schema") != mac_steps.SCHEMA:
        why = f"not a check of schema {mac_steps.SCHEMA}"
        raise LabError(str(path), why, "give the folder of one, or a newer pgo-lab")
    return results


def recorded() -> list[Path]:
    """Return the folders of checks on Macs that came with the project; none so far, maybe."""
    place = settings.data_dir() / "recorded" / "mac"
    return sorted(path.parent for path in place.glob(f"*/{mac_steps.RESULTS}"))


def measure(scope: str) -> list[Path]:
    """Return the folders of checks to show: those that are recorded, and this Mac's own.

    On a Mac the whole `scope` makes a check, natively, at each call. Raises as `check` does.
    """
    folders = recorded()
    if sys.platform == "darwin" and scope == "whole":
        place = Path(tempfile.mkdtemp(prefix="mac-check-", dir=settings.cache_dir()))
        check(place / "this-mac")
        folders.append(place / "this-mac")
    return folders


_HEADS = (
    *("check", "main", "library", "built", "order", "linker", "records as they lie"),
    *("version symbol", "foretold", "outcome", "in", "computed", "reported"),
)


def table(folders: Sequence[Path] | None = None) -> shown.Shown:
    """Show what the builds of checks came to: those of `folders`, or all that are recorded.

    "computed" is the address that instruction and registers give, "reported" that of the
    processor's own register. Where no check is recorded, the table says so. Raises as `load` does.
    """
    chosen = recorded() if folders is None else folders
    if not chosen:
        return shown.table(("check", "what it shows"), [("pgo-lab mac-check", NEVER)])
    rows = [_row(folder.name, row) for folder in chosen for row in load(folder)["builds"]]
    return shown.table(_HEADS, rows)


def _row(check_name: str, row: dict[str, Any]) -> tuple[str, ...]:
    marks = ["-dead_strip"] * row["dead_strip"] + ["library aligned"] * row["aligned"]
    built = ", ".join((row["optimize"], *marks))
    library = row["foreign"] + ("" if row["instrumented"] else ", not instrumented")
    exception = row.get("exception", {})
    return (
        *(check_name, row["main"], library, built, row["order"], row["linker"]),
        ", ".join(f"{n} of {size}" for size, n in row.get("layouts", ())) or "-",
        str(row.get("version_symbol") or "-"),
        " or ".join(row.get("foretold", ())) or "-",
        row["outcome"],
        row.get("function") or "-",
        row.get("fault_address") or "-",
        exception.get("far") or exception.get("faultvaddr") or "-",
    )
