"""The reproducer of the fault, for who has no laboratory: packed, unpacked, and tried.

Its files are in `data/upstream/reproducer`; LLVM's test of it is in `data/lit`.
"""

import atexit
import gzip
import io
import re
import tarfile
import tempfile
from pathlib import Path

from nbsupport.base import process, settings
from nbsupport.crash.crash import Crash
from nbsupport.lab.lab import ORDERS, Invocation, Lab
from nbsupport.studies import hypotheses
from nbsupport.toolchains import download
from nbsupport.toolchains.probe import Toolchain

#: What goes beside a report, and in that, for LLVM's lit.
ARCHIVE, TEST = "pgo-mix-reproducer.tar.gz", "mixed-records.c"
#: How a program's outcome is called by the reproducer's Makefile.
_WORDS = {"crash": "crash", "ok": "fine", "version-mismatch": "version mismatch"}


def archive() -> bytes:
    """Return the archive of the reproducer; the same files give the same bytes."""
    content, data = io.BytesIO(), settings.data_dir()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as packed:
        for path in (*sorted((data / "upstream" / "reproducer").iterdir()), data / "lit" / TEST):
            entry = tarfile.TarInfo(f"{ARCHIVE.partition('.')[0]}/{path.name}")
            entry.size, entry.mode = path.stat().st_size, 0o644
            packed.addfile(entry, io.BytesIO(path.read_bytes()))
    return gzip.compress(content.getvalue(), mtime=0)


def unpack() -> Path:
    """Return the folder of the reproducer, unpacked for as long as this process lives."""
    place = tempfile.TemporaryDirectory(prefix="pgo-lab-", ignore_cleanup_errors=True)
    atexit.register(place.cleanup)
    with tarfile.open(fileobj=io.BytesIO(archive())) as packed:
        download.extract(packed, Path(place.name))
    return Path(place.name, ARCHIVE.partition(".")[0])


def make(folder: Path, main: Toolchain, foreign: Toolchain) -> str:
    """Make its programs by `main` (CC) and `foreign` (CC2), run them; return what is printed."""
    compilers = (f"CC={main.compiler}", f"CC2={foreign.compiler}")
    command = ("make", "mixed", "swapped", "uniform", *compilers)
    env = {"PATH": "/usr/bin:/bin"}
    return process.run(command, cwd=folder, env=env, limits=settings.COMPILER).stdout


def read_ends(printed: str) -> dict[str, str]:
    """Return how each of its programs ended, out of what `make` returns."""
    lines = (line.split(": ", 1) for line in printed.splitlines() if line[:1].islower())
    return {name: re.split(r" \(|,", end)[0] for name, end in lines}


def predict_ends(lab: Lab, llvm: str, foreign: str) -> dict[str, frozenset[str]]:
    """Return how each of its two mixed programs may end, in the words of `read_ends`."""
    trials = [lab.trial("cold", llvm, foreign, order=order) for order in ORDERS]
    predicted = (frozenset(map(_WORDS.__getitem__, hypotheses.predict(each))) for each in trials)
    return dict(zip(("mixed", "swapped"), predicted, strict=True))


def find_crash(lab: Lab, program: Path, main: Toolchain) -> Crash | None:
    """Run one of its programs, whose runtime is that of `main`; return its crash, if it does."""
    outcome, _ = lab.judge_command(Invocation([program], main, settings.PROGRAM))
    return outcome.crash
