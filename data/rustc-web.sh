#!/bin/sh
# What stands for Debian's rustc, which expects its libraries in the system's folders, where the
# lab has unpacked it. LD_LIBRARY_PATH would reach the linker that it starts too, and give a clang
# of the same LLVM the wrong libLLVM; so the dynamic loader is told by its own option, which no
# child inherits.
usr=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd) || exit
unset LD_LIBRARY_PATH
exec /lib64/ld-linux-x86-64.so.2 --library-path "$usr/lib/x86_64-linux-gnu" \
  "$usr/libexec/rustc" "$@"
