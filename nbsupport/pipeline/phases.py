"""A PGO build from check to proof: seven phases, each of which keeps what it has made whole.

What cargo built is cargo's to use again. A training is kept with the digest of the program that it
ran, so that the next call goes on behind it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nbsupport.base import files, process, progress, settings
from nbsupport.base.errors import LabError, first_line
from nbsupport.pipeline import cargo, training
from nbsupport.pipeline.cargo import CargoBuild
from nbsupport.pipeline.plan import BuildPlan, make_plan
from nbsupport.pipeline.training import Trained

#: What a build is called, from the best to the worst but for `untrained`, which is not finished.
State = Literal["whole", "not-whole", "mixed", "untrained"]
CPart = Literal["left out", "in", "none"]

_PHASES = ("check", "build instrumented", "audit", "train", "merge", "build optimized", "proof")
_STATE = "state.json"
_HOW = (
    "run {program} as its users do, to its end (its profiles come into {raw}), "
    "and call this again; or call it with --train '{{}} ARGUMENTS'"
)


@dataclass(frozen=True)
class PgoBuild:
    """What a build came to: `why` says it in a line, `advice` what to do where it is not whole.

    `instrumented` and `program` (optimized) are paths, "" where there is none; `functions` is how
    many the `profile` has; `c` says whether the C code is in it. `rescued` says what crashed in the
    training, `lost` what of it is not in the profile.
    """

    state: State
    why: str
    instrumented: str = ""
    program: str = ""
    profile: str = ""
    functions: int = 0
    c: CPart = "none"
    rescued: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    set_for_child: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    advice: str = ""

    @property
    def exit_code(self) -> int:
        """0 where the program is built by a whole profile."""
        return int(self.state != "whole")

    def to_json(self) -> dict[str, Any]:
        """Return the document of `pgo-lab build --json`."""
        return {**dataclasses.asdict(self), "set_for_child": dict(self.set_for_child)}

    def lines(self) -> list[str]:
        """Return what `pgo-lab build` says at its end: the path of the program is the last line."""
        lines = [f"{self.state}: {self.why}"]
        lines += [f"rescued: {line}" for line in self.rescued]
        lines += [f"lost: {line}" for line in self.lost]
        lines += [f"note: {line}" for line in self.notes]
        lines += f"do: {self.advice}".splitlines() if self.advice else []  # one may be to paste
        return lines + ([self.program] if self.program else [])


def build(
    folder: Path,
    out: Path | None = None,
    arguments: Sequence[str] = (),
    *,
    train: str = "",
    instrument_c: bool = False,
) -> PgoBuild:
    """Build the cargo project in a folder for PGO, train it, build it by its profile.

    `out` is the folder to work in (None: `target/pgo`), `arguments` are cargo's. `train` is a
    command, of which {} is the program; without it the build ends before the training, unless there
    are profiles of one. `instrument_c` keeps the C code in the profile. Raises `LabError` for what
    cannot be done; an interrupt ends all that runs.
    """
    folder = folder.absolute()
    above = (place for place in (folder, *folder.parents) if (place / "Cargo.lock").is_file())
    out = (out or next(above, folder) / "target" / "pgo").absolute()
    _say("check")
    plan = make_plan(folder, out, arguments, instrument_c=instrument_c)
    progress.say(f"as it is, {plan.forecast.verdict}: {plan.forecast.why}")
    if plan.forecast.verdict == "unknown":
        progress.say("the audit of what is built decides")
    for name, value in plan.set_for_child.items():
        progress.say(f"set for cargo alone: {name}={value}")
    _open(out)
    _say("build instrumented")
    instrumented = cargo.build(plan, "instrumented", f"-Cprofile-generate={plan.raw}")
    _say("audit")
    result, bad = _audited(plan, instrumented)
    if bad:
        return result
    trained = _trained(plan, instrumented.program, train)
    if trained is None:
        advice = _HOW.format(program=instrumented.program, raw=plan.raw)
        why = "built, and fit for a training"
        return dataclasses.replace(result, state="untrained", why=why, advice=advice)
    if refusal := _refused(plan):
        do = f"merge by another llvm-profdata than {plan.profdata}: rustup component add llvm-tools"
        raise LabError(f"rustc does not read {plan.profile}", refusal, do)
    _say("build optimized")
    flag, digest = f"-Cprofile-use={plan.profile}", files.sha256(plan.profile)
    optimized = cargo.build(plan, "optimized", flag, digest, like="instrumented")
    _say("proof")
    return _proven(result, plan, trained, optimized)


def _say(phase: str, more: str = "") -> None:
    progress.say(f"{_PHASES.index(phase) + 1} of {len(_PHASES)}: {phase}{more}")


def _open(out: Path) -> None:
    """Make the folder to work in; raises `LabError` for one that is not ours."""
    if not (out / _STATE).is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            why = "it holds something else than an earlier call of this"
            raise LabError(f"-o {out}", why, "choose another folder")
        files.write(out / _STATE, "{}")


def _audited(plan: BuildPlan, built: CargoBuild) -> tuple[PgoBuild, bool]:
    """Audit what was built, and return what is known by then; True: it must not be trained."""
    from nbsupport.audit import judge  # noqa: PLC0415 - NumPy and LIEF, while cargo does not run
    from nbsupport.toolchains import discovery  # noqa: PLC0415

    paths = [built.program, *([built.objects] if built.objects.is_dir() else [])]
    report = judge.audit(paths, learn=discovery.discover)
    objects = [file for file in report.files if not file.linked]
    c: CPart = "none"
    if objects:
        c = "in" if any(file.raw_versions for file in objects) else "left out"
    result = PgoBuild(
        "not-whole",
        report.judgement.why,
        str(built.program),
        c=c,
        set_for_child=plan.set_for_child,
        notes=() if report.verdict == "consistent" else (f"audit: {report.judgement.why}",),
        advice=report.judgement.advice,
    )
    if report.verdict == "mixed":
        foreign = ", ".join(map(str, report.origins))
        why = "; ".join(filter(None, (result.why, foreign and f"foreign: {foreign}")))
        why += "; nothing is trained"
        return dataclasses.replace(result, state="mixed", why=why, notes=()), True
    if report.verdict == "not-instrumented":
        do = "see whether a build script, or a wrapper of rustc, takes CARGO_ENCODED_RUSTFLAGS away"
        raise LabError(str(built.program), "it is not instrumented", do)
    return result, False


def _trained(plan: BuildPlan, program: Path, command: str) -> Trained | None:
    """Return the training of this very program: a former one, a new one, or one by hand."""
    note = files.read_json(plan.out / _STATE)
    identity = files.digest(program)
    if note.get("program") != identity:  # profiles of another program
        shutil.rmtree(plan.raw, ignore_errors=True)
        plan.profile.unlink(missing_ok=True)
        note = {"program": identity}
    former = note.pop("trained", None)
    if former and plan.profile.is_file() and command in ("", former["command"]):
        progress.say(f"trained before (rm {plan.profile}: trains anew)")
        return files.load(Trained, former["result"], _STATE)
    files.write(plan.out / _STATE, json.dumps(note))
    if command:
        _say("train")
        trained = training.train(command, program, plan.raw, plan.profile, plan.profdata)
        note["trained"] = {"command": command, "result": dataclasses.asdict(trained)}
        files.write(plan.out / _STATE, json.dumps(note))
    elif plan.raw.is_dir() and any(plan.raw.iterdir()):
        trained = training.merge(plan.raw, plan.profile, plan.profdata)
    else:
        return None
    _say("merge", f": {trained.functions} functions")
    return trained


def _refused(plan: BuildPlan) -> str:
    """Return why rustc does not take the profile ("": it does): of a wrong one it only warns.

    Source: IndexedInstrProfReader::readHeader knows profiles of its own LLVM and older ones.
    """
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        source = Path(name, "probe.rs")
        source.write_text("pub fn probe() {}\n")
        flags = ("--crate-type=lib", "--emit=obj", f"-Cprofile-use={plan.profile}")
        command = (plan.rustc.compiler, *flags, "-o", Path(name, "probe.o"), source)
        done = process.run(command, cwd=Path(name), limits=settings.COMPILER)
    return first_line(done.stderr) if done.stderr.strip() else ""


def _proven(result: PgoBuild, plan: BuildPlan, trained: Trained, built: CargoBuild) -> PgoBuild:
    """Say whether the program is built by a whole profile, and what is in that."""
    parts = {"left out": ", C left out", "in": ", with C", "none": ""}
    why = f"{trained.functions} functions{parts[result.c]}"
    whole = not (trained.lost or result.notes)
    return dataclasses.replace(
        result,
        state="whole" if whole else "not-whole",
        why=why,
        program=str(built.program),
        profile=str(plan.profile),
        functions=trained.functions,
        rescued=trained.rescued,
        lost=trained.lost,
        advice="",
    )
