#!/bin/sh
# Rebuild arm64.o and ppc64le.o, objects for `redirect --with`.
# Made with gcc (Debian 12.2.0-14) 12.2.0 for both machines, GNU Binutils 2.40.
# Usage: build.sh [OUTDIR]     (default: this directory)
set -eu
export LC_ALL=C
umask 022
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
cd "$here"
BASE="-O2 -fno-pic -fcommon -ffreestanding -fno-asynchronous-unwind-tables -fno-ident -fno-stack-protector -Wall"
aarch64-linux-gnu-gcc $BASE -mgeneral-regs-only -mbranch-protection=pac-ret -falign-functions=8 -fpatchable-function-entry=4,2 \
	-c fix.c -o "$out/arm64.o"
# gcc 12 puts the site of ppc64le into the wrong place: without
powerpc64le-linux-gnu-gcc $BASE -mcmodel=large -msoft-float -mno-vsx -mno-altivec -c fix.c -o "$out/ppc64le.o"
