// Objects whose raw versions differ must not be linked into one image: its runtime would walk the
// records of all with one stride. The link says so, whichever object comes first.
//
// RUN: %clang_pgogen -DMAIN -c %s -o %t.main.o
// RUN: %clang_pgogen -DCALLEE -c %s -o %t.own.o
// RUN: %clang_foreign_pgogen -DCALLEE -c %s -o %t.foreign.o
//
// Of one raw version, they link and run, and each function has its counts.
// RUN: %clang_pgogen %t.main.o %t.own.o -o %t.uniform
// RUN: env LLVM_PROFILE_FILE=%t.profraw %t.uniform
// RUN: %profdata merge %t.profraw -o %t.profdata
// RUN: %profdata show --all-functions --counts %t.profdata | %filecheck %s --check-prefix=COUNTS
//
// RUN: not %clang_pgogen %t.main.o %t.foreign.o -o %t.mixed 2>&1 | %filecheck %s --check-prefix=MIXED
// RUN: not %clang_pgogen %t.foreign.o %t.main.o -o %t.mixed 2>&1 | %filecheck %s --check-prefix=MIXED

// COUNTS: Total functions: 2
// COUNTS: Maximum function count: 7

// MIXED: undefined {{.*}}__llvm_profile_runtime_v{{[0-9]+}}

#ifdef CALLEE
int callee(int n) { return n * n; }
#endif

#ifdef MAIN
int callee(int);
int main(void) {
  volatile int sum = 0;
  for (int n = 0; n < 7; n++)
    sum += callee(n);
  return sum != 91;
}
#endif
