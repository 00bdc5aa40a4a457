"""The programs under investigation: which sources, in which folder, with which flags.

What there is, is data (`data/programs/programs.toml`). A program is a main and a library,
each of translation units; a trial chooses the compilers and the instrumentation.
"""

import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nbsupport.base import files, process, progress, settings
from nbsupport.base.errors import BuildError, LabError, MissingError
from nbsupport.toolchains import download

Language = Literal["c", "rust"]


@dataclass(frozen=True)
class Unit:
    """One translation unit: `source` is compiled in `folder`, to which all names are relative.

    So no object holds a path of this machine. `flags` never optimize or instrument: `optimize`
    does, where C is compiled. A change of what the source may include changes `inputs_digest`.
    """

    folder: Path
    source: str
    flags: tuple[str, ...]
    inputs_digest: str
    optimize: str = "-O1"


@dataclass(frozen=True)
class Program:
    """A main, in C or Rust, and the library below it, which is C always."""

    name: str
    what: str
    language: Language
    main: Unit
    library: tuple[Unit, ...]


def names() -> tuple[str, ...]:
    """Return the programs' names, in the order to show them."""
    return tuple(_data()["programs"])


def language(name: str) -> Language:
    """Return the language of a program's main, without fetching anything."""
    return "rust" if _entry(name)["main"].endswith(".rs") else "c"


def get(name: str, *, cc: Path = Path("cc")) -> Program:
    """Return a program whose sources are on this machine, fetching them at first use.

    `cc` is any C compiler that links; jemalloc's `configure` asks it about this machine, once.
    Raises `LabError` for an unknown name (it says which there are), or if sources are missing.
    """
    entry = _entry(name)
    library = _data()["libraries"][entry["library"]]
    main = _unit(_folder(), entry["main"], entry)
    below = _unit(_library_folder(library, cc), library["source"], library)
    return Program(name, entry["what"], language(name), main, (below,))


def _folder() -> Path:
    return settings.data_dir() / "programs"


def _data() -> dict[str, Any]:
    return files.read_toml(_folder() / "programs.toml")


def _entry(name: str) -> dict[str, Any]:
    programs: dict[str, dict[str, Any]] = _data()["programs"]
    if name not in programs:
        raise LabError(f"program {name}", "there is none", f"choose from {', '.join(programs)}")
    return programs[name]


def _unit(folder: Path, source: str, entry: dict[str, Any]) -> Unit:
    # Our own folder has several mains and libraries: of its sources, one is compiled.
    chosen = (source,) if folder == _folder() else ()
    return Unit(folder, source, tuple(entry.get("flags", ())), digest(folder, *chosen))


def digest(folder: Path, *sources: str) -> str:
    """Return a digest of a folder's headers, linker's scripts, and (these) `sources`."""
    parts: list[str | Path] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        chosen = path.suffix in (".c", ".rs") and (not sources or name in sources)
        if chosen or path.suffix in (".h", ".so"):
            parts += [name, path]
    return files.digest(*parts)


def _library_folder(library: dict[str, Any], cc: Path) -> Path:
    if "fetch" not in library:
        return _folder()
    sources = download.source(library["fetch"])
    if "configure" not in library:
        return sources
    recipe = f"{library['configure']}{library['unity']}{sys.platform}{platform.machine()}"
    target = sources.with_name(f"configured-{sources.name}-{files.digest(recipe)[:8]}")
    return files.once(target, lambda staging: _configure(sources, staging, library, cc))


def _configure(sources: Path, staging: Path, library: dict[str, Any], cc: Path) -> None:
    """Fill `staging` with sources as `configure` leaves them, and the one unit of all."""
    if shutil.which(cc) is None:
        raise MissingError(str(cc), "no such compiler", "pgo-lab toolchains --install 19")
    progress.say(f"{sources.name}: asking {cc} about this machine (configure), once; 10 s or so")
    work = staging / "work"
    shutil.copytree(sources, work)
    # The variables keep this process's environment (CFLAGS and the like) out of it.
    linker = "-fuse-ld=lld" if cc.with_name("ld.lld").exists() else ""
    variables = (f"CC={cc}", "CFLAGS=", "CPPFLAGS=", f"LDFLAGS={linker}", "LIBS=")
    command = ("/bin/sh", "configure", *variables, *library["configure"])
    done = process.run(command, cwd=work, limits=settings.COMPILER)
    if not done.ok:
        output = done.stdout + done.stderr
        do = f"check that {cc} compiles and links a program"
        why = " ".join(output.strip().splitlines()[-2:]) or f"ended at the {done.limit} limit"
        raise BuildError(f"configuring {sources.name}", why, do, output)
    # What else configure leaves (its log, makefiles) names folders of this machine.
    folder, leave_out = library["unity"]["folder"], library["unity"]["leave_out"]
    for part in ("include", folder):
        (work / part).rename(staging / part)
    shutil.rmtree(work)
    parts = sorted(p.name for p in (staging / folder).glob("*.c") if p.name not in leave_out)
    (staging / library["source"]).write_text("".join(f'#include "{folder}/{p}"\n' for p in parts))
