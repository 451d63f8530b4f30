#!/bin/sh
# Builds load_bpfel.o, both ends of the speed tests.
set -eu
cd "$(dirname "$0")"
clang -O2 -g -Wall -Werror -target bpfel -I"/usr/include/$(uname -m)-linux-gnu" -fdebug-compilation-dir=. -c load.c -o load_bpfel.o
llvm-strip -g load_bpfel.o
