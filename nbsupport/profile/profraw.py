"""Raw profiles (`*.profraw`): what the profile runtime wrote, read where it lies in the file."""

import contextlib
import errno
import functools
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nbsupport.base.errors import LabError, from_os
from nbsupport.profile import header as headers
from nbsupport.profile import holes, layout, names, records
from nbsupport.profile.header import MAGICS, Header
from nbsupport.profile.holes import Hole
from nbsupport.profile.infer import Array
from nbsupport.profile.layout import Order
from nbsupport.profile.names import Names, Problem
from nbsupport.profile.records import RecordTable

#: Profiles that follow one another in a file. A program writes one for each image in it.
MOST_PROFILES = 2000
#: Names that are read of any profile; for each of its records, four more.
_FEWEST_NAMES = 1 << 20
#: Bytes that are read at once.
_CHUNK = 1 << 20
#: A larger file, in bytes, is not read unless that is asked for: it is held in memory whole.
MOST_BYTES = 384 << 20

EMPTY = (
    "empty: the program crashed, was killed or left by _exit before it wrote, or still runs; or "
    "its runtime refused to write (version mismatch): pgo-lab trace tells; a merge skips it "
    "silently"
)
#: What else people have, by how it starts.
_OTHERS = {
    b"\xfflprofi\x81": "an indexed profile, which llvm-profdata merge made",
    b"\x81rforpm\xff": "a raw memory profile",
    b"\x7fELF": "an ELF file",
    b"\xcf\xfa\xed\xfe": "a Mach-O file",
    b"\xca\xfe\xba\xbe": "a Mach-O file",
    b"MZ": "a PE file",
    b"!<": "an archive",
    b"BC\xc0\xde": "LLVM bitcode",
    b":": "a text profile",
}


class OtherFileError(LabError):
    """A file that is no raw profile at all; its first bytes were read."""


@dataclass(frozen=True, eq=False)
class Functions:
    """The functions of a profile, in the order of their records, as columns.

    `hashes` are structural. The counts of function `i` are `counts[first[i]:first[i + 1]]`
    (byte coverage: 1 for covered, 0). `record_sizes` are in bytes. A name that the profile
    lacks is b"".
    """

    names: list[bytes]
    hashes: Array
    first: Array
    counts: Array
    record_sizes: Array

    def rows(self) -> Iterator[tuple[bytes, int, list[int]]]:
        """Yield name, hash and counts of each."""
        ends = self.first.tolist()
        for i, (name, number) in enumerate(zip(self.names, self.hashes.tolist(), strict=True)):
            yield name, number, self.counts[ends[i] : ends[i + 1]].tolist()


@dataclass(frozen=True, eq=False)
class Profile:
    """One raw profile of a file; what is in it is read when asked for."""

    header: Header

    @functools.cached_property
    def _stored(self) -> tuple[Hole | None, Header, Names]:
        """Where bytes are missing, and the header and names of what is left."""
        own = _names(self.header)
        hole = holes.find(self.header, own)
        if hole is None:
            return None, self.header, own
        whole = holes.filled(self.header, hole)
        return hole, whole, _names(whole)

    @property
    def hole(self) -> Hole | None:
        """Where bytes are missing from its middle, or too many."""
        return self._stored[0]

    @property
    def names(self) -> Names:
        """The function names."""
        return self._stored[2]

    @functools.cached_property
    def records(self) -> RecordTable:
        """The records."""
        return records.read(self._stored[1], lambda: self.names)

    @property
    def _named(self) -> Array:
        """Which name each record has, -1 for none."""
        return self.names.index(self.records.column("NameRef"))

    @functools.cached_property
    def functions(self) -> Functions:
        """The functions whose counters are in the file."""
        records = self.records
        text = [*self.names.text, b""]  # -1, for none, is the last one
        return Functions(
            [text[i] for i in self._named[records.sound].tolist()],
            records.column("FuncHash")[records.sound],
            *records.counts(),
            records.sizes[records.sound],
        )

    @functools.cached_property
    def _values(self) -> tuple[int, list[Problem]]:
        """Where the value data ends, from its start, and what is malformed in it."""
        records = self.records
        blocks = 0
        # The runtime that misread records misread their numbers of sites, too.
        if len(records.offsets) and not records.mixed:
            blocks = int(np.count_nonzero(records.column("NumValueSites").any(axis=1)))
        kinds = self.header.layout.value_kinds
        return _check_values(self.header.part("values"), blocks, kinds, self.header.order)

    @property
    def end(self) -> int:
        """Where the value data ends in the file, as far as it makes sense."""
        return self.header.places["values"][0] + self._values[0]

    @functools.cached_property
    def problems(self) -> tuple[Problem, ...]:
        """What is malformed in it, in the order of the file."""
        problems = list(self.header.problems())
        if self.hole and not (self.hole.shift == 0 and self.header.whole):
            at = min(self.hole.start, len(self.header.data))
            return (
                *problems[not self.header.whole :],
                Problem(at, self.hole.what(self.header.stated)),
            )
        if self.records.mixed:
            problems.append(self.records.mixture())
        if self.header.whole:  # else all the rest is only what follows from that
            problems += self.records.problems(self.names)
            for part, inside in (
                ("names", self.names.problems),
                ("vtable_names", names.decode(self.header.part("vtable_names")).problems),
                ("values", self._values[1]),
            ):
                start = self.header.places[part][0]
                problems += [type(p)(start + p.offset, p.what) for p in inside]
        return tuple(sorted(problems, key=lambda p: p.offset))


