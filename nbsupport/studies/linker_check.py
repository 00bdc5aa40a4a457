"""A prototype of a guard in LLVM: a mix of raw versions becomes an error of the linker.

Each instrumented object refers to a symbol with its raw version in the name, which only a
runtime of that raw version defines. LLVM would emit both where it emits
`__llvm_profile_raw_version` (createIRLevelProfileFlagVar in PGOInstrumentation.cpp,
InstrProfilingVersionVar.c); here objects (ELF) are rewritten, and one stands beside the runtime.
"""

import dataclasses
import importlib.util
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nbsupport.audit import evidence
from nbsupport.base import files, process, settings
from nbsupport.base.errors import BuildError, LabError, MissingError, first_line
from nbsupport.lab import Lab, build, counts
from nbsupport.lab.lab import Invocation
from nbsupport.toolchains import Toolchain, profdata

#: The symbol is this and a raw version.
SYMBOL = "__llvm_profile_runtime_v"
_STACK = '.section .note.GNU-stack,"",@progbits\n'
#: Retained ("R"), for --gc-sections drops what nothing refers to; hidden, for each image has a
#: runtime of its own; four bytes, relocated when the image is linked, not when it is loaded.
_NEED = '.section .llvm_prf_runtime,"aR",@progbits\n.hidden {0}\n.long {0} - .\n' + _STACK
_GIVE = ".globl {0}\n.hidden {0}\n.section .rodata\n{0}:\n.byte 0\n" + _STACK


def require(compiled: Path, out: Path, toolchain: Toolchain) -> None:
    """Write an object that also refers to the runtime of its raw version; `toolchain` links it.

    Raises `LabError` when its raw version cannot be told, or the linker says no.
    """
    content = evidence.read(compiled)
    parts = content.parts if isinstance(content, evidence.Evidence) else ()
    versions = {version for part in parts for version in part.raw_versions}
    if len(versions) != 1:
        raise LabError(str(compiled), "not of one raw version", "give an instrumented object")
    _assemble(_NEED, versions.pop(), toolchain, out, compiled.absolute())


def provide(toolchain: Toolchain, out: Path) -> None:
    """Write the object that stands beside the runtime of a toolchain, and defines its symbol."""
    _assemble(_GIVE, toolchain.raw_version, toolchain, out)


def _assemble(text: str, version: int | None, clang: Toolchain, out: Path, *more: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as folder:
        Path(folder, "stub.s").write_text(text.format(f"{SYMBOL}{version}"))
        command: process.Command = (*_clang(clang), "-r", "-nostdlib", *more, "stub.s", "-o")
        done = process.run([*command, out.absolute()], cwd=Path(folder), limits=settings.COMPILER)
    if not done.ok:
        raise BuildError(f"rewriting {out.name}", first_line(done.stderr), "choose another clang")
    content = out.read_bytes()  # bfd and gold retain only where EI_OSABI is ELFOSABI_GNU,
    files.write(out, content[:7] + b"\3" + content[8:])  # which lld forgets when told -m


def _clang(toolchain: Toolchain) -> list[str]:
    return [str(toolchain.compiler), *build.linker_flags(toolchain)]


def link(lab: Lab, main: str, foreign: str, *, order: str = "main-first") -> dict[str, Any]:
    """Link and run program `cold` as it is, and guarded; return a row of `try_all`.

    `main` and `foreign` are names of toolchains, `order` is that on the link line. Of the row,
    `today` and `guarded` are kinds of outcome, `refused` for a link that the guard makes an
    error; `ok` is earned by each function's own counts. `message` is the linker's, without paths.
    """
    trial = lab.trial("cold", main, foreign, order=order)
    row = trial.to_row() | {"today": lab.run(trial).kind, "guarded": "refused", "message": ""}
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder, objects = Path(name), list[Path]()
        for job in build.jobs(trial):
            objects.append(folder / f"{len(objects)}.o")
            require(build.compiled(job, lab.cache), objects[-1], job.toolchain)
        provide(trial.runtime, folder / "give.o")
        command = build.link_line(dataclasses.replace(trial, link=("give.o",)), objects)
        done = process.run([*command, "program"], cwd=folder, limits=settings.COMPILER)
        if done.ok:
            run = Invocation([folder / "program"], trial.runtime, lab.limits)
            expected = counts.together(lab.reference(part) for part in trial.references)
            row["guarded"] = lab.judge_command(run, lambda: expected)[0].kind
        elif message := re.search(rf"undefined .*{SYMBOL}\d+", done.stderr):
            row["message"] = message[0]
        else:
            raise BuildError("linking", first_line(done.stderr), "choose other compilers")
    return row


def try_all(lab: Lab, names: Sequence[str]) -> pd.DataFrame:
    """Return a row (see `link`) for every toolchain as main with every one as foreign."""
    return pd.DataFrame([link(lab, main, foreign) for main in names for foreign in names])


def try_lit(main: Toolchain, foreign: Toolchain) -> tuple[str, str]:
    """Return whether `run_lit` "passes" or "fails": as compilers are, and by guarded ones."""
    passed = [run_lit(main, foreign, guarded=guarded)[0] for guarded in (False, True)]
    today, guarded = ("passes" if ok else "fails" for ok in passed)
    return today, guarded


def run_lit(main: Toolchain, foreign: Toolchain, *, guarded: bool) -> tuple[bool, str]:
    """Run data/lit, the test for LLVM, and return whether it passes, and what lit prints.

    `guarded`: by the prototype's compilers, not as they are. Paths of its temporary folder are
    cut short. Raises `MissingError` where PyPI's lit and filecheck are not.
    """
    if missing := [name for name in ("lit", "filecheck") if not importlib.util.find_spec(name)]:
        raise MissingError(f"{missing[0]} of PyPI", "not installed", "pip install lit filecheck")
    with tempfile.TemporaryDirectory(prefix="pgo-lab-") as name:
        folder = Path(name)
        tools = {
            "clang_pgogen": _compiler(main, folder / "main", guarded),
            "clang_foreign_pgogen": _compiler(foreign, folder / "foreign", guarded),
            "profdata": shlex.quote(str(profdata.tool(main))),
            "filecheck": shlex.join([sys.executable, "-m", "filecheck"]),
            "out": str(folder / "out"),
        }
        parameters = [f"--param={key}={value}" for key, value in tools.items()]
        command = [sys.executable, "-c", "import lit.main; lit.main.main()", "-v", *parameters]
        command.append(str(settings.data_dir() / "lit"))
        done = process.run(command, cwd=folder, limits=settings.COMPILER)
        return done.ok, done.stdout.replace(f"{folder}/", "")


def _compiler(toolchain: Toolchain, wrapper: Path, guarded: bool) -> str:
    """Return a shell's command for a clang that instruments: itself, or a wrapper."""
    clang = shlex.join(_clang(toolchain))
    generate = f"{clang} -Wno-unused-command-line-argument -O1 -fprofile-generate"
    if not guarded:
        return generate
    stubs = {"need": wrapper.with_suffix(".need.s"), "give": wrapper.with_suffix(".give.s")}
    for path, text in zip(stubs.values(), (_NEED, _GIVE), strict=True):
        path.write_text(text.format(f"{SYMBOL}{toolchain.raw_version}"))
    script = (settings.data_dir() / "lit" / "guarded.sh").read_text()
    wrapper.write_text(script.format(clang=clang, generate=generate, **stubs))
    wrapper.chmod(0o755)
    return shlex.quote(str(wrapper))
