#!/bin/sh
# What stands for Debian's clang-16, clang-19 and ld64.lld-19 where the lab has unpacked them: their
# libraries are there too. No child of theirs is another program than themselves.
usr=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd) || exit
name=${0##*/}
LD_LIBRARY_PATH=$usr/lib/x86_64-linux-gnu \
  exec "$usr/lib/llvm-${name##*-}/bin/${name%-*}" "$@"
