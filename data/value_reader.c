/* Hands records to the function of the profile runtime that reads them for the writer, and prints
 * for each what the kernel says of the fault: its address and its code, or "0 0" for none.
 *
 * argv[1] is a file: a page, which is put at PAGE; then records, each with a byte in front of it:
 * bit I is set where the writer counted sites of kind I, and so has an array for their counts
 * (writeOneValueProfData, InstrProfilingWriter.c). RECORD is the size of a record in bytes.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE_SIZE = 4096, BEHIND = 1 << 22, KINDS = 3, MOST_SITES = 1 << 16 };

/* The first member of VPDataReaderType (InstrProfiling.h): InitRTRecord, which is
 * initializeValueProfRuntimeRecord. */
typedef uint32_t read_record(const void *record, uint8_t *arrays[]);
read_record **lprofGetVPDataReader(void);

static sigjmp_buf alive;
static uint8_t counts[KINDS][MOST_SITES];

static void fault(int signal_number, siginfo_t *info, void *context) {
    (void)signal_number;
    (void)context;
    printf("%llu %d\n", (unsigned long long)(uintptr_t)info->si_addr, info->si_code);
    siglongjmp(alive, 1);
}

int main(int count, char **arguments) {
    struct sigaction action = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO};
    FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
    /* Nothing else is behind the page, so that who reads on will fault there. */
    char *page = mmap((void *)PAGE, BEHIND, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (!file || page != (char *)PAGE || mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE))
        return 2;
    if (fread(page, 1, PAGE_SIZE, file) != PAGE_SIZE || sigaction(SIGSEGV, &action, NULL))
        return 2;
    char bytes[1 + RECORD] __attribute__((aligned(8)));
    while (fread(bytes, sizeof bytes, 1, file)) {
        uint64_t record[RECORD / 8];
        uint8_t *arrays[KINDS];
        for (int kind = 0; kind < KINDS; kind++)
            arrays[kind] = bytes[0] >> kind & 1 ? counts[kind] : NULL;
        memcpy(record, bytes + 1, RECORD);
        if (sigsetjmp(alive, 1) == 0) {
            (*lprofGetVPDataReader())(record, arrays);
            puts("0 0");
        }
    }
    return fflush(stdout);
}
