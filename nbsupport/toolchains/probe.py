"""What one compiler is: asked, not looked up; its answers are kept in the cache."""

import contextlib
import dataclasses
import json
import platform
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nbsupport.base import files, process, settings
from nbsupport.base.errors import LabError, first_line
from nbsupport.profile import layout

Kind = Literal["clang", "rustc", "gcc"]

#: A clang's options for LLVM IR with instrumentation.
INSTRUMENT = ("-fprofile-generate", "-S", "-emit-llvm")


@dataclass(frozen=True)
class Toolchain:
    """One compiler and what stands beside it.

    `version` is LLVM's (a rustc's too; gcc's and Apple's are their own), `raw_version`
    that of the profiles it writes, None where it cannot instrument. `runtime` is the
    profile runtime's library, `targets` what it generates code for.
    """

    name: str
    kind: Kind
    version: str
    raw_version: int | None
    provider: str
    prefix: Path
    compiler: Path
    targets: tuple[str, ...] = ()
    runtime: Path | None = None
    llvm_profdata: Path | None = None
    lldb: Path | None = None

    @property
    def major(self) -> str:
        """The number people say: `19` for 19.1.7."""
        return self.version.split(".")[0]

    @property
    def identity(self) -> str:
        """What makes this compiler's objects its own: path, size and time of the executable."""
        return identity(self.compiler)

    def to_json(self) -> dict[str, Any]:
        """Return the row of `pgo-lab toolchains --json`."""
        row = {k: v for k, v in vars(self).items() if k not in ("kind", "compiler")}
        return {k: str(v) if isinstance(v, Path) else v for k, v in row.items()}


def identity(compiler: Path) -> str:
    """Return what tells this executable from another: a digest of path, size and time."""
    real = _chosen(compiler).resolve()
    stat = real.stat()
    return files.digest(f"{real}|{stat.st_size}|{stat.st_mtime_ns}")


def _chosen(compiler: Path) -> Path:
    """Return the compiler itself: what /usr/bin has on macOS starts that of the chosen Xcode.

    Source: xcrun(1); xcode-select and DEVELOPER_DIR choose, and an update changes no byte there.
    """
    if sys.platform == "darwin" and compiler.parent == Path("/usr/bin"):
        with contextlib.suppress(LabError):
            return Path(ask(["xcrun", "-f", compiler.name]).strip())
    return compiler


def probe(compiler: Path, provider: str) -> Toolchain:
    """Ask a compiler what it is, once: the answers are kept by its identity."""
    name = f"{identity(compiler)}-{provider}-{files.sha256(Path(__file__))[:8]}.json"
    note = settings.cache_dir() / "probes" / name
    with contextlib.suppress(LabError):
        noted = files.load(Toolchain, files.read_json(note), note.name)
        if all(value.exists() for value in vars(noted).values() if isinstance(value, Path)):
            return noted
    toolchain = _ask_rustc(compiler) if compiler.name == "rustc" else _ask_clang(compiler, provider)
    with contextlib.suppress(OSError):  # a read-only cache costs time, nothing else
        files.write(note, json.dumps(dataclasses.asdict(toolchain), default=str))
    return toolchain


class UnansweredError(LabError):
    """A compiler that was ended before it answered: what it is, is not known."""


def environment() -> dict[str, str]:
    """Return what a compiler that is only asked finds in its environment: it downloads nothing.

    Source: Cfg::should_auto_install (rustup's src/config.rs).
    """
    return process.environment({"RUSTUP_AUTO_INSTALL": "0"})


def ask(command: process.Command) -> str:
    """Return what a compiler prints; raises `LabError` with its own words when it refuses."""
    done = process.run(command, cwd=Path("/"), env=environment(), limits=settings.COMPILER)
    if done.limit or done.signal:
        raise UnansweredError(str(command[0]), "it was ended before it answered", "try again")
    if not done.ok:
        raise LabError(str(command[0]), first_line(done.stderr or done.stdout), "reinstall it")
    return done.stdout


def emitted(command: process.Command, name: str = "probe.c") -> str:
    """Return the LLVM IR that a compiler makes of an empty function `f`; raises as `ask` does."""
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as folder:
        source, output = Path(folder, name), Path(folder, "probe.ll")
        source.write_text("void f(void) {}\n" if name.endswith(".c") else "pub fn f() {}\n")
        ask([*command, source, "-o", output])
        return output.read_text(errors="replace") if output.is_file() else ""


