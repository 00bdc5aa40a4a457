/* Memory at 0x200000000, as in every program of an ARM Mac, where the libraries that all programs
 * share lie somewhere from 0x180000000 to 0x280000000 (SHARED_REGION_BASE_ARM64 and
 * SHARED_REGION_SIZE_ARM64 in XNU's shared_region.h). What theirs holds is not known here; this
 * holds zeros. It is there before any constructor, so before an allocator begins. */
#include <sys/mman.h>

#ifdef __linux__
__attribute__((no_profile_instrument_function)) static void share_region(void) {
    void *wish = (void *)0x200000000ul;
    mmap(wish, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0);
}

__attribute__((section(".preinit_array"), used)) static void (*const share_early)(void) =
    share_region;
#endif
