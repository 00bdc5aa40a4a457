"""Who instrumented these files, whether they may be linked together, and what to do."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from nbsupport.audit import objects
from nbsupport.audit.advice import advise, cargo_target
from nbsupport.audit.evidence import Evidence, PartEvidence, RecordEvidence, read, read_all
from nbsupport.audit.fate import Fate, LinkPiece, alike, predict
from nbsupport.base.errors import LabError
from nbsupport.profile import layout
from nbsupport.profile.infer import Array

#: A set of images is the first of these that one of them is.
Verdict = Literal["mixed", "unknown", "consistent", "not-instrumented"]
#: Files beside an image that may have been linked into it, and how many are looked at.
_LINKABLE, _MOST_BESIDE = (".o", ".a", ".rlib", ".obj", ".lib", ".lo"), 2000
#: Makes of objects that are tried as a link's first; there are not so many, but in a hostile file.
_MOST_PIECES = 32
#: Function names shown of each file.
_SHOWN = 3


@dataclass(frozen=True)
class Blame:
    """A file with foreign records: of how many functions, and the first few names."""

    path: Path
    count: int = 0
    functions: tuple[str, ...] = ()

    @classmethod
    def from_records(
        cls, path: Path, records: Iterable[RecordEvidence], among: Array | None = None
    ) -> Blame:
        """Count the functions that have records (with a key `among` these)."""
        count, names = 0, list[str]()
        for run in records:
            references = run.references
            if among is not None:
                references = references[np.isin(run.keys, among)]
            count += len(references)
            if len(names) < _SHOWN:
                resolved = filter(None, run.names.resolve(references[:_SHOWN]))
                names += [name.decode(errors="replace") for name in resolved]
        return cls(path, count, tuple(names[:_SHOWN]))


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
        blame = [{**vars(blame), "path": str(blame.path)} for blame in self.blame]
        return {
            "verdict": self.verdict,
            "why": self.why,
            "outcomes": self.outcomes,
            "links": links,
            "blame": blame,
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

    @property
    def verdict(self) -> Verdict:
        """The verdict on the set."""
        return self.judgement.verdict

    @property
    def telling(self) -> tuple[Audited, ...]:
        """The files that decide: bad images, else good ones, else the instrumented objects."""
        files = [file for file in self.files if file.judgement.verdict != "not-instrumented"]
        images = [file for file in files if file.linked]
        bad = [image for image in images if image.judgement.verdict != "consistent"]
        return tuple(bad or images or files)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `pgo-lab audit --json`."""
        files = [file.to_json() for file in self.files]
        return {**self.judgement.to_json(), "files": files, "problems": list(self.problems)}


def audit(
    paths: Sequence[Path],
    disassemble: objects.Disassemble | None = None,
    jobs: int | None = None,
    learn: Callable[[], object] | None = None,
) -> AuditReport:
    """Judge files and folders as they would be linked.

    Images among the `paths` are judged each by itself; objects, archives and bitcode as one
    link, and only where there is no image; all else is passed over. `disassemble` (picklable)
    turns bitcode, by its path, into LLVM assembly, or None. Up to `jobs` processes read, by
    default one for each processor. `learn` is called once, before anything is judged, where a
    raw version is unknown: what it adds to `LAYOUTS` then counts. Raises `LabError` when there
    is nothing to judge.
    """
    evidence, problems = read_all(paths, disassemble, jobs)
    versions = {version for file in evidence for version in file.raw_versions}
    if layout.learn_unknown(versions, learn):
        evidence, problems = read_all(paths, disassemble, jobs)
    files = [_judge(file) for file in evidence]
    if not files:
        why = problems[0] if problems else "no object file, archive or image there"
        what = ", ".join(map(str, paths[:3])) + (", …" if len(paths) > 3 else "")
        raise LabError(f"audit of {what}", why, "give objects, programs or a folder of them")
    if any(file.linked for file in files):
        files = [_explained(file, files) for file in files]
        judgement = _worst(file.judgement for file in files if file.linked)
    else:
        parts = [part for file in files for part in file.parts]
        judgement = _judge_objects(parts)
        if judgement.verdict == "mixed":
            blame = _blame_objects(files, _usual(parts))
            judgement = _advised(judgement, files[0].path, parts, blame)
    return AuditReport(judgement, tuple(files), tuple(problems))


