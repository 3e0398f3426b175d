#!/bin/sh
# Rebuild arm64.o, ppc64le.o and tables-arm64.o, objects for `redirect --with`.
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
# type of a row of the exception table: EX_TYPE_KACCESS_ERR_ZERO of Linux 6.12
aarch64-linux-gnu-gcc -DKACCESS=3 -c tables.S -o "$out/tables-arm64.o"
