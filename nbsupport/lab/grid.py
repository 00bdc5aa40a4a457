"""Many trials: a grid of them in parallel, as one table. The public face of trials."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, TypeVar

from nbsupport.base import process, progress
from nbsupport.base.errors import BuildError, from_os
from nbsupport.lab import build
from nbsupport.lab.build import Trial
from nbsupport.lab.lab import INSTRUMENTS, ORDERS, Lab
from nbsupport.lab.outcome import KINDS, Outcome

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["INSTRUMENTS", "KINDS", "ORDERS", "Lab", "Outcome", "Trial", "sweep"]

A = TypeVar("A")
B = TypeVar("B")


def sweep(
    *,
    mains: Sequence[str],
    foreigns: Sequence[str],
    programs: Sequence[str] = ("cold",),
    orders: Sequence[str] = ("main-first",),
    instruments: Sequence[str | None] = (None,),
    main_instruments: Sequence[str] = ("ir",),
    lab: Lab | None = None,
    jobs: int | None = None,
) -> pd.DataFrame:
    """Run every combination, in parallel, and return one row for each, in grid order.

    Combinations that cannot be are left out: gcc does not instrument as LLVM does.
    Columns: the trial's parameters, then the outcome's. Shows a progress bar. An
    interrupted sweep keeps what it has finished: the same call goes on from there.
    """
    import pandas as pd  # noqa: PLC0415 - a quarter of a second, only here

    mine = lab or Lab()
    grid = itertools.product(programs, mains, foreigns, orders, instruments, main_instruments)
    trials = [
        mine.trial(
            program, main, foreign, order=order, instrument=instrument, main_instrument=main_how
        )
        for program, main, foreign, order, instrument, main_how in grid
        if foreign != "gcc" or instrument in (None, "none")
    ]
    try:
        outcomes = _Sweep(mine, trials, jobs or os.cpu_count() or 1).run()
    except OSError as error:
        raise from_os("a sweep", error) from error
    finally:
        if lab is None:
            mine.close()
    rows = [{**t.to_row(), **o} for t, o in zip(trials, outcomes, strict=True)]
    return pd.DataFrame(rows)


class _Sweep:
    """Runs trials in parallel: first the objects they share, then references, then each trial.

    The threads only wait for child processes (compilers, programs, debuggers), which are
    what runs in parallel; so this process can end them all at an interrupt.
    """

    def __init__(self, lab: Lab, trials: Sequence[Trial], jobs: int) -> None:
        self.lab = lab
        self.trials = trials
        self.jobs = jobs
        digest = hashlib.sha256("".join(t.digest for t in trials).encode()).hexdigest()
        self.journal = lab.cache / "sweeps" / f"{digest[:32]}.jsonl"

    def run(self) -> list[dict[str, Any]]:
        done = self._resumed()
        todo = [n for n in range(len(self.trials)) if n not in done]
        references = tuple(dict.fromkeys(r for n in todo for r in self.trials[n].references))
        everything = (*references, *(self.trials[n] for n in todo))
        objects = tuple(dict.fromkeys(job for one in everything for job in build.jobs(one)))
        total = len(objects) + len(references) + len(todo)
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        with progress.bar("trials", total) as step, self.journal.open("a") as journal:

            def keep(n: int, outcome: Outcome) -> None:
                done[n] = outcome.to_row()
                journal.write(json.dumps([n, done[n]]) + "\n")
                journal.flush()
                step()

            compiled: Callable[[build.CompileJob], None] = _leave(
                lambda job: build.compiled(job, self.lab.cache)
            )
            self._each(compiled, objects, lambda *_: step())
            self._each(_leave(self.lab.reference), references, lambda *_: step())
            self._each(lambda n: self.lab.run(self.trials[n]), todo, keep)
        self.journal.unlink(missing_ok=True)  # the same sweep, elsewhere at once, may have
        return [done[n] for n in range(len(self.trials))]

    def _resumed(self) -> dict[int, dict[str, Any]]:
        """Return the rows that an interrupted run of the same sweep has left."""
        if not self.journal.is_file():
            return {}
        done: dict[int, dict[str, Any]] = {}
        for line in self.journal.read_text().splitlines():
            with contextlib.suppress(ValueError):  # the last line may be cut
                n, row = json.loads(line)
                done[n] = row
        progress.say(f"going on: {len(done)} of {len(self.trials)} trials were done before")
        return done

    def _each(
        self, work: Callable[[A], B], items: Sequence[A], then: Callable[[A, B], None]
    ) -> None:
        """Do the work on each item, and call `then` with its result as it comes."""
        pool = ThreadPoolExecutor(self.jobs)
        try:
            futures = {pool.submit(work, item): item for item in items}
            for future in as_completed(futures):
                then(futures[future], future.result())
        except BaseException:
            # A thread may be between two children: until all threads have come to their end.
            ending = threading.Thread(target=pool.shutdown, kwargs={"cancel_futures": True})
            ending.start()
            while ending.is_alive():
                process.end_all()
                ending.join(0.02)
            raise
        pool.shutdown()


def _leave(work: Callable[[A], object]) -> Callable[[A], None]:
    """Leave a failure to build to the trials that need it: they tell of it as their outcome."""

    def left(item: A) -> None:
        with contextlib.suppress(BuildError):
            work(item)

    return left
