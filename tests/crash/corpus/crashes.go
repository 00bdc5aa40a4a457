// A Go program that calls the library through cgo, or crashes by itself.
package main

/*
#include <stdlib.h>

unsigned library_step(unsigned round);

static int *volatile nothing;
static int lost(void) { return *nothing; }
static unsigned (*volatile step)(unsigned) = library_step;
static unsigned work(unsigned n) {
	unsigned sum = 0;
	for (unsigned i = 0; i < n; i++)
		sum += step(i);
	return sum;
}
*/
import "C"

import (
	"fmt"
	"os"
)

type item struct {
	count int
	next  *item
}

func total(i *item) int {
	return i.count + 1
}

func deep(n int) int {
	return deep(n+1) + 1
}

func main() {
	switch os.Args[1] {
	case "null":
		var nothing *item
		fmt.Println(total(nothing))
	case "overflow":
		fmt.Println(deep(1))
	case "lost":
		fmt.Println(C.lost())
	case "abort":
		C.abort()
	case "index":
		fmt.Println([]int{1, 2, 3}[len(os.Args)+7])
	default:
		fmt.Println(C.work(10))
	}
}
