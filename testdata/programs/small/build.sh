#!/bin/sh
# Debian 12: gcc 12 of each machine. Each file is linked without a C library, so that it stays small.
set -e
cd "$(dirname "$0")"
tmp=$(mktemp -d); trap 'rm -r "$tmp"' EXIT
echo 'void outside(unsigned long site, unsigned long caller) {}' > "$tmp/outside.c"
build() { # machine, compiler, options of sites
	machine=$1 cc=$2 sites=$3
	options="-O2 -fno-asynchronous-unwind-tables -fno-stack-protector -nostdlib -Wl,-z,separate-code,-z,max-page-size=4096,--build-id=none"
	$cc $options -fPIC -shared "$tmp/outside.c" -o "$tmp/liboutside.so" -Wl,-soname,liboutside.so
	for kind in pie exec so; do
		case $kind in
		pie) link="-fPIE -pie -Wl,-z,now" ;;
		exec) link="-fno-pie -no-pie -Wl,-z,lazy,-z,noseparate-code" ;;
		so) link="-fPIC -shared -Wl,-z,lazy,-soname,small.so" ;;
		esac
		source=small.c
		if [ "$machine" = ppc64le ]; then
			source=$tmp/small.s
			$cc $options $link -S small.c -o "$source"
			python3 sites.py "$source" work numbers vectors structure nothing
		fi
		$cc $options $sites $link -Wl,-e,start $source "direct-$machine.S" "$tmp/liboutside.so" -o "$machine-$kind"
	done
}
build arm64 aarch64-linux-gnu-gcc -fpatchable-function-entry=2
build x86_64 gcc -fpatchable-function-entry=5
build ppc64le powerpc64le-linux-gnu-gcc ""
