"""The shapes in which debuggers, handlers and crash reporters print a backtrace, as patterns.

``data/shapes.toml`` has them, and says what its fields mean: no shape has code of its own.
"""

import functools
import re
from dataclasses import dataclass

from nbsupport.base import files, settings


@dataclass(frozen=True)
class Shape:
    """One shape of backtraces; `shapes.toml` explains the fields, which are patterns."""

    source: str
    frame: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    heading: str = ""
    inside: tuple[str, ...] = ()
    handler: str = ""
    hides: str = ""
    within: bool = False
    last: bool = False
    inlines: bool = False
    base: int = 10


@dataclass(frozen=True)
class Matcher:
    """A shape's patterns, compiled."""

    name: str
    shape: Shape
    frames: tuple[re.Pattern[str], ...] = ()
    stops: tuple[re.Pattern[str], ...] = ()
    heading: re.Pattern[str] | None = None
    inside: tuple[re.Pattern[str], ...] = ()
    handler: re.Pattern[str] | None = None
    hides: re.Pattern[str] | None = None


@functools.cache
def load() -> dict[str, Shape]:
    """Return the shapes by name, in the order in which a line is tried."""
    tables = files.read_toml(settings.data_dir() / "shapes.toml")
    return {name: files.load(Shape, table, f"shape {name}") for name, table in tables.items()}


@functools.cache
def matchers() -> tuple[Matcher, ...]:
    """Return the shapes with their patterns compiled."""

    def compiled(pattern: str) -> re.Pattern[str]:
        hexadecimal = pattern.replace("<hex>", "0x[0-9a-fA-F]{1,16}")
        return re.compile(hexadecimal.replace("<word>", "[0-9a-f`]{1,17}"))

    return tuple(
        Matcher(
            name,
            shape,
            tuple(compiled(pattern + "$") for pattern in shape.frame),
            tuple(map(compiled, shape.stop)),
            compiled(shape.heading) if shape.heading else None,
            tuple(map(compiled, shape.inside)),
            compiled(shape.handler) if shape.handler else None,
            compiled(shape.hides) if shape.hides else None,
        )
        for name, shape in load().items()
    )


@functools.cache
def ordered(last: str) -> tuple[Matcher, ...]:
    """Return the shapes with that of the last frame first, which the next is likely of."""
    return tuple(sorted(matchers(), key=lambda matcher: matcher.name != last))
