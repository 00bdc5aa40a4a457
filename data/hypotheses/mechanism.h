/* Ways in which a profile's writer could die, or its profile be lost: the rivals of mixed record
 * layouts, made to happen. Included by the compiler (-include) before a main in C. With
 *   -DVALUES_FREED   the memory of the values is unmapped before the profile is written (with
 *                    -vp-static-alloc=false, where the runtime asks calloc for it)
 *   -DHEAP_FREED     the whole heap is unmapped then, as by a careless allocator
 *   -DNO_MEMORY      from main on, the heap has no memory left
 *   -DNO_STACK       the profile is written on a stack that is nearly used up
 *   -DEARLIER_RUN    the same program, forked and executed, runs first: in the same folder
 *   -DSTALE          the same, and its records are taken over, as by mapping its profile's file:
 *                    their pointers are of the earlier run's heap
 *   -DLOCAL          what was main is a function that no other object can call
 *   -DTWO_WRITERS    two threads write the profile at once, as the program ends; a fault is told
 *   -DCOUNTING       another thread still counts when the profile is written; a fault is told
 *   -DBOTH           the program is forked as it starts: both run, and write
 * What is unmapped is so by an exit handler that is registered in main, so that it is called
 * before the profile's; with -DEARLY in a constructor, before the profile's is: it is called after.
 */
#define _GNU_SOURCE /* for REG_RIP */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

/* No function here has a record of its own. */
#define PLAIN __attribute__((no_profile_instrument_function))
#ifdef LOCAL
__attribute__((internal_linkage, noinline))
#endif
int lab_main(void);

#if defined VALUES_FREED || defined HEAP_FREED || defined NO_MEMORY || defined STALE
enum { ARENA_SIZE = 1 << 24, STEP = 16 };
static char *arena;
static size_t arena_used;
static int no_memory;

PLAIN static void *take(size_t size) {
    if (no_memory)
        return NULL;
    if (!arena) {
        /* Two runs have two heaps, also where addresses are not at random, as in a debugger. */
        char *wish = (char *)(getenv("EARLIER") ? 1ul << 40 : 1ul << 41);
        void *memory = mmap(wish, ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
        if (memory == MAP_FAILED)
            return NULL;
        arena = memory;
    }
    char *block = arena + arena_used;
    arena_used += (size + STEP - 1) / STEP * STEP;
    return block;
}

/* Zero, as all that mmap gives. */
PLAIN void *calloc(size_t count, size_t size) { return take(count * size); }

#if defined HEAP_FREED || defined NO_MEMORY
PLAIN void *malloc(size_t size) { return take(size); }
PLAIN void free(void *memory) { (void)memory; }
PLAIN void *realloc(void *memory, size_t size) {
    void *block = take(size);
    return block && memory ? memmove(block, memory, size) : block;
}
#endif
#endif

#if defined VALUES_FREED || defined HEAP_FREED
PLAIN static void give_back(void) { munmap(arena, ARENA_SIZE); }
#ifdef EARLY
__attribute__((constructor)) PLAIN static void register_early(void) { atexit(give_back); }
#endif
#endif

#ifdef NO_STACK
/* of the profile runtime */
int __llvm_profile_write_file(void);

enum { STACK_SIZE = 1 << 16, LEFT = 1 << 10 };
static char *stack;

/* Goes down until so little is left, and writes the profile there. */
__attribute__((noinline)) PLAIN static int descend(void) {
    volatile char used[256];
    used[0] = 0;
    if ((char *)used - stack > LEFT + (ptrdiff_t)sizeof used)
        return descend() + used[0];
    return __llvm_profile_write_file() + used[0];
}

PLAIN static void *on_little_stack(void *nothing) {
    descend();
    return nothing;
}

PLAIN int lab_write(void) {
    pthread_t thread;
    pthread_attr_t attributes;
    void *memory = mmap(NULL, 2 * STACK_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    stack = (char *)memory + STACK_SIZE; /* nothing can be reached below it */
    return mprotect(stack, STACK_SIZE, PROT_READ | PROT_WRITE) || pthread_attr_init(&attributes) ||
           pthread_attr_setstack(&attributes, stack, STACK_SIZE) ||
           pthread_create(&thread, &attributes, on_little_stack, NULL) || pthread_join(thread, NULL);
}

PLAIN static void write_at_exit(void) { lab_write(); }
#endif

#if defined TWO_WRITERS || defined COUNTING
/* of the profile runtime */
int __llvm_profile_write_file(void);

static atomic_int threads;

/* Which instruction touched which address; then the program dies of it. */
PLAIN static void tell(int signal_number, siginfo_t *info, void *context) {
#ifdef __x86_64__
    unsigned long long at = (unsigned long long)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    dprintf(2, "instruction %#llx, address %p, code %d\n", at, info->si_addr, info->si_code);
#endif
    signal(signal_number, SIG_DFL);
}

PLAIN static void *at_once(void *nothing) {
    for (threads++; threads < 2;) { /* until both are here */
    }
#ifdef COUNTING
    for (;;)
        lab_main();
#endif
    __llvm_profile_write_file();
    return nothing;
}

PLAIN static void write_at_exit(void) {
    pthread_t thread;
    struct sigaction action = {.sa_sigaction = tell, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    pthread_create(&thread, NULL, at_once, NULL);
#ifdef COUNTING
    for (threads++; threads < 2;) { /* the runtime's own handler comes next */
    }
#else
    at_once(NULL);
    pthread_join(thread, NULL);
#endif
}
#endif

#ifdef STALE
/* of the profile runtime */
const char *__llvm_profile_begin_data(void);
const char *__llvm_profile_end_data(void);

PLAIN static int take_over(const char *mode, size_t move(void *, size_t, size_t, FILE *)) {
    size_t size = (size_t)(__llvm_profile_end_data() - __llvm_profile_begin_data());
    FILE *file = fopen("records", mode);
    int whole = file && move((void *)__llvm_profile_begin_data(), 1, size, file) == size;
    return file && !fclose(file) && whole;
}

PLAIN static size_t out(void *from, size_t size, size_t count, FILE *file) {
    return fwrite(from, size, count, file);
}

PLAIN static void leave_records(void) { take_over("wb", out); }
#endif

#if defined EARLIER_RUN || defined BOTH
__attribute__((constructor)) PLAIN static void run_earlier(int count, char **arguments) {
    static char mark[] = "EARLIER=1";
    int fate;
    (void)count;
    if (getenv("EARLIER"))
        return;
    pid_t child = fork();
#ifdef EARLIER_RUN
    if (child == 0) {
        putenv(mark);
        execv(arguments[0], arguments);
        _exit(1);
    }
#else
    (void)mark;
    (void)arguments;
#endif
    if (child > 0)
        waitpid(child, &fate, 0);
#ifdef STALE
    if (!take_over("rb", fread) || unlink("records"))
        _exit(1);
#endif
}
#endif

PLAIN int main(void) {
#if (defined VALUES_FREED || defined HEAP_FREED) && !defined EARLY
    atexit(give_back);
#elif defined NO_MEMORY
    no_memory = 1;
#elif defined NO_STACK || defined TWO_WRITERS || defined COUNTING
    atexit(write_at_exit);
#elif defined STALE
    if (getenv("EARLIER"))
        atexit(leave_records);
#endif
    return lab_main();
}

#define main lab_main
#ifdef NO_STACK
#define __llvm_profile_write_file lab_write
#endif
