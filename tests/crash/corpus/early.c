/* A library that works before main: a constructor runs its value sites. */
#include "library.h"

#include <string.h>

typedef unsigned operation(unsigned sum, unsigned byte);
static unsigned add(unsigned sum, unsigned byte) { return sum + byte; }
static unsigned mix(unsigned sum, unsigned byte) { return (sum ^ byte) * 31u; }
static operation *volatile const operations[] = {add, mix};

static unsigned table[16];

__attribute__((constructor)) static void prepare_table(void) {
    for (unsigned i = 0; i < 16; i++)
        table[i] = operations[i % 2](i, 7);
}

unsigned library_step(unsigned round) { return table[round % 16]; }
