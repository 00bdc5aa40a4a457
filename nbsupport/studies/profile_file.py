"""What the profile runtime does with its file: each thing shown by runs in an empty folder.

Source of what is said of it: InstrProfilingFile.c (compiler-rt), in the functions named here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbsupport.base import process, progress
from nbsupport.base.errors import LabError, MissingError, first_line
from nbsupport.base.process import Command
from nbsupport.crash import Crash, Frame
from nbsupport.lab import ORDERS, Lab, Outcome, Trial, counts
from nbsupport.lab.lab import environment
from nbsupport.show import look, shown
from nbsupport.toolchains import profdata
from nbsupport.trace import syscalls

#: Ways to what reads records: the program and its instrumentation.
_WAYS = {
    "the exit handler": ("cold", "ir"),
    "__llvm_profile_write_file in main": ("explicit", "ir"),
    "the same in a forked child": ("forked", "ir"),
    "a value site in main, before any write": ("hot", "ir"),
    "__llvm_profile_write_buffer in main": ("buffer", "ir"),
    "the exit handler, front-end instrumentation": ("cold", "front-end"),
    "__llvm_profile_write_buffer, front-end instrumentation": ("buffer", "front-end"),
}
#: Starts all programs before it waits for the first; ends as the last of those that fail.
_AT_ONCE = """for one; do "$one" & all="$all $!"; done
for one in $all; do wait $one || bad=$?; done; exit $bad"""
_ROW = 86  # points of a figure, from one row to the next
#: What a call is about to do to the profile (`{}`: the bytes that it writes, or its last number).
_DOING = {
    r"open(at)?\(.*O_TRUNC": "creates or empties it",
    r"open(at)?\(": "opens it",
    r"fcntl\(.*F_SETLK": "locks it",
    r"mmap\(": "maps it",
    r"ftruncate\(": "cuts it to {} bytes",
    r"p?writev?(64)?\(": "writes {} bytes",
    r"close\(": "closes it",
}


@dataclass(frozen=True)
class Written:
    """What runs left in a folder, and how each ended.

    `files` are (name, bytes), `found` says what llvm-profdata makes of them (`valid`), `counts`
    are those of all together, `said` has the runtime's messages, each once. Names and messages
    have words for what differs between runs and machines (`<pid>`, `<host>`, `<signature>`).
    """

    files: tuple[tuple[str, int], ...]
    found: str
    counts: counts.Expected
    ended: tuple[str, ...]
    said: tuple[str, ...]

    def times(self, once: Written) -> int | None:
        """Return how many times the counts of `once` these are; None if there is no such number."""
        total, single = (sum(sum(n or ()) for n in w.counts.values()) for w in (self, once))
        number = total // max(single, 1)
        exact = {key: tuple(number * n for n in row or ()) for key, row in once.counts.items()}
        return number if self.counts in ({}, exact) else None


#: What a program would do to its profile, and what is left if it is killed before that.
Kills = list[tuple[str, Written]]


def run(lab: Lab, trials: Sequence[Trial], pattern: str, *, at_once: bool = False) -> Written:
    """Run the programs of `trials` in one folder; return what they left.

    In turn, or all `at_once`. `pattern` is LLVM_PROFILE_FILE, below that folder (else `LabError`).
    """
    commands: list[Command] = [[lab.linked(trial)] for trial in trials]
    if at_once:
        commands = [["/bin/sh", "-c", _AT_ONCE, "sh", *itertools.chain(*commands)]]
    return _written(lab, trials[0], pattern, commands)


def kill(lab: Lab, trial: Trial, pattern: str, earlier: int = 0) -> Kills:
    """Kill a program before each call that does something to its profile; return what is left.

    `pattern` is as for `run`. Each time the folder has so many `earlier` runs. strace sends
    SIGKILL at the entry of the call, which then does nothing. Raises `MissingError` without strace.
    """
    program = lab.linked(trial)
    before: list[Command] = [[program]] * earlier

    def kill_before(moment: tuple[str, str, int]) -> tuple[str, Written]:
        doing, name, number = moment
        how = ["-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={number}"]
        last: Command = ["strace", "-qo/dev/null", *how, program]
        written = _written(lab, trial, pattern, [*before, last])
        if written.ended[-1] != "SIGKILL":
            raise LabError(f"killing before it {doing}", f"{written.ended[-1]}", "run it again")
        return doing, written

    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder = Path(name)
        for command in before:
            _run(lab, command, folder, pattern)
        env = _environment(folder, pattern)
        calls = syscalls.trace([program], cwd=folder, env=env, limits=lab.limits)
        moments = list(_moments(calls.rows, folder.resolve()))
    if not calls.rows:
        what, do = "a kill at each system call", "do this on Linux, with strace"
        raise MissingError(what, calls.note, do)
    return progress.each(moments, kill_before, "kills")


def kill_all(lab: Lab, runs: Mapping[str, tuple[Trial, str, int]]) -> dict[str, Kills]:
    """Return what `kill` does of several `runs`, by label: (trial, pattern, earlier runs).

    Where that cannot be done, it says so, and returns none.
    """
    try:
        return {label: kill(lab, *arguments) for label, arguments in runs.items()}
    except MissingError as error:
        print(f"left out: {error}")  # noqa: T201 - the notebook shows it
        return {}


def try_readers(lab: Lab, llvm: str, foreign: str) -> dict[str, dict[str, Outcome]]:
    """Return the outcomes of each way to what reads records, by link.

    Those by `llvm` alone, and with the library by `foreign` in both orders on the link line.
    """
    links = {"one LLVM": (llvm, "main-first")}
    links |= {order.replace("-", " "): (foreign, order) for order in ORDERS}

    def try_way(way: tuple[str, str]) -> dict[str, Outcome]:
        outcomes = {}
        for label, (other, order) in links.items():
            trial = lab.trial(way[0], llvm, other, order=order, main_instrument=way[1])
            outcome = lab.run(trial)
            if way[0] == "forked" and outcome.kind == "failed":
                outcome = dataclasses.replace(outcome, crash=_of_child(lab, trial))
            outcomes[label] = outcome
        return outcomes

    outcomes = progress.each([*_WAYS.values()], try_way, "ways to the records")
    return dict(zip(_WAYS, outcomes, strict=True))


def table(what: str, rows: Iterable[tuple[str, Written]], once: Written) -> shown.Shown:
    """Show what is left, a line for each of the `rows` (label, what runs left in a folder).

    `what` is the labels' heading; `once` is what one run leaves.
    """
    lines = []
    for label, row in rows:
        disk = "; ".join(sorted({f"{name}, {size} bytes" for name, size in row.files}))
        if len(row.files) > 1:
            disk += f" ({len(row.files)} files)"
        lines.append((label, disk, row.found, f"{row.times(once)}", " ".join(row.said)))
    return shown.table((what, "on disk", "llvm-profdata", "runs in it", "the runtime says"), lines)


def figure(kills: Mapping[str, Kills], once: Mapping[str, Written]) -> shown.Shown:
    """Draw what `kills` (see `kill_all`) leave, a row for each label.

    In order, not to scale. `once` is what one whole run leaves, by label.
    """
    drawn, axes = look.sheet(_ROW * len(kills))
    captions, words = [], []
    for n, (label, row) in enumerate(kills.items()):
        y = n * _ROW
        axes.text(0, y + 10, f"{label}: the program is killed before it …", **look.HEAD)
        runs = [written.times(once[label]) or 0 for _, written in row]
        wide = look.WIDTH / len(row)
        for x, ((doing, written), times) in enumerate(zip(row, runs, strict=True)):
            size = sum(size for _, size in written.files)
            if times:
                fill, state = look.GOOD, "1 run kept" if times == 1 else f"{times} runs kept"
            elif size and written.found != "valid":
                fill, state = look.BAD, "broken file"
            else:
                fill, state = "none", "no counts"
            middle, box = (x + 0.5) * wide, (wide - 2, 28)
            what = textwrap.fill(doing, 10)
            look.cell(axes, (middle, y + 34), box, fill, what, edgecolor=look.INK, linewidth=0.5)
            axes.text(middle, y + 56, state, ha="center", **look.SMALL)
            disk = f"{size} bytes" if written.files else "no file"
            axes.text(middle, y + 67, disk, ha="center", **look.MUTED)
        captions.append(f"{label}: {sum(map(bool, runs))} of {len(row)} kills leave counts")
        pairs = zip((doing for doing, _ in row), runs, strict=True)
        words.append(f"{label}: {', '.join(f'{doing} {n}' for doing, n in pairs)}")
    caption = (
        "Each box is a system call; the program is killed before it. Green: the file has counts. "
    )
    caption += f"Orange: a broken file. {'; '.join(captions)}."
    return shown.framed(drawn, caption, f"runs kept by a kill before: {'; '.join(words)}")


def crash_functions(ways: Mapping[str, Mapping[str, Outcome]]) -> dict[str, str]:
    """Return in which functions programs died, by way (see `try_readers`); "" for none."""
    functions = {}
    for way, outcomes in ways.items():
        crashes = [outcome.crash for outcome in outcomes.values() if outcome.crash]
        functions[way] = ", ".join(sorted({crash.function for crash in crashes}))
    return functions


def show_readers(ways: Mapping[str, Mapping[str, Outcome]]) -> shown.Shown:
    """Show the outcomes of each way (see `try_readers`), and in which functions programs died."""
    functions = crash_functions(ways)
    rows = [
        (way, *(outcome.kind for outcome in outcomes.values()), functions[way])
        for way, outcomes in ways.items()
    ]
    return shown.table(("who reads the records", *next(iter(ways.values())), "dies in"), rows)


def _written(lab: Lab, trial: Trial, pattern: str, commands: Iterable[Command]) -> Written:
    """Run commands one after the other in an empty folder; return what is in it then."""
    tool = profdata.tool(trial.runtime)
    files, verdicts, parts = [], set(), list[counts.Expected]()
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder = Path(name)
        done = [_run(lab, command, folder, pattern) for command in commands]
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            merged = profdata.as_text(tool, path)
            parts.append(dict(counts.parse(merged.stdout)) if merged.ok else {})
            if merged.signal_name:
                verdicts.add(f"llvm-profdata dies of {merged.signal_name}")
            elif not merged.ok:
                verdicts.add(first_line(merged.stderr).rpartition(f"{path.name}: ")[2])
            else:
                verdicts.add("valid" if parts[-1] else "skipped without a word")
            files.append((_stable(str(path.relative_to(folder)), pattern), path.stat().st_size))
    lines = (line for run in done for line in run.stderr.splitlines())
    messages = [_stable(line, pattern) for line in lines if line.startswith("LLVM Profile")]
    ends = (run.limit or run.signal_name or f"exit code {run.exit_code}" for run in done)
    verdict = "; ".join(sorted(verdicts)) or "no file"
    whole = counts.together(parts)
    return Written(tuple(files), verdict, whole, tuple(ends), tuple(dict.fromkeys(messages)))


def _run(lab: Lab, command: Command, folder: Path, pattern: str) -> process.Finished:
    return process.run(command, cwd=folder, env=_environment(folder, pattern), limits=lab.limits)


def _environment(folder: Path, pattern: str) -> dict[str, str]:
    if pattern[:1] in ("", "/") or ".." in pattern or "\0" in pattern:
        raise LabError(f"profile name {pattern!r}", "not one below a folder", "give a relative one")
    return {**environment(folder), "LLVM_PROFILE_FILE": pattern, "TMPDIR": "temp"}


def _stable(text: str, pattern: str) -> str:
    """Return a name or message with words for a signature and slot, host name and process id."""
    text = re.sub(r"\d{12,20}_\d+", "<signature>", text)
    if "%h" in pattern:
        text = text.replace(os.uname().nodename, "<host>")
    after = re.search("%p([^%]?)", pattern)  # a version in a message is not a process
    return re.sub(rf"\d+(?={re.escape(after[1])})", "<pid>", text) if after else text


def _moments(rows: Iterable[syscalls.Call], folder: Path) -> Iterator[tuple[str, str, int]]:
    """Yield (what it would do, call, how many-th of that name) where a kill makes a difference."""
    number: Counter[str] = Counter()
    for row in rows:
        number[row.name] += 1
        call, doing = f"{row.name}({row.arguments}", ""
        if Path(row.path).is_relative_to(folder):
            doing = next((words for by, words in _DOING.items() if re.match(by, call)), "")
        elif row.name == "exit_group" or re.match(r"writev?\(1,", call):
            doing = "ends" if row.name == "exit_group" else "leaves main"
        if doing:
            last = row.size or re.findall(r"\d+", call)[-1]
            yield doing.format(last), row.name, number[row.name]


def _of_child(lab: Lab, trial: Trial) -> Crash | None:
    """Return where a forked child dies, as strace sees it; None if it cannot look at stacks."""
    how: Command = ["strace", "-f", "-q", "-k", "-e", "trace=none", lab.linked(trial)]
    with contextlib.suppress(MissingError), tempfile.TemporaryDirectory() as folder:  # no strace
        said = _run(lab, how, Path(folder), "run.profraw").stderr
        if top := re.search(r"--- (SIG(?!CHLD)\w+) .*\n > .*\((\w+)\+0x([0-9a-f]+)\)", said):
            return Crash(top[1], (Frame(top[2], int(top[3], 16), ""),), debugger="strace")
    return None