def _names(header: Header) -> Names:
    records = len(header.part("data")) // header.record_size
    return names.decode(header.part("names"), _FEWEST_NAMES + 4 * records)


@dataclass(frozen=True, eq=False)
class RawProfile:
    """A file of raw profiles: usually one, or several one after the other.

    `raw_version` and `variants` are those of the first; None and () where there is no header.
    """

    path: Path
    data: memoryview = field(repr=False)
    raw_version: int | None
    variants: tuple[str, ...]
    profiles: tuple[Profile, ...]
    broken: tuple[Problem, ...]  #: what is malformed between them

    @property
    def functions(self) -> int:
        """How many functions there are."""
        return sum(int(np.count_nonzero(p.records.sound)) for p in self.profiles)

    @property
    def counters(self) -> int:
        """How many counters they have (timestamps not counted)."""
        return sum(int(p.records.numbers.sum()) for p in self.profiles)

    @functools.cached_property
    def problems(self) -> tuple[Problem, ...]:
        """Everything that is malformed, in the order of the file; names and values are read."""
        problems = [p for profile in self.profiles for p in profile.problems]
        last = self.profiles[-1] if self.profiles else None
        if last and last.header.whole and not self.broken and not last.records.mixed:
            end = last.end if not last._values[1] else len(self.data)
            tail = _nonzero(self.data, end)
            if tail < len(self.data):
                what = f"expected the end of the file, found {len(self.data) - tail} bytes more"
                problems.append(Problem(tail, what))
        return tuple(sorted([*self.broken, *problems], key=lambda p: p.offset))

    @property
    def valid(self) -> bool:
        """Whether nothing is malformed."""
        return not self.problems

    def rows(self) -> Iterator[tuple[bytes, int, list[int]]]:
        """Yield name, structural hash and counts of each function."""
        for profile in self.profiles:
            yield from profile.functions.rows()


def read(path: Path, *, most: int = MOST_BYTES) -> RawProfile:
    """Open a raw profile (a file), or several one after the other in it.

    Headers are read, and records where value data must be told from a further profile; all
    else is read when asked for. What is malformed is in `problems` of what this returns.
    Raises `OtherFileError` where the `path` is of no raw profile at all, `LabError` where it cannot
    be read, or has more bytes than `most`.
    """
    data = memoryview(_bytes(path, most))
    start = bytes(data[:8])
    profiles, broken = _profiles(data) if data else ([], [Problem(0, EMPTY)])
    stated: tuple[int | None, tuple[str, ...]] = (None, ())
    if start in MAGICS and len(data) >= 16:
        stated = layout.split(struct.unpack_from(f"{MAGICS[start][1]}Q", data, 8)[0])
    return RawProfile(path, data, *stated, tuple(profiles), tuple(broken))


def _bytes(path: Path, most: int) -> bytearray:
    """Return the bytes of a file that begins as a raw profile does.

    They are ours: a program that writes to a file cuts it first, and who reads a map of it then
    is ended by SIGBUS.
    """
    try:
        # A FIFO would wait for a writer otherwise.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
                raise OtherFileError(str(path), kind, "give a .profraw file")
            start = os.read(handle, 8)
            if start and not any(magic.startswith(start) for magic in MAGICS):
                kinds = (
                    f"it is {kind}" for what, kind in _OTHERS.items() if start.startswith(what)
                )
                why = f"not a raw profile: {next(kinds, 'it does not start as one')}"
                raise OtherFileError(str(path), why, "give a .profraw file")
            if status.st_size > most:
                why = f"it has {status.st_size:,} bytes: more than {most:,} are not read"
                raise LabError(str(path), why, "give more with --most, in MiB")
            return _content(handle, status.st_size)
        finally:
            os.close(handle)
    except OSError as error:
        raise from_os(str(path), error) from error
    except ValueError as error:  # a null character in the path
        raise LabError(str(path), str(error), "check that path") from error


