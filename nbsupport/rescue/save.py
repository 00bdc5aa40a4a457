"""What a rescue writes: the profile out of a run's memory, or out of a malformed file."""

import dataclasses
import os
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from nbsupport.audit import images
from nbsupport.base import progress
from nbsupport.base.errors import LabError, first_line, from_os
from nbsupport.profile import holes, infer, layout, profraw
from nbsupport.profile import names as naming
from nbsupport.profile.header import Header
from nbsupport.profile.holes import Anchors
from nbsupport.profile.profraw import Profile, RawProfile
from nbsupport.rescue import live, profdata
from nbsupport.rescue.children import ChildRun, FamilyRun
from nbsupport.rescue.live import LiveRun
from nbsupport.rescue.profdata import Recovered
from nbsupport.rescue.rescued import Rescued, RescuedPart, RescuedProcess
from nbsupport.rescue.value_sites import Nodes
from nbsupport.toolchains import profdata as llvm_profdata

#: What begins the traces of a temporal profile, which stand where functions do.
#: Source: InstrProfWriter::writeTextTemporalProfTraceData (InstrProfWriter.cpp).
_TRACES = b":temporal_prof_traces"
_MOST = 64  # profiles that are kept apart
#: Functions with a count that cannot be, which are named.
_SHOWN = 10
_RUN = "pgo-lab rescue -o OUT -- PROGRAM ARGS"
_MOVED = "bytes are missing before them, or too many"
#: How the names of the runtime's functions begin that walk records.
_RUNTIME = ("__llvm_profile", "lprof", "writeOneValueProf", "initializeValueProf")


def save_file(path: Path, out: Path, binary: Path | None, without: Collection[str]) -> Rescued:
    """Write what is in a raw profile to `out`; see `nbsupport.rescue.rescue.from_profraw`."""
    file = profraw.read(path, most=sys.maxsize)
    if not file.profiles:
        raise LabError(str(path), file.problems[0].what, f"run the program under it: {_RUN}")
    profiles = [_whole(profile, binary) if binary else profile for profile in file.profiles]
    if file.valid and not without and (rescued := _merged([path], out)):
        return rescued
    names = {name.decode("latin-1") for p in profiles for name in p.functions.names}
    if unknown := ", ".join(sorted(set(without) - names)):
        do = "give a name as pgo-lab profraw --csv prints it"
        raise LabError(str(path), f"no function {unknown} in it", do)
    recovered = [profdata.recover(profile, without=without) for profile in profiles]
    if not any(image.texts for image in recovered):
        raise _nothing(path, file, binary)
    parts = profdata.write(recovered, out)
    lost = list(dict.fromkeys(what for image in recovered for what in image.lost))
    tables = [profile.records for profile in profiles]
    if short := sum(int((table.outside & ~table.moved).sum()) for table in tables):
        lost.append(f"{short} functions whose counters are not in the file")
    if moved := sum(int(table.moved.sum()) for table in tables):
        functions = "1 function" if moved == 1 else f"{moved} functions"
        lost.append(f"{functions} whose counts are not certain: {_MOVED}")
    notes = [f"it was malformed: {file.problems[0].what}"] if file.problems else []
    notes += [f"left out, as you asked: {name}" for name in without]
    large = (p.records.column("NameRef")[p.records.large] for p in profiles)
    named = (p.names.resolve(refs[:_SHOWN]) for p, refs in zip(profiles, large, strict=True))
    for name in (name.decode("latin-1") for group in named for name in group):
        if name not in without:
            notes.append(f"{name} has a count that cannot be: --without '{name}' leaves it out")
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
    parts = _write(recovered, [raw for raw, _ in profiles], out)
    lost += [what for image in recovered for what in image.lost]
    return Rescued(out, parts, False, tuple(dict.fromkeys(lost)), tuple(notes))


