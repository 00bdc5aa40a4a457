"""What tests of traces share."""

from __future__ import annotations

from nbsupport.trace.trace import Trace


def in_order(found: Trace, *wanted: tuple[str, str]) -> None:
    """Expect these events (kind, function or what it says) in this order, among others."""
    rows = found.events[["kind", "function", "what"]].itertuples(index=False)
    for kind, said in wanted:
        assert any(row.kind == kind and said in (row.function, row.what) for row in rows), said
