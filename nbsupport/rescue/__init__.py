"""A valid, mergeable profile out of what is called lost: a malformed file, a crashing program.

The counters of a mixed program are right: each function increments its own, whoever
instrumented it. Only the runtime, which walks records of two layouts with one stride, loses
them. Here records are recognized by their names, and a profile is written for each layout.
What the value sites saw is lost with it; PGO does without.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbsupport import contain, files, settings, toolchains
from nbsupport.errors import LabError, first_line, from_os
from nbsupport.profile import header, images, layout, profraw
from nbsupport.profile.profraw import Profile
from nbsupport.rescue import live, parts
from nbsupport.rescue.parts import Part

__all__ = ["Part", "Rescued", "from_profraw", "run"]

_VALUES = "what its value sites saw (indirect calls are not promoted, memory operations not sized)"


@dataclass(frozen=True)
class Rescued:
    """A rescued profile: `path` holds all functions, each of `parts` those of one layout.

    `healthy` says that nothing had to be rescued, and value profiles are in it, too. `lost` is
    what is not in it, `notes` is what else there is to say, in sentences.
    """

    path: Path
    parts: tuple[Part, ...]
    healthy: bool
    lost: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def functions(self) -> int:
        """How many functions there are."""
        return sum(part.functions for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `pgo-lab rescue --json`."""
        return {
            "path": str(self.path),
            "functions": self.functions,
            "healthy": self.healthy,
            "parts": [parts.to_json(part) for part in self.parts],
            "lost": list(self.lost),
            "notes": list(self.notes),
        }


def from_profraw(
    path: Path, out: Path, *, binary: Path | None = None, cache: Path | None = None
) -> Rescued:
    """Write what is in a raw profile to `out`, whatever is malformed in it.

    `binary`, the program that wrote it, gives the records and names that a cut file lacks.
    Raises `LabError` for what is no raw profile, is empty, or cannot be written.
    """
    _writable(out)
    found = profraw.read(path)
    if not found.profiles:
        do = "run the program under it: pgo-lab rescue -o OUT -- PROGRAM ARGS"
        raise LabError(str(path), found.problems[0].what, do)
    profiles = [_whole(one, binary) if binary else one for one in found.profiles]
    if found.valid:
        made = _own([path], found.raw_version, out, cache)
        if made:
            return made
    recovered = [parts.recover(one) for one in profiles]
    written = parts.write(recovered, out, cache)
    short = sum(len(one.records.sound) - int(one.records.sound.sum()) for one in profiles)
    lost = [*_nameless(recovered)]
    lost += [f"{short} functions whose counters are not in the file"] * bool(short)
    notes = [f"it was malformed: {found.problems[0].what}"] if found.problems else []
    return Rescued(out, written, False, (_VALUES, *lost), tuple(notes))


def run(
    argv: Sequence[str | Path],
    out: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = live.FOREVER,
    cache: Path | None = None,
    quiet: bool = False,
) -> Rescued:
    """Run a program to its end, and write its profile, although it would crash otherwise.

    Nothing is built anew. Where all its images are of one layout, it writes its profile itself.
    SIGUSR1 to this process writes what there is at once; Ctrl-C and the time limit end it with
    its profile. Raises `MissingError` without LLDB or program, `LabError` for a program that is
    not instrumented or cannot be run, or an `out` that cannot be written.
    """
    _writable(out)
    made: list[Rescued] = []
    with tempfile.TemporaryDirectory(prefix="pgo-lab-rescue-") as name:
        folder = Path(name)
        own = folder / "own"
        own.mkdir()
        variables = dict(os.environ if env is None else env)
        variables["LLVM_PROFILE_FILE"] = str(own / "%p.profraw")

        def save(ran: live.Ran) -> None:
            made[:] = [_saved(ran, own, out, cache)]

        ran = live.run(
            argv,
            folder,
            env=variables,
            cwd=cwd or Path.cwd(),
            seconds=seconds,
            save=save,
            cache=cache,
            quiet=quiet,
        )
        if not ran.seen:
            do = "build it with -fprofile-generate (rustc: -Cprofile-generate)"
            raise LabError(str(argv[0]), "no image of it is instrumented", do)
        save(ran)
    return made[0]


