#!/bin/sh
# Rebuild every ELF fixture of this directory: files built with -pg, most of them without a record of the calls.
#
# Made with (Debian 12 "bookworm", amd64 host):
#   aarch64-linux-gnu-gcc, powerpc64le-linux-gnu-gcc (Debian 12.2.0-14) 12.2.0, gcc (12.2.0-14+deb12u1), GNU Binutils 2.40
#
# Usage: build.sh [OUTDIR]     (default: this directory)
set -eu
export LC_ALL=C
umask 022
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
mkdir -p "$out"
out=$(cd "$out" && pwd)
obj=$(mktemp -d)
trap 'rm -rf "$obj"' EXIT
cd "$here"

BASE="-O2 -pg -ffreestanding -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-ident -fno-stack-protector
 -ffile-prefix-map=$here=."
LINK="-nostdlib -Wl,--build-id=none,-z,max-page-size=4096,-z,common-page-size=4096,-z,norelro,-z,noexecstack"

for machine in aarch64 powerpc64le; do
	short=arm64 records=mini
	[ $machine = aarch64 ] || short=ppc64le records=mini-ppc64le
	cc="$machine-linux-gnu-gcc $BASE"
	$cc -c calls.c -o "$out/$short.o"
	$cc -ffunction-sections -c calls.c -o "$out/$short-sections.o"
	$cc -fPIC -DPROGRAM $LINK -shared calls.c -o "$out/$short.so"
	$cc -fPIC -DPROGRAM $LINK -shared -Wl,-z,now,-s calls.c -o "$out/$short-stripped.so"
	$cc -fPIE -DPROGRAM $LINK -static-pie -e outer calls.c mcount.c -o "$out/$short-static-pie"
	$machine-linux-gnu-objcopy --strip-unneeded "$out/$short.o" "$out/$short-stripped.o"
	$cc -fno-pic -no-pie -DMCOUNT_IN='".far"' -DPROGRAM $LINK -static -e outer -Wl,--section-start=.far=0x20000000 \
		calls.c mcount.c -o "$out/$short-far"

	# one object with records, one without
	$cc -c calls.c -o "$obj/some.o"
	python3 ../$records/recordmcount.py "$obj/some.o"
	$cc -Dinner=inner2 -Dweakly=weakly2 -Douter=outer2 -Duntraced=untraced2 -Dstarts=starts2 -Dends=ends2 \
		-c calls.c -o "$obj/none.o"
	$machine-linux-gnu-ld -r "$obj/some.o" "$obj/none.o" -o "$out/$short-some.o"
done

cc="powerpc64le-linux-gnu-gcc $BASE"
$cc -mprofile-kernel -c calls.c -o "$out/ppc64le-mprofile.o"
$cc -mprofile-kernel -mcmodel=large -c calls.c -o "$out/ppc64le-mprofile-large.o"
$cc -mcpu=power10 -c calls.c -o "$out/ppc64le-pcrel.o"
$cc -mcpu=power10 -fPIC -DPROGRAM $LINK -shared calls.c -o "$out/ppc64le-pcrel.so"
$cc -fno-plt -fPIC -c calls.c -o "$out/ppc64le-noplt.o"

# x86_64: calls of __fentry__ and of mcount, straight, through the GOT, by a stub of the .plt; its lists of records
cc="gcc $BASE -fno-pic -no-pie -fcf-protection=none"
$cc -mfentry -c calls.c -o "$out/x86_64.o"
$cc -mfentry -ffunction-sections -c calls.c -o "$out/x86_64-sections.o"
$cc -c calls.c -o "$out/x86_64-mcount.o"
$cc -mfentry -fPIC -c calls.c -o "$out/x86_64-got.o"
$cc -mfentry -fPIC -mrecord-mcount -c calls.c -o "$out/x86_64-got-records.o"
$cc -mfentry -mcmodel=large -c calls.c -o "$out/x86_64-large.o"
objcopy --strip-unneeded "$out/x86_64.o" "$out/x86_64-stripped.o"
$cc -mfentry -D_mcount=__fentry__ -DPROGRAM $LINK -static -e outer calls.c mcount.c -o "$out/x86_64-static"
$cc -mfentry -fPIE -D_mcount=__fentry__ -DPROGRAM $LINK -static-pie -e outer calls.c mcount.c -o "$out/x86_64-static-pie"
$cc -mfentry -D_mcount=__fentry__ -DPROGRAM $LINK -shared -fPIC mcount.c -o "$obj/libmcount.so"
$cc -mfentry -DPROGRAM $LINK -e outer calls.c "$obj/libmcount.so" -o "$out/x86_64-plt"
$cc -mfentry -fcf-protection=full -DPROGRAM $LINK -e outer -Wl,-z,ibtplt calls.c "$obj/libmcount.so" -o "$out/x86_64-ibtplt"
gcc -O2 -ffreestanding -fno-ident -fno-asynchronous-unwind-tables -fcf-protection=none -fpatchable-function-entry=5 -c untraced.c -o "$out/x86_64-padding.o"
$cc -mfentry -mrecord-mcount -c calls.c -o "$obj/some.o"
$cc -mfentry -Dinner=inner2 -Dweakly=weakly2 -Douter=outer2 -Duntraced=untraced2 -Dstarts=starts2 -Dends=ends2 \
	-c calls.c -o "$obj/none.o"
ld -r "$obj/some.o" "$obj/none.o" -o "$out/x86_64-some.o"
for kind in none branch full; do
	$cc -mfentry -mrecord-mcount -fcf-protection=$kind -fpatchable-function-entry=16,16 -c calls.c \
		-o "$out/x86_64-cf-$kind.o"
done
$cc -mfentry -mrecord-mcount -mnop-mcount -fcf-protection=branch -c calls.c -o "$out/x86_64-nop.o"
$cc -mfentry -mrecord-mcount -Dinner=inner2 -Dweakly=weakly2 -Douter=outer2 -Duntraced=untraced2 -Dstarts=starts2 \
	-Dends=ends2 -c calls.c -o "$obj/calls2.o"
ld -r "$out/x86_64-nop.o" "$obj/calls2.o" -o "$out/x86_64-both.o"
$cc -mfentry -mrecord-mcount -x c++ -fno-exceptions -c comdat.cc -o "$out/x86_64-comdat.o"
chmod 644 "$out"/*.o "$out"/*.so
