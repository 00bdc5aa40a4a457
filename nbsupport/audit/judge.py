"""Who instrumented these files, whether they may be linked together, and what to do."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nbsupport.audit import evidence, objects
from nbsupport.audit.advice import advise, cargo_target
from nbsupport.audit.evidence import Evidence, PartEvidence, RecordEvidence
from nbsupport.audit.fate import Fate, LinkPiece, alike, predict
from nbsupport.base.errors import LabError
from nbsupport.profile.infer import Array

Verdict = Literal["consistent", "mixed", "not-instrumented", "unknown"]
#: What a set of images is: the first of these that one of them is.
_WORST: tuple[Verdict, ...] = ("mixed", "unknown", "consistent", "not-instrumented")

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
        count, text = 0, list[str]()
        for run in records:
            chosen = run.references
            if among is not None:
                chosen = chosen[np.isin(run.keys, among)]
            count += len(chosen)
            places = run.names.index(chosen[:_SHOWN]) if len(text) < _SHOWN else ()
            text += [run.names.text[n].decode(errors="replace") for n in places if n >= 0]
        return cls(path, count, tuple(text[:_SHOWN]))

    def to_json(self) -> dict[str, Any]:
        """Return one of `blame` of `pgo-lab audit --json`."""
        return {**vars(self), "path": str(self.path), "functions": list(self.functions)}


@dataclass(frozen=True)
class Link:
    """One way to link: with the runtime of which raw version, which piece first; its fate."""

    runtime: int
    first: LinkPiece
    fate: Fate

    def to_json(self) -> dict[str, Any]:
        """Return one of `links` of `pgo-lab audit --json`."""
        return {
            "runtime_raw_version": self.runtime,
            "first": str(self.first),
            "outcomes": sorted(self.fate.outcomes),
            "why": self.fate.why,
            "loss": self.fate.loss,
        }


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
        return {
            "verdict": self.verdict,
            "why": self.why,
            "outcomes": self.outcomes,
            "links": [link.to_json() for link in self.links],
            "blame": [one.to_json() for one in self.blame],
            "advice": self.advice,
        }


@dataclass(frozen=True)
class Audited(Evidence):
    """One file, what was found in it, and what comes of that."""

    judgement: Judgement

    def to_json(self) -> dict[str, Any]:
        """Return one of `files` of `pgo-lab audit --json`."""
        first = self.parts[0].part if self.parts else None
        return {
            "path": str(self.path),
            "format": first.format if first else None,
            "kind": self.container or (first.kind if first else None),
            "raw_versions": sorted({v for seen in self.parts for v in seen.raw_versions}),
            "variants": sorted({name for seen in self.parts for name in seen.symbol[1]}),
            "layouts": [{"record_size": size, "records": n} for size, n in self.layouts],
            "runtime_raw_version": next((s.runtime for s in self.parts if s.runtime), None),
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
        told = [one for one in self.files if one.judgement.verdict != "not-instrumented"]
        images = [one for one in told if one.linked]
        bad = [one for one in images if one.judgement.verdict != "consistent"]
        return tuple(bad or images or told)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `pgo-lab audit --json`."""
        files = [one.to_json() for one in self.files]
        return {**self.judgement.to_json(), "files": files, "problems": list(self.problems)}


def audit(
    paths: Sequence[Path],
    disassemble: objects.Disassemble | None = None,
    jobs: int | None = None,
) -> AuditReport:
    """Judge files and folders as they would be linked.

    Images are judged each by itself; objects, archives and bitcode as one link, and only where
    there is no image. `disassemble` (picklable) reads bitcode; up to `jobs` processes read.
    Raises `LabError` when the paths hold nothing to judge.
    """
    problems: list[str] = []
    found = evidence.collect(paths, problems)
    read = evidence.read_all(found, disassemble, jobs, problems)
    files = [_judge(one) for one in read]
    if not files:
        why = problems[0] if problems else "no object file, archive or image there"
        raise LabError(
            f"audit of {_list(paths)}", why, "give objects, programs or a folder of them"
        )
    if not any(one.linked for one in files):
        parts = [seen for one in files for seen in one.parts]
        whole = _judge_objects(parts)
        if whole.verdict == "mixed":
            whole = _advised(whole, files[0].path, parts, _blame_objects(files, _usual(parts)))
        return AuditReport(whole, tuple(files), tuple(problems))
    judged = tuple(_explained(one, files) for one in files)
    worst = _worst(one.judgement for one in judged if one.linked)
    return AuditReport(worst, judged, tuple(problems))


def _list(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:3])) + (", …" if len(paths) > 3 else "")


# -- judging


def _judge(one: Evidence) -> Audited:
    """Judge a file by itself: each image, or all its objects as a link."""
    judged = [judge_image(seen) for seen in one.parts if seen.linked]
    worst = _worst(judged or [_judge_objects(one.parts)])
    return Audited(**vars(one), judgement=worst)


def _worst(judged: Iterable[Judgement]) -> Judgement:
    return min(judged, key=lambda one: _WORST.index(one.verdict))


def judge_image(seen: PartEvidence) -> Judgement:
    """Judge a linked image: its order is known, but who had the version symbol only to itself."""
    ways = [list(seen.pieces)]
    if seen.part.stripped and seen.part.raw_version is None:
        ways = _orders(seen.pieces)
        ways.append([dataclasses.replace(piece, how="front-end") for piece in seen.pieces])
    runtimes = [seen.runtime] if seen.runtime else sorted({p.raw_version for p in seen.pieces})
    links = [Link(r, way[0], predict(r, way)) for r in runtimes for way in ways if way]
    return _judged(links, [seen])


