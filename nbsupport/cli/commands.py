"""pgo-lab: thin commands over the modules. What fails says so in one line, and exits with 2.

A command imports what it needs: `pgo-lab --help` must not wait for NumPy or Jupyter.
"""
# ruff: noqa: PLC0415

import contextlib
import csv
import dataclasses
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from nbsupport import __version__
from nbsupport.base import process
from nbsupport.base.errors import LabError, from_os, visible
from nbsupport.cli import terminal

app = typer.Typer(
    name="pgo-lab",
    help="Find out why a PGO-instrumented program crashes, and what to do about it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

#: What make and CONTRIBUTING call; no part of the contract.
dev = typer.Typer(help="For work on the project itself.", no_args_is_help=True)
app.add_typer(dev, name="dev", hidden=True)

#: Click's class, of the copy of click that typer brings; it has no other public name there.
UsageError: type[Any] = typer.BadParameter.__bases__[0]
Names = list[str] | None
Json = Annotated[bool, Option("--json", help="Print one JSON document and nothing else.")]


def main(args: list[str] | None = None) -> int:
    """Run the command line and return its exit code (the entry point exits with it)."""
    try:
        result = app(args, standalone_mode=False)
    except LabError as error:
        return _fail(str(error), 2)
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "pgo-lab"
        message = error.format_message().rstrip(".")
        # Without arguments, typer has printed the help, and there is no message.
        return _fail(f"usage: {message}; see {command} --help", 2) if message else 2
    except ModuleNotFoundError as error:
        if str(error.name).startswith("nbsupport"):
            raise
        extra = "cluster" if error.name == "distributed" else "notebooks,site"
        do = f"pip install 'pgo-crash-lab[{extra}]'"
        return _fail(f"this command: it needs {error.name}, which is not installed; {do}", 2)
    except SystemExit as error:
        # So typer and rich end where the reader of our output has gone; 1 would be a verdict.
        if isinstance(error.__context__, BrokenPipeError):
            return 141
        raise
    except OSError as error:  # no temporary folder, a folder in the way: not ours to foresee each
        return _fail(str(from_os("this command", error)), 2)
    if result == 130:  # what typer returns after Ctrl-C
        process.end_all()
        return _fail("interrupted: what was finished is kept, nothing half-made is left", 130)
    return result if isinstance(result, int) else 0


def _fail(line: str, code: int) -> int:
    terminal.say(f"pgo-lab: {' '.join(line.split())}", err=True)
    return code


def _answer(as_json: bool, document: Callable[[], Any], show: Callable[[], None]) -> None:
    """Print what a command came to: one JSON document, or what `show` shows people."""
    if as_json:
        typer.echo(json.dumps(document(), indent=2))
    else:
        show()


def _example(line: str, read: str) -> str:
    """Return what stands below a command's options: an example, and where to read on."""
    return f"Example: pgo-lab {line}\n\nRead on: {read}."


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"pgo-lab {__version__}")
        raise typer.Exit


@app.command(
    epilog=_example(
        "toolchains --install 19 --install 17", "03, section 2, for what differs between LLVMs"
    )
)
def toolchains(
    install: Annotated[
        Names,
        Option(
            help="Install an LLVM (19, 19.1.7), rustc-web, macho (what builds programs of macOS), "
            "all, or report (what reports need).",
            metavar="V",
        ),
    ] = None,
    prune: Annotated[bool, Option(help="Remove what was installed and built.")] = False,
    as_json: Json = False,
) -> None:
    """List the compilers of this machine; install and remove LLVM versions.

    Exit code 2: one of them could not be installed.
    """
    from nbsupport.toolchains import discovery, download

    if prune:
        download.prune()
    for name in install or ():
        download.install(name)
    compilers = discovery.discover()
    rows = [compiler.to_json() for compiler in compilers]
    _answer(as_json, lambda: rows, lambda: terminal.toolchains(compilers))


