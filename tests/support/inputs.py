"""Input files for commands.py: real programs, profiles and reports, made once and then reused.

Made by the compilers, debuggers and `pgo-lab` as programs: no module of the package is named
here, so that what comes out does not depend on where its modules are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Written last: a folder without it is half made.
MARK = "complete"
VERSIONS = ("17", "18", "19", "22", "23")
FLAGS = {"ir": "-fprofile-generate", "front-end": "-fprofile-instr-generate"}
#: What links each program, and its objects in link order: LLVM/source-instrumentation.
PROGRAMS = {
    "uniform": ("19", "19/main-ir", "19/cold-ir"),
    "alike": ("19", "19/main-ir", "22/cold-ir"),
    "nines": ("19", "18/cold-ir", "19/main-ir"),
    "mixed-cold": ("19", "19/main-ir", "17/cold-ir"),
    "mixed-hot": ("19", "19/main-ir", "17/hot-ir"),
    "mixed-newer": ("19", "19/main-ir", "23/hot-ir"),
    "mixed-first": ("19", "17/cold-ir", "19/main-ir"),
    "front-end": ("19", "19/main-front-end", "17/cold-front-end"),
    "coverage": ("23", "23/main-front-end", "23/hot-front-end"),
    "main-only": ("19", "19/main-ir", "17/cold-none"),
    "plain": ("19", "19/main-none", "17/cold-none"),
    "null": ("19", "19/null-ir"),
    "waits": ("19", "19/waits-ir", "17/hot-ir"),
    "idles": ("19", "19/waits-ir", "19/hot-ir"),
    "reads": ("19", "19/reads-ir", "17/cold-ir"),
}
#: Besides those of data/programs.
SOURCES = {
    "null": "int main(int n, char **v) { return *(volatile int *)(long)(n - 1); }\n",
    # What it has counted is the same whenever it is ended.
    "waits": """\
#include <stdio.h>
#include <unistd.h>
unsigned library_step(unsigned);
int main(void) { printf("%u\\n", library_step(3)); fflush(stdout); for (;;) pause(); }
""",
    "reads": """\
#include <stdio.h>
unsigned library_step(unsigned);
int main(int n, char **v) {
    char line[99];
    while (fgets(line, 99, stdin)) printf("%u %s", library_step(3), line);
    for (int i = 1; i < n; i++) fprintf(stderr, "argument %s\\n", v[i]);
    return n;
}
""",
    "part": "int part(int x) { return x > 0 ? x : 0; }\n",
}
RUST = """\
extern "C" { fn part(x: i32) -> i32; }
fn main() { std::process::exit(unsafe { part(-1) }); }
"""
CRASH = """\
Process:               evtx_dump [4711]
Exception Type:        EXC_BAD_ACCESS (SIGSEGV)
Exception Codes:       KERN_INVALID_ADDRESS at 0x0001000100000001

Thread 0 Crashed:: Dispatch queue: com.apple.main-thread
0   evtx_dump                     \t0x0000000104f80000 initializeValueProfRuntimeRecord + 88
1   evtx_dump                     \t0x0000000104f80001 writeOneValueProfData + 89

Thread 0 crashed with ARM Thread State (64-bit):
    x0: 0x0001000100000001   x1: 0x0000000000000007
   far: 0x0001000100000001   pc: 0x0000000104f80000
