#!/bin/sh
# Compiles the fixtures of `record` (Debian bookworm: gcc 12.2, clang 14; g++-aarch64-linux-gnu). Run it in this folder.
set -eu
common="-c -O2 -fno-asynchronous-unwind-tables -fno-ident"
arm64=aarch64-linux-gnu-gcc
$arm64 $common -pg sites.c -o arm64-pg.o
$arm64 $common -fpatchable-function-entry=2 sites.c -o arm64-gcc12.o
$arm64 $common -fpatchable-function-entry=4,2 -falign-functions=8 -mbranch-protection=standard sites.c -o arm64-callops.o
aarch64-linux-gnu-g++ -c -O0 -fno-ident -fpatchable-function-entry=2 inline.cc -o arm64-comdat.o
clang -c -O2 --target=aarch64-linux-gnu -fpatchable-function-entry=2 sites.c -o arm64-clang.o
clang -c -O0 -x c++ -fno-exceptions --target=aarch64-linux-gnu -fpatchable-function-entry=2 inline.cc -o arm64-comdat-clang.o
powerpc64le-linux-gnu-gcc $common -pg -mprofile-kernel sites.c -o ppc64le-mprofile.o
powerpc64le-linux-gnu-gcc $common -fpatchable-function-entry=2 sites.c -o ppc64le-broken.o
x86_64-linux-gnu-gcc $common -fno-pie -pg -mfentry sites.c -o x86_64-fentry.o
x86_64-linux-gnu-gcc $common -fno-pie -fcf-protection=branch -pg -mfentry -mrecord-mcount -mnop-mcount sites.c -o x86_64-nop.o
