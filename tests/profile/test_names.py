"""Function names as objects and profiles store them."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbsupport.profile import names
from tests.support.synthetic import uleb


def blob(text: bytes, packed: bool = False) -> bytes:
    """One object's names, as its compiler writes them."""
    content = zlib.compress(text) if packed else text
    return uleb(len(text)) + uleb(len(content) if packed else 0) + content


@pytest.mark.parametrize("packed", [False, True])
def test_names_of_several_objects_and_the_zeros_between(packed: bool) -> None:
    long = b"x" * 300  # its length takes two bytes
    both = blob(b"main\1main.c;add", packed) + bytes(5) + blob(long, not packed) + bytes(3)
    found = names.decode(both)
    assert found.text == [b"main", b"main.c;add", long]
    assert not found.problems
    assert names.decode(memoryview(both)).text == found.text


def test_a_name_reference_is_what_compilers_write() -> None:
    """The NameRef of `main`, as any raw profile of a C program has it."""
    assert names.Names([b"main"]).hashes.tolist() == [0xDB956436E78DD5FA]


def test_names_are_looked_up_by_reference() -> None:
    known = names.Names([b"main", b"f", b"main"])
    asked = np.append(known.hashes[:2], np.uint64(7))
    found = known.index(asked)
    assert [known.text[n] for n in found[:2]] == [b"main", b"f"]
    assert found[2] == -1
    assert names.Names().index(asked).tolist() == [-1] * 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x80" * 12, "no whole number"),  # a size that goes on and on
        (uleb(1 << 62) + b"\0f", "found 1 bytes"),  # larger than anything
        (b"\x05\x00abcd", "expected 5 bytes, found 4"),  # cut
        (b"\x05\x04abcd", "zlib says"),  # not compressed
        (uleb(1 << 40) + uleb(8) + bytes(8), "not believed"),
        (uleb(9) + uleb(12) + zlib.compress(b"abc") + b"\0", "expected to inflate to 9 bytes"),
    ],
)
def test_a_bad_blob_is_a_problem_and_the_good_ones_are_read(data: bytes, says: str) -> None:
    good = blob(b"good")
    found = names.decode(good + data)
    assert b"good" in found.text
    assert [problem.offset for problem in found.problems][:1] == [len(good)]
    assert says in found.problems[0].what


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_blob_has_an_answer(data: bytes) -> None:
    found = names.decode(data)
    assert sum(map(len, found.text)) <= names.MOST_INFLATION * len(data) + 4096
    assert len(found.hashes) == len(found.text)


def test_no_more_names_are_read_than_are_asked_for() -> None:
    found = names.decode(blob(b"a\1b\1c\1d") + blob(b"e"), most=3)
    assert (found.text, len(found.hashes)) == ([b"a", b"b", b"c"], 3)
    assert "of them is not read" in found.problems[0].what
