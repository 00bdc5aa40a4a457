"""What files say of their own instrumentation: read, and not judged yet."""

import contextlib
import dataclasses
import functools
import itertools
import signal
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nbsupport.audit import objects
from nbsupport.audit.fate import How, LinkPiece
from nbsupport.base import settings
from nbsupport.base.errors import LabError
from nbsupport.profile import infer, layout
from nbsupport.profile.infer import Array
from nbsupport.profile.names import SEPARATOR, Names

#: Bytes to read that are worth other processes, which start in half a second; what a file costs
#: besides, as bytes.
_PARALLEL, _OVERHEAD = 500 << 20, 200 << 10
#: Bytes that a process is given at a time: it ends them even after Ctrl-C.
_CHUNK = 10 << 20
#: Record sizes in a section that are looked at; more is no section that a compiler made.
_MOST_SIZES = 16


class RecordNames:
    """The names that records refer to, which travel from process to process as one text."""

    def __init__(self, names: Names) -> None:
        self._names: Names | None = names
        self._text = b""

    def resolve(self, references: Array) -> list[bytes]:
        """Return for each NameRef its name, b"" where there is none."""
        if self._names is None:
            self._names = Names(self._text.split(SEPARATOR) if self._text else [])
        return self._names.resolve(references)

    def __getstate__(self) -> bytes:
        return self._text if self._names is None else SEPARATOR.join(self._names.text)

    def __setstate__(self, text: bytes) -> None:
        self._names, self._text = None, text


@dataclass(frozen=True)
class RecordEvidence:
    """All records of one size (bytes) in a part, and what they tell.

    `raw_versions` are those with such records; `counter_sizes` the widths of counters, in
    bytes (8; 1: byte coverage), `bitmaps` the raw versions by which there are MC/DC bitmaps;
    `references` the NameRefs; `keys` identify functions: NameRef mixed with FuncHash.
    """

    record_size: int
    raw_versions: tuple[int, ...]
    references: Array
    keys: Array
    names: RecordNames
    counter_sizes: tuple[int, ...] = ()
    bitmaps: tuple[int, ...] = ()


