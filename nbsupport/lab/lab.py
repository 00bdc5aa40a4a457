"""A trial: one program, built by one or two toolchains, run once, and what came of it.

Objects, programs and reference counts are kept in the cache; a run is never used again.
"""

import contextlib
import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, get_args

from nbsupport.base import files, process, settings
from nbsupport.base.errors import BuildError, LabError, MissingError
from nbsupport.crash.crash import Crash
from nbsupport.crash.debugger import Debugger, open_debugger
from nbsupport.lab import build, counts, programs
from nbsupport.lab.outcome import Outcome, ProfileState, classify
from nbsupport.lab.trial import Instrument, Order, Trial
from nbsupport.profile.layout import same_stride
from nbsupport.toolchains import discovery, profdata
from nbsupport.toolchains.probe import Toolchain

ORDERS: tuple[Order, ...] = get_args(Order)
INSTRUMENTS: tuple[Instrument, ...] = get_args(Instrument)

#: How often counts must be wrong before they are called so.
_WRONG_RUNS = 5


@dataclass(frozen=True)
class Invocation:
    """What to run: the command `argv`, in an empty folder, or in `cwd`.

    Its profile goes to the empty folder in any case: the first of the `*.profraw` there, for
    the llvm-profdata of `toolchain`. `environment` comes on top of what every program has.
    """

    argv: Sequence[str | Path]
    toolchain: Toolchain
    limits: settings.Limits
    environment: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None


