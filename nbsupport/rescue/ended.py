"""A profile out of a run: what it has written itself, or the copies of its memory."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

from nbsupport.base.errors import LabError
from nbsupport.profile import profraw
from nbsupport.rescue import live, malformed, profdata
from nbsupport.rescue.rescued import VALUES, Rescued

#: How the names of the runtime's functions begin that walk records.
_RUNTIME = ("__llvm_profile", "lprof", "writeOneValueProf", "initializeValueProf")


def save(ran: live.Ran, own: Path, out: Path) -> Rescued:
    """Write the profile of a run as far as it has come."""
    notes, lost = _notes(ran), list[str]()
    if ran.why == "exit" and [one.healthy for one in ran.seen.values()] == [True]:
        written = [path for path in sorted(own.glob("*.profraw")) if path.stat().st_size]
        version = profraw.read(written[0]).raw_version if written else None
        done = malformed.own(written, version, out) if written else None
        if done:
            return dataclasses.replace(done, notes=(*done.notes, *notes))
    if ran.forked:
        lost.append("what its forked children counted")
    if not ran.images:
        do = "give a time limit shorter than its run (--seconds), or link it dynamically"
        raise LabError(str(out), f"it ended before its memory was read ({ran.ended})", do)
    copies = [live.profile(ran.seen[path], image) for path, image in ran.images.items()]
    recovered = [profdata.recover(profdata.parse(raw), nodes) for raw, nodes in copies]
    if not all(nodes for _, nodes in copies):
        lost.insert(0, VALUES)
    try:
        made = profdata.write(recovered, out)
    except (LabError, OSError) as error:
        # Hours of training are not to be lost for a full disk.
        handle, name = tempfile.mkstemp(prefix="pgo-lab-rescued-", suffix=".profraw")
        with os.fdopen(handle, "wb") as file:
            file.write(b"".join(raw for raw, _ in copies))
        why = error.why if isinstance(error, LabError) else str(error.strerror)
        do = f"what was counted is in {name}: pgo-lab rescue --profraw {name} -o ELSEWHERE"
        raise LabError(str(out), why, do) from error
    lost += [what for one in recovered for what in one.lost]
    return Rescued(out, made, False, tuple(dict.fromkeys(lost)), tuple(notes))


def _notes(ran: live.Ran) -> list[str]:
    notes = []
    if ran.stop:
        frames = ran.stop["frames"]
        where = frames[0]["function"] or frames[0]["module"] if frames else "?"
        whose = "for a reason of its own"
        if where.startswith(_RUNTIME):
            whose = "in its profile runtime, which could not be kept from it"
        notes.append(f"it crashed {whose}: {ran.stop['signal']} in {where}")
    elif ran.why == "limit":
        notes.append("its time was over: the profile is of what it had done")
    elif ran.why in ("end", "now"):
        notes.append("the profile is of what it had done when it was asked for")
    elif ran.code:
        notes.append(f"it ended with exit code {ran.code} ({ran.ended})".replace(" ()", ""))
    if ran.executed:
        notes.append("it became another program (exec): the profile is of that alone")
    return notes
