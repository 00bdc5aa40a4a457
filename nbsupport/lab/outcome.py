"""What came of a trial: the closed set of outcomes, and the rules that tell them apart."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from nbsupport.base import process
from nbsupport.base.errors import first_line
from nbsupport.crash.crash import Crash
from nbsupport.lab import counts

Kind = Literal[
    "ok",
    "crash",
    "version-mismatch",
    "no-profile",
    "malformed",
    "wrong-counts",
    "failed",
    "limit",
    "build-failed",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: What the profile runtime prints when the version symbol is another's.
#: Source: __llvm_profile_write_file (InstrProfilingFile.c), which then exits with 0 and no profile.
_MISMATCH = "Runtime and instrumentation version mismatch"


@dataclass(frozen=True)
class ProfileState:
    """The raw profile that a trial left: whether it merges, its size, its number of functions."""

    valid: bool = False
    bytes: int = 0
    functions: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of a trial. `detail` says in a sentence why it is of that kind.

    `crash` is there when a signal ended the program; `seconds` is the run's wall time.
    """

    kind: Kind
    detail: str
    exit_code: int | None = None
    signal: str | None = None
    crash: Crash | None = None
    profile: ProfileState = field(default_factory=ProfileState)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the document of `pgo-lab trial --json`."""
        dead = self.crash or Crash(self.signal or "")
        address = dead.fault_address
        return {
            "outcome": self.kind,
            "detail": self.detail,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "frames": [vars(frame) for frame in dead.frames],
            "instruction": dead.instruction,
            "fault_address": None if address is None else f"{address:#x}",
            "fault_address_from": dead.fault_address_from,
            "debugger": dead.debugger,
            "profile": vars(self.profile),
            "seconds": round(self.seconds, 4),
        }

    def to_row(self) -> dict[str, Any]:
        """Return the outcome as columns of a table; `frames` innermost first."""
        row = self.to_json()
        frames = row.pop("frames")
        profile = row.pop("profile")
        row["function"] = frames[0]["function"] if frames else None
        row["frames"] = " < ".join(frame["function"] or frame["module"] for frame in frames)
        return {**row, **{f"profile_{key}": value for key, value in profile.items()}}


def classify(
    done: process.Finished,
    size: int,
    merged: process.Finished | None,
    counted: counts.Counts,
    wrong: str | None,
) -> tuple[Kind, str]:
    """Say of which kind an ended run is, and why.

    `size` is that of the raw profile in bytes, `merged` how llvm-profdata took it (None:
    not asked), `counted` what it found, `wrong` what is wrong with that.
    """
    if done.limit:
        return "limit", f"stopped at the {done.limit} limit"
    if done.signal is not None:
        return "crash", f"ended by {done.signal_name}"
    if done.exit_code:
        return "failed", f"exit code {done.exit_code}: {first_line(done.stderr)}"
    if _MISMATCH in done.stderr:
        return "version-mismatch", first_line(done.stderr)
    if not size:
        return "no-profile", "no profile file, or an empty one"
    if merged is None or not merged.ok:
        return "malformed", first_line(merged.stderr if merged else "not read")
    if not counted:
        return "no-profile", "a profile without a function"
    if wrong:
        return "wrong-counts", wrong
    return "ok", "the profile merges, and every function has the counts of a uniform build"
