/* A program that ends well, but for what its builder does to it. */
#include <stdio.h>

static int twice(int n) { return 2 * n; }
static int thrice(int n) { return 3 * n; }
static int (*volatile operations[])(int) = {twice, thrice};

int main(int count, char **words) {
    printf("%d\n", operations[count & 1](count) + (words[0] != 0));
    return 0;
}
