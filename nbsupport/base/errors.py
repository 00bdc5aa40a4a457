"""What goes wrong, said so that the reader knows what to do next."""

import textwrap
from pathlib import Path

from nbsupport.base import settings


class LabError(Exception):
    """One line for the reader: what failed, why, and what to do about it.

    The command line prints ``pgo-lab: WHAT: WHY; DO THIS`` and exits with 2; a notebook shows
    `box`, and its cell fails with the same sentence. Anything that is *not* a LabError is a defect.
    """

    def __init__(self, what: str, why: str, do: str) -> None:
        super().__init__(what, why, do)
        self.what = what
        self.why = why
        self.do = do

    def __str__(self) -> str:
        return f"{self.what}: {self.why}; {self.do}"

    def box(self) -> list[str]:
        """Return the lines of a short box, the first one bold: what happened, why, what to do."""
        lines = [f"┌ \x1b[1m{visible(' '.join(self.what.split()))}\x1b[0m"]
        for head, text in (("│ Why:     ", self.why), ("│ Do this: ", self.do)):
            lines += textwrap.wrap(
                visible(" ".join(text.split())),
                width=88,
                initial_indent=head,
                subsequent_indent="│          ",
                break_long_words=False,  # a path or a command can be copied
                break_on_hyphens=False,
            )
        return [*lines, "└"]

    #: IPython shows what an exception's `_render_traceback_` returns in place of a traceback.
    #: Source: InteractiveShell.showtraceback (IPython/core/interactiveshell.py).
    _render_traceback_ = box


class MissingError(LabError):
    """A tool, toolchain or source that this machine does not have, and that can be installed."""


class AbsentError(MissingError):
    """A host on the network answers, and has no such file."""


class BuildError(LabError):
    """A compiler or linker said no; `output` is what it said (bounded)."""

    def __init__(self, what: str, why: str, do: str, output: str = "") -> None:
        super().__init__(what, why, do)
        self.output = output


def first_line(text: str, *, limit: int = 200) -> str:
    """Return the first line with content of a program's message, for a one-line error."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no message")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def visible(text: str) -> str:
    r"""Return text for one line of a terminal or a page: what would control that is escaped.

    >>> print(visible("a\x1b[31m b"))
    a\x1b[31m b
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def visible_lines(text: str) -> str:
    """Return text of several lines in which nothing controls a terminal but the lines' ends."""
    return text if text.isprintable() else "\n".join(map(visible, text.split("\n")))


def from_os(what: str, error: OSError) -> LabError:
    """Turn an operating system's refusal (full disk, read-only folder) into advice.

    XDG_CACHE_HOME moves what is in the lab's cache alone: any other folder was given by the reader.
    """
    name = str(error.filename or "")
    cache = not name or Path(name).absolute().is_relative_to(settings.cache_dir())
    move = "set XDG_CACHE_HOME to a folder" if cache else "give another folder (-o)"
    if not name:  # of a write to a file, the system does not say which
        move = "set XDG_CACHE_HOME, or the folder to write to (-o), to one"
    advice = {
        28: f"free some disk space, or {move} with room",
        122: f"free some of your disk quota, or {move} with room",
        30: f"{move} that you may write",
        13: f"check the permissions, or {move} that you may write",
    }.get(error.errno or 0, "check that path")
    name = "" if name in what else name
    return LabError(what, f"{error.strerror or error}{f' ({name})' if name else ''}", advice)
