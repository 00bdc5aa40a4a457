/* The program under investigation; main.rs is the same in Rust and prints the same line.
 *
 * It makes direct calls, indirect calls and memory operations of a size known at run time,
 * so that value profiling has work to do. With -DALLOCATOR=mi_ (lab_, je_) its memory comes
 * from mi_malloc and so on; without, it calls the library. With -DEXPLICIT it writes its
 * profile before it ends, as well as when it ends. One thread, fixed sizes, no
 * input: each run does the same.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#ifdef EXPLICIT
int __llvm_profile_write_file(void); /* of the profile runtime */
#endif

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
    if (round % 3 == 0) {
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

int main(void) {
    unsigned char from[SIZE] = {0}, to[SIZE] = {0};
    unsigned sum = 1;
    for (unsigned round = 0; round < ROUNDS; round++) {
        size_t size = 1 + round * 11 % SIZE;
        memset(from, (int)(round & 0x7f), size);
        memcpy(to, from, size);
        sum = operations[round % 2](sum, to[size - 1]);
        sum += step(round);
    }
    printf("checksum %u\n", sum);
#ifdef EXPLICIT
    __llvm_profile_write_file();
#endif
    return 0;
}