@app.command(epilog=_example("trial --llvm 19 --foreign 17", "notebook 01"))
def trial(
    llvm: Annotated[str, Option(help="Compiles main, brings the runtime.", metavar="V")],
    foreign: Annotated[str, Option(help="Compiles the library (or: gcc).", metavar="V")],
    program: Annotated[str, Option(help="What is built.", metavar="NAME")] = "cold",
    order: Annotated[str, Option(help="main-first or foreign-first.")] = "main-first",
    instrument: Annotated[
        str | None, Option(help="The library: ir, front-end or none (gcc: none).")
    ] = None,
    main_instrument: Annotated[str, Option(help="Main: ir, front-end or none.")] = "ir",
    macos: Annotated[
        str | None,
        Option(help="For macOS: arm64 or x86_64, on an emulated processor.", metavar="ARCH"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build one program with two LLVMs, run it once, and say what came of it.

    Exit code 0: it was tried, however it ended; 2: it could not be tried.
    """
    from nbsupport.lab.lab import Lab

    if macos:
        from nbsupport.studies import macho_trial

        words = (macos, llvm, foreign, program, order, instrument, main_instrument)
        emulated = macho_trial.try_program(*words)
        _answer(
            as_json, emulated.to_json, lambda: terminal.outcome(emulated.outcome, *emulated.notes())
        )
        return
    with Lab() as lab:
        what = lab.trial(
            program,
            llvm,
            foreign,
            order=order,
            instrument=instrument,
            main_instrument=main_instrument,
        )
        outcome = lab.run(what)
    _answer(as_json, outcome.to_json, lambda: terminal.outcome(outcome))


@app.command(epilog=_example("run --llvm 24 -o build/24", "the tour for a new LLVM"))
def run(
    notebook: Annotated[list[Path] | None, Argument(help="Default: all of them.")] = None,
    llvm: Annotated[Names, Option(help="Main toolchain; may be repeated.", metavar="V")] = None,
    foreign: Annotated[
        Names, Option(help="Foreign toolchain; may be repeated.", metavar="V")
    ] = None,
    parameter: Annotated[
        Names,
        Option("-p", help="Another parameter's values (a comma in one: \\,).", metavar="NAME=A,B"),
    ] = None,
    out: Annotated[Path, Option("-o", help="The run's folder.")] = Path("build/run"),
    jobs: Annotated[int | None, Option(help="Notebooks at once.", min=1)] = None,
    dask: Annotated[str, Option(help="A Dask scheduler that executes.", metavar="A")] = "",
    resume: Annotated[bool, Option(help="Go on with the run in the folder.")] = False,
    site: Annotated[
        Path | None,
        Option(help="Build the site there; it fills while it runs, once 01 is done.", metavar="D"),
    ] = None,
) -> int:
    """Execute notebooks x parameters with papermill; what did not change is reused.

    Exit code 1: a claim differs from the recorded one; 3: a notebook failed.
    """
    from nbsupport.base import progress, settings
    from nbsupport.notebooks import batch, results

    executor = None
    if dask:
        from nbsupport.notebooks import cluster  # for those who have Dask

        executor = cluster.DaskWorkers(dask)
    options = {"llvm": llvm, "foreign": foreign}
    values: dict[str, object] = {name: names for name, names in options.items() if names}
    values |= dict(map(_values, parameter or ()))
    notebooks = notebook or []
    if not resume:
        notebooks = notebooks or sorted(settings.notebooks_dir().glob("*.ipynb"))
        if not notebooks:
            raise LabError("notebooks", "none here, only in a checkout", "give the path of one")
        values = {"llvm": ["19"], "foreign": ["17"], **values}
    with contextlib.ExitStack() as until_done:
        filling = None
        if site:
            from nbsupport.report.filling import FillingSite

            filling = until_done.enter_context(FillingSite(out, site))
        how: dict[str, Any] = {"jobs": jobs, "executor": executor, "filling": filling}
        if resume:
            executed = batch.resume(out, notebooks, values, **how)
        else:
            executed = batch.execute(notebooks, out, values, **how)
    finished = results.collect(out)
    if site:
        _build_site(str(out), site)
    if any(book.status == "failed" for book in executed):
        return 3
    changed = finished.changed(results.baseline())
    for name in changed:
        progress.say(f"the claim {name} differs from the recorded one")
    return 1 if changed else 0


def _build_site(run: str, out: Path) -> None:
    """Build the site of a run, and print where it is and what it says."""
    from nbsupport.base import progress
    from nbsupport.notebooks import results
    from nbsupport.report import site

    progress.say("building the site")
    page = site.build(run, out)
    terminal.say(f"{page}: {results.open_run(run).verdict()}")


def _values(text: str) -> tuple[str, list[str]]:
    """Return the name and the values of NAME=A,B."""
    name, equals, values = text.partition("=")
    if not name or not equals:
        raise LabError(f"-p {text}", "not NAME=VALUE", "give it as -p NAME=A,B")
    return name, [value.replace("\\,", ",") for value in re.split(r"(?<!\\),", values)]


@app.command(epilog=_example("diff recorded build/24", "the tour for a new LLVM"))
def diff(
    a: Annotated[str, Argument(help="A run's folder, or: recorded.", metavar="A")],
    b: Annotated[str, Argument(help="The same, later.", metavar="B")],
    as_json: Json = False,
) -> int:
    """Say what changed between two runs, most important first.

    Exit code 1: something changed.
    """
    from nbsupport.notebooks import diff as differing

    difference = differing.diff(a, b)
    _answer(as_json, difference.to_json, lambda: terminal.say(*difference.lines()))
    return int(not difference.same)


@app.command(epilog=_example("report build/run -o build/site", "notebook 10, for reports to send"))
def report(
    run: Annotated[str, Argument(help="A run's folder; or recorded, what came with the project.")],
    out: Annotated[Path, Option("-o", help="Where the site, or the report, goes.")],
    form: Annotated[str, Option("--format", help="html or markdown.")] = "",
    to: Annotated[str, Option(help="A report to send: llvm, cc-rs, cargo-pgo; or analysis.")] = "",
) -> None:
    """Build the HTML site of a run, or write a report to send; print its path.

    Exit code 2: there is no such run, or nothing could be written.
    """
    if form not in ("", "html", "markdown") or (to and form == "html"):
        do = "give --to with --format markdown, or neither for the site"
        raise LabError(f"report --format {form}", "no such report", do)
    if to or form == "markdown":
        from nbsupport.notebooks import results
        from nbsupport.report import upstream

        terminal.say(upstream.write(results.open_run(run), to or "analysis", out))
    else:
        _build_site(run, out)


@app.command(epilog=_example("guard -- cc main.o -o main", "notebook 10, section 6"))
def guard(
    linker: Annotated[list[str], Argument(help="The linker and its arguments, after --.")],
) -> int:
    """Look at what is about to be linked; then link, or refuse a mix.

    Exit code 1: refused; else it is the linker's own.
    """
    from nbsupport.audit import guard as guarding

    return guarding.guard(linker)


@app.command(epilog=_example("audit target/", "notebook 07, for what stops the crash"))
def audit(
    paths: Annotated[list[Path], Argument(help="Objects, archives, rlibs, programs, folders.")],
    strict: Annotated[
        bool, Option("--strict", help="Exit with 1 for a warning, too: several runtimes.")
    ] = False,
    form: Annotated[
        str, Option("--format", help="sarif: for services that show code scanning.")
    ] = "",
    as_json: Json = False,
) -> int:
    """Say who instrumented these files, whether they may be linked together, and what to do.

    Exit code 1: they are a mix; 2: a file that counts could not be read.
    """
    from nbsupport.audit import judge

    if form not in ("", "sarif"):
        raise LabError(f"audit --format {form}", "no such format", "give --format sarif, or --json")
    if form and as_json:
        raise LabError("audit", "--json and --format are two answers", "give one of them")
    tell = None if as_json or form else terminal.verdict
    report = judge.audit(paths, _disassemble, learn=_discover, tell=tell)
    warned = int(strict and bool(report.warnings))
    code = {"mixed": 1, "unknown": 2}.get(report.verdict, warned)

    def document() -> dict[str, Any]:
        if not form:
            return report.to_json()
        from nbsupport.cli import sarif

        return sarif.from_audit(report, paths, code)

    _answer(as_json or bool(form), document, lambda: terminal.audit(report))
    return code


def _discover() -> object:
    """Learn how each LLVM that is here lays records out, which at first takes a while."""
    from nbsupport.toolchains import discovery

    return discovery.discover()


def _disassemble(bitcode: Path) -> str | None:
    """Return bitcode as LLVM assembly, by the newest llvm-dis that reads it."""
    from nbsupport.base import settings
    from nbsupport.toolchains import discovery

    limits = dataclasses.replace(settings.COMPILER, output=256 * settings.MIB)
    for toolchain in reversed(discovery.discover()):
        tool = toolchain.prefix / "bin" / "llvm-dis"
        if tool.is_file():
            command = (tool, "-o", "-", bitcode.absolute())
            finished = process.run(command, cwd=Path("/"), limits=limits)
            if finished.ok:
                return finished.stdout
    return None


@app.command(epilog=_example("profraw default.profraw", "notebook 05"))
def profraw(
    path: Annotated[Path, Argument(help="A raw profile, or a folder of them.")],
    as_json: Json = False,
    as_csv: Annotated[bool, Option("--csv", help="Print name, hash and counts.")] = False,
    most: Annotated[int, Option(help="MiB of the largest file that is read.", min=1)] = 384,
) -> int:
    """Read a raw profile, or a folder of them as one training run; says what is malformed.

    Exit code 1: something is malformed, or a merge loses something; 2: the file could not be read.
    """
    from nbsupport.profile import layout, training
    from nbsupport.profile import profraw as reading
    from nbsupport.toolchains import discovery

    reader = training.read if path.is_dir() else reading.read
    profile = reader(path, most=most << 20)
    if layout.learn_unknown([profile.raw_version], discovery.discover):
        profile = reader(path, most=most << 20)
    if as_csv:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(("name", "hash", "counts"))
        for name, number, counts in profile.rows():
            text = visible(name.decode(errors="backslashreplace"))
            rows.writerow((text, f"{number:#x}", " ".join(map(str, counts))))
    else:
        document = training.to_json(profile)
        _answer(as_json, lambda: document, lambda: terminal.profile(document, path))
    if isinstance(profile, training.TrainingRun):
        return profile.exit_code
    return int(not profile.valid)


@app.command(
    epilog=_example("rescue -o rescued.profdata -- ./program ARGS", "notebook 08, section 4")
)
def rescue(
    program: Annotated[
        Names, Argument(help="A program (or script) that crashes, and its arguments: after --.")
    ] = None,
    out: Annotated[Path, Option("-o", help="The profile to write.")] = Path("rescued.profdata"),
    profraw: Annotated[Path | None, Option(help="A raw profile to read instead.")] = None,
    binary: Annotated[
        Path | None, Option(help="What wrote that profile, where the file is cut off.")
    ] = None,
    without: Annotated[
        Names, Option(help="A function of that profile to leave out; may be given again.")
    ] = None,
    seconds: Annotated[float, Option(help="The time limit of it all.", min=0.1)] = 1e6,
    as_json: Json = False,
) -> None:
    """Get a mergeable profile out of a malformed file, or a program that crashes.

    On Linux the program may be a script, make, a test runner: what it starts is rescued, too.
    kill -USR1 writes what the program has counted by now; Ctrl-C does, and ends it.
    Exit code 0: a profile is written, and what it lacks is said; 2: there is none.
    """
    from nbsupport.rescue import rescue as rescuing

    if bool(program) == bool(profraw) or ((binary or without) and not profraw):
        do = "give --profraw FILE [--binary PROGRAM] [--without NAME], or -- PROGRAM ARGS"
        raise LabError("rescue", "nothing to rescue, or two things", do)
    if profraw:
        rescued = rescuing.from_profraw(profraw, out, binary=binary, without=without or ())
    else:
        streams = (sys.stderr if as_json else sys.stdout, sys.stderr)
        rescued = rescuing.run(program or (), out, seconds=seconds, streams=streams)
    # To standard error: the other is the program's.
    _answer(as_json, rescued.to_json, lambda: terminal.say(*rescued.lines(), err=True))


@app.command(epilog=_example("trace -o trace -- ./program ARGS", "notebook 02"))
def trace(
    program: Annotated[
        list[str], Argument(help="The program (or script) and its arguments, after --.")
    ],
    out: Annotated[Path, Option("-o", help="The trace's folder, a new one.")],
    seconds: Annotated[float, Option(help="Time limit of each run.", min=0.1)] = 60.0,
    stdin: Annotated[Path, Option(help="What the program reads.")] = Path(os.devnull),
    as_json: Json = False,
) -> None:
    """Run a program under LLDB, then under strace: what happens in time, and where it dies.

    Of a script or make, on Linux, it is the first instrumented program that starts.
    Exit code 0: a trace is written, however the program ended; 2: there is none.
    """
    from nbsupport.trace.tracer import Tracer

    with Tracer() as tracer:
        traced = tracer.run(
            program, out, env=os.environ, cwd=Path.cwd(), seconds=seconds, stdin=stdin
        )
    _answer(as_json, lambda: traced.manifest, lambda: terminal.say(*traced.summary()))


@app.command(epilog=_example("explain crash.ips", "notebook 06, section 8"))
def explain(
    file: Annotated[
        Path,
        Argument(help="A crash report, a core file, a debugger's text, a message; - reads it."),
    ],
    binary: Annotated[Path | None, Option(help="The program that crashed.")] = None,
    as_json: Json = False,
) -> int:
    """Say whether a crash is that of mixed records, what a message means, and what to do.

    Exit code 0: it is this crash; 1: it is another crash, or none; 2: not known, or not read.
    """
    from nbsupport.crash import explanation as explaining

    explanation = explaining.explain(file, binary)
    _answer(as_json, explanation.to_json, lambda: terminal.explanation(explanation))
    return {"ours": 0, "unknown": 2}.get(explanation.verdict, 1)


@app.command(epilog=_example("check ~/my-project", "notebook 07, section 2"))
def check(
    folder: Annotated[
        Path | None,
        Argument(help="A cargo project, or a folder with compile_commands.json. Default: here."),
    ] = None,
    with_: Annotated[
        Names,
        Option("--with", help="A compiler and its flags; of a project, its CC.", metavar="CC"),
    ] = None,
    as_json: Json = False,
) -> int:
    """Say before a build which compilers will instrument what, and what happens then.

    Nothing of the project runs. Exit code 0: fine; 1: it will mix; 2: not known, or not read.
    """
    from nbsupport.forecast import verdict as forecasting

    forecast = forecasting.check(folder, with_ or ())
    _answer(as_json, forecast.to_json, lambda: terminal.forecast(forecast))
    return forecast.exit_code


@app.command(epilog=_example("build --train '{} input.dat'", "notebook 07, section 3"))
def build(
    cargo: Annotated[Names, Argument(help="Arguments of cargo build, after --.")] = None,
    train: Annotated[
        str,
        Option(
            help="The training, run once; {} in it (and $PGO_BIN) is the program.", metavar="CMD"
        ),
    ] = "",
    instrument_c: Annotated[
        bool, Option("--instrument-c", help="Keep the C code in the profile, by a fitting clang.")
    ] = False,
    out: Annotated[
        Path | None, Option("-o", help="The folder to work in. Default: target/pgo.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Build this folder's cargo project for PGO: check, build, audit, train, build by the profile.

    No file of the project changes. If it is interrupted, or has no --train, the next call goes on
    where this one ended. Exit code 0: built by a whole profile; 1: not; 2: it cannot be built.
    """
    from nbsupport.pipeline import phases

    result = phases.build(Path.cwd(), out, cargo or (), train=train, instrument_c=instrument_c)
    _answer(as_json, result.to_json, lambda: terminal.say(*result.lines()))
    return result.exit_code


@app.command("mac-check", epilog=_example("mac-check --plan", "notebook 11, section 10"))
def mac_check(
    out: Annotated[Path, Option("-o", help="The folder to send back, a new one.")] = Path(
        "pgo-lab-mac-check"
    ),
    plan: Annotated[
        bool, Option("--plan", help="On any machine: say what the command does, and stop.")
    ] = False,
) -> None:
    """On a Mac: make the crash happen there, and write a folder to send back.

    The command first says what it does. It takes ten minutes at most and uses no network.
    Exit code 2: this is no Mac, or nothing could be written.
    """
    from nbsupport.studies import mac_check as checking

    if not plan:
        checking.require_mac()
    terminal.say(*checking.plan(out))
    if not plan:
        terminal.say("", *checking.check(out))


@dev.command()
def refresh(
    paths: Annotated[list[Path], Argument(help="Notebooks, or folders of them.")],
) -> int:
    """Execute committed notebooks with their default parameters, and normalize them."""
    from nbsupport.notebooks import recording

    return 3 if any(book.status == "failed" for book in recording.refresh(paths)) else 0


@dev.command()
def record(run: Annotated[Path, Argument(help="A run's folder.")]) -> None:
    """Make a run the recorded one, which comes with the project."""
    from nbsupport.notebooks import recording
    from nbsupport.studies import ruler

    recording.record(run)
    ruler.keep()


@dev.command()
def offer() -> None:
    """Print what this machine has for notebooks, as --resources of a Dask worker takes it."""
    from nbsupport.notebooks import cluster

    terminal.say(*cluster.offer().splitlines())


def entry() -> None:
    """Exit with the command line's code; what `pgo-lab` runs."""
    process.heed_interrupts()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us: the exit code is the answer
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - for the whole life
    # Whoever asks us to end gets the same clean end as Ctrl-C: children first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
