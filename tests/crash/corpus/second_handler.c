/* A crash handler as many programs have one: it prints a line, or (TRACE) a backtrace, then aborts. */
#include <execinfo.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static void on_crash(int signal_number) {
    fprintf(stderr, "app: crashed with signal %d, please report\n", signal_number);
#ifdef TRACE
    void *places[32];
    backtrace_symbols_fd(places, backtrace(places, 32), 2);
#endif
    abort();
}

__attribute__((constructor)) static void install(void) { signal(SIGSEGV, on_crash); }
