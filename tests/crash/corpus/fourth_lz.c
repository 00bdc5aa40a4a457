/* A vendored compressor: runs of bytes. With -DIDLE its value sites do not run; with -DEARLY its
 * tables are filled by a constructor. */
#include "fourth_lz.h"

#include <stdlib.h>
#include <string.h>

#define APART __attribute__((noinline))

typedef size_t strategy(unsigned char *to, unsigned char byte, size_t run);

static APART size_t put_short(unsigned char *to, unsigned char byte, size_t run) {
    for (size_t i = 0; i < run; i++)
        to[i] = byte;
    return run;
}
static APART size_t put_run(unsigned char *to, unsigned char byte, size_t run) {
    to[0] = 0xff;
    to[1] = (unsigned char)run;
    to[2] = byte;
    return 3;
}
static APART size_t put_stored(unsigned char *to, unsigned char byte, size_t run) {
    memset(to, byte, run);
    return run;
}

struct lz_state {
    strategy *flush[3];
    unsigned char window[256];
    size_t used;
};

#ifdef IDLE
static volatile int stored = 0;
#else
static volatile int stored = 1;
#endif

APART size_t lz_flush_block(lz_state *state, unsigned char *to, unsigned char byte, size_t run) {
    if (stored) {
        memcpy(state->window, state->window + 128, run & 127);
        return state->flush[run > 3](to, byte, run);
    }
    return run > 3 ? put_run(to, byte, run) : put_short(to, byte, run);
}

size_t lz_deflate(lz_state *state, const unsigned char *from, size_t size, unsigned char *to) {
    size_t written = 0;
    for (size_t i = 0; i < size;) {
        size_t run = 1;
        while (i + run < size && run < 200 && from[i + run] == from[i])
            run++;
        written += lz_flush_block(state, to + written, from[i], run);
        i += run;
    }
    state->used += written;
    return written;
}

lz_state *lz_open(int level) {
    lz_state *state = calloc(1, sizeof *state);
    if (!state)
        return NULL;
    state->flush[0] = put_short;
    state->flush[1] = level > 1 ? put_run : put_stored;
    state->flush[2] = put_stored;
    return state;
}

void lz_close(lz_state *state) { free(state); }

#ifdef EARLY
static strategy *volatile order[] = {put_short, put_run};
static unsigned char table[512];
__attribute__((constructor)) static void lz_init_tables(void) {
    for (unsigned i = 0; i < 64; i++)
        order[i & 1](table + 4 * i, (unsigned char)i, 1 + (i & 1) * 2);
}
#endif