def _ask_clang(compiler: Path, provider: str) -> Toolchain:
    version_text = ask([compiler, "--version"])
    prefix = compiler.parent.parent
    match = re.search(r"clang version (\d+\.\d+\.\d+)", version_text)
    if match is None and re.match(r"\S*(gcc|GCC)\S* \(", version_text):
        number = re.search(r"\d+\.\d+(\.\d+)?", version_text.partition(")")[2] or version_text)
        version = number[0] if number else "0"
        return Toolchain("gcc", "gcc", version, None, "system", prefix, compiler)
    if match is None:
        raise LabError(str(compiler), "does not say a clang version", "give the path of a clang")
    if "Apple clang" in version_text:
        provider = "apple"
    version = match[1]
    short = prefix.name if compiler.parent.name == "bin" else compiler.name
    return Toolchain(
        name=f"{version.split('.')[0]}@{short if provider == 'path' else provider}",
        kind="clang",
        version=version,
        raw_version=_raw_version([compiler, *INSTRUMENT]),
        provider=provider,
        prefix=prefix,
        compiler=compiler,
        targets=tuple(re.findall(r"^    (\S+) +- ", ask([compiler, "--print-targets"]), re.M)),
        runtime=_clang_runtime(Path(ask([compiler, "-print-resource-dir"]).strip())),
        llvm_profdata=_beside(prefix, "llvm-profdata", provider),
        lldb=_beside(prefix, "lldb", provider),
    )


def _ask_rustc(compiler: Path) -> Toolchain:
    version_text = ask([compiler, "-vV"])
    release, llvm, host = (
        (re.search(rf"^{key}: (\S+)", version_text, re.M) or ["", ""])[1]
        for key in ("release", "LLVM version", "host")
    )
    sysroot = Path(ask([compiler, "--print", "sysroot"]).strip())
    rustlib = sysroot / "lib" / "rustlib"
    # A rustup proxy stands for another executable: the one in the sysroot does the work.
    real = sysroot / "bin" / "rustc"
    command = (real, "--crate-type=lib", "--emit=llvm-ir", "-Cprofile-generate")
    runtimes = sorted((rustlib / host / "lib").glob("libprofiler_builtins-*.rlib"))
    return Toolchain(
        name=f"{llvm.split('.')[0]}@rustc-{release}",
        kind="rustc",
        version=llvm,
        raw_version=_raw_version(command, "probe.rs"),
        provider=f"rustc-{release}",
        prefix=sysroot,
        compiler=real,
        targets=tuple(sorted(p.parent.name for p in rustlib.glob("*/lib") if p.is_dir())),
        runtime=runtimes[0] if runtimes else None,
        llvm_profdata=_beside(rustlib / host, "llvm-profdata"),
    )


def _raw_version(command: process.Command, name: str = "probe.c") -> int | None:
    """Return the raw version of what a compiler instruments, None where it cannot.

    Source: `__llvm_profile_raw_version`, made by createIRLevelProfileFlagVar
    (PGOInstrumentation.cpp). Raises `UnansweredError`, for then it may.
    """
    try:
        text = emitted(command, name)
    except UnansweredError:
        raise
    except LabError:
        return None
    match = re.search(r"@__llvm_profile_raw_version = .* i64 (-?\d+)", text)
    return layout.split(int(match[1]))[0] if match else None


def _clang_runtime(resources: Path) -> Path | None:
    """Return the profile runtime for this machine, in either of compiler-rt's folder layouts."""
    machine = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    patterns = [
        f"lib/{machine}-*linux*/libclang_rt.profile.a",
        f"lib/linux/libclang_rt.profile-{machine}.a",
        "lib/linux/libclang_rt.profile.a",
    ]
    if sys.platform == "darwin":
        patterns = ["lib/darwin/libclang_rt.profile_osx.a"]
    return next((library for p in patterns for library in sorted(resources.glob(p))), None)


def _beside(prefix: Path, tool: str, provider: str = "") -> Path | None:
    if provider == "apple":  # Xcode's tools are found by xcrun, not beside /usr/bin/clang
        with contextlib.suppress(LabError):
            return Path(ask(["xcrun", "-f", tool]).strip())
        return None
    found = prefix / "bin" / tool
    return found if found.is_file() else None
