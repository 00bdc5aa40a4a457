"""One LLDB for all traces of a worker, and a program that does what a test asks for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbsupport.lab import build
from nbsupport.lab.lab import Lab
from nbsupport.trace.trace import Trace
from nbsupport.trace.tracer import Tracer

SOURCE = r"""
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
extern char __start___llvm_prf_data[];
static int one(int x) { return x + 1; }
static int two(int x) { return x * 3; }
static int (*volatile const all[])(int) = {one, two};
__attribute__((constructor)) static void early(void) { if (getenv("EARLY")) _exit(3); }
__attribute__((destructor)) static void late(void) { if (getenv("LATE")) puts("late"); }
static void *held;
static void bye(void) { free(held); }
static void *work(void *n) {
  int s = 0;
  for (long i = 0; i < (long)n; i++) {
    void *volatile block = malloc(16);
    s = all[i % 2](s) & 255;
    free(block);
  }
  return s > 255 ? n : 0;
}
int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  char line[64] = "nothing";
  pthread_t threads[4];
  if (!strcmp(mode, "sites")) work((void *)atol(argv[2]));
  if (!strcmp(mode, "exec")) execl(argv[0], argv[0], "sites", "10", (char *)0);
  if (!strcmp(mode, "null")) *(volatile int *)0 = 1;
  if (!strcmp(mode, "hang")) for (;;) pause();
  if (!strcmp(mode, "stdin")) puts(fgets(line, sizeof line, stdin) ? line : "nothing");
  if (!strcmp(mode, "exit")) {
    atexit(bye);
    held = malloc(24);
    exit(0);
  }
  if (!strcmp(mode, "protect")) {
    long page = (long)__start___llvm_prf_data & ~4095L;
    return mprotect((void *)page, 4096, PROT_READ | PROT_WRITE);
  }
  if (!strcmp(mode, "fork")) {
    atexit(bye);
    if (!fork()) return 0;
    wait(0);
  }
  if (!strcmp(mode, "threads")) {
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, work, (void *)1000);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
  }
  if (!strcmp(mode, "signals")) {
    signal(SIGUSR1, SIG_IGN);
    for (int i = 0; i < 3; i++) raise(SIGUSR1);
  }
  if (!strcmp(mode, "gigabyte")) {
    static char block[1 << 16];
    for (int i = 0; i < 1 << 14; i++) fwrite(block, 1, sizeof block, stdout);
  }
  return 0;
}
"""


@pytest.fixture(scope="session")
def tracer(lldb: Path) -> Iterator[Tracer]:
    with Tracer(lldb) as made:
        yield made


@pytest.fixture(scope="session")
def compiled(clang: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that compiles the program above, instrumented, with more flags."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "t.c").write_text(SOURCE)

    def make(*flags: str) -> Path:
        out = folder / ("t" + "".join(flags).replace("/", "_"))
        linker = ["-fuse-ld=lld"] if clang.with_name("ld.lld").exists() else []
        command = [str(clang), "-O1", "-fprofile-generate", *linker, *flags, "t.c", "-o", str(out)]
        if not out.exists():
            subprocess.run([*command, "-lpthread"], cwd=folder, check=True)
        return out

    return make


@pytest.fixture
def run(tracer: Tracer, compiled: Callable[..., Path], tmp_path: Path) -> Callable[..., Trace]:
    """Return a function that traces the program above in one of its modes."""

    def trace(*mode: str, flags: tuple[str, ...] = (), **options: Any) -> Trace:
        env = {"PATH": "/usr/bin", **options.pop("env", {})}
        out = tmp_path / "trace"
        argv = [str(compiled(*flags)), *mode]
        return tracer.run(argv, out, env=env, cwd=tmp_path, **{"seconds": 20, **options})

    return trace


@pytest.fixture(scope="session")
def trial(
    lab: Lab, tracer: Tracer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Trace]:
    """Return a function that traces a trial's program, once."""
    made: dict[Any, Trace] = {}

    def trace(*names: str, order: str = "main-first") -> Trace:
        if (names, order) not in made:
            program = build.linked(lab.trial(*names, order=order), lab.cache)
            folder = tmp_path_factory.mktemp("trace")
            made[names, order] = tracer.run(
                [program], folder / "t", env={"PATH": "/usr/bin"}, cwd=folder, seconds=20
            )
        return made[names, order]

    return trace
