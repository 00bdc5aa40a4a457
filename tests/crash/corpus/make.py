"""The texts of this folder that were made here, made again: `python -m tests.crash.corpus.make NAME…`

A label's `made` names a view and a build of builds.toml. What differs from run to run (addresses of
libraries, process ids) differs here, too; a label does not rest on it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from nbsupport.lab import Lab
from nbsupport.toolchains import find

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
DATA = ROOT / "data" / "programs"
LINES = 200  # of a text
#: A tool of one of the lab's toolchains, by its LLVM: clang-17, llvm-profdata-22, lldb-19.
_TOOL = re.compile(r"(clang|clang\+\+|lldb|llvm-\w+)-(1[7-9]|2\d)")
_MADE = re.compile(
    r"here: (?P<view>.+?) of (?P<build>[\w-]+)(?: (?P<fault>[\w-]+))?(?:, (?P<surroundings>.+))?"
)
_TIME = re.compile(r"^\[ *[\d.]+\] ", re.MULTILINE)


def labels() -> dict[str, dict[str, str | bool]]:
    """Return what is said of each text, by its name."""
    return tomllib.loads((HERE / "labels.toml").read_text())


def text(name: str) -> str:
    """Make the text of this name again."""
    view, build, fault, surroundings = recipe(str(labels()[name]["made"]))
    content = shown(view, build, fault)
    return SURROUNDINGS[surroundings](content) if surroundings else content


def recipe(made: str) -> tuple[str, str, str, str]:
    """Return the view, the build, its fault, and what surrounds the text, of a label's `made`."""
    match = _MADE.fullmatch(made)
    if match is None:
        raise SystemExit(f"{made}: was not made here, but after a public format")
    return match["view"], match["build"], match["fault"] or "", match["surroundings"] or ""


def shown(view: str, build: str, fault: str = "") -> str:
    """Return what a view of builds.toml shows of a build, its folders replaced."""
    recipes = tomllib.loads((HERE / "builds.toml").read_text())
    steps = [f"-{step}" for step in recipes["builds"][build].get("steps", [])]
    steps += recipes["builds"][build].get("show", []) if view == "tools" else recipes["views"][view]
    before = kernel_lines() if view == "kernel" else []
    output = ""
    with tempfile.TemporaryDirectory(prefix="app") as folder:
        for step in steps:
            content = done(step.removeprefix("-"), Path(folder), fault)
            output += "" if step.startswith("-") else content
    if view == "coredumpctl":  # gdb says first how it loads the core
        output = output[output.index("           PID:") :]
    if view == "kernel":
        output = "\n".join(line for line in kernel_lines() if line not in before) + "\n"
    lines = replaced(output, folder).splitlines(keepends=True)
    return "".join(lines[:LINES])


