"""The system's Debian archive, without root and without touching the system's own state.

apt-get gets its lists, state and cache in a folder of ours. Where the archive is, and whom to
trust, is the system's configuration; its source packages, which most leave out, are asked for too.
"""

import os
import re
import shutil
import time
from pathlib import Path

from nbsupport.base import files, progress, settings
from nbsupport.base.errors import AbsentError, MissingError

#: The system's configuration.
_ETC = Path("/etc/apt")

#: What downloads one file for apt-get, with its proxies; in no folder of PATH.
_HELPER = Path("/usr/lib/apt/apt-helper")

#: How apt-get is asked for one file: the tar archive of a source package.
_SOURCE = ("source", "--download-only", "--tar-only")

#: Lists younger than this (seconds) are not asked for again.
_FRESH = 3600

#: What the lists and their index take (bytes), twice over: apt-get hangs on a full disk.
_ROOM = 80e6

_ADVICE = "check the network and the system's apt sources"


def download(package: str, file: str, folder: Path) -> Path:
    """Download one `file` of a package (`name=version`) into an empty folder and return it.

    That is a .deb, or the tar archive of a source package. Package lists (20 MB) are kept in the
    cache and brought up to date when they do not have the package. Raises `MissingError` without
    apt-get, where the archive does not have the package, or cannot be reached.
    """
    ask = ("download",) if file.endswith(".deb") else _SOURCE
    _ask((*ask, package), folder)
    paths = list(folder.iterdir())
    if len(paths) != 1:
        raise MissingError(package, "the archive does not have it", _ADVICE)
    return paths[0]


def source(package: str) -> tuple[str, int, str]:
    """Return what the tar archive of a source package is: file, size in bytes, SHA-256.

    It is not downloaded; lists are, and `MissingError` is raised, as `download` does.
    """
    listing = _ask((*_SOURCE, "--print-uris", package))
    match = re.search(r"^'\S+' (\S+\.orig\.tar\.\w+) (\d+) SHA256:([0-9a-f]{64})", listing, re.M)
    if match is None:
        raise MissingError(package, "the archive states no SHA-256 of its sources", _ADVICE)
    return match[1], int(match[2]), match[3]


def fetch(url: str, target: Path) -> Path:
    """Download a file of one of the `archives` to `target`, and return it; no lists needed.

    Raises `AbsentError` where the host answers with another status than 200, `MissingError` where
    it does not answer.
    """
    configuration = settings.cache_dir() / "apt" / "apt.conf"
    command = (_HELPER, "-q", "-c", configuration, "download-file", url, target)
    done = files.run_tool(command, target.parent)
    if not done.ok:
        why = _error(done.stderr) or "apt-helper fails"
        # "Failed to fetch URL  404  Not Found [IP: …]"
        kind = AbsentError if re.search(r"  [345]\d\d  ", why) else MissingError
        raise kind(url.split("/")[2], why, _ADVICE)
    return target


def archives() -> list[str]:
    """Return the base addresses of the system's archives (`http://host/debian/`); no lists needed.

    Raises `MissingError` without apt-get.
    """
    lists = _ask(("--print-uris", "update"))
    return list(dict.fromkeys(re.findall(r"^'(https?://\S+?/)dists/\S+/InRelease'", lists, re.M)))


def _ask(ask: tuple[str, ...], folder: Path | None = None) -> str:
    """Return what apt-get prints; its lists are brought up to date where they may be why not."""
    home = settings.cache_dir() / "apt"
    home.mkdir(parents=True, exist_ok=True)
    with files.alone(home):
        command = ("apt-get", "-q", "-c", _configure(home))
        place = folder or home
        done = files.run_tool((*command, *ask), place)
        update_errors = ""
        stamp = home / "updated"
        age = time.time() - stamp.stat().st_mtime if stamp.exists() else _FRESH
        if not done.ok and age >= _FRESH:
            progress.say(f"package lists of the system's archive: about 20 MB, into {home}")
            files.require(_ROOM, home, "package lists")
            # Its exit code says little: one archive out of several may be out of reach.
            update_errors = files.run_tool((*command, "update"), home).stderr
            if "Failed to fetch" not in update_errors:
                stamp.touch()
            done = files.run_tool((*command, *ask), place)
    if not done.ok:
        why = _error(done.stderr) or "the archive does not have it"
        # What the update said may be why there are no lists to look in, or be about another.
        why += f" ({_error(update_errors)})" if _error(update_errors) else ""
        raise MissingError(ask[-1], why, _ADVICE)
    return done.stdout


def _error(said: str) -> str:
    """Return the first error that apt-get reports (`E:`), or its first failure to fetch."""
    found = re.search(r"^E: (.+)", said, re.M) or re.search(r"^W: (Failed to fetch.+)", said, re.M)
    return found[1].strip() if found else ""


def _configure(home: Path) -> Path:
    """Write the private configuration and return its file."""
    shutil.rmtree(home / "sources", ignore_errors=True)
    for name in ("sources", "state/lists/partial", "cache/archives/partial"):
        (home / name).mkdir(parents=True, exist_ok=True)
    for number, path in enumerate((_ETC / "sources.list", *sorted(_ETC.glob("sources.list.d/*")))):
        if path.suffix in (".list", ".sources") and os.access(path, os.R_OK):
            text = with_sources(path.read_text(errors="replace"))
            (home / "sources" / f"{number}-{path.name}").write_text(text)
    configuration = home / "apt.conf"
    template = (settings.data_dir() / "apt.conf").read_text()
    files.write(configuration, template.format(home=home))  # whole, for who fetches meanwhile
    return configuration


def with_sources(text: str) -> str:
    """Return a sources file, of either format (sources.list(5)), with source packages too."""
    text = re.sub(r"^[ \t]*deb([ \t].*)", r"deb\1\ndeb-src\1", text, flags=re.M)
    return re.sub(r"^Types:.*", "Types: deb deb-src", text, flags=re.M | re.I)
