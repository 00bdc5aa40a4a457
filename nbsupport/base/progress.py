"""What is going on, on standard error: lines, and bars for what takes over two seconds.

In a notebook that a tool executes nothing is shown, so that outputs stay the same.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from rich import progress as bars
from rich.console import Console
from rich.errors import LiveError
from rich.text import Text

from nbsupport.base import process, settings
from nbsupport.base.errors import visible

Item = TypeVar("Item")
Result = TypeVar("Result")

QUIET = "PGO_LAB_QUIET"  # set by the runners of notebooks
_SOON = 2.0  # seconds; what takes less shows no bar


def quiet() -> bool:
    """Return whether progress must not show (a runner compares the output)."""
    return QUIET in os.environ or "PYTEST_CURRENT_TEST" in os.environ


def console() -> Console:
    """Return the console of standard error as it is now (tests and kernels replace it)."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """Print one line of progress."""
    if not quiet():
        _growing.console().print(visible(line), markup=False)


def over(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield the items, and show a bar meanwhile."""
    with bar(what, len(items)) as step:
        for item in items:
            yield item
            step()


def each(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    what: str,
    *,
    jobs: int | None = None,
    step: Callable[[], None] | None = None,
    stop: Callable[[], object] | None = None,
) -> list[Result]:
    """Return what `work` makes of each item, in their order; a bar shows how many are done.

    Several run at once, `jobs` of them (default: one for each core), in threads: the work is
    to wait for child processes. `step` takes the place of a bar, where one bar is for more
    than this. When one raises, none is begun any more; at Ctrl-C the children are ended, too,
    and `process.ending` is set until then.
    `stop` ends what runs in a way of its own, in both cases.
    """
    pool = ThreadPoolExecutor(jobs or settings.cores())
    with contextlib.nullcontext(step) if step else bar(what, len(items)) as advance:
        try:
            futures = [pool.submit(work, item) for item in items]
            for future in as_completed(futures):
                future.result()
                advance()
        except BaseException as error:
            # A thread may be between two children: until all threads have come to their end.
            ending = threading.Thread(target=pool.shutdown, kwargs={"cancel_futures": True})
            ending.start()
            interrupted = not isinstance(error, Exception)
            if interrupted:
                process.ending.set()
            while ending.is_alive():
                if stop:
                    stop()
                elif interrupted:
                    process.end_all()
                ending.join(0.02)
            if interrupted:
                process.ending.clear()
            raise
        pool.shutdown()
    return [future.result() for future in futures]


@contextlib.contextmanager
def bar(
    what: str, total: int, now: Callable[[], str] | None = None
) -> Iterator[Callable[[], None]]:
    """Show a bar over `total` steps once two seconds have passed; each call of the value is one.

    What `now` returns stands beside it, always anew, in place of a time left that is guessed.
    """
    if "ipykernel" in sys.modules:
        yield _line_in_notebook(what, total)
        return
    if quiet() or not console().is_terminal:
        yield lambda: None
        return
    count, elapsed = bars.MofNCompleteColumn(), bars.TimeElapsedColumn()
    beside = _Now(now) if now else bars.TimeRemainingColumn()
    columns = ("{task.description}", bars.BarColumn(), count, elapsed, beside)
    progress = bars.Progress(*columns, console=console(), transient=True)
    task = progress.add_task(what, total=total)

    def start() -> None:
        with contextlib.suppress(LiveError):  # another bar is there
            progress.start()

    late = threading.Timer(_SOON, start)
    late.daemon = True
    late.start()
    try:
        yield lambda: progress.advance(task)
    finally:
        late.cancel()
        late.join()
        if progress.live.is_started:
            progress.stop()


class _Now(bars.ProgressColumn):
    """What goes on at this moment, as a function says it."""

    def __init__(self, now: Callable[[], str]) -> None:
        super().__init__()
        self._now = now

    def render(self, task: bars.Task) -> Text:
        return Text(self._now())


def _line_in_notebook(what: str, total: int) -> Callable[[], None]:
    """Show a line that counts, twice a second at most, and is empty at the end.

    Not rich's bar: that one is an Output widget, which can hang a runner of notebooks.
    """
    if quiet():
        return lambda: None
    from IPython.display import display  # noqa: PLC0415 - only in a kernel

    start = time.monotonic()
    shown = display({"text/plain": ""}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
    done, last = 0, start + _SOON

    def step() -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if done == total or now - last > 0.5:
            last = now
            left = (now - start) / done * (total - done)
            line = f"{what}: {done} of {total}, {left:.0f} s left" if done < total else ""
            shown.update({"text/plain": line}, raw=True)

    return step


class _Growing:
    """The bars of what grows at a time, one below the other: a terminal has one place for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: bars.Progress | None = None

    def console(self) -> Console:
        """Return the console whose lines are printed above the bars that there are."""
        shown = self._bars
        return shown.console if shown else console()

    @contextlib.contextmanager
    def task(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar, and let each call of the value say how far it is."""
        with self._lock:
            if self._bars is None:
                size, elapsed = bars.DownloadColumn(), bars.TimeElapsedColumn()
                columns = ("{task.description}", bars.BarColumn(), size, elapsed)
                self._bars = bars.Progress(*columns, console=console(), transient=True)
                self._bars.start()
            shown = self._bars
            task = shown.add_task(what, total=total)
        try:
            yield lambda completed: shown.update(task, completed=completed)
        finally:
            with self._lock:
                shown.remove_task(task)
                if not shown.tasks:
                    shown.stop()
                    self._bars = None


_growing = _Growing()


@contextlib.contextmanager
def growing(what: str, folder: Path, expected: int) -> Iterator[None]:
    """Show how a folder fills up (bytes), for a tool that does not tell how far it is."""
    if quiet() or not console().is_terminal:
        yield
        return
    with _growing.task(what, expected) as show:
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.5):
                show(min(_size_of(folder), expected))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()


def _size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder, each file once; files may vanish meanwhile."""
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(top) / name).lstat().st_size
    return total
