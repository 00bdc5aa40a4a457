/* The library whose value sites never run: main lives until the profile is written at exit. */
#include "library.h"

#include <string.h>

enum { SIZE = 64 };

/* a function that is inlined has no record of its own */
#define APART __attribute__((noinline)) static

static unsigned add(unsigned sum, unsigned byte) { return sum + byte; }
static unsigned mix(unsigned sum, unsigned byte) { return (sum ^ byte) * 31u; }
static unsigned turn(unsigned sum, unsigned byte) { return (sum << 3 | sum >> 29) + byte; }

typedef unsigned operation(unsigned sum, unsigned byte);

/* volatile: no optimizer may know these, so the cold path keeps its value sites */
static operation *volatile const operations[] = {add, mix, turn};
static volatile int rare = 0;

/* Never runs: an indirect call and a memory operation whose size is known at run time. Inlined,
 * so that the library's first record, that of library_step, has value sites. */
__attribute__((always_inline)) static inline unsigned rare_step(unsigned char *bytes, unsigned sum) {
    memset(bytes, 1, sum % SIZE);
    return operations[sum % 3](sum, bytes[0]);
}

APART void fill(unsigned char *bytes, unsigned value, unsigned size) {
    for (unsigned i = 0; i < SIZE; i++)
        bytes[i] = i < size ? (unsigned char)value : 0;
}

APART unsigned apply(unsigned which, unsigned sum, unsigned byte) {
    switch (which) {
    case 0:
        return add(sum, byte);
    case 1:
        return mix(sum, byte);
    default:
        return turn(sum, byte);
    }
}

unsigned library_step(unsigned round) {
    unsigned char bytes[SIZE];
    unsigned sum = round;
    fill(bytes, round & 0x7f, round % SIZE);
    if (rare)
        sum = rare_step(bytes, sum);
    for (unsigned i = 0; i < SIZE; i++)
        sum = apply(i % 3, sum, bytes[i]);
    return sum;
}
