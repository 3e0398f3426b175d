#!/bin/sh
# Makes the programs of this folder, see README.md.
set -eu
cd "$(dirname "$0")"
small="-O2 -nostdlib -ffreestanding -fno-asynchronous-unwind-tables -Wl,--build-id=none -Wl,-z,noseparate-code -Wl,-z,norelro"
small="$small -Wl,-z,max-page-size=4096 -Wl,--hash-style=gnu"
x86="gcc $small -fcf-protection"
pie="$x86 -fpie -pie"
entry=-fpatchable-function-entry

$pie $entry=5 -DCHOOSES reading.c -o x86_64-pie
$x86 -fno-pie -no-pie -static $entry=6 reading.c -o x86_64-exec
$x86 -fpic -shared $entry=5 reading.c -o x86_64-so
$pie -Wl,-z,pack-relative-relocs $entry=16 reading.c -o x86_64-relr
$pie $entry=5 -DSHORT=3 reading.c -o x86_64-mixed
$pie $entry=2 reading.c -o x86_64-short
for n in 3 5 6 7 8 9 10; do
	clang $small -fcf-protection -fpie -pie -fuse-ld=lld $entry=$n reading.c -o x86_64-clang$n
done
clang $small -fpie -pie -fuse-ld=lld -march=znver3 $entry=15 reading.c -o x86_64-clang15
$x86 -fpic -shared -pg -mfentry reading.c -o x86_64-fentry-so
$x86 -fpic -shared -pg -mfentry -mrecord-mcount reading.c -o x86_64-fentry-records-so
$x86 -fno-pie -no-pie -static -pg -mfentry -mrecord-mcount -mnop-mcount -DBRINGS_PROFILER reading.c -o x86_64-fentry-nops
$x86 -fpie -pie -pg -mfentry -DBRINGS_PROFILER reading.c -o x86_64-fentry-relaxed
$x86 -fpic -shared -pg reading.c -o x86_64-mcount-so
$x86 -fpic -shared -pg -mrecord-mcount reading.c -o x86_64-mcount-records-so
$x86 -fpic -shared -pg -mfentry $entry=5 reading.c -o x86_64-both-so
g++ $small -fno-exceptions -fpie -pie $entry=5 first.cc second.cc -o x86_64-comdat
strip -o x86_64-stripped x86_64-pie
aarch64-linux-gnu-gcc $small -fpie -pie $entry=2 -DCHOOSES reading.c -o arm64-pie
