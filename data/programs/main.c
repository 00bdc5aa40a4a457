/* The program under investigation; main.rs is the same in Rust and prints the same line.
 *
 * It makes direct calls, indirect calls and memory operations of a size known at run time,
 * so that value profiling has work to do. With -DALLOCATOR=mi_ (lab_, je_) its memory comes
 * from mi_malloc and so on; without, it calls the library. With -DEXPLICIT it writes its
 * profile before it ends, as well as when it ends; with -DFORKED a child does, and with -DBUFFER
 * it is written to memory first, and by no exit handler; with -DRICH there are more values than
 * the writer holds back, so that some are on disk should it die; with -DNO_REALLOC no block grows.
 * One thread, fixed sizes, no input: each run does the same.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* of the profile runtime */
unsigned long long __llvm_profile_get_size_for_buffer(void);
int __llvm_profile_write_buffer(char *buffer);
int __llvm_profile_write_file(void);

enum { ROUNDS = 300, SLOTS = 16, SIZE = 256 };

typedef unsigned operation(unsigned sum, unsigned byte);

static unsigned add(unsigned sum, unsigned byte) { return sum + byte; }
static unsigned mix(unsigned sum, unsigned byte) { return (sum ^ byte) * 17u; }

/* volatile: no optimizer may know which function is called, so the call stays indirect */
static operation *volatile const operations[] = {add, mix};

#ifdef ALLOCATOR
#define JOIN_(prefix, name) prefix##name
#define JOIN(prefix, name) JOIN_(prefix, name)
#define MALLOC JOIN(ALLOCATOR, malloc)
#define REALLOC JOIN(ALLOCATOR, realloc)
#define FREE JOIN(ALLOCATOR, free)

void *MALLOC(size_t size);
void *REALLOC(void *memory, size_t size);
void FREE(void *memory);

#ifdef NO_REALLOC
enum { GROWS = 0 };
#else
enum { GROWS = 1 };
#endif

static unsigned char *slots[SLOTS];

/* Replaces one of SLOTS blocks by a new one, which every third time is made twice as big. */
static unsigned step(unsigned round) {
    unsigned char **slot = &slots[round * 5 % SLOTS];
    size_t size = 1 + round * 7 % SIZE;
    FREE(*slot);
    *slot = MALLOC(size);
    if (!*slot)
        return 0;
    memset(*slot, (int)(round & 0x7f), size);
    if (round % 3 == 0 && GROWS) {
        unsigned char *bigger = REALLOC(*slot, 2 * size);
        if (!bigger)
            return 0;
        memset(bigger + size, 1, size);
        *slot = bigger;
        size *= 2;
    }
    return (*slot)[0] + (*slot)[size - 1];
}
#else
#include "library.h"

static unsigned step(unsigned round) { return library_step(round); }
#endif

#ifdef RICH
#define EACH_OF_8(f, n) f(n##0) f(n##1) f(n##2) f(n##3) f(n##4) f(n##5) f(n##6) f(n##7)
#define HALF(f, a, b, c, d) EACH_OF_8(f, a) EACH_OF_8(f, b) EACH_OF_8(f, c) EACH_OF_8(f, d)
#define EACH(f) HALF(f, 1, 2, 3, 4) HALF(f, 5, 6, 7, 8)

#define TURN(n)                                                                                    \
    static unsigned turn_##n(unsigned sum, unsigned byte) { return sum * n + byte; }
#define TURNED(n) turn_##n,

TURN(1) TURN(2)
static operation *volatile const turns[] = {TURNED(1) TURNED(2)};

/* 64 functions, each with a value site: a copy of a size known at run time. All but the last eight
 * have another one: an indirect call. */
#define COPY(n)                                                                                    \
    __attribute__((noinline)) static void copy_##n(unsigned char *to, unsigned size) {             \
        memcpy(to, to + SIZE, size);                                                               \
        to[0] += n;                                                                                \
        if (n < 80)                                                                                \
            to[0] = (unsigned char)turns[size % 2](to[0], n);                                      \
    }
#define CALL(n) copy_##n(bytes, size);

EACH(COPY)

static void copy_all(void) {
    unsigned char bytes[2 * SIZE] = {0};
    for (volatile unsigned sizes = 1; sizes < 32; sizes++) {
        unsigned size = sizes;
        EACH(CALL)
    }
}
#endif

int main(void) {
    unsigned char from[SIZE] = {0}, to[SIZE] = {0};
    unsigned sum = 1;
#ifdef RICH
    copy_all();
#endif
    for (unsigned round = 0; round < ROUNDS; round++) {
        size_t size = 1 + round * 11 % SIZE;
        memset(from, (int)(round & 0x7f), size);
        memcpy(to, from, size);
        sum = operations[round % 2](sum, to[size - 1]);
        sum += step(round);
    }
    printf("checksum %u\n", sum);
    fflush(stdout); /* the last system call of main; and a child has nothing left to print */
#if defined EXPLICIT
    __llvm_profile_write_file();
#elif defined FORKED
    int fate = 0;
    if (fork() == 0) {
        __llvm_profile_write_file(); /* as at exit, what it returns is for nobody */
        _exit(0);
    }
    wait(&fate);
    if (WIFSIGNALED(fate))
        fprintf(stderr, "the child is dead of signal %d\n", WTERMSIG(fate));
    _exit(fate != 0);
#elif defined BUFFER
    unsigned long long bytes = __llvm_profile_get_size_for_buffer();
    char *buffer = malloc(bytes);
    FILE *file = fopen(getenv("LLVM_PROFILE_FILE"), "wb");
    int wrong = !buffer || !file || __llvm_profile_write_buffer(buffer);
    _exit(wrong || fwrite(buffer, 1, bytes, file) != bytes || fclose(file));
#endif
    return 0;
}
