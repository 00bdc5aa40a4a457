#include <string.h>

/* Each function has a value site: a memory operation of unknown size, which is never executed. */
volatile int never = 0;

void clear(char *to, unsigned long size) {
    if (never)
        memset(to, 0, size);
}

void copy(char *to, const char *from, unsigned long size) {
    if (never)
        memcpy(to, from, size);
}

void move(char *to, const char *from, unsigned long size) {
    if (never)
        memmove(to, from, size);
}
