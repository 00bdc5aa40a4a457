/* Programs that crash for reasons of their own: -DFAULT=NAME says which function main calls.
 *
 * Each is instrumented by one LLVM, so none of these crashes comes of a mix of records.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define APART __attribute__((noinline))

struct item {
    long count;
    struct item *next;
};
typedef int operation(int);

static int twice(int n) { return 2 * n; }
static int thrice(int n) { return 3 * n; }
static operation *volatile operations[] = {twice, thrice};
static struct item *volatile nothing;
static volatile int depth, limit = 1 << 30;

APART long total(struct item *item) { return item->count + (item->next ? total(item->next) : 1); }
APART int null(void) { return (int)total(nothing); }

APART int deep(int n) {
    volatile char room[256];
    room[n & 255] = (char)n;
    return n < limit ? deep(n + 1) + room[n & 255] : 0;
}
APART int overflow(void) { return deep(1); }

/* A small frame and an indirect call: the stack may end within the call of the value site. */
APART int narrow(int n) {
    depth = operations[n & 1](n);
    return n < limit ? narrow(n + 1) + depth : 0;
}
APART int overflow_at_site(void) { return narrow(1); }

APART int ending(void) { abort(); }
APART int asserted(void) {
    assert(nothing != NULL);
    return 0;
}
APART int jump(void) {
    operations[1] = NULL;
    return operations[1](3);
}
APART int divide(void) { return 7 / depth; }
APART int copy(void) {
    memcpy(nothing, operations, 16 + (unsigned)depth);
    return 1;
}

/* Of the heap. volatile: no optimizer may see what becomes of the block. */
static char *volatile block;
APART int double_free(void) {
    block = malloc(40);
    free(block);
    free(block);
    return 0;
}
APART int bad_free(void) {
    block = malloc(40);
    free(block + 4);
    return 0;
}
APART int use_after_free(void) {
    block = malloc(40);
    free(block);
    return block[3];
}
APART int heap_overflow(void) {
    block = malloc(40);
    return block[41 + depth];
}
APART int signed_overflow(void) { return 0x7fffffff + (int)strlen("1"); }

/* In a thread, while two others wait. */
static void *waits(void *none) {
    (void)none;
    for (;;)
        pause();
}
static void *dies(void *none) {
    usleep(50000);
    return (void *)total(none);
}
/* In a thread, while another is busy with value sites. */
static void *works(void *none) {
    (void)none;
    for (int i = 0;; i++)
        depth = operations[i & 1](i);
}
APART int beside_sites(void) {
    pthread_t busy, dying;
    pthread_create(&busy, NULL, works, NULL);
    pthread_create(&dying, NULL, dies, NULL);
    pthread_join(dying, NULL);
    return 0;
}
APART int in_thread(void) {
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, i == 1 ? dies : waits, NULL);
    pthread_join(threads[1], NULL);
    return 0;
}

static void at_the_end(void) { depth = null(); }
APART int exit_handler(void) { return atexit(at_the_end); }

#ifdef PROFILED
int __llvm_profile_write_file(void);
extern char __start___llvm_prf_data[], __stop___llvm_prf_data[];

/* The profile is written by a signal handler that interrupts malloc. */
static void handler(int number) {
    (void)number;
    __llvm_profile_write_file();
}
APART int in_handler(void) {
    char *blocks[64] = {0};
    struct itimerval often = {{0, 200}, {0, 200}};
    signal(SIGALRM, handler);
    setitimer(ITIMER_REAL, &often, NULL);
    for (unsigned i = 0;; i++) {
        free(blocks[i % 64]);
        blocks[i % 64] = malloc(1 + i * 37 % 5000);
    }
}

/* A wild write of this program's own spoils its records; the runtime reads them at exit. */
APART int spoiled(void) {
    memset(__start___llvm_prf_data + 24, 'A', 200);
    return 0;
}

/* Another process cuts the mapped profile of a program in continuous mode (%c). */
APART int cut(void) {
    const char *name = getenv("CUT");
    int file = open(name, O_RDWR);
    if (file < 0 || ftruncate(file, 0))
        return 1;
    for (int i = 0; i < 100; i++)
        depth += twice(i);
    return null() + 1;
}
#endif

int main(void) {
    printf("starting\n");
    fflush(stdout);
    return FAULT();
}
