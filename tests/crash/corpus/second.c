/* More programs that crash for reasons of their own: -DFAULT=NAME says which function main calls.
 *
 * Each is instrumented by one LLVM. Some crash with a function of the profile runtime on the stack.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#define APART __attribute__((noinline))

typedef int operation(int);
static int twice(int n) { return 2 * n; }
static int thrice(int n) { return 3 * n; }
static operation *volatile operations[] = {twice, thrice};
static volatile int number;
static char *volatile block;
static volatile long *volatile nothing;

APART int busy(int rounds) {
    int sum = 0;
    for (int i = 0; i < rounds; i++)
        sum += operations[i & 1](i);
    return sum;
}

APART int fine(void) { return busy(10) & 0; }

/* A call through a pointer that text has overwritten. */
APART int wild_jump(void) {
    memcpy((void *)operations, "AAAAAAAABBBBBBBB", 8 + (unsigned)number);
    int (*volatile *call)(int) = (void *)operations;
    return call[0](3);
}

/* A file is cut while it is mapped: SIGBUS in the program's own loop. */
APART int checksum(const char *bytes, int size) {
    int sum = 0;
    for (int i = 0; i < size; i++)
        sum += bytes[i];
    return sum;
}
APART int cut_map(void) {
    int file = open("table.bin", O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, 8192))
        return 1;
    char *bytes = mmap(NULL, 8192, PROT_READ, MAP_SHARED, file, 0);
    number = checksum(bytes, 8192);
    return ftruncate(file, 0) || checksum(bytes, 8192);
}

/* The heap is overwritten; the C library finds it at the next allocation, which is the runtime's. */
APART int smashed_heap(void) {
    block = malloc(24);
    memset(block, 0x55, 4096 + (unsigned)number);
    return busy(10);
}

/* The handler of a timer crashes in memcpy, while a value site of the main thread runs. */
#ifdef INTERRUPTED
void __llvm_profile_instrument_target(unsigned long, void *, unsigned);
__attribute__((no_profile_instrument_function)) static void on_timer(int signal_number,
                                                                     siginfo_t *info,
                                                                     void *context) {
    ucontext_t *interrupted = context;
    unsigned long place = (unsigned long)interrupted->uc_mcontext.gregs[REG_RIP];
    unsigned long site = (unsigned long)&__llvm_profile_instrument_target;
    (void)signal_number;
    if (place - site < 64)
        memcpy((void *)nothing, info, sizeof *info);
}
APART int interrupted(void) {
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
    struct itimerval often = {{0, 50}, {0, 50}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (;;)
        number = busy(100000);
}
#endif

/* The handler of the first crash aborts. */
static void on_crash(int signal_number) {
    (void)signal_number;
    abort();
}
APART int twice_dead(void) {
    signal(SIGSEGV, on_crash);
    return (int)*nothing;
}

/* The program has a calloc of its own, whose list is broken; the value site calls it. */
#ifdef OWN_CALLOC
static struct node {
    struct node *next;
} *volatile free_list;
void *calloc(size_t count, size_t size) {
    static char room[1 << 16];
    static size_t used;
    size_t need = (count * size + 15) & ~(size_t)15;
    if (free_list)
        free_list = free_list->next;
    used += need;
    return room + used - need;
}
APART int own_calloc(void) {
    free_list = (void *)0x6e6f7465;
    return busy(10);
}
#endif

/* A thread lives on while main returns: it uses what an exit handler has freed. */
static void *reads(void *none) {
    (void)none;
    for (;;)
        number = (int)*(volatile long *)block;
}
static void unmaps(void) {
    munmap(block, 4096);
    usleep(200000);
}
APART int late_thread(void) {
    pthread_t reader;
    block = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_create(&reader, NULL, reads, NULL);
    usleep(50000);
    return atexit(unmaps);
}

/* A race of two threads. */
static int shared;
static void *adds(void *none) {
    for (int i = 0; i < 1000; i++)
        shared += operations[i & 1](i);
    return none;
}
APART int race(void) {
    pthread_t first, second;
    pthread_create(&first, NULL, adds, NULL);
    pthread_create(&second, NULL, adds, NULL);
    pthread_join(first, NULL);
    return pthread_join(second, NULL);
}

/* A copy past the end of an array on the stack; a block used after free, at exit; no value yet. */
APART int long_copy(void) {
    char room[16];
    memcpy(room, (void *)operations, 16 + (unsigned)number + sizeof room);
    return room[number];
}
static void uses(void) { number = block[2]; }
APART int freed_at_exit(void) {
    atexit(uses);
    block = malloc(16);
    free(block);
    return 0;
}
APART int undefined_value(void) {
    block = malloc(40);
    int result = block[3] > 7 ? busy(3) : fine();
    free(block);
    return result & 1;
}

#ifdef EARLY
__attribute__((constructor)) static void prepare_rates(void) { number = 100 / number; }
#endif
#ifdef LATE
__attribute__((destructor)) static void close_log(void) { number = (int)*nothing; }
#endif

int main(void) {
    puts("ready");
    fflush(stdout);
    return FAULT();
}