def done(step: str, folder: Path, fault: str = "") -> str:
    """Run one command of builds.toml in a folder; return all that it writes."""
    symbolizer = find("19").prefix / "bin" / "llvm-symbolizer"
    env = dict(os.environ, LC_ALL="C", ASAN_SYMBOLIZER_PATH=str(symbolizer))
    env["UBSAN_OPTIONS"] = f"print_stacktrace=1:external_symbolizer_path={symbolizer}"
    places = {"data": DATA, "here": HERE, "folder": folder, "symbolizer": symbolizer}
    words = shlex.split(step.format(**places, clang=find("19").compiler, fault=fault))
    while "=" in words[0]:  # the environment of this command
        name, _, value = words.pop(0).partition("=")
        env[name] = value
    if match := _TOOL.fullmatch(words[0]):
        words[0] = str(find(match[2]).prefix / "bin" / match[1])
    if words[0] == "trial":  # trial PROGRAM LLVM FOREIGN: a program of the lab
        lab = Lab()
        shutil.copy(lab.linked(lab.trial(*words[1:])), folder / "app")
        return ""
    if words[0] == "python":
        words[0] = sys.executable
    result = subprocess.run(
        words,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    return result.stdout.decode(errors="replace")


def kernel_lines() -> list[str]:
    """Return what the kernel has said of crashes of app."""
    lines = done("dmesg", HERE).splitlines()
    return [line for line in lines if re.search(r"\bapp\[\d+\]", line)]


def replaced(output: str, folder: str) -> str:
    """Return a text with this machine's folders replaced by a user's."""
    for toolchain in {find(str(major)) for major in range(17, 24)}:
        output = output.replace(str(toolchain.prefix), f"/usr/lib/llvm-{toolchain.major}")
    for place, stand_in in (
        (str(Path(folder).resolve()), "/home/user/app"),
        (str(ROOT), "/home/user/src"),
        (os.environ.get("GOROOT", "/usr/local/go"), "/usr/local/go"),
        (str(Path.home()), "/home/user"),
    ):
        output = output.replace(place, stand_in)
    return output


def _twice(content: str) -> str:
    first = shown("gdb", "crash", "null")
    return f"{first}\n{content}"


def _in_ci(content: str) -> str:
    stamps = (f"2026-11-29T10:17:{i // 10 % 60:02}.{i * 7919 % 10**7:07}Z " for i in range(LINES))
    return "".join(map("".join, zip(stamps, content.splitlines(keepends=True), strict=False)))


def _quoted(content: str) -> str:
    return "On Sunday, a user wrote:\n" + "".join(f"> {line}\n" for line in content.splitlines())


def _in_slack(content: str) -> str:
    text = content.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"jana  10:42 AM\nit died again :sob:\n```{text}```\n:eyes: 2   1 reply\n"


def _in_gitlab(content: str) -> str:
    head = 'section_start:1796000123:step_script\r\x1b[0K\x1b[0K\x1b[36;1mExecuting "step_script" stage\x1b[0;m\n'
    foot = "section_end:1796000190:step_script\r\x1b[0K\x1b[31;1mERROR: Job failed: exit code 1\n\x1b[0;m"
    return f"{head}\x1b[32;1m$ ./ci/pgo.sh\x1b[0;m\n{content}{foot}"


def _in_action(content: str) -> str:
    head = "##[group]Run ./ci/pgo.sh\n\x1b[36;1m./ci/pgo.sh\x1b[0m\nshell: /usr/bin/bash -e {0}\n##[endgroup]\n"
    return _in_ci(f"{head}{content}##[error]Process completed with exit code 1.\n")


def _in_journal(content: str) -> str:
    return "".join(f"Nov 29 10:17:03 build7 app[4711]: {i}\n" for i in content.splitlines())


def _in_stamped_gitlab(content: str) -> str:
    lines = content.splitlines()
    return "".join(
        f"2026-11-29T10:17:{i % 60:02}.{i * 7919 % 10**6:06}Z 01O {lines[i]}\n"
        for i in range(len(lines))
    )


def _in_jenkins(content: str) -> str:
    return "".join(f"[2026-11-29T10:17:03.418Z] {i}\n" for i in content.splitlines())


def _in_html(content: str) -> str:
    text = content.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<pre><code>{text}</code></pre>\n"


def _in_mail(content: str) -> str:
    lines = _wrapped(content).splitlines()
    return "Hallo,\n\nAm 29.11.26 um 11:02 schrieb M. Weber:\n" + "".join(
        f">> {i}\n" for i in lines
    )


def _wrapped(content: str) -> str:
    def pieces() -> Iterator[str]:
        for line in content.splitlines():
            yield from (line[i : i + 72] for i in range(0, max(len(line), 1), 72))

    return "\n".join(pieces()) + "\n"


def _in_docker(content: str) -> str:
    head = "#13 DONE 41.7s\n\n#14 [train 4/5] RUN ./ci/train.sh\n"
    lines = content.splitlines()
    return head + "".join(f"#14 {0.4 + 0.037 * i:.3f} {lines[i]}\n" for i in range(len(lines)))


def _in_question(content: str) -> str:
    text = "".join(f"    {line}\n" for line in content.splitlines())
    return (
        "I link a static C library from our vendor into a small tool and want a PGO build of it. "
        "Everything compiles, but the training run dies. I have no idea where to look. "
        f"This is all I get from gdb:\n\n{text}\n"
        "The same sources without `-fprofile-generate` are fine. What am I doing wrong?\n"
    )


#: What becomes of a text on its way from a terminal to a reader.
SURROUNDINGS: dict[str, Callable[[str], str]] = {
    "with Windows line ends": lambda content: content.replace("\n", "\r\n"),
    "in quote marks": _quoted,
    "twice quoted": lambda content: _quoted(_quoted(content)),
    "in a Markdown fence": lambda content: (
        f"It crashes at exit:\n\n```console\n{content}```\n\nAny idea?\n"
    ),
    "in a CI log": _in_ci,
    "after another crash": _twice,
    "wrapped at 72 columns": _wrapped,
    "in Slack": _in_slack,
    "in a GitLab log": _in_gitlab,
    "in a GitHub log": _in_action,
    "in a stamped GitLab log": _in_stamped_gitlab,
    "in a Jenkins log": _in_jenkins,
    "in a journal": _in_journal,
    "in HTML": _in_html,
    "in a German mail": _in_mail,
    "in a Docker log": _in_docker,
    "in a question": _in_question,
    "indented by tabs": lambda content: "".join(f"\t{line}\n" for line in content.splitlines()),
}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        (HERE / f"{name}.txt").write_bytes(text(name).encode())
