/* The third author's programs: -DFAULT=NAME says which function main calls. One LLVM each. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

int __llvm_profile_write_buffer(char *buffer);
void __llvm_profile_set_filename(const char *name);

#define APART __attribute__((noinline))

typedef int operation(int);
static int twice(int n) { return 2 * n; }
static int thrice(int n) { return 3 * n; }
static operation *volatile operations[] = {twice, thrice};
static volatile int number;
static char *volatile memory;

APART int busy(int rounds) {
    int sum = 0;
    for (int i = 0; i < rounds; i++)
        sum += operations[i & 1](i);
    return sum;
}

APART int fine(void) { return busy(10) & 0; }

/* No file may grow beyond 100 bytes: the kernel ends who writes the profile. */
APART int file_limit(void) {
    struct rlimit limit = {100, 100};
    return busy(10) & setrlimit(RLIMIT_FSIZE, &limit);
}

/* A sandbox in which no file is opened any more. */
APART int sandbox(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, filter};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return busy(10) & prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* The program hands the runtime memory that is none, or too little; or a name that is none. */
APART int null_buffer(void) { return busy(10) + __llvm_profile_write_buffer(memory); }
APART int small_buffer(void) {
    memory = malloc(64);
    return busy(10) + __llvm_profile_write_buffer(memory);
}
APART int bad_name(void) {
    __llvm_profile_set_filename((const char *)(size_t)(0x2f + number));
    return busy(10);
}

/* The program's calloc has value sites of its own, which call calloc. */
#ifdef OWN_CALLOC
static int up(int n) { return (n + 15) & ~15; }
static int same(int n) { return n; }
static operation *volatile rounding[] = {same, up};
void *calloc(size_t count, size_t size) {
    static char room[1 << 16];
    static int used;
    int need = rounding[1]((int)(count * size));
    used += need;
    return room + used - need;
}
#endif

/* An exit handler lies in a library that is closed by then. */
APART int stale_handler(void) {
    void *library = dlopen("./libhook.so", RTLD_NOW);
    ((void (*)(void))dlsym(library, "hook"))();
    return dlclose(library) + (busy(10) & 0);
}

/* Nobody ends it but another. */
APART int endless(void) {
    for (;;)
        number = busy(1000000);
}

/* Freed twice, as it ends. */
static void close_all(void) {
    free(memory);
    free(memory);
}
APART int freed_twice(void) {
    memory = malloc(40);
    atexit(close_all);
    return busy(10) & 0;
}

int main(void) {
    puts("ready");
    fflush(stdout);
    return FAULT();
}
