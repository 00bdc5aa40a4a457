/* The library whose value sites *run*: main dies in them if it brings a foreign runtime. */
#include "library.h"

#include <string.h>

enum { SIZE = 64 };

static unsigned add(unsigned sum, unsigned byte) { return sum + byte; }
static unsigned mix(unsigned sum, unsigned byte) { return (sum ^ byte) * 31u; }
static unsigned turn(unsigned sum, unsigned byte) { return (sum << 3 | sum >> 29) + byte; }

typedef unsigned operation(unsigned sum, unsigned byte);

/* volatile: no optimizer may know which function is called, so the call stays indirect */
static operation *volatile const operations[] = {add, mix, turn};

unsigned library_step(unsigned round) {
    unsigned char bytes[SIZE] = {0};
    unsigned sum = round;
    memset(bytes, (int)(round & 0x7f), round % SIZE); /* value site: a size known at run time */
    for (unsigned i = 0; i < SIZE; i++)
        sum = operations[i % 3](sum, bytes[i]); /* value site: an indirect call */
    return sum;
}
