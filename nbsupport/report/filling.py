"""The site of a run that goes on: built anew as its notebooks end."""

import contextlib
import threading
import time
from pathlib import Path
from typing import Self

from nbsupport.base import process, progress
from nbsupport.base.errors import LabError
from nbsupport.report import site

#: How long after the beginning of a build there is no other (seconds): each takes seven of a core.
_EVERY = 40.0


class FillingSite:
    """Builds the site of a run in a thread, one build at a time.

    A context manager, after which no build goes on. Says once that there is something to read. A
    build that fails is passed over: that of the whole run tells why. Raises `LabError` at once
    where a site cannot go.

    Args:
        run: The run's folder.
        out: Where the site goes.

    """

    def __init__(self, run: Path, out: Path) -> None:
        site.require(out)
        if run.absolute() in (out.absolute(), *out.absolute().parents):
            raise LabError(str(out), "in the run's own folder", "choose another folder for --site")
        self._run, self._out = run, out
        self._began = -_EVERY
        self._told = False
        self._thread = threading.Thread(target=self._build)

    def fill(self) -> None:
        """Begin to build the site, unless a build is under way, or was just begun."""
        if not self._thread.is_alive() and time.monotonic() - self._began > _EVERY:
            self._began = time.monotonic()
            self._thread = threading.Thread(target=self._build, daemon=True)
            self._thread.start()

    def settle(self) -> None:
        """Wait until no build is under way."""
        if self._thread.ident:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        while self._thread.is_alive():
            if kind:
                process.end_all()
            self._thread.join(0.05)

    def _build(self) -> None:
        with contextlib.suppress(LabError):
            page = site.build(str(self._run), self._out)
            if not self._told:
                self._told = True
                progress.say(f"to read meanwhile: {page}, which fills as notebooks end")
