"""A folder that a reader sends to us: nothing in it tells who they are, or what else they have."""

import json
import os
import platform
import pwd
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbsupport
from nbsupport.base import files, settings
from nbsupport.base.errors import LabError

#: Shorter names are parts of words: they are left out of paths alone.
_SHORTEST = 3
#: Where macOS has the temporary files of each user: two folders named by numbers of theirs.
_OF_USER = r"(?:/private)?/var/folders/[^/\s]+/[^/\s]+"


class SentFolder:
    """Writes files into a new folder; each text goes through `hide` first.

    `places` are more folders to hide, and what stands for each. Raises `LabError` where there is
    such a folder already, or its archive.
    """

    def __init__(self, path: Path, places: Mapping[Path, str]) -> None:
        self.path = path
        for taken in (path, _archive(path)):
            if taken.exists():
                do = "move it away, or give another folder with -o"
                raise LabError(str(taken), "it is there already", do)
        named = {**places, settings.data_dir(): "<data>", settings.cache_dir(): "<cache>"}
        named |= {Path(nbsupport.__file__).parents[1]: "<lab>", Path.cwd(): "<here>"}
        named |= {Path(tempfile.gettempdir()): "<tmp>", Path.home(): "~"}
        spelled = {str(form): name for p, name in named.items() for form in (p, p.resolve())}
        # The longest first: a folder inside another one has a name of its own.
        self._patterns = [
            (re.compile(rf"{re.escape(place)}(?![\w-])", re.I), name)
            for place, name in sorted(spelled.items(), key=lambda item: -len(item[0]))
            if place != "/"
        ]
        self._patterns.append((re.compile(_OF_USER), "<tmp>"))
        for word in sorted(set(_names()), key=len, reverse=True):
            pattern = rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])"
            self._patterns.append((re.compile(pattern, re.I), "<name>"))

    def hide(self, text: str) -> str:
        """Return a text without the names of this user and this machine, or places of theirs."""
        for pattern, name in self._patterns:
            text = pattern.sub(name, text)
        return text

    def write(self, name: str, text: str) -> None:
        """Write a text as a file of the folder."""
        files.write(self.path / name, self.hide(text))

    def write_json(self, name: str, document: Any) -> None:
        """Write a document; `hide` is for what it says, not for its keys."""
        files.write(self.path / name, json.dumps(self._hidden(document), indent=1) + "\n")

    def _hidden(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._hidden(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._hidden(inner) for inner in value]
        return self.hide(value) if isinstance(value, str) else value

    def pack(self) -> Path:
        """Return a .zip of the folder, beside it: zip keeps no owner of a file, as tar does."""
        folder = self.path.absolute()
        shutil.make_archive(str(folder), "zip", root_dir=folder.parent, base_dir=folder.name)
        return _archive(self.path)


def _archive(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.zip")


def _names() -> Iterator[str]:
    """Yield what user and machine are called."""
    user, host = pwd.getpwuid(os.getuid()), platform.node()
    people = user.pw_gecos.split(",")[0], user.pw_name, *map(os.environ.get, ("USER", "LOGNAME"))
    yield from (
        name for name in (*people, host, host.split(".")[0]) if name and len(name) >= _SHORTEST
    )
