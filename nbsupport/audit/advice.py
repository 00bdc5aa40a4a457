"""What to do about a mixed link, as a line to run."""

import contextlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from nbsupport.audit.fate import LinkPiece, alike
from nbsupport.profile import layout

#: How instrumentation is taken back, later on the command line than where it was asked for;
#: the cc crate puts CFLAGS after the flags that it takes over from rustc.
UNDO = {
    "ir": "-fno-profile-generate",
    "front-end": "-fno-profile-instr-generate -fno-coverage-mapping",
}
#: What heads the line that does so for a cargo project.
LEAVE_OUT = "Leave the C code out of the profile"
#: The version of the cc crate since which CFLAGS come last.
_CFLAGS_LAST = (1, 2, 16)
_TRIPLES = {
    "x86_64-linux": "x86_64-unknown-linux-gnu",
    "aarch64-linux": "aarch64-unknown-linux-gnu",
    "x86_64-windows": "x86_64-pc-windows-msvc",
    "aarch64-windows": "aarch64-pc-windows-msvc",
}
_NOTE = ".rustc_info.json"


def cargo_target(path: Path) -> Path | None:
    """Return the cargo target folder that a path is in, or is, or None."""
    path = path.absolute()
    return next((folder for folder in (path, *path.parents) if (folder / _NOTE).is_file()), None)


def advise(
    path: Path,
    target: str,
    runtime: int,
    pieces: Sequence[LinkPiece],
    blamed: Sequence[str],
    guess: str = "",
) -> str:
    """Return a few sentences: what ends the mix, as exactly as can be said.

    `path` is of what is mixed, `target` the start of its triple, `runtime` the raw version
    that stays, `pieces` all that is in it, `blamed` the files that hold foreign records. `guess`
    names what the runtime is taken from where it is not there to see.
    """
    foreign = [piece for piece in pieces if piece.raw_version != runtime]
    if not foreign:
        makes = "; or ".join(sorted({str(piece) for piece in pieces}))
        return f"Build all files with the same flags: {makes}."
    how = "front-end" if all(piece.how == "front-end" for piece in pieces) else "ir"
    undo = UNDO[how]
    folder = cargo_target(path)
    if folder or any((above / "Cargo.toml").is_file() for above in path.absolute().parents):
        project, old = _old_cc(folder or path.absolute())
        if old:
            return (
                f"{LEAVE_OUT}. The cc crate {old} puts CFLAGS first, where they may take nothing "
                f"back (1.2.16 puts them last). The lines for this project:\n"
                f"cd {shlex.quote(str(project))} && pgo-lab check\n"
                f"{keep_in(runtime)}"
            )
        triple = _triple(path, folder, target)
        names = [f'{name}_{triple.replace("-", "_")}="{undo}"' for name in ("CFLAGS", "CXXFLAGS")]
        profile = " --release" if "release" in path.parts else ""
        cross = f" --target {triple}" if folder and (folder / triple).is_dir() else ""
        return (
            f"{LEAVE_OUT}, with the RUSTFLAGS you had:\n"
            f"{' '.join(names)} cargo build{profile}{cross}\n"
            f"{keep_in(runtime)}\n"
            "If this does not cure, pgo-lab check prints the lines for this project."
        )
    files = ", ".join(blamed[:3]) + (", …" if len(blamed) > 3 else "")
    what = files or f"what {layout.llvm_of(foreign[0].raw_version)} instrumented"
    line = f"Rebuild {what} with {fitting(runtime)}, or with {undo}."
    if all(alike(piece.raw_version, runtime) for piece in foreign):
        line += " Counts survive this mix only while the runtime's own objects come first."
    if guess:
        others = " or ".join(sorted({layout.llvm_of(piece.raw_version) for piece in foreign}))
        line += (
            f" No runtime is among these files: the link's is taken to be that of {guess}."
            f" If it is that of {others}, rebuild the rest instead."
        )
    return line


def fitting(raw_version: int) -> str:
    """Return in words which compiler of C writes records of a raw version."""
    return f"a clang of {layout.llvm_of(raw_version)} (raw version {raw_version})"


def keep_in(raw_version: int) -> str:
    """Return the sentence that says how the C code of a cargo project stays in the profile."""
    return f"Or keep it in: set CC to {fitting(raw_version)}."


def _old_cc(place: Path) -> tuple[Path, str]:
    """Return the folder of the Cargo.lock above a place, and its cc crate that lets no CFLAGS undo.

    The version is "" where all are newer, or none is there. Source: data/cc-crate.toml (`cflags`).
    """
    lock = next((up / "Cargo.lock" for up in place.parents if (up / "Cargo.lock").is_file()), None)
    text = ""
    with contextlib.suppress(OSError):
        text = lock.read_text(errors="replace") if lock else ""
    versions = re.findall(r'^name = "cc"\s+version = "((\d+)\.(\d+)\.(\d+)[\w.+-]*)"', text, re.M)
    old = [whole for whole, *numbers in versions if tuple(map(int, numbers)) < _CFLAGS_LAST]
    return lock.parent if lock else place, next(iter(old), "")


def _triple(path: Path, folder: Path | None, target: str) -> str:
    """Return the target triple of a cargo build: of its folder, else the host's."""
    parts = path.absolute().relative_to(folder).parts if folder else ()
    if parts and parts[0].count("-") >= 2:
        return parts[0]
    if folder:
        with contextlib.suppress(OSError):
            note = (folder / _NOTE).read_text(errors="replace")
            if host := re.search(r"host: ([\w.-]+)", note):
                return host[1]
    return _TRIPLES.get(target, target)