@dataclass(frozen=True)
class PartEvidence:
    """A part of a file, without its bytes: its records by size, and its runs.

    `layouts` are record size and number of records of each run, in order; `missed` is how many
    bytes of its sections of records are none that was found; `hidden` are the pieces of an image
    that its one version symbol does not show, but the objects that it was linked of.
    """

    binary: objects.BinaryPart
    records: tuple[RecordEvidence, ...]
    layouts: tuple[tuple[int, int], ...]
    missed: int = 0
    hidden: tuple[LinkPiece, ...] = ()

    @property
    def unread(self) -> str:
        """What was not read of it, and why; "" where nothing is missed."""
        if self.missed and not self.binary.note:
            return f"{self.missed} bytes of its section of records are no record that we know"
        lost = self.binary.instrumented and not self.seen
        return self.binary.note or ("its records are not to be found" if lost else "")

    @property
    def seen(self) -> bool:
        """Whether records were seen; of bitcode, which has none yet, its version symbol."""
        bitcode = self.binary.format == "bitcode" and bool(self.pieces)
        return bitcode or any(len(run.references) for run in self.records)

    @property
    def linked(self) -> bool:
        """Whether a linker made it: an executable, a library."""
        return self.binary.kind != "object"

    @property
    def symbol(self) -> tuple[int | None, tuple[str, ...]]:
        """Raw version and variants of the version symbol; None where no instrumentation made it.

        An image's without variants is its runtime's own, which nothing instrumented replaced.
        """
        version, variants = layout.split(self.binary.raw_version or 0)
        return (version, variants) if version and (variants or not self.linked) else (None, ())

    @property
    def runtime(self) -> int | None:
        """The raw version of the runtime in it."""
        if self.linked and not self.symbol[0]:
            return self.binary.runtime_raw_version or self.binary.raw_version
        return self.binary.runtime_raw_version

    @functools.cached_property
    def pieces(self) -> tuple[LinkPiece, ...]:
        """What it adds to a link, first the one whose version symbol won."""
        symbol = self.symbol[0]
        own = [self._piece(symbol)] if symbol and self.binary.instrumented else []
        pieces = [
            self._piece(version, width, version in run.bitmaps)
            for run in self.records
            for version in self.versions(run)
            for width in run.counter_sizes or (None,)
        ]
        return tuple(dict.fromkeys([*own, *pieces, *self.hidden]))

    def _piece(self, version: int, width: int | None = None, bitmaps: bool = False) -> LinkPiece:
        variants = dict.fromkeys(self.symbol[1], True)
        if width:  # in an image it is the counters' own word, not that of the symbol that won
            variants["byte-coverage"] = width == 1
        # A stripped image does not say how; what it is for is more often optimization.
        how: How = "ir" if "ir" in variants or self.nameless else "front-end"
        ordered = tuple(name for name in layout.VARIANTS if variants.get(name))
        return LinkPiece(version, how, ordered, bitmaps)

    @property
    def nameless(self) -> bool:
        """Whether it is an image whose symbols were stripped: nothing says how it was made."""
        return self.linked and self.binary.stripped and self.binary.raw_version is None

    def versions(self, run: RecordEvidence) -> tuple[int, ...]:
        """Return the raw versions that a run is taken for: one, unless bitmaps show two."""
        if run.bitmaps and "ir" not in self.symbol[1]:
            return run.bitmaps
        newer = max(layout.LAYOUTS) + 1
        for version in (self.symbol[0] or 0, self.runtime or 0):
            old = 0 < version < min(layout.LAYOUTS)  # how long such a record is, is not known
            if old or version in run.raw_versions or (version >= newer and not run.raw_versions):
                return (version,)
        return run.raw_versions[-1:] or (newer,)

    @property
    def raw_versions(self) -> set[int]:
        """The raw versions that version symbol, runtime and records leave possible."""
        possible = {self.symbol[0]} if self.binary.instrumented else set()
        for run in self.records:
            certain = self.binary.raw_version or run.bitmaps or not run.raw_versions
            possible.update(self.versions(run) if certain else run.raw_versions)
        return {version for version in possible if version}


@dataclass(frozen=True)
class Evidence:
    """One file and what was found in it; `container` is as in `objects.BinaryFile`.

    `problems` say what was not read, also inside a part.
    """

    path: Path
    container: str
    parts: tuple[PartEvidence, ...]
    problems: tuple[str, ...]

    @property
    def layouts(self) -> tuple[tuple[int, int], ...]:
        """Record size (bytes) and number of records of each run, in order."""
        runs = (run for part in self.parts for run in part.layouts)
        groups = itertools.groupby(runs, lambda run: run[0])
        return tuple((size, sum(count for _, count in group)) for size, group in groups)

    @property
    def raw_versions(self) -> set[int]:
        """The raw versions that are possible for its parts."""
        return {version for part in self.parts for version in part.raw_versions}

    @property
    def linked(self) -> bool:
        """Whether it is an image."""
        return any(part.linked for part in self.parts)


def read_all(
    paths: Iterable[Path], disassemble: objects.Disassemble | None, jobs: int | None
) -> tuple[list[Evidence], dict[Path, str]]:
    """Read the files below the paths, by several processes when there is much to read.

    Returns what is in them, and by its path why something was not read; says how far it is.
    `disassemble` is as in `objects.read`, and picklable. Raises `LabError` when a process dies.
    """
    unread: dict[Path, str] = {}
    files = list(objects.find(paths, unread))
    evidence = []
    steps: Iterable[Path] = files
    if len(files) > 1:  # rich need not be imported for one
        from nbsupport.base import progress  # noqa: PLC0415

        steps = progress.over(files, "reading files")
    look = functools.partial(read, disassemble=disassemble)
    with contextlib.closing(_answers(files, look, jobs)) as answers:
        for path in steps:
            answer = next(answers)
            if isinstance(answer, str):
                unread[path] = answer
            elif answer:
                evidence.append(answer)
    return evidence, unread


