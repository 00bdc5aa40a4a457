"""A training: a command that runs the instrumented program, and the profile that comes of it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbsupport.base import process, progress, settings
from nbsupport.base.errors import LabError, MissingError, first_line
from nbsupport.crash import family
from nbsupport.profile import training
from nbsupport.rescue import run as rescue
from nbsupport.toolchains import profdata

#: What a shell makes of a child's fatal signal: its exit code is 128 more.
_SHELL = range(129, 192)
_SHELLS = {"sh", "bash", "dash", "ksh", "zsh"}
#: What a shell takes as it is written; a variable that is ours; what a shell does more with.
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.S)
_PROGRAM = re.compile(r"(?<!\S)\$(PGO_BIN|\{PGO_BIN\})(?!\S)")
_SIGNS = re.compile(r"\d*[<>]+&?\d*|&&|\|\||[|&;`*]|\$[\w({]+|\A\s*[A-Za-z_]\w*=")
#: Lines of a rescue that say what would have been lost.
_CRASH = "crashed|ended (by|with) (SIG|exit code)|saved from memory|outlived"
#: What a rescue calls a crash that is a fault of the program, and one that our fault makes.
_OWN, _OURS = "for a reason of its own", "in its profile runtime"


@dataclass(frozen=True)
class Trained:
    """A merged profile: how many functions it has, what was rescued, what is lost of it."""

    functions: int
    rescued: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def words_of(command: str, program: Path) -> list[str]:
    """Return the words of a training command, the program for each `{}`; no shell reads them.

    A word `$PGO_BIN` is the program, too. In a script for `sh -c`, `{}` is that variable, in which
    a path may have spaces; a script that names the variable itself is left as it is: its `{}` is
    another program's. Raises `LabError` where a shell would do more with it than split it.

    >>> words_of("sh -c '{} 1' {} $PGO_BIN", Path("/t/app"))
    ['sh', '-c', '"$PGO_BIN" 1', '/t/app', '/t/app']
    """
    plain = _PROGRAM.sub("_", _QUOTED.sub("_", command))
    if sign := _SIGNS.search(plain):
        do = "quote what the program is to get as it is, or give a script, or sh -c '…'"
        why = f"no shell reads it, and {sign[0].strip()} is for a shell"
        raise LabError(f"--train {command}", why, do)
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise LabError(f"--train {command}", f"no words of a shell ({error})", "mend it") from error
    if not words:
        raise LabError("--train", "no command", "name one; {} in it stands for the program")
    script = -1
    for number, word in enumerate(words[:-1]):
        if script < 0 and re.fullmatch("-[a-z]*c", word):
            names = {Path(before).name for before in words[:number]}
            script = number + 1 if names & _SHELLS else -1
    if script > 0 and "PGO_BIN" not in words[script]:
        words[script] = re.sub(r"""(["']?)\{\}\1""", '"$PGO_BIN"', words[script])
    return [str(program) if word == "{}" or _PROGRAM.fullmatch(word) else word for word in words]


def train(command: str, program: Path, raw: Path, out: Path, tool: Path) -> Trained:
    """Run a training once, and write the profile of all that it has run to `out`.

    Where processes can be followed, the counts of one that crashes, or never ends by itself, are
    saved from its memory. Elsewhere each writes a raw profile into the folder `raw`, and these are
    merged by `tool`; one that crashes is run once more, and rescued. Raises `LabError` where the
    command cannot be run, fails by itself, or runs nothing instrumented.
    """
    words = words_of(command, program)
    env = {**os.environ, "PGO_BIN": str(program)}
    if not family.able() and (trained := _plain(words, env, raw, out, tool)):
        return trained
    try:
        rescued = rescue(words, out, env=env, streams=(None, sys.stderr))
    except MissingError as error:
        raise LabError(f"training {words[0]}", error.why, error.do) from error
    except LabError as error:
        if "no image of it is instrumented" not in error.why:
            raise
        raise _unprofiled(words) from error
    if rescued.stopped:
        raise KeyboardInterrupt
    lines = (line.removeprefix("note: ") for line in rescued.lines()[1:])
    crashes = [line for line in lines if re.search(_CRASH, line)]
    crashed = any(run.ending.startswith("SIG") for run in rescued.processes)
    if rescued.code and not crashed:  # what it runs is well: then it is not a crash to rescue
        raise _failed(words, rescued.code)
    if not rescued.healthy and not crashes:
        crashes = ["processes that did not write their profile were saved from memory"]
    lost = list(rescued.lost)
    own = next((line for line in crashes if _OWN in line), "")
    # The profile is whole as far as the program came, which does not mend what it has not run.
    if own or (rescued.code and not any(_OURS in line for line in crashes)):
        lost.append(own or f"it ended with {_how(rescued.code)}")
        lost[-1] = f"a part of the training may not have run: {lost[-1]}"
    return Trained(functions(tool, out), tuple(crashes), tuple(lost))


def _plain(
    words: Sequence[str], env: dict[str, str], raw: Path, out: Path, tool: Path
) -> Trained | None:
    """Train without following; None where a signal ended it, so that it has to be rescued."""
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    # %p: one file for each process, so that one that died shows; %m: and for each image in it.
    own = {**env, "LLVM_PROFILE_FILE": f"{raw}/%p-%m.profraw"}
    try:
        code = process.run_freely(words, cwd=Path.cwd(), env=own)
    except OSError as error:
        why = error.strerror or "it cannot be started"
        raise LabError(f"training {words[0]}", why, "check the path") from error
    if code < 0 or code in _SHELL:
        name = signal.Signals(-code if code < 0 else code - 128).name
        progress.say(f"the training ended by {name}; once more, to rescue its profile")
        return None
    if code:
        raise _failed(words, code)
    if not any(raw.iterdir()):
        raise _unprofiled(words)
    return merge(raw, out, tool)


def merge(raw: Path, out: Path, tool: Path) -> Trained:
    """Merge a folder of raw profiles; raises `LabError` that names a file which is not whole.

    llvm-profdata leaves an empty file out without a word.
    """
    run = training.read(raw)
    for file in (file for file in run.files if file.state != "ok"):
        why = file.problems[0].what if file.problems else file.state
        do = f"pgo-lab profraw {shlex.quote(str(raw))} tells all; remove it, and train again"
        raise LabError(str(file.path), why, do)
    if run.problems:
        raise LabError(str(raw), run.problems[0], "remove them, and train again")
    done = profdata.merge(tool, [file.path for file in run.files], out)
    if not done.ok:
        raise LabError(str(raw), first_line(done.stderr), "remove that file, and train again")
    return Trained(functions(tool, out))


def functions(tool: Path, profile: Path) -> int:
    """Return how many functions a merged profile has; raises `LabError` where there is none."""
    done = process.run((tool, "show", profile), cwd=profile.parent, limits=settings.COMPILER)
    number = re.search(r"^Total functions: (\d+)", done.stdout, re.M)
    if not done.ok or not number or not int(number[1]):
        why = first_line(done.stderr) if done.stderr else "no function in it"
        raise LabError(str(profile), why, "train again: the program has to run to its end")
    return int(number[1])


def _failed(words: Sequence[str], code: int) -> LabError:
    why = f"it ended with {_how(code)}"
    return LabError(f"training {shlex.join(words)}", why, "mend it: a part of it may not have run")


def _how(code: int) -> str:
    return f"exit code {code}, not 0" if code > 0 else signal.Signals(-code).name


def _unprofiled(words: Sequence[str]) -> LabError:
    why = "it wrote no profile"
    do = "let it run the instrumented program to its end: {} or $PGO_BIN"
    return LabError(f"training {shlex.join(words)}", why, do)
