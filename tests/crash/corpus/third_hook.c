/* A library that leaves an exit handler behind. */
#define _GNU_SOURCE
#include <stdlib.h>
static void bye(int code, void *none) { (void)code, (void)none; }
void hook(void) { on_exit(bye, NULL); }
