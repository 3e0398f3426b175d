#!/bin/sh
# Rebuild every ELF fixture of this directory, byte for byte.
#
# Made with (Debian 12 "bookworm", amd64 host):
#   aarch64-linux-gnu-gcc (Debian 12.2.0-14) 12.2.0   package gcc-aarch64-linux-gnu
#   GNU ld, as, strip (GNU Binutils for Debian) 2.40  package binutils-aarch64-linux-gnu
#   clang version 16.0.6 (15~deb12u1)                 package clang-16
#   LLD 16.0.6                                        package lld-16
#   Python 3.11, standard library only
#
# Usage: build.sh [OUTDIR]     (default: this directory)
set -eu
export LC_ALL=C
umask 022

here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
mkdir -p "$out"
out=$(cd "$out" && pwd)
CROSS=${CROSS:-aarch64-linux-gnu-}
CLANG=${CLANG:-clang-16}
LLD=${LLD:-ld.lld-16}
PYTHON=${PYTHON:-python3}
obj=$(mktemp -d)
trap 'rm -rf "$obj"' EXIT
cd "$here"

BASE="-std=gnu11 -O2 -ffreestanding -fno-pic -fno-pie -fno-common -fno-stack-protector
 -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-ident -fno-omit-frame-pointer
 -mgeneral-regs-only -mstrict-align -mcmodel=small -Wall -Wno-unused-function"
GCC_ONLY="-fno-merge-constants -fno-tree-loop-distribute-patterns -fno-ipa-cp -fno-ipa-sra -fno-ipa-ra"
CLANG_ONLY="--target=aarch64-linux-gnu -fno-builtin -fno-addrsig"

gcc_() { "${CROSS}gcc" $BASE $GCC_ONLY -ffile-prefix-map="$here"=. "$@"; }
clang_() { "$CLANG" $CLANG_ONLY $BASE -ffile-prefix-map="$here"=. "$@"; }

# objects CC DIR DEFINES FTRACE-FLAGS: the object files of one image
objects() {
	cc=$1 dir=$obj/$2 defs=$3 ft=$4
	mkdir -p "$dir"
	gcc_ $defs -c head.S -o "$dir/head.o"
	gcc_ $defs -c entry-ftrace.S -o "$dir/entry-ftrace.o"
	$cc $defs $prot -c trace.c -o "$dir/trace.o"
	for f in main a b; do
		$cc $defs $prot $ft -c $f.c -o "$dir/$f.o"
	done
}

# image LINKER NAME DEFINES LINK-FLAGS: link one image; b.o comes before a.o
image() {
	ld=$1 name=$2 defs=$3 lf=$4 d=$obj/$2
	"${CROSS}gcc" -E -P -undef -x assembler-with-cpp $defs \
		-DKIMAGE_VADDR=0xffff800080000000 mini.lds -o "$d/mini.lds"
	(cd "$d" && $ld $lf -X -z max-page-size=4096 -z norelro --build-id=sha1 \
		-T mini.lds -o "$name" head.o entry-ftrace.o trace.o b.o main.o a.o)
	cp "$d/$name" "$out/$name"
	chmod 644 "$out/$name"
}

BFD="${CROSS}ld -EL -maarch64linux -z noexecstack --no-warn-rwx-segments"
LLDC="$LLD -EL -maarch64linux -z noexecstack --no-relax"
DYN_BFD="-shared -Bsymbolic -z notext --no-apply-dynamic-relocs"
DYN_LLD="-shared -Bsymbolic -z notext --pack-dyn-relocs=relr"
PFE2="-fpatchable-function-entry=2"
CALLOPS="-fpatchable-function-entry=4,2 -falign-functions=8"

# --- images linked by GNU ld: values in .rela.dyn, or plain words -------------------
prot=-mbranch-protection=pac-ret
D="-DPFE2 -DRELOCATABLE"
objects gcc_ vmlinux-pfe2 "$D" "$PFE2"
image "$BFD" vmlinux-pfe2 "$D" "$DYN_BFD"

D="-DPFE2"
objects gcc_ vmlinux-exec "$D" "$PFE2"
image "$BFD" vmlinux-exec "$D" ""

D="-DNOTRACE -DRELOCATABLE"
objects gcc_ vmlinux-notrace "$D" ""
image "$BFD" vmlinux-notrace "$D" "$DYN_BFD"

D="-DPG"
objects gcc_ vmlinux-pg "$D" "-pg"
for f in main a b; do
	"$PYTHON" recordmcount.py "$obj/vmlinux-pg/$f.o"
done
image "$BFD" vmlinux-pg "$D" ""

prot=-mbranch-protection=pac-ret+bti
D="-DPFE2 -DRELOCATABLE -DBTI"
objects gcc_ vmlinux-pfe2-bti "$D" "$PFE2"
image "$BFD" vmlinux-pfe2-bti "$D" "$DYN_BFD"

# --- images linked by lld: values in place, covered by .relr.dyn, sorted ------------
prot=-mbranch-protection=pac-ret
D="-DCALLOPS -DRELOCATABLE -DRELR -DZERO_OK"
objects gcc_ vmlinux-callops "$D" "$CALLOPS"
image "$LLDC" vmlinux-callops "$D" "$DYN_LLD"

prot=-mbranch-protection=pac-ret+bti
D="-DCALLOPS -DRELOCATABLE -DRELR -DZERO_OK -DBTI"
objects gcc_ vmlinux-callops-bti "$D" "$CALLOPS"
image "$LLDC" vmlinux-callops-bti "$D" "$DYN_LLD"

D="-DPFE2 -DRELOCATABLE -DRELR -DZERO_OK"
prot="-mbranch-protection=pac-ret -fsanitize=kcfi"
objects clang_ vmlinux-kcfi "$D" "$PFE2"
image "$LLDC" vmlinux-kcfi "$D" "$DYN_LLD"

for f in vmlinux-callops vmlinux-callops-bti vmlinux-kcfi; do
	"$PYTHON" sorttable.py "$out/$f"
done

# --- relocatable objects ------------------------------------------------------------
cp "$obj/vmlinux-pfe2/a.o" "$out/pfe2.o"
cp "$obj/vmlinux-callops/a.o" "$out/callops.o"
cp "$obj/vmlinux-pg/a.o" "$out/pg.o"
clang_ -mbranch-protection=pac-ret -ffunction-sections $PFE2 -c a.c -o "$out/clang-sections.o"

prot=-mbranch-protection=pac-ret
for f in mini_mod mini_util; do
	gcc_ $prot $CALLOPS -c $f.c -o "$obj/$f.o"
done
gcc_ -c mini.mod.c -o "$obj/mini.mod.o"
cp module.lds "$obj"
(cd "$obj" && $BFD -r --build-id=sha1 -T module.lds -o mini.ko \
	mini_mod.o mini_util.o mini.mod.o)
cp "$obj/mini.ko" "$out/mini.ko"

# --- a user-space program -----------------------------------------------------------
"${CROSS}gcc" -std=gnu11 -O2 -ffreestanding -fpie -fno-stack-protector -fno-ident \
	-fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns -fno-ipa-ra \
	-Wall -ffile-prefix-map="$here"=. $PFE2 -c program.c -o "$obj/program.o"
(cd "$obj" && $BFD -pie --no-dynamic-linker -z max-page-size=4096 -z noseparate-code \
	--build-id=sha1 -o program program.o)
cp "$obj/program" "$out/program"
chmod 755 "$out/program"
chmod 644 "$out"/*.o "$out/mini.ko"
