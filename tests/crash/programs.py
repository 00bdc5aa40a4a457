"""A program that crashes as a test asks it to, and debuggers that look at it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil

from nbsupport.crash.crash import Crash
from nbsupport.crash.debugger import Debugger, open_debugger
from tests.support.processes import has

SOURCE = r"""
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

__attribute__((noinline)) int inner(volatile long *p) { return (int)p[2] + 1; }
__attribute__((noinline)) int outer(long p) { return inner((volatile long *)p) + 1; }
static void *in_thread(void *p) { outer((long)p); return 0; }
static void ignore(int n) { (void)n; }

int main(int argc, char **argv) {
  const char *mode = argv[1];
  pthread_t thread;
  char here[4096];
  if (!strcmp(mode, "at")) return outer(strtol(argv[2], 0, 0));
  if (!strcmp(mode, "jump")) return ((int (*)(void))strtol(argv[2], 0, 0))();
#ifdef __x86_64__
  if (!strcmp(mode, "table")) {
    long table[1] = {strtol(argv[2], 0, 0)};
    __asm__ volatile("call *%0" : : "m"(table[0]));
  }
#endif
  if (!strcmp(mode, "hang")) for (;;) pause();
  if (!strcmp(mode, "spin")) for (volatile int i = 0;; i++) {}
  if (!strcmp(mode, "abort")) abort();
  if (!strcmp(mode, "trap")) raise(SIGTRAP);
  if (!strcmp(mode, "kill")) kill(getpid(), SIGSEGV);
  if (!strcmp(mode, "term")) kill(getpid(), SIGTERM);
  if (!strcmp(mode, "exec")) execl(argv[0], argv[0], "at", "0", (char *)0);
  if (!strcmp(mode, "fork")) {
    if (!fork()) _exit(3);
    wait(0);
    return outer(0);
  }
  if (!strcmp(mode, "daemon")) {
    if (!fork()) for (;;) pause();
    return 0;
  }
  if (!strcmp(mode, "signals")) {
    signal(SIGUSR1, ignore);
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 20; i++) { raise(SIGUSR1); raise(SIGPIPE); raise(SIGCHLD); }
    return outer(0);
  }
  if (!strcmp(mode, "thread")) {
    pthread_create(&thread, 0, in_thread, 0);
    pthread_join(thread, 0);
  }
  if (!strcmp(mode, "chatty")) {
    for (int i = 0; i < 200000; i++) { puts(argv[0]); fputs(argv[0], stderr); }
    return outer(0);
  }
  if (!strcmp(mode, "where") && !strcmp(getcwd(here, sizeof here), argv[2])
      && environ[0] && !strcmp(environ[0], "ONLY=one = \"two\" $three") && !environ[1])
    return outer(0);
  if (!strcmp(mode, "stdin") && getchar() == EOF) return outer(0);
  return 7;
}
"""


def compile_crasher(clang: Path, folder: Path, *flags: str) -> Path:
    (folder / "crasher.c").write_text(SOURCE)
    options = ("-fno-optimize-sibling-calls", "-pthread", "-o", "crasher", *flags)
    subprocess.run([clang, "crasher.c", *options], cwd=folder, check=True)
    return folder / "crasher"


def crash(debugger: Debugger, program: Path, *args: str, seconds: float = 10) -> Crash | None:
    return debugger.crash([program, *args], cwd=program.parent, env={}, seconds=seconds)


def crashed(debugger: Debugger, program: Path, *args: str) -> Crash:
    found = crash(debugger, program, *args)
    assert found
    return found


def open_lldb(lldb: Path) -> Debugger:
    debugger = open_debugger(lldb, None)
    assert debugger
    return debugger


def agents() -> set[psutil.Process]:
    return {child for child in psutil.Process().children() if has(child, "inside_lldb")}


def gone(child: psutil.Process) -> bool:
    """Say whether a process has ended, and only its parent does not know yet."""
    try:
        return child.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
