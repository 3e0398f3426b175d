#!/bin/sh
# Rebuild every ELF fixture of this directory, byte for byte.
#
# Made with (Debian 12 "bookworm", amd64 host):
#   gcc (Debian 12.2.0-14+deb12u1) 12.2.0             package gcc
#   GNU ld, as (GNU Binutils for Debian) 2.40         package binutils
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
CROSS=${CROSS:-}
PYTHON=${PYTHON:-python3}
obj=$(mktemp -d)
trap 'rm -rf "$obj"' EXIT
cd "$here"

BASE="-std=gnu11 -O2 -ffreestanding -fno-pic -fno-pie -fno-common -fno-stack-protector
 -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-ident -fno-omit-frame-pointer
 -mgeneral-regs-only -mno-red-zone -mcmodel=kernel -mpreferred-stack-boundary=3 -fno-jump-tables
 -fno-merge-constants -fno-tree-loop-distribute-patterns -fno-ipa-cp -fno-ipa-sra -fno-ipa-ra
 -Wall -Wno-unused-function"
FENTRY="-pg -mfentry -mrecord-mcount"
PADDED="-fpatchable-function-entry=16,16"

cc_() { "${CROSS}gcc" $BASE -ffile-prefix-map="$here"=. "$@"; }
ld_() { "${CROSS}ld" -m elf_x86_64 -z noexecstack --no-warn-rwx-segments --build-id=sha1 "$@"; }

# image NAME AS-FLAGS FTRACE-FLAGS LINK-FLAGS [OBJECT]: compile and link one image
image() {
	d=$obj/$1
	mkdir -p "$d"
	cc_ $2 -c entry.S -o "$d/entry.o"
	for f in kernel hooks; do
		cc_ $3 -c $f.c -o "$d/$f.o"
	done
	(cd "$d" && ld_ $4 -X -z max-page-size=4096 -T "$here/kernel.lds" -o "$1" entry.o kernel.o hooks.o ${5:-})
	cp "$d/$1" "$out/$1"
	chmod 644 "$out/$1"
}

# The call behind an endbr64, padding in front of functions, return thunks; a sorted table with nulls.
image vmlinux-fentry "-DIBT -DTHUNK" "$FENTRY $PADDED -fcf-protection=branch -mfunction-return=thunk-extern" ""
"$PYTHON" ../mini/sorttable.py "$out/vmlinux-fentry"
# The NOP in its place, no endbr64; the table as it was linked, with records of weak functions that are gone.
image vmlinux-nop "" "$FENTRY -mnop-mcount -fcf-protection=none" ""
# The relocations stay in the file.
image vmlinux-rela "-DIBT" "$FENTRY -fcf-protection=branch" "--emit-relocs"
cc_ -c static.S -o "$obj/static.o"
image vmlinux-static "-DIBT" "$FENTRY -fcf-protection=branch" "" "$obj/static.o"

cp "$obj/vmlinux-fentry/kernel.o" "$out/fentry.o"
cp "$obj/vmlinux-nop/kernel.o" "$out/nop.o"
for f in mini_mod mini_util; do
	cc_ $FENTRY $PADDED -fcf-protection=branch -mfunction-return=thunk-extern -c $f.c -o "$obj/$f.o"
done
cc_ -fcf-protection=none -c mini.mod.c -o "$obj/mini.mod.o"
(cd "$obj" && ld_ -r -T "$here/module.lds" -o mini.ko mini_mod.o mini_util.o mini.mod.o)
cp "$obj/mini.ko" "$out/mini.ko"
# The same with what objtool tells of code, and nothing compiled.
cc_ -c told.S -o "$obj/told.o"
(cd "$obj" && ld_ -r -T "$here/module.lds" -o told.ko told.o mini.mod.o)
cp "$obj/told.ko" "$out/told.ko"
chmod 644 "$out"/*.o "$out/mini.ko" "$out/told.ko"
