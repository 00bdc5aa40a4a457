"""Proof that the command line stayed as it was: what each command does, written and compared.

    python -m tests.support.commands write OUT_FOLDER [--checkout PATH] [--inputs FOLDER]
    python -m tests.support.commands compare FOLDER_A FOLDER_B [--allowed FILE]

`write` runs the commands of commands.toml with the `pgo-lab` of a checkout. OUT_FOLDER/NAME.txt
has exit code and output of one, NAME.files.txt the files that it made. Input files are made
once (inputs.py) and reused: give the same folder, so that two checkouts see the same bytes.
`compare` prints what differs and exits with 1, unless each NAME that differs is in the file of
those allowed (a line each; NAME.files for the files).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import difflib
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.support import described, inputs

#: Seconds that a line may take; the longest takes a tenth of that.
LIMIT = 300
#: At once; one more than processors, since some only wait.
JOBS = 1 + (os.cpu_count() or 1)
TABLE = Path(__file__).with_suffix(".toml")


class Runner:
    """Runs commands of a checkout, each in a folder of its own below that of the inputs.

    There, since places of equal length are at equal addresses: a program's arguments and
    environment lie on its stack.
    """

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.folder, self.start = folder, datetime.datetime.now(datetime.UTC)
        self.places = {str(checkout): "CHECKOUT", str(folder): "INPUTS"}
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopping, self.lock = threading.Event(), threading.Lock()
        tools = {name: checkout / ".venv/bin" / name for name in ("pgo-lab", "pgo-lab-guard")}
        self.tools = {"%": str(checkout), "@": str(folder), **inputs.tools(folder)}
        self.tools |= {name: str(path) for name, path in tools.items()}
        # What is built and learned is each checkout's own work; matplotlib's fonts are not.
        for place in ("work", "tmp", "cache/pgo-lab"):
            shutil.rmtree(folder / place, ignore_errors=True)
        shutil.copytree(folder / "toolchains", folder / "cache/pgo-lab/toolchains", symlinks=True)

    def environment(self, name: str) -> dict[str, str]:
        """Nothing of the caller's: what is in a program's environment moves its stack."""
        home = Path.home()
        return {
            # The wheels' LLDB takes the standard library of the first python3; Debian's has no math.
            "PATH": f"{sys.base_prefix}/bin:{home}/.cargo/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "TMPDIR": str(self.folder / "tmp" / name),
            "COLUMNS": "200",  # a table of toolchains shows whole paths
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "NO_COLOR": "1",
            "TERM": "dumb",
        }

    def __call__(self, name: str, lines: list[str]) -> dict[str, str]:
        """Run a command; return its two texts by the names of their files."""
        work, temporary = (self.folder / place / name for place in ("work", "tmp"))
        for place in (work, temporary):
            place.mkdir(parents=True)
        env = self.environment(name)
        output = [part for line in lines for part in self._line(line, work, env)]
        files = [*described.files(work, "file"), *described.files(temporary, "left in TMPDIR")]
        texts = {name: "".join(output), f"{name}.files": "".join(files)}
        return {
            f"{key}.txt": described.normal(text, self.places, self.start)
            for key, text in texts.items()
            if text
        }

    def _line(self, line: str, work: Path, env: dict[str, str]) -> Iterator[str]:
        words = [self._word(word) for word in shlex.split(line)]
        env = dict(env)
        while "=" in words[0]:
            key, _, value = words.pop(0).partition("=")
            env[key] = str(work / value) if key == "XDG_CACHE_HOME" else self._word(value)
        *words, stdin = (words[:-2] + words[-1:]) if words[-2:-1] == ["<"] else (*words, os.devnull)
        with self.lock, Path(stdin).open("rb") as file:
            if self.stopping.is_set():
                return
            try:
                process = subprocess.Popen(
                    words,
                    cwd=work,
                    env=env,
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is for us: `stop` ends it
                )
            except OSError as error:
                yield f"$ {line}\ncannot be started: {error.strerror}\n"
                return
            self.running.add(process)
        yield f"$ {line}\n"
        try:
            streams = process.communicate(timeout=LIMIT)
            yield f"exit code: {process.returncode}\n"
        except subprocess.TimeoutExpired:
            end(process)
            streams = process.communicate()
            yield f"ended after {LIMIT} s\n"
        with self.lock:
            self.running.discard(process)
        for title, stream in zip(("output", "errors"), streams, strict=True):
            if stream:
                text = stream.decode(errors="backslashreplace")
                yield f"--- {title}\n{described.whole(text)}"

    def _word(self, word: str) -> str:
        option, equals, value = word.rpartition("=")
        if value in self.tools:
            return f"{option}{equals}{self.tools[value]}"
        return re.sub("[@%](?=/)", lambda match: self.tools[match[0]], word)

    def stop(self) -> None:
        """End all commands."""
        self.stopping.set()
        with self.lock, ThreadPoolExecutor() as pool:
            list(pool.map(end, self.running))


def end(process: subprocess.Popen[bytes]) -> None:
    """End a command: asked first, it ends its own children, which are in other groups."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        os.killpg(process.pid, signal.SIGKILL)


