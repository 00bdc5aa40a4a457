/* Three threads: two wait, one works with the library. */
#include "library.h"

#include <pthread.h>
#include <stddef.h>
#include <unistd.h>

static void *waits(void *none) {
    (void)none;
    for (;;)
        pause();
}

static void *works(void *round) {
    usleep(50000);
    return (char *)round + library_step((unsigned)(size_t)round);
}

int main(void) {
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, i == 1 ? works : waits, (void *)9);
    pthread_join(threads[1], NULL);
    return 0;
}
