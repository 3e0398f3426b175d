#!/bin/sh
# Rebuild arm64.ko and ppc64le.ko, live patches with sites, and print-ppc64le.o, an object that goes into one.
# Made with gcc (Debian 12.2.0-14) 12.2.0 for both machines, GNU Binutils 2.40.
# Usage: build.sh [OUTDIR]     (default: this directory)
set -eu
export LC_ALL=C
umask 022
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
cd "$here"
BASE="-O2 -fno-pic -ffreestanding -fno-asynchronous-unwind-tables -fno-ident -fno-stack-protector"
aarch64-linux-gnu-gcc $BASE -fpatchable-function-entry=2 -c live.c -o "$out/arm64.ko"
powerpc64le-linux-gnu-gcc $BASE -pg -mprofile-kernel -c live.c -o "$out/ppc64le.ko"
python3 ../mini-ppc64le/recordmcount.py "$out/ppc64le.ko"
powerpc64le-linux-gnu-gcc $BASE -pg -mprofile-kernel -c print.c -o "$out/print-ppc64le.o"
python3 ../mini-ppc64le/recordmcount.py "$out/print-ppc64le.o"
python3 klp.py "$out/arm64.ko" hidden_counter vmlinux 1 .text
python3 klp.py "$out/ppc64le.ko" hidden_counter vmlinux 1 .toc
