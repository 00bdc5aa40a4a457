/* Makes the profile's records read-only before main, so that nothing can overwrite them.
 *
 * Included by the compiler (-include) before the main program. Whole pages only: others hold
 * counters too, which must change; so a program of few functions is not protected. With -DMACH
 * by mach_vm_protect, which macOS alone has.
 */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef MACH
#include <mach/mach.h>
#include <mach/mach_vm.h>
#endif

/* of the profile runtime */
const void *__llvm_profile_begin_data(void);
const void *__llvm_profile_end_data(void);

__attribute__((constructor, no_profile_instrument_function)) static void protect(void) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)__llvm_profile_begin_data() + page - 1) / page * page;
    uintptr_t last = (uintptr_t)__llvm_profile_end_data() / page * page;
    if (first >= last)
        return;
#ifdef MACH
    int wrong = mach_vm_protect(mach_task_self(), first, last - first, 0, VM_PROT_READ);
#else
    int wrong = mprotect((void *)first, last - first, PROT_READ);
#endif
    if (wrong) {
        fputs("the records cannot be protected\n", stderr);
        _exit(1);
    }
}
