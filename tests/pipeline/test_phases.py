"""`pgo-lab build` on a cargo project with a C part, by the real cargo, compilers and runtime."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from nbsupport.base.errors import LabError, MissingError
from nbsupport.crash import family
from nbsupport.pipeline import build, training
from nbsupport.pipeline import plan as pipeline_plan
from nbsupport.toolchains import discovery, profdata
from nbsupport.toolchains.probe import Toolchain
from tests.pipeline.conftest import PGO_LAB, BuiltProject

Find = Callable[[str], Toolchain]

#: A main that does more, before it ends, where it is told to.
MORE = {
    "abort": 'if std::env::args().any(|word| word == "abort") { std::process::abort() }',
    "wait": 'if std::env::args().any(|word| word == "wait") { std::io::stdin().lines().count(); }',
}


def edited(project: BuiltProject, name: str, old: str, new: str) -> None:
    path = project.folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def contents(project: BuiltProject) -> dict[str, bytes]:
    paths = (path for path in project.folder.rglob("*") if path.is_file())
    return {
        str(name): path.read_bytes()
        for path in paths
        if (name := path.relative_to(project.folder)).parts[0] != "target"
    }


@pytest.mark.parametrize("cc", ["17", "gcc"])
def test_a_build_is_whole_with_c_left_out_whatever_cc_is(
    project: BuiltProject, toolchain: Find, cc: str
) -> None:
    """As data/build_pgo.sh makes it: of 17 alone it would crash, and no file may change."""
    env = {"CC": str(toolchain(cc).compiler), "RUSTFLAGS": "--cfg  kept"}
    before = contents(project)
    done = project.build("--train", "{}", **env)
    *lines, program = done.stdout.splitlines()
    assert done.ok, done.stderr
    assert re.fullmatch(r"whole: \d+ functions, C left out", "\n".join(lines))
    assert project.run(program).stdout == "2000 true\n"
    assert contents(project) == before

    assert project.script("--", "{}", **env).ok
    ours, theirs = project.counts("target/pgo"), project.counts("target/script")
    assert ours == theirs and f"whole: {len(ours)} functions" in lines[0]
    assert "part" not in {name for name, _ in ours}


def test_c_is_kept_in_by_a_clang_of_rustcs_raw_version(project: BuiltProject) -> None:
    assert "C left out" in project.build("--train", "{}").stdout
    done = project.build("--instrument-c", "--train", "{}", "--json")  # the same folder, anew
    assert done.ok, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["state"], answer["c"]) == ("whole", "in")
    assert answer["why"] == f"{answer['functions']} functions, with C"
    clang = answer["set_for_child"]["CC"]
    assert discovery.find(clang).raw_version == project.rustc.raw_version

    assert project.script("--instrument-c", "--cc", clang, "--", "{}").ok
    ours, theirs = project.counts("target/pgo"), project.counts("target/script")
    assert ours == theirs and len(ours) == answer["functions"]
    names = {name for name, _ in ours}
    assert "part" in names and "plus" not in names


def test_a_mix_that_a_build_script_makes_is_audited_and_not_trained(
    project: BuiltProject, toolchain: Find
) -> None:
    flags = "command.args(own.or(var(flags)).unwrap_or_default().split_whitespace());"
    edited(project, "build.rs", flags, 'drop(own); command.arg("-DSTEP=2");')
    done = project.build("--train", "touch trained", CC=str(toolchain("17").compiler))
    assert done.exit_code == 1, done.stderr
    assert re.match("mixed: .*; foreign: .*app.*; nothing is trained", done.stdout)
    pasted = r"^do: Leave the C code out .*\nCFLAGS_\w+=.* cargo build --release.*\nOr keep "
    assert re.search(pasted, done.stdout, re.M), done.stdout
    assert not (project.folder / "trained").exists()
    assert not (project.folder / "target/pgo/optimized").exists()


def test_a_crash_in_the_training_is_rescued_with_what_scripts_start(
    project: BuiltProject,
) -> None:
    edited(project, "src/main.rs", "fn main() {", f"fn main() {{ {MORE['abort']}")
    for command, message in (
        ("{} abort", "it crashed for a reason of its own: SIGABRT in "),
        # A script that goes on, and would not say it.
        ("sh -c '{abort}; \"$PGO_BIN\"'".format(abort='"$PGO_BIN" abort'), "app: processes: 2, "),
    ):
        done = project.build("--train", command)
        assert done.exit_code == 1 and done.stdout.startswith("not-whole: "), done.stderr
        assert re.search(rf"^rescued: .*{message}", done.stdout, re.M), done.stdout
        part = "lost: a part of the training may not have run: .* for a reason of its own: SIGABRT"
        assert re.search(part, done.stdout), done.stdout
        main = next(
            row for (name, _), row in project.counts("target/pgo").items() if name == "main"
        )
        assert any(main.counters)


@pytest.mark.parametrize(
    ("rest", "code"), [("", 0), ("; exit 3", 1), ("; kill -TERM $$", 1)], ids=["", "exit", "dies"]
)
def test_what_a_script_ends_itself_is_whole_and_its_own_end_counts(
    project: BuiltProject, rest: str, code: int
) -> None:
    """A server is started, and killed: it is the script's exit code that says whether all ran."""
    edited(project, "src/main.rs", "fn main() {", f"fn main() {{ {MORE['wait']}")
    script = f'mkfifo in; "$PGO_BIN" wait <in & exec 3>in; sleep 0.3; kill -TERM $!; wait{rest}'
    done = project.build("--train", f"sh -c {shlex.quote(script)}")
    assert done.exit_code == code, done.stdout + done.stderr
    assert done.stdout.startswith("not-whole: " if code else "whole: "), done.stdout
    assert ("a part of the training may not have run: it ended with" in done.stdout) == bool(code)


