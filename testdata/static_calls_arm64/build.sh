#!/bin/sh
# Rebuild every ELF fixture of this directory, byte for byte.
# Made with Debian clang 14.0.6, LLD 14.0.6, and the linker script and start-up code of ../mini.
# Usage: build.sh [OUTDIR]     (default: this directory)
set -eu
export LC_ALL=C
umask 022
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
mkdir -p "$out"
out=$(cd "$out" && pwd)
CLANG=${CLANG:-clang-14}
LLD=${LLD:-ld.lld-14}
obj=$(mktemp -d)
trap 'rm -rf "$obj"' EXIT
cd "$here"

BASE="--target=aarch64-linux-gnu -std=gnu11 -O2 -gdwarf-4 -ffreestanding -fno-builtin -fno-pic -fno-common
 -fno-stack-protector -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-ident -fno-omit-frame-pointer -fno-addrsig
 -mgeneral-regs-only -mstrict-align -mcmodel=small -mbranch-protection=pac-ret+bti -Wall -Wno-unused-function"
clang_() { "$CLANG" $BASE -ffile-prefix-map="$here"=. -ffile-prefix-map="$(dirname "$here")"=.. "$@"; }

# image NAME DEFINES LINK-FLAGS
image() {
	d=$obj/$1
	defs="$2 -DPFE2 -DRELOCATABLE -DBTI"
	mkdir -p "$d"
	for f in head entry-ftrace; do
		clang_ -gdwarf-4 $defs -c ../mini/$f.S -o "$d/$f.o"
	done
	clang_ $defs -c ../mini/trace.c -o "$d/trace.o"
	for f in kernel core; do
		clang_ $defs -fpatchable-function-entry=2 -c $f.c -o "$d/$f.o"
	done
	"$CLANG" --target=aarch64-linux-gnu -E -P -undef -x assembler-with-cpp $defs \
		-DKIMAGE_VADDR=0xffff800080000000 ../mini/mini.lds -o "$d/mini.lds"
	(cd "$d" && "$LLD" -EL -maarch64linux -z noexecstack -shared -Bsymbolic -z notext $3 -X -z max-page-size=4096 \
		-z norelro --build-id=sha1 -T mini.lds -o image head.o entry-ftrace.o trace.o core.o kernel.o)
	cp "$d/image" "$out/$1"
	chmod 644 "$out/$1"
}

image vmlinux-rela "" "--no-apply-dynamic-relocs"
image vmlinux-relr "-DRELR -DZERO_OK" "--pack-dyn-relocs=relr"
cp "$obj/vmlinux-rela/kernel.o" "$out/kernel.o"

for f in module.c ../mini/mini.mod.c; do
	clang_ -fpatchable-function-entry=2 -c $f -o "$obj/$(basename $f).o"
done
(cd "$obj" && "$LLD" -EL -maarch64linux -r --build-id=sha1 -T "$here/../mini/module.lds" -o mini.ko module.c.o mini.mod.c.o)
cp "$obj/mini.ko" "$out/mini.ko"
chmod 644 "$out"/*.o "$out/mini.ko"
