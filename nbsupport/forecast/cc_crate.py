"""What the cc crate does, by its version: which variables it reads, what it hands a compiler."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nbsupport.base import files, settings
from nbsupport.base.errors import LabError

Family = Literal["clang", "gnu", "other"]

#: Programs that stand before a compiler in CC. Source: env_tool (cc's src/lib.rs).
WRAPPERS = ("ccache", "distcc", "sccache", "icecc", "cachepot", "buildcache", "kache")
#: What goes before another word of RUSTFLAGS. Source: RustcCodegenFlags::parse (cc's flags.rs).
_PREFIXES = {
    "-Z",
    "-C",
    "--codegen",
    "-L",
    "-l",
    "-o",
    "-W",
    "--warn",
    "-A",
    "--allow",
    "-D",
    "--deny",
}
_PREFIXES |= {"-F", "--forbid"}
_FLAG = "profile-generate"


@dataclass(frozen=True)
class Era:
    """How cc behaves from the version `since` on; data/cc-crate.toml explains each key."""

    since: str
    source: str
    families: tuple[str, ...]
    cflags: str
    every_variable: bool
    folder: bool
    links: bool

    @property
    def curable(self) -> bool:
        """Whether CFLAGS can take back what is handed on: they come last."""
        return not self.families or self.cflags == "last"


@functools.cache
def eras() -> tuple[Era, ...]:
    """Return the eras, oldest first; raises `LabError` for data that is not as it should be."""
    path = settings.data_dir() / "cc-crate.toml"
    table: dict[str, object] = {}
    whole = []
    for change in files.read_toml(path).get("era", ()):
        table = {**table, **change}
        whole.append(files.load(Era, table, path.name))
    return tuple(whole)


def numbers(version: str) -> tuple[int, ...]:
    """Return a version to compare by; what follows `-` or `+` does not count.

    >>> numbers("1.2.16+x"), numbers("1.2.9") < numbers("1.2.16")
    ((1, 2, 16), True)
    """
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[-+]", version)[0]))


def era_of(version: str) -> Era:
    """Return how a version of cc behaves; a newer one than was looked at as the newest did.

    >>> era_of("1.2.1").families, era_of("1.2.8").families, era_of("1.2.9").families
    ((), ('clang', 'gnu'), ('clang',))
    >>> era_of("1.2.15").cflags, era_of("1.2.16").cflags, era_of("1.6.0").links
    ('first', 'last', False)
    """
    return [era for era in eras() if numbers(era.since) <= numbers(version)][-1]


def variables(name: str, target: str, host: str) -> tuple[str, ...]:
    """Return the names of a setting, the most specific first. Source: target_envs (src/lib.rs).

    >>> variables("CC", "aarch64-apple-darwin", "x86_64-unknown-linux-gnu")[1:3]
    ('CC_aarch64_apple_darwin', 'TARGET_CC')
    """
    kind = "HOST" if target == host else "TARGET"
    plain = re.sub(r"[-.]", "_", target)
    return f"{name}_{target}", f"{name}_{plain}", f"{kind}_{name}", name


def flags(env: Mapping[str, str], names: Sequence[str], era: Era) -> list[str]:
    """Return the flags of the CFLAGS variables `names`, most specific first, as an era has them."""
    texts = [env[name] for name in names if name in env]
    texts = texts[::-1] if era.every_variable else texts[:1]
    return [word for text in texts for word in split(env, text)]


def split(env: Mapping[str, str], text: str) -> list[str]:
    """Return the words of a CFLAGS variable, as a shell's where CC_SHELL_ESCAPED_FLAGS says so."""
    shell = env.get("CC_SHELL_ESCAPED_FLAGS", "") not in ("", "0", "false")
    try:
        return shlex.split(text) if shell else text.split()
    except ValueError as error:
        raise LabError(f"flags {text}", f"no words of a shell ({error})", "mend them") from error


@dataclass(frozen=True)
class Tool:
    """What a CC variable says: the compiler and its arguments, and the wrapper before it."""

    variable: str
    program: str
    arguments: tuple[str, ...] = ()
    wrapper: str = ""


def tool(env: Mapping[str, str], name: str, target: str, host: str) -> Tool | None:
    """Return the compiler that CC or CXX (`name`) names; None where cc takes its default.

    The first variable that is set decides, even an empty one. A path with spaces that is a file is
    one program; else words are arguments. Source: env_tool, getenv_with_target_prefixes.
    """
    variable = next((v for v in variables(name, target, host) if v in env), None)
    if variable is None or not env[variable].strip():
        return None
    text = env[variable].strip()
    if Path(text).is_file():
        return Tool(variable, text)
    first, *rest = text.split()
    custom = env.get("CC_KNOWN_WRAPPER_CUSTOM")
    if rest and Path(first).stem in (*WRAPPERS, custom):
        return Tool(variable, rest[0], tuple(rest[1:]), first)
    return Tool(variable, first, tuple(rest))


def profile_folder(rustflags: Sequence[str]) -> str | None:
    """Return the folder of the last -Cprofile-generate: "" where it has none, None without it.

    As cc reads them, word by word. Source: RustcCodegenFlags::parse (src/flags.rs).

    >>> profile_folder(["-Cprofile-generate=a"]), profile_folder(["-C", "profile-generate"])
    ('a', '')
    """
    folder, before = None, ""
    for word in rustflags:
        if not before and word in _PREFIXES:
            before = word
            continue
        codegen = before in ("-C", "--codegen")
        text = word if codegen else re.sub("^(-C|--codegen=)", "", word)
        if (codegen or text != word) and text.partition("=")[0] == _FLAG:
            folder = text.partition("=")[2]
        before = ""
    return folder


def command_line(era: Era, handed_on: Sequence[str], cflags: Sequence[str]) -> list[str]:
    """Return the flags of a compilation in the order of an era, as far as they matter here.

    `handed_on` is all that cc gives a compiler of its own.

    >>> command_line(era_of("1.2.15"), ["-fprofile-generate"], ["-fno-profile-generate"])
    ['-fno-profile-generate', '-fprofile-generate']
    """
    if era.cflags == "last":
        return [*handed_on, *cflags]
    return [*cflags, *handed_on]
