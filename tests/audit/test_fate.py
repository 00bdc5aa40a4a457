"""What becomes of a link: the rules, one by one."""

from __future__ import annotations

import pytest

from nbsupport.audit.fate import LinkPiece, predict

V8, V9, V10, V11 = (LinkPiece(version) for version in (8, 9, 10, 11))
FRONT = LinkPiece(8, "front-end")
BYTE = LinkPiece(10, variants=("ir", "byte-coverage"))
TIMED = LinkPiece(10, variants=("ir", "temporal"))
ENTRY = LinkPiece(10, variants=("ir", "entry-first"))
MCDC = LinkPiece(9, "front-end", bitmaps=True)
PLAIN = LinkPiece(10, variants=("ir",))


@pytest.mark.parametrize(
    ("runtime", "pieces", "outcomes"),
    [
        (10, [], "no-profile"),
        (10, [V10, V10], "ok"),
        (10, [V10, V8], "crash malformed"),
        (10, [V8, V10], "crash version-mismatch"),
        (10, [V8], "crash version-mismatch"),
        (10, [FRONT, V10], "crash malformed"),
        (10, [FRONT, V8], "crash version-mismatch"),
        (10, [V10, V9], "ok"),
        (10, [V9, V10], "version-mismatch"),
        (10, [V10, V9, V11], "crash malformed"),
        (8, [V8, LinkPiece(7)], "crash malformed"),  # one stride, but CounterPtr became relative
        (7, [LinkPiece(7), LinkPiece(5)], "ok"),
        (12, [LinkPiece(12)], "ok"),
        (12, [LinkPiece(12), V11], "ok crash malformed wrong-counts"),  # not known
        (12, [V11, LinkPiece(12)], "crash version-mismatch"),
        (10, [PLAIN, BYTE], "malformed wrong-counts"),
        (10, [BYTE, PLAIN], "wrong-counts"),
        (10, [PLAIN, TIMED], "wrong-counts"),
        (10, [TIMED, PLAIN], "wrong-counts"),
        (10, [PLAIN, ENTRY], "ok"),
        (10, [MCDC], "ok"),
    ],
)
def test_each_outcome(runtime: int, pieces: list[LinkPiece], outcomes: str) -> None:
    assert predict(runtime, pieces).outcomes == set(outcomes.split())


@pytest.mark.parametrize(
    ("runtime", "pieces", "says"),
    [
        (10, [PLAIN, ENTRY], "-fprofile-use misreads"),
        (10, [MCDC, LinkPiece(10, "front-end")], "MC/DC bitmaps vanish"),
        (9, [MCDC], ""),
        (10, [PLAIN, PLAIN], ""),
    ],
)
def test_what_is_lost_though_all_seems_well(
    runtime: int, pieces: list[LinkPiece], says: str
) -> None:
    found = predict(runtime, pieces)
    assert found.outcomes == {"ok"}
    assert found.fine == (not says)
    assert says in found.loss
