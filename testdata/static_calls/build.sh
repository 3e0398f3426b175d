#!/bin/sh
# Rebuild the ELF fixtures of this directory, byte for byte.
# Made with gcc (Debian 12.2.0-14+deb12u1) 12.2.0 and GNU Binutils for Debian 2.40, on amd64.
# Usage: build.sh [OUTDIR]     (default: this directory)
set -eu
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
mkdir -p "$out"
cd "$here"
gcc -c calls.S -o "$out/calls.o"
gcc -DMODULE -c calls.S -o "$out/calls.ko"
ld -m elf_x86_64 -z noexecstack --no-warn-rwx-segments --build-id=none -T vmlinux.lds -e start_kernel \
	-o "$out/vmlinux" "$out/calls.o"