"""
#: The same as JSON.
IPS: dict[str, Any] = {
    "exception": {
        "type": "EXC_BAD_ACCESS",
        "signal": "SIGSEGV",
        "codes": "0x1, 0x0",
        "subtype": "KERN_INVALID_ADDRESS at 0x0001000100000001",
    },
    "faultingThread": 0,
    "threads": [
        {
            "triggered": True,
            "frames": [
                {"imageOffset": 4, "imageIndex": 0, "symbol": name, "symbolLocation": 88}
                for name in ("initializeValueProfRuntimeRecord", "writeOneValueProfData")
            ],
            "threadState": {"x": [{"value": 0x1000100000001}], "pc": {"value": 0x104F80004}},
        }
    ],
    "usedImages": [{"base": 0x104F80000, "name": "evtx_dump"}],
}
HEAD = '{"app_name":"evtx_dump","bug_type":"309"}\n'
MISMATCH = (
    "LLVM Profile Error: Runtime and instrumentation version mismatch : expected 10, but get 8"
)
REPORTS = {
    "mac.ips": HEAD + json.dumps(IPS, indent=1),
    "cut.ips": HEAD + json.dumps(IPS)[:-50],
    "mac.crash": CRASH,
    "mismatch.txt": f"2025-03-17T10:00:00.1Z run 3\n2025-03-17T10:00:01.2Z {MISMATCH}\n",
    "malformed.txt": "warning: d.profraw: malformed instrumentation profile data\n",
    "gcov.txt": "ld: undefined reference to `__gcov_init'\n",
    "log.txt": "RUSTFLAGS=-Cprofile-generate=/p\nexited with signal: 11, SIGSEGV\n",
    "continuous.txt": f"LLVM_PROFILE_FILE=/p/%c%4m.profraw\n{CRASH.replace('1000100', '7')}",
    "well.txt": "all is well\n",
    "empty.txt": "",
}
CLAIM = "application/vnd.pgo-lab.claim+json"
TABLE = "application/vnd.pgo-lab.table+json"
#: The parameters of a claim that data/recorded has, too.
AT = {
    "foreign": "clang 17",
    "instrument": "ir",
    "main": "clang 19",
    "main_instrument": "ir",
    "order": "main-first",
    "program": "cold",
}


def make(folder: Path, checkout: Path) -> None:
    """Fill a folder, unless that was done before."""
    if (folder / MARK).is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    listed = run(checkout / ".venv/bin/pgo-lab", "toolchains", "--json", cwd=folder)
    prefixes = {row["name"]: Path(row["prefix"]) for row in json.loads(listed)}
    maker = Maker(folder, checkout / "data", prefixes)
    maker.toolchains()
    maker.programs()
    maker.link_inputs()
    maker.cargo_target()
    maker.profiles()
    maker.reports()
    maker.runs()
    maker.notebooks()
    (folder / MARK).touch()


def tools(folder: Path) -> dict[str, str]:
    """Return the compilers that commands name."""
    kept = folder / "toolchains"
    places = {"clang19": ("llvm-19.*", "bin/clang"), "rustc19": ("rustc-*", "usr/bin/rustc")}
    return {name: str(next(kept.glob(pattern)) / tool) for name, (pattern, tool) in places.items()}


def run(*argv: str | Path, cwd: Path, env: Mapping[str, str] | None = None, ok: bool = True) -> str:
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    output, errors = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    if ok and done.returncode:
        raise SystemExit(f"{argv}: exit code {done.returncode}\n{output}{errors}")
    return output


class Maker:
    """Makes the files of one folder; `prefixes` are those of the compilers, by name."""

    def __init__(self, folder: Path, data: Path, prefixes: Mapping[str, Path]) -> None:
        self.folder, self.data, self.prefixes = folder, data, prefixes
        self.sources = folder / "sources"
        shutil.copytree(data / "programs", self.sources)
        for name, text in SOURCES.items():
            (self.sources / f"{name}.c").write_text(text)

    def prefix(self, name: str) -> Path:
        if name not in self.prefixes:
            raise SystemExit(f"no {name} here: make toolchains")
        return self.prefixes[name]

    def tool(self, version: str, name: str = "clang") -> Path:
        return self.prefix(f"{version}@wheel") / "bin" / name

    def object(self, path: str, *flags: str) -> Path:
        """Compile what a path such as 17/cold-ir names; flags become part of its name."""
        out = self.folder / f"{path}{''.join(flags)}.o"
        version, _, name = path.partition("/")
        source, _, instrument = name.partition("-")
        words = [FLAGS[instrument]] if instrument in FLAGS else []
        if not any("windows" in flag for flag in flags):  # where it is an unknown option
            words.append("-fPIC")
        library = self.sources / f"library_{source}.c"
        code = library if library.is_file() else self.sources / f"{source}.c"
        out.parent.mkdir(exist_ok=True)
        clang = "gcc" if version == "gcc" else self.tool(version)
        run(clang, "-O1", *words, *flags, "-c", code, "-o", out, cwd=self.folder)
        return out

    def toolchains(self) -> None:
        """Link to the wheels and to Debian's rustc: a cache of ours, that nobody else changes."""
        kept = self.folder / "toolchains"
        kept.mkdir()
        wheels = [self.prefix(f"{version}@wheel") for version in VERSIONS]
        for prefix in (*wheels, self.prefix("19@rustc-1.85.0").parent):
            (kept / prefix.name).symlink_to(prefix)
        # It is asked what it is as any clang, but does not compile the library.
        broken = self.folder / "broken" / "bin" / "clang"
        broken.parent.mkdir(parents=True)
        refuse = 'case "$*" in *library*) echo "library.c:1: error: refused" >&2; exit 1;; esac'
        broken.write_text(f'#!/bin/sh\n{refuse}\nexec {self.tool("17")} "$@"\n')
        broken.chmod(0o755)

    def programs(self) -> None:
        for name, (linker, *paths) in PROGRAMS.items():
            objects = [self.object(path) for path in paths]
            kind = "front-end" if "front-end" in paths[0] else "ir"
            words = ["-fuse-ld=lld", *([] if name == "plain" else [FLAGS[kind]])]
            run(self.tool(linker), *words, *objects, "-o", name, cwd=self.folder)
        strip = self.tool("19", "llvm-strip")
        run(strip, "--strip-all", "-o", "stripped", "mixed-hot", cwd=self.folder)
        (self.folder / "script").write_text("#!/bin/sh\nexit 3\n")
        (self.folder / "script").chmod(0o755)

    def link_inputs(self) -> None:
        """Objects of all kinds, and archives."""
        for version in VERSIONS:
            self.object(f"{version}/part-ir")
        self.object("gcc/part-none")
        self.object("19/part-ir", "-flto")
        self.object("19/part-ir", "-mllvm", "-pgo-block-coverage")
        self.object("17/part-front-end", "-fcoverage-mapping")
        for target in ("x86_64-apple-macos11", "x86_64-pc-windows-msvc", "i386-linux-gnu"):
            self.object("17/part-ir", f"--target={target}")
        for version in ("17", "22"):
            for kind, name in (("rcs", "libordinary.a"), ("rcsT", "libthin.a")):
                words = (kind, name, "cold-ir.o", "part-ir.o")
                run(self.tool("19", "llvm-ar"), *words, cwd=self.folder / version)
        (self.folder / "17" / "objects.rsp").write_text(f'"{self.folder}/17/cold-ir.o"\n')

    def cargo_target(self) -> None:
        """Lay out a folder as cargo leaves it: rustc of LLVM 19, the C part by LLVM 17."""
        rustc = self.prefix("19@rustc-1.85.0") / "bin" / "rustc"
        release = self.folder / "target" / "release"
        out, script = release / "build/tiny-2/out", release / "build/tiny-1"
        for folder in (out, script, release / "deps"):
            folder.mkdir(parents=True)
        version = "rustc 1.85.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 19.1.7\n"
        info = {"outputs": {"1": {"stdout": version}}}
        (release.parent / ".rustc_info.json").write_text(json.dumps(info))
        shutil.copy(self.folder / "17/part-ir.o", out / "part.o")
        run(self.tool("19", "llvm-ar"), "rcs", "libpart.a", "part.o", cwd=out)
        (script / "main.rs").write_text("fn main() {}\n")
        (release / "main.rs").write_text(RUST)
        linker = [f"-Clinker={self.tool('19')}", "-Clink-arg=-fuse-ld=lld", "main.rs", "-o"]
        run(rustc, *linker, "build-script-build", cwd=script)
        words = ["-Cprofile-generate", f"-Lnative={out}", "-lstatic=part"]
        run(rustc, *words, *linker, "deps/tiny-0123456789abcdef", cwd=release)
        os.link(release / "deps/tiny-0123456789abcdef", release / "tiny")
        cured = self.folder / "target-cured/release/build/tiny-2/out"
        cured.mkdir(parents=True)
        for version in ("19", "22"):
            shutil.copy(self.folder / version / "part-ir.o", cured / f"{version}.o")

    def profiles(self) -> None:
        """Raw profiles: good ones, what mixed programs leave, and what is damaged."""
        raw, whole, some = (self.folder / name for name in ("raw", "whole", "some"))
        for folder in (raw, whole, some, self.folder / "nothing"):
            folder.mkdir()
        for name in PROGRAMS.keys() - {"plain", "null", "waits", "idles", "reads"}:
            env = {"LLVM_PROFILE_FILE": f"{name}.profraw"}
            run(self.folder / name, cwd=raw, env=env, ok=False)  # some crash
        good = (raw / "uniform.profraw").read_bytes()
        damaged = {
            "empty": b"",
            "head": good[:40],
            "half": good[: len(good) // 2],
            "longer": good + bytes(24),
            "flipped": good[:200] + bytes(255 - byte for byte in good[200:232]) + good[232:],
            "unknown": good[:8] + b"\x63" + good[9:],  # raw version 99
            "junk": bytes(range(256)) * 3,
        }
        for name, content in damaged.items():
            (raw / f"{name}.profraw").write_bytes(content)
        (raw / "loop.profraw").symlink_to("loop.profraw")  # which not even root can read
        for number in range(2):
            shutil.copy(raw / "uniform.profraw", whole / f"{number}.profraw")
            shutil.copy(raw / "uniform.profraw", some / f"{number}.profraw")
        for name in ("empty", "half", "junk", "coverage", "front-end"):
            shutil.copy(raw / f"{name}.profraw", some)
        (some / "notes.txt").write_text("not a profile\n")

    def reports(self) -> None:
        """Crashes as people have them: from debuggers, and of systems that are not here."""
        kept = self.folder / "reports"
        kept.mkdir()
        lldb = [str(self.tool("23", "lldb")), "--no-lldbinit", "-b", "-o", "run"]
        for look in ("bt", "register read", "disassemble --pc --count 1"):
            lldb += ["-k", look]
        env = {"LLVM_PROFILE_FILE": os.devnull, "DEBUGINFOD_URLS": ""}
        for name in ("mixed-cold", "mixed-hot", "null"):
            gdb = ["gdb", "-nx", "-batch"]
            for look in ("run", "bt", "info registers", "x/i $pc", f"gcore {name}.core"):
                gdb += ["-ex", look]
            for debugger, words in (("gdb", gdb), ("lldb", lldb)):
                text = run(*words, self.folder / name, cwd=kept, env=env)
                (kept / f"{name}-{debugger}.txt").write_text(text)
        for name, text in REPORTS.items():
            (kept / name).write_text(text)
        (kept / "junk").write_bytes(bytes(range(256)))

    def runs(self) -> None:
        """A pair of runs to compare: the recorded one, and a copy in which much is otherwise."""
        import pandas as pd

        a, b, damaged = (self.folder / "runs" / name for name in ("a", "b", "damaged"))
        recorded = self.data / "recorded"
        for folder in (a, b):
            folder.mkdir(parents=True)
            for path in (*recorded.glob("*.parquet"), recorded / "manifest.json"):
                shutil.copy(path, folder)
        tables = {
            name: pd.read_parquet(b / f"{name}.parquet") for name in ("claims", "trials", "ledger")
        }
        claims, trials, ledger = tables.values()
        claims.loc[0, "holds"] = False
        claims.loc[[0, 4], "observed"] = "otherwise"
        more = claims.iloc[[0]].assign(name="a-new-claim", holds=True)
        tables["claims"] = pd.concat([claims.drop(index=[2]), more])
        trials["outcome"] = trials["outcome"].replace("crash", "malformed")
        tables["trials"] = trials.drop(index=[0, 1])
        ledger.loc[1, "verdict"] = "supported"
        for name, table in tables.items():
            table.to_parquet(b / f"{name}.parquet", index=False)
        (b / "cases.parquet").unlink()
        manifest = json.loads((b / "manifest.json").read_text())
        manifest["platform"] = "Darwin arm64"
        manifest["toolchains"].pop()
        slow = next(iter(manifest["notebooks"].values()))
        slow["seconds"] = 50 + 20 * slow["seconds"]
        (b / "manifest.json").write_text(json.dumps(manifest))
        damaged.mkdir()
        (damaged / "claims.parquet").write_bytes(b"PAR1 and no more")

    def notebooks(self) -> None:
        """Notebooks that claim and record as those of the project do, without its modules."""
        (self.folder / "notebooks").mkdir()
        self.notebook("holds", "crash")
        self.notebook("changed", "ok")
        self.notebook("fails", "crash", "1 / 0")
        self.notebook("sleeps", "crash", "import time; time.sleep(99)")
        (self.folder / "notebooks" / "broken.ipynb").write_text('{"cells": [')

    def notebook(self, name: str, observed: str, last: str = "") -> None:
        claim = {"name": "mixed-layouts-decide", "sentence": "so it is", "predicted": "crash"}
        claim |= {"observed": observed, "holds": observed == "crash", "at": AT}  # type: ignore[dict-item]
        table = {"name": "grid", "rows": [{"program": "cold", "outcome": observed}]}
        sources = [
            "from IPython.display import display",
            'llvm: str = "19"  # main\nforeign: str = "17"\nnumber: int = 3',
            f"display({ {'text/plain': f'claimed: {observed}', CLAIM: claim} }, raw=True)",
            f"display({ {'text/plain': 'recorded', TABLE: table} }, raw=True)",
            "print(llvm, foreign, number)",
            last,
        ]
        cells: list[dict[str, object]] = [
            {"cell_type": "markdown", "id": "title", "metadata": {}, "source": f"# {name}"}
        ]
        for number, source in enumerate(sources):
            tags = {"tags": ["parameters"]} if source.startswith("llvm:") else {}
            cell = {"cell_type": "code", "id": f"cell{number}", "metadata": tags}
            cells.append({**cell, "execution_count": None, "outputs": [], "source": source})
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        book = {"cells": cells, "metadata": {"kernelspec": kernel}}
        text = json.dumps({**book, "nbformat": 4, "nbformat_minor": 5}, indent=1)
        (self.folder / "notebooks" / f"{name}.ipynb").write_text(text)
