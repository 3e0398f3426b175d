#!/bin/sh
# Rebuild every ELF fixture of this directory, byte for byte.
#
# Made with (Debian 12 "bookworm", amd64 host):
#   powerpc64le-linux-gnu-gcc (Debian 12.2.0-14) 12.2.0   package gcc-powerpc64le-linux-gnu
#   GNU ld, as, objcopy (GNU Binutils for Debian) 2.40    package binutils-powerpc64le-linux-gnu
#   clang version 16.0.6 (15~deb12u1)                     package clang-16
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
CROSS=${CROSS:-powerpc64le-linux-gnu-}
CLANG=${CLANG:-clang-16}
PYTHON=${PYTHON:-python3}
obj=$(mktemp -d)
trap 'rm -rf "$obj"' EXIT
cd "$here"

BASE="-std=gnu11 -O2 -ffreestanding -fno-pic -fno-pie -fno-common -fno-stack-protector
 -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-ident -mcpu=power8 -msoft-float
 -mno-altivec -mno-vsx -Wall -Wno-unused-function"
GCC_ONLY="-mtraceback=no -ffixed-r13 -fno-merge-constants -fno-tree-loop-distribute-patterns
 -fno-ipa-cp -fno-ipa-sra -fno-ipa-ra"
CLANG_ONLY="--target=powerpc64le-linux-gnu -fno-builtin -fno-addrsig -fno-integrated-as"

gcc_() { "${CROSS}gcc" $BASE $GCC_ONLY -ffile-prefix-map="$here"=. "$@"; }
as_() { "${CROSS}as" -mpower10 -many "$@"; }

# compile FORM FLAGS SOURCE OBJECT: FORM is plain, or what pfe.py does to the assembly
compile() {
	form=$1 flags=$2 src=$3 o=$4
	case $form in
	plain) gcc_ $flags -c $src -o "$o" ;;
	clang)
		"$CLANG" $CLANG_ONLY $BASE $flags -S $src -o "$o.s"
		"$PYTHON" pfe.py clang --skip notrace_helper < "$o.s" > "$o.pfe.s"
		as_ "$o.pfe.s" -o "$o" ;;
	*)
		gcc_ $flags -S $src -o "$o.s"
		"$PYTHON" pfe.py $form < "$o.s" > "$o.pfe.s"
		as_ "$o.pfe.s" -o "$o" ;;
	esac
}

# objects DIR DEFINES FORM FTRACE-FLAGS
objects() {
	d=$obj/$1 defs=$2 form=$3 ft=$4
	mkdir -p "$d"
	for f in head entry-ftrace asm btf; do
		gcc_ $defs -c $f.S -o "$d/$f.o"
	done
	gcc_ -mcmodel=medium $defs -c trace.c -o "$d/trace.o"
	for f in main a b setup paca; do
		compile "$form" "-mcmodel=medium $defs $ft" $f.c "$d/$f.o"
	done
	case $defs in *PCREL*)
		compile "$form" "$defs $ft -mcpu=power10 -mpcrel" pcrel.c "$d/pcrel.o" ;;
	esac
}

# records OBJECT... : symbol + addend of every record
records() {
	"${CROSS}readelf" -rW "$@" | awk '
		/^Relocation section/ { on = index($0, ".rela__patchable_function_entries") }
		on && /R_PPC64_ADDR64/ { print $5 }'
}

# image NAME DEFINES: link; b.o comes before a.o, and ftrace_caller between them
image() {
	name=$1 defs=$2 d=$obj/$1
	"${CROSS}gcc" -E -P -undef -x assembler-with-cpp $defs mini.lds -o "$d/mini.lds"
	list="head.o setup.o paca.o b.o asm.o trace.o main.o entry-ftrace.o a.o btf.o"
	case $defs in *PCREL*) list="$list pcrel.o" ;; esac
	case $defs in *SAVED*) list="$list saved.o" ;; esac
	case $defs in *OOL*)
		(cd "$d" && "${CROSS}ld" -r -o all.o $list)
		init=$(records "$d/all.o" | grep -c '^\.init\.text')
		text=$(records "$d/all.o" | grep -vc '^\.init\.text')
		gcc_ $defs -DOOL_TEXT_END=$((text - 4)) -DOOL_INITTEXT=$init -c ool-stubs.S -o "$d/ool-stubs.o"
		list="$list ool-stubs.o" ;;
	esac
	(cd "$d" && "${CROSS}ld" -m elf64lppc -pie -z notext -z noexecstack \
		-z max-page-size=4096 -z common-page-size=4096 --no-warn-rwx-segments -X \
		-z norelro --build-id=sha1 --hash-style=sysv $lf -T mini.lds -o "$name" $list)
	cp "$d/$name" "$out/$name"
	chmod 644 "$out/$name"
}