def _answers(
    files: Sequence[Path], look: Callable[[Path], Evidence | str | None], jobs: int | None
) -> Generator[Evidence | str | None, None, None]:
    """Yield what `look` returns for each file."""
    jobs = min(jobs or settings.cores(), len(files))
    size = sum(map(_size, files))
    if jobs < 2 or size <= _PARALLEL:
        yield from map(look, files)
        return
    import multiprocessing  # noqa: PLC0415 - and what follows, when it is worth it
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor  # noqa: PLC0415

    from nbsupport.base import process  # noqa: PLC0415

    # spawn: what is forked from a process with threads may hang.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, spawn, layout.learn, tuple(layout.LAYOUTS.values()))
    try:
        # Ctrl-C is left to this process: what it starts meanwhile never sees it.
        with process.handling({signal.SIGINT: signal.SIG_IGN}):
            chunk = 1 + _CHUNK * len(files) // (size + 1)
            answers = pool.map(look, files, chunksize=chunk)
        for path in files:
            try:
                yield next(answers)
            except BrokenExecutor as error:
                why = "a process that read files died"
                raise LabError(f"audit of {path}", why, "give files one by one") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _size(path: Path) -> int:
    """Return the bytes to read that are as much work as a file."""
    with contextlib.suppress(OSError):
        return _OVERHEAD + path.stat().st_size
    return _OVERHEAD


def read(path: Path, disassemble: objects.Disassemble | None = None) -> Evidence | str | None:
    """Return what is in a file; why it cannot be read; None where it is not for us."""
    try:
        file = objects.read(path, disassemble)
    except LabError as error:
        return error.why
    return from_file(file) if file else None


def from_file(file: objects.BinaryFile) -> Evidence:
    """Return what the parts of a file say; its bytes may then go."""
    parts = tuple(_from_part(part) for part in file.parts)
    notes = [": ".join(filter(None, (p.binary.name, p.unread))) for p in parts if p.unread]
    return Evidence(file.path, file.container, parts, (*file.problems, *notes))


def _from_part(part: objects.BinaryPart) -> PartEvidence:
    records, layouts = list[RecordEvidence](), list[tuple[int, int]]()
    missed = 0
    for section in part.sections:
        inferred = infer.find(section)
        layouts += [(run.record_size, run.records) for run in inferred.runs]
        if part.format != "pe":  # where records may be among other data
            total = sum(run.record_size * run.records for run in inferred.runs)
            missed += len(section.data) - total
        for size in list(dict.fromkeys(size for size, _ in layouts))[:_MOST_SIZES]:
            runs = [run for run in inferred.runs if run.record_size == size]
            if runs:
                records.append(_records(section, inferred.offsets[inferred.sizes == size], runs))
    binary = dataclasses.replace(part, sections=())
    return PartEvidence(binary, tuple(records), tuple(layouts), missed)


def _records(
    section: infer.Section, offsets: Array, runs: Sequence[infer.Stretch]
) -> RecordEvidence:
    versions = runs[0].raw_versions(section.bits)
    references = section.column("NameRef", offsets)
    keys = references ^ section.column("FuncHash", offsets) * np.uint64(0x9E3779B97F4A7C15)
    widths: tuple[int, ...] = ()
    if section.counters and versions and len(references):
        targets = section.targets(offsets)
        counts = section.column("NumCounters", offsets, layout.LAYOUTS[versions[-1]])
        relative = bool(section.landing(targets).any())
        versions = tuple(v for v in versions if layout.LAYOUTS[v].relative == relative) or versions
        eight = np.diff(targets) == 8 * counts[:-1].astype(np.int64)
        # Counters of eight bytes are aligned to as many.
        byte = relative and bool(((targets - section.counters[0]) % 8).any())
        byte = byte or any(run.counter_size == 1 for run in runs)
        widths = tuple(width for width, used in ((1, byte), (8, bool(eight.any()))) if used)
    name = "NumBitmapBytes"
    size = runs[0].record_size
    bitmaps: list[int] = []
    for own in (layout.LAYOUTS[version] for version in versions):
        if name in own.offsets() and section.column(name, offsets, own).any():
            bitmaps.append(own.raw_version)
    names = RecordNames(section.names)
    return RecordEvidence(size, versions, references, keys, names, widths, tuple(bitmaps))
