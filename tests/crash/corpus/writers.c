/* Two threads write the profile at once, again and again; the runtime's state is one for both. */
#include <pthread.h>
#include <stddef.h>

int __llvm_profile_write_file(void);
void __llvm_profile_reset_counters(void);

static int twice(int n) { return 2 * n; }
static int thrice(int n) { return 3 * n; }
static int (*volatile operations[])(int) = {twice, thrice};
static volatile int sum;

static void *writes(void *none) {
    for (int i = 0; i < 20000; i++) {
        sum = operations[i & 1](i);
        __llvm_profile_write_file();
    }
    return none;
}

int main(void) {
    pthread_t other;
    pthread_create(&other, NULL, writes, NULL);
    writes(NULL);
    return pthread_join(other, NULL);
}