def save_family(family: FamilyRun, out: Path) -> Rescued:
    """Write the profile of all programs that a command has run, as far as they have come.

    What a healthy one has written itself is taken; of the others there are copies of memory.
    """
    own, recovered = list[ChildRun](), list[Recovered]()
    lost, processes = list[str](), list[RescuedProcess]()

    def take(run: ChildRun) -> None:
        if len(recovered) > _MOST:
            recovered[:] = _summed(recovered)
        for raw, nodes in _copied(run):
            recovered.append(profdata.recover(profdata.parse(raw), nodes))
            lost.extend(recovered[-1].lost)

    for run in progress.over(family.runs, "reading the profiles of its processes"):
        source = "memory" if any(image.copies for image in run.images.values()) else "none"
        if run.own and profraw.read(run.own).valid:
            own.append(run)
            source = "own"
        else:
            take(run)
        processes.append(RescuedProcess(run.pid, str(run.program), run.ending, source))
    if unread := sum(process.profile == "none" for process in processes):
        lost.append(f"processes that ended before their memory was read: {unread}")
    lost += [f"what {path} counted until it became another program" for path in family.became]
    if family.unfollowed:
        lost.append(
            f"processes that could not be followed, as those of 32 bits: {family.unfollowed}"
        )
    if not own and not recovered:
        do = "give a time limit shorter than its run (--seconds)"
        raise LabError(str(out), "all processes ended before their memory was read", do)
    written = [run.own for run in own if run.own]
    rescued = None if recovered else _merged(written, out)
    if rescued is None:
        raws = (raw for run in family.runs for raw, _ in _copied(run))
        for runs, texts in _own_texts(own):
            recovered += texts
            for run in () if texts else runs:
                take(run)
        rescued = _joined(recovered, raws, out)
    notes = (*rescued.notes, *_family_notes(family))
    lines, rows = tuple(dict.fromkeys(lost)), tuple(processes)
    healthy = rescued.healthy and not lines
    return dataclasses.replace(rescued, healthy=healthy, lost=lines, notes=notes, processes=rows)


def _copied(run: ChildRun) -> list[tuple[bytes, Nodes | None]]:
    """Return a program's copies as raw profiles, and the value nodes of each."""
    return [live.profile(image) for image in run.images.values() if image.copies]


def _own_texts(own: Sequence[ChildRun]) -> Iterator[tuple[Sequence[ChildRun], list[Recovered]]]:
    """Yield what programs have written themselves, by the llvm-profdata of each raw version.

    Where there is none, or it does not take them, their copies have to do: there is no text then.
    """
    groups: dict[tuple[int | None, tuple[str, ...], int], list[ChildRun]] = {}
    for run in own:
        assert run.own
        head = profraw.read(run.own).profiles[0].header
        groups.setdefault((head.layout.raw_version, head.variants, head.record_size), []).append(
            run
        )
    for (version, variants, size), runs in groups.items():
        owners = llvm_profdata.owners(version)
        paths = [run.own for run in runs if run.own]
        texts = _text(llvm_profdata.tool(owners[0]), paths) if owners else []
        yield runs, [Recovered(variants, {size: texts}, ())] if texts else []


def _joined(recovered: Sequence[Recovered], raws: Iterable[bytes], out: Path) -> Rescued:
    """Write the profile of several programs; functions of two layouts may be the same."""
    images = _summed(recovered)
    parts = _write(images, raws, out)
    blocks = (text for image in images for texts in image.texts.values() for text in texts)
    distinct = len({tuple(text.split(b"\n", 2)[:2]) for text in blocks})
    owners = llvm_profdata.owners()
    if owners and out.suffix == ".proftext" and distinct < sum(part.functions for part in parts):
        llvm_profdata.merge(llvm_profdata.tool(owners[0]), [out], out)  # each is there once, then
    return Rescued(out, parts, False, (), (), distinct=distinct)


def _summed(recovered: Sequence[Recovered]) -> list[Recovered]:
    """Return each function once, where several processes have counted it.

    Without an llvm-profdata they are left as they are; each llvm-profdata adds them up.
    """
    groups: dict[tuple[tuple[str, ...], int], list[bytes]] = {}
    for image in recovered:
        for size, texts in image.texts.items():
            content = b"".join([image.header, *texts])
            groups.setdefault((image.variants, size), []).append(content)
    owners = llvm_profdata.owners()
    if len(recovered) < 2 or not owners:
        return list(recovered)
    images = []
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        for (variants, size), contents in groups.items():
            paths = [Path(name, f"{n}.proftext") for n in range(len(contents))]
            for path, content in zip(paths, contents, strict=True):
                path.write_bytes(content)
            texts = _text(owners[0].llvm_profdata, paths) or contents
            images.append(Recovered(variants, {size: texts}, ()))
    return images


def _text(tool: Path | None, paths: Sequence[Path]) -> list[bytes]:
    """Merge profiles by an llvm-profdata, and return the text of each function; [] if it fails."""
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        out = Path(name, "merged.proftext")
        if tool is None or not llvm_profdata.merge(tool, paths, out).ok:
            return []
        blocks = re.sub(rb"(?m)^#.*\n", b"", out.read_bytes()).split(b"\n\n")
    texts = [re.sub(rb"(?m)\A(:.*\n)+", b"", block) for block in blocks if _TRACES not in block]
    return [text.strip(b"\n") + b"\n\n" for text in texts if text.strip()]


