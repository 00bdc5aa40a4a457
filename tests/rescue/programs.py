"""Programs that a rescue is for, and what tests of rescues do with them."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from nbsupport.base import settings
from nbsupport.lab import build, counts
from nbsupport.lab.counts import Counts
from nbsupport.lab.lab import Lab
from nbsupport.lab.trial import Trial
from nbsupport.rescue import rescue
from nbsupport.rescue.rescued import Rescued
from nbsupport.studies import rescued_counts
from nbsupport.toolchains import discovery
from nbsupport.toolchains.profdata import Key, TextRecord

PROGRAMS = settings.data_dir() / "programs"


ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


PGO_LAB = Path(sys.executable).with_name("pgo-lab")
#: The same where nothing but LLDB is there, as on macOS.
BY_LLDB = """
from nbsupport.cli import commands
from nbsupport.crash import family
family.able = lambda: False
commands.entry()
"""


#: One LLVM for each raw version.
VERSIONS = ("17", "18", "19", "23")


Saved = Callable[..., tuple[Rescued, Counts]]


Compile = Callable[..., Path]


SOURCE = r"""
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
unsigned library_step(unsigned round);
static sigjmp_buf back;
static void on(int number) { siglongjmp(back, number); }
static pthread_barrier_t gate;
static void *step(void *sum) {
    pthread_barrier_wait(&gate);
    *(volatile unsigned *)sum += library_step(1);
    return sum;
}
int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    unsigned sum = 0;
    int late = !strcmp(what, "fork") || !strcmp(what, "vfork") || !strcmp(what, "threads");
    for (unsigned n = 0; n < 10 && !late; n++) sum += library_step(n);
    fprintf(stderr, "stepped\n");
    if (!strcmp(what, "abort")) abort();
    if (!strcmp(what, "leave")) _exit(3);
    if (!strcmp(what, "killed")) kill(getpid(), SIGKILL);
    if (!strcmp(what, "system")) return system(argv[2]);
    if (!strcmp(what, "alone")) {
        if (!fork()) { library_step(1); return 0; }
        return wait(NULL) < 0;
    }
    if (!strcmp(what, "vfork")) {
        if (!vfork()) { library_step(1); _exit(0); }
        library_step(1);
    }
    if (!strcmp(what, "threads")) {
        pthread_t threads[8];
        pthread_barrier_init(&gate, NULL, 8);
        for (int n = 0; n < 8; n++) pthread_create(&threads[n], NULL, step, &sum);
        for (int n = 0; n < 8; n++) pthread_join(threads[n], NULL);
    }
    if (!strcmp(what, "fork")) {
        int status = 1;
        if (!fork()) _exit(library_step(1) == 0);
        return wait(&status) < 0 || status;
    }
    if (!strcmp(what, "handle")) {
        signal(SIGSEGV, on);
        if (!sigsetjmp(back, 1)) *(volatile int *)16 = 1;
        puts("went on");
    }
    if (!strcmp(what, "become")) execl(argv[0], argv[0], "became", NULL);
    if (!strcmp(what, "forever")) for (;;) { puts("tick"); fflush(stdout); usleep(1000); }
    if (!strcmp(what, "read")) { char line[9]; if (fgets(line, 9, stdin)) fputs(line, stdout); }
    return !strcmp(what, "became") ? 7 : 0;
}
"""


def linked(lab: Lab, program: str, main: str, foreign: str, **options: str) -> tuple[Trial, Path]:
    trial = lab.trial(program, main, foreign, **options)
    return trial, build.linked(trial, lab.cache)


def expected(lab: Lab, trial: Trial) -> counts.Expected:
    return counts.together(lab.reference(part) for part in trial.references)


def command(*words: object, cwd: Path | None = None) -> str:
    """Run a command that has to succeed; return what it says on standard error."""
    argv = [str(word) for word in words]
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=True)
    return done.stderr


def strip(path: Path, folder: Path) -> Path:
    made = Path(shutil.copy(path, folder / f"stripped-{path.name}"))
    tool = discovery.find("19").prefix / "bin" / "llvm-strip"
    command(tool, "--strip-all", made)
    return made


def pgo_lab(*argv: object, **more: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in (PGO_LAB, "rescue", *argv)]
    return subprocess.run(words, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload,no-any-return]


@contextlib.contextmanager
def started(*argv: object, cwd: Path, by: str = "ptrace") -> Iterator[subprocess.Popen[str]]:
    tool = [sys.executable, "-c", BY_LLDB] if by == "lldb" else [PGO_LAB]
    words = [str(word) for word in (*tool, "rescue", *argv)]
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
    with subprocess.Popen(
        words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        signal.signal(signal.SIGHUP, before)
        try:
            yield child
        finally:
            child.kill()


def uniform(lab: Lab, trial: Trial, folder: Path) -> dict[Key, TextRecord]:
    """Return what uniform builds say when they run under LLDB, too, where no address is random."""
    found = dict[Key, TextRecord]()
    for part in trial.references:
        out = folder / "uniform.profdata"
        program = build.linked(part, lab.cache)
        assert rescue.run([program], out, env=ENVIRONMENT, cwd=folder).healthy
        found |= rescued_counts.read_functions(out)
    return found
