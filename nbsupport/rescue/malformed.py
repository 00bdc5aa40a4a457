"""A profile out of raw profiles: malformed ones, and what a crash has left of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nbsupport.audit import images
from nbsupport.base.errors import LabError, first_line, from_os
from nbsupport.profile import layout, profraw
from nbsupport.profile.profraw import Profile
from nbsupport.rescue import profdata
from nbsupport.rescue.rescued import VALUES, Rescued, RescuedPart
from nbsupport.toolchains import profdata as llvm_profdata


def rescue(path: Path, out: Path, binary: Path | None) -> Rescued:
    """Write what is in a raw profile to `out`; see `nbsupport.rescue.rescue.from_profraw`."""
    found = profraw.read(path)
    if not found.profiles:
        do = "run the program under it: pgo-lab rescue -o OUT -- PROGRAM ARGS"
        raise LabError(str(path), found.problems[0].what, do)
    profiles = [_whole(one, binary) if binary else one for one in found.profiles]
    if found.valid:
        made = own([path], found.raw_version, out)
        if made:
            return made
    recovered = [profdata.recover(one) for one in profiles]
    written = profdata.write(recovered, out)
    short = sum(len(one.records.sound) - int(one.records.sound.sum()) for one in profiles)
    lost = [what for one in recovered for what in one.lost]
    lost += [f"{short} functions whose counters are not in the file"] * bool(short)
    notes = [f"it was malformed: {found.problems[0].what}"] if found.problems else []
    return Rescued(out, written, False, (VALUES, *lost), tuple(notes))


def own(written: Sequence[Path], version: int | None, out: Path) -> Rescued | None:
    """Merge raw profiles that are healthy, by an llvm-profdata of their raw version, if any."""
    owners = llvm_profdata.owners(version)
    raws = [profraw.read(path) for path in written]
    if version is None or not owners or not all(raw.valid for raw in raws):
        return None
    if not llvm_profdata.merge(llvm_profdata.tool(owners[0]), written, out).ok:
        return None
    profile = raws[0].profiles[0].header
    size = profile.record_size
    versions = layout.sizes(profile.bits)[size]
    number = sum(raw.functions for raw in raws)
    major = None if out.suffix == ".proftext" else int(owners[0].major)
    part = RescuedPart(size, versions, number, out, major)
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
    same = found.signed(found.fields["CountersDelta"]) == distances["counters"]
    if not same or found.fields["NamesSize"] != len(own["names"]):
        raise LabError(str(binary), "it is not what wrote that profile", "give that very build")
    distances["bitmaps"] = found.fields.get("BitmapDelta", 0)
    version = found.fields["Version"]
    return profdata.parse(
        profdata.raw(found.layout, version, found.bits, found.order, own, distances)
    )
