"""What a check costs before a build, warm and with an empty cache; part of `make bench`."""

from __future__ import annotations

import shutil
import sys

from nbsupport.base import settings
from nbsupport.toolchains import discovery
from tests.bench.row import PGO_LAB, Place, Row, Sample, run, seconds
from tests.support import cargo_projects
from tests.support.cargo_projects import CargoProject


def prepared(place: Place) -> tuple[CargoProject, list[object]]:
    """Write a project whose C is compiled by gcc, and return it with the command that checks it."""
    project = cargo_projects.write(place.work / "project", discovery.find_rustc("19"))
    words = [f"{name}={value}" for name, value in project.environment(CC="gcc").items()]
    return project, ["env", "-i", *words]


def rival(project: CargoProject) -> Sample:
    """Import the package, and compile a file of C."""
    clang = discovery.find("19").compiler

    def both() -> None:
        run(sys.executable, "-c", "import nbsupport")
        run(clang, "-c", "-fprofile-generate", "part.c", "-o", "part.o", cwd=project.folder)

    return lambda: seconds(both)


def warm(place: Place) -> tuple[Sample, Sample]:
    project, command = prepared(place)
    run(*command, PGO_LAB, "check", project.folder)
    return lambda: seconds(lambda: run(*command, PGO_LAB, "check", project.folder)), rival(project)


def cold(place: Place) -> tuple[Sample, Sample]:
    project, command = prepared(place)

    def once() -> float:
        cache = place.fresh()
        (cache / "pgo-lab").mkdir()
        for name in ("toolchains", "cargo"):  # what is installed is no answer that was kept
            there = settings.cache_dir() / name
            if there.is_dir():
                (cache / "pgo-lab" / name).symlink_to(there)
        own = [*command, f"XDG_CACHE_HOME={cache}", PGO_LAB, "check", project.folder]
        taken = seconds(lambda: run(*own))
        shutil.rmtree(cache)
        return taken

    return once, rival(project)


ROWS = (
    Row("forecast.warm", "a cargo project checked, as a command", "import nbsupport, and clang -c",
        "2 times", warm),
    Row("forecast.cold", "the same, with nothing kept of compilers", "import nbsupport, and clang -c",
        "one compile per compiler more", cold),
)  # fmt: skip