def test_a_training_by_hand_is_taken_by_the_next_call(project: BuiltProject) -> None:
    done = project.build()
    assert done.exit_code == 1 and done.stdout.startswith("untrained: "), done.stderr
    program = re.findall(r"^do: run (.*) as its users do", done.stdout, re.M)[0]
    assert "--train '{} ARGUMENTS'" in done.stdout
    assert project.run(program).ok
    done = project.build()
    assert done.ok and re.match(r"whole: \d+ functions", done.stdout), done.stderr
    by_hand = project.counts("target/pgo")
    assert "trained before" not in done.stderr

    # Another program has other profiles.
    edited(project, "src/main.rs", "fn main() {", f"fn main() {{ {MORE['abort']}")
    assert project.build().stdout.startswith("untrained: ")
    assert project.build("--train", "{}").ok
    assert project.counts("target/pgo").keys() - by_hand.keys()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda data: b"", "empty"),
        pytest.param(lambda data: data[:600], "truncated", marks=pytest.mark.slow),
        pytest.param(
            lambda data: data[:8] + b"\xff" * 8 + data[16:], "version", marks=pytest.mark.slow
        ),
    ],
)
def test_a_file_that_is_not_whole_is_named(
    project: BuiltProject, spoil: Callable[[bytes], bytes], why: str
) -> None:
    program = re.findall("do: run (.*) as its users do", project.build().stdout)[0]
    for n in (1, 2, 3):
        raw = project.folder / f"target/pgo/raw/{n}.profraw"
        assert project.run(program, LLVM_PROFILE_FILE=str(raw)).ok
    raw.write_bytes(spoil(raw.read_bytes()))
    done = project.build()
    assert done.exit_code == 2 and str(raw) in done.stderr and why in done.stderr, done.stderr
    assert len(done.stderr.splitlines()[-1:]) == 1
    raw.unlink()
    assert project.build().ok


@pytest.fixture
def here(project: BuiltProject, monkeypatch: pytest.MonkeyPatch) -> BuiltProject:
    """Make the project's environment and folder this process's."""
    for name, value in project.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(project.folder)
    return project


