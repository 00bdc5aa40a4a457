"""A cargo build, and what it says of what it made.

Source: the chapter External tools of the Cargo Book (JSON messages).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbsupport.base import files, process
from nbsupport.base.errors import BuildError, LabError, first_line, visible, visible_lines
from nbsupport.pipeline.plan import BuildPlan

#: What holds the key of all that a folder was built with, sources aside: cargo watches those.
_KEY = ".pgo-lab"
#: Of cargo's messages for people, those of the build itself are enough.
_SHOWN = 3


@dataclass(frozen=True)
class CargoBuild:
    """What a build has made: the `program`, or dynamic library, and C `objects` in a folder."""

    program: Path
    objects: Path


def build(
    plan: BuildPlan, name: str, flag: str, *made_of: str, like: str = "nothing"
) -> CargoBuild:
    """Build the project with one more flag of rustc, into the folder `name` of the plan's.

    What cargo has there of the same settings, and `made_of`, is used again; build scripts and
    macros are those of the build `like`. Raises `BuildError` where it fails, `LabError` where it
    makes not one program.
    """
    folder = plan.out / name
    key = plan.digest(flag, *made_of)
    # From nothing: neither cargo nor build scripts see new CFLAGS, or a new profile of one name.
    if not (folder / _KEY).is_file() or (folder / _KEY).read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        _copy(plan.out / like / plan.kind, folder / plan.kind)
    files.write(folder / _KEY, key)
    words: list[str | Path] = [*plan.words, "--target-dir", folder, "--message-format=json"]
    flags = "\x1f".join([*plan.rustflags, flag])
    with tempfile.TemporaryFile() as output:
        env = {**plan.env, "CARGO_ENCODED_RUSTFLAGS": flags}
        code = process.run_freely(words, cwd=plan.folder, env=env, output=output.fileno())
        output.seek(0)
        lines = output.read().decode(errors="replace").splitlines()
    messages = [json.loads(line) for line in lines if line.startswith("{")]
    diagnostics = [m["message"] for m in messages if m.get("reason") == "compiler-message"]
    errors = [message for message in diagnostics if message["level"].startswith("error")]
    for error in errors[:_SHOWN]:
        text = visible_lines(str(error.get("rendered") or error["message"]))
        print(text, file=sys.stderr)  # noqa: T201 - the compiler's own words, beside cargo's
    if code != 0:
        why = first_line(errors[0]["message"]) if errors else "cargo says above what is wrong"
        raise BuildError(f"the {name} build", why, "mend it, and call this again")
    return CargoBuild(chosen(programs(messages)), plan.objects(folder))


def _copy(host: Path, folder: Path) -> None:
    """Copy what build scripts and macros are built of: cargo makes anew what is not whole."""
    try:
        if host.is_dir():
            shutil.copytree(host, folder, symlinks=True)
    except OSError:  # no room, which cargo will say
        shutil.rmtree(folder, ignore_errors=True)


def programs(messages: Sequence[Mapping[str, Any]]) -> tuple[Path, ...]:
    """Return the executables that cargo has made; without any, the dynamic libraries.

    >>> made = {"reason": "compiler-artifact", "target": {"crate_types": ["cdylib", "rlib"]}}
    >>> made |= {"executable": None, "filenames": ["/t/liba.so", "/t/liba.rlib"]}
    >>> [path.name for path in programs([made])]
    ['liba.so']
    """
    artifacts = [m for m in messages if m.get("reason") == "compiler-artifact"]
    paths = [m["executable"] for m in artifacts if m.get("executable")]
    if not paths:
        dynamic = (m["filenames"] for m in artifacts if "cdylib" in m["target"]["crate_types"])
        paths = [n for names in dynamic for n in names if Path(n).suffix in (".so", ".dylib")]
    return tuple(Path(path) for path in dict.fromkeys(paths))


def chosen(paths: Sequence[Path]) -> Path:
    """Return the one program that there is to train; raises `LabError` for several, or none."""
    if len(paths) == 1:
        return paths[0]
    names = ", ".join(visible(path.name) for path in paths)
    why = f"it makes several programs: {names}" if paths else "it makes no program, and no cdylib"
    raise LabError("this build", why, "choose one: pgo-lab build … -- --bin NAME (or --lib)")
