"""What can be installed by name, alone or as a group."""

from __future__ import annotations

from nbsupport.base import files, progress, settings
from nbsupport.base.errors import MissingError, from_os
from nbsupport.toolchains import download, wheels

#: What `make report` compares: every raw version there is, and one control of an equal one.
REPORT = ("17", "18", "19", "22", "23", "rustc-web")

#: Folders of the cache with what the toolchains made.
_BUILT = ("objects", "programs", "references", "probes", "sweeps")


def install(name: str) -> None:
    """Install one LLVM, `rustc-web`, `all`, or `report`; what is there already is left alone.

    Of a group, what this machine cannot have is said and passed over; a single one that
    cannot be had raises `LabError`.
    """
    groups = {
        "report": REPORT,
        "all": (*(release.version for release in wheels.releases()), "rustc-web"),
    }
    for member in groups.get(name, (name,)):
        try:
            if member == "rustc-web":
                download.rustc_web()
            else:
                wheels.install(member)
        except MissingError as error:
            if name not in groups:
                raise
            progress.say(f"skipped: {error}")


def prune() -> None:
    """Remove the installed toolchains, and what was built with them; `LabError` if refused."""
    home = settings.cache_dir()
    built = (home / name for name in _BUILT)
    try:
        for folder in (*sorted((home / "toolchains").glob("*")), *built):
            if folder.is_dir():
                files.remove(folder)
                progress.say(f"removed {folder.name}")
    except OSError as error:
        raise from_os(f"removing {folder.name}", error) from error