def test_processes_that_cannot_be_followed_write_files_that_are_merged(
    here: BuiltProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS."""
    twice = """sh -c '"$PGO_BIN" && "$PGO_BIN"'"""
    assert build(here.folder, train=twice).state == "whole"
    followed = here.counts("target/pgo")
    monkeypatch.setattr(family, "able", lambda: False)
    result = build(here.folder, here.folder / "out", train=twice)
    assert result.state == "whole" and result.functions == len(followed)
    assert len(list((here.folder / "out/raw").iterdir())) == 2
    assert here.counts("out") == followed
    with pytest.raises(LabError, match="exit code 3"):
        build(here.folder, here.folder / "out", train="sh -c 'exit 3'")
    with pytest.raises(LabError, match="wrote no profile"):
        build(here.folder, here.folder / "out", train="true")


def test_a_profile_that_rustc_does_not_read_is_refused(
    here: BuiltProject, monkeypatch: pytest.MonkeyPatch, toolchain: Find
) -> None:
    """Of one that is too new for it, rustc 1.85 only warns, and optimizes nothing."""
    monkeypatch.setenv("RUSTC", str(discovery.find_rustc("19").compiler))
    newer = toolchain("22")
    monkeypatch.setattr(profdata, "owners", lambda raw_version=None: [newer])
    with pytest.raises(LabError, match="rustc does not read .*merged.profdata: .*; merge by an"):
        build(here.folder, train="{}")
    assert not (here.folder / "target/pgo/optimized").exists()


@pytest.mark.parametrize("missing", ["clang", "llvm-profdata"])
def test_what_is_not_installed_is_one_line(
    here: BuiltProject, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    kept = [t for t in discovery.discover() if missing != "clang" or t.kind == "rustc"]
    bare = types.SimpleNamespace(**{**vars(discovery), "discover": lambda: kept})
    monkeypatch.setattr(pipeline_plan, "discovery", bare)
    if missing == "llvm-profdata":
        monkeypatch.setattr(profdata, "owners", lambda raw_version=None: [])
    message = "no clang of LLVM" if missing == "clang" else "rustup component add llvm-tools"
    with pytest.raises(MissingError, match=message):
        build(here.folder, instrument_c=True)
    assert not (here.folder / "target").exists()


def test_a_dynamic_library_is_trained_by_what_loads_it(project: BuiltProject) -> None:
    manifest = project.folder / "Cargo.toml"
    manifest.write_text(manifest.read_text() + '\n[lib]\ncrate-type = ["cdylib"]\n')
    library = 'extern "C" { fn part(n: u32) -> u32; }\n#[no_mangle]\n'
    library += 'pub extern "C" fn whole(n: u32) -> u32 { unsafe { part(n) } }\n'
    (project.folder / "src/lib.rs").write_text(library)
    load = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).whole(10))"
    train = shlex.join([sys.executable, "-c", load, "{}"])
    done = project.build("--train", train, "--", "--lib")
    assert done.ok, done.stderr
    line, program = done.stdout.splitlines()
    assert re.fullmatch(r"whole: \d+ functions, C left out", line)
    assert project.run(sys.executable, "-c", load, program).stdout == "20\n"
    assert "whole" in {name for name, _ in project.counts("target/pgo")}


PHASES = {"build instrumented": "rustc", "train": "app", "build optimized": "rustc"}


@pytest.mark.parametrize(("phase", "name"), PHASES.items())
def test_an_interrupt_ends_all_children_and_the_next_call_goes_on(
    project: BuiltProject, phase: str, name: str
) -> None:
    edited(project, "src/main.rs", "fn main() {", f"fn main() {{ {MORE['wait']}")
    env = project.environment()
    env.pop("PYTEST_CURRENT_TEST")  # for it keeps progress quiet
    command = [str(PGO_LAB), "build", "--train", "{} wait"]
    pipe = subprocess.PIPE
    options: dict[str, Any] = {"cwd": project.folder, "env": env, "stderr": pipe, "text": True}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, **options) as child:
        assert child.stderr and child.stdin
        if phase == "build optimized":
            child.stdin.close()  # then the training ends
        assert any(line.endswith(f": {phase}\n") for line in child.stderr)
        descendants = running(child, name)
        child.send_signal(signal.SIGINT)
        rest = child.stderr.read()
        assert child.wait(30) == 130, rest
    assert "interrupted: what was finished is kept" in rest.splitlines()[-1]
    assert not psutil.wait_procs(descendants, timeout=5)[1]

    done = subprocess.run(command, input="", stdout=pipe, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert ("trained before" in done.stderr) == (phase == "build optimized")
    assert "whole: " in done.stdout


def test_an_interrupt_before_anything_instrumented_runs(project: BuiltProject) -> None:
    env = project.environment()
    command = [str(PGO_LAB), "build", "--train", "sleep 600"]
    with subprocess.Popen(command, cwd=project.folder, env=env, stderr=subprocess.DEVNULL) as child:
        descendants = running(child, "sleep")
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 130
    assert not psutil.wait_procs(descendants, timeout=5)[1]


def running(child: subprocess.Popen[Any], name: str) -> list[psutil.Process]:
    """Wait until a program of this name is among the child's, and return them all."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        descendants = psutil.Process(child.pid).children(recursive=True)
        with contextlib.suppress(psutil.Error):
            if name in {process.name() for process in descendants}:
                return descendants
        time.sleep(0.005)
    raise AssertionError(f"no {name} was started")


BAD: dict[str, tuple[list[str], str]] = {
    "no command": (["--train", "nowhere {}"], "training nowhere: no such program"),
    "no words": (["--train", "'{}"], "--train '{}: no words of a shell"),
    "a shell's": (["--train", "{} 1 > out"], "--train {} 1 > out: no shell reads it, and > is"),
    "fails": (
        ["--train", "sh -c '\"$PGO_BIN\"; exit 3'"],
        "training sh .*: it ended with exit code 3, not 0",
    ),
    "is killed": (["--train", "sh -c '\"$PGO_BIN\"; kill -ABRT $$'"], "training sh .*SIGABRT"),
    "no profile": (["--train", "true"], "training true: it wrote no profile"),
    "not ours": (["-o", "src"], "-o .*src: it holds something else"),
    "a percent": (["-o", "50%"], "-o .*50%: it has a %"),
    "no folder": (["-o", "/dev/null/x"], "this command: Not a directory"),
    "cargo's": (["--", "--bin", "other"], "the instrumented build: cargo says above"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_done_is_one_line(
    project: BuiltProject, arguments: list[str], message: str
) -> None:
    done = project.build(*arguments)
    line = done.stderr.splitlines()[-1]
    assert (done.exit_code, done.stdout) == (2, "") and "Traceback" not in done.stderr
    assert re.match(f"pgo-lab: {message}.*; ", line), done.stderr


@pytest.mark.parametrize(
    ("command", "sign"),
    [
        ("{} 2>&1", "2>&1"),
        ("{} <in", "<"),
        ("{} | wc", "|"),
        ("{} && {}", "&&"),
        ("false||{}", "||"),
        ("{};{}", ";"),
        ("{} &", "&"),
        ("A=1 {}", "A="),
        ("{} $HOME/x", "$HOME"),
        ("{} $PGO_BIN.d", "$PGO_BIN"),
        ("{} `date`", "`"),
        ("{} *.txt", "*"),
    ],
)
def test_what_only_a_shell_would_do_is_no_argument(command: str, sign: str) -> None:
    with pytest.raises(LabError) as refused:
        training.words_of(command, Path("/t/app"))
    assert f" and {sign} is for a shell" in refused.value.why


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("""'$PGO_BIN' "a > b" 'c;d' e\\&f x=1""", ["/a b/c", "a > b", "c;d", "e&f", "x=1"]),
        ('sh -c "{} x"', ["sh", "-c", '"$PGO_BIN" x']),
        ("""env A=1 bash -ec '"{}" | wc'""", ["env", "A=1", "bash", "-ec", '"$PGO_BIN" | wc']),
        ("""sh -c 'find . -exec "$PGO_BIN" {} ";"'""", None),
        ("python3 -c '{}'", ["python3", "-c", "/a b/c"]),
    ],
)
def test_the_program_is_named_in_a_script_too(command: str, words: list[str] | None) -> None:
    expected = shlex.split(command) if words is None else words
    assert training.words_of(command, Path("/a b/c")) == expected


def test_a_script_of_a_training_runs_the_program(project: BuiltProject) -> None:
    done = project.build("--train", 'sh -c "{} x > out"')
    assert done.ok, done.stderr
    assert (project.folder / "out").read_text() == "2000 false\n"


def test_several_programs_are_not_chosen_from(project: BuiltProject) -> None:
    (project.folder / "src/bin").mkdir()
    (project.folder / "src/bin/other.rs").write_text('fn main() { println!("other") }\n')
    done = project.build("--train", "{}")
    assert done.exit_code == 2 and "it makes several programs: " in done.stderr
    done = project.build("--train", "{}", "--", "--bin", "other")
    assert done.ok and project.run(done.stdout.splitlines()[-1]).stdout == "other\n", done.stderr


@pytest.mark.parametrize("missing", ["cargo", "lock", "manifest", "permission", "flags"])
def test_what_is_missing_is_one_line(project: BuiltProject, missing: str, tmp_path: Path) -> None:
    env, message = dict[str, str](), ""
    if missing == "cargo":
        env, message = {"PATH": str(tmp_path)}, "no such program"
    elif missing == "lock":
        (project.folder / "Cargo.lock").unlink()
        message = "no Cargo.lock beside"
    elif missing == "manifest":
        (project.folder / "Cargo.toml").unlink()
        message = "no Cargo.toml there"
    elif missing == "permission":
        (project.folder / "target").write_text("a file")
        message = "this command: "
    else:
        env, message = {"RUSTFLAGS": "-Cprofile-use=x"}, "PGO flags are there already"
    done = project.build(**env)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr


def test_a_compilers_error_is_told(project: BuiltProject) -> None:
    edited(project, "src/main.rs", "plus(part(1000))", "plus(nothing)")
    done = project.build()
    assert done.exit_code == 2
    assert "the instrumented build: cannot find value `nothing`" in done.stderr.splitlines()[-1]
    assert "src/main.rs" in done.stderr
