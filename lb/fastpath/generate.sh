#!/bin/sh
# Builds the programs of the kernel, by "go generate". The result is committed, so
# that it takes neither clang nor headers to build this package; a test builds them
# again where there is the clang that is named in the result, and compares.
#
#   generate.sh [OUTPUT]
set -eu
cd "$(dirname "$0")"
out=${1:-fastpath_bpfel.o}
clang -O2 -g -Wall -Werror -target bpfel -I"/usr/include/$(uname -m)-linux-gnu" -fdebug-compilation-dir=. \
	-c bpf/fastpath.c -o "$out"
llvm-strip -g "$out"
