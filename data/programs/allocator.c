/* An allocator in 50 lines, for where mimalloc and jemalloc cannot be had. One thread only.
 *
 * Blocks have sizes of powers of two and come from one arena; a freed block waits in the
 * list of its size. Like the real ones it makes indirect calls (the hook `grow`) and memory
 * operations of a size known at run time.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { HEADER = 16, CLASSES = 24, ARENA = 4 << 20 };

typedef struct block {
    size_t class; /* the program may use 1 << class bytes, HEADER bytes from here */
    struct block *next;
} block;

_Static_assert(sizeof(block) <= HEADER, "what follows the header is aligned to 16 bytes");

static block *waiting[CLASSES];

/* Takes a block from the arena; NULL when that is full. Up to a page's alignment. */
static void *grow_arena(size_t alignment, size_t size) {
    static unsigned char *arena;
    static size_t used;
    if (!arena) {
        void *memory = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
        if (memory == MAP_FAILED)
            return NULL;
        arena = memory;
    }
    size_t start = (used + HEADER + alignment - 1) / alignment * alignment;
    if (size > ARENA || start > ARENA - size)
        return NULL;
    used = start + size;
    return arena + start - HEADER;
}

/* volatile: a real allocator's hook may be replaced, so this call stays indirect */
static void *(*volatile grow)(size_t alignment, size_t size) = grow_arena;

static block *header(void *memory) { return (block *)((unsigned char *)memory - HEADER); }

void *lab_aligned_alloc(size_t alignment, size_t size) {
    size_t class = 4; /* 16 bytes */
    while (class < CLASSES && (size_t)1 << class < size)
        class++;
    if (class == CLASSES)
        return NULL;
    block *found = waiting[class];
    if (found && ((uintptr_t)found + HEADER) % alignment == 0)
        waiting[class] = found->next;
    else if (!(found = grow(alignment < HEADER ? HEADER : alignment, (size_t)1 << class)))
        return NULL;
    found->class = class;
    return memset((unsigned char *)found + HEADER, 0xa5, size); /* no stale bytes */
}

void *lab_malloc(size_t size) { return lab_aligned_alloc(HEADER, size); }

void lab_free(void *memory) {
    if (!memory)
        return;
    block *freed = header(memory);
    freed->next = waiting[freed->class];
    waiting[freed->class] = freed;
}

void *lab_realloc(void *memory, size_t size) {
    void *moved = lab_malloc(size);
    if (memory && moved) {
        size_t had = (size_t)1 << header(memory)->class;
        memcpy(moved, memory, had < size ? had : size);
        lab_free(memory);
    }
    return moved;
}
