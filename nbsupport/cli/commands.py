"""pgo-lab: thin commands over the modules. What fails says so in one line, and exits with 2."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from nbsupport import __version__
from nbsupport.base import process
from nbsupport.base.errors import LabError, from_os
from nbsupport.cli import terminal

app = typer.Typer(
    name="pgo-lab",
    help="Find out why a PGO-instrumented program crashes, and what to do about it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

#: Click's class, of the copy of click that typer brings; it has no other public name there.
UsageError: type[Any] = typer.BadParameter.__bases__[0]
#: What typer returns after Ctrl-C.
INTERRUPTED = 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def main(args: list[str] | None = None) -> int:
    """Run the command line and return its exit code (the entry point exits with it)."""
    try:
        result = app(args, standalone_mode=False)
    except LabError as error:
        return _fail(str(error), 2)
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "pgo-lab"
        return _fail(f"usage: {error.format_message().rstrip('.')}; see {command} --help", 2)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("nbsupport"):
            raise
        extra = "cluster" if error.name == "distributed" else "notebooks,site"
        do = f"pip install 'pgo-crash-lab[{extra}]'"
        return _fail(f"this command: it needs {error.name}, which is not installed; {do}", 2)
    except BrokenPipeError:
        # The reader of our output has gone; Python must not find that out again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # no temporary folder, a folder in the way: not ours to foresee each
        return _fail(str(from_os("this command", error)), 2)
    if result == INTERRUPTED:
        process.end_all()
        return _fail("interrupted: what was finished is kept, nothing half-made is left", 130)
    return result if isinstance(result, int) else 0


def _fail(line: str, code: int) -> int:
    print(f"pgo-lab: {' '.join(line.split())}", file=sys.stderr)  # noqa: T201
    return code


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))  # noqa: T201


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pgo-lab {__version__}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def toolchains(
    install: Annotated[
        list[str] | None,
        typer.Option(
            help="Install an LLVM (19, 19.1.7), rustc-web, all, or report (what reports need).",
            metavar="V",
        ),
    ] = None,
    prune: Annotated[bool, typer.Option(help="Remove what was installed and built.")] = False,
    as_json: Json = False,
) -> None:
    """List the compilers there are; install and remove LLVM versions."""
    from nbsupport.toolchains import discovery as known  # noqa: PLC0415
    from nbsupport.toolchains import download as installing  # noqa: PLC0415

    if prune:
        installing.prune()
    for name in install or ():
        installing.install(name)
    there = known.discover()
    if as_json:
        _print_json([toolchain.to_json() for toolchain in there])
        return
    table = Table("name", "version", "raw version", "runtime", "llvm-profdata", "LLDB", "prefix")
    for t in there:
        marks = ("yes" if tool else "-" for tool in (t.runtime, t.llvm_profdata, t.lldb))
        raw = "-" if t.raw_version is None else str(t.raw_version)
        table.add_row(t.name, t.version, raw, *marks, str(t.prefix))
    Console().print(table)


@app.command()
def trial(
    llvm: Annotated[str, typer.Option(help="Compiles main, brings the runtime.", metavar="V")],
    foreign: Annotated[str, typer.Option(help="Compiles the library (or: gcc).", metavar="V")],
    program: Annotated[str, typer.Option(help="What is built.", metavar="NAME")] = "cold",
    order: Annotated[str, typer.Option(help="main-first or foreign-first.")] = "main-first",
    instrument: Annotated[
        str | None, typer.Option(help="The library: ir, front-end or none (gcc: none).")
    ] = None,
    main_instrument: Annotated[str, typer.Option(help="Main: ir, front-end or none.")] = "ir",
    as_json: Json = False,
) -> None:
    """Build one program with two LLVMs, run it once, and say what came of it."""
    from nbsupport.lab.lab import Lab  # noqa: PLC0415

    with Lab() as lab:
        made = lab.trial(
            program,
            llvm,
            foreign,
            order=order,
            instrument=instrument,
            main_instrument=main_instrument,
        )
        outcome = lab.run(made)
    if as_json:
        _print_json(outcome.to_json())
        return
    terminal.outcome(outcome)


@app.command()
def run(
    notebook: Annotated[list[Path] | None, typer.Argument(help="Default: all of them.")] = None,
    llvm: Annotated[
        list[str] | None, typer.Option(help="Main toolchain; may be repeated.", metavar="V")
    ] = None,
    foreign: Annotated[
        list[str] | None, typer.Option(help="Foreign toolchain; may be repeated.", metavar="V")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p", help="Another parameter's values (a comma in one: \\,).", metavar="NAME=A,B"
        ),
    ] = None,
    out: Annotated[Path, typer.Option("-o", help="The run's folder.")] = Path("build/run"),
    jobs: Annotated[int | None, typer.Option(help="Notebooks at once.", min=1)] = None,
    dask: Annotated[str, typer.Option(help="A Dask scheduler that executes.", metavar="A")] = "",
    resume: Annotated[bool, typer.Option(help="Go on with the run in the folder.")] = False,
) -> int:
    """Execute notebooks x parameters with papermill; what did not change is reused."""
    from nbsupport.base import progress, settings  # noqa: PLC0415
    from nbsupport.notebooks import batch, results  # noqa: PLC0415

    executor = None
    if dask:
        from nbsupport.notebooks import cluster  # noqa: PLC0415 - Dask is for those who have a cluster

        executor = cluster.DaskWorkers(dask)
    given: dict[str, object] = {"llvm": llvm, "foreign": foreign}
    given = {name: values for name, values in given.items() if values}
    given |= dict(map(_values, parameter or ()))
    if resume:
        done = batch.resume(out, notebook or (), given, jobs=jobs, executor=executor)
    else:
        notebooks = notebook or sorted(settings.notebooks_dir().glob("*.ipynb"))
        if not notebooks:
            raise LabError("notebooks", "none here, only in a checkout", "give the path of one")
        given = {"llvm": ["19"], "foreign": ["17"], **given}
        done = batch.execute(notebooks, out, given, jobs=jobs, executor=executor)
    finished = results.collect(out)
    if any(one.status == "failed" for one in done):
        return 3
    changed = finished.changed(results.baseline())
    for name in changed:
        progress.say(f"the claim {name} came out otherwise than in data/recorded")
    return 1 if changed else 0


def _values(text: str) -> tuple[str, list[str]]:
    """Return the name and the values of NAME=A,B."""
    name, equals, values = text.partition("=")
    if not name or not equals:
        raise LabError(f"-p {text}", "not NAME=VALUE", "give it as -p NAME=A,B")
    return name, [each.replace("\\,", ",") for each in re.split(r"(?<!\\),", values)]


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help="A run's folder, or: recorded.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The same, later.", metavar="B")],
    page: Annotated[
        Path | None, typer.Option("--html", help="Write a page, too.", metavar="FILE")
    ] = None,
    as_json: Json = False,
) -> int:
    """Say what changed between two runs, most important first (exit code 1: something did)."""
    from nbsupport.base import files  # noqa: PLC0415
    from nbsupport.notebooks import diff as differing  # noqa: PLC0415

    found = differing.diff(a, b)
    if page:
        files.write(page, found.html())
    if as_json:
        _print_json(found.to_json())
    else:
        print("\n".join(found.lines()))  # noqa: T201
    return int(not found.same)


@app.command()
def report(
    run: Annotated[
        str, typer.Argument(help="A run's folder; or recorded, what came with the project.")
    ],
    out: Annotated[Path, typer.Option("-o", help="Where the site, or the report, goes.")],
    form: Annotated[str, typer.Option("--format", help="html or markdown.")] = "",
    to: Annotated[
        str, typer.Option(help="A report to send: llvm, cc-rs, cargo-pgo; or analysis.")
    ] = "",
) -> None:
    """Build the HTML site of a run, or write a report of it to send; prints its path."""
    if form not in ("", "html", "markdown") or (to and form == "html"):
        do = "give --to with --format markdown, or neither for the site"
        raise LabError(f"report --format {form}", "no such report", do)
    if to or form == "markdown":
        from nbsupport.notebooks import results  # noqa: PLC0415
        from nbsupport.report import upstream  # noqa: PLC0415

        page = upstream.write(results.open_run(run), to or "analysis", out)
        print(page)  # noqa: T201
        return
    from nbsupport.notebooks import results  # noqa: PLC0415
    from nbsupport.report import site  # noqa: PLC0415

    page = site.build(run, out)
    print(f"{page}: {results.open_run(run).verdict()}")  # noqa: T201


@app.command()
def guard(
    linker: Annotated[list[str], typer.Argument(help="The linker and its arguments, after --.")],
) -> int:
    """Look at what is about to be linked; then link, or refuse a mix (exit code 1)."""
    from nbsupport.audit import guard as guarding  # noqa: PLC0415

    return guarding.guard(linker)


@app.command()
def audit(
    paths: Annotated[
        list[Path], typer.Argument(help="Objects, archives, rlibs, programs, folders.")
    ],
    as_json: Json = False,
) -> int:
    """Say who instrumented these files, whether they may be linked together, and what to do."""
    from nbsupport.audit import judge as auditing  # noqa: PLC0415

    report = auditing.audit(paths, _disassemble)
    if _learned(v for file in report.to_json()["files"] for v in file["raw_versions"]):
        report = auditing.audit(paths, _disassemble)
    if as_json:
        _print_json(report.to_json())
    else:
        terminal.audit(report)
    return {"mixed": 1, "unknown": 2}.get(report.verdict, 0)


def _learned(raw_versions: Iterable[int | None]) -> bool:
    """Return whether this system has an LLVM that says how unknown raw versions are laid out."""
    from nbsupport.profile.layout import LAYOUTS  # noqa: PLC0415

    strange = set(raw_versions) - {None, *LAYOUTS}
    if strange:
        from nbsupport.toolchains import discovery  # noqa: PLC0415 - it looks at each compiler, at first

        discovery.discover()  # which teaches what they say
    return bool(strange & LAYOUTS.keys())


def _disassemble(bitcode: Path) -> str | None:
    """Return bitcode as LLVM assembly, by the newest llvm-dis that reads it."""
    from nbsupport.base import settings  # noqa: PLC0415
    from nbsupport.toolchains import discovery  # noqa: PLC0415

    limits = dataclasses.replace(settings.COMPILER, output=256 * settings.MIB)
    for toolchain in reversed(discovery.discover()):
        tool = toolchain.prefix / "bin" / "llvm-dis"
        if tool.is_file():
            done = process.run([tool, "-o", "-", bitcode.absolute()], cwd=Path("/"), limits=limits)
            if done.ok:
                return done.stdout
    return None


@app.command()
def profraw(
    path: Annotated[Path, typer.Argument(help="A raw profile, or a folder of them.")],
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print name, hash and counts.")] = False,
) -> int:
    """Read a raw profile, or a folder of them as one training run; says what is malformed."""
    from nbsupport.profile import profraw as reading  # noqa: PLC0415
    from nbsupport.profile import training  # noqa: PLC0415

    read = training.read if path.is_dir() else reading.read
    found = read(path)
    if _learned([found.raw_version]):
        found = read(path)
    code = found.exit_code if isinstance(found, training.TrainingRun) else int(not found.valid)
    if as_csv:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(("name", "hash", "counts"))
        for name, number, counts in found.rows():
            shown = name.decode(errors="backslashreplace")
            rows.writerow((shown, f"{number:#x}", " ".join(map(str, counts))))
        return code
    document = training.to_json(found)
    if as_json:
        _print_json(document)
        return code
    terminal.profile(document)
    return code


@app.command()
def rescue(
    program: Annotated[
        list[str] | None,
        typer.Argument(help="A program that crashes, and its arguments: after --."),
    ] = None,
    out: Annotated[Path, typer.Option("-o", help="The profile to write.")] = Path(
        "rescued.profdata"
    ),
    profraw: Annotated[Path | None, typer.Option(help="A raw profile to read instead.")] = None,
    binary: Annotated[
        Path | None, typer.Option(help="What wrote that profile, where the file is cut off.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="The program's time limit.", min=0.1)] = 1e6,
    as_json: Json = False,
) -> None:
    """Get a mergeable profile out of a malformed file, or a program that crashes.

    kill -USR1 writes what the program has counted by now; Ctrl-C does, and ends it.
    """
    from nbsupport.rescue import rescue as rescuing  # noqa: PLC0415

    if bool(program) == bool(profraw) or (binary and not profraw):
        do = "give --profraw FILE [--binary PROGRAM], or -- PROGRAM ARGS"
        raise LabError("rescue", "nothing to rescue, or two things", do)
    if profraw:
        found = rescuing.from_profraw(profraw, out, binary=binary)
    else:
        streams = (sys.stderr if as_json else sys.stdout, sys.stderr)
        found = rescuing.run(program or (), out, seconds=seconds, streams=streams)
    if as_json:
        _print_json(found.to_json())
        return
    for line in found.lines():
        print(line, file=sys.stderr)  # noqa: T201 - standard output is the program's


@app.command()
def trace(
    program: Annotated[list[str], typer.Argument(help="The program and its arguments, after --.")],
    out: Annotated[Path, typer.Option("-o", help="The trace's folder, a new one.")],
    seconds: Annotated[float, typer.Option(help="Time limit of each run.", min=0.1)] = 60.0,
    stdin: Annotated[Path, typer.Option(help="What the program reads.")] = Path(os.devnull),
    as_json: Json = False,
) -> None:
    """Run a program under LLDB, then under strace: what happens in time, and where it dies."""
    from nbsupport.trace.tracer import Tracer  # noqa: PLC0415

    with Tracer() as tracer:
        found = tracer.run(
            program, out, env=os.environ, cwd=Path.cwd(), seconds=seconds, stdin=stdin
        )
    if as_json:
        _print_json(found.manifest)
        return
    for line in found.summary():
        print(line)  # noqa: T201


@app.command()
def explain(
    file: Annotated[Path, typer.Argument(help="A crash report, a core file, a debugger's text.")],
    binary: Annotated[Path | None, typer.Option(help="The program that crashed.")] = None,
    as_json: Json = False,
) -> int:
    """Say whether a crash is that of mixed records, and what to do (exit code 1: it is not)."""
    from nbsupport.crash import explanation as explaining  # noqa: PLC0415

    found = explaining.explain(file, binary)
    code = int(found.verdict != "ours")
    if as_json:
        _print_json(found.to_json())
        return code
    terminal.explanation(found)
    return code


def entry() -> None:
    """Exit with the command line's code; what `pgo-lab` runs."""
    process.heed_interrupts()
    # Whoever asks us to end gets the same clean end as Ctrl-C: children first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
