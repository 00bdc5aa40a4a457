"""What the profile runtime's functions are called, and when a program's own is called so, too."""

import functools
import re

from nbsupport.base import files, settings

#: What a compiler puts behind the name of a copy that it made, or of a part that it split off.
_SUFFIX = re.compile(r"\.(?:constprop|isra|part|cold|llvm|lto_priv|localalias)\b.*")
#: A source file with its line, as debuggers, sanitizers and handlers print it behind a frame.
_PLACE = re.compile(
    r"(?:^|[\s(])([^\s():]*\.(?:c|cc|cpp|cxx|m|mm|rs|h|hpp|inc|swift|go|zig|d)):\d+"
)
#: The runtime's own. Source: the files of compiler-rt/lib/profile and include/profile.
_RUNTIMES = re.compile(
    r"(?:^|/)(?:InstrProf\w+\.(?:c|cpp|h|inc)|WindowsMMap\.[ch])$|(?:^|/)(?:lib|include)/profile/"
)


@functools.cache
def readers() -> dict[str, frozenset[str]]:
    """Return the runtime's functions: `sites`, `walks`, `one` and `others`, which read no records.

    Names are without leading underscores.
    """
    lists = files.read_toml(settings.data_dir() / "runtime.toml")
    return {kind: frozenset(names) for kind, names in lists.items()}


@functools.cache
def functions() -> frozenset[str]:
    """Return all of them."""
    return frozenset().union(*readers().values())


def without_suffix(name: str) -> str:
    """Return the name of the function that a compiler made a copy of, or parted.

    >>> without_suffix("lprofWriteData.isra.0"), without_suffix("std::f")
    ('lprofWriteData', 'std::f')
    """
    return _SUFFIX.sub("", name)


def foreign_source(function: str, line: str) -> str:
    """Return the source file by which a function is a program's own, though called as one of these.

    `line` is that of its frame. "" where no file is told, or it is the runtime's.

    >>> foreign_source("__llvm_profile_dump", "#0 __llvm_profile_dump () at src/dump.c:3")
    'src/dump.c'
    """
    if without_suffix(function.lstrip("_")) not in functions():
        return ""
    place = _PLACE.search(line)
    path = place[1].replace("\\", "/") if place else ""
    return "" if _RUNTIMES.search(path) else path
