"""Who instrumented these files, whether they may be linked together, and what to do."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from nbsupport.audit import blame as blaming
from nbsupport.audit import objects, runtimes
from nbsupport.audit.advice import advise
from nbsupport.audit.blame import Blame, Origin, origins
from nbsupport.audit.evidence import Evidence, PartEvidence, read, read_all
from nbsupport.audit.fate import Fate, LinkPiece, alike, predict
from nbsupport.audit.runtimes import RuntimesWarning
from nbsupport.base.errors import LabError
from nbsupport.profile import layout

#: A set of images is the first of these that one of them is.
Verdict = Literal["mixed", "unknown", "consistent", "not-instrumented"]
#: Makes of objects that are tried as a link's first; there are not so many, but in a hostile file.
_MOST_PIECES = 32
#: Reasons shown of those for which not all was read.
_MOST_WHYS = 3


@dataclass(frozen=True)
class Link:
    """One way to link: with the runtime of which raw version, which piece first; its fate."""

    runtime: int
    first: LinkPiece
    fate: Fate


@dataclass(frozen=True)
class Judgement:
    """What comes of a link: verdict and why, each way to link, who brought foreign records."""

    verdict: Verdict
    why: str
    links: tuple[Link, ...] = ()
    blame: tuple[Blame, ...] = ()
    advice: str = ""

    @property
    def outcomes(self) -> list[str]:
        """Every outcome predicted for some way to link."""
        return sorted({outcome for link in self.links for outcome in link.fate.outcomes})

    def to_json(self) -> dict[str, Any]:
        """Return the part of `pgo-lab audit --json` that judges."""
        links = [
            {
                "runtime_raw_version": link.runtime,
                "first": str(link.first),
                **vars(link.fate),
                "outcomes": sorted(link.fate.outcomes),
            }
            for link in self.links
        ]
        return {
            "verdict": self.verdict,
            "why": self.why,
            "outcomes": self.outcomes,
            "links": links,
            "blame": [file.to_json() for file in self.blame],
            "advice": self.advice,
        }


@dataclass(frozen=True)
class Audited(Evidence):
    """One file, what was found in it, and what comes of that."""

    judgement: Judgement

    def to_json(self) -> dict[str, Any]:
        """Return one of `files` of `pgo-lab audit --json`."""
        first = self.parts[0].binary if self.parts else None
        return {
            "path": str(self.path),
            "format": first.format if first else None,
            "kind": self.container or (first.kind if first else None),
            "raw_versions": sorted(self.raw_versions),
            "variants": sorted({name for part in self.parts for name in part.symbol[1]}),
            "layouts": [{"record_size": size, "records": n} for size, n in self.layouts],
            "runtime_raw_version": next((p.runtime for p in self.parts if p.runtime), None),
            **self.judgement.to_json(),
            "problems": list(self.problems),
        }


@dataclass(frozen=True)
class AuditReport:
    """What an audit came to: `judgement` is that of the worst image, or of all objects' link."""

    judgement: Judgement
    files: tuple[Audited, ...]
    problems: tuple[str, ...]
    warnings: tuple[RuntimesWarning, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The verdict on the set."""
        return self.judgement.verdict

    @property
    def origins(self) -> list[Origin]:
        """The crates or build folders that foreign records came from."""
        return origins(self.judgement.blame)

    @property
    def telling(self) -> tuple[Audited, ...]:
        """The files that decide: bad images, else good ones, else the instrumented objects."""
        files = [file for file in self.files if file.judgement.verdict != "not-instrumented"]
        images = [file for file in files if file.linked]
        bad = [image for image in images if image.judgement.verdict != "consistent"]
        if not bad and self.judgement.verdict == "mixed":
            return tuple(file for file in files if not file.linked)
        return tuple(bad or images or files)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `pgo-lab audit --json`."""
        return {
            **self.judgement.to_json(),
            "origins": [origin.to_json() for origin in self.origins],
            "files": [file.to_json() for file in self.files],
            "problems": list(self.problems),
            "warnings": [warning.to_json() for warning in self.warnings],
        }


def audit(
    paths: Sequence[Path],
    disassemble: objects.Disassemble | None = None,
    jobs: int | None = None,
    learn: Callable[[], object] | None = None,
    image: Path | None = None,
    tell: Callable[[Judgement], None] | None = None,
) -> AuditReport:
    """Judge files and folders as they would be linked.

    Images among the `paths` are judged each by itself. Objects, archives and bitcode that are named
    are judged as one link; those of a folder are, too, where no instrumented image vouches for
    them, which a build script does not; all else is passed over. What was not read makes no
    verdict: `unknown` stands below `mixed` and above all else. `disassemble` (picklable)
    turns bitcode, by its path, into LLVM assembly, or None. Up to `jobs` processes read, by
    default one for each processor. `learn` is called once, before anything is judged, where a
    raw version is unknown: what it adds to `LAYOUTS` then counts. `image` is what the objects
    are about to be linked to, which is not there yet. What objects of other counters are in an
    image, as temporal ones, only the objects beside it show: of an image alone byte coverage is
    seen. `tell` is called with the verdict, as soon
    as it is known: whom to blame, and so what to do, is found afterwards. Raises `LabError` when
    there is nothing to judge.
    """
    evidence, unread = read_all(paths, disassemble, jobs)
    versions = {version for file in evidence for version in file.raw_versions}
    if layout.learn_unknown(versions, learn):
        evidence, unread = read_all(paths, disassemble, jobs)
    named = set(paths)
    if not evidence and unread.keys() <= named:
        why = next(iter(unread.values()), "no object file, archive or image there")
        what = ", ".join(map(str, paths[:3])) + (", …" if len(paths) > 3 else "")
        raise LabError(f"audit of {what}", why, "give objects, programs or a folder of them")
    objects = [file for file in evidence if not file.linked]
    files = [_judge(_completed(file, objects)) for file in evidence]
    parts = [part for file in files for part in file.parts]
    linked = [file.judgement for file in files if file.linked]
    vouching = any(_vouches(file) for file in files)
    loose = [f for f in files if not f.linked and (f.path in named or not vouching)]
    parts = [part for file in loose for part in file.parts]
    judgement = _worst([*linked, *([_judge_objects(parts)] if loose or not linked else [])])
    if judgement.verdict != "mixed" and (whys := _missed(files, unread, named)):
        judgement = _unknown(judgement, whys)
    if judgement.verdict == "consistent" and vouching and (rest := _unlinked(files, loose)):
        judgement = dataclasses.replace(judgement, why=f"{judgement.why}; {rest}")
    warnings = tuple(runtimes.warn(files, named))
    if warnings and judgement.verdict == "consistent":
        why = "the records of each image are laid out as its own runtime expects"
        judgement = dataclasses.replace(judgement, why=why)
    if tell:
        tell(judgement)
    if judgement.verdict == "mixed" and "mixed" in {own.verdict for own in linked}:
        files = [_explained(file, files) for file in files]
        judgement = _worst(file.judgement for file in files if file.linked)
    elif judgement.verdict == "mixed":
        foreign = blaming.of_objects(loose, _usual(parts)[0])
        judgement = _advised(judgement, image or loose[0].path, parts, foreign)
    problems = tuple(f"{path}: {why}" for path, why in unread.items())
    return AuditReport(judgement, tuple(files), problems, warnings)


def _completed(file: Evidence, objects: Sequence[Evidence]) -> Evidence:
    """Add to an image what its version symbol, the first object's, hides of the others."""
    parts = []
    for part in file.parts:
        pieces = (piece for _, own in blaming.hidden(part, objects) for piece in own.pieces)
        parts.append(dataclasses.replace(part, hidden=tuple(dict.fromkeys(pieces))))
    return dataclasses.replace(file, parts=tuple(parts)) if file.linked else file


def _vouches(file: Audited) -> bool:
    """Return whether a file shows what its folder's objects came to: an instrumented image.

    Build scripts run as cargo builds, and are linked of nothing that the program is.
    """
    built = file.linked and file.judgement.verdict != "not-instrumented"
    return built and not re.match(r"build[-_]script", file.path.name)


def _unlinked(files: Sequence[Audited], judged: Sequence[Audited]) -> str:
    """Say which objects were not judged, and are laid out as no image of their folder.

    An image has one version symbol, so records like its own may be in it under another number.
    """
    images = {version for file in files if file.linked for version in file.raw_versions}
    foreign: dict[Path, set[int]] = {}
    for file in files:
        for part in () if file.linked or file in judged else file.parts:
            pairs = itertools.product(part.raw_versions, images)
            if part.raw_versions and not any(alike(own, held) for own, held in pairs):
                foreign.setdefault(file.path, set()).update(part.raw_versions)
    if not foreign:
        return ""
    versions = ", ".join(map(str, sorted(set().union(*foreign.values()))))
    what = f"{next(iter(foreign))}, of raw version {versions}, which no image there holds"
    more = f" {len(foreign)} files such as" if len(foreign) > 1 else ""
    return f"not judged:{more} {what}"


def _missed(
    files: Sequence[Audited], unread: dict[Path, str], named: Collection[Path]
) -> list[str]:
    """Return what was not read, and why, as far as it counts.

    In a folder that is what may have been linked, where no image says what was.
    """
    alone = not any(map(_vouches, files))
    whys = [f"{path}: {why}" for path, why in unread.items() if alone or path in named]
    for file in files:
        if alone or file.path in named:
            whys += [f"{file.path}: {problem}" for problem in file.problems]
    return whys


def _judge(file: Evidence) -> Audited:
    """Judge a file by itself: each image, or all its objects as a link."""
    images = [judge_image(part) for part in file.parts if part.linked]
    judgement = _worst(images or [_judge_objects(file.parts)])
    if file.problems and judgement.verdict != "mixed":
        judgement = _unknown(judgement, file.problems)
    return Audited(**vars(file), judgement=judgement)


def _unknown(judgement: Judgement, whys: Sequence[str]) -> Judgement:
    """Take a verdict back, for something was not read."""
    more = f"; and {len(whys) - _MOST_WHYS} more" if len(whys) > _MOST_WHYS else ""
    why = "; ".join(whys[:_MOST_WHYS]) + more
    return dataclasses.replace(judgement, verdict="unknown", why=why)


def _worst(judgements: Iterable[Judgement]) -> Judgement:
    return min(judgements, key=lambda judgement: get_args(Verdict).index(judgement.verdict))


def judge_image(part: PartEvidence) -> Judgement:
    """Judge a linked image: its order is known, but who had the version symbol only to itself."""
    ways = [list(part.pieces)]
    if part.nameless:
        ways = _orders(part.pieces)
        ways.append([dataclasses.replace(piece, how="front-end") for piece in part.pieces])
    runtimes = [part.runtime] if part.runtime else sorted({p.raw_version for p in part.pieces})
    return _judged(runtimes, ways, [part])


def _judge_objects(parts: Sequence[PartEvidence]) -> Judgement:
    """Judge objects as one link: any of them may come first, or tell the runtime."""
    pieces = _settled(parts)
    brought = [part.runtime for part in parts if part.runtime and not part.linked]
    runtimes = brought[:1] or sorted({piece.raw_version for piece in pieces})[:_MOST_PIECES]
    return _judged(runtimes, _orders(pieces), parts)


def _orders(pieces: Sequence[LinkPiece]) -> list[list[LinkPiece]]:
    """Return a link order for each piece, in which it is first: the others' do not matter."""
    pieces = pieces[:_MOST_PIECES]
    return [[first, *(piece for piece in pieces if piece != first)] for first in pieces]


def _settled(parts: Sequence[PartEvidence]) -> list[LinkPiece]:
    """Return the pieces of a link; what records leave open (9 or 10) is as the others are."""
    certain = {version for part in parts for version in (part.runtime, part.symbol[0]) if version}
    certain |= {version for part in parts for run in part.records for version in run.bitmaps}
    pieces: dict[LinkPiece, None] = {}
    for part in parts:
        likely = certain & part.raw_versions
        for piece in part.pieces:
            if likely and not piece.has_symbol and not piece.bitmaps:
                pieces[dataclasses.replace(piece, raw_version=max(likely))] = None
            else:
                pieces[piece] = None
    return list(pieces)


def _judged(
    runtimes: Iterable[int], ways: Sequence[list[LinkPiece]], parts: Sequence[PartEvidence]
) -> Judgement:
    ways = [way for way in ways if way]
    links = tuple(
        Link(runtime, way[0], predict(runtime, way)) for runtime in runtimes for way in ways
    )
    bad = [link for link in links if not link.fate.fine]
    if bad:
        usual, guess = _usual(parts)
        worst = min(bad, key=lambda link: link.runtime != usual)
        why = "; ".join(filter(None, (worst.fate.why, worst.fate.loss)))
        if guess and len({link.runtime for link in links}) > 1:
            why = f"if {guess} links these together, {why}"
        return Judgement("mixed", why, links)
    unread = dict.fromkeys(part.unread for part in parts if part.unread)
    if unread:
        return Judgement("unknown", "; ".join(unread), links)
    if links:
        old = [link.runtime for link in links if link.runtime < min(layout.LAYOUTS)]
        if old:
            what = f"raw version {old[0]} ({layout.llvm_of(old[0])})"
            return Judgement("unknown", f"how {what} lays out records is not known", links)
        why = links[0].fate.why
        open_ = {v for part in parts for v in part.raw_versions if not part.binary.raw_version}
        if len(open_) > 1 and parts[0].linked:
            numbers = " and ".join(map(str, sorted(open_)))
            why += f"; without a version symbol {numbers} cannot be told apart"
        return Judgement("consistent", why, links)
    return Judgement("not-instrumented", "nothing there is instrumented")


def _usual(parts: Sequence[PartEvidence]) -> tuple[int, str]:
    """Return the raw version that is not foreign: the runtime's, or an image's symbol's.

    Where neither is there it is a guess, which is named: whoever compiled `main` links it, too,
    for its instrumentation asks for the runtime; else the compiler of most functions.
    """
    votes: Counter[int] = Counter()
    mains = set[int]()
    for part in parts:
        version = part.runtime or (part.symbol[0] if part.linked else None)
        if version:
            return version, ""
        votes.update({piece.raw_version: 1 for piece in part.pieces})
        for run in part.records:
            votes[part.versions(run)[0]] += 2 * len(run.references)
            if blaming.MAIN in run.references:
                mains.add(part.versions(run)[0])
    if len(mains) == 1:
        return mains.pop(), "main's compiler"
    most = max(votes, key=lambda version: (votes[version], version))
    return most, "the compiler of most functions"


def _explained(image: Audited, files: Sequence[Audited]) -> Audited:
    """Add to a mixed image which objects its foreign records came from, and what to do."""
    if image.judgement.verdict != "mixed" or not image.linked:
        return image
    part = next(part for part in image.parts if judge_image(part).verdict == "mixed")
    usual, _ = _usual([part])
    foreign = [run for run in part.records if not alike(part.versions(run)[0], usual)]
    blame: list[Blame] = []
    if part.hidden:
        loose = [file for file in files if not file.linked]
        for path, own in blaming.hidden(part, loose):
            blame.append(Blame.from_records(path, own.records))
    if foreign:
        objects: Sequence[Evidence] = [file for file in files if not file.linked]
        if not objects:
            beside = map(read, blaming.beside(image.path))
            objects = [evidence for evidence in beside if isinstance(evidence, Evidence)]
        blame = blaming.of_image(image.path, foreign, objects)
    judgement = _advised(image.judgement, image.path, [part], blame)
    return dataclasses.replace(image, judgement=judgement)


def _advised(
    judgement: Judgement, path: Path, parts: Sequence[PartEvidence], blame: Sequence[Blame] = ()
) -> Judgement:
    pieces = list(dict.fromkeys(piece for part in parts for piece in part.pieces))
    files = [str(file) for file in blame if file.path != path or not parts[0].linked]
    usual, guess = _usual(parts)
    if len(files) > 1 and not any(file.certain for file in blame):
        files = [f"the one that was linked of {', '.join(files[:3])}"]
    line = advise(path, parts[0].binary.target, usual, pieces, files, guess)
    return dataclasses.replace(judgement, blame=tuple(blame), advice=line)
