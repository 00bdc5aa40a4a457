"""What a rescue writes: the profile out of a run's memory, or out of a malformed file."""

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nbsupport.audit import images
from nbsupport.base.errors import LabError, first_line, from_os
from nbsupport.profile import layout, profraw
from nbsupport.profile.profraw import Profile
from nbsupport.rescue import live, profdata
from nbsupport.rescue.live import LiveRun
from nbsupport.rescue.rescued import VALUES, Rescued, RescuedPart
from nbsupport.toolchains import profdata as llvm_profdata

#: How the names of the runtime's functions begin that walk records.
_RUNTIME = ("__llvm_profile", "lprof", "writeOneValueProf", "initializeValueProf")


def save_file(path: Path, out: Path, binary: Path | None) -> Rescued:
    """Write what is in a raw profile to `out`; see `nbsupport.rescue.rescue.from_profraw`."""
    file = profraw.read(path)
    if not file.profiles:
        do = "run the program under it: pgo-lab rescue -o OUT -- PROGRAM ARGS"
        raise LabError(str(path), file.problems[0].what, do)
    profiles = [_whole(profile, binary) if binary else profile for profile in file.profiles]
    if file.valid and (rescued := _merged([path], out)):
        return rescued
    recovered = [profdata.recover(profile) for profile in profiles]
    parts = profdata.write(recovered, out)
    lost = [VALUES, *(what for image in recovered for what in image.lost)]
    sound = [profile.records.sound for profile in profiles]
    short = sum(len(records) - int(records.sum()) for records in sound)
    if short:
        lost.append(f"{short} functions whose counters are not in the file")
    notes = [f"it was malformed: {file.problems[0].what}"] if file.problems else []
    return Rescued(out, parts, False, tuple(lost), tuple(notes))


def save_run(run: LiveRun, own: Path, out: Path) -> Rescued:
    """Write the profile of a run to `out`, as far as it has come.

    `own` is the folder of the profiles that it has written itself.
    """
    notes, lost = _notes(run), list[str]()
    if run.why == "exit" and [image.healthy for image in run.images.values()] == [True]:
        written = [path for path in sorted(own.glob("*.profraw")) if path.stat().st_size]
        if written and (rescued := _merged(written, out)):
            return dataclasses.replace(rescued, notes=(*rescued.notes, *notes))
    if run.forked:
        lost.append("what its forked children counted")
    if not run.copied:
        do = "give a time limit shorter than its run (--seconds), or link it dynamically"
        raise LabError(str(out), f"it ended before its memory was read ({run.ending})", do)
    profiles = [live.profile(image) for image in run.copied.values()]
    recovered = [profdata.recover(profdata.parse(raw), nodes) for raw, nodes in profiles]
    if not all(nodes for _, nodes in profiles):
        lost.insert(0, VALUES)
    try:
        parts = profdata.write(recovered, out)
    except (LabError, OSError) as error:
        # Hours of training are not to be lost for a full disk.
        handle, name = tempfile.mkstemp(prefix="pgo-lab-rescued-", suffix=".profraw")
        with os.fdopen(handle, "wb") as file:
            file.write(b"".join(raw for raw, _ in profiles))
        why = error.why if isinstance(error, LabError) else str(error.strerror)
        do = f"what was counted is in {name}: pgo-lab rescue --profraw {name} -o ELSEWHERE"
        raise LabError(str(out), why, do) from error
    lost += [what for image in recovered for what in image.lost]
    return Rescued(out, parts, False, tuple(dict.fromkeys(lost)), tuple(notes))


def _notes(run: LiveRun) -> list[str]:
    notes = []
    if run.stop:
        frames = run.stop["frames"]
        where = frames[0]["function"] or frames[0]["module"] if frames else "?"
        whose = "for a reason of its own"
        if where.startswith(_RUNTIME):
            whose = "in its profile runtime, which could not be kept from it"
        notes.append(f"it crashed {whose}: {run.stop['signal']} in {where}")
    elif run.why == "limit":
        notes.append("its time was over: the profile is of what it had done")
    elif run.why in ("end", "now"):
        notes.append("the profile is of what it had done when it was asked for")
    elif run.code:
        notes.append(f"it ended with exit code {run.code} ({run.ending})".replace(" ()", ""))
    if run.executed:
        notes.append("it became another program (exec): the profile is of that alone")
    return notes


def _merged(written: Sequence[Path], out: Path) -> Rescued | None:
    """Merge raw profiles that are healthy, by an llvm-profdata of their raw version, if any."""
    raws = [profraw.read(path) for path in written]
    owners = llvm_profdata.owners(raws[0].raw_version)
    if not owners or not all(raw.valid for raw in raws):
        return None
    if not llvm_profdata.merge(llvm_profdata.tool(owners[0]), written, out).ok:
        return None
    profile = raws[0].profiles[0].header
    versions = layout.sizes(profile.bits)[profile.record_size]
    number = sum(raw.functions for raw in raws)
    major = None if out.suffix == ".proftext" else int(owners[0].major)
    part = RescuedPart(profile.record_size, versions, number, out, major)
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
    header = profile.header
    names = b"".join(image.contents("names", data))
    distance = image.places["counters"][0][0] - image.places["data"][0][0]
    same = header.signed(header.fields["CountersDelta"]) == distance
    if not same or header.fields["NamesSize"] != len(names):
        raise LabError(str(binary), "it is not what wrote that profile", "give that very build")
    own = {
        "data": (0, image.contents("data", data)[0]),
        "names": (0, names),
        "counters": (distance, bytes(header.part("counters"))),
        "bitmaps": (header.fields.get("BitmapDelta", 0), bytes(header.part("bitmaps"))),
    }
    version = header.fields["Version"]
    return profdata.parse(profdata.raw(header.layout, version, header.bits, header.order, own))