def _saved(ran: live.Ran, own: Path, out: Path, cache: Path | None) -> Rescued:
    """Write the profile of a run as far as it has come."""
    notes, lost = _notes(ran), [_VALUES]
    if ran.why == "exit" and [one.healthy for one in ran.seen.values()] == [True]:
        written = [path for path in sorted(own.glob("*.profraw")) if path.stat().st_size]
        version = profraw.read(written[0]).raw_version if written else None
        done = _own(written, version, out, cache) if written else None
        if done:
            return dataclasses.replace(done, notes=(*done.notes, *notes))
    if ran.forked:
        lost.append("what its forked children counted")
    if not ran.images:
        do = "give a time limit shorter than its run (--seconds), or link it dynamically"
        raise LabError(str(out), f"it ended before its memory was read ({ran.ended})", do)
    profiles = []
    for path, image in ran.images.items():
        seen = ran.seen[path]
        known, version, more = live.profile(seen, image)
        content = parts.raw(known, version, seen.bits, seen.order, **more)
        found = header.read(memoryview(content), 0)
        assert isinstance(found, header.Header)
        profiles.append(Profile(found))
    recovered = [parts.recover(one) for one in profiles]
    written_parts = parts.write(recovered, out, cache)
    return Rescued(out, written_parts, False, (*lost, *_nameless(recovered)), tuple(notes))


def _notes(ran: live.Ran) -> list[str]:
    notes = []
    if ran.stop:
        frames = ran.stop["frames"]
        where = frames[0]["function"] or frames[0]["module"] if frames else "?"
        notes.append(f"it crashed for a reason of its own: {ran.stop['signal']} in {where}")
    elif ran.why == "limit":
        notes.append("its time was over: the profile is of what it had done")
    elif ran.why in ("end", "now"):
        notes.append("the profile is of what it had done when it was asked for")
    elif ran.code:
        notes.append(f"it ended with exit code {ran.code} ({ran.ended})".replace(" ()", ""))
    if ran.executed:
        notes.append("it became another program (exec): the profile is of that alone")
    return notes


def _nameless(found: Sequence[parts.Recovered]) -> list[str]:
    number = sum(one.nameless for one in found)
    return [f"{number} functions whose names are not there"] * bool(number)


def _own(
    written: Sequence[Path], version: int | None, out: Path, cache: Path | None
) -> Rescued | None:
    """Merge raw profiles that are healthy, by an llvm-profdata of their raw version, if any."""
    there = [t for t in toolchains.discover(cache) if t.llvm_profdata and t.raw_version == version]
    tool = min(there, key=lambda t: int(t.major), default=None)
    found = [profraw.read(path) for path in written]
    if tool is None or not all(one.valid for one in found):
        return None
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        merged = Path(name) / "merged.profdata"
        form = ("-text",) if out.suffix == ".proftext" else ()
        assert tool.llvm_profdata
        inputs = [path.absolute() for path in written]
        command = (tool.llvm_profdata, "merge", *form, "-o", merged, *inputs)
        done = contain.run(command, cwd=Path(name), limits=settings.INSTALL)
        if not done.ok:
            return None
        files.write(out, merged.read_bytes())
    profile = found[0].profiles[0].header
    size = profile.record_size
    versions = layout.sizes(profile.bits)[size]
    number = sum(one.functions for one in found)
    part = Part(size, versions, number, out, None if form else int(tool.major))
    notes = ("healthy: its records are of one layout, and it writes its profile itself",)
    return Rescued(out, (part,), True, (), notes)


def _whole(profile: Profile, binary: Path) -> Profile:
    """Return a profile with the records and names of the program that wrote it."""
    try:
        data = binary.read_bytes()
        image = images.parse(data)
    except OSError as error:
        raise from_os(str(binary), error) from error
    except ValueError as error:
        raise LabError(str(binary), first_line(str(error)), "give the program itself") from error
    if not image or not all(image.places.get(role) for role in ("data", "counters", "names")):
        raise LabError(str(binary), "no program with profile sections", "give the program itself")
    places = {role: image.places[role] for role in ("data", "counters", "names")}
    address, start, size = places["data"][0]
    found = profile.header
    own = {
        "data": data[start : start + size],
        "counters": bytes(found.part("counters")),
        "bitmaps": bytes(found.part("bitmaps")),
        "names": b"".join(data[s : s + n] for _, s, n in places["names"]),
    }
    distances = {"counters": places["counters"][0][0] - address}
    distances["bitmaps"] = found.fields.get("BitmapDelta", 0)
    version = found.fields["Version"]
    content = parts.raw(found.layout, version, found.bits, found.order, own, distances)
    made = header.read(memoryview(content), 0)
    assert isinstance(made, header.Header)
    return Profile(made)


def _writable(out: Path) -> None:
    """Raise `LabError` unless a file can be made there: before a program has run for hours."""
    if out.is_dir():
        raise LabError(str(out), "it is a folder", "give the file to write: -o FILE.profdata")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=out.absolute().parent, prefix=".pgo-lab-")
        os.close(handle)
        Path(name).unlink()
    except OSError as error:
        raise from_os(f"writing {out}", error) from error
