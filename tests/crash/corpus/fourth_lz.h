/* A vendored compressor, small. */
#ifndef FOURTH_LZ_H
#define FOURTH_LZ_H
#include <stddef.h>

typedef struct lz_state lz_state;

lz_state *lz_open(int level);
size_t lz_deflate(lz_state *state, const unsigned char *from, size_t size, unsigned char *to);
void lz_close(lz_state *state);
#endif
