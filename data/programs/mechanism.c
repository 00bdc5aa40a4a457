/* main.c, and one way in which its profile's writer could die: the rivals of mixed record
 * layouts, made to happen. With
 *   -DVALUES_FREED   the memory of the values is unmapped at exit (with -vp-static-alloc=false,
 *                    where the runtime asks calloc for it; else no value is on the heap)
 *   -DHEAP_FREED     the whole heap is unmapped at exit, as by a careless allocator
 * The handler that does so is registered in main, so that it is called before the profile's;
 * with -DEARLY in a constructor, before the profile's is, so that it is called after.
 */
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { ARENA_SIZE = 1 << 24, STEP = 16 };
static char *arena;
static size_t arena_used;

static void give_back(void) { munmap(arena, ARENA_SIZE); }

static void *take(size_t size) {
    if (!arena) {
        void *memory = mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
        if (memory == MAP_FAILED)
            return NULL;
        arena = memory;
    }
    char *block = arena + arena_used;
    arena_used += (size + STEP - 1) / STEP * STEP;
    return block;
}

/* Zero, as all that mmap gives. */
void *calloc(size_t count, size_t size) { return take(count * size); }

#ifdef HEAP_FREED
void *malloc(size_t size) { return take(size); }
void free(void *memory) { (void)memory; }
#endif

#ifdef EARLY
#include "main.c"

static void register_early(void) __attribute__((constructor));
static void register_early(void) { atexit(give_back); }
#else
#define main program
#include "main.c"
#undef main

int main(void) {
    atexit(give_back);
    return program();
}
#endif
