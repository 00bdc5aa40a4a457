/* An ordinary tool: it packs some pages with the vendored compressor; -DTHREADS: in a pool. */
#include "fourth_lz.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAGE = 4096 };

struct page {
    const char *name;
    unsigned char bytes[PAGE];
    size_t packed;
};

static int by_size(const void *left, const void *right) {
    const struct page *a = left, *b = right;
    return a->packed < b->packed ? -1 : a->packed > b->packed;
}

__attribute__((noinline)) static void fill_page(struct page *page, unsigned seed) {
    for (size_t i = 0; i < PAGE; i++)
        page->bytes[i] = (unsigned char)(i / (seed % 7 + 2));
    memcpy(page->bytes + seed, "name", seed % 5);
}

__attribute__((noinline)) static int pack_page(lz_state *state, struct page *page) {
    static _Thread_local unsigned char out[4 * PAGE];
    page->packed = lz_deflate(state, page->bytes, sizeof page->bytes, out);
    return page->packed == 0;
}

#ifdef THREADS
static struct page *queue;
static void *worker_main(void *argument) {
    size_t number = (size_t)argument;
    lz_state *state = lz_open(2);
    usleep(number == 2 ? 50000 : 90000000);
    pack_page(state, &queue[number]);
    lz_close(state);
    return NULL;
}
#endif

int main(void) {
    static const char *const names[] = {"index", "about", "news", "jobs"};
    struct page *pages = calloc(4, sizeof *pages);
    for (unsigned i = 0; i < 4; i++) {
        pages[i].name = names[i];
        fill_page(&pages[i], i * 11);
    }
#ifdef THREADS
    pthread_t pool[4];
    queue = pages;
    for (size_t i = 0; i < 4; i++)
        pthread_create(&pool[i], NULL, worker_main, (void *)i);
    for (size_t i = 0; i < 4; i++)
        pthread_join(pool[i], NULL);
#else
    lz_state *state = lz_open(2);
    for (unsigned i = 0; i < 4; i++)
        if (pack_page(state, &pages[i]))
            return 1;
    lz_close(state);
#endif
    qsort(pages, 4, sizeof *pages, by_size);
    for (unsigned i = 0; i < 4; i++)
        printf("%-8s %zu bytes\n", pages[i].name, pages[i].packed);
    fflush(stdout);
    free(pages);
    return 0;
}