def _content(handle: int, size: int) -> bytearray:
    """Return so many bytes of a file; raises `OSError` where it has no longer as many."""
    data = bytearray(size)
    view, here = memoryview(data), 0
    os.lseek(handle, 0, os.SEEK_SET)
    with contextlib.ExitStack() as shown:
        step = None
        if size > MOST_BYTES:  # rich need not be imported for less
            from nbsupport.base import progress  # noqa: PLC0415

            step = shown.enter_context(progress.bar("reading, in MiB", size // _CHUNK))
        while here < size:
            count = os.readv(handle, [view[here : here + _CHUNK]])
            if not count:
                raise OSError(errno.EIO, f"it became shorter ({here} bytes) while it was read")
            here += count
            if step:
                step()
    return data


def _profiles(data: memoryview) -> tuple[list[Profile], list[Problem]]:
    """Return the profiles of a file, and what is malformed between them."""
    profiles: list[Profile] = []
    broken: list[Problem] = []
    here, magic = 0, bytes(data[:8])
    whole = data.obj
    assert isinstance(whole, bytearray)
    while here < len(data):
        if len(profiles) == MOST_PROFILES:
            broken.append(Problem(here, f"more than {MOST_PROFILES} profiles: not read further"))
            break
        following = whole.find(magic, here + 8)
        own = data if following < 0 else data[:following]
        header = headers.read(own, here)
        if isinstance(header, Problem):
            broken.append(header)
            break
        if profiles and header.layout != profiles[0].header.layout:
            version, other = profiles[0].header.layout.raw_version, header.layout.raw_version
            what = f"raw version: expected {version} as before, found {other}"
            broken.append(Problem(here + 8, f"{what}: two runtimes wrote to one file"))
        profile = Profile(header)
        profiles.append(profile)
        if following < 0:
            break  # the value data of the last one is read when asked for
        if header.whole:
            here = _nonzero(own, profile.end)
            if following != here and not profile.records.mixed:
                what = (
                    f"expected the next profile, found {following - here} bytes of something else"
                )
                broken.append(Problem(here, what))
        here = following
        if here % 8:
            broken.append(Problem(here, "expected a profile at a multiple of 8"))
    return profiles, broken


def _nonzero(data: memoryview, here: int) -> int:
    """Return where the zeros from there on end."""
    while here < len(data):
        chunk = bytes(data[here : here + _CHUNK])
        rest = chunk.lstrip(b"\0")
        here += len(chunk) - len(rest)
        if rest:
            break
    return here


def _check_values(
    data: memoryview, blocks: int, kinds: int, order: Order
) -> tuple[int, list[Problem]]:
    """Return where the last of so many blocks of value data ends, and what is malformed.

    That is the first malformed block, for nothing tells where the next would be. A function with
    value sites has one: its size and number of kinds (4 bytes each), then for each kind: kind and
    number of sites (4 each), a byte of number of values for each site, padding to eight, and the
    values (8 bytes each, value and count). Source: ValueProfData, ValueProfRecord
    (InstrProfData.inc), ValueProfData::checkIntegrity (InstrProf.cpp); that a buffer has none:
    __llvm_profile_write_buffer (InstrProfilingBuffer.c).
    """
    pair = struct.Struct(f"{order}II").unpack_from
    here, length = 0, len(data)
    for _ in range(blocks):
        size, number = pair(data, here) if here + 8 <= length else (0, 0)
        if size < 8 or size % 8 or size > length - here or number > kinds:
            what = f"expected a block within {length - here} bytes of up to {kinds} kinds"
            what = f"value data: {what}, found {size} of {number}"
            if not length:
                what = (
                    f"value data: expected {blocks} blocks, found none, as "
                    "__llvm_profile_write_buffer leaves it"
                )
            if here + 8 > length or size > length - here:
                what = f"truncated {what}"
            return here, [Problem(here, what)]
        at, end = here + 8, here + size
        for _ in range(number):
            kind, sites = pair(data, at) if at + 8 <= end else (kinds, 0)
            values = sum(data[at + 8 : min(end, at + 8 + sites)])
            at += 8 + -(-sites // 8) * 8 + 16 * values
            if kind >= kinds or at > end:
                what = f"expected sites of kind 0 to {kinds - 1} within {size} bytes"
                what = f"value data: {what}, found {sites} of kind {kind}"
                return here, [Problem(here, what)]
        here = end
    return here, []