class Lab:
    """Runs trials on this machine, and keeps debuggers alive between them.

    A context manager; `close` ends the debuggers (so does the end of the process).

    Args:
        folder: Where objects, programs and reference counts are kept (`cache`); None: in the
            cache folder. Toolchains and sources are in the cache folder in any case.
        limits: How far a program of a trial may go.
        debugger: Whether a crash is run again under LLDB or gdb, for its frames.
        lldb: Which LLDB; None: the newest toolchain's.

    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        limits: settings.Limits = settings.PROGRAM,
        debugger: bool = True,
        lldb: Path | None = None,
    ) -> None:
        self.cache = folder or settings.cache_dir()
        self.limits = limits
        self._debug, self._lldb = debugger, lldb
        self._debuggers: list[Debugger] = []
        # Looked up once: the grid of a sweep names each toolchain many times.
        self._find = functools.cache(discovery.find)
        self._find_rustc = functools.cache(discovery.find_rustc)
        self._program = functools.cache(programs.get)
        self.reference = functools.cache(self._reference)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the debuggers; the next crash starts one again."""
        while self._debuggers:
            self._debuggers.pop().close()

    def trial(
        self,
        program: str,
        llvm: str,
        foreign: str,
        *,
        order: str = "main-first",
        instrument: str | None = None,
        main_instrument: str = "ir",
    ) -> Trial:
        """Return the trial that these names mean; raises `LabError` that says which are allowed.

        `llvm` and `foreign` are as `toolchains.find` takes them. The library is instrumented
        as main is, unless gcc compiles it, which cannot.
        """
        other = self._find(foreign)
        if instrument is None:
            instrument = "none" if other.kind == "gcc" else main_instrument
        for what, value, allowed in (
            ("order", order, ORDERS),
            ("instrument", instrument, INSTRUMENTS),
            ("main_instrument", main_instrument, INSTRUMENTS),
        ):
            if value not in allowed:
                do = f"choose one of {', '.join(allowed)}"
                raise LabError(f"{what} {value!r}", "not known", do)
        if instrument != "none":
            if other.raw_version is None:
                why = "does not instrument as LLVM does"
                raise LabError(other.name, why, "use instrument none")
            _with_runtime(other)  # its own uniform build tells which counts are right
        if programs.language(program) == "rust":
            main = self._find_rustc(llvm)
            linker = discovery.companion(main)
        else:
            main = linker = self._find(llvm)
        return Trial(
            main=_with_runtime(main),
            program=self._program(program, cc=linker.compiler),
            foreign=other,
            order=order,  # type: ignore[arg-type]
            main_instrument=main_instrument,  # type: ignore[arg-type]
            instrument=instrument,  # type: ignore[arg-type]
            linker=linker,
            runtime=main,
        )

    def available(
        self, *, programs: Sequence[str] = (), toolchains: Sequence[str] = (), llvm: str = ""
    ) -> tuple[str, ...]:
        """Return those of the names that this machine has; says what it leaves out, and why.

        A program is there when its sources and a compiler for its main, of LLVM `llvm`, are.
        """
        names = []
        for name in (*programs, *toolchains):
            try:
                if name in programs:
                    self.trial(name, llvm, llvm)
                else:
                    self._find(name)
                names.append(name)
            except MissingError as error:
                print(f"left out {name}: {error}")  # noqa: T201 - the notebook shows it
        return tuple(names)

    def alike(self, llvm: str, asked: str) -> str:
        """Return the toolchain asked for if its records have `llvm`'s size, else `llvm` itself.

        Where `asked` is not here, it is returned: a recording may have it.
        """
        with contextlib.suppress(MissingError):
            mine, other = (self._find(name).raw_version or 0 for name in (llvm, asked))
            return asked if same_stride(mine, other) else llvm
        return asked

    def linked(self, trial: Trial) -> Path:
        """Return the program of a trial, built if it is not; raises `BuildError`."""
        return build.linked(trial, self.cache)

    def run(self, trial: Trial) -> Outcome:
        """Build what is not built, run it, and say what came of it.

        Wrong counts must persist: an allocator that looks at the clock, or at where the
        kernel puts its memory, counts otherwise once in a hundred runs.
        """
        try:
            run = self._run_of(trial)
            for _ in range(_WRONG_RUNS):
                outcome, _ = self.judge_command(run, lambda: self._expected(trial))
                if outcome.kind != "wrong-counts":
                    break
        except BuildError as error:  # of the program, or of a reference
            return Outcome("build-failed", str(error))
        return outcome

    def run_once(self, trial: Trial) -> tuple[str, float]:
        """Run a program once; return its profile as llvm-profdata's text, or "", and seconds."""
        outcome, text = self.judge_command(self._run_of(trial))
        return text, outcome.seconds

    def judge_command(
        self, run: Invocation, expected: Callable[[], counts.Expected] | None = None
    ) -> tuple[Outcome, str]:
        """Run a command once; return what came of it, and its profile as text, or "".

        `expected` is asked only where there are counts to compare. Raises `MissingError` for a
        command that is not there, or if llvm-profdata is missing.
        """
        merged, text = None, ""
        with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
            folder = Path(name)
            env = environment(folder) | run.environment
            done = process.run(run.argv, cwd=run.cwd or folder, env=env, limits=run.limits)
            profile = min((p for p in folder.glob("*.profraw") if p.is_file()), default=None)
            size = profile.stat().st_size if profile else 0
            if profile and size and done.ok:
                merged = profdata.as_text(profdata.tool(run.toolchain), profile)
                text = merged.stdout if merged.ok else ""
        counted = counts.parse(text)
        wrong = counts.difference(counted, expected()) if counted and expected else None
        kind, detail = classify(done, size, merged, counted, wrong)
        dead, note = self._crash(run) if kind == "crash" else (None, "")
        state = ProfileState(bool(merged and merged.ok), size, len(counted))
        how = (done.exit_code, done.signal_name, dead, state, done.seconds)
        return Outcome(kind, detail + note, *how), text

    def _run_of(self, trial: Trial) -> Invocation:
        program = build.linked(trial, self.cache)
        return Invocation([program], trial.runtime, self.limits, dict(trial.environment))

    def _expected(self, trial: Trial) -> counts.Expected:
        return counts.together(self.reference(part) for part in trial.references)

    def _reference(self, trial: Trial) -> counts.Expected:
        """Return the counts of a uniform build, from two runs, so that chance shows."""
        note = self.cache / "references" / f"{trial.digest}.json"
        with contextlib.suppress(LabError, ValueError, TypeError):  # not there, or not whole
            return {
                (name, number): None if values is None else tuple(values)
                for name, number, values in files.read_json(note)
            }
        runs = []
        for _ in range(2):
            outcome, text = self.judge_command(self._run_of(trial))
            if outcome.kind != "ok":
                what = f"the reference build of {trial.program.name} by {trial.runtime.name}"
                do = "this toolchain cannot profile even alone; choose another"
                raise LabError(what, f"{outcome.kind}: {outcome.detail}", do)
            runs.append(counts.parse(text))
        expected = counts.agreed(runs)
        with contextlib.suppress(OSError):  # a full or read-only cache costs time, nothing else
            files.write(note, json.dumps([(*key, values) for key, values in expected.items()]))
        return expected

    def _crash(self, run: Invocation) -> tuple[Crash | None, str]:
        """Run the command again under a debugger; the text says why there are no frames."""
        try:
            debugger = self._debugger()
            if debugger is None:
                return None, " (no frames: neither LLDB nor gdb is here)"
            with tempfile.TemporaryDirectory(prefix="pgo-lab-") as folder:
                env = environment(Path(folder)) | run.environment
                cwd, seconds = run.cwd or Path(folder), run.limits.seconds
                dead = debugger.crash(run.argv, cwd=cwd, env=env, seconds=seconds)
            self._debuggers.append(debugger)
        except LabError as error:
            return None, f" (no frames: {error.what}: {error.why})"
        return dead, "" if dead else f" (no frames: not again under {debugger.name})"

    def _debugger(self) -> Debugger | None:
        if not self._debug:
            return None
        with contextlib.suppress(IndexError):
            return self._debuggers.pop()
        gdb = shutil.which("gdb")
        return open_debugger(self._lldb or discovery.find_lldb(), Path(gdb) if gdb else None)


def _with_runtime(toolchain: Toolchain) -> Toolchain:
    """Return a toolchain that has a profile runtime; raises `LabError` for one that has none."""
    if toolchain.kind == "gcc":
        raise LabError("gcc", "does not write LLVM's profiles", "choose a clang for main")
    if toolchain.runtime is None:
        do = f"install libclang-rt-{toolchain.major}-dev (or compiler-rt), or take LLVM's wheel"
        raise MissingError(f"the profile runtime of {toolchain.name}", "not installed with it", do)
    return toolchain


def environment(folder: Path) -> dict[str, str]:
    """Return a program's whole environment, always of the same variables.

    An allocator that looks for its options reads each: counts would depend on how many there are.
    """
    profile = str(folder / "run.profraw")
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "LLVM_PROFILE_FILE": profile}
