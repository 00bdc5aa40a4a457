"""What happens to a link of instrumented objects: predicted from layouts and versions alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from nbsupport.profile import layout

How = Literal["ir", "front-end"]
#: What can be predicted: of the kinds of `nbsupport.lab.outcome`, those that a layout decides.
Predicted = Literal["ok", "crash", "version-mismatch", "no-profile", "malformed", "wrong-counts"]
#: Whether a value site of an object runs before the profile is written (`hot`), or is only
#: there (`cold`); None: not known, nor whether there is one.
Sites = Literal["hot", "cold"]

#: Variants that say how wide counters are, or what else stands among them.
_COUNTING = {"byte-coverage", "temporal"}
#: Variants that only the compiler that uses a profile asks for: what is counted where.
_PLACING = {"entry-first", "entry-only", "loop-entries", "context-sensitive"}


@dataclass(frozen=True)
class LinkPiece:
    """What objects of one make add to a link.

    `raw_version` is that of their records, `how` they were instrumented: by clang's front end,
    or in LLVM's own representation (`ir`; -fprofile-generate, rustc). `variants` are those of
    their version symbol (`layout.VARIANTS`; front end: none), `bitmaps` says that records have
    MC/DC bitmaps.

    >>> str(LinkPiece(8, "front-end"))
    'front-end raw version 8 (LLVM 14 to 17)'
    """

    raw_version: int
    how: How = "ir"
    variants: tuple[str, ...] = ()
    bitmaps: bool = False

    @property
    def has_symbol(self) -> bool:
        """Whether it has a version symbol (of the front end, byte coverage alone)."""
        return self.how == "ir" or bool(self.variants)

    def __str__(self) -> str:
        extra = "".join(f", {name}" for name in self.variants if name != "ir")
        what = "" if self.how == "ir" else "front-end "
        return f"{what}raw version {self.raw_version} ({layout.llvm_of(self.raw_version)}){extra}"


@dataclass(frozen=True)
class Fate:
    """What will happen and why.

    Each of `outcomes` may happen; `loss` says what is wrong although the outcome is ok.
    """

    outcomes: frozenset[Predicted]
    why: str
    loss: str = ""

    @property
    def fine(self) -> bool:
        """Whether nothing is lost."""
        return self.outcomes <= {"ok", "no-profile"} and not self.loss


def alike(first: int, second: int) -> bool:
    """Return whether a runtime of one raw version counts well in records of the other.

    Up to version 7 CounterPtr was absolute: the stride alone does not tell.

    >>> alike(9, 10), alike(7, 8), alike(8, 9), alike(12, 12), alike(11, 12)
    (True, False, False, True, False)
    """
    layouts = [layout.LAYOUTS[version] for version in (first, second) if version in layout.LAYOUTS]
    relative = {own.relative for own in layouts}
    return first == second or (len(relative) == 1 and layout.same_stride(first, second))


def disagree(first: Iterable[str], second: Iterable[str]) -> bool:
    """Return whether counters of these variants are not read as those.

    >>> disagree(("ir",), ("ir", "temporal")), disagree(("ir",), ("ir", "memory-profile"))
    (True, False)
    """
    return bool((set(first) ^ set(second)) & (_COUNTING | _PLACING))


def predict(runtime: int, pieces: Sequence[LinkPiece], sites: Sites | None = None) -> Fate:
    """Predict what a program does, from the raw version of its `runtime`, and its `pieces`.

    These are what its objects are of, in the order of the link; `sites` says whether a value site
    of a foreign one runs (see `Sites`).

    The runtime walks all records with its own stride: with two layouts it takes something else
    for a pointer, or, without value sites, for a size. It compares versions only once, as it
    starts to write, and only in the version symbol that the linker kept: with GNU's and LLVM's
    the first instrumented object's; we have not tested Apple's linker. (Front-end
    instrumentation has none; then it is the runtime's own.)
    A value site that runs before that may crash first.
    Source: __llvm_profile_write_file (InstrProfilingFile.c), createIRLevelProfileFlagVar
    (PGOInstrumentation.cpp), INSTR_PROF_RAW_VERSION_VAR (InstrProfilingVersionVar.c).

    >>> sorted(predict(10, [LinkPiece(10), LinkPiece(8)]).outcomes)
    ['crash', 'malformed']
    >>> predict(10, [LinkPiece(8), LinkPiece(10)], "cold").outcomes
    frozenset({'version-mismatch'})
    >>> predict(10, [LinkPiece(10), LinkPiece(9)]).fine, predict(10, []).why
    (True, 'nothing is instrumented')
    """
    if not pieces:
        return Fate(frozenset({"no-profile"}), "nothing is instrumented")
    first = next((piece for piece in pieces if piece.has_symbol), None)
    foreign = [piece for piece in pieces if not alike(piece.raw_version, runtime)]
    mine = f"raw version {runtime} ({layout.llvm_of(runtime)})"
    if first and first.raw_version != runtime:
        why = f"the runtime is of {mine}, the version symbol of {first}: it writes no profile"
        if not foreign or sites == "cold":
            return Fate(frozenset({"version-mismatch"}), why)
        crash = f"{why}, if no value site of other layout crashes it before"
        return Fate(frozenset({"crash", "version-mismatch"}), crash)
    if foreign:
        if strange := {runtime, *(p.raw_version for p in foreign)} - layout.LAYOUTS.keys():
            why = f"the runtime of {mine} walks records of {foreign[0]}; how raw version"
            outcomes: set[Predicted] = {"ok", "crash", "malformed", "wrong-counts"}
            return Fate(frozenset(outcomes), f"{why} {max(strange)} lays them out is not known")
        why = f"the runtime of {mine} walks records of {foreign[0]} with its own stride"
        certain = sites and any(piece.how == "ir" for piece in foreign)
        return Fate(frozenset({"crash"} if certain else {"crash", "malformed"}), why)
    return (
        _variants(pieces, first)
        or _bitmaps(runtime, pieces)
        or Fate(frozenset({"ok"}), f"all records are laid out as the runtime of {mine} expects")
    )


def _variants(pieces: Sequence[LinkPiece], first: LinkPiece | None) -> Fate | None:
    """Predict what mixed variants do: the first object's go into the profile's header.

    Measured with LLVM 17, 18, 19, 22 and 23, both orders. Source: getDataVersion,
    RawInstrProfReader::readRawCounts (InstrProfReader.cpp).
    """
    if first is None:
        return None
    rule = f"the profile says what the first object is, {first}"
    unlike = [(p, set(p.variants) ^ set(first.variants)) for p in pieces if p.has_symbol]
    if counting := [piece for piece, variants in unlike if variants & _COUNTING]:
        why = f"{rule}; the counters of {counting[0]} are read as if they were so, too"
        # One byte for each counter, read as eight, may reach beyond the counters' end.
        short = any("byte-coverage" in piece.variants for piece in counting)
        return Fate(frozenset({"malformed", "wrong-counts"} if short else {"wrong-counts"}), why)
    if placing := [piece for piece, variants in unlike if variants & _PLACING]:
        why = f"{rule}; counts of {placing[0]} are right"
        return Fate(frozenset({"ok"}), why, "-fprofile-use misreads those counts, or ignores them")
    return None


def _bitmaps(runtime: int, pieces: Sequence[LinkPiece]) -> Fate | None:
    """Predict what happens to MC/DC bitmaps: NumBitmapBytes moved from version 9 to 10."""
    for piece in pieces:
        if piece.bitmaps and piece.raw_version != runtime:
            why = f"counts of {piece} are right; raw version {runtime} has NumBitmapBytes elsewhere"
            return Fate(frozenset({"ok"}), why, "its MC/DC bitmaps vanish without a word")
    return None
