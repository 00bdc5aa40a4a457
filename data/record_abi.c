// How an LLVM lays out records and raw profiles, as its own InstrProfData.inc (INC) says it:
// nbsupport/toolchains/headers.py compiles this, and reads what SAY puts into the LLVM IR.
// The lists become types as in the profile runtime itself. Source: __llvm_profile_data,
// __llvm_profile_header, ValueKind (InstrProfiling.h).

#include <stdint.h>
#include INC
typedef void *IntPtrT;
enum {
#define VALUE_PROF_KIND(name, value, text) name = value,
#include INC
};
struct __attribute__((aligned(INSTR_PROF_DATA_ALIGNMENT))) record {
#define INSTR_PROF_DATA(type, llvm, name, value) type name;
#include INC
};
struct header {
#define INSTR_PROF_RAW_HEADER(type, name, value) type name;
#include INC
};

#define SAY(text, a, b, c, d) __asm__ volatile(text :: \
    "i"((int64_t)(a)), "i"((int64_t)(b)), "i"((int64_t)(c)), "i"((int64_t)(d)))
// The name of an array's field comes with its brackets: its offset is that of the place after
// it. A class of 5 is a pointer.
#define PART(in, type, name, value) SAY(#in " " #name " " #value, \
    __builtin_offsetof(struct in, name), sizeof(((struct in *)0)->name), \
    sizeof(struct { type name; }), __builtin_classify_type(((struct in *)0)->name))

void say(void) {
#define INSTR_PROF_DATA(type, llvm, name, value) PART(record, type, name, value);
#include INC
#define INSTR_PROF_RAW_HEADER(type, name, value) PART(header, type, name, value);
#include INC
  SAY("constant version ", INSTR_PROF_RAW_VERSION, 0, 0, 0);
  SAY("constant sizeof ", sizeof(struct record), 0, 0, 0);
}