# --- bl _mcount -----------------------------------------------------------------------
lf=
D="-DMPROFILE -DUNSORTED_RELA"
objects vmlinux-mprofile "$D" plain "-pg -mprofile-kernel"
for f in main a b setup paca asm; do
	"$PYTHON" recordmcount.py "$obj/vmlinux-mprofile/$f.o"
done
image vmlinux-mprofile "$D"

# the same, and functions built with -Os, whose own prologue is a call
D="$D -DSAVED"
objects vmlinux-saved "$D" plain "-pg -mprofile-kernel"
compile plain "-mcmodel=medium $D -Os -pg -mprofile-kernel" saved.c "$obj/vmlinux-saved/saved.o"
for f in main a b setup paca asm saved; do
	"$PYTHON" recordmcount.py "$obj/vmlinux-saved/$f.o"
done
image vmlinux-saved "$D"
lf=--no-dynamic-linker

D="-DPG"
objects vmlinux-pg "$D" plain "-pg"
for f in main a b setup paca asm; do
	"$PYTHON" recordmcount.py "$obj/vmlinux-pg/$f.o"
done
image vmlinux-pg "$D"

# --- two NOPs at the local entry --------------------------------------------------------
D="-DPFE2 -DPCREL"
objects vmlinux-pfe2 "$D" "gcc --link own" "-fpatchable-function-entry=2"
image vmlinux-pfe2 "$D"

D="-DPFE2 -DFAR"
objects vmlinux-far "$D" "gcc --link own" "-fpatchable-function-entry=2"
image vmlinux-far "$D"

D="-DPFE2 -DFAR -DISLAND"
objects vmlinux-unreachable "$D" "gcc --link own" "-fpatchable-function-entry=2"
image vmlinux-unreachable "$D"

# --- NOPs elsewhere -----------------------------------------------------------------------
D="-DPFE2 -DGCC12"
objects vmlinux-gcc12 "$D" plain "-fpatchable-function-entry=2"
image vmlinux-gcc12 "$D"

D="-DPFE2 -DNM"
objects vmlinux-nm "$D" "nm --link own" "-fpatchable-function-entry=4,2"
image vmlinux-nm "$D"

# --- one NOP at the local entry, the rest out of line -----------------------------------------
D="-DOOL -DCALL_OPS"
objects vmlinux-ool "$D" "gcc --link own" "-fpatchable-function-entry=1"
image vmlinux-ool "$D"

D="-DOOL"
objects vmlinux-ool-noops "$D" "gcc --link own" "-fpatchable-function-entry=1"
image vmlinux-ool-noops "$D"

D="-DOOL -DCALL_OPS -DCLANG"
objects vmlinux-clang "$D" clang "-mcmodel=medium"
image vmlinux-clang "$D"

# --- relocatable objects ----------------------------------------------------------------
compile gcc "-mcmodel=medium -DPFE2 -fpatchable-function-entry=2" a.c "$obj/pfe2.o"
cp "$obj/pfe2.o" "$out/pfe2.o"
cp "$obj/vmlinux-mprofile/a.o" "$out/mprofile.o"
cp "$obj/vmlinux-clang/a.o" "$out/clang.o"

for f in mini_mod mini_util; do
	compile gcc "-mcmodel=large -g -gno-record-gcc-switches -fpatchable-function-entry=1" $f.c "$obj/$f.o"
done
gcc_ -mcmodel=large -c mini.mod.c -o "$obj/mini.mod.o"
cp module.lds "$obj"
(cd "$obj" && "${CROSS}ld" -m elf64lppc -r --build-id=sha1 -T module.lds -o mini-debug.ko \
	mini_mod.o mini_util.o mini.mod.o)
"${CROSS}objcopy" --strip-debug "$obj/mini-debug.ko" "$out/mini.ko"
"${CROSS}objcopy" --only-keep-debug "$obj/mini-debug.ko" "$out/debug-only.ko"
"${CROSS}objcopy" -j .BTF "$out/vmlinux-pfe2" "$out/headers-vmlinux"
chmod 644 "$out"/*.o "$out"/*.ko "$out/headers-vmlinux"
