#!/bin/sh
# Builds the objects of this folder: work.c with -pg and the tracer, linked into one relocatable file for each kind of
# call. gcc 12 of Debian bookworm for three machines.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

one() # name, compiler, options of work.c, options of tracer.S
{
	$2 -O2 $3 -fno-asynchronous-unwind-tables -c work.c -o "$work/work.o"
	$2 $4 -c tracer.S -o "$work/tracer.o"
	$2 -r -nostdlib "$work/work.o" "$work/tracer.o" -o "$1.o"
}

one arm64 aarch64-linux-gnu-gcc "-pg" ""
one ppc64le powerpc64le-linux-gnu-gcc "-pg" ""
one ppc64le-mprofile powerpc64le-linux-gnu-gcc "-pg -mprofile-kernel" "-DMPROFILE"
one x86_64-got gcc "-pg -DNESTED" ""
one x86_64 gcc "-pg -fno-pie -DNESTED" ""
one x86_64-fentry gcc "-pg -mfentry -mrecord-mcount -fno-pie -DNESTED" ""
one x86_64-nop gcc "-pg -mnop-mcount -mrecord-mcount -fno-pie" ""
