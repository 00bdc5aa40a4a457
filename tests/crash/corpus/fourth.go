// An ordinary Go program with a C compressor behind it; its first argument says how it fails.
package main

/*
#include <stdlib.h>
#include <string.h>
#include "fourth_lz.h"

static size_t pack(lz_state *state, size_t size) {
	unsigned char *from = calloc(1, size), *to = malloc(4 * size);
	size_t written = lz_deflate(state, from, size, to);
	free(from);
	free(to);
	return written;
}
*/
import "C"

import (
	"fmt"
	"os"
)

type Packer struct {
	state *C.lz_state
	names map[string]int
}

func NewPacker(level int) *Packer {
	return &Packer{state: C.lz_open(C.int(level))}
}

func (p *Packer) Pack(name string, size int) int {
	written := int(C.pack(p.state, C.size_t(size)))
	fmt.Printf("%s: %d bytes\n", name, written)
	return written
}

func main() {
	packer := NewPacker(2)
	if len(os.Args) > 1 && os.Args[1] == "nilmap" {
		packer = nil
	}
	if len(os.Args) > 1 && os.Args[1] == "closed" {
		packer.state = nil
	}
	packer.Pack("index", 4096)
}
