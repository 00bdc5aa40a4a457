"""The profile runtime, as it stands on the stack of a crash: what reads records, and known bugs."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nbsupport.base import files, settings
from nbsupport.crash import runtime_names
from nbsupport.crash.reports import CrashReport
from nbsupport.crash.runtime_names import without_suffix

readers, functions = runtime_names.readers, runtime_names.functions
_NEAR = 64
#: The C library's copies, under the names of its own variants and of the sanitizers'.
_COPIES = re.compile(
    r"(?:mem(?:cpy|move|set|cmp|chr)|bcopy|platform_mem\w+"
    r"|mem\w+_(?:avx|sse|erms|evex|unaligned|neon|generic)\w*"
    r"|(?:asan|interceptor|sanitizer_internal)_mem\w+)(?:@.*)?$"
)
#: What runs before main: the loader's, the C library's, constructors.
_INITIALIZER = re.compile(
    r"call_init|dl_init|dl_main|dl_start|libc_csu_init|do_global_ctors|frame_dummy|GLOBAL__sub_I_"
    r"|cxx_global_var_init|llvm_profile_(?:initialize|init)$|dyld|ImageLoader|libSystem_initializer"
    r"|runInitializers|doModInitFunctions"
)
_MAIN = re.compile(
    r"main$|(?:\w+::)*\w*Main$|\w*4main(?:17h\w+)?E?$|\w+::main$|std::rt::lang_start|w?WinMain|libc_start_call_main"
)
_START = re.compile(r"libc_start_main(?:_impl)?$")
_EXIT = re.compile(
    r"exit$|run_exit_handlers|cxa_finalize|lprofAtExit|dl_fini|common_exit|execute_onexit"
)


@dataclass(frozen=True)
class KnownBug:
    """A crash of the runtime without mixed records; `known-bugs.toml` explains the fields."""

    versions: str
    why: str
    test: str
    reference: str
    frames: str = ""
    others: str = ""
    text: str = ""
    signal: str = ""

    def shows(self, report: CrashReport, text: str) -> bool:
        """Return whether a crash has what is seen of this bug."""
        signal = report.crash.signal if report.crash else ""
        return (
            re.search(self.frames, _chain(report.functions)) is not None
            and (not self.others or any(re.search(self.others, _chain(o)) for o in report.others))
            and re.search(self.text, text) is not None
            and self.signal in ("", signal)
        )


@functools.cache
def known_bugs() -> dict[str, KnownBug]:
    """Return the known bugs by name."""
    tables = files.read_toml(settings.data_dir() / "known-bugs.toml")
    return {name: files.load(KnownBug, table, f"bug {name}") for name, table in tables.items()}


def innermost(names: Sequence[str]) -> tuple[str, int | None]:
    """Return the runtime's innermost function if it reads records, and where it stands, if it does.

    Only the C library's copies may stand above one that reads records; None: there is none.
    """
    lists = readers()
    for n, name in enumerate(map(without_suffix, names[:_NEAR])):
        if name in lists["sites"] | lists["walks"]:
            copied = all(_COPIES.match(above) for above in names[:n])
            return (name if copied else ""), n
        if name in functions():
            return "", n
    return "", None


def face(names: Sequence[str], reader: str) -> str:
    """Return when it crashed in the runtime: before main, in main, or at exit."""
    if not reader:
        return ""
    exits = any(map(_EXIT.match, names))
    pairs = itertools.pairwise(names)
    # The C library calls main alone by another name; it may be a constructor's caller, inlined.
    called = any(name and _START.match(caller) for name, caller in pairs)
    begins = called or any(map(_INITIALIZER.match, names))
    if begins and not exits and not any(map(_MAIN.match, names)):
        return "before main"
    if reader in readers()["sites"] or ("main" in names and not exits):
        return "in main"
    return "at exit"


def known_bug(report: CrashReport, text: str) -> KnownBug | None:
    """Return the known bug that such a crash is of."""
    return next((bug for bug in known_bugs().values() if bug.shows(report, text)), None)


def _chain(functions: Sequence[str]) -> str:
    """Return functions as the patterns of known bugs have them."""
    names = [function.lstrip("_") for function in functions[:_NEAR]]
    handler = ("<signal handler called>", "sigtramp", "restore_rt")
    return "".join(f"{'(signal)' if name in handler else name} < " for name in names)
