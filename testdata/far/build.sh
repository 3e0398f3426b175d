#!/bin/sh
# Rebuild the fixtures of this directory, byte for byte.
#
# Made with (Debian 12 "bookworm"): aarch64-linux-gnu-gcc 12.2.0-14, GNU Binutils 2.40
set -eu
export LC_ALL=C
umask 022
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
obj=$(mktemp -d)
trap 'rm -rf "$obj"' EXIT
cd "$here"
for name in vmlinux vmlinux-bti; do
	# the first moves itself, the second stays where it is linked for
	bti= pie="-pie --no-dynamic-linker -Bsymbolic"
	[ $name = vmlinux ] || { bti=-DBTI pie=; }
	aarch64-linux-gnu-gcc $bti -c far.S -o "$obj/$name.o"
	aarch64-linux-gnu-gcc -E -P -undef -x assembler-with-cpp $bti far.lds -o "$obj/far.lds"
	aarch64-linux-gnu-ld -EL -maarch64linux -z noexecstack --no-warn-rwx-segments -z max-page-size=4096 -z norelro \
		$pie -T "$obj/far.lds" -o "$out/$name" "$obj/$name.o"
	chmod 644 "$out/$name"
done
