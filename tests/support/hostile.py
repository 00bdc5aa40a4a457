"""Bytes that are wrong: what each reader of files is fed with, and must answer or refuse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import strategies as st

from nbsupport.profile.layout import MAGIC

#: By what they begin, that some reader of ours may take for its own.
MAGICS = {
    "ELF": b"\x7fELF",
    "Mach-O": b"\xcf\xfa\xed\xfe",
    "fat": b"\xca\xfe\xba\xbe\0\0\0\x02",
    "COFF": b"\x64\x86",
    "large COFF": b"\0\0\xff\xff\0\0\x64\x86",
    "PE": b"MZ",
    "archive": b"!<arch>\n",
    "thin archive": b"!<thin>\n",
    "bitcode": b"BC\xc0\xde",
    "raw profile": MAGIC[64][::-1] + b"\x0a" + bytes(7),
    "raw profile of 32 bits": MAGIC[32][::-1] + b"\x0a" + bytes(7),
    "big-endian raw profile": MAGIC[64] + bytes(7) + b"\x0a",
    "indexed profile": b"\xfflprofi\x81",
    "macOS report": b'{"bug_type":"309"}\n',
}
#: Text that a terminal or a page would obey.
ESCAPES = b"\x1b[31mred\x1b]0;title\x07 <script>[bold]\r\n"
#: Files of no format, or with nothing behind a format's beginning but what cannot be there.
JUNK = {
    "nothing": b"",
    "zeros": bytes(300),
    "every byte": bytes(range(256)),
    "text": b"hello, world\n",
    "escape codes": ESCAPES,
    "brackets": b'{"bug_type":' + b"[" * 100_000,
    **MAGICS,
    **{f"{name}, zeros": start + bytes(400) for name, start in MAGICS.items()},
    **{f"{name}, huge numbers": start + b"\xff" * 400 for name, start in MAGICS.items()},
    **{f"{name}, escape codes": start + ESCAPES * 9 for name, start in MAGICS.items()},
}
#: Put in place of a few bytes, they make a size, a count or an offset impossible.
_NUMBERS = (b"\0", b"\x7f", b"\xff" * 4, b"\xff" * 8, b"\0\0\0\x80", b"99999999", b"\x1b[0m")


def cuts(data: bytes, step: int = 1) -> Iterator[bytes]:
    """Yield what is left when a file is cut off: everywhere at its head, now and then behind it.

    There, of a long run of zeros (padding, of 300 kB in a sample) at its two ends only.
    """
    for length in range(0, min(len(data), 600), step):
        yield data[:length]
    for length in range(600, len(data), 10 * step + 1):
        if any(data[length - 64 : length]) or any(data[length : length + 64]):
            yield data[:length]


@st.composite
def spoiled(draw: st.DrawFn, samples: Sequence[bytes], within: int = 2048) -> bytes:
    """Return one of the samples with wrong numbers and flipped bits, perhaps cut off."""
    data = bytearray(draw(st.sampled_from(samples)))
    last = min(len(data), within) - 1
    for _ in range(draw(st.integers(1, 8)) if data else 0):
        place, new = draw(st.integers(0, last)), draw(st.sampled_from((None, *_NUMBERS)))
        if new is None:
            data[place] ^= 1 << draw(st.integers(0, 7))
        else:
            data[place : place + len(new)] = new
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)
