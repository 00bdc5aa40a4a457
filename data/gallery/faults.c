// Faults that are not of mixed records, one at a time (-DNULL_READ, ...), in an instrumented program.
#include <stdlib.h>

int work(int *numbers, int count) {
  int sum = 0;
  for (int n = 0; n < count; n++)
    sum += numbers[n];
  return sum;
}

#ifdef OVERFLOW
int descend(volatile int *above) {
  volatile int mine[99];
  mine[5] = *above;
  return descend(mine) + mine[5];
}
#endif

int main(int argc, char **argv) {
  (void)argv;
  int *volatile numbers = calloc(8, sizeof(int)); // volatile: the compiler does not see through
#ifdef NULL_READ
  numbers = NULL;
  return work(numbers, argc);
#elif defined(OVERFLOW)
  return descend(&argc);
#elif defined(ABORT)
  if (work(numbers, 8) == 0)
    abort();
#elif defined(FREED)
  free(numbers);
  return work(numbers, 8);
#endif
  return work(numbers, 8);
}
