#!/bin/sh
# Rebuild the objects that tests link into Debian's zram.ko.
# Made with gcc (Debian 12.2.0-14) 12.2.0 for both machines, GNU Binutils 2.40.
# Usage: build.sh [OUTDIR]     (default: this directory)
set -eu
export LC_ALL=C
umask 022
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
cd "$here"
BASE="-O2 -fno-pic -ffreestanding -fno-asynchronous-unwind-tables -fno-ident -fno-stack-protector"
for name in size state; do
	aarch64-linux-gnu-gcc $BASE -mgeneral-regs-only -mbranch-protection=pac-ret -c $name.c -o "$out/$name-arm64.o"
	powerpc64le-linux-gnu-gcc $BASE -mcpu=power8 -msoft-float -mno-altivec -mno-vsx -mcmodel=large -fno-section-anchors -c $name.c -o "$out/$name-ppc64le.o"
done

# size.c with records of its own function, for kernels with these layouts
for layout in callops=4,2 pfe2=2; do
	aarch64-linux-gnu-gcc $BASE -mgeneral-regs-only -mbranch-protection=pac-ret \
		-fpatchable-function-entry=${layout#*=} -c size.c -o "$out/size-arm64-${layout%=*}.o"
done
powerpc64le-linux-gnu-gcc $BASE -mcpu=power8 -msoft-float -mno-altivec -mno-vsx -mcmodel=large -fno-section-anchors \
	-pg -mprofile-kernel -c size.c -o "$out/size-ppc64le-mprofile.o"
python3 ../mini-ppc64le/recordmcount.py "$out/size-ppc64le-mprofile.o"