def _judge_objects(parts: Sequence[PartEvidence]) -> Judgement:
    """Judge objects as one link: any of them may come first, or tell the runtime."""
    pieces = _settled(parts)
    brought = [seen.runtime for seen in parts if seen.runtime and not seen.linked]
    runtimes = brought[:1] or sorted({piece.raw_version for piece in pieces})[:_MOST_PIECES]
    ways = _orders(pieces)
    return _judged([Link(r, way[0], predict(r, way)) for r in runtimes for way in ways], parts)


def _orders(pieces: Sequence[LinkPiece]) -> list[list[LinkPiece]]:
    """Return a link order for each piece, in which it is first: the others' do not matter."""
    pieces = pieces[:_MOST_PIECES]
    return [[first, *(piece for piece in pieces if piece != first)] for first in pieces]


def _settled(parts: Sequence[PartEvidence]) -> list[LinkPiece]:
    """Return the pieces of a link; what records leave open (9 or 10) is as the others are."""
    certain = {version for seen in parts for version in (seen.runtime, seen.symbol[0]) if version}
    found: dict[LinkPiece, None] = {}
    for seen in parts:
        for piece in seen.pieces:
            likely = certain & seen.raw_versions
            if likely and not piece.has_symbol and not piece.bitmaps:
                found[dataclasses.replace(piece, raw_version=max(likely))] = None
            else:
                found[piece] = None
    return list(found)


def _judged(links: Sequence[Link], parts: Sequence[PartEvidence]) -> Judgement:
    bad = [link for link in links if not link.fate.fine]
    if bad:
        worst = min(bad, key=lambda link: link.runtime != _usual(parts))
        why = "; ".join(filter(None, (worst.fate.why, worst.fate.loss)))
        return Judgement("mixed", why, tuple(links))
    blind = [
        seen for seen in parts if not seen.pieces and (seen.part.instrumented or seen.part.note)
    ]
    if blind:
        notes = dict.fromkeys(seen.part.note or "its records are not to be found" for seen in blind)
        return Judgement("unknown", "; ".join(notes), tuple(links))
    if links:
        why = links[0].fate.why
        open_ = {v for seen in parts for v in seen.raw_versions if not seen.part.raw_version}
        if len(open_) > 1 and parts[0].linked:
            why += f"; without a version symbol {_numbers(open_)} cannot be told apart"
        return Judgement("consistent", why, tuple(links))
    return Judgement("not-instrumented", "nothing there is instrumented")


def _numbers(versions: Iterable[int]) -> str:
    return " and ".join(map(str, sorted(versions)))


def _usual(parts: Sequence[PartEvidence]) -> int:
    """Return the raw version that is not foreign: the runtime's, an image's symbol's, the most."""
    votes: Counter[int] = Counter()
    for seen in parts:
        told = seen.runtime or (seen.symbol[0] if seen.linked else None)
        if told:
            return told
        votes.update({piece.raw_version: 1 for piece in seen.pieces})
        for run in seen.records:
            votes[seen.versions(run)[0]] += 2 * len(run.references)
    return max(votes, key=lambda version: (votes[version], version))


def _blame_objects(files: Sequence[Audited], usual: int) -> list[Blame]:
    """Return the objects that are not what most, or the runtime, are."""
    pieces = [piece for one in files for seen in one.parts for piece in seen.pieces]
    main = next((p for p in pieces if p.raw_version == usual and p.has_symbol), None)

    def strange(seen: PartEvidence) -> bool:
        return any(
            usual not in seen.raw_versions
            or (main is not None and piece.has_symbol and piece.variants != main.variants)
            for piece in seen.pieces
        )

    blamed = [(one.path, [seen for seen in one.parts if strange(seen)]) for one in files]
    return [
        Blame.from_records(path, [r for s in parts for r in s.records])
        for path, parts in blamed
        if parts
    ]


def _explained(image: Audited, files: Sequence[Audited]) -> Audited:
    """Add to a mixed image which objects its foreign records came from, and what to do."""
    if image.judgement.verdict != "mixed" or not image.linked:
        return image
    seen = next(seen for seen in image.parts if judge_image(seen).verdict == "mixed")
    foreign = [each for each in seen.records if not alike(seen.versions(each)[0], _usual([seen]))]
    keys = {each.record_size: each.keys for each in foreign}
    others: Sequence[Evidence] = [one for one in files if not one.linked]
    if foreign and not others:
        read = map(evidence.read, _beside(image.path))
        others = [one for one in read if isinstance(one, Evidence)]
    blame = []
    for one in others:
        records = [each for part in one.parts for each in part.records]
        for size, among in keys.items():
            same = [each for each in records if each.record_size == size]
            blame.append(Blame.from_records(one.path, same, among))
    found = [one for one in blame if one.count] or [Blame.from_records(image.path, foreign)]
    judgement = _advised(image.judgement, image.path, [seen], found if foreign else [])
    return dataclasses.replace(image, judgement=judgement)


def _beside(image: Path) -> list[Path]:
    """Return files near an image from which it may have been linked."""
    near = list(image.parent.glob("*"))
    if cargo_target(image):
        near += [*image.parent.glob("deps/*"), *image.parent.glob("build/*/out/**/*")]
    return sorted(path for path in near if path.suffix in _LINKABLE)[:_MOST_BESIDE]


def _advised(
    judgement: Judgement, path: Path, parts: Sequence[PartEvidence], blame: Sequence[Blame]
) -> Judgement:
    pieces = list(dict.fromkeys(piece for seen in parts for piece in seen.pieces))
    files = [one.path for one in blame if one.path != path or not parts[0].linked]
    line = advise(path, parts[0].part.target, _usual(parts), pieces, files)
    return dataclasses.replace(judgement, blame=tuple(blame), advice=line)
