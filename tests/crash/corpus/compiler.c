/* Has the compiler itself crash, as clang's own tests do. */
int before(int n) { return n + 1; }
#ifdef FATAL
#pragma clang __debug llvm_fatal_error
#elif defined OVERFLOW
#pragma clang __debug overflow_stack
#elif !defined FINE
#pragma clang __debug crash
#endif
int after(int n) { return n - 1; }