def _write(
    recovered: Sequence[Recovered], raws: Iterable[bytes], out: Path
) -> tuple[RescuedPart, ...]:
    """Write the profile; where that fails, keep the raw profiles: hours of training are in them."""
    try:
        return profdata.write(recovered, out)
    except (LabError, OSError) as error:
        handle, name = tempfile.mkstemp(prefix="pgo-lab-rescued-", suffix=".profraw")
        with os.fdopen(handle, "wb") as file:
            file.writelines(raws)
        why = error.why if isinstance(error, LabError) else str(error.strerror)
        do = f"what was counted is in {name}: pgo-lab rescue --profraw {name} -o ELSEWHERE"
        raise LabError(str(out), why, do) from error


def _family_notes(family: FamilyRun) -> list[str]:
    notes = list[str]()
    alone = len(family.runs) == 1
    for run in family.runs:
        if run.crash:
            whose = "for a reason of its own"
            if run.crash[1].startswith(_RUNTIME):
                whose = "in its profile runtime, which could not be kept from it"
            name = "it" if alone else run.program.name
            notes.append(f"{name} crashed {whose}: {run.crash[0]} in {run.crash[1] or '?'}")
    if family.why == "limit":
        notes.append("its time was over: the profile is of what it had done")
    elif family.why in ("end", "now"):
        notes.append("the profile is of what it had done when it was asked for")
    elif family.code and not (alone and notes):
        code = f"exit code {family.code}" if family.code > 0 else signal.Signals(-family.code).name
        notes.append(f"it ended with {code}")
    if family.outlived:
        notes.append(f"processes that outlived the command, and were ended: {family.outlived}")
    times = Counter(notes)
    return [note if n == 1 else f"{note} ({n} times)" for note, n in times.items()]


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
    number = raws[0].functions
    if len(raws) > 1:
        number = len({row[:2] for raw in raws for row in raw.rows()})
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
    header, names = profile.header, b"".join(image.contents("names", data))
    distance = image.places["counters"][0][0] - image.places["data"][0][0]
    same = header.signed(header.fields["CountersDelta"]) == distance
    if not same or header.fields["NamesSize"] != len(names):
        why = "it is not what wrote that profile, or the profile's header is damaged"
        raise LabError(str(binary), why, f"give that very build, or run it again: {_RUN}")
    records = image.contents("data", data)[0]
    hole = holes.find(header, profile.names, _anchors(header, records, names))
    whole = holes.filled(header, hole) if hole else header
    own = {
        "data": (0, records),
        "names": (0, names),
        "counters": (distance, bytes(whole.part("counters"))),
        "bitmaps": (header.fields.get("BitmapDelta", 0), bytes(whole.part("bitmaps"))),
    }
    version = header.fields["Version"]
    mended = profdata.parse(
        profdata.raw(header.layout, version, header.bits, header.order, own)
    ).header
    new, old = (h.stated["counters"] for h in (mended, whole))
    start, end = (max(new, place - old + new) for place in whole.unknown)
    cut = max(0, whole.size - (len(whole.data) - whole.offset))
    unknown = (start, end) if start < end else (0, 0)
    return Profile(dataclasses.replace(mended, unknown=unknown, size=mended.size + cut))


def _anchors(header: Header, records: bytes, names: bytes) -> Anchors:
    """Return what no run changes of a program's records, with where a whole profile has it."""
    section = infer.Section(records, naming.decode(names), None, header.bits, header.order)
    starts = infer.find(section).offsets
    starts = starts[starts + 24 <= header.stated["counters"] - header.stated["data"]]
    fields = ["NameRef", "FuncHash"]
    if header.bits == 64 and header.layout.relative:  # else it is where the program was loaded
        fields.append("CounterPtr")
    offsets = np.stack([starts + 8 * n for n in range(len(fields))], axis=1).ravel()
    words = np.stack([section.column(field, starts) for field in fields], axis=1).ravel()
    return Anchors(header.stated["data"] + offsets, lambda stored: stored == words, names)


def _nothing(path: Path, file: RawProfile, binary: Path | None) -> LabError:
    """Return what to say of a raw profile of which no function is certain."""
    why, again = "nothing that can be rescued is in the file", f"run it again: {_RUN}"
    ask, do = f"give the program that wrote it (--binary), or {again}", again
    if hole := next((profile.hole for profile in file.profiles if profile.hole), None):
        head = file.profiles[0].header
        why = f"{hole.what(head.stated)}, so no count is certain"
        cut = hole.end > head.stated["counters"] and hole.start < head.stated["names"]
        if not binary and not (cut and hole.shift):  # the counters may be whole
            do = ask
    elif not any(len(profile.header.part("counters")) for profile in file.profiles):
        why = "no counters are in the file"
    elif binary:
        why = "which of its bytes are counters is not certain"
    else:
        do = ask
    return LabError(str(path), why, do)