def write(out: Path, checkout: Path, folder: Path, jobs: int, only: str) -> int:
    """Run the commands whose names match; return an exit code."""
    table = tomllib.loads(TABLE.read_text())
    commands = {name: [text] if isinstance(text, str) else text for name, text in table.items()}
    first, *rest = commands
    wanted = [name for name in rest if re.search(only, name)]
    start = time.monotonic()
    if not (checkout / ".venv/bin/pgo-lab").is_file():
        raise SystemExit(f"{checkout}: no pgo-lab in its .venv; run make toolchains there")
    out.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        for name in (first, *wanted):  # what is interrupted must not be taken for whole
            for file in (f"{name}.txt", f"{name}.files.txt"):
                (out / file).unlink(missing_ok=True)
        say(f"input files: {folder}")
        inputs.make(folder, checkout)
        runner, pool = Runner(checkout, folder), ThreadPoolExecutor(jobs)

        def keep(name: str) -> str:
            begun = time.monotonic()
            texts = runner(name, commands[name])
            for file, text in texts.items() if not runner.stopping.is_set() else ():
                (out / file).write_text(text)
            return f"{name}: {time.monotonic() - begun:.1f} s"

        try:
            keep(first)
            futures = [pool.submit(keep, name) for name in wanted]
            for number, future in enumerate(as_completed(futures), 1):
                say(f"[{number}/{len(wanted)}] {future.result()}")
        except BaseException:
            runner.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    say(f"{len(wanted) + 1} commands in {time.monotonic() - start:.0f} s: {out}")
    return 0


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder of the inputs: two that write would work in the same places."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"{folder} is in use; wait, or give another: --inputs") from None
        yield


def compare(a: Path, b: Path, allowed: Path | None) -> int:
    """Print what differs between two folders; return an exit code."""
    texts = [{p.stem: p.read_text().splitlines(True) for p in f.glob("*.txt")} for f in (a, b)]
    names = sorted({*texts[0], *texts[1]})
    if not names:
        raise SystemExit(f"{a}, {b}: nothing was written there")
    may = {line.partition("#")[0].strip() for line in allowed.open()} if allowed else set()
    differ = []
    for name in names:
        old, new = (folder.get(name, []) for folder in texts)
        if old != new:
            differ.append(name)
            sys.stdout.writelines(difflib.unified_diff(old, new, f"{a}/{name}", f"{b}/{name}"))
    bad = [name for name in differ if name not in may]
    say(f"{len(names)} compared, {len(differ)} differ, {len(differ) - len(bad)} of them allowed")
    if bad:
        say(f"not allowed: {' '.join(bad)}")
    return 1 if bad else 0


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="run the commands, keep what they do")
    writing.add_argument("out", type=Path, metavar="OUT_FOLDER")
    writing.add_argument(
        "--checkout", type=Path, default=Path(__file__).parents[2], help="this one"
    )
    writing.add_argument("--inputs", type=Path, help="beside OUT_FOLDER")
    writing.add_argument("--jobs", type=int, default=JOBS, help="commands at once")
    writing.add_argument("--only", default="", metavar="REGEX", help="names of commands")
    comparing = commands.add_parser("compare", help="print what differs; 1 if anything does")
    comparing.add_argument("a", type=Path, metavar="FOLDER_A")
    comparing.add_argument("b", type=Path, metavar="FOLDER_B")
    comparing.add_argument("--allowed", type=Path, metavar="FILE", help="names that may differ")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # children end with us then, too
    try:
        if given.command == "compare":
            return compare(given.a, given.b, given.allowed)
        folder = given.inputs or given.out.absolute().with_name("inputs")
        checkout = given.checkout.resolve()
        return write(given.out, checkout, folder.absolute(), given.jobs, given.only)
    except BrokenPipeError:  # of what differs, somebody has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        say("interrupted: what was finished is kept, the rest is not there")
        return 130


if __name__ == "__main__":
    sys.exit(main())
