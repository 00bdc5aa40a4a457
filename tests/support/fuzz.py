"""Fuzz the readers, guided by coverage: `make fuzz SECONDS=600`.

Each reader gets a process of its own, which begins with real files of five LLVMs and ends at
the first input that raises anything but a LabError, takes ten seconds, or too much memory.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from nbsupport.base import settings
from nbsupport.base.errors import LabError
from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.profile import layout
from nbsupport.toolchains import discovery
from tests.support import synthetic
from tests.support.synthetic import Function

READERS = ("profraw", "objects", "guard")
VERSIONS = ("17", "18", "19", "22", "23")
PROGRAM = "int g(int); int f(int n) { return n ? g(n) : 1; }\n"
SMALL = [Function("f", 1, [5, 6], sites={0: [[(1, 2)]]}), Function("g", 2, [7])]
TARGETS = ("x86_64-linux-gnu", "i386-linux-gnu", "x86_64-apple-macos11", "x86_64-pc-windows-msvc")


def seeds(folder: Path) -> None:
    """Fill `profraw` and `objects` in a folder with small files of every kind."""
    for reader in READERS:
        (folder / reader).mkdir()
    (folder / "f.c").write_text(PROGRAM)
    with Lab() as lab:
        for version in VERSIONS:
            clang = str(discovery.find(version).compiler)
            for target in TARGETS:
                command = [clang, f"--target={target}", "-O1", "-c", "-ffreestanding"]
                for kind in ("-fprofile-generate", "-fprofile-instr-generate"):
                    out = folder / "objects" / f"{version}-{target}{kind}.o"
                    source = str(folder / "f.c")
                    subprocess.run([*command, kind, source, "-o", str(out)], check=True)
            for foreign in ("17", "19"):
                program = build.linked(
                    lab.trial("cold", version, foreign, instrument="front-end"),
                    settings.cache_dir(),
                )
                raw = folder / "profraw" / f"{version}-{foreign}.profraw"
                env = {"LLVM_PROFILE_FILE": str(raw)}
                subprocess.run([program], env=env, stdout=subprocess.DEVNULL, check=False)
        for raw_version in layout.LAYOUTS:  # what nobody here writes: old ones, those of Windows
            for late in (0, 7):
                data = synthetic.profile(SMALL, raw_version | 1 << 56, late=late)
                (folder / "profraw" / f"{raw_version}-{late}.profraw").write_bytes(data)
        ar = discovery.find("19").prefix / "bin" / "llvm-ar"
        objects = sorted((folder / "objects").glob("*linux-gnu*.o"))
        subprocess.run([ar, "rcs", folder / "objects" / "f.a", *objects[:2]], check=True)
        for path in (folder / "objects").iterdir():
            shutil.copy(path, folder / "guard")


def fuzz(reader: str, options: list[str]) -> None:
    """Fuzz one reader in this process; does not return."""
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=["nbsupport.profile", "nbsupport.audit"]):
        from nbsupport.audit import guard, objects
        from nbsupport.profile import infer, profraw

    scratch = Path(tempfile.mkdtemp(prefix="pgo-lab-fuzz-")) / "input"

    def read_profile() -> None:
        found = profraw.read(scratch)
        assert found.problems is not None  # computed when asked for
        list(found.rows())

    def read_object() -> None:
        found = objects.read(scratch)
        for part in found.parts if found else ():
            for section in part.sections:
                infer.find(section)

    def read_link() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            guard.refused(["cc", str(scratch)])

    work = {"profraw": read_profile, "objects": read_object, "guard": read_link}[reader]

    def once(data: bytes) -> None:
        scratch.write_bytes(data)
        with contextlib.suppress(LabError):
            work()

    atheris.Setup([sys.argv[0], *options], once)
    atheris.Fuzz()


def main() -> int:
    if sys.argv[1] in READERS:
        fuzz(sys.argv[1], sys.argv[2:])
    found = Path("build/fuzz")
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pgo-lab-fuzz-") as name:
        seeds(Path(name))
        # The fuzzer keeps some 8 KB of each input: all memory tells nothing, one request does.
        memory = ["-malloc_limit_mb=512", "-rss_limit_mb=0"]
        limits = [f"-max_total_time={sys.argv[1]}", "-timeout=10", *memory]
        running = []
        for reader in READERS:
            corpus = Path(name, reader)
            options = [
                str(corpus),
                *limits,
                "-max_len=65536",
                f"-artifact_prefix={found}/{reader}-",
            ]
            log = (found / f"{reader}.log").open("w+")
            command = [sys.executable, "-m", __spec__.name, reader, *options]
            child = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "TMPDIR": name}
            )
            running.append((reader, child, log))
        codes = [child.wait() for _, child, _ in running]
    for reader, child, log in running:
        log.seek(0)
        runs = re.search(r"Done (\d+) runs in (\d+) second", log.read())
        what = f"{runs[1]} inputs in {runs[2]} s" if runs else "ended early"
        said = "found nothing" if child.returncode == 0 else f"FOUND SOMETHING: {log.name}"
        print(f"{reader}: {what}, {said}")  # noqa: T201
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
