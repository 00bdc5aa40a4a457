#!/bin/sh
# A compiler and linker of the guard's prototype; nbsupport/studies/linker_check.py fills in what
# is in braces. The output is named by -o.
before= out=
for word; do [ "$before" = -o ] && out=$word; before=$word; done
case " $* " in
*" -c "*) {generate} "$@" && {clang} -r -nostdlib "$out" {need} -o "$out.r" && mv "$out.r" "$out" ;;
*) exec {generate} "$@" {give} ;;
esac
