/* The harness that reported impossible numbers: it declares the runtime's two functions without
 * their arguments (Begin and End of a section), so they divide what other calls left in the
 * registers: other numbers in each run. With -DARGUMENTS it asks as it should. With -DJUDGED it
 * fails if it is told of more records than any program has, and ends at once. One thread, no input.
 */
#include "library.h"

#include <stdio.h>
#include <unistd.h>

#ifdef ARGUMENTS
const char *__llvm_profile_begin_data(void);
const char *__llvm_profile_end_data(void);
char *__llvm_profile_begin_counters(void);
char *__llvm_profile_end_counters(void);
unsigned long long __llvm_profile_get_num_data(const char *begin, const char *end);
unsigned long long __llvm_profile_get_num_counters(const char *begin, const char *end);
#define RECORDS __llvm_profile_begin_data(), __llvm_profile_end_data()
#define COUNTERS __llvm_profile_begin_counters(), __llvm_profile_end_counters()
#else
/* The mistake. Both take two pointers (InstrProfiling.h of compiler-rt). */
unsigned long long __llvm_profile_get_num_data(void);
unsigned long long __llvm_profile_get_num_counters(void);
#define RECORDS
#define COUNTERS
#endif

static const unsigned long long MOST = 1 << 24; /* no program has as many functions */

int main(void) {
    unsigned sum = 0;
    for (unsigned round = 0; round < 300; round++)
        sum += library_step(round);
    printf("checksum %u\n", sum);
    unsigned long long entries = __llvm_profile_get_num_data(RECORDS);
    printf("data entries %llu\n", entries);
    printf("counters %llu\n", __llvm_profile_get_num_counters(COUNTERS));
#ifdef JUDGED
    fflush(stdout);
    if (entries > MOST)
        fputs("impossible: more than 2^24 records\n", stderr);
    _exit(entries > MOST);
#endif
    return 0;
}