def _judge(file: Evidence) -> Audited:
    """Judge a file by itself: each image, or all its objects as a link."""
    images = [judge_image(part) for part in file.parts if part.linked]
    return Audited(**vars(file), judgement=_worst(images or [_judge_objects(file.parts)]))


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
        worst = min(bad, key=lambda link: link.runtime != _usual(parts))
        why = "; ".join(filter(None, (worst.fate.why, worst.fate.loss)))
        return Judgement("mixed", why, links)
    notes = {
        part.binary.note or "its records are not to be found": None
        for part in parts
        if not part.pieces and (part.binary.instrumented or part.binary.note)
    }
    if notes:
        return Judgement("unknown", "; ".join(notes), links)
    if links:
        why = links[0].fate.why
        open_ = {v for part in parts for v in part.raw_versions if not part.binary.raw_version}
        if len(open_) > 1 and parts[0].linked:
            numbers = " and ".join(map(str, sorted(open_)))
            why += f"; without a version symbol {numbers} cannot be told apart"
        return Judgement("consistent", why, links)
    return Judgement("not-instrumented", "nothing there is instrumented")


def _usual(parts: Sequence[PartEvidence]) -> int:
    """Return the raw version that is not foreign: the runtime's, an image's symbol's, the most."""
    votes: Counter[int] = Counter()
    for part in parts:
        version = part.runtime or (part.symbol[0] if part.linked else None)
        if version:
            return version
        votes.update({piece.raw_version: 1 for piece in part.pieces})
        for run in part.records:
            votes[part.versions(run)[0]] += 2 * len(run.references)
    return max(votes, key=lambda version: (votes[version], version))


def _blame_objects(files: Sequence[Audited], usual: int) -> list[Blame]:
    """Return the objects that are not what most, or the runtime, are."""
    pieces = [piece for file in files for part in file.parts for piece in part.pieces]
    main = next((p.variants for p in pieces if p.raw_version == usual and p.has_symbol), None)
    blame = []
    for file in files:
        parts = []
        for part in file.parts:
            others = {piece.variants for piece in part.pieces if piece.has_symbol} - {main}
            if part.pieces and (usual not in part.raw_versions or (main is not None and others)):
                parts.append(part)
        records = [run for part in parts for run in part.records]
        blame += [Blame.from_records(file.path, records)] if parts else []
    return blame


def _explained(image: Audited, files: Sequence[Audited]) -> Audited:
    """Add to a mixed image which objects its foreign records came from, and what to do."""
    if image.judgement.verdict != "mixed" or not image.linked:
        return image
    part = next(part for part in image.parts if judge_image(part).verdict == "mixed")
    usual = _usual([part])
    foreign = [run for run in part.records if not alike(part.versions(run)[0], usual)]
    objects: Sequence[Evidence] = [file for file in files if not file.linked]
    if foreign and not objects:
        beside = map(read, _beside(image.path))
        objects = [evidence for evidence in beside if isinstance(evidence, Evidence)]
    keys = {run.record_size: run.keys for run in foreign}
    blame = []
    for file, (size, among) in itertools.product(objects, keys.items()):
        same = [run for own in file.parts for run in own.records if run.record_size == size]
        blame.append(Blame.from_records(file.path, same, among))
    blame = [file for file in blame if file.count]
    if foreign and not blame:
        blame = [Blame.from_records(image.path, foreign)]
    judgement = _advised(image.judgement, image.path, [part], blame)
    return dataclasses.replace(image, judgement=judgement)


def _beside(image: Path) -> list[Path]:
    """Return files near an image from which it may have been linked."""
    near = list(image.parent.glob("*"))
    if cargo_target(image):
        near += [*image.parent.glob("deps/*"), *image.parent.glob("build/*/out/**/*")]
    return sorted(path for path in near if path.suffix in _LINKABLE)[:_MOST_BESIDE]


def _advised(
    judgement: Judgement, path: Path, parts: Sequence[PartEvidence], blame: Sequence[Blame] = ()
) -> Judgement:
    pieces = list(dict.fromkeys(piece for part in parts for piece in part.pieces))
    files = [file.path for file in blame if file.path != path or not parts[0].linked]
    line = advise(path, parts[0].binary.target, _usual(parts), pieces, files)
    return dataclasses.replace(judgement, blame=tuple(blame), advice=line)
